--- The client's side of SMTP (RFC 5321): bytes and `now` in, events and bytes out. It opens nothing and waits for
--- nothing; `smtp.client` joins it to a socket.
---
--- | event | when |
--- |---|---|
--- | `hello` | the server has told what it can do (after the greeting, and again after TLS) |
--- | `tls` | TLS begins with the next byte; then `secured` |
--- | `authenticated` | the server has let us in |
--- | `data` | the message may be sent: `data` and `finish`, or `chunk` |
--- | `sent` | the server has taken it: `result` |
--- | `reply` | what NOOP, RSET and QUIT were answered |
---
--- A refusal is `nil, err` of kind `refused`, and leaves the session as it was before; any other error ends it.

local base64 = require("base64")
local codec = require("smtp.codec")
local cosocket = require("cosocket")
local received = require("smtp.received")
local reply = require("smtp.reply")
local transaction = require("smtp.transaction")

--- Seconds each step may take, RFC 5321, 4.5.3.2.
local TIMEOUTS = {
  greeting = 300,
  command = 300, -- EHLO, AUTH, MAIL, RCPT
  data = 120, -- until the server wants the message
  block = 180, -- each piece of it
  done = 600, -- until the server has taken it
  quit = 10,
}
--- Bytes of an AUTH line with an initial response, RFC 5321, 4.5.3.1.4; beyond it the response waits for its challenge.
local AUTH_LINE_MAX = 512

--- Which commands each state allows.
---@type table<string, table<string, true>>
local COMMANDS = {
  idle = { open = true },
  greeting = {},
  hello = {},
  ready = { starttls = true, auth = true, mail = true, command = true },
  starttls = {},
  tls = { secured = true },
  auth = {},
  envelope = { chunk = true },
  data = { data = true, chunk = true },
  done = {},
  quitting = {},
  closed = {},
}

---@class smtp.SessionOptions
---@field name? string What EHLO says of us: a domain or an address in brackets. Default "[127.0.0.1]".
---@field pipelining? boolean Use PIPELINING where it is offered. Default `true`.
---@field chunking? boolean Use CHUNKING where it is offered. Default `true`.
---@field line_max? integer Bytes of a line of a reply. Default 4096.
---@field lines_max? integer Lines of a reply. Default 256.
---@field timeouts? table<string, number> Seconds: `greeting`, `command`, `data`, `block`, `done`, `quit`.

---@class smtp.Event
---@field type "hello"|"tls"|"authenticated"|"data"|"sent"|"reply"
---@field reply smtp.Reply?
---@field result smtp.Result?

---@class smtp.Session: net.Session<smtp.Event>
---@field state string
---@field extensions table<string, string> What EHLO offered, by keyword; the value is its parameters.
---@field mechanisms table<string, true> For AUTH.
---@field greeting smtp.Reply?
---@field secure boolean
---@field transaction smtp.Transaction?
---@field output cosocket.Buffer
---@field deadline number
---@field private options smtp.SessionOptions
---@field private timeouts table<string, number>
---@field private parser smtp.ReplyParser
---@field private pending string[] What replies are due for.
---@field private first integer
---@field private last integer
---@field private mechanism smtp.Mechanism?
---@field private auth_error cosocket.Error?
---@field private secrets string[]
---@field private dirty boolean The server may hold half a transaction.
---@field private place integer Where the text of the message is.
local Session = {}
Session.__index = Session

-- Replies that are due ---------------------------------------------------------

---@private
---@param verb string
---@param line string
---@param now number
function Session:ask(verb, line, now)
  self.output:append(line)
  self.last = self.last + 1
  self.pending[self.last] = verb
  if self.first == self.last then self:await(now) end
end

--- Which limit of time holds for the next reply.
---@private
---@param now number
function Session:await(now)
  local verb = self.first <= self.last and self.pending[self.first] or nil
  local name = verb == "greeting" and "greeting"
    or verb == "DATA" and "data"
    or (verb == "." or verb == "BDAT LAST") and "done"
    -- One chunk of many is taken as a block of DATA is.
    or verb == "BDAT" and "block"
    or verb == "QUIT" and "quit"
    or "command"
  if verb then
    self.deadline = now + self.timeouts[name]
  elseif self.state ~= "data" then
    self.deadline = math.huge
  end
