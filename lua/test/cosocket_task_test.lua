local cosocket = require("cosocket")
local test = require("test")

--- What `cosocket.tasks` tells of the task called `name`.
local function entry_of(name)
  for _, entry in ipairs(cosocket.tasks()) do
    if entry.name == name then return entry end
  end
end

--- A value whose `<close>` calls `fn`.
local function on_close(fn)
  return setmetatable({}, { __close = function() fn() end })
end

return {
  ["time is that of the system, with its fraction, and does not jump with the clock of tests"] = function()
    local began = cosocket.time()
    test.near(began, os.time(), 2)
    cosocket.sleep(1000)
    local later
    repeat later = cosocket.time() until later ~= began
    assert(later > began and later < began + 0.5, later - began)
  end,

  ["join answers everything the function returned"] = function()
    local task = cosocket.spawn(function(...)
      cosocket.sleep(1)
      return select("#", ...), nil, "last", nil
    end, nil, nil)
    test.equal(table.pack(task:join()), { 2, nil, "last", nil, n = 4 })
    test.equal(task:status(), "done")
  end,

  ["several tasks may join one, and again after its end"] = function()
    local task = cosocket.spawn(function()
      cosocket.sleep(1)
      return "answer"
    end)
    local joiners = {}
    for i = 1, 10 do joiners[i] = cosocket.spawn(function() return task:join() end) end
    for _, joiner in ipairs(joiners) do test.equal(joiner:join(), "answer") end
    test.equal(task:join(), "answer")
  end,

  ["a task that joins itself is told"] = function()
    local me
    me = cosocket.spawn(function() return pcall(me.join, me) end)
    local ok, err = me:join()
    test.equal(ok, false)
    test.matches(err.message, "a task cannot wait for itself")
  end,

  ["join of a cancelled task answers a cancelled error"] = function()
    local task = cosocket.spawn(function() cosocket.sleep(100) end)
    cosocket.sleep(0)
    task:cancel()
    test.fails("cancelled", task:join())
    test.equal(task:status(), "cancelled")
    test.fails("cancelled", task:join())
  end,

  ["a task cancelled before its first turn never runs"] = function()
    local ran = false
    local task = cosocket.spawn(function() ran = true end)
    task:cancel()
    test.fails("cancelled", task:join())
    test.equal(ran, false)
  end,

  ["a join that times out leaves the task alone"] = function()
    local task = cosocket.spawn(function()
      cosocket.sleep(10)
      return "done"
    end)
    test.fails("timeout", cosocket.deadline(1, task.join, task))
    test.equal(task:status(), "waiting")
    test.equal(task:join(), "done")
  end,

  ["tasks are named, counted and listed with what they wait for, since when and where"] = function()
    local one = cosocket.pair()
    local reader = cosocket.spawn("the reader", function() one:read_line() end)
    local sleeper = cosocket.spawn(function() cosocket.sleep(50) end)
    cosocket.sleep(2)
    local entry = test.truthy(entry_of("the reader"))
    test.equal(entry.status, "waiting")
    test.matches(entry.waits_for, "^read_line")
    test.near(entry.since, 2, 0.001)
    test.matches(entry.line, "cosocket_task_test.lua:%d+$")
    test.matches(sleeper:name(), "^task %d+$")
    test.equal(sleeper:name("renamed"), "renamed")
    test.equal(entry_of("renamed").waits_for, "sleep")
    reader:cancel()
    sleeper:cancel()
    cosocket.sleep(0)
    test.equal(entry_of("the reader"), nil)
    test.equal(entry_of("renamed"), nil)
    test.equal(reader:name(), "the reader")
  end,

  ["a task's status follows it from ready to its end"] = function()
    local inside
    local task
    task = cosocket.spawn(function()
      inside = task:status()
      cosocket.sleep(1)
    end)
    test.equal(task:status(), "ready")
    cosocket.sleep(0.5)
    test.equal(inside, "running")
    test.equal(task:status(), "waiting")
    task:join()
    test.equal(task:status(), "done")
  end,

  ["cancelling"] = {
    ["runs <close> variables at once, the inner ones first"] = function()
      local order = {}
      local task = cosocket.spawn(function()
        local outer <close> = on_close(function() order[#order + 1] = "outer" end)
        local inner <close> = on_close(function() order[#order + 1] = "inner" end)
        cosocket.sleep(100)
      end)
      cosocket.sleep(1)
      task:cancel()
      cosocket.sleep(0)
      test.equal(order, { "inner", "outer" })
      test.equal(task:status(), "cancelled")
    end,

    ["ends waits inside <close> as well, and runs the other ones"] = function()
      local order = {}
      local task = cosocket.spawn(function()
        local outer <close> = on_close(function() order[#order + 1] = "outer" end)
        local inner <close> = on_close(function()
          order[#order + 1] = "inner"
          cosocket.sleep(100)
          order[#order + 1] = "not reached"
        end)
        cosocket.sleep(100)
      end)
      cosocket.sleep(1)
      local began = cosocket.now()
      task:cancel()
      test.fails("cancelled", task:join())
      test.equal(order, { "inner", "outer" })
      test.equal(cosocket.now(), began)
    end,

    ["closes the sockets the task reads, at once"] = function()
      local one, other = cosocket.pair()
      local task = cosocket.spawn(function() one:read() end)
      cosocket.sleep(1)
      task:cancel()
      test.fails("closed", other:read())
      test.fails("closed", one:write("x"))
    end,

    ["reaches through generators, pcall and iterators"] = function()
      local closed = 0
      local function source()
        return coroutine.wrap(function()
          local mark <close> = on_close(function() closed = closed + 1 end)
          while true do
            cosocket.sleep(10)
            coroutine.yield(1)
          end
        end)
      end
      local task = cosocket.spawn(function()
        for _ in coroutine.wrap(function()
          for value in source() do coroutine.yield(value) end
        end) do end
      end)
      cosocket.sleep(25)
      task:cancel()
      test.fails("cancelled", task:join())
      test.equal(closed, 1)
    end,

    ["ends a task that catches the error and goes on"] = function()
      local rounds = 0
      local task = cosocket.spawn(function()
        while true do
          pcall(cosocket.sleep, 1)
          rounds = rounds + 1
        end
      end)
      cosocket.sleep(3.5)
      task:cancel()
      test.fails("cancelled", task:join())
      assert(rounds > 3)
    end,

    ["ends a task that catches the error in a coroutine of its own"] = function()
      local task = cosocket.spawn(function()
        local co = coroutine.create(function()
          while true do pcall(cosocket.sleep, 1) end
        end)
        coroutine.resume(co)
      end)
      cosocket.sleep(1)
      task:cancel()
      test.fails("cancelled", task:join())
    end,

    ["ends a task in each kind of wait"] = function()
      local one = cosocket.pair()
      local full = cosocket.queue(1)
      full:put(1)
      local taken = cosocket.semaphore(1)
      taken:acquire()
      local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local udp = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      local forever = cosocket.spawn(function() cosocket.sleep(1e6) end)
      local waits = {
        sleep = function() cosocket.sleep(1000) end,
        read = function() one:read() end,
        get = function() cosocket.queue():get() end,
        put = function() full:put(2) end,
        acquire = function() taken:acquire() end,
        event = function() cosocket.event():wait() end,
        select = function() cosocket.select(cosocket.event(), 500) end,
        join = function() forever:join() end,
        accept = function() listener:accept() end,
        receive = function() udp:receive() end,
        group = function()
          cosocket.group(function() cosocket.spawn(function() cosocket.sleep(1000) end) end)
        end,
        deadline = function() cosocket.deadline(800, cosocket.sleep, 900) end,
      }
      local tasks = {}
      for name, wait in pairs(waits) do tasks[name] = cosocket.spawn(name, wait) end
      cosocket.sleep(0.01)
      local began = cosocket.now()
      for name, task in pairs(tasks) do
        test.equal(task:status(), "waiting", name)
        task:cancel()
        test.fails("cancelled", task:join())
      end
      test.near(cosocket.now(), began, 0.5)
      forever:cancel()
    end,

    ["while a group waits for its children ends the children"] = function()
      local closed = 0
      local task = cosocket.spawn(function()
        cosocket.group(function()
          for _ = 1, 3 do
            cosocket.spawn(function()
              local mark <close> = on_close(function() closed = closed + 1 end)
              cosocket.group(function()
                cosocket.spawn(function()
                  local inner <close> = on_close(function() closed = closed + 1 end)
                  cosocket.sleep(1000)
                end)
              end)
            end)
          end
        end)
      end)
      cosocket.sleep(1)
      local began = cosocket.now()
      task:cancel()
      test.fails("cancelled", task:join())
      test.equal(closed, 6)
      test.equal(cosocket.now(), began)
    end,

    ["twice is cancelling once, and after the end it is nothing"] = function()
      local task = cosocket.spawn(function() cosocket.sleep(10) end)
      cosocket.sleep(1)
      task:cancel()
      task:cancel()
      test.fails("cancelled", task:join())
      local done = cosocket.spawn(function() return 1 end)
      test.equal(done:join(), 1)
      done:cancel()
      test.equal(done:status(), "done")
    end,

    ["ends a task that always has something to read"] = function()
      local one, other = cosocket.pair()
      local writer = cosocket.spawn(function()
        while other:write(("x"):rep(1000)) do end
      end)
      local reader = cosocket.spawn(function()
        while true do one:read(1) end
      end)
      for _ = 1, 10 do coroutine.yield() end
      reader:cancel()
      test.fails("cancelled", reader:join())
      writer:cancel()
    end,

    ["oneself takes effect at the next wait"] = function()
      local after, beyond
      local task
      task = cosocket.spawn(function()
        task:cancel()
        after = true
        cosocket.sleep(1)
        beyond = true
      end)
      test.fails("cancelled", task:join())
      test.equal({ after, beyond }, { true })
    end,
  },

  ["a group"] = {
    ["waits for its children and answers what the body returned"] = function()
      local ended = 0
      local answer = table.pack(cosocket.group(function(...)
        for i = 1, 5 do
          cosocket.spawn(function()
            cosocket.sleep(i)
            ended = ended + 1
          end)
        end
        return ...
      end, "a", nil))
      test.equal(answer, { "a", nil, n = 2 })
      test.equal(ended, 5)
    end,

    ["raises the first error of a child, and cancels siblings and body"] = function()
      local log = {}
      local began = cosocket.now()
      local ok, err = pcall(cosocket.group, function()
        cosocket.spawn(function()
          local mark <close> = on_close(function() log[#log + 1] = "sibling" end)
          cosocket.sleep(1000)
        end)
        cosocket.spawn(function()
          cosocket.sleep(1)
          error({ code = 7 })
        end)
        local mark <close> = on_close(function() log[#log + 1] = "body" end)
        cosocket.sleep(1000)
      end)
      test.equal(ok, false)
      test.equal(err, { code = 7 })
      table.sort(log)
      test.equal(log, { "body", "sibling" })
      test.near(cosocket.now() - began, 1, 0.01)
    end,

    ["whose body fails cancels its children first"] = function()
      local closed = false
      test.raises("the body failed", cosocket.group, function()
        cosocket.spawn(function()
          local mark <close> = on_close(function() closed = true end)
          cosocket.sleep(1000)
        end)
        cosocket.sleep(1)
        error("the body failed")
      end)
      test.equal(closed, true)
    end,

    ["that failed leaves its owner able to wait again"] = function()
      test.raises("boom", cosocket.group, function()
        cosocket.spawn(error, "boom")
        cosocket.sleep(10)
      end)
      test.equal(cosocket.sleep(1), true)
    end,

    ["in a group fails outward, even while its owner waits for the inner children"] = function()
      local began = cosocket.now()
      test.raises("outer child", cosocket.group, function()
        cosocket.spawn(function()
          cosocket.sleep(1)
          error("outer child")
        end)
        cosocket.group(function()
          cosocket.spawn(function() cosocket.sleep(1000) end)
        end)
      end)
      test.near(cosocket.now() - began, 1, 0.01)
    end,

    ["reports an error that crossed a coroutine with where it was raised"] = function()
      local _, err = pcall(cosocket.group, function()
        cosocket.spawn(function()
          local generate = coroutine.wrap(function()
            cosocket.sleep(1)
            local nothing
            return nothing.field
          end)
          generate()
        end)
      end)
      test.matches(err, "cosocket_task_test.lua:%d+: .*nothing")
    end,
  },

  ["a deadline"] = {
    ["answers nil and a timeout, or what the function returned in time"] = function()
      test.fails("timeout", cosocket.deadline(1, cosocket.sleep, 2))
      test.equal({ cosocket.deadline(2, function() cosocket.sleep(1) return "a", "b" end) }, { "a", "b" })
      test.fails("timeout", cosocket.deadline(1, function() cosocket.sleep(2) end))
    end,

    ["passes at its time, whatever the number"] = function()
      local random = test.random()
      for _ = 1, 300 do
        local time = random() * 3
        local began = cosocket.now()
        local value, err = cosocket.deadline(time, function()
          assert(cosocket.sleep(100))
        end)
        test.fails("timeout", value, err)
        test.near(cosocket.now() - began, time, 1e-6)
      end
    end,

    ["nested keeps the earlier of the two"] = function()
      local began = cosocket.now()
      test.fails("timeout", cosocket.deadline(1, cosocket.deadline, 10, cosocket.sleep, 20))
      test.near(cosocket.now() - began, 1, 1e-6)
      began = cosocket.now()
      local inner_err
      local value = cosocket.deadline(10, function()
        _, inner_err = cosocket.deadline(1, cosocket.sleep, 20)
        cosocket.sleep(1)
        return "went on"
      end)
      test.fails("timeout", nil, inner_err)
      test.equal(value, "went on")
      test.near(cosocket.now() - began, 2, 1e-6)
    end,

    ["of another task's spawner does not bind a task of the group outside"] = function()
      local task
      cosocket.deadline(1, function()
        task = cosocket.spawn(function() return cosocket.sleep(5) end)
      end)
      test.equal(task:join(), true)
    end,

    ["binds the children of a group inside it"] = function()
      local child_err
      cosocket.deadline(1, function()
        cosocket.group(function()
          cosocket.spawn(function() _, child_err = cosocket.sleep(5) end)
        end)
      end)
      test.fails("timeout", nil, child_err)
    end,

    ["of zero or less ends the first wait, and no work that does not wait"] = function()
      test.equal(cosocket.deadline(0, function() return "no wait" end), "no wait")
      test.fails("timeout", cosocket.deadline(-5, cosocket.sleep, 1))
    end,

    ["passes on errors that are not its own"] = function()
      test.raises("mine", cosocket.deadline, 1, error, "mine")
      test.fails("closed", cosocket.deadline(1, function()
        local one, other = cosocket.pair()
        other:close()
        return one:read()
      end))
    end,

    ["ends a loop that ignores it"] = function()
      local one, other = cosocket.pair()
      local rounds = 0
      local value, err = cosocket.deadline(1, function()
        while true do
          one:read()
          rounds = rounds + 1
        end
      end)
      test.fails("timeout", value, err)
      assert(rounds > 0 and other)
    end,

    ["ends a loop that never has to wait"] = function()
      local one, other = cosocket.pair()
      other:close()
      local rounds = 0
      test.fails("timeout", cosocket.deadline(0, function()
        while true do
          one:read()
          rounds = rounds + 1
        end
      end))
      assert(rounds > 100)
    end,
  },

  ["sleep"] = {
    ["lasts as long as asked, and zero lets others run"] = function()
      local order = {}
      for i = 3, 1, -1 do
        cosocket.spawn(function()
          cosocket.sleep(i)
          order[#order + 1] = i
        end)
      end
      local ran = false
      cosocket.spawn(function() ran = true end)
      cosocket.sleep(0)
      test.equal(ran, true)
      cosocket.sleep(3.5)
      test.equal(order, { 1, 2, 3 })
    end,

    ["refuses what is no time"] = function()
      for _, value in ipairs({ -1, 0 / 0, "x", {}, false }) do
        local ok, err = pcall(cosocket.sleep, value)
        assert(not ok and cosocket.is_error(err, "argument"), tostring(err))
      end
    end,
  },

  ["a task that never blocks lets others run"] = function()
    local one, other = cosocket.pair()
    other:write(("x"):rep(100000))
    other:flush()
    local turns, stop = 0, false
    cosocket.spawn(function()
      while not stop do
        turns = turns + 1
        cosocket.sleep(0)
      end
    end)
    for _ = 1, 10000 do test.equal(#one:read(1), 1) end
    stop = true
    assert(turns > 20, turns)
  end,

  ["a task that only accepts lets others run"] = function()
    local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local address = "tcp://" .. listener:local_address()
    local clients = {}
    for i = 1, 300 do clients[i] = assert(cosocket.connect(address)) end
    local turns, stop = 0, false
    cosocket.spawn(function()
      while not stop do
        turns = turns + 1
        coroutine.yield()
      end
    end)
    for _ = 1, 300 do assert(listener:accept()):close() end
    stop = true
    assert(turns > 1, turns)
  end,
}
