--- JSON-RPC 2.0 messages as texts: https://www.jsonrpc.org/specification. Clauses in this stack's comments are its own.

local json = require("json")

local encode = json.encode

local message = {}

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

---@param id string|number|lightuserdata
---@return string
local function id_text(id)
  if math.type(id) == "integer" then return tostring(id) end
  return encode(id) --[[@as string]]
end

--- A request, or a notification when there is no `id` (4).
---@param id string|number|nil
---@param method string
---@param params table|nil
---@param options json.EncodeOptions
---@return string? text
---@return cosocket.Error? err What has no JSON form, or is too long.
function message.request(id, method, params, options)
  local name, err = encode(method, options)
  if not name then return nil, err end
  local tail = "}"
  if params ~= nil then
    local text
    text, err = encode(params, options)
    if not text then return nil, err end
    tail = ',"params":' .. text .. "}"
  end
  if id == nil then return '{"jsonrpc":"2.0","method":' .. name .. tail end
  return '{"jsonrpc":"2.0","id":' .. id_text(id) .. ',"method":' .. name .. tail
end

--- A response with a result (5).
---@param id string|number|lightuserdata
---@param result any
---@param options json.EncodeOptions
---@return string? text
---@return cosocket.Error? err
function message.result(id, result, options)
  local text, err = encode(result, options)
  if not text then return nil, err end
  return '{"jsonrpc":"2.0","id":' .. id_text(id) .. ',"result":' .. text .. "}"
end

--- A response with an error (5.1).
---@param id string|number|lightuserdata
---@param fault wsrpc.Fault
---@param options json.EncodeOptions
---@return string? text
---@return cosocket.Error? err
function message.failure(id, fault, options)
  local text, err = encode(fault, options)
  if not text then return nil, err end
  return '{"jsonrpc":"2.0","id":' .. id_text(id) .. ',"error":' .. text .. "}"
end

--- Whether a value is an error object, whoever made it.
---@param value any
---@return boolean
function message.is_fault(value)
  return type(value) == "table" and math.type(value.code) == "integer" and type(value.message) == "string"
end

return message
