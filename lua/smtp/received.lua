--- What each reply of a server means to a session: `received[verb](session, reply, now, input)` answers an event, an error,
--- or neither. Half of the session, in a file of its own; only `smtp.session` calls it.

local base64 = require("base64")
local cosocket = require("cosocket")
local reply = require("smtp.reply")
local sasl = require("smtp.sasl")

--- What a server's words must not show: it may repeat what it was sent.
---@param self smtp.Session
---@param answer smtp.Reply
---@return smtp.Reply
local function without_secrets(self, answer)
  for _, secret in ipairs(self.secrets) do
    if #secret > 3 then
      local pattern = secret:gsub("%p", "%%%0")
      answer.text = answer.text:gsub(pattern, "***")
    end
  end
  return answer
end

---@type table<string, fun(self: smtp.Session, answer: smtp.Reply, now: number, input: cosocket.Buffer): smtp.Event?, cosocket.Error?>
local RECEIVE = {}

function RECEIVE:greeting(answer, now)
  self.greeting = answer
  if answer.code // 100 ~= 2 then
    self:close()
    return nil, reply.refusal("smtp.connect", "the connection", answer)
  end
  self:hello("EHLO", now)
end

function RECEIVE:EHLO(answer, now)
  if answer.code // 100 == 2 then
    for i = 2, #answer.lines do
      local keyword, parameters = answer.lines[i]:match("^([%w][%w-]*)[ =]?(.*)$")
      if keyword then
        keyword = keyword:upper()
        -- "AUTH=LOGIN" is an old way to say it, besides the right one.
        if keyword ~= "AUTH" or not self.extensions.AUTH then self.extensions[keyword] = parameters end
        if keyword == "AUTH" then
          for name in parameters:gmatch("%S+") do self.mechanisms[name:upper()] = true end
        end
      end
    end
    self.state = "ready"
    return { type = "hello", reply = answer }
  elseif answer.code // 100 == 5 then
    -- Section 4.1.1.1: an old server.
    self:hello("HELO", now)
    return nil
  end
  self:close()
  return nil, reply.refusal("smtp.connect", "EHLO", answer)
end

function RECEIVE:HELO(answer)
  if answer.code // 100 == 2 then
    self.state = "ready"
    return { type = "hello", reply = answer }
  end
  self:close()
  return nil, reply.refusal("smtp.connect", "HELO", answer)
end

function RECEIVE:STARTTLS(answer, _, input)
  if answer.code // 100 ~= 2 then
    self.state = "ready"
    return nil, reply.refusal("smtp.connect", "STARTTLS", answer)
  end
  if #input > 0 then
    -- Somebody put words in before TLS, to be taken for the server's.
    local message = "there are bytes behind the answer to STARTTLS, before TLS: somebody may have put them there"
    return self:fail(cosocket.error("protocol", "smtp.connect", message))
  end
  self.state = "tls"
  return { type = "tls", reply = answer }
end

