--- A small HTTP/1.1 server: enough for a device to serve its page and its JSON, and to change to WebSocket. Not a
--- framework.
---
---     local server = require("http.server").new()
---     server:get("/things/:id", function(request, response)
---       response:json({ id = request.params.id })
---     end)
---     server:static("/", "www")
---     assert(server:listen("tcp://127.0.0.1:8080"))
---
--- Each connection is a task, and a handler runs in it, in plain sequential code. What it raises is logged and answered
--- with 500. Pipelined requests are answered in order.
---
--- | room | knows |
--- |---|---|
--- | `http.server.connection` | one connection: requests, deadlines, errors |
--- | `http.server.route` | which handler a request is for |
--- | `http.server.request`, `http.server.response` | what a handler sees |
--- | `http.server.static`, `http.server.condition` | files, ranges, conditional requests |

local acceptor = require("net.acceptor")
local codec = require("http.codec")
local connections = require("http.server.connection")
local cosocket = require("cosocket")
local date = require("http.date")
local listening = require("net.listening")
local log = require("log").new("http.server")
local route = require("http.server.route")
local static = require("http.server.static")

--- Bytes, lines and bytes of the first line of a request's head.
local HEAD_MAX, HEADERS_MAX, START_LINE_MAX = 32768, 100, 8192
--- Bytes of a request's body.
local BODY_MAX = 16777216
--- Requests on one connection.
local REQUESTS_MAX = 100000
--- Connections at a time; more are answered with 503.
local CONNECTIONS_MAX = 15000
--- Seconds: for a whole head from its first byte, between requests, for one wait for a body, for one write.
local HEAD_TIMEOUT, IDLE_TIMEOUT, BODY_TIMEOUT, WRITE_TIMEOUT = 10, 75, 30, 30
--- Seconds that requests get to finish when the server stops.
local GRACE = 5

---@class http.ServerOptions
---@field tls? cosocket.TlsServerOptions For an address that begins with `tls://` or `https://`.
---@field backlog? integer As in `cosocket.listen`.
---@field reuse_port? boolean As in `cosocket.listen`.
---@field mode? integer As in `cosocket.listen`.
---@field keepalive? boolean|number TCP keep-alive, as in `cosocket.listen`: for connections that the server writes to rarely, and that no `idle_timeout` ends. Default `false`.
---@field keepalive_interval? number As in `cosocket.listen`.
---@field keepalive_count? integer As in `cosocket.listen`.
---@field head_max? integer Bytes of a request's head; more are answered with 431. Default 32768.
---@field headers_max? integer Header fields; more are answered with 431. Default 100.
---@field start_line_max? integer Bytes of a request's first line; more are answered with 414. Default 8192.
---@field body_max? integer Bytes of a request's body; more are answered with 413. Default 16777216.
---@field requests_max? integer Requests on one connection. Default 100000.
---@field connections_max? integer Connections at a time; more are answered with 503. Default 15000.
---@field head_timeout? number Seconds from a request's first byte to the end of its head; then 408. Default 10.
---@field idle_timeout? number Seconds without a request before a connection is closed. Default 75.
---@field body_timeout? number Seconds one wait for more of a body may take. Default 30.
---@field write_timeout? number Seconds one write may wait for the client to read. Default 30.
---@field access_log? boolean A record for each request at level `info`. Default `true`.
---@field server_name? string The `Server` field. Default: none.

local OPTIONS = {
  tls = "tls_server",
  backlog = "integer",
  reuse_port = "boolean",
  mode = "integer",
  keepalive = "boolean|number",
  keepalive_interval = "number",
  keepalive_count = "integer",
  head_max = "integer",
  headers_max = "integer",
  start_line_max = "integer",
  body_max = "integer",
  requests_max = "integer",
  connections_max = "integer",
  head_timeout = "number",
  idle_timeout = "number",
  body_timeout = "number",
  write_timeout = "number",
  access_log = "boolean",
  server_name = "string",
}

local DEFAULTS = {
  head_max = HEAD_MAX,
  headers_max = HEADERS_MAX,
  start_line_max = START_LINE_MAX,
  body_max = BODY_MAX,
  requests_max = REQUESTS_MAX,
  connections_max = CONNECTIONS_MAX,
  head_timeout = HEAD_TIMEOUT,
  idle_timeout = IDLE_TIMEOUT,
  body_timeout = BODY_TIMEOUT,
  write_timeout = WRITE_TIMEOUT,
  access_log = true,
}

