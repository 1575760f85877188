--- From an address and options to a client: the connection, TLS, the login.

local Client = require("smtp.client")
local cosocket = require("cosocket")
local dkim = require("smtp.dkim")
local sasl = require("smtp.sasl")
local session = require("smtp.session")
local trace = require("net.trace")
local url = require("url")

local now = cosocket.now

---@class smtp.Options
---@field username? string Also in the address: `smtp://user:password@host`.
---@field password? string
---@field token? string OAuth 2.0 access token, instead of a password.
---@field authorize_as? string Whom to act for, if it is not the user.
---@field auth? string|string[] Mechanisms that may be used, best first. Default: SCRAM-SHA-256, SCRAM-SHA-1, CRAM-MD5, PLAIN, LOGIN; with a token OAUTHBEARER, XOAUTH2.
---@field auth_without_tls? boolean Log in without TLS, too: whoever listens may learn the password. Default `false`.
---@field starttls? "required"|"optional"|"off" For `smtp://`. Default "required".
---@field tls? cosocket.TlsOptions
---@field name? string What EHLO says of this device. Default: its address in brackets.
---@field local_address? string Address to connect from.
---@field timeout? number Seconds until the server may be used: name, connection, TLS, login. Default 60.
---@field timeouts? {greeting?: number, command?: number, data?: number, block?: number, done?: number, quit?: number} Seconds for each step, RFC 5321, 4.5.3.2. Default 300, 300, 120, 180, 600, 10.
---@field pipelining? boolean Use PIPELINING where it is offered. Default `true`.
---@field chunking? boolean Use CHUNKING where it is offered. Default `true`.
---@field line_max? integer Bytes of a line of a reply. Default 4096.
---@field lines_max? integer Lines of a reply. Default 256.
---@field iterations_max? integer Rounds of SCRAM a server may ask for. Default 200000.
---@field dkim? smtp.Dkim|smtp.Dkim[] Signs every message.

local OPTIONS = {
  username = "string",
  password = "string",
  token = "string",
  authorize_as = "string",
  auth = "string|table",
  auth_without_tls = "boolean",
  starttls = "string",
  tls = "tls",
  name = "string",
  local_address = "string",
  timeout = "number",
  timeouts = "table",
  pipelining = "boolean",
  chunking = "boolean",
  line_max = "integer",
  lines_max = "integer",
  iterations_max = "integer",
  dkim = "table",
}

local TIMEOUTS = {}
for name in pairs(session.TIMEOUTS) do TIMEOUTS[name] = "number" end

local connect = {}

local STARTTLS = { required = true, optional = true, off = true }

--- Checks options; mistakes are the caller's of `level`.
---@param op string
---@param options smtp.Options?
---@param extra? table<string, string>
---@return smtp.Options
local function check(op, options, extra)
  local known = OPTIONS
  if extra then
    known = {}
    for name, kind in pairs(OPTIONS) do known[name] = kind end
    for name, kind in pairs(extra) do known[name] = kind end
  end
  options = cosocket.check_options(op, options, known, 4)
  local function wrong(text) error(op .. ": " .. text, 5) end
  if options.starttls and not STARTTLS[options.starttls] then
    wrong('starttls must be "required", "optional" or "off"')
  end
  cosocket.check_options(op, options.timeouts, TIMEOUTS, 4)
  for _, name in ipairs(type(options.auth) == "table" and options.auth or { options.auth }) do
    if not sasl.is_known(name) then
      wrong(("auth: %q is not a mechanism; known: %s"):format(tostring(name), table.concat(sasl.names, ", ")))
    end
  end
  if options.name and not options.name:find("^[%w%[][%w%.:%-%]]*$") then wrong("name must be a domain, or an address in brackets") end
  local from = options.local_address
  if from and not from:find("^%d+%.%d+%.%d+%.%d+:?%d*$") and not from:find("^%[?%x*:[%x:.]*%%?%w*%]?:?%d*$") then
    wrong(("local_address %q is not an address in numbers"):format(from))
  end
  if options.password and options.token then wrong("password and token exclude each other") end
  if options.dkim then dkim.check(op, options.dkim, 5) end
  return options
