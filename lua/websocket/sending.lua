--- How a connection sends: messages, whole and in pieces.

local channel = require("websocket.channel")
local close_code = require("websocket.close_code")
local cosocket = require("cosocket")
local receiving = require("websocket.receiving")
local session = require("websocket.session")

local expired = receiving.expired
local now = cosocket.now
local Session = session.class
local session_receive, session_send, session_expire = Session.receive, Session.send, Session.expire

local Connection = channel.class
local leaving, arrived, join, part = channel.leaving, channel.arrived, channel.join, channel.part
local settle = Connection.settle

--- Bytes that may have arrived and wait while this side only sends.
local READ_AHEAD_MAX = 1048576
--- Seconds after which a task that only sends looks at what has come.
local LOOK_INTERVAL = 1

--- Looks at what has come without waiting, for a task that only sends: pings are answered, and a Close is heard.
---@async
---@param self websocket.Connection
---@param at number
local function look(self, at)
  self.looked = at
  if self.held or self.within or self.bytes or self.state ~= "open" then return end
  settle(self)
  if self.input == arrived then self.input = cosocket.buffer() end
  local ok, err = self.stream:turn(self.input, self.output, at)
  if not ok and err.code == "EBUSY" then return end
  local message, kind = session_receive(self, self.input, at)
  if message then
    self.held = { message, kind }
    self.stream:wake()
  elseif kind then
    part(self, kind --[[@as cosocket.Error]])
    return
  elseif at >= self.deadline then
    local alive, why = session_expire(self, at, self.stream:progress())
    if not alive then
      ---@cast why cosocket.Error
      why.code = close_code.abnormal
      self:lose(why)
      return
    end
  end
  settle(self)
end

--- Sends, and takes in what comes, for a task that receives, too; and notices a peer that is silent and does not read.
---@async
---@param self websocket.Connection
---@return true? ok
---@return cosocket.Error? err
local function take_in(self)
  self.taking = true
  local guard <close> = setmetatable({}, {
    __close = function()
      local taken = self.taken
      self.taking, self.taken = nil, nil
      if taken then taken:set() end
    end,
  })
  local input, own = self.input, self.deadline
  local before = #input
  local ok, err = self.stream:turn(before < READ_AHEAD_MAX and input or nil, self.output, own)
  if #input > before then self.heard = now() end
  if not ok and err.kind == "timeout" then
    err = expired(self, err, own)
    ok = not err
  end
  -- The task that receives has used up what there was, and its buffer, while this one waited.
  if self.input ~= input and #input > 0 then join(self, input) end
  -- It may wait for bytes that are here now.
  if ok and self.input ~= arrived and #self.input > 0 then self.stream:wake() end
  return ok, err
end

--- Waits until what is queued here has been taken by the stream. What arrives meanwhile is taken in, so that two that
--- send to each other before they read do not wait for each other.
---@async
---@param self websocket.Connection
---@return true? ok
---@return cosocket.Error? err
local function drain(self)
  while self.output ~= leaving and #self.output > 0 do
    local stream = self.stream
    if self.input == arrived then self.input = cosocket.buffer() end
    local ok, err = take_in(self)
    if not ok and err.code == "EBUSY" then
      ok, err = stream:flush()
      if ok then ok, err = stream:try_flush(self.output) end
    end
    if self.err then return nil, self.err end
    if not ok then return nil, err end
  end
  settle(self)
  return true
end

--- Starts what the session has queued on its way, without waiting.
---@param self websocket.Connection
---@return boolean? done `false`: there is more to do, for `finish`.
---@return cosocket.Error? err
local function start(self)
  local output = self.output
  local ok, err = self.stream:try_flush(output)
  if #output > 0 then
    if ok then
      settle(self)
      return false
    end
    output:clear()
  end
  if not ok then return nil, err end
  if output ~= leaving then self.output = nil end
  local at = now()
  return not (at - self.heard > LOOK_INTERVAL and at - (self.looked or 0) > LOOK_INTERVAL)
end

--- Waits while too much is on its way, and looks what has come if nobody has for long.
---@async
---@param self websocket.Connection
---@return true? ok
---@return cosocket.Error? err
local function finish(self)
  local ok, err = drain(self)
  if not ok then return nil, err end
  local at = now()
  if at - self.heard > LOOK_INTERVAL and at - (self.looked or 0) > LOOK_INTERVAL then look(self, at) end
  return true
end

--- Starts what the session has queued on its way; waits while too much is.
---@async
---@param self websocket.Connection
---@return true? ok
---@return cosocket.Error? err
local function flush(self)
  local done, err = start(self)
  if done == false then return finish(self) end
  return done, err
end

--- Waits until a frame may be queued. `piece`: it belongs to the message that is sent in pieces.
---@async
---@param self websocket.Connection
---@param piece? boolean
---@return true? ok
---@return cosocket.Error? err
local function admit(self, piece)
  while not piece and self.sending and not self.err do
    local ok, err = self.sending:wait()
    if not ok then return nil, err end
  end
  if self.err then return nil, self.err end
  if #self.output > 0 then
    -- In the shared buffer it is another connection's, inside whose call a finaliser runs this.
    if self.output == leaving then
      self.output = cosocket.buffer()
    else
      return drain(self)
    end
  end
  return true