---@class http.Server
---@field options http.ServerOptions With defaults.
---@field routes http.Routes
---@field handler http.Handler? For what no route takes.
---@field stopping boolean
---@field output cosocket.Buffer Where heads are encoded: empty whenever a task waits.
---@field text_headers http.Headers
---@field private listeners cosocket.Listener[]
---@field private connections table<http.ServerConnection, true>
---@field private connection_count integer
---@field private ended cosocket.Event Set when the last connection has gone after a stop.
---@field private common {second: integer, [string]: http.Headers}
---@field private forget_stop fun()
local Server = {}
Server.__index = Server
Server.__name = "http.Server"

-- Routes ----------------------------------------------------------------------

--- Adds a handler for a method and a pattern, such as `"/things/:id"` or `"/files/*path"`.
---@param method string `"*"` is any.
---@param pattern string
---@param handler http.Handler
---@return http.Server self
function Server:route(method, pattern, handler)
  cosocket.check_self(self, "server", "route")
  self.routes:add(method, pattern, handler)
  return self
end

for _, method in ipairs({ "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS" }) do
  Server[method:lower()] = function(self, pattern, handler)
    cosocket.check_self(self, "server", method:lower())
    self.routes:add(method, pattern, handler)
    return self
  end
end

--- Serves the files of a folder under a path; see `http.StaticOptions`.
---@param prefix string Such as `"/"` or `"/assets"`.
---@param folder string
---@param options? http.StaticOptions
---@return http.Server self
function Server:static(prefix, folder, options)
  cosocket.check_self(self, "server", "static")
  local handler = static.handler(folder, options)
  local pattern = prefix:gsub("/+$", "") .. "/*file"
  self.routes:add("GET", pattern, handler)
  return self
end

-- Connections -----------------------------------------------------------------

--- The header fields that every response has, made once a second.
---@param persistence "plain"|"close"|"keep-alive"
---@param has_date boolean The handler has given a date.
---@return http.Headers
function Server:common_headers(persistence, has_date)
  local second = os.time()
  local common = self.common
  if common.second ~= second then
    common = { second = second }
    self.common = common
  end
  local key = has_date and persistence .. " without date" or persistence
  local headers = common[key]
  if not headers then
    headers = codec.headers()
    -- RFC 9110, 6.6.1
    if not has_date then headers:add("Date", date.format(second)) end
    if self.options.server_name then headers:add("Server", self.options.server_name) end
    if persistence ~= "plain" then headers:add("Connection", persistence) end
    common[key] = headers
  end
  return headers
end

--- A connection has ended.
---@param connection http.ServerConnection
function Server:forget(connection)
  if not self.connections[connection] then return end
  self.connections[connection] = nil
  self.connection_count = self.connection_count - 1
  if self.stopping and self.connection_count == 0 then self.ended:set() end
end

--- Tells a client that there are too many, without waiting for it.
---@param server http.Server
---@param stream cosocket.Stream
local function turn_away(server, stream)
  local out = cosocket.buffer()
  codec.encode_response(out, 503, nil, 0, server:common_headers("close", false), { ["Retry-After"] = 1 })
  stream:try_write(out)
  stream:close()
end

--- Serves one more connection, such as one end of `cosocket.pair`, in a task of its own.
---@param stream cosocket.Stream
---@return cosocket.Task? task `nil` when there are too many connections, or the server stops.
function Server:serve(stream)
  if self.stopping or self.connection_count >= self.options.connections_max then
    turn_away(self, stream)
    return nil
  end
  local connection = connections.new(self, stream)
  self.connections[connection] = true
  self.connection_count = self.connection_count + 1
  connection.task = cosocket.spawn("http connection", connections.serve, connection)
  return connection.task
end

