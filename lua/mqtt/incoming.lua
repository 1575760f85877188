--- What one side of an MQTT session has received at QoS 1 and 2 and not yet acknowledged to the end. It outlives
--- connections. Clients and servers use the same.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local reason = require("mqtt.reason")

local encode_ack = codec.encode_ack

---@class mqtt.Incoming
---@field output cosocket.Buffer
---@field version mqtt.codec.Version
---@field receive_maximum integer Messages that may be unacknowledged at a time; the Receive Maximum we announced.
---@field count integer Messages of this connection that are not acknowledged to the end.
---@field journal mqtt.Journal?
---@field private unanswered table<integer, mqtt.Publish> Messages whose PUBACK or PUBREC was not sent, by identifier.
---@field private verdict table<integer, integer> The reason codes of those that may be acknowledged.
---@field private lost table<integer, true> Those of QoS 2 whose connection is gone.
---@field private owned table<integer, boolean> QoS 2 messages of which PUBREC was sent, and PUBREL did not come; `true` when on this connection.
---@field private order integer[] Identifiers in the order in which they came on this connection.
---@field private first integer
---@field private last integer
local Incoming = {}
Incoming.__index = Incoming

---@param message string
---@param code? integer
---@return nil
---@return cosocket.Error
local function protocol_error(message, code)
  return nil, cosocket.error("protocol", "mqtt", message, { code = code or reason.protocol_error })
end

--- Remembers the place of a message in the order of acknowledgements.
---@private
---@param id integer
function Incoming:line_up(id)
  local last = self.last + 1
  self.last = last
  self.order[last] = id
end

--- A PUBLISH of QoS 1 or 2 came. Answers whether it is new, and to be handed on, or known already.
---@param packet mqtt.Publish
---@return "new"|"again"|nil
---@return cosocket.Error? err
function Incoming:receive(packet)
  local id, unanswered = packet.packet_id, self.unanswered
  local held = unanswered[id]
  if held then
    if packet.qos == 2 and self.lost[id] then
      -- It came on an earlier connection and is in somebody's hands: once is enough [MQTT-4.3.3-10].
      self.lost[id] = nil
      self.count = self.count + 1
      self:line_up(id)
      return "again"
    end
    -- [MQTT-2.2.1-4]
    return protocol_error(("packet identifier %d is used again before it was acknowledged"):format(id))
  end
  -- [MQTT-3.3.4-7], [MQTT-3.3.4-9]
  if self.count >= self.receive_maximum and self.version == 5 then
    return protocol_error("more messages at a time than Receive Maximum allows", reason.receive_maximum_exceeded)
  end
  if packet.qos == 2 and self.owned[id] ~= nil then
    -- The PUBREC was lost with its connection [MQTT-4.3.3-10].
    if not self.owned[id] then
      self.owned[id] = true
      self.count = self.count + 1
    end
    encode_ack(self.output, self.version, "pubrec", id)
    return "again"
  end
  self.count = self.count + 1
  unanswered[id] = packet
  self:line_up(id)
  return "new"
end

--- Everybody is done with a message: it is acknowledged. PUBACK and PUBREC leave in the order of the messages
--- [MQTT-4.6.0-2], [MQTT-4.6.0-3], whatever the order of calls. One that came before the session began anew is past.
---@param packet mqtt.Publish
---@param code? integer Reason code; from 0x80 on the message is refused. Default 0.
function Incoming:acknowledge(packet, code)
  local id = packet.packet_id
  if self.unanswered[id] ~= packet then return end
  if self.lost[id] then
    -- Its connection is gone, and it will be sent again: we remember that it was handed on.
    self.unanswered[id], self.lost[id] = nil, nil
    if (code or 0) < 0x80 then self:own(id, false) end
    return
  end
  self.verdict[id] = code or 0
  self:drain()
end

---@private
---@param id integer
---@param here boolean
function Incoming:own(id, here)
  self.owned[id] = here
  if self.journal then self.journal:received(id) end
end

--- Acknowledges what may be, in order.
---@private
function Incoming:drain()
  local order, verdict, unanswered = self.order, self.verdict, self.unanswered
  local first, last = self.first, self.last
  while first <= last do
    local id = order[first]
    local code = verdict[id]
    if not code then break end
    local packet = unanswered[id]
    order[first], verdict[id], unanswered[id] = nil, nil, nil
    first = first + 1
    if packet.qos == 1 then
      self.count = self.count - 1
      encode_ack(self.output, self.version, "puback", id, self.version == 5 and code or 0)
    else
      if code < 0x80 then
        self:own(id, true)
      else
        self.count = self.count - 1
      end
      encode_ack(self.output, self.version, "pubrec", id, self.version == 5 and code or 0)
    end
  end
  if first > last then first, self.last = 1, 0 end
  self.first = first
end

--- A PUBREL came: the message is over, and its identifier may be used again [MQTT-4.3.3-11], [MQTT-4.3.3-12].
---@param packet mqtt.Ack
function Incoming:release(packet)
  local id = packet.packet_id
  local here = self.owned[id]
  local known = here ~= nil
  if known then
    self.owned[id] = nil
    if here then self.count = self.count - 1 end
    if self.journal then self.journal:forget(id) end
  end
  local code = not known and self.version == 5 and reason.packet_identifier_not_found or 0
  encode_ack(self.output, self.version, "pubcomp", id, code)
end

--- The connection is gone. What was received at QoS 1 will be sent again as new; of QoS 2 we remember what we have.
function Incoming:disconnected()
  for id, packet in pairs(self.unanswered) do
    if packet.qos == 1 then
      self.unanswered[id] = nil
    else
      self.lost[id] = true
      local code = self.verdict[id]
      if code then self:acknowledge(packet, code) end
    end
  end
  for id in pairs(self.owned) do self.owned[id] = false end
  self.verdict, self.order, self.first, self.last, self.count = {}, {}, 1, 0, 0
end

--- The other side knows nothing of what it sent before: identifiers mean something new.
function Incoming:restart()
  self.unanswered, self.owned, self.lost = {}, {}, {}
  self.verdict, self.order, self.first, self.last, self.count = {}, {}, 1, 0, 0
  if self.journal then self.journal:forget_received() end
end

--- Takes over what the journal knew.
---@param ids integer[]
function Incoming:restore(ids)
  for _, id in ipairs(ids) do self.owned[id] = false end
end

local incoming = {}

---@param output cosocket.Buffer Where packets are put.
---@return mqtt.Incoming
function incoming.new(output)
  return setmetatable({
    output = output,
    version = 5,
    receive_maximum = 65535,
    count = 0,
    unanswered = {},
    verdict = {},
    owned = {},
    lost = {},
    order = {},
    first = 1,
    last = 0,
  }, Incoming)
end

return incoming