end

--- Sends when it may.
---@async
---@param self websocket.Connection
---@param kind websocket.Kind
---@param payload string
---@return true? ok
---@return cosocket.Error? err
local function send_later(self, kind, payload)
  local ok, err = admit(self)
  if not ok then return nil, err end
  ok, err = session_send(self, kind, payload, 2)
  if not ok then return nil, self.err or err end
  return flush(self)
end

--- A step of sending, for `cosocket.aside`: what only says something back shall need no larger stack than one that waits.
---@param self websocket.Connection
---@param kind websocket.Kind
---@param payload string
local function step(self, kind, payload)
  if self.sending or self.err or #self.output > 0 then return send_later, self, kind, payload end
  local ok, err = session_send(self, kind, payload, 2)
  if not ok then return false, nil, self.err or err end
  ok, err = start(self)
  if ok == false then return finish, self end
  return false, ok, err
end

--- Sends a text message, which must be UTF-8. Any task may; waits while more is on its way than the stream's
--- `queue_max`. Returns when the message is on its way, not when it has arrived.
---@type async fun(self: websocket.Connection, text: string): true?, cosocket.Error?
Connection.send = cosocket.aside(function(self, text)
  if type(text) ~= "string" then
    if type(self) ~= "table" then error("call this with a colon, on a connection: connection:send()", 2) end
    error(("send: a string is wanted, not a %s"):format(type(text)), 2)
  end
  return step(self, "text", text)
end)

--- Sends a text message if that takes no waiting: for who has other things to do. What the stream does not take at once
--- waits here, and is `is_busy` until it is on its way; `flush` waits for that.
---@param text string
---@return true? accepted `nil` without an error: something else is on its way still.
---@return cosocket.Error? err
function Connection:try_send(text)
  if self.err then return nil, self.err end
  if self.sending or #self.output > 0 then return nil end
  local ok, err = session_send(self, "text", text, 2)
  if not ok then return nil, self.err or err end
  local done, why = start(self)
  if done == nil then return nil, why end
  return true
end

--- Whether something that was sent is not on its way yet.
---@return boolean
function Connection:is_busy()
  return not self.err and (self.sending ~= nil or #self.output > 0)
end

--- Sends a message of any bytes; else as `send`.
---@type async fun(self: websocket.Connection, bytes: string): true?, cosocket.Error?
Connection.send_binary = cosocket.aside(function(self, bytes)
  if type(bytes) ~= "string" then
    if type(self) ~= "table" then error("call this with a colon, on a connection: connection:send_binary()", 2) end
    error(("send_binary: a string is wanted, not a %s"):format(type(bytes)), 2)
  end
  return step(self, "binary", bytes)
end)

--- Sends one message in pieces, as an iterator gives them: for what is too long to be held. Other messages wait until
--- it is through. When the iterator raises, or a deadline passes within the message, the connection is closed, because
--- half a message cannot be taken back.
---@async
---@param kind websocket.Kind
---@param iterator fun(...): string?
---@param state? any
---@param control? any
---@return true? ok
---@return cosocket.Error? err
function Connection:send_stream(kind, iterator, state, control)
  if kind ~= "text" and kind ~= "binary" then error("send_stream: the kind must be \"text\" or \"binary\"", 2) end
  local ok, err = admit(self)
  if not ok then return nil, err end
  local event, begun, whole = cosocket.event(), false, false
  self.sending = event
  local guard <close> = setmetatable({}, {
    __close = function()
      self.sending = nil
      event:set()
      if not whole and not self.err then self:close(close_code.internal_error) end
    end,
  })
  ---@type websocket.Kind?
  local first = kind
  local piece = iterator(state, control)
  repeat
    local following
    if piece ~= nil then
      if type(piece) ~= "string" then error(("send_stream: a piece must be a string, not a %s"):format(type(piece)), 2) end
      control = piece
      following = iterator(state, control)
    end
    ok, err = admit(self, true)
    if ok then
      ok, err = self:send_piece(first, piece or "", following == nil, 2)
      if ok then
        begun, whole = true, following == nil
        ok, err = flush(self)
      end
    end
    if not ok then
      whole = whole or not begun
      return nil, self.err or err
    end
    first, piece = nil, following
  until piece == nil
  whole = true
  return true
end

--- Sends a Ping. Pongs are not waited for: whatever comes shows that the other side is there.
---@async
---@param payload? string At most 125 bytes.
---@return true? ok
---@return cosocket.Error? err
function Connection:ping(payload)
  if payload ~= nil and (type(payload) ~= "string" or #payload > 125) then
    error("ping: at most 125 bytes are wanted", 2)
  end
  local ok, err = admit(self, true)
  if not ok then return nil, err end
  ok, err = Session.ping(self, payload)
  if not ok then return nil, self.err or err end
  return flush(self)
end

return { drain = drain }
