-- Runs a case, and prints "passed NAME" or "failed NAME: why".
local cosocket = require("cosocket")

--- Seconds that a case may take.
local TIME_MAX = 60

return function(name, fn)
  local ok, err = pcall(function()
    local done = false
    local _, why = cosocket.deadline(TIME_MAX, function()
      fn()
      done = true
    end)
    assert(done, why)
  end)
  if ok then
    print("passed " .. name)
  else
    print(("failed %s: %s"):format(name, (tostring(err):gsub("\n.*", ""))))
  end
end
