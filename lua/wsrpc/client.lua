--- The side that connects, and connects again when the connection is lost.

local backoff = require("net.backoff")
local cosocket = require("cosocket")
local log = require("log").new("wsrpc")
local method = require("wsrpc.method")
local peer = require("wsrpc.peer")
local session = require("wsrpc.session")
local websocket = require("websocket")

--- What this protocol is called in the WebSocket handshake. Servers that do not know it are spoken to as well.
local SUBPROTOCOL = "jsonrpc"

---@class wsrpc.ConnectOptions: wsrpc.PeerOptions
---@field methods? table<string, wsrpc.Definition|fun(...): ...> What the server may call here.
---@field token? string Sent as `Authorization: Bearer`.
---@field reconnect? net.ReconnectOptions|boolean Connect again when the connection is lost, and subscribe again. Default `true`.
---@field timeout? number Seconds until a connection must be open. Default 30.
---@field headers? http.Fields More fields of the handshake's request.
---@field origin? string What page is said to connect. Default: none.
---@field compression? boolean|websocket.CompressionOptions Default `false`.
---@field tls? cosocket.TlsOptions For `wss://`.
---@field proxy? string|false As in an HTTP request.
---@field unix? string Path of a Unix socket to connect to instead of the host.
---@field keep_alive? number Seconds of silence after which the server is asked for a sign of life; 0 is never. Default 30.
---@field keep_alive_timeout? number Seconds it may take to give one. Default 20.

local OPTIONS = { methods = "table", token = "string", reconnect = "boolean|table" }

--- The options that the WebSocket client understands.
local OF_WEBSOCKET = {
  timeout = "number",
  headers = "table|userdata",
  origin = "string",
  compression = "boolean|table",
  tls = "tls",
  proxy = "string|boolean",
  unix = "string",
  keep_alive = "number",
  keep_alive_timeout = "number",
}
for _, known in ipairs({ peer.options, OF_WEBSOCKET }) do
  for name, kind in pairs(known) do OPTIONS[name] = kind end
end

local client = {}

--- How the handshake is made.
---@param options wsrpc.ConnectOptions
---@param config wsrpc.Config
---@return websocket.ConnectOptions
local function handshake(options, config)
  local asked = { subprotocols = SUBPROTOCOL, message_max = config.message_max }
  for name in pairs(OF_WEBSOCKET) do asked[name] = options[name] end
  if options.token then
    local headers = { { "Authorization", "Bearer " .. options.token } }
    for name, value in pairs(options.headers or {}) do
      headers[#headers + 1] = type(name) == "number" and value or { name, value }
    end
    asked.headers = headers
  end
  return asked
end

--- The life of connections, one after another: a task.
---@async
---@param one wsrpc.Peer
---@param url string
---@param asked websocket.ConnectOptions
---@param connection websocket.Connection
---@param options wsrpc.ConnectOptions
local function live(one, url, asked, connection, options)
  local again = options.reconnect ~= false
  local delays = again and backoff.new(type(options.reconnect) == "table" and options.reconnect or nil)
  local guard <close> = setmetatable({}, { __close = function() one:finish() end })
  ---@type websocket.Connection?
  local open = connection
  while open do
    local began = cosocket.now()
    local err = one:run(open, again)
    open = nil
    if options.on_disconnect then options.on_disconnect(one, err) end
    if delays then delays:lasted(cosocket.now() - began) end
    while delays and not open and not one:is_closed() do
      local seconds = delays:next(err)
      log.info("connects again", { delay = ("%.2f"):format(seconds), reason = err.message })
      one:pause(seconds)
      if one:is_closed() then return end
      local why
      open, why = websocket.connect(url, asked)
      err = why or err
      if one:is_closed() and open then
        open:close()
        return
      end
    end
  end
end

--- Connects: `"ws://host/path"` or `"wss://host/path"`. The first connection must succeed; later ones are made again
--- while `reconnect` says so.
---@async
---@param url string
---@param options? wsrpc.ConnectOptions
---@return wsrpc.Peer? peer
---@return cosocket.Error? err As of `websocket.connect`: `refused` with `code` 401 or 403 when the server lets us not in.
function client.connect(url, options)
  options = cosocket.check_options("wsrpc.connect", options, OPTIONS)
  backoff.check("wsrpc.connect", options.reconnect --[[@as any]], 2)
  local methods = method.all("wsrpc.connect", options.methods or {}, 2)
  local config = session.config(options)
  if options.token and not options.token:find("^[!-~]+$") then
    error("wsrpc.connect: the token must be printable, without spaces", 2)
  end
  local asked = handshake(options, config)
  websocket.check_options("wsrpc.connect", asked, "client", 2)
  local connection, err = websocket.connect(url, asked)
  if not connection then return nil, err end
  local one = peer.new(methods, options, config)
  cosocket.spawn("wsrpc client", live, one, url, asked, connection, options)
  -- The next call need not wait, and whoever asks finds it open.
  local ok, why = one:wait_open()
  if not ok then
    one:close()
    return nil, why
  end
  return one
end

return client