function RECEIVE:AUTH(answer, now)
  local mechanism = self.mechanism --[[@as smtp.Mechanism]]
  local err = self.auth_error
  if answer.code == 334 and not err then
    local challenge, response
    if #answer.text <= sasl.CHALLENGE_MAX and #answer.lines == 1 then challenge = base64.decode(answer.lines[1]) end
    if challenge then
      response, err = mechanism.respond(challenge)
    else
      err = cosocket.error("protocol", "smtp.auth", "the challenge is not base64")
    end
    self.auth_error = err
    -- Section 4: "*" gives up.
    local line = err and "*" or base64.encode(response --[[@as string]])
    if not err then self.secrets[#self.secrets + 1] = line end
    self:ask("AUTH", line .. "\r\n", now)
    return nil
  elseif err then
    -- A server that does not prove itself, or asks for the impossible, is not one to go on with.
    return self:fail(err)
  elseif answer.code // 100 == 2 then
    local ok
    ok, err = mechanism.finish()
    if not ok then return self:fail(err --[[@as cosocket.Error]]) end
    self.state, self.mechanism, self.secrets = "ready", nil, {}
    return { type = "authenticated", reply = answer }
  elseif answer.code // 100 == 3 then
    return self:fail(cosocket.error("protocol", "smtp.auth", ("%d is no answer to AUTH"):format(answer.code)))
  end
  without_secrets(self, answer)
  self.state, self.mechanism, self.secrets = "ready", nil, {}
  local what = ("the login (%s)"):format(mechanism.name)
  local refusal = reply.refusal("smtp.auth", what, answer, { mechanism = mechanism.name })
  if mechanism.reason then refusal.message = ("%s (%s)"):format(refusal.message, mechanism.reason) end
  return nil, refusal
end

--- The transaction is over.
---@param self smtp.Session
local function forget(self)
  self.transaction = nil
  if self.first <= self.last then
    self.state = "quitting"
  else
    self.state, self.deadline = "ready", math.huge
  end
end

--- The transaction has come to nothing; the session goes on when all replies are in.
---@param self smtp.Session
---@return nil
---@return cosocket.Error?
local function give_up(self)
  if self.first <= self.last and self.pending[self.first] ~= "QUIT" then return nil end
  local err = self.transaction.failure
  forget(self)
  return nil, err
end

--- What comes behind the reply to MAIL or to a recipient.
---@param self smtp.Session
---@param now number
---@return smtp.Event?
---@return cosocket.Error?
local function go_on(self, now)
  local begun = self.transaction --[[@as smtp.Transaction]]
  if self.first <= self.last then return nil end
  if begun.failure then return give_up(self) end
  if begun.at < #begun.envelope.recipients then
    self:ask("RCPT", begun:rcpt(begun.at + 1), now)
    return nil
  elseif self:chunks() then
    self.state = "data"
    self.deadline = now + self.timeouts.block
    return { type = "data" }
  end
  self:ask("DATA", "DATA\r\n", now)
  return nil
end

--- A reply that none of the commands of an envelope has.
---@param self smtp.Session
---@param verb string
---@param answer smtp.Reply
---@return nil
---@return cosocket.Error
local function misplaced(self, verb, answer)
  return self:fail(cosocket.error("protocol", "smtp.send", ("%d is no answer to %s"):format(answer.code, verb)))
end

function RECEIVE:MAIL(answer, now)
  if answer.code // 100 == 3 then return misplaced(self, "MAIL", answer) end
  self.transaction:on_mail(answer)
  return go_on(self, now)
end

function RECEIVE:RCPT(answer, now)
  if answer.code // 100 == 3 then return misplaced(self, "RCPT", answer) end
  self.transaction:on_rcpt(answer)
  return go_on(self, now)
end

function RECEIVE:DATA(answer, now)
  local begun = self.transaction --[[@as smtp.Transaction]]
  if answer.code == 354 then
    if begun.failure then
      -- RFC 2920, 3.1: it waits for a message that is for nobody.
      self:ask(".", ".\r\n", now)
      return nil
    end
    self.state = "data"
    self.deadline = now + self.timeouts.block
    return { type = "data", reply = answer }
  elseif answer.code // 100 < 4 then
    return misplaced(self, "DATA", answer)
  end
  begun:on_refusal("DATA", answer)
  return give_up(self)
end

RECEIVE["."] = function(self, answer)
  local begun = self.transaction --[[@as smtp.Transaction]]
  -- Behind a chunk that was refused comes RSET (RFC 3030, 3); a message that was refused is forgotten.
  self.dirty = self:chunks() and answer.code // 100 ~= 2
  if begun.failure then return give_up(self) end
  if answer.code // 100 ~= 2 then
    if answer.code // 100 == 3 then return misplaced(self, "the message", answer) end
    begun:on_refusal("the message", answer)
    return give_up(self)
  end
  forget(self)
  return { type = "sent", result = begun:result(answer) }
end

RECEIVE["BDAT LAST"] = RECEIVE["."]

function RECEIVE:BDAT(answer)
  local begun = self.transaction --[[@as smtp.Transaction]]
  if answer.code // 100 ~= 2 then
    begun:on_refusal("a chunk of the message", answer)
    return give_up(self)
  end
end

function RECEIVE:RSET(answer, now)
  if answer.code // 100 ~= 2 then
    return self:fail(cosocket.error("protocol", "smtp", ("RSET was answered with %s"):format(reply.words(answer))))
  end
  self.dirty = false
  if self.state == "envelope" then
    self.dirty = true
    if not self:pipelines() then self:ask("MAIL", self.transaction:mail(), now) end
    return nil
  end
  return { type = "reply", reply = answer }
end

function RECEIVE.NOOP(_, answer)
  return { type = "reply", reply = answer }
end

function RECEIVE:QUIT(answer)
  self:close()
  return { type = "reply", reply = answer }
end

return { by_verb = RECEIVE, without_secrets = without_secrets }
