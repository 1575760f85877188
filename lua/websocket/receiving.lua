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
---@param deadline number The session's when the wait began.
---@return cosocket.Error? err
---@async
local function waited(self, err, deadline)
  if err.kind == "timeout" then
    local at = now()
    -- A deadline of somebody around us is not the session's, and harms nothing.
    if deadline - at > TICK then return err end
    local alive, why = session_expire(self, math.max(at, deadline))
    if alive then return nil end
    ---@cast why cosocket.Error
    why.code = close_code.abnormal
    return self:lose(why)
  elseif err.code == "EBUSY" and self.state == "closing" then
    -- Another task hears the answer to our Close, for all.
    self.ended = self.ended or cosocket.event()
    local ok, why = self.ended:wait()
    return ok and self.err or why
  elseif err.code == "EBUSY" and self.taking then
    self.taken = self.taken or cosocket.event()
    local ok, why = self.taken:wait()
    return not ok and why or nil
  elseif err.kind == "cancelled" or err.code == "EBUSY" then
    return err
  end
  return channel.lost(self, err)
end

--- Receives with few values on the stack: that of an idle coroutine shall not have to grow.
---@async
---@param self websocket.Connection
---@param pieces? boolean
---@return string? message
---@return websocket.Kind|cosocket.Error|nil kind
---@return boolean? last
local function receive(self, pieces)
  if self.err then return nil, self.err end
  if self.input == arrived and #arrived > 0 then
    -- This runs inside another connection's call, in a finaliser.
    self.input = cosocket.buffer()
  end
  while true do
    if self.held then
      local held = self.held --[[@as table]]
      self.held = nil
      return held[1], held[2], true
    end
    do
      local payload, kind, last = session_receive(self, self.input, now(), pieces)
      if payload then
        settle(self)
        return payload, kind, last
      elseif kind then
        return nil, part(self, kind --[[@as cosocket.Error]])
      end
    end
    settle(self)
    local deadline, input = self.deadline, self.input
    local ok, err = self.stream:turn(input, self.output, deadline)
    if self.input ~= input then join(self, input) end
    if not ok then
      err = waited(self, err --[[@as cosocket.Error]], deadline)
      if err then return nil, err end
    end
  end
end

--- Waits for the next message. One task receives at a time. A deadline that passes takes nothing away.
---@async
---@return string? message
---@return websocket.Kind|cosocket.Error kind Or why there will be none: `closed` with `code` and `reason` when the other side said so, `protocol`, `limit`, `timeout`.
function Connection:receive()
  return receive(self)
end

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

---@async
---@param self websocket.Connection
local function next_message(self)
  return receive(self)
end

--- Received messages and their kinds, for a `for` loop, which ends with the connection; `connection.err` says why.
---@async
---@return fun(self: websocket.Connection): string?, websocket.Kind
---@return websocket.Connection
function Connection:messages()
  return next_message, self
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

return { receive = receive, waited = waited }