--- Listens, in tasks of its own: `"tcp://127.0.0.1:8080"`, `"tls://..."`, `"unix:///path"`; `http://` and `https://` mean
--- the same. Port 0 picks a free one; `address` says which. May be called for several addresses.
---@async
---@param address string
---@return http.Server? self
---@return cosocket.Error? err
function Server:listen(address)
  cosocket.check_self(self, "server", "listen")
  if type(address) ~= "string" then
    local message = "http.server:listen: an address such as \"tcp://127.0.0.1:8080\" is wanted, not a %s"
    error(message:format(type(address)), 2)
  end
  if self.stopping then error("http.server:listen: the server has been stopped", 2) end
  local options = self.options
  listening.check("http.server:listen", address, options.tls, 2)
  local scheme, rest = address:match("^(%a+)://(.*)$")
  if scheme == "http" or scheme == "https" then
    address = (scheme == "http" and "tcp://" or "tls://") .. rest:gsub("/$", "")
  end
  local listener, err = cosocket.listen(address, {
    tls = options.tls,
    backlog = options.backlog,
    reuse_port = options.reuse_port,
    mode = options.mode,
    keepalive = options.keepalive,
    keepalive_interval = options.keepalive_interval,
    keepalive_count = options.keepalive_count,
  })
  if not listener then return nil, err end
  table.insert(self.listeners, listener)
  cosocket.spawn("http server", acceptor.take_all, listener, log, self.serve, self)
  return self
end

--- Where it listens, `"127.0.0.1:8080"` or a path; of several the first.
---@return string?
function Server:address()
  local listener = self.listeners[1]
  return listener and listener:local_address()
end

--- How many connections there are.
---@return integer
function Server:count()
  return self.connection_count
end

--- Stops: accepts no more, closes what is idle, lets requests that have begun finish, and after `grace` seconds ends
--- the rest. Also done when the program is asked to stop.
---@async
---@param grace? number Seconds. Default 5.
---@return true
function Server:stop(grace)
  if not self.stopping then
    self.stopping = true
    self.forget_stop()
    for _, listener in ipairs(self.listeners) do listener:close() end
  end
  for connection in pairs(self.connections) do connection.stream:wake() end
  if self.connection_count > 0 then
    cosocket.deadline(grace or GRACE, self.ended.wait, self.ended)
    for connection in pairs(self.connections) do
      self:forget(connection)
      connection.task:cancel()
    end
  end
  return true
end

-- Module ----------------------------------------------------------------------

local server = {}

--- Makes a server.
---@param op string
---@param address string? Where it will listen.
---@param options http.ServerOptions?
---@param level integer As of `error`, from the caller.
---@return http.Server
local function make(op, address, options, level)
  local given = cosocket.check_options(op, options, OPTIONS, level + 1)
  listening.check(op, address, given.tls, level + 1)
  listening.check_keepalive(op, given, level + 1)
  local all = {}
  for name, value in pairs(DEFAULTS) do all[name] = value end
  for name, value in pairs(given) do all[name] = value end
  local self = setmetatable({
    options = all,
    routes = route.new(),
    stopping = false,
    output = cosocket.buffer(),
    text_headers = codec.headers({ ["Content-Type"] = "text/plain; charset=utf-8" }),
    listeners = {},
    connections = {},
    connection_count = 0,
    ended = cosocket.event(),
    common = { second = -1 },
  }, Server)
  self.forget_stop = cosocket.on_stop(function() self:stop() end)
  return self
end

--- A server that listens nowhere yet.
---@param options? http.ServerOptions
---@return http.Server
function server.new(options)
  local self = make("http.server", nil, options, 2)
  return self
end

--- Starts a server: with one handler for everything, or with routes by method and pattern,
--- `{ ["GET /things/:id"] = fn, ["/any"] = fn }`.
---@async
---@param address string
---@param handler http.Handler|table<string, http.Handler>
---@param options? http.ServerOptions
---@return http.Server? server
---@return cosocket.Error? err
function server.listen(address, handler, options)
  local self = make("http.listen", address, options, 2)
  if type(handler) == "function" then
    self.handler = handler
  elseif type(handler) == "table" then
    for name, one in pairs(handler) do
      local method, pattern = tostring(name):match("^(%S+) +(%S+)$")
      self.routes:add(method or "*", pattern or name, one)
    end
  else
    error(("http.listen: a handler or a table of routes is wanted, not a %s"):format(type(handler)), 2)
  end
  local ok, err = self:listen(address)
  if not ok then
    self.forget_stop()
    return nil, err
  end
  return self
end

return server
