--- How a connection receives: messages, and parts of them.

local channel = require("websocket.channel")
local close_code = require("websocket.close_code")
local cosocket = require("cosocket")
local session = require("websocket.session")

local now = cosocket.now
local session_receive, session_expire = session.class.receive, session.class.expire

local Connection = channel.class
local arrived, join, part = channel.arrived, channel.join, channel.part
local settle = Connection.settle

--- What the clock may lack to a deadline that has passed: it counts in whole nanoseconds.
local TICK = 1e-6

--- What a wait that ended with an error means: the answer to whoever waited, or `nil` to go on.
---@param self websocket.Connection
---@param err cosocket.Error
---@return cosocket.Error? err
---@async
local function waited(self, err)
  if err.code == "EBUSY" and self.taking then
    self.taken = self.taken or cosocket.event()
    local ok, why = self.taken:wait()
    return not ok and why or nil
  elseif err.code == "EBUSY" and self.state == "closing" then
    -- Another task hears the answer to our Close, for all; unless it is cancelled.
    self.ended = self.ended or cosocket.event()
    local own = self.deadline
    local ok, why = cosocket.deadline(math.max(own - now(), 0), self.ended.wait, self.ended)
    if ok then return self.err end
    return (why.kind ~= "timeout" or own - now() > TICK) and why or nil
  elseif err.kind == "cancelled" or err.code == "EBUSY" then
    return err
  end
  return channel.lost(self, err)
end

--- Time has passed, of a wait until `deadline`: the answer to whoever waited, or `nil` to go on.
---@param self websocket.Connection
---@param err cosocket.Error?
---@param deadline number The session's when the wait began.
---@return cosocket.Error? err
local function expired(self, err, deadline)
  local at = now()
  -- A deadline of somebody around us is not the session's, and harms nothing.
  if deadline - at > TICK then return err end
  local alive, why = session_expire(self, math.max(at, deadline), self.stream:progress())
  if alive then return nil end
  ---@cast why cosocket.Error
  why.code = close_code.abnormal
  return self:lose(why)
end

--- That the answer to our Close is late is seen although something else comes and comes.
---@param self websocket.Connection
---@return cosocket.Error? err
local function overdue(self)
  local due = self.deadline
  if self.state == "closing" and now() >= due then return expired(self, nil, due) end
end

local receive

--- Goes on after a wait that ended with an error.
---@async
---@param self websocket.Connection
---@param pieces boolean?
---@param err cosocket.Error
local function retry(self, pieces, err)
  local why = waited(self, err)
  if why then return nil, why end
  return receive(self, pieces)
end

---@async
---@param self websocket.Connection
---@param err cosocket.Error
---@return nil
---@return cosocket.Error err
local function fail(self, err)
  return nil, part(self, err)
end

--- A step of receiving, for `cosocket.aside`: an idle connection shall not keep the stack that taking a message apart needs.
---@param self websocket.Connection
---@param pieces boolean?
---@param moved true?
---@param err cosocket.Error?
---@param input cosocket.Buffer? Where it has read, after a wait.
---@param deadline number?
local function step(self, pieces, moved, err, input, deadline)
  if input then
    if self.input ~= input then join(self, input) end
    if not moved then
      ---@cast err cosocket.Error
      ---@cast deadline number
      if err.kind ~= "timeout" then return retry, self, pieces, err end
      local why = expired(self, err, deadline)
      if why then return false, nil, why end
    end
  elseif self.err then
    return false, nil, self.err
  elseif self.input == arrived and #arrived > 0 then
    -- This runs inside another connection's call, in a finaliser.
    self.input = cosocket.buffer()
  end
  local held = self.held
  if held then
    self.held = nil
    return false, held[1], held[2], true
  end
  local payload, kind, last = session_receive(self, self.input, now(), pieces)
  if payload then
    settle(self)
    return false, payload, kind, last
  elseif kind then
    return fail, self, kind
  end
  settle(self)
  local late = input and overdue(self)
  if late then return false, nil, late end
  return true, self.stream, self.input, self.output, self.deadline
end

receive = cosocket.aside(step)

--- Waits for the next message. One task receives at a time. A deadline that passes takes nothing away.
---@type async fun(self: websocket.Connection): string?, websocket.Kind|cosocket.Error
---@return string? message
---@return websocket.Kind|cosocket.Error kind Or why there will be none: `closed` with `code` and `reason` when the other side said so, `protocol`, `limit`, `timeout`.
Connection.receive = cosocket.aside(function(self, _, ...) return step(self, nil, ...) end)

--- Waits for the next part of a message, as it comes: for what is too long to be held. Its length knows no limit. A
--- piece of a text cuts no character; the last piece may be empty.
---@async
---@return string? piece
---@return websocket.Kind|cosocket.Error kind
---@return boolean? last Whether the message ends with it.
function Connection:receive_piece()
  local piece, kind, last = receive(self, true)
  self.within = piece and not last or nil
  return piece, kind, last
end

--- Received messages and their kinds, for a `for` loop, which ends with the connection; `connection.err` says why.
---@async
---@return fun(self: websocket.Connection): string?, websocket.Kind
---@return websocket.Connection
function Connection:messages()
  return Connection.receive, self
end

--- The next message in pieces, for a `for` loop: `for piece, kind in connection:pieces() do`. Raises when the connection
--- ends within it: half a message must not look like a whole one.
---@async
---@return fun(): string?, websocket.Kind
function Connection:pieces()
  local begun, done = false, false
  return function()
    if done then return nil end
    local piece, kind, last = self:receive_piece()
    if not piece then
      done = true
      if begun then error(kind, 0) end
      return nil
    end
    begun, done = true, last
    if last and piece == "" then return nil end
    return piece, kind
  end
end

return { receive = receive, waited = waited, expired = expired, overdue = overdue }
