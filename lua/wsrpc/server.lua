--- The side that is connected to: a route of an HTTP server, which also hands out the client for browsers.

local base64 = require("base64")
local close_code = require("websocket.close_code")
local cosocket = require("cosocket")
local crypto = require("crypto")
local embedded = require("embedded")
local group = require("wsrpc.group")
local http_server = require("http.server")
local listening = require("net.listening")
local log = require("log").new("wsrpc")
local method = require("wsrpc.method")
local peer = require("wsrpc.peer")
local session = require("wsrpc.session")
local websocket = require("websocket")

--- What this protocol is called in the WebSocket handshake.
local SUBPROTOCOL = "jsonrpc"
--- How pages, which cannot send an Authorization field, hand over a token: a subprotocol that begins so, and goes on with
--- the token in base64url.
local TOKEN_PREFIX = "bearer."
--- Where the service is.
local PATH = "/rpc"
--- Where the client for browsers is; its types are beside it.
local CLIENT_PATH = "/wsrpc.js"
--- Peers at a time.
local PEERS_MAX = 10000
--- Seconds that peers have to take what waits for them and to answer, when the server closes.
local CLOSE_TIMEOUT = 5

---@class wsrpc.ServeOptions: wsrpc.PeerOptions
---@field path? string Where the service is. Default "/rpc".
---@field client_path? string|false Where the client for browsers is, an ES module; `.d.ts` instead of `.js` are its types. Default "/wsrpc.js".
---@field origins? string[]|"*" Pages that may connect: `"https://app.example"`. Default: only pages of this same host. A client that names no page is no browser, and may.
---@field token? string|string[] Bearer tokens, one of which a client must have: as `Authorization: Bearer`, or, from a page, as a subprotocol `bearer.` with the token in base64url.
---@field authorize? fun(request: http.ServerRequest, token: string?): any, integer? Who may connect: what it answers becomes `peer.identity`. `nil` or `false` refuses, with a status if it adds one. Default 401 without a token, else 403.
---@field peers_max? integer Peers at a time; more are answered with 503. Default 10000.
---@field compression? boolean|websocket.CompressionOptions Default `false`.
---@field keep_alive? number Seconds of silence after which a peer is asked for a sign of life; 0 is never. Default 30.
---@field keep_alive_timeout? number Seconds it may take to give one. Default 20.
---@field tls? cosocket.TlsServerOptions For an address that begins with `tls://` or `wss://`.

local OPTIONS = {
  path = "string",
  client_path = "string|boolean",
  origins = "string|table",
  token = "string|table",
  authorize = "function",
  peers_max = "integer",
  compression = "boolean|table",
  keep_alive = "number",
  keep_alive_timeout = "number",
  tls = "tls_server",
}
for name, kind in pairs(peer.options) do OPTIONS[name] = kind end

---@class wsrpc.Server
---@field everyone wsrpc.Group All peers.
---@field http http.Server
---@field private methods table<string, wsrpc.Method>
---@field private options wsrpc.ServeOptions
---@field private config wsrpc.Config
---@field private accepting websocket.AcceptOptions
---@field private owns_http boolean
---@field private peers table<wsrpc.Peer, true>
---@field private count integer
---@field private closed boolean
---@field private empty cosocket.Event?
---@field private forget_stop fun()
local Server = {}
Server.__index = Server
Server.__name = "wsrpc.Server"

-- Who may connect ---------------------------------------------------------------

