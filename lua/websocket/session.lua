--- One end of a WebSocket connection after its handshake (RFC 6455): bytes and `now` in, messages and bytes out. It
--- opens nothing and waits for nothing.
---
--- A Ping is answered, a silent peer is asked whether it is there, and a Close is answered, all in `receive` and
--- `expire`. The end is an error: of kind `closed` when the other side said so, with its `code` and `reason`.

local close_code = require("websocket.close_code")
local codec = require("websocket.codec")
local cosocket = require("cosocket")
local patience = require("net.patience")

local decode, encode = codec.decode, codec.encode

--- Seconds of silence after which the other side is asked whether it is there.
local KEEP_ALIVE = 30
--- Seconds its answer may take.
local KEEP_ALIVE_TIMEOUT = 20
--- Seconds the other side may take to answer our Close.
local CLOSE_TIMEOUT = 5
--- Bytes that wait to leave from which on a Ping's answer waits, too: the other side asks and asks, and does not read.
local PONGS_MAX = 65536

--- What connections of one kind have in common.
---@class websocket.Config
---@field role websocket.Role
---@field rules websocket.Rules
---@field keep_alive number Seconds; 0 turns it off.
---@field keep_alive_timeout number
---@field close_timeout number
---@field subprotocol string?
---@field compressed boolean

---@class websocket.ConfigOptions
---@field message_max? integer Longest message that is taken, decompressed. Default 16777216.
---@field frame_max? integer Longest frame that is taken. Default: `message_max`.
---@field keep_alive? number Seconds of silence after which a Ping is sent; 0 turns it off. Default 30.
---@field keep_alive_timeout? number Seconds the other side may take to be heard again, from when the Ping has left; and so long may nothing move before. Default 20.
---@field close_timeout? number Seconds the other side may take to answer our Close, from when it has left; and so long may nothing move before. Default 5.

---@class websocket.Session
---@field output cosocket.Buffer What is to be sent.
---@field deadline number When `expire` wants to be called; it may be early.
---@field config websocket.Config
---@field state "open"|"closing"|"closed" `closing`: our Close is sent, that of the other side has not come.
---@field package heard number When the other side was last heard.
---@field package pinged number? When a Ping was sent that nothing has followed.
---@field package owed string? What the last Ping said that has not been answered for lack of room.
---@field package patience net.Patience? With a Ping that waits behind other frames.
---@field package reading websocket.Reading?
---@field package writing websocket.Writing?
local Session = {}
Session.__index = Session

--- Why nothing can be sent any more.
---@param op string
---@return nil
---@return cosocket.Error err
local function over(op)
  return nil, cosocket.error("closed", op, "the connection is closing or closed")
end

-- Sending ---------------------------------------------------------------------

--- Queues a message. Raises for a text that is not UTF-8, `level` calls above.
---@param kind websocket.Kind
---@param payload string
---@param level? integer Default 1.
---@return true? ok
---@return cosocket.Error? err
function Session:send(kind, payload, level)
  if self.state ~= "open" then return over("websocket.send") end
  local ok, writing = encode(self.output, self.config.rules, kind, payload, self.writing)
  if writing ~= self.writing then
    if not ok then error(writing.op .. ": " .. writing.message, (level or 1) + 1) end
    self.writing = writing --[[@as websocket.Writing?]]
  end
  return true
end

--- Queues part of a message (5.4): the first with its kind, the others without.
---@param kind websocket.Kind?
---@param payload string
---@param last boolean
---@param level? integer
---@return true? ok
---@return cosocket.Error? err
function Session:send_piece(kind, payload, last, level)
  if self.state ~= "open" then return over("websocket.send") end
  local ok, writing = codec.encode_piece(self.output, self.config.rules, kind, payload, last, self.writing)
  if not ok then error(writing.op .. ": " .. writing.message, (level or 1) + 1) end
  self.writing = writing --[[@as websocket.Writing?]]
  return true
end

