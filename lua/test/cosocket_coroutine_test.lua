local cosocket = require("cosocket")
local test = require("test")

--- A wait that really parks, and answers its argument.
local function wait(value)
  cosocket.sleep(0.001)
  return value
end

--- What a wait raises where Lua cannot yield.
local function raises_inside(name, fn)
  local message = test.raises("cannot wait inside " .. name, fn)
  test.matches(message, "wait before or after it")
end

return {
  ["a wait crosses"] = {
    ["pcall and xpcall, and errors after it are caught"] = function()
      test.equal({ pcall(wait, 1) }, { true, 1 })
      test.equal({ xpcall(wait, print, 2) }, { true, 2 })
      local ok, err = pcall(function()
        wait()
        error("after", 0)
      end)
      test.equal({ ok, err }, { false, "after" })
      ok, err = xpcall(function()
        wait()
        error("after", 0)
      end, function(message) return message .. " handled" end)
      test.equal({ ok, err }, { false, "after handled" })
      test.equal({ pcall(pcall, xpcall, wait, print, 3) }, { true, true, true, 3 })
    end,

    ["every metamethod"] = function()
      local meta = {}
      local one, other = setmetatable({}, meta), setmetatable({}, meta)
      for _, name in ipairs({
        "__add", "__sub", "__mul", "__div", "__mod", "__pow", "__unm", "__idiv", "__band", "__bor", "__bxor", "__shl",
        "__shr", "__bnot", "__concat", "__len", "__index", "__call",
      }) do
        meta[name] = function() return wait(name) end
      end
      for _, name in ipairs({ "__eq", "__lt", "__le" }) do
        meta[name] = function() return wait(true) end
      end
      local set
      meta.__newindex = function(_, key, value)
        wait()
        set = { key, value }
      end
      test.equal({ one + other, one - 1, 1 * one, one / 1, one % 1, one ^ 1, -one, one // 1 },
        { "__add", "__sub", "__mul", "__div", "__mod", "__pow", "__unm", "__idiv" })
      test.equal({ one & 1, one | 1, one ~ 1, one << 1, one >> 1, ~one }, { "__band", "__bor", "__bxor", "__shl", "__shr", "__bnot" })
      test.equal({ one .. "x", "x" .. one, #one, one.field, one[1], one(1, 2) },
        { "__concat", "__concat", "__len", "__index", "__index", "__call" })
      test.equal({ one == other, one ~= other, one < other, one <= other, one > other, not (one >= other) },
        { true, false, true, true, true, false })
      one.key = "value"
      test.equal(set, { "key", "value" })
    end,

    ["a chain of concatenations"] = function()
      local meta = { __concat = function(a, b) return wait((type(a) == "table" and "T" or a) .. (type(b) == "table" and "T" or b)) end }
      local thing = setmetatable({}, meta)
      test.equal("a" .. thing .. "b" .. thing .. "c", "aTbTc")
    end,

    ["<close> variables, in order, on every way out"] = function()
      local log = {}
      local function closer(name)
        return setmetatable({}, { __close = function(_, err)
          wait()
          log[#log + 1] = name .. (err and "!" or "")
        end })
      end
      local function leave(how)
        for i = 1, 2 do
          local outer <close> = closer("outer" .. i)
          do
            local inner <close> = closer("inner" .. i)
            if how == "error" then error("out") end
            if how == "return" then return wait("returned") end
            if how == "break" then break end
          end
        end
      end
      leave()
      test.equal(log, { "inner1", "outer1", "inner2", "outer2" })
      log = {}
      test.equal(leave("return"), "returned")
      test.equal(log, { "inner1", "outer1" })
      log = {}
      leave("break")
      test.equal(log, { "inner1", "outer1" })
      log = {}
      pcall(leave, "error")
      test.equal(log, { "inner1!", "outer1!" })
    end,

    ["iterators, and the closing value of a loop"] = function()
      local closed
      local function upto(n)
        return function(_, i)
          wait()
          if i < n then return i + 1 end
        end, nil, 0, setmetatable({}, { __close = function() closed = wait(true) end })
      end
      local sum = 0
      for i in upto(5) do sum = sum + i end
      test.equal({ sum, closed }, { 15, true })
      local list = setmetatable({}, { __pairs = function()
        wait()
        return function(_, key)
          wait()
          if not key then return 1, "one" end
        end
      end })
      for key, value in pairs(list) do test.equal({ key, value }, { 1, "one" }) end
    end,

    ["generators three deep, and the values come out in order"] = function()
      local one, other = cosocket.pair()
      cosocket.spawn(function()
        for i = 1, 20 do
          other:write(i .. "\n")
          other:flush()
          cosocket.sleep(0.01)
        end
        other:close()
      end)
      local function lines()
        return coroutine.wrap(function()
          for line in function() return (one:read_line()) end do coroutine.yield(line) end
        end)
      end
      local function numbers()
        return coroutine.wrap(function()
          for line in lines() do coroutine.yield(tonumber(line)) end
        end)
      end
      local function squares()
        return coroutine.wrap(function()
          for number in numbers() do
            wait()
            coroutine.yield(number * number)
          end
        end)
      end
      local seen = {}
      for square in squares() do seen[#seen + 1] = square end
      test.equal(#seen, 20)
      for i = 1, 20 do test.equal(seen[i], i * i) end
    end,

    ["coroutine.resume, which still answers what is yielded and raised"] = function()
      local co = coroutine.create(function(a)
        wait()
        local b = coroutine.yield(a + 1)
        wait()
        coroutine.yield(b + 1)
        wait()
        error("end", 0)
      end)
      test.equal({ coroutine.resume(co, 1) }, { true, 2 })
      test.equal(coroutine.status(co), "suspended")
      test.equal({ coroutine.resume(co, 10) }, { true, 11 })
      test.equal({ coroutine.resume(co) }, { false, "end" })
      test.equal(coroutine.status(co), "dead")
      test.equal({ coroutine.resume(co) }, { false, "cannot resume dead coroutine" })
    end,

    ["thirty coroutines deep"] = function()
      local function deep(n)
        if n == 0 then return wait("bottom") end
        return coroutine.wrap(deep)(n - 1)
      end
      test.equal(deep(30), "bottom")
    end,
  },

  ["where Lua cannot yield the error names the call"] = {
    ["table.sort"] = function()
      raises_inside("table.sort", function()
        table.sort({ 3, 1, 2 }, function(a, b)
          wait()
          return a < b
        end)
      end)
    end,

    ["string.gsub, through pcall as well"] = function()
      raises_inside("string.gsub", function() ("abc"):gsub(".", wait) end)
      raises_inside("string.gsub", function()
        ("abc"):gsub(".", function()
          local ok, err = pcall(wait)
          if not ok then error(err, 0) end
        end)
      end)
    end,

    ["tostring and load"] = function()
      local thing = setmetatable({}, { __tostring = function() return wait("text") end })
      raises_inside("_G.tostring", function() tostring(thing) end)
      local ok, message = pcall(load, function() wait() end)
      message = ok and select(2, load(function() wait() end)) or message
      test.matches(tostring(message), "cannot wait inside _G.load")
    end,

    ["a coroutine resumed inside them"] = function()
      raises_inside("table.sort", function()
        table.sort({ 3, 1, 2 }, function(a, b)
          coroutine.wrap(function() wait() end)()
          return a < b
        end)
      end)
      raises_inside("string.gsub", function()
        ("abc"):gsub(".", function()
          assert(coroutine.resume(coroutine.create(function()
            coroutine.wrap(function() pcall(pcall) wait() end)()
          end)))
        end)
      end)
    end,

    ["a finaliser"] = function()
      local message
      do
        setmetatable({}, { __gc = function()
          local ok, err = pcall(wait)
          message = not ok and tostring(err)
        end })
      end
      collectgarbage()
      collectgarbage()
      test.matches(message, "cannot wait inside ")
      test.matches(message, "__gc")
    end,

    ["and everything goes on as before"] = function()
      pcall(table.sort, { 3, 1, 2 }, function() wait() end)
      test.equal(wait("fine"), "fine")
      -- Inside, what does not have to wait works.
      local one, other = cosocket.pair()
      other:write("abc")
      other:flush()
      local read
      table.sort({ 2, 1 }, function(a, b)
        read = read or one:read()
        return a < b
      end)
      test.equal(read, "abc")
    end,
  },

  ["user code cannot"] = {
    ["resume, wrap or close a coroutine that waits"] = function()
      local inner
      local task = cosocket.spawn(function()
        inner = coroutine.create(function() return cosocket.sleep(100) end)
        coroutine.resume(inner)
      end)
      cosocket.sleep(1)
      test.equal({ coroutine.resume(inner) }, { false, "cannot resume a coroutine that waits for the network" })
      test.equal(coroutine.status(inner), "normal")
      test.raises("cannot close a coroutine that waits for the network", coroutine.close, inner)
      test.equal(task:status(), "waiting")
      task:cancel()
    end,

    ["call a wrapped generator that waits"] = function()
      local generate
      local task = cosocket.spawn(function()
        generate = coroutine.wrap(function() cosocket.sleep(100) end)
        generate()
      end)
      cosocket.sleep(1)
      test.raises("cannot resume a coroutine that waits for the network", generate)
      test.equal(task:status(), "waiting")
      task:cancel()
    end,

    ["resume or close a task"] = function()
      local thread
      local task = cosocket.spawn(function()
        thread = coroutine.running()
        cosocket.sleep(100)
      end)
      cosocket.sleep(1)
      test.matches(select(2, coroutine.resume(thread)), "^cannot resume a task")
      test.raises("cannot close a coroutine", coroutine.close, thread)
      test.equal(task:status(), "waiting")
      task:cancel()
      cosocket.sleep(0)
      test.matches(select(2, coroutine.resume(thread)), "^cannot resume")
    end,
  },

  ["the coroutine library is otherwise what it was"] = function()
    local co = coroutine.wrap(function(...)
      local got = table.pack(...)
      while true do got = table.pack(coroutine.yield(got.n, table.unpack(got, 1, got.n))) end
    end)
    test.equal(table.pack(co(1, nil)), { 2, 1, nil, n = 3 })
    test.equal(table.pack(co()), { 0, n = 1 })
    test.raises("oh", coroutine.wrap(function() error("oh") end))
    local err = {}
    test.equal(select(2, pcall(coroutine.wrap(function() error(err, 0) end))), err)
    test.raises("cannot resume dead coroutine", function()
      local once = coroutine.wrap(function() end)
      once()
      once()
    end)
    test.raises("cannot resume non%-suspended coroutine", function()
      local me
      me = coroutine.wrap(function() me() end)
      me()
    end)
    local closed = false
    local half = coroutine.create(function()
      local mark <close> = setmetatable({}, { __close = function() closed = true end })
      coroutine.yield()
    end)
    coroutine.resume(half)
    test.equal({ coroutine.close(half), closed }, { true, true })
    test.equal(coroutine.isyieldable(), true)
    test.equal(select("#", coroutine.resume(coroutine.create(function() return table.unpack({}, 1, 200) end))), 201)
  end,

  ["a generator that is too deep in calls to be resumed says so, and can be later"] = function()
    local generators, answers = {}, {}
    local function deeper() return (("x"):gsub(".", deeper)) end
    -- The handler runs where the calls are too deep already.
    local ok, err = xpcall(deeper, function(message)
      local generator = coroutine.wrap(function(...) return "fine", ... end)
      generators[#generators + 1] = generator
      answers[#answers + 1] = { pcall(generator, 1, 2) }
      return message
    end)
    test.equal({ ok, err }, { false, "C stack overflow" })
    test.equal(answers, { { false, "C stack overflow" } })
    collectgarbage()
    test.equal({ generators[1](3) }, { "fine", 3 })
    local refused, why = pcall(function() generators[1]() end)
    test.equal(refused, false)
    test.matches(why, "^[%w_/.]+:%d+: cannot resume dead coroutine$")
  end,

  ["a plain yield in a task lets others run"] = function()
    local ran = 0
    local task = cosocket.spawn(function()
      for _ = 1, 5 do
        ran = ran + 1
        coroutine.yield("dropped")
      end
      return "end"
    end)
    test.equal(task:join(), "end")
    test.equal(ran, 5)
  end,

  ["a collection at any moment is harmless"] = {
    ["in the middle of reads and writes"] = function()
      local garbage = setmetatable({}, { __mode = "k" })
      local one, other = cosocket.pair()
      cosocket.spawn(function()
        for i = 1, 300 do
          other:write("line ", i, "\n")
          collectgarbage("step")
          if i % 50 == 0 then
            collectgarbage()
            cosocket.sleep(0)
          end
        end
        other:close()
      end)
      local count = 0
      for line in function() return (one:read_line()) end do
        count = count + 1
        test.equal(line, "line " .. count)
        garbage[{}] = setmetatable({}, { __gc = function()
          -- Finalisers may come back to the runtime: nothing here may wait, all of it may run.
          cosocket.now()
          cosocket.tasks()
          local queue = cosocket.queue()
          queue:put(1)
          local left, right = cosocket.pair()
          left:write("x")
          right:close()
          cosocket.buffer("abc"):append("d"):take(2)
          pcall(left.read, left)
          pcall(cosocket.spawn, function() cosocket.sleep(0) end)
        end })
        collectgarbage("step", 100)
      end
      test.equal(count, 300)
    end,

    ["and closes sockets nobody holds"] = function()
      local one
      do
        local other
        one, other = cosocket.pair()
        other:write("last words")
      end
      collectgarbage()
      collectgarbage()
      test.equal(one:read_all(), "last words")
    end,

    ["while tasks are made, joined, cancelled and dropped"] = function()
      local stop = false
      cosocket.spawn(function()
        while not stop do
          collectgarbage("step")
          cosocket.sleep(0.001)
        end
      end)
      for i = 1, 300 do
        local task = cosocket.spawn(function()
          local mark <close> = setmetatable({}, { __close = function() collectgarbage("step") end })
          cosocket.sleep(i % 3)
          return i
        end)
        if i % 3 == 0 then
          test.equal(task:join(), i)
        elseif i % 3 == 1 then
          cosocket.sleep(0)
          task:cancel()
        end
        if i % 40 == 0 then collectgarbage() end
      end
      stop = true
    end,

    ["in finalisers that close, cancel and wake"] = function()
      for _ = 1, 50 do
        local one, other = cosocket.pair()
        local queue = cosocket.queue()
        local reader = cosocket.spawn(function() return one:read() end)
        local getter = cosocket.spawn(function() return queue:get() end)
        cosocket.sleep(0)
        setmetatable({}, { __gc = function()
          other:close()
          queue:close()
        end })
        collectgarbage()
        collectgarbage()
        test.fails("closed", reader:join())
        test.fails("closed", getter:join())
      end
    end,
  },
}