end

---@private
function Session:close()
  self.state, self.deadline = "closed", math.huge
end

---@private
---@param err cosocket.Error
---@return nil
---@return cosocket.Error
function Session:fail(err)
  self:close()
  return nil, err
end

---@param now number
---@return true? alive
---@return cosocket.Error? err
function Session:expire(now)
  if now < self.deadline then return true end
  local verb = self.first <= self.last and self.pending[self.first] or nil
  local what = verb == "greeting" and "did not greet"
    or (verb == "." or verb == "BDAT LAST") and "did not say whether it took the message"
    or verb == "BDAT" and "does not take the message's bytes"
    or verb == "AUTH" and "did not answer AUTH"
    or verb and ("did not answer %s"):format(verb)
    or "does not take the message's bytes"
  return self:fail(cosocket.error("timeout", "smtp", "the server " .. what .. " in time"))
end

--- Whether the state allows a command.
---@private
---@param command string
---@return true?
---@return cosocket.Error?
function Session:check(command)
  if COMMANDS[self.state][command] then return true end
  return nil, cosocket.error("closed", "smtp", ("the session is %s"):format(self.state))
end

-- Commands --------------------------------------------------------------------

--- Waits for the greeting.
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Session:open(now)
  local ok, err = self:check("open")
  if not ok then return nil, err end
  self.state = "greeting"
  self:ask("greeting", "", now)
  return true
end

---@private
---@param verb "EHLO"|"HELO"
---@param now number
function Session:hello(verb, now)
  self.state, self.extensions, self.mechanisms = "hello", {}, {}
  self:ask(verb, ("%s %s\r\n"):format(verb, self.options.name or "[127.0.0.1]"), now)
end

--- Asks for TLS (RFC 3207).
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Session:starttls(now)
  local ok, err = self:check("starttls")
  if not ok then return nil, err end
  self.state = "starttls"
  self:ask("STARTTLS", "STARTTLS\r\n", now)
  return true
end

--- The stream is TLS now. Whatever the server said before is forgotten (RFC 3207, 4.2).
---@param now number
function Session:secured(now)
  self.secure = true
  if self.state == "tls" then self:hello("EHLO", now) end
end

--- Proves who we are (RFC 4954).
---@param mechanism smtp.Mechanism
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Session:authenticate(mechanism, now)
  local ok, err = self:check("auth")
  if not ok then return nil, err end
  self.state, self.mechanism, self.auth_error, self.secrets = "auth", mechanism, nil, {}
  local line = "AUTH " .. mechanism.name
  if mechanism.initial then
    -- Section 4: an empty one is written as "=".
    local initial = mechanism.initial == "" and "=" or base64.encode(mechanism.initial)
    self.secrets[1] = initial
    if #line + #initial + 3 <= AUTH_LINE_MAX then line = line .. " " .. initial end
  end
  self:ask("AUTH", line .. "\r\n", now)
  return true
end

--- Announces a message. The next event is `data`, unless the whole message is given to `chunk` at once.
---@param envelope smtp.Envelope
---@param now number
---@param reset? boolean Begin with RSET, to be sure that nothing is left of others.
---@return true? ok
---@return cosocket.Error? err
function Session:mail(envelope, now, reset)
  local ok, err = self:check("mail")
  if not ok then return nil, err end
  local begun
  begun, err = transaction.new(envelope, self.extensions)
  if not begun then return nil, err end
  self.transaction, self.state, self.place = begun, "envelope", 0
  if self.dirty or reset then self:ask("RSET", "RSET\r\n", now) end
  self.dirty = true
  if not self:pipelines() then
    if self.first > self.last then self:ask("MAIL", begun:mail(), now) end
    return true
  end
  self:ask("MAIL", begun:mail(), now)
  for i = 1, #envelope.recipients do self:ask("RCPT", begun:rcpt(i), now) end
  if not self:chunks() then self:ask("DATA", "DATA\r\n", now) end
  return true
end

--- Whether commands may be sent without waiting for replies (RFC 2920).
---@return boolean
function Session:pipelines()
  return self.extensions.PIPELINING ~= nil and self.options.pipelining ~= false
end

