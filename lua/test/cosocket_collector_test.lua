local cosocket = require "cosocket"
local test = require "test"

--- How the heap is collected at the moment: told by setting it to the same again.
local function mode()
  local was = collectgarbage("incremental")
  if was == "generational" then collectgarbage("generational") end
  return was
end

--- Some 20 MiB in many values.
local function much()
  local values = {}
  for i = 1, 100000 do values[i] = { i, tostring(i) } end
  return values
end

--- Runs `fn`; the mode is what it was afterwards.
local function keeping_mode(fn)
  local was = mode()
  local _ <close> = setmetatable({}, { __close = function() collectgarbage(was) end })
  collectgarbage()
  cosocket.sleep(0)
  fn()
end

return {
  ["a small heap is collected by generations, a large one in steps"] = function()
    keeping_mode(function()
      test.equal(mode(), "generational")
      local held = much()
      cosocket.sleep(0)
      test.equal({ #held, mode() }, { 100000, "incremental" })
      held = nil
      collectgarbage()
      cosocket.sleep(0)
      test.equal(mode(), "generational")
    end)
  end,

  ["garbage of a large heap goes, too"] = function()
    keeping_mode(function()
      local held, weak = much(), setmetatable({}, { __mode = "v" })
      cosocket.sleep(0)
      weak[1] = {}
      local before = collectgarbage("count")
      for _ = 1, 40 do
        local _ = ("x"):rep(1 << 20)
      end
      test.equal({ #held, weak[1] }, { 100000, nil })
      test.truthy(collectgarbage("count") < before + 20 * 1024)
    end)
  end,
}
