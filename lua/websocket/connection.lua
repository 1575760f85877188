--- A session on a stream: what `websocket.connect` and `websocket.accept` answer. It is one table, session and all, and
--- holds no buffer while nothing is under way, because ten thousand of them may be idle.
---
--- No task of its own turns the loop: whoever receives does, so that pings are answered and a silent peer is noticed
--- while a task waits in `receive`, `messages`, `pieces`, `read` or `close`. A task that only sends looks once a second
--- at what has come. Who does neither for long keeps the other side waiting.
---
--- Frames pass through two buffers that all connections share. Nothing waits while there is something in them: what
--- cannot go on at once moves to a buffer of the connection's own.

local close_code = require("websocket.close_code")
local codec = require("websocket.codec")
local cosocket = require("cosocket")
local session = require("websocket.session")

local now = cosocket.now
local Session = session.class
local session_receive, session_send, session_close = Session.receive, Session.send, Session.close
local session_expire = Session.expire

--- Bytes that may have arrived and wait while this side only sends.
local READ_AHEAD_MAX = 1048576
--- Seconds after which a task that only sends looks at what has come.
local LOOK_INTERVAL = 1
--- Seconds that the last words may take to leave, and the other side to close.
local LINGER = 2
--- What the clock may lack to a deadline that has passed: it counts in whole nanoseconds.
local TICK = 1e-6

--- Frames on their way from a session to its stream.
local leaving = cosocket.buffer()
--- Bytes on their way from a stream to its session.
local arrived = cosocket.buffer()

--- Hears of the end of its connections.
---@class websocket.Owner
---@field forget fun(self: websocket.Owner, connection: websocket.Connection)

---@class websocket.Connection: websocket.Session
---@field close_code integer? Why it is closed (RFC 6455, 7.4.1): 1005 without a code, 1006 when it was lost.
---@field close_reason string? What the other side said.
---@field err cosocket.Error? Why it is closed.
---@field package stream cosocket.Stream
---@field package input cosocket.Buffer
---@field package owner websocket.Owner?
---@field package ended cosocket.Event? Set at the end, for those who wait for it.
---@field package sending cosocket.Event? A message is sent in pieces; set when it is through.
---@field package held [string, websocket.Kind]? A message that came while this side sent.
---@field package looked number? When a task that only sends looked last.
---@field package taking boolean? A task that sends takes in what comes, for lack of one that receives.
---@field package taken cosocket.Event? Set when it has ended.
---@field package within boolean? A message is received in pieces, and has not ended.
---@field package bytes cosocket.Buffer? What `read` and its like have not taken yet.
local Connection = setmetatable({}, { __index = Session })
Connection.__index = Connection
Connection.__name = "websocket.Connection"
Connection.output = leaving
Connection.input = arrived

-- Buffers ---------------------------------------------------------------------

--- Moves what is in the shared buffers on, or into buffers of this connection; gives those back when they are empty.
---@package
function Connection:settle()
  local output = self.output
  if #output > 0 then
    -- What fails here fails the next wait, too.
    self.stream:try_flush(output)
    if output == leaving then
      if #output > 0 then
        self.output = cosocket.buffer():append(output)
        output:clear()
      end
    elseif #output == 0 then
      self.output = nil
    end
  elseif output ~= leaving then
    self.output = nil
  end
  local input = self.input
  if #input == 0 then
    if input ~= arrived then self.input = nil end
  elseif input == arrived then
    self.input = cosocket.buffer():append(input)
    input:clear()
  end
end
local settle = Connection.settle

--- Joins what this task has read with what another has read before, into a buffer that took the place of `input`.
---@param self websocket.Connection
---@param input cosocket.Buffer
local function join(self, input)
  local earlier = self.input
  if earlier == arrived then
    self.input = input
  elseif #input > 0 then
    earlier:append(input)
    input:clear()
  end
end

-- The end ---------------------------------------------------------------------

--- Closes, and tells everybody why.
---@package
---@param err cosocket.Error
---@return cosocket.Error err
function Connection:lose(err)
  if self.err then return self.err end
  self:finish()
  self.err = err
  self.close_code = math.type(err.code) == "integer" and err.code --[[@as integer]] or close_code.abnormal
  self.close_reason = err.reason or ""
  if self.output == leaving then leaving:clear() end
  self.output, self.input = nil, nil
  if self.ended then self.ended:set() end
  if self.sending then self.sending:set() end
  if self.owner then self.owner:forget(self) end
  self.stream:close()
  return err
end

--- The stream is gone without a Close.
---@param self websocket.Connection
---@param err cosocket.Error
---@return cosocket.Error
local function lost(self, err)
  local message = ("the connection is lost: %s"):format(err.message)
  return self:lose(cosocket.error(err.kind, "websocket", message, { code = close_code.abnormal, cause = err }))
end

