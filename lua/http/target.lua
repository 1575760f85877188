--- Where a request goes: a URL taken apart once, and the way there: direct, through a proxy, over a unix socket.

local codec = require("http.codec")
local cosocket = require("cosocket")
local proxies = require("http.proxy")
local url = require("url")

local now = cosocket.now

---@class http.Target
---@field url url.Url
---@field href string Without user and password, which are for `Authorization` only (RFC 9110, 4.2.4).
---@field origin string `https://example.org:8443`
---@field secure boolean
---@field host string
---@field port integer
---@field path string Path and query, as the request line has them.
---@field login http.AuthOptions? User and password of the URL.
---@field wire string? The head of a plain GET, once it was made.
---@field route http.Route? The way by the client's own options.

---@class http.Route
---@field key string What connections may be shared by.
---@field proxy http.Proxy?
---@field forward boolean The proxy reads our requests itself.
---@field unix string?
---@field tls cosocket.TlsOptions?
---@field connect http.Connect? In place of `cosocket.connect`.

---@alias http.Connect fun(host: string, port: integer, options: cosocket.ConnectOptions): cosocket.Stream?, cosocket.Error?

local target = {}

local SECURE = { http = false, ws = false, https = true, wss = true }
local PORTS = { http = 80, ws = 80, https = 443, wss = 443 }

--- Takes a URL apart.
---@param address string|url.Url
---@param base? url.Url
---@return http.Target? target
---@return cosocket.Error? err `protocol`
function target.of(address, base)
  local parsed, err = address, nil
  if type(address) == "string" then parsed, err = url.parse(address, base) end
  if not parsed then return nil, err end
  ---@cast parsed url.Url
  local scheme, host = parsed.scheme, parsed.host
  local secure = SECURE[scheme]
  if secure == nil or not host then
    return nil, cosocket.error("protocol", "http", ("an http:// or https:// URL is wanted, not one of %s:"):format(scheme))
  end
  local href, login = parsed.href, nil
  if parsed.username or parsed.password then
    login = { username = parsed.username, password = parsed.password }
    href = href:gsub("^([^:]+://)[^/?#]*@", "%1")
  end
  return {
    url = parsed,
    href = href,
    origin = (secure and "https://" or "http://") .. parsed.authority,
    secure = secure,
    host = host,
    port = parsed.port or PORTS[scheme],
    path = parsed.target,
    login = login,
  }
end

--- Options of TLS as given, with what HTTP adds. One table is made of one, so that connections can be shared by it.
local made_of = setmetatable({}, { __mode = "k" }) ---@type table<table, {tls: cosocket.TlsOptions, id: integer}>
local ids = 0
local PLAIN_TLS = {}

---@param given cosocket.TlsOptions?
---@return cosocket.TlsOptions tls
---@return integer id
local function tls_of(given)
  given = given or PLAIN_TLS
  local known = made_of[given]
  if not known then
    local tls = {}
    for name, value in pairs(given) do tls[name] = value end
    tls.alpn = tls.alpn or { "http/1.1" }
    ids = ids + 1
    known = { tls = tls, id = ids }
    made_of[given] = known
  end
  return known.tls, known.id
end

local connect_ids = setmetatable({}, { __mode = "k" }) ---@type table<function, integer>

--- A number for a function, so that connections are shared by it.
---@param connect http.Connect?
---@return integer?
local function id_of(connect)
  if not connect then return nil end
  if not connect_ids[connect] then
    ids = ids + 1
    connect_ids[connect] = ids
  end
  return connect_ids[connect]
end

--- The way to a target.
---@param to http.Target
---@param settings {tls: cosocket.TlsOptions?, unix: string?, connect: http.Connect?}
---@param through http.ProxySettings?
---@return http.Route
function target.route(to, settings, through)
  local tls, id
  if to.secure then
    tls, id = tls_of(settings.tls)
  end
  local unix = settings.unix
  local proxy = not unix and not settings.connect and proxies.choose(through, to.secure and "https" or "http", to.host, to.port) or nil
  -- WebSocket goes through a tunnel (RFC 6455, 4.1): a proxy that forwards would take the upgrade for its own.
  local forward = proxy ~= nil and not to.secure and proxy.scheme ~= "socks5" and to.url.scheme ~= "ws"
  local key
  if forward then
    key = "via " .. proxy.key
  else
    key = ("%s %s %s %s %s"):format(to.origin, proxy and proxy.key or "", unix or "", id or "", id_of(settings.connect) or "")
  end
  return { key = key, proxy = proxy, forward = forward, unix = unix, tls = tls, connect = settings.connect }
end

---@async
---@param to http.Target
---@param route http.Route
---@param timeout number
---@return cosocket.Stream? stream
---@return cosocket.Error? err
local function open(to, route, timeout)
  local tls, proxy = route.tls, route.proxy
  local stream, err
  if route.unix then
    stream, err = cosocket.connect("unix://" .. route.unix, { timeout = timeout })
  elseif proxy then
    -- A proxy of its own authority is verified like any other server.
    local options = { timeout = timeout, tls = proxy.scheme == "https" or nil }
    stream, err = proxies.connect(proxy, to.host, to.port, not route.forward, options)
  else
    return (route.connect or cosocket.connect)(to.host, to.port, { timeout = timeout, tls = tls })
  end
  if not stream or not tls then return stream, err end
  local options = {}
  for name, value in pairs(tls) do options[name] = value end
  options.server_name = options.server_name or to.host
  local ok
  ok, err = stream:start_tls(options)
  if ok then return stream end
  stream:close()
  return nil, err
end

--- Opens a stream to a target.
---@async
---@param to http.Target
---@param route http.Route
---@param timeout number Seconds for name, connection, proxy and handshake together.
---@return cosocket.Stream? stream
---@return cosocket.Error? err
function target.dial(to, route, timeout)
  if not route.proxy and not (route.unix and route.tls) then return open(to, route, timeout) end
  local opened = nil ---@type cosocket.Stream?
  local started = now()
  local stream, err = cosocket.deadline(timeout, function()
    local failure
    opened, failure = open(to, route, timeout)
    return opened, failure
  end)
  if stream then return stream end
  if opened then opened:close() end
  if err and err.kind == "timeout" and now() - started >= timeout then
    local message = ("no way to %s within %g seconds"):format(to.origin, timeout)
    err = cosocket.error("timeout", "http", message, { cause = err })
  end
  return nil, err
end

--- The head of a plain GET.
---@param to http.Target
---@param base http.Headers
---@param host? string What to say as Host. Default: where it goes.
---@return string? wire
---@return cosocket.Error? err
function target.wire(to, base, host)
  local output = cosocket.buffer()
  local ok, err = codec.encode_request(output, "GET", to.path, nil, { { "Host", host or to.url.authority } }, base)
  if not ok then return nil, err end
  return output:take()
end

return target
