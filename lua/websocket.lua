--- WebSocket (RFC 6455), client and server, with permessage-deflate (RFC 7692).
---
---     local websocket = require("websocket")
---
---     local connection <close> = assert(websocket.connect("wss://echo.example/"))
---     assert(connection:send("hello"))
---     local message, kind = assert(connection:receive())
---
---     local server = assert(websocket.listen("tcp://127.0.0.1:0", function(connection)
---       for message, kind in connection:messages() do connection:send(message) end
---     end))
---
--- `connection` knows messages (`websocket.connection`) and is a stream, too (`websocket.stream`).

local close_code = require("websocket.close_code")
local connection = require("websocket.connection")
local cosocket = require("cosocket")
local extension = require("websocket.extension")
local handshake = require("websocket.handshake")
local server = require("websocket.server")
local session = require("websocket.session")
require("websocket.stream")

--- Seconds for name, connection, TLS and handshake together.
local TIMEOUT = 30

local websocket = {}

--- Status codes of closing, by name.
websocket.close_code = close_code

---@class websocket.ConnectOptions: websocket.ConfigOptions
---@field subprotocols? string|string[] Offered, best first; `connection:subprotocol()` says what the server chose.
---@field headers? http.Fields More fields of the request; those of the handshake are refused.
---@field origin? string What page is said to connect. Default: none.
---@field compression? boolean|websocket.CompressionOptions Offer permessage-deflate. Default `false`: it costs some 300 KiB for each connection.
---@field tls? cosocket.TlsOptions For `wss://`.
---@field timeout? number Seconds until the connection must be open. Default 30.
---@field proxy? string|false As in an HTTP request.
---@field auth? table As in an HTTP request.
---@field cookies? table As in an HTTP request: a jar.
---@field unix? string Path of a Unix socket to connect to instead of the host.

local OPTIONS = {
  subprotocols = "string|table",
  headers = "table|userdata",
  origin = "string",
  compression = "boolean|table",
  tls = "tls",
  timeout = "number",
  proxy = "string|boolean",
  auth = "table",
  cookies = "table",
  unix = "string",
  message_max = "integer",
  frame_max = "integer",
  keep_alive = "number",
  keep_alive_timeout = "number",
  close_timeout = "number",
}

--- The options that the HTTP client understands.
local OF_HTTP = { "tls", "proxy", "auth", "cookies", "unix" }

---@type http.Client?
local http

--- Fields of the request that are the handshake's own, and the option that says what they say.
local OF_HANDSHAKE = {
  upgrade = "",
  connection = "",
  ["sec-websocket-key"] = "",
  ["sec-websocket-version"] = "",
  ["sec-websocket-protocol"] = ": see subprotocols",
  ["sec-websocket-extensions"] = ": see compression",
}

--- Subprotocols as a list; raises for what is none.
---@param op string
---@param given string|string[]|nil
---@param level integer
---@return string[]
local function subprotocol_list(op, given, level)
  local list = type(given) == "string" and { given } or given or {}
  local seen = {}
  for _, name in ipairs(list --[[@as string[] ]]) do
    if not handshake.valid_subprotocol(name) then
      error(("%s: %q is not the name of a subprotocol"):format(op, tostring(name)), level + 1)
    end
    -- RFC 6455, 4.1: all of them differ.
    if seen[name] then error(("%s: the subprotocol %q is there twice"):format(op, name), level + 1) end
    seen[name] = true
  end
  return list --[[@as string[] ]]
end

