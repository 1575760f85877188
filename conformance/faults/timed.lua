--- How long something takes, for cases about when an error comes.
local cosocket = require("cosocket")

--- Runs `fn`, and says how long that took.
---@async
---@param fn fun(...): any, any
---@param ... any what `fn` is called with
---@return number took seconds
---@return any answer what `fn` returned
---@return any err
return function(fn, ...)
  local began = cosocket.now()
  local answer, err = fn(...)
  return cosocket.now() - began, answer, err
end
