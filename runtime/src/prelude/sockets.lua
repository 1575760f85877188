-- Sockets: their options, and what takes more than one native step.

local native, cosocket, ours = ...

local ipairs, pairs, type = ipairs, pairs, type
local blame, check, check_options, in_words, mistake = ours.blame, ours.check, ours.check_options, ours.in_words, ours.mistake

local TLS_OPTIONS = {
  ca = "string|table", certificate = "string", key = "string", server_name = "string", alpn = "table",
  pin_sha256 = "string|table", min_version = "string", max_version = "string", insecure = "boolean",
}
local TLS_SERVER_OPTIONS = {
  certificate = "string", key = "string", certificates = "table", client_ca = "string|table",
  client_certificate = "string", alpn = "table", min_version = "string", max_version = "string",
  handshake_timeout = "number",
}
local CERTIFICATE_OPTIONS = { certificate = "string", key = "string", names = "table" }
local CONNECT_OPTIONS = {
  tls = "boolean|tls", timeout = "number", local_address = "string", nodelay = "boolean",
  keepalive = "boolean|number", keepalive_interval = "number", keepalive_count = "integer", queue_max = "integer",
}
local LISTEN_OPTIONS = {
  tls = "tls_server", backlog = "integer", reuse_port = "boolean", mode = "integer", nodelay = "boolean",
  keepalive = "boolean|number", keepalive_interval = "number", keepalive_count = "integer", queue_max = "integer",
}
local UDP_OPTIONS = {
  bind = "string", connect = "string", broadcast = "boolean", reuse_address = "boolean", ttl = "integer",
  multicast_ttl = "integer", multicast_loop = "boolean", mode = "integer",
}

local CONNECT_TIMEOUT = 30

--- Checks that an option is no more than what the system takes.
local function check_most(op, options, name, most)
  if options[name] and options[name] > most then
    mistake(op, ("option %q must not be more than %d"):format(name, most), 3)
  end
end

--- Checks that keep-alive is asked for where its questions are described.
local function check_keepalive(op, options)
  for _, name in ipairs({ "keepalive_interval", "keepalive_count" }) do
    if options[name] and not options.keepalive then
      mistake(op, ("%s says nothing without keepalive"):format(name), 3)
    end
  end
end

--- Checks the options of TLS: names, types and values, but reads no file. `within` comes before their names.
local function check_tls(op, given, side, level, within)
  check(op, given, side == "server" and TLS_SERVER_OPTIONS or TLS_OPTIONS, level + 1, within)
  if side == "server" then
    for _, entry in ipairs(given.certificates or {}) do
      if type(entry) == "table" then check(op, entry, CERTIFICATE_OPTIONS, level + 1, "") end
    end
  end
  local ok, err = native.check_tls(side, given)
  if not ok then mistake(op, err.message, level) end
end

function cosocket.check_tls_options(op, given, side, level)
  level = (level or 2) + 1
  if side ~= "client" and side ~= "server" then mistake("check_tls_options", 'the side is "client" or "server"', 2) end
  given = given or {}
  ours.check_table(op, given, level + 1)
  check_tls(op, given, side, level + 1, "")
  return given
end

-- The words for such tables where options are checked.
function ours.shapes.tls(op, given, level, within) check_tls(op, given, "client", level + 1, within) end
function ours.shapes.tls_server(op, given, level, within) check_tls(op, given, "server", level + 1, within) end

--- Sorts `(address, options)` and `(host, port, options)` out.
local function target_of(op, address, port, options)
  if address == cosocket then mistake(op, ("call this with a dot: cosocket.%s(address)"):format(op), 3) end
  if type(address) ~= "string" then
    mistake(op, ("%s wants an address, not %s"):format(op, in_words(type(address))), 3)
  end
  if type(port) == "number" then
    local target, err = blame(3, native.host_port(op, address, port))
    return target, err, options
  end
  if port ~= nil and type(port) ~= "table" then
    mistake(op, ("after the address %s wants options or a port (a number), not %s"):format(op, in_words(type(port))), 3)
  end
  local target, err = blame(3, native.parse(op, address))
  return target, err, port
end

--- Runs one step after the other and closes the stream when one fails.
local function secured(stream, side, tls, host)
  local ok, err = native.start_tls(stream, side, tls, host)
  if ok then ok, err = stream:handshake() end
  if not ok then
    stream:close()
    return nil, err
  end
  return stream
end

local function resolved(target)
  if target.numeric then return true end
  return native.resolve(target.host)
end

local function open(target, options)
  if target.path then
    local stream, err = native.connect_unix(target.path, options)
    if not stream or not options.tls then return stream, err end
    return secured(stream, "client", options.tls, target.host)
  end
  local ok, err = resolved(target)
  if not ok then return nil, err end
  local id, why = native.start_dial(target.host, target.port, options.local_address)
  if not id then return nil, why end
  local stream, failure = native.dial(id, options.queue_max)
  if not stream then return nil, failure end
  native.tune(stream, options)
  if not (target.tls or options.tls) or options.tls == false then return stream end
  return secured(stream, "client", options.tls, target.host)
