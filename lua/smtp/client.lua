--- A connection to a mail server: the caller's own task turns the loop.

local cosocket = require("cosocket")
local drive = require("net.drive")
local envelopes = require("smtp.envelope")
local message = require("smtp.message")

local now = cosocket.now

--- Bytes of a message that may wait to be sent before more of it is made.
local OUTPUT_MAX = 32 * 1024
--- Bytes of a chunk (RFC 3030), and of a message that is sent in one flight with its envelope.
local CHUNK = 32 * 1024
--- Chunks on their way before replies are waited for.
local CHUNKS_DUE = 4

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
function Client.is_temporary(err)
  local kind = err.kind
  -- A handshake that the connection did not live through says nothing of certificates.
  if kind == "tls" and cosocket.is_error(err.cause) then return Client.is_temporary(err.cause) end
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
  if fields.retry == nil then fields.retry = Client.is_temporary(err) end
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
        if err.retry == nil then err.retry = Client.is_temporary(err) end
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
  options = envelopes.check(options)
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
---@param last? boolean Nothing follows: say goodbye with it.
---@return smtp.Result? result
---@return cosocket.Error? err
function Client:send_ready(composed, options, last)
  return self:exclusive("smtp.send", function() return self:send_composed(composed, options, last) end)
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
    envelope, err = envelopes.of(composed, options)
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

--- A client of a connection whose server has not been heard yet.
---@param stream cosocket.Stream
---@param state smtp.Session
---@param options smtp.Options
---@return smtp.Client
function Client.new(stream, state, options)
  local self = setmetatable({
    stream = stream,
    session = state,
    input = cosocket.buffer(),
    options = options,
    turn = cosocket.semaphore(1),
  }, Client)
  -- The program is asked to stop: a word of farewell, as far as it can go without waiting.
  self.forget_stop = cosocket.on_stop(function()
    if state.state == "ready" then self:__close() end
  end)
  return self
end

return Client