--- Queues a Ping; the other side answers it (5.5.2).
---@param payload? string At most 125 bytes.
---@return true? ok
---@return cosocket.Error? err
function Session:ping(payload)
  if self.state ~= "open" then return over("websocket.ping") end
  encode(self.output, self.config.rules, "ping", payload or "")
  return true
end

--- Has the answer to a question that was queued behind `before` bytes counted as late from when the question has left.
---@param self websocket.Session
---@param now number
---@param seconds number
---@param before integer
---@param delivered integer?
---@param waiting integer?
local function wait_for_answer(self, now, seconds, before, delivered, waiting)
  self.deadline = now + seconds
  if delivered and (waiting > 0 or before > 0) then
    local waits = patience.new(now, seconds, delivered, waiting + #self.output)
    self.patience, self.deadline = waits, waits.deadline
  elseif self.patience then
    self.patience = nil
  end
end

--- Queues our Close, the last frame of ours (5.5.1).
---@param code integer?
---@param reason string?
---@param now number
---@param delivered integer? As of `expire`.
---@param waiting any
---@return true? ok
---@return cosocket.Error? err
function Session:close(code, reason, now, delivered, waiting)
  if self.state ~= "open" then return over("websocket.close") end
  local before = #self.output
  codec.encode_close(self.output, self.config.rules, code, reason)
  self.state = "closing"
  wait_for_answer(self, now, self.config.close_timeout, before, delivered, waiting)
  return true
end

-- Receiving -------------------------------------------------------------------

--- Nothing more is sent or received.
---@package
function Session:finish()
  self.state, self.deadline = "closed", math.huge
  if self.reading or self.writing then codec.drop(self.reading, self.writing) end
  self.reading, self.writing, self.pinged, self.owed = nil, nil, nil, nil
  if self.patience then self.patience = nil end
end

--- Answers a Ping; or, while too much waits to leave, only the last of several (5.5.3).
---@param self websocket.Session
---@param payload string
local function pong(self, payload)
  if #self.output > PONGS_MAX then
    self.owed = payload
    return
  end
  if self.owed then self.owed = nil end
  encode(self.output, self.config.rules, "pong", payload)
end

--- Fails the connection (7.1.7), and tells the other side why.
---@param err cosocket.Error Its `code` says it.
---@return nil
---@return cosocket.Error err
function Session:refuse(err)
  if self.state == "open" then
    codec.encode_close(self.output, self.config.rules, err.code --[[@as integer]])
  end
  self:finish()
  return nil, err
end

--- The other side has closed.
---@param code integer?
---@param reason string
---@return nil
---@return cosocket.Error err
local function closed(self, code, reason)
  -- 5.5.1: what it said is said back.
  if self.state == "open" then codec.encode_close(self.output, self.config.rules, code) end
  local ours = self.state == "closing"
  self:finish()
  local why = code and close_code.words(code) or "without a code"
  if reason ~= "" then why = ("%s (%s)"):format(why, reason) end
  local message = ours and "both sides have closed the connection: %s" or "the other side closed the connection: %s"
  return nil, cosocket.error("closed", "websocket", message:format(why), {
    code = code or close_code.no_status,
    reason = reason,
  })
end

--- Takes frames off the front of `input` until a message is whole.
---@param input cosocket.Buffer
---@param now number
---@param pieces? boolean Parts of messages, as they come, without a limit on their length.
---@return string? message `nil` without an error: more has to come.
---@return websocket.Kind|cosocket.Error|nil kind Or why this is the end.
---@return boolean? last Of a piece: whether the message ends with it.
function Session:receive(input, now, pieces)
  local rules = self.config.rules
  if self.owed and self.state == "open" then pong(self, self.owed) end
  while self.state ~= "closed" do
    local before = #input
    local payload, kind, reading, extra = decode(input, rules, self.reading, pieces)
    if payload == nil and kind then return self:refuse(kind --[[@as cosocket.Error]]) end
    if reading ~= self.reading then self.reading = reading end
    if not payload then
      -- A part of a long message.
      if #input < before then self.heard = now end
      return nil
    end
    self.heard = now
    if kind == "text" or kind == "binary" then
      -- What crosses our Close is not for anybody.
      if self.state == "open" then return payload, kind, extra --[[@as boolean?]] end
    elseif kind == "ping" then
      if self.state == "open" then pong(self, payload) end
    elseif kind == "close" then
      return closed(self, extra --[[@as integer?]], payload)
    end
  end
  return over("websocket.receive")
end

--- Asks whether the other side is there.
---@param self websocket.Session
---@param now number
---@param delivered integer?
---@param waiting integer?
local function ask(self, now, delivered, waiting)
  local output, config = self.output, self.config
  local before = #output
  encode(output, config.rules, "ping", "")
  self.pinged = now
  wait_for_answer(self, now, config.keep_alive_timeout, before, delivered, waiting)
  -- The next silence may be over before the answer would be late.
  self.deadline = math.min(self.deadline, now + config.keep_alive)
end

--- The deadline has passed.
---@param now number
---@param delivered integer? What the stream's `progress` says: bytes that have arrived, and bytes that have not. Without, whatever is sent leaves at once.
---@param waiting any
---@return true? alive
---@return cosocket.Error? err
function Session:expire(now, delivered, waiting)
  if now < self.deadline then return true end
  if self.state == "closing" then
    local waits = self.patience
    -- Over a slow line, what was sent before the Close may be leaving still.
    if waits and now < waits:look(now, delivered, delivered and waiting + #self.output) then
      self.deadline = waits.deadline
      return true
    end
    self:finish()
    return nil, cosocket.error("timeout", "websocket", "the other side does not answer our Close")
  elseif self.state == "closed" then
    self.deadline = math.huge
    return true
  end
  local config, pinged, waits = self.config, self.pinged, self.patience
  if pinged and self.heard >= pinged then
    self.pinged, pinged = nil, nil
    if waits then self.patience, waits = nil, nil end
  end
  local due = pinged and pinged + config.keep_alive_timeout or self.heard + config.keep_alive
  if waits then
    -- Over a slow line, the Ping may be leaving still.
    due = waits:look(now, delivered, delivered and waiting + #self.output)
  elseif config.keep_alive == 0 then
    due = math.huge
  end
  if now < due then
    self.deadline = waits and waits.deadline or due
  elseif pinged then
    self:finish()
    local seconds = now - self.heard
    return nil, cosocket.error("timeout", "websocket", ("nothing was heard of the other side for %.0f s"):format(seconds))
  else
    ask(self, now, delivered, waiting)
  end
  return true
end

local session = {}

--- The class, for those who are sessions and more.
session.class = Session

--- What sessions of one kind share.
---@param role websocket.Role
---@param options? websocket.ConfigOptions
---@param agreed? {subprotocol: string?, compression: websocket.Agreed?} What the handshake settled.
---@return websocket.Config
function session.config(role, options, agreed)
  options, agreed = options or {}, agreed or {}
  local compression = agreed.compression
  return {
    role = role,
    rules = codec.rules({
      role = role,
      message_max = options.message_max,
      frame_max = options.frame_max,
      inflate = compression and compression.inflate,
      deflate = compression and compression.deflate,
      level = compression and compression.level,
      threshold = compression and compression.threshold,
    }),
    keep_alive = options.keep_alive or KEEP_ALIVE,
    keep_alive_timeout = options.keep_alive_timeout or KEEP_ALIVE_TIMEOUT,
    close_timeout = options.close_timeout or CLOSE_TIMEOUT,
    subprotocol = agreed.subprotocol,
    compressed = compression ~= nil,
  }
end

--- When a session that begins now wants to hear of the time.
---@param config websocket.Config
---@param now number
---@return number
function session.first_deadline(config, now)
  return config.keep_alive > 0 and now + config.keep_alive or math.huge
end

--- A session whose handshake is done.
---@param config websocket.Config
---@param now number
---@return websocket.Session
function session.new(config, now)
  return setmetatable({
    output = cosocket.buffer(),
    config = config,
    state = "open",
    heard = now,
    deadline = session.first_deadline(config, now),
  }, Session)
end

return session