--- Whether messages go in chunks (RFC 3030).
---@return boolean
function Session:chunks()
  return self.extensions.CHUNKING ~= nil and self.options.chunking ~= false
end

--- Sends a piece of the message: its line ends become CRLF, its leading dots are doubled (RFC 5321, 4.5.2).
---@param bytes string|cosocket.Buffer
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Session:data(bytes, now)
  local ok, err = self:check("data")
  if not ok then return nil, err end
  self.place = codec.lines(self.output, bytes, self.place, true)
  self.deadline = now + self.timeouts.block
  return true
end

--- The message is whole.
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Session:finish(now)
  local ok, err = self:check("data")
  if not ok then return nil, err end
  self.transaction.ended, self.state = true, "done"
  self:ask(".", self.place == 1 and "\r\n.\r\n" or ".\r\n", now)
  -- RFC 2920, 3.1: behind a message's last line the next command may stand in the same group.
  if self.transaction.envelope.quit and self:pipelines() then self:ask("QUIT", "QUIT\r\n", now) end
  return true
end

--- Sends a piece of the message as a chunk: exactly these bytes.
---@param bytes cosocket.Buffer
---@param last boolean
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Session:chunk(bytes, last, now)
  local ok, err = self:check("chunk")
  if not ok then return nil, err end
  if last then
    self.transaction.ended = true
    if self.state == "data" then self.state = "done" end
  end
  self:ask(last and "BDAT LAST" or "BDAT", ("BDAT %d%s\r\n"):format(#bytes, last and " LAST" or ""), now)
  self.output:append(bytes)
  return true
end

--- Sends a command that needs nothing and changes nothing: NOOP, RSET, or QUIT.
---@param verb "NOOP"|"RSET"|"QUIT"
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Session:command(verb, now)
  local ok, err = self:check("command")
  if not ok then return nil, err end
  if verb == "QUIT" then self.state = "quitting" end
  self:ask(verb, verb .. "\r\n", now)
  return true
end

--- How many replies are due.
---@return integer
function Session:due()
  return self.last - self.first + 1
end

-- Replies ---------------------------------------------------------------------

--- Takes replies off `input` until one is an event.
---@param input cosocket.Buffer
---@param now number
---@return smtp.Event? event
---@return cosocket.Error? err
function Session:receive(input, now)
  while self.state ~= "closed" and self.state ~= "tls" do
    local answer, err = self.parser:next(input)
    if err then return self:fail(err) end
    if not answer then return nil end
    local verb = self.pending[self.first]
    -- 421 may come at any time: the server goes (section 3.8).
    if answer.code == 421 and verb ~= "greeting" then
      local message = ("the server ends the session: %s"):format(reply.words(received.without_secrets(self, answer)))
      local fields = { code = 421, status = answer.status, reason = answer.text, retry = true }
      return self:fail(cosocket.error("closed", "smtp", message, fields))
    elseif self.first > self.last then
      if self.state == "data" and answer.code // 100 >= 4 then
        -- It does not want the rest. What we go on sending it might take for commands.
        self:close()
        return nil, reply.refusal("smtp.send", "the message before its end", answer, { final = true })
      end
      local message = ("the server speaks without being asked: %s"):format(reply.words(answer))
      return self:fail(cosocket.error("protocol", "smtp", message))
    end
    self.pending[self.first] = nil
    self.first = self.first + 1
    self:await(now)
    local event
    event, err = received.by_verb[verb](self, answer, now, input)
    if event or err then return event, err end
  end
  return nil
end

local session = { TIMEOUTS = TIMEOUTS }

---@param options? smtp.SessionOptions
---@return smtp.Session
function session.new(options)
  options = options or {}
  local timeouts = {}
  for name, seconds in pairs(TIMEOUTS) do timeouts[name] = options.timeouts and options.timeouts[name] or seconds end
  return setmetatable({
    state = "idle",
    extensions = {},
    mechanisms = {},
    secure = false,
    output = cosocket.buffer(),
    deadline = math.huge,
    options = options,
    timeouts = timeouts,
    parser = reply.parser(options.line_max, options.lines_max),
    pending = {},
    first = 1,
    last = 0,
    secrets = {},
    dirty = false,
    place = 0,
  }, Session)
end

return session