end

---@class smtp.Server
---@field address string For `cosocket.connect`.
---@field host string
---@field port integer
---@field tls boolean
---@field username string?
---@field password string?

--- Takes an address apart: `smtp://` (port 587; 25 with `starttls = "off"`) or `smtps://` (465).
---@param op string
---@param text string
---@param options smtp.Options
---@return smtp.Server
local function server_of(op, text, options)
  local function wrong(words) error(op .. ": " .. words, 5) end
  if type(text) ~= "string" then wrong(("the address must be a string, not a %s"):format(type(text))) end
  -- The address may hold a password: only its beginning is shown.
  local parsed = url.parse(text)
  if not parsed or parsed.scheme ~= "smtp" and parsed.scheme ~= "smtps" or not parsed.host then
    wrong("the address must begin with smtp:// or smtps://, and have a host")
  end
  ---@cast parsed url.Url
  if parsed.path ~= "" and parsed.path ~= "/" or parsed.query or parsed.fragment then
    wrong("an address has no path")
  end
  local tls = parsed.scheme == "smtps"
  if tls and options.starttls then wrong("starttls goes with smtp://") end
  local port = parsed.port or tls and 465 or options.starttls == "off" and 25 or 587
  return { host = parsed.host, port = port, tls = tls, username = parsed.username, password = parsed.password }
end

--- A connected stream, or a function that connects one, through a tunnel say; STARTTLS and the login follow on it.
---@alias smtp.Dial cosocket.Stream|fun(): cosocket.Stream?, cosocket.Error?

---@class smtp.Target
---@field options smtp.Options
---@field dial smtp.Dial?
---@field server smtp.Server?
---@field credentials smtp.Credentials?

--- Checks what a client is to be connected with.
---@param op string
---@param where string|smtp.Dial
---@param options smtp.Options?
---@param extra? table<string, string> More options, of a pool.
---@return smtp.Target
function connect.target(op, where, options, extra)
  options = check(op, options, extra)
  local server
  local dial = (type(where) == "userdata" or type(where) == "function") and where or nil
  if not dial then server = server_of(op, where, options) end
  local username = options.username or server and server.username
  local password = options.password or server and not options.token and server.password or nil
  if password and not username then error(op .. ": a password needs a username", 3) end
  local credentials
  if password or options.token then
    credentials = {
      username = username,
      password = password,
      token = options.token,
      authorize_as = options.authorize_as,
      host = server and server.host,
      port = server and server.port,
      iterations_max = options.iterations_max,
    }
  elseif username then
    error(op .. ": a username needs a password or a token", 3)
  end
  return { options = options, server = server, credentials = credentials, dial = dial }
end

--- The address of a stream's own end, for EHLO (RFC 5321, 4.1.3).
---@param stream cosocket.Stream
---@return string
local function literal(stream)
  local address = stream:local_address() or ""
  local v4 = address:match("^(%d+%.%d+%.%d+%.%d+):%d+$")
  if v4 then return "[" .. v4 .. "]" end
  local v6 = address:match("^%[([%x:.]+)%]:%d+$")
  return v6 and "[IPv6:" .. v6 .. "]" or "[127.0.0.1]"
end

-- TLS and the login -----------------------------------------------------------

---@async
---@param client smtp.Client
---@param host string?
---@return true? ok
---@return cosocket.Error? err
local function secure(client, host)
  local options, state = client.options, client.session
  local offered = state.extensions.STARTTLS ~= nil
  if not offered and options.starttls ~= "optional" then
    local message = "the server does not offer STARTTLS: it has no TLS on this port, or somebody between hides it "
      .. '(starttls = "optional" or "off" goes on without TLS)'
    return nil, cosocket.error("tls", "smtp.connect", message, { retry = false })
  elseif not offered then
    return true
  end
  assert(state:starttls(now()))
  local event, err = client:event("smtp.connect")
  if not event then
    ---@cast err cosocket.Error
    if err.kind == "refused" and options.starttls == "optional" then return true end
    return nil, err
  end
  local tls = { server_name = host }
  for name, value in pairs(options.tls or {}) do tls[name] = value end
  local ok
  ok, err = client.stream:start_tls(tls)
  if not ok then return nil, err end
  state:secured(now())
  event, err = client:event("smtp.connect")
  return event and true, err
