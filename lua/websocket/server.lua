--- The server's side of the opening handshake: on a port of its own (`listen`), or for a request that an HTTP server has
--- received (`accept`).

local acceptor = require("net.acceptor")
local close_code = require("websocket.close_code")
local connection = require("websocket.connection")
local cosocket = require("cosocket")
local extension = require("websocket.extension")
local handshake = require("websocket.handshake")
local http_codec = require("http.codec")
local listening = require("net.listening")
local log = require("log").new("websocket.server")
local message = require("http.message")
local session = require("websocket.session")
local trace = require("net.trace")

--- Seconds a client may take for its TLS and HTTP handshakes.
local HANDSHAKE_TIMEOUT = 10
--- Connections at a time.
local CONNECTIONS_MAX = 10000
--- Bytes of a request.
local HEAD_MAX = 16384
--- A handshake leaves more garbage than its connection needs memory. It is collected when so many connections, or this
--- share of all that are open, have come since the last time.
local TIDY_LEAST, TIDY_SHARE = 32, 1 / 64
--- KiB of heap below which one step is enough: the collector goes by generations then.
local TIDY_FROM = 8192

---@class websocket.AcceptOptions: websocket.ConfigOptions
---@field subprotocols? string[] Spoken here, best first: the first that the client offers is chosen.
---@field origins? string[]|"*" Pages that may connect, as browsers name them: `"https://app.example"`. Default: only pages of this same host. A client that names no page is no browser, and may.
---@field compression? boolean|websocket.CompressionOptions Agree to permessage-deflate. Default `false`.

---@class websocket.ListenOptions: websocket.AcceptOptions
---@field tls? cosocket.TlsServerOptions For an address that begins with `tls://` or `wss://`.
---@field handshake_timeout? number Seconds a client may take until its connection is open. Default 10.
---@field connections_max? integer Connections at a time, those in their handshake included; more are closed at once. Default 10000.

local ACCEPT_OPTIONS = {
  subprotocols = "table",
  origins = "string|table",
  compression = "boolean|table",
  message_max = "integer",
  frame_max = "integer",
  keep_alive = "number",
  keep_alive_timeout = "number",
  close_timeout = "number",
}

local LISTEN_OPTIONS = { tls = "tls_server", handshake_timeout = "number", connections_max = "integer" }
for name, kind in pairs(ACCEPT_OPTIONS) do LISTEN_OPTIONS[name] = kind end

local server = {}

--- Options in the form in which requests are judged by them. Connections that agreed on the same share a config.
---@class websocket.Checked: websocket.Terms
---@field options websocket.AcceptOptions
---@field configs table<string, websocket.Config>

--- Raises for options that are wrong, `level` calls above.
---@param op string
---@param options websocket.AcceptOptions
---@param level integer
---@return websocket.Checked
local function check(op, options, level)
  for _, name in ipairs(options.subprotocols or {}) do
    if not handshake.valid_subprotocol(name) then
      error(("%s: %q is not the name of a subprotocol"):format(op, tostring(name)), level + 1)
    end
  end
  local origins = options.origins
  if type(origins) == "string" and origins ~= "*" then
    error(("%s: origins must be a list or \"*\""):format(op), level + 1)
  end
  for _, origin in ipairs(type(origins) == "table" and origins or {}) do
    if type(origin) ~= "string" then
      error(("%s: origins are strings, unlike %s"):format(op, tostring(origin)), level + 1)
    end
  end
  return {
    subprotocols = options.subprotocols or {},
    origins = origins --[[@as string[]|"*"|nil]],
    compression = extension.check(op, options.compression, level + 1),
    options = options,
    configs = {},
  }
end

--- What connections that agreed on this share.
---@param checked websocket.Checked
---@param agreed {subprotocol: string?, compression: websocket.Agreed?}
---@return websocket.Config
local function config_of(checked, agreed)
  local key = (agreed.subprotocol or "") .. ";" .. (agreed.compression and agreed.compression.header or "")
  local config = checked.configs[key]
  if not config then
    config = session.config("server", checked.options, agreed)
    checked.configs[key] = config
  end
  return config
end

-- On a port of its own --------------------------------------------------------

--- What a client asked for.
---@class websocket.Request
---@field method string
---@field target string Path and query, as the client wrote them.
---@field headers http.Headers
---@field peer_address string?

---@class websocket.Server: websocket.Owner
---@field private listener cosocket.Listener
---@field private handler fun(connection: websocket.Connection, request: websocket.Request)
---@field private wants_request boolean A handler that does not take it does not keep it in memory.
---@field private checked websocket.Checked
---@field private connections table<websocket.Connection, true>
---@field private count integer Those in their handshake included.
---@field private connections_max integer
---@field private handshake_timeout number Seconds.
---@field private closed boolean
---@field private untidy integer Handshakes since garbage was last collected; negative while it is.
---@field private empty cosocket.Event? Set when the last connection has ended.
---@field private forget_stop fun()
local Server = {}
Server.__index = Server
Server.__name = "websocket.Server"

--- A connection has ended.
---@param one websocket.Connection
function Server:forget(one)
  if not self.connections[one] then return end
  self.connections[one] = nil
  self.count = self.count - 1
  if self.empty and next(self.connections) == nil then self.empty:set() end
