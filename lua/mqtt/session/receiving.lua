--- What the client's session does with each packet of the server.

local aliases = require("mqtt.alias")
local cosocket = require("cosocket")
local reason = require("mqtt.reason")

--- Messages on their way at a time where the server cannot say how many it takes. Some end the connection for more.
local IN_FLIGHT_MAX_311 = 20

local receiving = {}

--- What is answered to a server that breaks the protocol.
---@param op string
---@param message string
---@param code? integer Reason code. Default 0x82.
---@return nil
---@return cosocket.Error err
function receiving.protocol_error(op, message, code)
  return nil, cosocket.error("protocol", op, message, { code = code or reason.protocol_error })
end

---@type table<string, fun(self: mqtt.Session, packet: any, now: number, input: cosocket.Buffer): mqtt.Event?, cosocket.Error?>
local RECEIVE = {}

function RECEIVE:connack(packet, now)
  self.connack = packet
  if packet.reason_code ~= 0 then
    self:close()
    return packet
  end
  local options, properties = self.options, packet.properties or {}
  if packet.session_present and self.clean then
    -- [MQTT-3.2.2-2] (3.1.1: [MQTT-3.2.2-1])
    return receiving.protocol_error("mqtt.connect", "the server resumes a session that was to start clean")
  end
  if properties.authentication_method ~= options.authentication_method and properties.authentication_method then
    -- [MQTT-4.12.0-5]
    return receiving.protocol_error("mqtt.connect", "the server answers with another authentication method")
  end
  self.state = "connected"
  self.client_id = properties.assigned_client_identifier or self.client_id
  -- [MQTT-3.2.2-21]
  self.keep_alive = properties.server_keep_alive or options.keep_alive or 60
  local window, received = self.outgoing, self.incoming
  window.receive_maximum = math.min(
    properties.receive_maximum or 65535,
    options.in_flight_max or (self.version == 5 and 65535 or IN_FLIGHT_MAX_311)
  )
  local qos, retains = properties.maximum_qos or 2, properties.retain_available ~= false
  if window.maximum_qos ~= qos then window.maximum_qos = qos end
  if window.retain_available ~= retains then window.retain_available = retains end
  -- [MQTT-3.2.2-15]
  window.packet_max = properties.maximum_packet_size
  -- [MQTT-3.2.2-17], [MQTT-3.2.2-18]
  local alias_max = math.min(properties.topic_alias_maximum or 0, options.topic_alias_max or 0)
  window.alias_maximum = alias_max > 0 and alias_max or nil
  if received and not packet.session_present then received:restart() end
  self.last_sent = now
  self:schedule()
  return packet
end

function RECEIVE:publish(packet)
  local properties = packet.properties
  if properties and properties.topic_alias then
    self.topics = self.topics or {}
    local ok, err = aliases.resolve(self.topics, packet, self.options.topic_alias_max or 0)
    if not ok then return nil, err end
  end
  if packet.qos == 0 then return packet end
  local found, err = (self.incoming or self:make_incoming()):receive(packet)
  if found == "new" then return packet end
  return nil, err
end

function RECEIVE:pubrel(packet, now)
  local received = self.incoming or self:make_incoming()
  received:release(packet)
  self.last_sent = now
end

--- An answer to a message, or a step towards one.
---@param self mqtt.Session
---@param packet mqtt.Ack
---@param now number
---@param input cosocket.Buffer
local function acknowledged(self, packet, now, input)
  local window = self.outgoing
  local ticket, err, wrote = window:acknowledged(packet, now)
  if wrote then self.last_sent = now end
  if ticket and self.reports then
    packet.ticket = ticket
    return packet
  end
  if not err and window.plain and not self.reports then
    -- Where there is one there are more.
    wrote, err = window:take_answers(input, now)
    if wrote then self.last_sent = now end
  end
  return nil, err
end

RECEIVE.puback, RECEIVE.pubrec, RECEIVE.pubcomp = acknowledged, acknowledged, acknowledged

--- An answer to a request. It has a reason code for each filter [MQTT-3.8.4-6], when it has any.
---@param self mqtt.Session
---@param packet mqtt.Acks
---@param type "subscribe"|"unsubscribe"
local function answer(self, packet, type)
  local window = self.outgoing
  local ticket = window.live[packet.packet_id]
  if not ticket or ticket.type ~= type then
    local message = ("the server answers packet identifier %d, which no %s has"):format(packet.packet_id, type)
    return receiving.protocol_error("mqtt", message)
  end
  local asked = ticket.packet
  local count = #(asked.subscriptions or asked.filters)
  if #packet.reason_codes ~= count and not (type == "unsubscribe" and self.version == 4) then
    return receiving.protocol_error("mqtt." .. type, "the server does not answer each filter")
  end
  packet.ticket = ticket
  window:settle(ticket, packet)
  return packet
end

for name, type in pairs({ suback = "subscribe", unsuback = "unsubscribe" }) do
  RECEIVE[name] = function(self, packet) return answer(self, packet, type) end
end

function RECEIVE:pingresp()
  self.pong_by, self.patience = nil, nil
  self:schedule()
end

function RECEIVE:auth(packet)
  local method = self.options.authentication_method
  if not method then
    -- [MQTT-4.12.0-6]
    return receiving.protocol_error("mqtt", "the server sends AUTH, which nobody asked for")
  elseif packet.properties and packet.properties.authentication_method ~= method then
    -- [MQTT-4.12.0-5]
    return receiving.protocol_error("mqtt", "the server answers with another authentication method")
  end
  return packet
end

function RECEIVE:disconnect(packet)
  -- Only MQTT 5 lets a server say this, and not before its CONNACK [MQTT-3.14.0-1].
  if self.version ~= 5 then return receiving.protocol_error("mqtt", "the server sends DISCONNECT, which only clients do") end
  self:close()
  return packet
end

receiving.packets = RECEIVE

return receiving