end

---@async
---@param client smtp.Client
---@param credentials smtp.Credentials
---@return true? ok
---@return cosocket.Error? err
local function log_in(client, credentials)
  local options, state = client.options, client.session
  if not state.secure and not options.auth_without_tls then
    local message = "the connection has no TLS, and a password is not sent in clear (auth_without_tls = true sends it)"
    return nil, cosocket.error("tls", "smtp.auth", message, { retry = false })
  end
  local allowed = options.auth
  if type(allowed) == "string" then allowed = { allowed } end
  ---@cast allowed string[]?
  local names = sasl.suitable(state.mechanisms, credentials, allowed)
  if #names == 0 then
    local offered = {}
    for name in pairs(state.mechanisms) do offered[#offered + 1] = name end
    table.sort(offered)
    local message = "the server offers no way to log in that serves here; it offers "
      .. (#offered > 0 and table.concat(offered, ", "):sub(1, 200) or "none")
    return nil, cosocket.error("refused", "smtp.auth", message, { code = 504, retry = false })
  end
  for i, name in ipairs(names) do
    local mechanism, err = sasl.new(name, credentials)
    if not mechanism then return nil, err end
    assert(state:authenticate(mechanism, now()))
    local event
    event, err = client:event("smtp.auth")
    if event then
      client.mechanism = name
      return true
    end
    ---@cast err cosocket.Error
    -- 504: it does not know what it offered. Any other refusal is of us, and a weaker mechanism would not help.
    if err.kind ~= "refused" or err.code ~= 504 or i == #names then return nil, err end
  end
end

-- All of it ------------------------------------------------------------------

---@async
---@param aim smtp.Target
---@return smtp.Client?
---@return cosocket.Error?
local function establish(aim)
  local options, server = aim.options, aim.server
  local stream, err = aim.dial, nil
  if type(stream) == "function" then
    stream, err = stream()
    if not stream then
      err = err or cosocket.error("connect", "smtp.connect", "the function that connects answered no stream")
      if err.retry == nil then err.retry = Client.is_temporary(err) end
      return nil, err
    end
  elseif server then
    stream, err = cosocket.connect(server.host, server.port, {
      tls = server.tls and (options.tls or true) or nil,
      local_address = options.local_address,
      timeout = options.timeout or 60,
    })
    if not stream then
      ---@cast err cosocket.Error
      err.retry = Client.is_temporary(err)
      return nil, err
    end
  end
  ---@cast stream cosocket.Stream
  trace.attach(stream, "smtp", "client")
  local state = session.new({
    name = options.name or literal(stream),
    pipelining = options.pipelining,
    chunking = options.chunking,
    line_max = options.line_max,
    lines_max = options.lines_max,
    timeouts = options.timeouts,
  })
  if server and server.tls then state:secured(now()) end
  local client = Client.new(stream, state, options)
  local whole = false
  local guard <close> = setmetatable({}, {
    __close = function()
      if not whole then client:lose(cosocket.error("closed", "smtp.connect", "connecting was broken off")) end
    end,
  })
  state:open(now())
  local ok
  ok, err = client:event("smtp.connect")
  if ok and not state.secure and options.starttls ~= "off" then
    ok, err = secure(client, server and server.host)
  end
  if ok and aim.credentials then
    ok, err = log_in(client, aim.credentials)
  end
  if not ok then
    ---@cast err cosocket.Error
    if err.retry == nil then err.retry = Client.is_temporary(err) end
    client:lose(err)
    return nil, err
  end
  whole = true
  return client
end

---@async
---@param aim smtp.Target
---@return smtp.Client?
---@return cosocket.Error?
function connect.open(aim)
  local client, err = cosocket.deadline(aim.options.timeout or 60, establish, aim)
  if not client and err and err.retry == nil then err.retry = Client.is_temporary(err) end
  return client, err
end

return connect
