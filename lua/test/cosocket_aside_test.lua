-- `aside` and `spawn_then`: what keeps the stacks of thousands of tasks small.
local cosocket = require("cosocket")
local test = require("test")

--- A call of its own depth, for stacks to grow by.
local function deep(n)
  if n == 0 then return 0 end
  return 1 + deep(n - 1)
end

--- A method that reads what comes until there are so many bytes.
local gather = cosocket.aside(function(self, count, ok, err, input, deadline)
  if input then
    self.waits = self.waits + 1
    assert(input == self.input and deadline == self.deadline)
    if not ok then return false, nil, err end
  end
  deep(12)
  if #self.input >= count then return false, self.input:take(count) end
  return true, self.stream, self.input, self.output, self.deadline
end)

local function object()
  local near, far = cosocket.pair()
  return { stream = near, input = cosocket.buffer(), output = cosocket.buffer(), deadline = cosocket.now() + 100, waits = 0 }, far
end

return {
  ["a step that is the last answers all but its first value"] = function()
    local seen
    local method = cosocket.aside(function(...)
      seen = table.pack(...)
      return false, 1, nil, "three", nil
    end)
    test.equal(table.pack(method("me", "it", "dropped")), { 1, nil, "three", nil, n = 4 })
    test.equal(seen, { "me", "it", n = 2 })
    test.equal(table.pack(cosocket.aside(function() return false end)()), { n = 0 })
    test.equal(table.pack(cosocket.aside(function() return nil, "x" end)()), { "x", n = 1 })
    test.equal(table.pack(cosocket.aside(function() end)()), { n = 0 })
  end,

  ["a wait is the caller's own, and the step goes on with what it answered"] = function()
    local one, far = object()
    local task = cosocket.spawn(gather, one, 10)
    for _ = 1, 5 do
      cosocket.sleep(1)
      far:write("ab")
      far:flush()
    end
    test.equal(task:join(), "ababababab")
    test.equal(one.waits, 5)
    local waiting = cosocket.spawn(gather, one, 1)
    cosocket.sleep(1)
    test.equal(waiting:status(), "waiting")
    far:close()
    local bytes, err = waiting:join()
    test.equal({ bytes, err.kind }, { nil, "closed" })
  end,

  ["what waits has a deadline, and can be cancelled"] = function()
    -- The far end is held: what nobody holds is closed by the collector, and that is an answer.
    local one, _ <close> = object()
    one.deadline = cosocket.now() + 5
    local bytes, err = gather(one, 1)
    test.equal({ bytes, err.kind, cosocket.now() }, { nil, "timeout", one.deadline })
    one.deadline = cosocket.now() + 100
    bytes, err = cosocket.deadline(2, gather, one, 1)
    test.equal({ bytes, err.kind }, { nil, "timeout" })
    local task = cosocket.spawn(gather, one, 1)
    cosocket.sleep(1)
    task:cancel()
    cosocket.sleep(1)
    test.equal(task:status(), "cancelled")
  end,

  ["many wait at once, and each goes on with its own"] = function()
    local tasks, ends = {}, {}
    for i = 1, 50 do
      local one, far = object()
      tasks[i], ends[i] = cosocket.spawn(gather, one, 4), far
    end
    for round = 1, 2 do
      for i, far in ipairs(ends) do
        far:write(("%02d"):format(round == 1 and i or 100 - i))
        far:flush()
      end
      cosocket.sleep(1)
    end
    for i, task in ipairs(tasks) do test.equal(task:join(), ("%02d%02d"):format(i, 100 - i)) end
  end,

  ["a function that a step answers is called where the caller is, and may wait"] = function()
    local method = cosocket.aside(function(self, seconds)
      local function rest(...)
        cosocket.sleep(seconds)
        return self, ...
      end
      return rest, "a", nil, "b"
    end)
    local began = cosocket.now()
    test.equal(table.pack(method("me", 3)), { "me", "a", nil, "b", n = 4 })
    test.equal(cosocket.now() - began, 3)
  end,

  ["what a step raises is raised where it was called, and harms no other call"] = function()
    local raises = cosocket.aside(function(_, what) error(what, 2) end)
    local ok, err = pcall(raises, nil, "not like this")
    test.equal(ok, false)
    test.matches(err, "not like this$")
    local thrown = {}
    ok, err = pcall(raises, nil, thrown)
    test.equal({ ok, err == thrown }, { false, true })
    local function caller() raises(nil, "mine") end
    ok, err = pcall(caller)
    test.matches(err, "cosocket_aside_test.lua:%d+: mine$")
    test.equal(cosocket.aside(function(_, x) return false, x + 1 end)(nil, 1), 2)
  end,

  ["a step cannot wait, yield, or answer what is no wait"] = function()
    test.raises("cannot wait inside", cosocket.aside(function() cosocket.sleep(1) end))
    test.raises("does not yield", cosocket.aside(function() coroutine.yield(1) end))
    test.raises("answers a few values", cosocket.aside(function() return false, table.unpack({}, 1, 50) end))
    test.raises("a step that waits answers", cosocket.aside(function() return true end))
    test.raises("call this with a colon", cosocket.aside(function() return true, 1, 2, 3, 4 end))
    local near = cosocket.pair()
    test.raises("a buffer is wanted", cosocket.aside(function() return true, near, 2, 3, 4 end))
    test.raises("a function is wanted", cosocket.aside, "x")
    test.equal(cosocket.aside(function() return false, "well" end)(), "well")
  end,

  ["a step may call another, and a finaliser may come in between"] = function()
    local inner = cosocket.aside(function(_, x) return false, x * 2 end)
    local finalised = 0
    local outer = cosocket.aside(function(_, x)
      setmetatable({}, { __gc = function() finalised = finalised + inner(nil, 1) end })
      collectgarbage()
      return false, inner(nil, x) + 1
    end)
    for i = 1, 5 do test.equal(outer(nil, i), 2 * i + 1) end
    collectgarbage()
    test.equal(finalised, 10)
    local _, err = pcall(cosocket.aside(function() inner(nil, {}) end))
    test.matches(err, "arithmetic")
  end,

  ["an idle task keeps a small stack, however deep its steps go"] = function()
    local COUNT <const> = 200
    --- Bytes of Lua memory for each task that waits in `wait`, after it has received something.
    local function cost(wait)
      local objects, ends, tasks = {}, {}, {}
      for i = 1, COUNT do objects[i], ends[i] = object() end
      collectgarbage()
      collectgarbage()
      local before = collectgarbage("count")
      for i = 1, COUNT do
        tasks[i] = cosocket.spawn(function()
          wait(objects[i], 1)
          wait(objects[i], 1)
        end)
      end
      for _, far in ipairs(ends) do
        far:write("x")
        far:flush()
      end
      cosocket.sleep(1)
      collectgarbage()
      collectgarbage()
      local bytes = (collectgarbage("count") - before) * 1024 / COUNT
      for _, task in ipairs(tasks) do task:cancel() end
      return bytes
    end
    --- What has ended is let go of by the loop.
    local function settle()
      for _ = 1, 3 do
        cosocket.sleep(1)
        collectgarbage()
      end
    end
    local function plain(self, count)
      while #self.input < count do
        deep(12)
        self.stream:turn(self.input, self.output, self.deadline)
      end
      return self.input:take(count)
    end
    local aside = cost(gather)
    settle()
    local usual = cost(plain)
    test.truthy(aside < 1400 and aside < usual - 100, ("%.0f bytes aside, %.0f else"):format(aside, usual))
  end,

  ["what comes after a task's function hears how it ended, and may wait"] = function()
    local heard = {}
    local function after(object, ok, err, traceback)
      cosocket.sleep(1)
      heard[#heard + 1] = { object, ok, err, traceback and traceback:find("cosocket_aside_test.lua") ~= nil }
    end
    local task = cosocket.spawn_then(after, function(object, more) heard[1] = { object, more } end, "one", "two")
    task:join()
    cosocket.spawn_then(after, function()
      cosocket.sleep(1)
      error("on purpose", 0)
    end, "three"):join()
    test.equal(heard, { { "one", "two" }, { "one", true }, { "three", false, "on purpose", true } })
    local idle = cosocket.spawn_then(function(_, ok, err) heard = { ok, cosocket.is_error(err, "cancelled") } end, cosocket.sleep, 100)
    cosocket.sleep(1)
    idle:cancel()
    cosocket.sleep(1)
    test.equal(heard, { false, true })
    test.raises("a function is wanted", cosocket.spawn_then, 1, function() end, {})
    test.raises("a function is wanted", cosocket.spawn_then, function() end, 1, {})
  end,

  ["what raises after a task's function fails the task"] = function()
    local ok, err = pcall(cosocket.group, function()
      cosocket.spawn_then(function() error("too late", 0) end, function() end, {})
    end)
    test.equal({ ok, err }, { false, "too late" })
  end,
}