end

--- Closes when the handler has ended.
---@async
---@param one websocket.Connection
---@param ok boolean
---@param err any
---@param traceback string?
local function end_of_handler(one, ok, err, traceback)
  if ok then
    one:close()
    return
  end
  local peer = one:peer_address()
  one:close(close_code.internal_error)
  if cosocket.is_error(err, "cancelled") then error(err, 0) end
  -- What ends the connection often ends its handler.
  if err == one.err then return end
  local text = tostring(err)
  if type(err) == "string" and traceback and traceback ~= "" then text = text .. "\n" .. traceback end
  log.error("a handler failed", { peer = peer, error = text })
end

--- Says no in HTTP, and closes.
---@async
---@param stream cosocket.Stream
---@param refusal websocket.Refusal
local function say_no(stream, refusal)
  local output, text = cosocket.buffer(), refusal.message .. "\n"
  local fields = { ["Content-Type"] = "text/plain; charset=utf-8" }
  fields.Connection = "close"
  for name, value in pairs(refusal.headers) do
    fields[name] = name == "Connection" and value .. ", close" or value
  end
  assert(http_codec.encode_response(output, refusal.status, nil, #text, fields))
  stream:write(output, text)
  stream:flush()
  stream:shutdown("write")
  -- What is closed with unread bytes is reset, and the answer could be lost with it.
  while stream:read() do end
end

--- Takes the handshake of one client.
---@async
---@param self websocket.Server
---@param stream cosocket.Stream
---@return websocket.Connection? connection
---@return websocket.Request? request
local function greet(self, stream)
  trace.attach(stream, "http", "server")
  local input, output, checked = cosocket.buffer(), cosocket.buffer(), self.checked
  local method, target, minor, headers = message.next_request(stream, input, output, { head_max = HEAD_MAX })
  if not method then
    local err = target --[[@as cosocket.Error]]
    if err.kind == "protocol" or err.kind == "limit" then
      say_no(stream, { status = err.code --[[@as integer]], message = err.message, headers = {} })
    end
    return nil
  end
  local version = minor == 1 and "1.1" or "1.0"
  local fields, agreed = handshake.check_request(method, version, function(name) return headers:get(name) end, checked)
  if not fields then
    say_no(stream, agreed --[[@as websocket.Refusal]])
    return nil
  end
  assert(http_codec.encode_response(output, 101, nil, nil, fields))
  if not stream:write(output) then return nil end
  local made = connection.new(stream, config_of(checked, agreed --[[@as table]]), input, self)
  return made, { method = method, target = target, headers = headers, peer_address = stream:peer_address() }
end

--- Collects the garbage of handshakes, in a large heap a step with each: otherwise memory would grow to twice what
--- connections need before the collector begins.
---@param self websocket.Server|websocket.Accepted
local function tidy(self)
  self.untidy = self.untidy + 1
  if self.untidy > 0 and self.untidy < math.max(TIDY_LEAST, self.count * TIDY_SHARE) then return end
  local done = collectgarbage("step") or collectgarbage("count") < TIDY_FROM
  self.untidy = done and 0 or math.mininteger
end

--- From an accepted stream to a handler that runs.
---@async
---@param self websocket.Server
---@param stream cosocket.Stream
---@param seconds number
local function admit(self, stream, seconds)
  local made, request
  local guard <close> = setmetatable({}, {
    __close = function()
      if not made then
        self.count = self.count - 1
        stream:close()
      end
    end,
  })
  made, request = cosocket.deadline(seconds, greet, self, stream)
  if not made then return end
  if self.closed then
    made:start_close(close_code.going_away)
  end
  self.connections[made] = true
  tidy(self)
  -- Without a name, and with nothing under the handler, which would cost memory for as long as the connection lives.
  if self.wants_request then
    cosocket.spawn_then(end_of_handler, self.handler, made, request)
  else
    cosocket.spawn_then(end_of_handler, self.handler, made)
  end
end

--- What becomes of one more connection.
---@param self websocket.Server
---@param stream cosocket.Stream
local function take(self, stream)
  if self.count >= self.connections_max then
    log.warn("too many connections; one more was closed", { connections_max = self.connections_max })
    stream:close()
  else
    self.count = self.count + 1
    cosocket.spawn("websocket handshake", admit, self, stream, self.handshake_timeout)
  end
end

--- Where it listens: `"127.0.0.1:8080"`, or a path.
---@return string
function Server:address()
  return self.listener:local_address()
end

--- Connections that are open, or in their handshake.
---@return integer
function Server:connection_count()
  return self.count
end

--- Accepts no more, and closes every connection with code 1001; returns when all have ended.
---@async
---@return true
function Server:close()
  if self.closed then return true end
  self.closed = true
  self.forget_stop()
  self.listener:close()
  for one in pairs(self.connections) do one:start_close(close_code.going_away) end
  if next(self.connections) ~= nil and coroutine.isyieldable() then
    self.empty = cosocket.event()
    -- Those whose handler does not receive, and those whose client does not answer.
    local config = session.config("server", self.checked.options)
    cosocket.deadline(config.close_timeout, self.empty.wait, self.empty)
  end
  for one in pairs(self.connections) do
    one:lose(cosocket.error("closed", "websocket", "the server has closed", { code = close_code.going_away }))
  end
  return true
end

function Server:__close()
  self:close()
end

--- Listens: `"tcp://host:port"`, `"tls://host:port"`, `"unix:///path"`, or with `ws` and `wss` for the first two. Each
--- client gets a task that runs `handler`, whose end closes the connection: with code 1011 when it raised an error.
---@async
---@param address string
---@param handler fun(connection: websocket.Connection, request: websocket.Request)
---@param options? websocket.ListenOptions
---@return websocket.Server? server
---@return cosocket.Error? err
function server.listen(address, handler, options)
  options = cosocket.check_options("websocket.listen", options, LISTEN_OPTIONS)
  if type(handler) ~= "function" then
    error(("websocket.listen: the handler must be a function, not a %s"):format(type(handler)), 2)
  end
  local checked = check("websocket.listen", options, 2)
  listening.check("websocket.listen", address, options.tls, 2)
  local where = address:gsub("^wss://", "tls://"):gsub("^ws://", "tcp://")
  local listener, err = cosocket.listen(where, { tls = options.tls })
  if not listener then return nil, err end
  local takes = debug.getinfo(handler, "u")
  local self = setmetatable({
    listener = listener,
    handler = handler,
    wants_request = takes.isvararg or takes.nparams >= 2,
    checked = checked,
    connections = {},
    connections_max = options.connections_max or CONNECTIONS_MAX,
    handshake_timeout = options.handshake_timeout or HANDSHAKE_TIMEOUT,
    count = 0,
    untidy = 0,
    closed = false,
  }, Server)
  self.forget_stop = cosocket.on_stop(function() self:close() end)
  cosocket.spawn("websocket server", acceptor.take_all, listener, log, take, self)
  return self
end

--- Raises for options of `accept` that are wrong.
---@param op string
---@param options websocket.AcceptOptions
---@param level integer As of `error`, from the caller.
function server.check(op, options, level)
  cosocket.check_options(op, options, ACCEPT_OPTIONS, level + 1)
  check(op, options, level + 1)
end

-- Within an HTTP server -------------------------------------------------------

--- Options that were checked, as long as their tables live.
---@type table<table, websocket.Checked>
local known = setmetatable({}, { __mode = "k" })
local NO_OPTIONS = {}

--- The connections that were accepted so.
---@class websocket.Accepted: websocket.Owner
---@field package connections table<websocket.Connection, true>
---@field package count integer
---@field package untidy integer As of a server.
local accepted = { connections = setmetatable({}, { __mode = "k" }), count = 0, untidy = 0 }

function accepted:forget(one)
  if not self.connections[one] then return end
  self.connections[one] = nil
  self.count = self.count - 1
end

--- Judges the request, and changes protocols.
---@async
---@param request http.ServerRequest
---@param response http.ServerResponse
---@param checked websocket.Checked
---@return websocket.Connection? connection
---@return cosocket.Error? err
local function take_over(request, response, checked)
  local headers = request.headers
  local fields, agreed = handshake.check_request(request.method, request.version, function(name)
    return headers:get(name)
  end, checked)
  if not fields then
    ---@cast agreed websocket.Refusal
    response:error(agreed.status, agreed.message, agreed.headers)
    return nil, cosocket.error("refused", "websocket.accept", agreed.message, { code = agreed.status })
  end
  ---@cast agreed {subprotocol: string?, compression: websocket.Agreed?}
  local stream, unread = request:upgrade("websocket", fields)
  if not stream then
    ---@cast unread cosocket.Error
    if not response.started then response:fail(unread) end
    return nil, unread
  end
  local made = connection.new(stream, config_of(checked, agreed), unread --[[@as cosocket.Buffer]], accepted)
  accepted.connections[made], accepted.count = true, accepted.count + 1
  tidy(accepted)
  return made
end

--- Takes over a request of `http.server` that asks for WebSocket. Refusals are answered: 426, 403 for pages that may not
--- connect, 400.
---
---     server:get("/live", function(request, response)
---       local connection <close> = websocket.accept(request, response)
---       if not connection then return end
---       for message in connection:messages() do connection:send(message) end
---     end)
---@async
---@param request http.ServerRequest
---@param response http.ServerResponse
---@param options? websocket.AcceptOptions Better the same table each time: connections then share what they can.
---@return websocket.Connection? connection
---@return cosocket.Error? err `refused` with `code`, the status that was answered
function server.accept(request, response, options)
  options = options or NO_OPTIONS
  local checked = known[options]
  if not checked then
    cosocket.check_options("websocket.accept", options, ACCEPT_OPTIONS)
    checked = check("websocket.accept", options, 2)
    known[options] = checked
  end
  if response.started then error("websocket.accept: a response has been sent already", 2) end
  -- On a stack of its own, which goes: that of the handler would grow with this, and stay as large as long as the
  -- connection lives.
  return coroutine.wrap(take_over)(request, response, checked)
end

return server
