--- A connection to a mail server: the caller's own task turns the loop.

local cosocket = require("cosocket")
local drive = require("net.drive")
local message = require("smtp.message")
local sasl = require("smtp.sasl")
local session = require("smtp.session")
local url = require("url")

local now = cosocket.now

--- Bytes of a message that may wait to be sent before more of it is made.
local OUTPUT_MAX = 64 * 1024
--- Bytes of a chunk (RFC 3030), and of a message that is sent in one flight with its envelope.
local CHUNK = 64 * 1024
--- Chunks on their way before replies are waited for.
local CHUNKS_DUE = 4

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
  tls = "table",
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

---@class smtp.SendOptions
---@field sender? string The return path, if it is not the message's `sender` or `from`; empty for none.
---@field recipients? (string|{address: string, notify?: string, orcpt?: string})[] Who gets it, if not `to`, `cc` and `bcc`.
---@field notify? string "NEVER", or of "SUCCESS", "FAILURE" and "DELAY" with commas: which reports are wanted (RFC 3461).
---@field ret? "FULL"|"HDRS" What a report returns.
---@field envid? string Comes back in a report.
---@field dkim? smtp.Dkim|smtp.Dkim[]|false Signs this message; `false` does not.
---@field reset? boolean Begin with RSET. Default `false`.

---@class smtp.Client
---@field private stream cosocket.Stream
---@field private session smtp.Session
---@field private input cosocket.Buffer
---@field private options smtp.Options
---@field private turn cosocket.Semaphore One command at a time.
---@field private err cosocket.Error?
---@field private forget_stop fun()?
---@field mechanism string? How it logged in.
local Client = {}
Client.__index = Client
Client.__name = "smtp.Client"

-- The connection --------------------------------------------------------------

--- The connection is of no use any more.
---@private
---@param err cosocket.Error
function Client:lose(err)
  if not self.err then self.err = err end
  self.stream:close()
  if self.forget_stop then self.forget_stop() end
end

--- Whether a try with another connection may end better.
---@param err cosocket.Error
---@return boolean
local function is_temporary(err)
  local kind = err.kind
  return kind == "closed" or kind == "timeout" or kind == "connect" or kind == "resolve" or kind == "io"
end

--- Waits for the session's next event. A refusal leaves the connection as it is.
---@private
---@async
---@param op string
---@return smtp.Event? event
---@return cosocket.Error? err
function Client:event(op)
  local event, err = drive.next_event(self.stream, self.session, self.input)
  if event then return event end
  ---@cast err cosocket.Error
  if err.kind == "refused" and self.session.state ~= "closed" then return nil, err end
  local fields = { cause = err }
  for name, value in pairs(err) do
    if name ~= "kind" and name ~= "op" and name ~= "message" then fields[name] = value end
  end
  if fields.retry == nil then fields.retry = is_temporary(err) end
  local own = err.op:find("^smtp") ~= nil
  if err.op == "smtp" then fields.cause = nil end
  local lost = own and err.op ~= "smtp" and err
    or cosocket.error(err.kind, op, own and err.message or "the connection is lost: " .. err.message, fields)
  if lost.retry == nil then lost.retry = fields.retry end
  self:lose(lost)
  return nil, lost
end

--- Whether a session expects nothing but what it has said goodbye to.
---@param state smtp.Session
---@return boolean
local function in_step(state)
  return state.state == "ready" or state.state == "quitting"
end

--- Runs `fn` while nobody else uses the connection. Unless it ends as it should, the connection is lost: somebody
--- else's answer may still be on its way.
---@private
---@async
---@param op string
---@param fn fun(): any, cosocket.Error?
---@return any
---@return cosocket.Error?
function Client:exclusive(op, fn)
  local permit <close>, why = self.turn:acquire()
  if not permit then return nil, why end
  if self.err then return nil, self.err end
  local guard <close> = setmetatable({}, {
    __close = function()
      -- A session that expects something when its caller leaves is out of step.
      if not in_step(self.session) then
        self:lose(cosocket.error("closed", op, "a command was broken off", { retry = true }))
      end
    end,
  })
  local answer, err = fn()
  if err and not in_step(self.session) then self:lose(err) end
  return answer, err
end

---@private
---@async
---@param host string?
---@return true? ok
---@return cosocket.Error? err
function Client:secure(host)
  local options, state = self.options, self.session
  local offered = state.extensions.STARTTLS ~= nil
  if not offered and options.starttls ~= "optional" then
    local message = "the server does not offer STARTTLS: it has no TLS on this port, or somebody between hides it "
      .. '(starttls = "optional" or "off" goes on without TLS)'
    return nil, cosocket.error("tls", "smtp.connect", message, { retry = false })
  elseif not offered then
    return true
  end
  assert(state:starttls(now()))
  local event, err = self:event("smtp.connect")
  if not event then
    ---@cast err cosocket.Error
    if err.kind == "refused" and options.starttls == "optional" then return true end
    return nil, err
  end
  local tls = { server_name = host }
  for name, value in pairs(options.tls or {}) do tls[name] = value end
  local ok
  ok, err = self.stream:start_tls(tls)
  if not ok then return nil, err end
  state:secured(now())
  event, err = self:event("smtp.connect")
  return event and true, err
