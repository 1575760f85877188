--- How calls and subscriptions fail: what is the caller's mistake is raised, the rest is an error to answer.

local cosocket = require("cosocket")

local now = cosocket.now

local failure = {}

--- Raises what cannot be a method, or its params.
---@param op string
---@param name any
---@param params any
---@param level integer
function failure.check(op, name, params, level)
  if type(name) ~= "string" then error(("%s: the method must be a string, not a %s"):format(op, type(name)), level + 1) end
  if params ~= nil and type(params) ~= "table" then
    error(("%s: params must be a table (a list or by name), not a %s"):format(op, type(params)), level + 1)
  end
end

--- Raises what is the caller's mistake.
---@param op string
---@param err cosocket.Error
---@param level integer
---@return nil
---@return cosocket.Error
function failure.unsent(op, err, level)
  if err.kind == "protocol" then error(("%s: %s"):format(op, err.message), level + 1) end
  return nil, err
end

--- The protocol's errors in their place; the deadline of a call in words.
---@param name string
---@param seconds number
---@param began number
---@param err cosocket.Error
---@return cosocket.Error
function failure.why_not(name, seconds, began, err)
  if err.kind == "timeout" and now() - began >= seconds then
    return cosocket.error("timeout", "wsrpc.call", ("%s was not answered within %g s"):format(name, seconds))
  end
  return err
end

--- An error object of the other side, as this side's errors are.
---@param op string
---@param wrong wsrpc.Fault|cosocket.Error
---@return cosocket.Error
function failure.refusal(op, wrong)
  if cosocket.is_error(wrong) then return wrong --[[@as cosocket.Error]] end
  return cosocket.error("refused", op, wrong.message, { code = wrong.code, data = wrong.data })
end

return failure
