--- JSON-RPC 2.0 messages as texts: https://www.jsonrpc.org/specification. Clauses in this stack's comments are its own.

local cosocket = require("cosocket")
local json = require("json")

--- The mark of arrays. To compare with it takes less than to ask `json.is_array`.
local ARRAY = getmetatable(json.array())

--- Makes the text of a value, within the limits of a connection.
---@alias wsrpc.Encode fun(value: any): string?, cosocket.Error?

--- How messages are made.
---@class wsrpc.Encoding
---@field encode wsrpc.Encode
---@field message_max number

local message = {}

--- Bytes of a name up to which it is looked at here whether it can stand in a text as it is.
local PLAIN_MAX = 64

--- Codes of error objects (5.1), and ours among those that it leaves to servers.
message.code = {
  parse_error = -32700,
  invalid_request = -32600,
  method_not_found = -32601,
  invalid_params = -32602,
  internal_error = -32603,
  --- The handler answered `nil, err`.
  server_error = -32000,
  --- The handler's time was up.
  timeout = -32001,
  --- Too many calls or subscriptions run already.
  busy = -32002,
  --- Too many messages in too short a time.
  rate_exceeded = -32003,
  --- The caller has cancelled the call. The code is LSP's, outside of what JSON-RPC reserves.
  cancelled = -32800,
}

local WORDS = {
  [-32700] = "Parse error",
  [-32600] = "Invalid Request",
  [-32601] = "Method not found",
  [-32602] = "Invalid params",
  [-32603] = "Internal error",
  [-32000] = "Server error",
  [-32001] = "Timeout",
  [-32002] = "Too many calls",
  [-32003] = "Too many messages",
  [-32800] = "Request cancelled",
}

--- An error object (5.1).
---@class wsrpc.Fault
---@field code integer
---@field message string
---@field data any?

---@param code integer
---@param text? string Default: the specification's words for the code.
---@param data? any
---@return wsrpc.Fault
function message.fault(code, text, data)
  return { code = code, message = text or WORDS[code] or "Server error", data = data }
end

--- A value as it stands in a text; joining makes texts of integers by itself.
---@param value any
---@param encode wsrpc.Encode
---@return string|integer|nil text
---@return cosocket.Error? err
local function text_of(value, encode)
  if math.type(value) == "integer" then return value end
  return encode(value)
end

--- A message, if the other side takes it: it would close the connection for a longer one.
---@param text string
---@param config wsrpc.Encoding
---@return string? text
---@return cosocket.Error? err
local function whole(text, config)
  if #text <= config.message_max then return text end
  local words = ("the message has %d bytes, and message_max allows %d"):format(#text, config.message_max)
  return nil, cosocket.error("limit", "wsrpc", words)
end

--- A request, or a notification when there is no `id` (4).
---@param id string|number|nil
---@param method string
---@param params table|nil
---@param config wsrpc.Encoding
---@return string? text
---@return cosocket.Error? err What has no JSON form, or is too long.
function message.request(id, method, params, config)
  local encode = config.encode
  local name, text, err
  if #method <= PLAIN_MAX and not method:find("[^%w_.$/-]") then
    name = '"' .. method .. '"'
  else
    name, err = encode(method)
    if not name then return nil, err end
  end
  local tail = "}"
  if params ~= nil then
    text, err = encode(params)
    if not text then return nil, err end
    tail = ',"params":' .. text .. "}"
  end
  if id == nil then return whole('{"jsonrpc":"2.0","method":' .. name .. tail, config) end
  return whole('{"jsonrpc":"2.0","id":' .. text_of(id, encode) .. ',"method":' .. name .. tail, config)
end

--- A stream's value: `rpc.next` for a subscription.
---@param subscription string|integer
---@param value any
---@param config wsrpc.Encoding
---@return string? text
---@return cosocket.Error? err
function message.value(subscription, value, config)
  local encode = config.encode
  local text, err = text_of(value, encode)
  if not text then return nil, err end
  local name = text_of(subscription, encode)
  return whole('{"jsonrpc":"2.0","method":"rpc.next","params":{"subscription":' .. name .. ',"value":' .. text .. "}}", config)
end

--- A response with a result (5).
---@param id string|number|lightuserdata
---@param result any
---@param config wsrpc.Encoding
---@return string? text
---@return cosocket.Error? err
function message.result(id, result, config)
  local encode = config.encode
  local text, err = text_of(result, encode)
  if not text then return nil, err end
  return whole('{"jsonrpc":"2.0","id":' .. text_of(id, encode) .. ',"result":' .. text .. "}", config)
end

--- A response with an error (5.1).
---@param id string|number|lightuserdata
---@param fault wsrpc.Fault
---@param config wsrpc.Encoding
---@return string? text
---@return cosocket.Error? err
function message.failure(id, fault, config)
  local encode = config.encode
  local text, err = encode(fault)
  if not text then return nil, err end
  return '{"jsonrpc":"2.0","id":' .. text_of(id, encode) .. ',"error":' .. text .. "}"
end

--- Whether a value is an array, as `json.decode` marks them.
---@param value any
---@return boolean
function message.is_array(value)
  return getmetatable(value) == ARRAY
end

--- Whether a value is an error object, whoever made it.
---@param value any
---@return boolean
function message.is_fault(value)
  return type(value) == "table" and math.type(value.code) == "integer" and type(value.message) == "string"
end

return message