--- The session is over: its last words leave, and the stream is closed.
---@async
---@param self websocket.Connection
---@param err cosocket.Error
---@return cosocket.Error err
local function part(self, err)
  settle(self)
  local stream, output, unread = self.stream, self.output, cosocket.buffer()
  if coroutine.isyieldable() then
    cosocket.deadline(LINGER, function()
      while #output > 0 do
        if not stream:turn(unread, output) then return end
        unread:clear()
      end
      -- The server closes first (7.1.1); but what is closed with unread bytes is reset, and a Close that says what
      -- was wrong could be lost with it.
      if self.config.role == "server" then
        if err.kind == "closed" then return end
        stream:shutdown("write")
      end
      repeat unread:clear() until not stream:turn(unread, output)
    end)
  end
  return self:lose(err)
end

-- Receiving -------------------------------------------------------------------

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
  return lost(self, err)
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

-- Sending ---------------------------------------------------------------------

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
    local alive, why = session_expire(self, at)
    if not alive then
      ---@cast why cosocket.Error
      why.code = close_code.abnormal
      self:lose(why)
      return
    end
  end
  settle(self)
end

--- Sends, and takes in what comes, for a task that receives, too.
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
  local input = self.input
  local ok, err = self.stream:turn(input, self.output)
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
    local stream, ok, err = self.stream, nil, nil
    if self.input == arrived then self.input = cosocket.buffer() end
    if #self.input < READ_AHEAD_MAX then
      ok, err = take_in(self)
    end
    if not ok and (not err or err.code == "EBUSY") then
      ok, err = stream:flush()
      if ok then ok, err = stream:try_flush(self.output) end
    end
    if self.err then return nil, self.err end
    if not ok then return nil, err end
  end
  settle(self)
  return true
end

--- Starts what the session has queued on its way; waits while too much is.
---@async
---@param self websocket.Connection
---@return true? ok
---@return cosocket.Error? err
local function flush(self)
  local output = self.output
  local ok, err = self.stream:try_flush(output)
  if #output > 0 then
    if not ok then
      output:clear()
      return nil, err
    end
    settle(self)
    ok, err = drain(self)
    if not ok then return nil, err end
  elseif not ok then
    return nil, err
  elseif output ~= leaving then
    self.output = nil
  end
  local at = now()
  if at - self.heard > LOOK_INTERVAL and at - (self.looked or 0) > LOOK_INTERVAL then look(self, at) end
  return true
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

---@async
---@param self websocket.Connection
---@param kind websocket.Kind
---@param payload string
---@return true? ok
---@return cosocket.Error? err
local function send(self, kind, payload)
  if self.sending or self.err or #self.output > 0 then
    local ok, err = admit(self)
    if not ok then return nil, err end
  end
  local ok, err = session_send(self, kind, payload, 2)
  if not ok then return nil, self.err or err end
  return flush(self)
end

--- Sends a text message, which must be UTF-8. Any task may; waits while more is on its way than the stream's
--- `queue_max`. Returns when the message is on its way, not when it has arrived.
---@async
---@param text string
---@return true? ok
---@return cosocket.Error? err
function Connection:send(text)
  if type(text) ~= "string" then error(("send: a string is wanted, not a %s"):format(type(text)), 2) end
  return send(self, "text", text)
end

--- Sends a message of any bytes; else as `send`.
---@async
---@param bytes string
---@return true? ok
---@return cosocket.Error? err
function Connection:send_binary(bytes)
  if type(bytes) ~= "string" then error(("send_binary: a string is wanted, not a %s"):format(type(bytes)), 2) end
  return send(self, "binary", bytes)
end

--- Sends one message in pieces, as an iterator gives them: for what is too long to be held. Other messages wait until
--- it is through. When the iterator raises, the connection is closed, because half a message cannot be taken back.
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
  local event, whole = cosocket.event(), false
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
    if ok then ok, err = self:send_piece(first, piece or "", following == nil, 2) end
    if ok then ok, err = flush(self) end
    if not ok then
      whole = true -- there is nothing to be taken back any more
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

-- The stream within -----------------------------------------------------------

--- As a stream's `turn`: sends from `output`, as one binary message, and puts the payload of binary messages onto
--- `input`. Text messages are refused with code 1003.
---@async
---@param input cosocket.Buffer
---@param output cosocket.Buffer
---@param deadline? number
---@return true? ok
---@return cosocket.Error? err
function Connection:turn(input, output, deadline)
  if self.err then return nil, self.err end
  local moved = false
  if #output > 0 and self.state == "open" and (self.output == leaving or #self.output == 0) then
    session_send(self, "binary", output:take() --[[@as string]])
    moved = true
  end
  if self.bytes then
    input:append(self.bytes)
    self.bytes, moved = nil, true
  end
  for attempt = 1, 2 do
    local piece, kind
    repeat
      piece, kind = session_receive(self, self.input, now(), true)
      if piece and kind == "text" then
        piece, kind = self:refuse(cosocket.error("protocol", "websocket", "a text message came where bytes are wanted", {
          code = close_code.unsupported_data,
        }))
      end
      if piece then
        input:append(piece)
        moved = true
      end
    until not piece
    if kind then
      -- What came before the end is taken first.
      part(self, kind --[[@as cosocket.Error]])
      if moved then return true end
      return nil, kind --[[@as cosocket.Error]]
    end
    settle(self)
    if moved or attempt == 2 then return true end
    local own, bytes = self.deadline, self.input
    local ok, err = self.stream:turn(bytes, self.output, deadline and math.min(deadline, own) or own)
    if self.input ~= bytes then join(self, bytes) end
    if not ok then
      ---@cast err cosocket.Error
      if err.kind == "timeout" and deadline and deadline < own then return nil, err end
      err = waited(self, err, own)
      if err then return nil, err end
    end
  end
  return true