end

local function connected(target, seconds, stream, err)
  if not stream and err.kind == "argument" then mistake("connect", err.message, 2) end
  if not stream and err.kind == "timeout" then
    local where = target.path or ("%s:%d"):format(target.host, target.port)
    err.message = ("no connection to %s within %g s (%s)"):format(where, seconds, err.op)
  end
  if not stream then err.op = "connect" end
  return stream, err
end

function cosocket.connect(address, port, options)
  local target, err, given = target_of("connect", address, port, options)
  options = check_options("connect", given, CONNECT_OPTIONS)
  check_keepalive("connect", options)
  if not target then return nil, err end
  if target.tls and options.tls == false then
    mistake("connect", "a tls:// address contradicts tls = false", 2)
  end
  local seconds = options.timeout or CONNECT_TIMEOUT
  return connected(target, seconds, cosocket.deadline(seconds, open, target, options))
end

function cosocket.listen(address, port, options)
  local target, err, given = target_of("listen", address, port, options)
  options = check_options("listen", given, LISTEN_OPTIONS)
  check_most("listen", options, "backlog", 0x7fffffff)
  check_most("listen", options, "mode", 0xfff)
  check_keepalive("listen", options)
  if not target then return nil, err end
  if target.tls and not options.tls then
    mistake("listen", "a tls:// address needs tls = {certificate = ..., key = ...}", 2)
  end
  if not target.path then
    local ok, why = resolved(target)
    if not ok then return nil, why end
  end
  return blame(1, native.listen(target, options))
end

function cosocket.udp(options)
  options = check_options("udp", options, UDP_OPTIONS)
  check_most("udp", options, "ttl", 255)
  check_most("udp", options, "multicast_ttl", 255)
  check_most("udp", options, "mode", 0xfff)
  for _, name in ipairs({ "bind", "connect" }) do
    if options[name] then
      local target, err = blame(2, native.parse("udp", options[name]))
      local ok = target and true
      if target and not target.path then ok, err = resolved(target) end
      if not ok then return nil, err end
    end
  end
  return blame(1, native.udp(options))
end

function cosocket.resolve(host)
  if type(host) ~= "string" then mistake("resolve", "resolve wants a name", 2) end
  local target, err = blame(2, native.host_port("resolve", host, 0))
  if not target then return nil, err end
  local ok, why = resolved(target)
  if not ok then return nil, why end
  return native.addresses(host)
end

cosocket.pair = native.pair

local Stream, Listener, Udp = native.stream_methods, native.listener_methods, native.udp_methods
local flush, handshake = Stream.flush, Stream.handshake

for _, methods in ipairs({ Stream, Listener, Udp }) do
  for _, name in ipairs({ "close", "local_address", "peer_address", "progress", "tls_info", "join", "leave" }) do
    local method = methods[name]
    if method then
      methods[name] = function(...) return blame(1, method(...)) end
    end
  end
end

function Stream:start_tls(options)
  if options ~= nil and type(options) ~= "table" then
    mistake("start_tls", ("the options must be a table, not %s"):format(in_words(type(options))), 2)
  end
  local server = type(options) == "table" and options.server
  local given = {}
  for name, value in pairs(options or {}) do
    if name ~= "server" then given[name] = value end
  end
  check_tls("start_tls", given, server and "server" or "client", 3, "")
  local ok, err = flush(self)
  if not ok then return nil, err end
  ok, err = blame(2, native.start_tls(self, server and "server" or "client", given, nil))
  if not ok then return nil, err end
  return handshake(self)
end

function Stream:shutdown(direction)
  if direction ~= nil and direction ~= "write" then
    mistake("shutdown", "shutdown ends the direction \"write\"", 2)
  end
  local ok, err
  repeat
    ok, err = flush(self)
    if not ok then return nil, err end
    -- The goodbye of TLS may be more than the socket takes at the moment.
    ok, err = native.shutdown(self)
  until ok ~= false
  return ok, err
end

function Stream:set_option(name, value)
  return blame(1, native.set_option(self, name, value))
end

local send_to = Udp.send_to

function Udp:send_to(data, address)
  if type(address) ~= "string" then
    mistake("send_to", ("send_to wants the data and an address (host:port), not %s"):format(in_words(type(address))), 2)
  end
  local ok, err = send_to(self, data, address)
  if ok or err.kind ~= "connect" then return ok, err end
  -- Not in numbers: a name.
  local target, why = blame(2, native.parse("send_to", address))
  if not target then return nil, why end
  ok, why = resolved(target)
  if not ok then return nil, why end
  local list = native.addresses(target.host)
  if not list then return nil, err end
  -- A name may have addresses of a family that this socket does not speak.
  for _, ip in ipairs(list) do
    ok, err = send_to(self, data, native.join_address(ip, target.port))
    if ok or (err.code ~= "EAFNOSUPPORT" and err.code ~= "EINVAL") then break end
  end
  return ok, err
end
