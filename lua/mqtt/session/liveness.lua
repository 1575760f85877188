--- How a session keeps its connection alive, and notices that the server is gone: methods of `mqtt.Session`.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local patience = require("net.patience")

local encode = codec.encode

--- The share of the Keep Alive after which a PINGREQ is sent: it must leave before the time is over [MQTT-3.1.2-22].
local KEEP_ALIVE_SHARE = 0.9
--- Seconds the answer to a PINGREQ may take at most.
local PING_TIMEOUT_MAX = 30
--- Bytes of a PINGREQ (3.12).
local PINGREQ_SIZE = 2

---@class mqtt.Session
local Session = {}

--- Seconds without own packets after which a PINGREQ is due.
---@private
---@return number
function Session:ping_interval()
  return self.keep_alive > 0 and self.keep_alive * KEEP_ALIVE_SHARE or math.huge
end

--- When the next PINGREQ is due. What we send keeps the connection alive for the server [MQTT-3.1.2-22]; what we hear
--- tells us that it is. Who only sends would not notice a server that is gone, so silence is asked about, too, once.
---@private
---@return number
function Session:ping_due()
  local since = self.last_sent
  if not self.pong_by and self.last_heard < since then since = self.last_heard end
  return since + self:ping_interval()
end

--- Sets the deadline: the next PINGREQ, or the answer to the last one. Sending and hearing do not move the deadline,
--- which may be early: `expire` looks again.
---@private
function Session:schedule()
  local due = self:ping_due()
  if self.pong_by and not self.paused then
    due = math.min(due, self.pong_by)
    if self.patience then due = math.min(due, self.patience.deadline) end
  end
  self.deadline = due
end

--- Seconds the answer to a PINGREQ may take (3.1.2.10: "a reasonable amount of time").
---@private
---@return number
function Session:pong_wait()
  return math.min(PING_TIMEOUT_MAX, math.max(1, self.keep_alive / 2))
end

--- A PINGREQ is the last of `output`.
---@private
---@param now number
---@param delivered integer?
---@param waiting integer?
function Session:await_pong(now, delivered, waiting)
  local seconds, output = self:pong_wait(), #self.output
  self.pong_by = now + seconds
  if delivered and (waiting > 0 or output > PINGREQ_SIZE) then
    self.patience = patience.new(now, seconds, delivered, waiting + output)
  end
end

--- Puts off when the answer to a PINGREQ is late. It cannot come before the PINGREQ has left, nor before what the server
--- sends already: neither a large message of ours on a slow line nor one of the server's shall end the connection, only
--- to be sent again on the next.
---@private
---@param now number
---@param delivered integer?
---@param waiting integer?
function Session:bear(now, delivered, waiting)
  local due = math.max(self.pong_by, self.last_heard + self:pong_wait())
  local waits = self.patience
  if waits then
    due = math.max(due, waits:look(now, delivered, waiting and waiting + #self.output))
    if waits.left then self.patience = nil end
  end
  self.pong_by = due
end

--- The deadline has passed.
---@param now number
---@param delivered integer? What the stream's `progress` says: bytes that have arrived, and bytes that have not. Without, whatever is sent leaves at once.
---@param waiting integer?
---@return true? alive
---@return cosocket.Error? err
function Session:expire(now, delivered, waiting)
  if now < self.deadline then return true end
  if self.state == "connecting" then
    self:close()
    return nil, cosocket.error("timeout", "mqtt.connect", "the server did not answer CONNECT")
  elseif self.state ~= "connected" then
    self.deadline = math.huge
    return true
  end
  if not delivered then waiting = nil end
  if self.pong_by then self:bear(now, delivered, waiting) end
  if self.pong_by and not self.paused and now >= self.pong_by then
    self:close()
    return nil, cosocket.error("timeout", "mqtt", "the server did not answer PINGREQ")
  end
  if now >= self:ping_due() then
    -- While one is leaving, behind something large, another would only follow it.
    if not self.patience then
      assert(encode(self.output, { type = "pingreq" }, self.version))
      -- One more PINGREQ, for the server's sake, gives the answer to the first no more time.
      if not self.pong_by then self:await_pong(now, delivered, waiting) end
    end
    self.last_sent = now
  end
  self:schedule()
  return true
end

--- Tells that the owner reads nothing for a while, or again: an answer that is not read is not late.
---@param paused boolean
---@param now number
function Session:pause(paused, now)
  if self.paused == paused then return end
  self.paused = paused
  if self.state ~= "connected" then return end
  if self.pong_by and not paused then self.pong_by = now + PING_TIMEOUT_MAX end
  self:schedule()
end

return Session
