--- A session on a stream: what `websocket.connect` and `websocket.accept` answer. It is one table, session and all, and
--- holds no buffer while nothing is under way, because ten thousand of them may be idle.
---
--- No task of its own turns the loop: whoever receives does, so that pings are answered and a silent peer is noticed
--- while a task waits in `receive`, `messages`, `pieces`, `read` or `close`. A task that only sends looks once a second
--- at what has come. Who does neither for long keeps the other side waiting.
---
--- | room | knows |
--- |---|---|
--- | `websocket.session` | the protocol: bytes in, messages and bytes out |
--- | `websocket.channel` | the session's stream and buffers, and the end |
--- | `websocket.receiving`, `websocket.sending` | messages |
--- | `websocket.stream` | the methods of a TCP stream |

local channel = require("websocket.channel")
local close_code = require("websocket.close_code")
local codec = require("websocket.codec")
local cosocket = require("cosocket")
local receiving = require("websocket.receiving")
local sending = require("websocket.sending")
local session = require("websocket.session")

local now = cosocket.now
local session_receive, session_send, session_close = session.class.receive, session.class.send, session.class.close

local Connection = channel.class
local leaving, join, part = channel.leaving, channel.join, channel.part
local settle = Connection.settle
local receive, waited, expired, overdue = receiving.receive, receiving.waited, receiving.expired, receiving.overdue
local drain = sending.drain

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
    local late = attempt == 2 and overdue(self)
    if late then return nil, late end
    if moved or attempt == 2 then return true end
    local own, bytes = self.deadline, self.input
    local ok, err = self.stream:turn(bytes, self.output, deadline and math.min(deadline, own) or own)
    if self.input ~= bytes then join(self, bytes) end
    if not ok then
      ---@cast err cosocket.Error
      if err.kind == "timeout" and deadline and deadline < own then return nil, err end
      err = err.kind == "timeout" and expired(self, err, own) or err.kind ~= "timeout" and waited(self, err) or nil
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

--- How far what was sent has come, in bytes as they are on the wire: those that the other side's system has
--- acknowledged, and those that it has not.
---@return integer? delivered
---@return integer|cosocket.Error waiting
function Connection:progress()
  if self.err then return nil, self.err end
  local delivered, waiting = self.stream:progress()
  if not delivered then return nil, waiting end
  local output = self.output
  return delivered, output == leaving and waiting or waiting + #output
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
    session_close(self, code or close_code.normal, reason, now(), self.stream:progress())
    settle(self)
    -- Whoever receives has another deadline now.
    self.stream:wake()
  end
  return true
end

--- Closes: says so behind what was sent before, waits until the other side has said so too (at most the option
--- `close_timeout` from when that has left, and while nothing moves), and drops what comes meanwhile. A deadline around it
--- ends it sooner. Raises for a code that may not be sent.
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