end

---@private
---@async
---@param credentials smtp.Credentials
---@return true? ok
---@return cosocket.Error? err
function Client:log_in(credentials)
  local options, state = self.options, self.session
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
    event, err = self:event("smtp.auth")
    if event then
      self.mechanism = name
      return true
    end
    ---@cast err cosocket.Error
    -- 504: it does not know what it offered. Any other refusal is of us, and a weaker mechanism would not help.
    if err.kind ~= "refused" or err.code ~= 504 or i == #names then return nil, err end
  end
end

-- Messages --------------------------------------------------------------------

--- Sends what is due until little of it is left; hears whether the server still wants it.
---@private
---@async
---@param most integer Bytes that may be left.
---@param replies integer Replies that may be due.
---@return true? ok
---@return cosocket.Error? err
function Client:push(most, replies)
  local stream, state, input = self.stream, self.session, self.input
  while #state.output > most or state:due() > replies do
    local ok, err = drive.turn(stream, state, input)
    if not ok then return nil, err end
    if #input > 0 then
      local event
      event, err = state:receive(input, now())
      if err then return nil, err end
      if event then return nil, cosocket.error("protocol", "smtp.send", "the server answers before it is asked") end
      local begun = state.transaction
      if begun and begun.failure then return true end
    end
  end
  return true
end

--- Sends the bytes of a message that the server wants to have.
---@private
---@async
---@param reader smtp.Reader
---@param piece cosocket.Buffer What has been read of it.
---@param ended boolean Whether that is all.
---@return true? ok
---@return cosocket.Error? err
function Client:feed(reader, piece, ended)
  local state = self.session
  local chunks = state:chunks()
  local begun = state.transaction --[[@as smtp.Transaction]]
  while true do
    if not ended and #piece < CHUNK then
      local more, err = reader:read(piece)
      if err then return nil, err end
      ended = not more
    elseif begun.failure then
      return true
    elseif chunks then
      assert(state:chunk(piece, ended, now()))
      piece:clear()
      if ended then return true end
      local ok, err = self:push(OUTPUT_MAX, CHUNKS_DUE)
      if not ok then return nil, err end
    else
      assert(state:data(piece, now()))
      piece:clear()
      if ended then return state:finish(now()) end
      local ok, err = self:push(OUTPUT_MAX, math.maxinteger)
      if not ok then return nil, err end
    end
  end
end

--- Sends a composed message.
---@private
---@async
---@param composed smtp.Composed
---@param envelope smtp.Envelope
---@param reset boolean
---@return smtp.Result?
---@return cosocket.Error?
function Client:deliver(composed, envelope, reset)
  local state = self.session
  local reader <close> = composed:reader()
  local piece = cosocket.buffer()
  local ok, err = state:mail(envelope, now(), reset)
  if not ok then return nil, err end
  local ended = false
  if state:chunks() and state:pipelines() and envelope.size and envelope.size <= CHUNK then
    -- It is small: all in one flight.
    repeat
      local more
      more, err = reader:read(piece)
      if err then return nil, err end
    until not more
    assert(state:chunk(piece, true, now()))
    ended = true
  end
  while true do
    local event
    event, err = self:event("smtp.send")
    if not event then return nil, err end
    if event.type == "sent" then return event.result end
    if event.type == "data" and not ended then
      ok, err = self:feed(reader, piece, false)
      if not ok then
        ---@cast err cosocket.Error
        if err.retry == nil then err.retry = is_temporary(err) end
        return nil, err
      end
      ended = true
    end
  end
end

--- Sends one message. Returns when the server has taken it for at least one recipient.
---@async
---@param given smtp.Message
---@param options? smtp.SendOptions
---@param last? boolean Nothing comes behind it but `close`. Default `false`.
---@return smtp.Result? result Who gets it, and whom the server refused.
---@return cosocket.Error? err `refused` with `code`, `status`, `reason`, `refused`; `protocol` for what is wrong in the message; `retry` says whether it may go well later; `in_doubt` that the server may have taken it.
function Client:send(given, options, last)
  options = message.check_send_options(options)
  return self:exclusive("smtp.send", function()
    local dkim = options.dkim
    if dkim == nil then dkim = self.options.dkim end
    local composed, err = message.compose(given, { dkim = dkim or nil })
    if not composed then return nil, err end
    return self:send_composed(composed, options, last)
  end)
end

--- Sends what has been composed before; for the pool.
---@async
---@param composed smtp.Composed
---@param options smtp.SendOptions
---@return smtp.Result? result
---@return cosocket.Error? err
function Client:send_ready(composed, options)
  return self:exclusive("smtp.send", function() return self:send_composed(composed, options) end)
end

