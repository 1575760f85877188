--- Cases of a script that talks to another end: each says what came of it in a line, which the harness reads.
local cosocket = require("cosocket")

--- Seconds that a case may take.
local TIME_MAX = 60

--- Runs a case, and says "passed NAME" or "failed NAME: why".
---@async
---@param name string
---@param fn async fun() raises when the case fails
---@param say? fun(line: string) `print`, unless it is another
return function(name, fn, say)
  say = say or print
  local ok, err = pcall(function()
    -- What `fn` returns is no answer; so there is one only when time is up.
    local _, timeout = cosocket.deadline(TIME_MAX, function() fn() end)
    if timeout then error(timeout, 0) end
  end)
  if ok then
    say("passed " .. name)
  else
    say(("failed %s: %s"):format(name, (tostring(err):gsub("\n.*", ""))))
  end
end
