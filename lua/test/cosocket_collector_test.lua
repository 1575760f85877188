local cosocket = require "cosocket"
local test = require "test"

--- Some 20 MiB in many values.
local function much()
  local values = {}
  for i = 1, 100000 do values[i] = { i, tostring(i) } end
  return values
end

return {
  ["garbage of a large heap goes, too"] = function()
    local held, weak = much(), setmetatable({}, { __mode = "v" })
    cosocket.sleep(0)
    weak[1] = {}
    local before = collectgarbage("count")
    for _ = 1, 40 do
      local _ = ("x"):rep(1 << 20)
    end
    test.equal({ #held, weak[1] }, { 100000, nil })
    test.truthy(collectgarbage("count") < before + 20 * 1024)
  end,

  ["a mode that a script sets stays, however large the heap"] = function()
    for _, mode in ipairs({ "incremental", "generational" }) do
      collectgarbage(mode)
      local held = much()
      cosocket.sleep(0)
      test.equal({ #held, collectgarbage(mode) }, { 100000, mode })
      held = nil
      collectgarbage()
      cosocket.sleep(0)
      test.equal(collectgarbage(mode), mode)
    end
  end,
}