---@private
---@async
---@param composed smtp.Composed
---@param options smtp.SendOptions
---@param last? boolean
---@return smtp.Result?
---@return cosocket.Error?
function Client:send_composed(composed, options, last)
  local envelope, err = composed.envelope, nil
  if not envelope then
    envelope, err = message.envelope(composed, options)
    if not envelope then return nil, err end
  end
  envelope.quit = last
  local result
  result, err = self:deliver(composed, envelope, options.reset or false)
  if not result then
    ---@cast err cosocket.Error
    local begun = self.session.transaction
    if begun and begun.ended and err.kind ~= "refused" and err.code ~= 421 then
      -- The answer is lost, not the message: only now may another try make a second one.
      err.in_doubt = true
    end
    if self.session.state == "envelope" or self.session.state == "data" or self.session.state == "done" then
      self:lose(err)
    end
  end
  return result, err
end

-- Other commands --------------------------------------------------------------

---@private
---@async
---@param verb "NOOP"|"RSET"
---@return true? ok
---@return cosocket.Error? err
function Client:command(verb)
  local op = "smtp." .. verb:lower()
  local answer, err = self:exclusive(op, function()
    local ok, why = self.session:command(verb, now())
    if not ok then return nil, why end
    return self:event(op)
  end)
  return answer and true or nil, err
end

--- Asks whether the server is still there.
---@async
---@return true? ok
---@return cosocket.Error? err
function Client:noop() return self:command("NOOP") end

--- Makes the server forget what was begun.
---@async
---@return true? ok
---@return cosocket.Error? err
function Client:reset() return self:command("RSET") end

---@class smtp.Status
---@field state "ready"|"busy"|"closed"
---@field tls boolean
---@field mechanism string? How it logged in.
---@field extensions table<string, string> What the server offers, by keyword.
---@field greeting string
---@field error cosocket.Error? Why it is closed.

---@return smtp.Status
function Client:status()
  local state = self.session
  local extensions = {}
  for keyword, parameters in pairs(state.extensions) do extensions[keyword] = parameters end
  return {
    state = self.err and "closed" or state.state == "ready" and "ready" or "busy",
    tls = state.secure,
    mechanism = self.mechanism,
    extensions = extensions,
    greeting = state.greeting and state.greeting.text or "",
    error = self.err,
  }
end

--- Says QUIT, and closes.
---@async
---@return true
function Client:close()
  if not self.err then
    self:exclusive("smtp.close", function()
      if self.session.state ~= "quitting" then
        local ok, err = self.session:command("QUIT", now())
        if not ok then return nil, err end
      end
      return self:event("smtp.close")
    end)
    self:lose(cosocket.error("closed", "smtp", "this client is closed"))
  end
  return true
end

--- In a `<close>` variable: nothing can be waited for, so QUIT is sent and its answer is not.
function Client:__close()
  if self.err then return end
  if self.session:command("QUIT", now()) then self.stream:try_flush(self.session.output) end
  self:lose(cosocket.error("closed", "smtp", "this client is closed"))
end

--- Whether it may be used again.
---@return boolean
function Client:is_ready()
  return self.err == nil and self.session.state == "ready"
end

-- Connecting ------------------------------------------------------------------

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
  if options.password and options.token then wrong("password and token exclude each other") end
  if options.dkim then message.check_dkim(op, options.dkim, 5) end
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
local function target(op, where, options, extra)
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

---@async
---@param aim smtp.Target
---@return smtp.Client?
---@return cosocket.Error?
local function open(aim)
  local options, server = aim.options, aim.server
  local stream, err = aim.dial, nil
  if type(stream) == "function" then
    stream, err = stream()
    if not stream then
      err = err or cosocket.error("connect", "smtp.connect", "the function that connects answered no stream")
      if err.retry == nil then err.retry = is_temporary(err) end
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
      err.retry = is_temporary(err)
      return nil, err
    end
  end
  ---@cast stream cosocket.Stream
  local state = session.new({
    name = options.name or literal(stream),
    pipelining = options.pipelining,
    chunking = options.chunking,
    line_max = options.line_max,
    lines_max = options.lines_max,
    timeouts = options.timeouts,
  })
  if server and server.tls then state:secured(now()) end
  local client = setmetatable({
    stream = stream,
    session = state,
    input = cosocket.buffer(),
    options = options,
    turn = cosocket.semaphore(1),
  }, Client)
  local whole = false
  local guard <close> = setmetatable({}, {
    __close = function()
      if not whole then stream:close() end
    end,
  })
  state:open(now())
  local ok
  ok, err = client:event("smtp.connect")
  if ok and not state.secure and options.starttls ~= "off" then
    ok, err = client:secure(server and server.host)
  end
  if ok and aim.credentials then
    ok, err = client:log_in(aim.credentials)
  end
  if not ok then
    ---@cast err cosocket.Error
    if err.retry == nil then err.retry = is_temporary(err) end
    client:lose(err)
    return nil, err
  end
  whole = true
  -- The program is asked to stop: a word of farewell, as far as it can go without waiting.
  client.forget_stop = cosocket.on_stop(function()
    if client.session.state == "ready" then client:__close() end
  end)
  return client
end

---@async
---@param aim smtp.Target
---@return smtp.Client?
---@return cosocket.Error?
local function connect(aim)
  local client, err = cosocket.deadline(aim.options.timeout or 60, open, aim)
  if not client and err and err.retry == nil then err.retry = is_temporary(err) end
  return client, err
end

return { connect = connect, target = target, Client = Client }