--- The token that a request brings.
---@param request http.ServerRequest
---@return string?
local function token_of(request)
  local header = request.headers:get("authorization")
  local scheme, token = (header or ""):match("^(%a+) +(%S+)%s*$")
  if scheme and scheme:lower() == "bearer" then return token end
  for name in (request.headers:get("sec-websocket-protocol") or ""):gmatch("[^,%s]+") do
    if name:sub(1, #TOKEN_PREFIX) == TOKEN_PREFIX then
      return (base64.decode(name:sub(#TOKEN_PREFIX + 1), { url = true }))
    end
  end
end

--- Whether a token is one of those known. All are compared, so that time tells nothing.
---@param token string?
---@param known string|string[]
---@return boolean
local function is_known(token, known)
  if not token then return false end
  local found = false
  for _, one in ipairs(type(known) == "table" and known or { known }) do
    if crypto.equal(one, token) then found = true end
  end
  return found
end

--- Judges a request.
---@async
---@param options wsrpc.ServeOptions
---@param request http.ServerRequest
---@return any identity
---@return integer? status When it is refused.
local function authorized(options, request)
  if not options.token and not options.authorize then return true end
  local token = token_of(request)
  if options.token and not is_known(token, options.token) then return nil, token and 403 or 401 end
  if not options.authorize then return true end
  local identity, status = options.authorize(request, token)
  if identity then return identity end
  return nil, status or (token and 403 or 401)
end

-- Peers -------------------------------------------------------------------------

--- A request has come for the service.
---@async
---@param request http.ServerRequest
---@param response http.ServerResponse
---@private
function Server:handle(request, response)
  local options = self.options
  if self.closed or self.count >= (options.peers_max or PEERS_MAX) then
    return response:error(503, nil, { ["Retry-After"] = 5 })
  end
  local identity, status = authorized(options, request)
  if not identity then
    ---@cast status integer
    return response:error(status, nil, status == 401 and { ["WWW-Authenticate"] = "Bearer" } or nil)
  end
  local connection = websocket.accept(request, response, self.accepting)
  if not connection then return end
  local one = peer.new(self.methods, options, self.config)
  one.identity, one.request = identity, request
  self.peers[one] = true
  self.count = self.count + 1
  local guard <close> = setmetatable({}, {
    __close = function()
      self.peers[one] = nil
      self.count = self.count - 1
      one:finish()
      if self.empty and self.count == 0 then self.empty:set() end
    end,
  })
  local err = one:run(connection, false, self.everyone)
  if options.on_disconnect then options.on_disconnect(one, err) end
end

--- Adds a method, or with `nil` takes one back.
---@param name string
---@param fn (fun(...): ...)|wsrpc.Definition|nil
---@return wsrpc.Server self
function Server:on(name, fn)
  self.methods[name] = fn and method.new("server:on", name, fn, 2) or nil
  return self
end

--- Notifies all peers: see `wsrpc.Group`.
---@param name string
---@param params? table
---@return integer count
function Server:broadcast(name, params)
  if type(name) ~= "string" then error("broadcast: the method must be a string", 2) end
  return self.everyone:notify(name, params)
end

--- Where it listens: `"127.0.0.1:8080"`.
---@return string?
function Server:address()
  return self.http:address()
end

--- How many peers are connected.
---@return integer
function Server:peer_count()
  return self.count
end

--- Closes all peers with code 1001, after 5 seconds without waiting for those that are slow, and the HTTP server if it was started here. Later requests are answered with 503.
---@async
---@return true
function Server:close()
  if self.closed then return true end
  self.closed = true
  self.forget_stop()
  for one in pairs(self.peers) do one:start_close(close_code.going_away, "the server closes") end
  if self.count > 0 and coroutine.isyieldable() then
    self.empty = cosocket.event()
    if not cosocket.deadline(CLOSE_TIMEOUT, self.empty.wait, self.empty) then
      for one in pairs(self.peers) do one:abandon() end
      self.empty:wait()
    end
  end
  if self.owns_http then self.http:stop() end
  return true
end

function Server:__close()
  self:close()
end

-- Module ------------------------------------------------------------------------

--- Hands out a text that was built in.
---@param name string
---@param kind string
---@return http.Handler
local function embedded_handler(name, kind)
  local text = assert(embedded.text(name), name)
  return function(_, response)
    return response:send({ type = kind, headers = { ["Cache-Control"] = "no-cache" }, body = text })
  end
end

local server = {}

--- Serves `methods`: at an address, `"tcp://127.0.0.1:8080"` or `"tls://..."`, or as a route of an `http.server`.
---@async
---@param where string|http.Server
---@param methods table<string, wsrpc.Definition|fun(...): ...>
---@param options? wsrpc.ServeOptions
---@return wsrpc.Server? server
---@return cosocket.Error? err
function server.serve(where, methods, options)
  options = cosocket.check_options("wsrpc.serve", options, OPTIONS)
  if type(methods) ~= "table" then
    error(("wsrpc.serve: methods must be a table, not a %s"):format(type(methods)), 2)
  end
  local known, config = method.all("wsrpc.serve", methods, 2), session.config(options)
  for _, token in ipairs(type(options.token) == "table" and options.token --[[@as string[] ]] or {}) do
    if type(token) ~= "string" then error(("wsrpc.serve: tokens are strings, unlike %s"):format(tostring(token)), 2) end
  end
  local accepting = {
    subprotocols = { SUBPROTOCOL },
    origins = options.origins,
    compression = options.compression,
    message_max = config.message_max,
    keep_alive = options.keep_alive,
    keep_alive_timeout = options.keep_alive_timeout,
  }
  websocket.check_options("wsrpc.serve", accepting, "server", 2)
  listening.check("wsrpc.serve", where, options.tls, 2)
  local owns_http = type(where) == "string"
  local http = where
  if owns_http then http = http_server.new({ tls = options.tls }) end
  ---@cast http http.Server
  local self = setmetatable({
    everyone = group.new(),
    http = http,
    methods = known,
    options = options,
    config = config,
    accepting = accepting,
    owns_http = owns_http,
    peers = {},
    count = 0,
    closed = false,
  }, Server)
  http:get(options.path or PATH, function(request, response) return self:handle(request, response) end)
  local client_path = options.client_path
  if client_path == nil or client_path == true then client_path = CLIENT_PATH end
  if client_path then
    http:get(client_path, embedded_handler("wsrpc/wsrpc.js", "text/javascript; charset=utf-8"))
    local types = client_path:gsub("%.js$", "") .. ".d.ts"
    http:get(types, embedded_handler("wsrpc/wsrpc.d.ts", "text/plain; charset=utf-8"))
  end
  if owns_http then
    ---@cast where string
    local address = where:gsub("^wss://", "tls://"):gsub("^ws://", "tcp://")
    local ok, err = http:listen(address)
    if not ok then
      http:stop(0)
      return nil, err
    end
  end
  self.forget_stop = cosocket.on_stop(function() self:close() end)
  log.debug("serves", { path = options.path or PATH })
  return self
end

return server
