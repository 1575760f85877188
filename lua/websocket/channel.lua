--- What a connection is made of: a stream, a session, the buffers between them, and its end. How it receives and sends is
--- said in `websocket.receiving` and `websocket.sending`.
---
--- Frames pass through two buffers that all connections share. Nothing waits while there is something in them: what
--- cannot go on at once moves to a buffer of the connection's own.

local close_code = require("websocket.close_code")
local cosocket = require("cosocket")
local session = require("websocket.session")

--- Seconds that the last words may take to leave, and the other side to close.
local LINGER = 2

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
---@field package parting cosocket.Error? Why it is closed, while the last words leave.
---@field package within boolean? A message is received in pieces, and has not ended.
---@field package bytes cosocket.Buffer? What `read` and its like have not taken yet.
local Connection = setmetatable({}, { __index = session.class })
Connection.__index = Connection
Connection.__name = "websocket.Connection"
Connection.output = leaving
Connection.input = arrived

local channel = {}

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
  -- What the other side has said tells more than how the wait for its end has ended.
  err = self.parting or err
  self:finish()
  self.err = err
  self.close_code = math.type(err.code) == "integer" and err.code --[[@as integer]] or close_code.abnormal
  self.close_reason = err.reason or ""
  if self.output == leaving then leaving:clear() end
  -- Their memory is not for the collector to wait with.
  if self.output ~= leaving then self.output:clear() end
  if self.input ~= arrived then self.input:clear() end
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
  if self.parting then
    -- Another task is at it.
    self.ended = self.ended or cosocket.event()
    if coroutine.isyieldable() then self.ended:wait() end
    return self:lose(err)
  end
  self.parting = err
  local guard <close> = setmetatable({}, { __close = function() self:lose(err) end })
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

channel.class = Connection
channel.leaving = leaving
channel.arrived = arrived
channel.join = join
channel.lost = lost
channel.part = part

return channel
