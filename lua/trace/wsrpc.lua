--- JSON-RPC 2.0 over WebSocket: a line for each call, notification, result and error.

local json = require("json")
local secret = require("net.trace.secret")
local text = require("net.trace.text")

--- Bytes of a message that is decoded.
local WHOLE_MAX = 256 * 1024
--- Messages of a batch that are shown.
local BATCH_MAX = 20

local wsrpc = {}

--- A value as JSON, shortened.
---@param lane net.trace.Lane
---@param value any
---@return string
local function show(lane, value)
  local encoded = json.encode(value)
  if not encoded then return "?" end
  local safe = secret.text(encoded, secret.short)
  local cut = text.cut(safe, lane.limit)
  return #cut < #safe and cut .. "..." or cut
end

--- One message, in words.
---@param lane net.trace.Lane
---@param message any
---@return string
local function describe(lane, message)
  if type(message) ~= "table" then return "neither a call nor an answer: " .. show(lane, message) end
  local id = message.id
  local number = id ~= nil and " id=" .. text.cut(json.encode(id) or "?", 64) or ""
  if type(message.method) == "string" then
    local params = message.params ~= nil and " params=" .. show(lane, message.params) or ""
    local kind = id == nil and "notification" or "call"
    return ("%s %s%s%s"):format(kind, text.cut(message.method, 200), number, params)
  elseif type(message.error) == "table" then
    local fault = message.error
    local data = fault.data ~= nil and " data=" .. show(lane, fault.data) or ""
    return ("error%s %s %s%s"):format(number, tostring(fault.code), show(lane, fault.message), data)
  elseif message.result ~= nil then
    return ("result%s %s"):format(number, show(lane, message.result))
  end
  return "neither a call nor an answer: " .. show(lane, message)
end

---@param lane net.trace.Lane
function wsrpc.follow(lane)
  while true do
    local size, too_long = lane:message()
    if too_long or size and size > WHOLE_MAX then
      local first, passed = lane:pass_message()
      lane:say(("a message of %s %s"):format(text.size(passed), lane:quote(first)))
    elseif not size then
      return
    else
      local bytes = lane:peek(size)
      lane:take(size, secret.text(bytes, secret.same))
      lane:end_message()
      local message, err = json.decode(bytes)
      if message == nil then
        lane:say(("no JSON: %s %s"):format(err and err.message or "", lane:quote(bytes)))
      elseif type(message) == "table" and message[1] ~= nil then
        lane:say(("batch of %d"):format(#message))
        for i = 1, math.min(#message, BATCH_MAX) do lane:say(describe(lane, message[i])) end
        if #message > BATCH_MAX then lane:say(("... %d more"):format(#message - BATCH_MAX)) end
      else
        lane:say(describe(lane, message))
      end
    end
  end
end

return wsrpc