end

--- Queues a message without starting it on its way.
---@package
---@param bytes string
---@return true? ok
---@return cosocket.Error? err
function Connection:send_unflushed(bytes)
  return session_send(self, "binary", bytes)
end

--- Waits until everything sent has been given to the system.
---@async
---@return true? ok
---@return cosocket.Error? err
function Connection:flush()
  if self.err then return nil, self.err end
  local ok, err = drain(self)
  if not ok then return nil, err end
  return self.stream:flush()
end

--- Makes the `turn` another task is parked in answer `true`.
function Connection:wake()
  self.stream:wake()
end

-- Closing ---------------------------------------------------------------------

--- Says that this side will send no more, and goes on receiving until the other side has said so, too.
---@param code? integer Default 1000.
---@param reason? string
---@return true
function Connection:start_close(code, reason)
  if self.state == "open" then
    if #self.output > 0 and self.output == leaving then self.output = cosocket.buffer() end
    session_close(self, code or close_code.normal, reason, now())
    settle(self)
    -- Whoever receives has another deadline now.
    self.stream:wake()
  end
  return true
end

--- Closes: says so, waits until the other side has said so too (at most the option `close_timeout`), and drops what
--- comes meanwhile. Raises for a code that may not be sent.
---@async
---@param code? integer 1000 (default), 1001, or 3000 to 4999 for what is the application's own.
---@param reason? string At most 123 bytes of UTF-8.
---@return true
function Connection:close(code, reason)
  if code ~= nil and (math.type(code) ~= "integer" or not codec.valid_code(code)) then
    error(("close: %s is not a code to close with: 1000, 1001, 3000 to 4999, ..."):format(tostring(code)), 2)
  end
  if reason ~= nil and (type(reason) ~= "string" or #reason > 123 or not utf8.len(reason)) then
    error("close: the reason must be at most 123 bytes of UTF-8", 2)
  end
  if self.err then return true end
  self:start_close(code, reason)
  if not coroutine.isyieldable() then
    -- A task that is cancelled cannot wait: what is written is sent if the system takes it.
    self:lose(cosocket.error("closed", "websocket", "this side has closed the connection", {
      code = code or close_code.normal,
    }))
    return true
  end
  self.held, self.bytes = nil, nil
  while not self.err do
    local _, err = receive(self, true)
    -- A deadline of somebody around us: no answer is waited for.
    if not self.err then self:lose(err --[[@as cosocket.Error]]) end
  end
  return true
end

function Connection:__close()
  self:close()
end

-- What it is ------------------------------------------------------------------

--- The subprotocol both sides agreed on.
---@return string?
function Connection:subprotocol()
  return self.config.subprotocol
end

---@class websocket.Status
---@field state "open"|"closing"|"closed"
---@field role websocket.Role
---@field subprotocol string?
---@field compressed boolean Whether permessage-deflate was agreed on.
---@field silent_for number Seconds since the other side was heard.
---@field close_code integer?
---@field close_reason string?
---@field error cosocket.Error?

---@return websocket.Status
function Connection:status()
  local config = self.config
  return {
    state = self.err and "closed" or self.state,
    role = config.role,
    subprotocol = config.subprotocol,
    compressed = config.compressed,
    silent_for = now() - self.heard,
    close_code = self.close_code,
    close_reason = self.close_reason,
    error = self.err,
  }
end

local connection = {}

--- The class, for `websocket.stream`.
connection.class = Connection

--- Connections that no server of ours owns: when the program is asked to stop, they say goodbye.
---@class websocket.Everyone: websocket.Owner
local everyone = { open = setmetatable({}, { __mode = "k" }), watches = false }

---@param one websocket.Connection
function everyone:forget(one)
  self.open[one] = nil
end

--- Closes all, at once.
---@async
local function go_away()
  for one in pairs(everyone.open) do one:start_close(close_code.going_away) end
  for one in pairs(everyone.open) do one:close() end
end

--- A connection whose handshake is done.
---@param stream cosocket.Stream
---@param config websocket.Config
---@param rest string|cosocket.Buffer|nil What came behind the handshake.
---@param owner? websocket.Owner Who closes it when the program stops. Default: this module.
---@return websocket.Connection
function connection.new(stream, config, rest, owner)
  local at = now()
  owner = owner or everyone
  local self = setmetatable({
    stream = stream,
    config = config,
    state = "open",
    heard = at,
    deadline = session.first_deadline(config, at),
    owner = owner,
  }, Connection)
  if rest and #rest > 0 then self.input = cosocket.buffer():append(rest) end
  if owner == everyone then
    everyone.open[self] = true
    if not everyone.watches then
      everyone.watches = true
      cosocket.on_stop(go_away)
    end
  end
  return self
end

return connection