--- The fields of the request: the handshake's and the caller's. Raises for those that only the handshake may say, `level`
--- calls above.
---@param op string
---@param ours [string, string][]
---@param given http.Fields?
---@param level integer
---@return [string, string][]
local function merged(op, ours, given, level)
  local list = {}
  for _, pair in ipairs(ours) do list[#list + 1] = pair end
  if not given then return list end
  local count = #list
  if type(given) == "table" and given[1] then
    for _, pair in ipairs(given) do list[#list + 1] = pair end
  else
    for name, value in pairs(given) do
      for _, one in ipairs(type(value) == "table" and value or { value }) do list[#list + 1] = { name, one } end
    end
  end
  for at = count + 1, #list do
    local name = list[at][1]
    local instead = OF_HANDSHAKE[name:lower()]
    if instead then error(("%s: the handshake itself says %s%s"):format(op, name, instead), level + 1) end
  end
  return list
end

--- A failed connection: nothing of it stays.
---@param stream cosocket.Stream
---@param message string
---@return nil
---@return cosocket.Error
local function refused(stream, message)
  stream:close()
  return nil, cosocket.error("protocol", "websocket.connect", message)
end

--- The request that opens a connection, and what it offers. Raises for what is wrong in the options.
---@param op string
---@param options websocket.ConnectOptions
---@param level integer As of `error`, from the caller.
---@return http.RequestOptions asked
---@return table offer
local function request_of(op, options, level)
  local subprotocols = subprotocol_list(op, options.subprotocols, level + 1)
  local compression = extension.check(op, options.compression, level + 1)
  local given = {}
  for _, name in ipairs(OF_HTTP) do given[name] = options[name] end
  -- Loaded here: a program that only serves does without it.
  local checked = require("http.options")
  checked.check_upgrade(op, { headers = { origin = options.origin } }, level + 1)
  if options.headers then checked.headers(op, options.headers, level + 2) end
  checked.check_upgrade(op, given, level + 1)
  local fields, offer = handshake.request(subprotocols, compression, options.origin)
  given.headers = merged(op, fields, options.headers, level + 1)
  given.timeout, given.decompress = options.timeout or TIMEOUT, false
  return given, offer
end

---@async
---@param op string
---@param address string
---@param options websocket.ConnectOptions
---@param level integer As of `error`, from the caller.
---@return websocket.Connection? connection
---@return cosocket.Error? err
local function connect(op, address, options, level)
  if type(address) ~= "string" or not address:match("^[Ww][Ss][Ss]?://") then
    error(("%s: an address begins with ws:// or wss://, unlike %q"):format(op, tostring(address)), level + 1)
  end
  local asked, offer = request_of(op, options, level + 1)
  http = http or require("http.client").new("websocket.connect")
  local stream, rest, response = http:upgrade(address, asked)
  if not stream then
    ---@cast rest cosocket.Error
    if rest.kind ~= "refused" then return nil, rest end
    local message = ("the server does not speak WebSocket here: %s"):format(rest.message)
    return nil, cosocket.error("refused", "websocket.connect", message, {
      code = rest.code,
      response = rest.response,
      cause = rest,
    })
  end
  ---@cast response http.Response
  local agreed, mistake = handshake.check_response(function(name) return response.headers:get(name) end, offer)
  if not agreed then return refused(stream, mistake --[[@as string]]) end
  return connection.new(stream, session.config("client", options, agreed), rest --[[@as cosocket.Buffer]])
end

--- Connects: `"ws://host/path"` or `"wss://host/path"`.
---@async
---@param address string
---@param options? websocket.ConnectOptions
---@return websocket.Connection? connection
---@return cosocket.Error? err `refused` with `code` (the HTTP status) and `response` when the server says no; `protocol`, `resolve`, `connect`, `tls`, `timeout`, `closed`
function websocket.connect(address, options)
  options = cosocket.check_options("websocket.connect", options, OPTIONS)
  -- No tail call: who made a mistake is counted from here.
  local made, err = connect("websocket.connect", address, options, 2)
  return made, err
end

local STREAM_OPTIONS = { subprotocol = "string" }
for name, kind in pairs(OPTIONS) do
  if name ~= "subprotocols" then STREAM_OPTIONS[name] = kind end
end

---@class websocket.StreamOptions: websocket.ConnectOptions
---@field subprotocol string The protocol that is spoken within; a server that does not agree to it is left.

--- Connects a stream of bytes over WebSocket, for a protocol such as MQTT (`subprotocol = "mqtt"`): binary messages whose
--- borders mean nothing.
---@async
---@param address string
---@param options websocket.StreamOptions
---@return websocket.Connection? stream
---@return cosocket.Error? err
function websocket.connect_stream(address, options)
  options = cosocket.check_options("websocket.connect_stream", options, STREAM_OPTIONS)
  local given = {}
  for name, value in pairs(options) do given[name] = value end
  given.subprotocols = options.subprotocol
  local made, err = connect("websocket.connect_stream", address, given, 2)
  if not made then return nil, err end
  if options.subprotocol and made:subprotocol() ~= options.subprotocol then
    made:close(close_code.protocol_error)
    local message = ("the server does not speak the subprotocol %q"):format(options.subprotocol)
    return nil, cosocket.error("refused", "websocket.connect_stream", message)
  end
  return made
end

--- Raises for options that would be wrong when a connection is made with them, or accepted: for protocols that are given
--- such options long before.
---@param op string
---@param options websocket.ConnectOptions|websocket.AcceptOptions
---@param side "client"|"server"
---@param level integer As of `error`, from the caller.
function websocket.check_options(op, options, side, level)
  if side == "server" then
    server.check(op, options --[[@as websocket.AcceptOptions]], level + 1)
  else
    cosocket.check_options(op, options, OPTIONS, level + 1)
    request_of(op, options --[[@as websocket.ConnectOptions]], level + 1)
  end
end

websocket.listen = server.listen
websocket.accept = server.accept

return websocket
