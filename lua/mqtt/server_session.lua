--- The server's side of one MQTT connection, for the development broker: bytes and `now` in, events and bytes out.
---
--- Events are the client's packets: `connect`, which the owner answers with `accept` or `refuse`; `publish`,
--- answered with `puback`; `subscribe` and `unsubscribe`, answered with `suback` and `unsuback`; `disconnect`.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local outgoing = require("mqtt.outgoing")
local reason = require("mqtt.reason")
local tickets = require("mqtt.ticket")

local decode, encode, encode_ack, encode_publish = codec.decode, codec.encode, codec.encode_ack, codec.encode_publish

--- A silent client is given up after this many times its Keep Alive [MQTT-3.1.2-24].
local KEEP_ALIVE_FACTOR = 1.5

--- What 3.1.1 calls a refusal (3.1.1, 3.2.2.3); all others are "not authorized".
local CONNECT_RETURN = { [0x84] = 1, [0x85] = 2, [0x88] = 3, [0x89] = 3, [0x97] = 3, [0x86] = 4, [0x87] = 5 }

--- Which packets may come in each state; CONNECT once, and first [MQTT-3.1.0-1], [MQTT-3.1.0-2].
---@type table<string, table<string, true>>
local PACKETS = {
  waiting = { connect = true },
  -- Between CONNECT and the owner's answer nothing is looked at (3.1.4).
  connecting = {},
  connected = {
    publish = true,
    puback = true,
    subscribe = true,
    unsubscribe = true,
    pingreq = true,
    disconnect = true,
  },
  closed = {},
}

---@class mqtt.ServerSessionOptions
---@field timeout? number Seconds CONNECT may take. Default 10.
---@field packet_max? integer Largest packet taken. Default 1 MiB.
---@field receive_maximum? integer QoS 1 messages a client may have unacknowledged. Default 1000.

---@class mqtt.ServerSession: net.Session<mqtt.Packet>
---@field state "waiting"|"connecting"|"connected"|"closed"
---@field version mqtt.codec.Version? Known from CONNECT on.
---@field connect mqtt.Connect?
---@field client_id string
---@field outgoing mqtt.Outgoing
---@field private options mqtt.ServerSessionOptions
---@field private keep_alive number
---@field private last_received number
---@field private unacknowledged integer
local Session = {}
Session.__index = Session

---@param message string
---@param code? integer
local function protocol_error(message, code)
  return nil, cosocket.error("protocol", "mqtt.broker", message, { code = code or reason.protocol_error })
end

---@private
function Session:close()
  self.state, self.deadline = "closed", math.huge
end

--- The connection is gone. Answers what was not acknowledged, in the order it was sent.
---@return mqtt.Ticket[]
function Session:lost()
  self:close()
  self.output:clear()
  return self.outgoing:abandon()
end

--- The deadline has passed: CONNECT did not come, or the client was silent for too long.
---@param now number
---@return true? alive
---@return cosocket.Error? err
function Session:expire(now)
  if now < self.deadline then return true end
  if self.state == "waiting" or self.state == "connecting" then
    self:close()
    return nil, cosocket.error("timeout", "mqtt.broker", "no CONNECT")
  end
  local due = self.last_received + self.keep_alive
  if now < due then
    self.deadline = due
    return true
  end
  self:disconnect(reason.keep_alive_timeout)
  local message = "silent for longer than its Keep Alive"
  return nil, cosocket.error("timeout", "mqtt.broker", message, { code = reason.keep_alive_timeout })
end

-- Commands --------------------------------------------------------------------

--- Accepts the client: CONNACK with what this server can.
---@param properties mqtt.Properties? More of them, for MQTT 5.
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Session:accept(properties, now)
  assert(self.state == "connecting", "there is no CONNECT to accept")
  local connack = { type = "connack", reason_code = 0, session_present = false }
  local keep_alive = self.connect.keep_alive
  if self.version == 5 then
    connack.properties = {
      -- [MQTT-3.2.2-9]
      maximum_qos = 1,
      receive_maximum = self.options.receive_maximum,
      maximum_packet_size = self.options.packet_max,
      shared_subscription_available = false,
    }
    -- The server remembers nobody, and says so to those who asked for it (3.2.2.3.2).
    local expiry = self.connect.properties and self.connect.properties.session_expiry_interval
    if expiry and expiry > 0 then connack.properties.session_expiry_interval = 0 end
    for name, value in pairs(properties or {}) do connack.properties[name] = value end
    -- [MQTT-3.2.2-22]
    keep_alive = connack.properties.server_keep_alive or keep_alive
  end
  local ok, err = encode(self.output, connack, self.version)
  if not ok then return nil, err end
  self.state, self.outgoing.open = "connected", true
  self.keep_alive = keep_alive > 0 and keep_alive * KEEP_ALIVE_FACTOR or math.huge
  self.last_received = now
  self.deadline = now + self.keep_alive
  return true
end

--- Refuses the client; the owner closes the connection [MQTT-3.2.2-7].
---@param code integer A reason code of MQTT 5; 3.1.1 gets the nearest it knows.
---@return true? ok
---@return cosocket.Error? err
function Session:refuse(code)
  local connack = { type = "connack", session_present = false, reason_code = code }
  if self.version ~= 5 then connack.reason_code = CONNECT_RETURN[code] or 5 end
  -- A client whose version nobody knows understands the shortest CONNACK there is.
  local ok, err = encode(self.output, connack, self.version or 4)
  self:close()
  return ok, err
end

--- Sends a message at `qos`. One that is larger than the client takes counts as sent [MQTT-3.1.2-28].
---@param message {topic: string, payload: string}
---@param qos 0|1
---@param retain boolean
---@param properties? mqtt.Properties
---@return true? ok
---@return cosocket.Error? err
function Session:publish(message, qos, retain, properties)
  if self.state ~= "connected" then
    return nil, cosocket.error("closed", "mqtt.broker", ("the session is %s"):format(self.state))
  end
  if self.version ~= 5 then properties = nil end
  local window, ok, err = self.outgoing, nil, nil
  if qos == 0 then
    ok, err = encode_publish(
      self.output, self.version, message.topic, message.payload, 0, retain, false, nil, properties, window.packet_max
    )
  else
    ok, err = window:publish(tickets.new({
      type = "publish",
      topic = message.topic,
      payload = message.payload,
      qos = qos,
      retain = retain,
      properties = properties,
    }), self.last_received)
  end
  if not ok and err.kind == "limit" then return true end
  return ok, err
end

---@param packet mqtt.Publish
---@param code integer
---@return true? ok
---@return cosocket.Error? err
function Session:puback(packet, code)
  if packet.qos == 0 then return true end
  self.unacknowledged = self.unacknowledged - 1
  return encode_ack(self.output, self.version, "puback", packet.packet_id, self.version == 5 and code or 0)
end

---@param packet mqtt.Subscribe
---@param codes integer[]
---@return true? ok
---@return cosocket.Error? err
function Session:suback(packet, codes)
  if self.version ~= 5 then
    -- 3.1.1 knows one failure [MQTT-3.9.3-2].
    for i, code in ipairs(codes) do codes[i] = math.min(code, 0x80) end
  end
  return encode(self.output, { type = "suback", packet_id = packet.packet_id, reason_codes = codes }, self.version)
end

---@param packet mqtt.Unsubscribe
---@param codes integer[]
---@return true? ok
---@return cosocket.Error? err
function Session:unsuback(packet, codes)
  local unsuback = { type = "unsuback", packet_id = packet.packet_id }
  if self.version == 5 then unsuback.reason_codes = codes end
  return encode(self.output, unsuback, self.version)
end

--- Ends the connection with a reason, which only MQTT 5 can say.
---@param code integer
function Session:disconnect(code)
  if self.version == 5 and self.state == "connected" then
    encode(self.output, { type = "disconnect", reason_code = code }, 5, self.outgoing.packet_max)
  end
  self:close()
end

-- Packets ---------------------------------------------------------------------

---@type table<string, fun(self: mqtt.ServerSession, packet: any): mqtt.Packet?, cosocket.Error?>
local RECEIVE = {}

function RECEIVE:connect(packet)
  self.state, self.connect = "connecting", packet
  self.version, self.client_id = packet.protocol_version, packet.client_id
  local properties, window = packet.properties or {}, self.outgoing
  window.version = self.version
  window.receive_maximum = properties.receive_maximum or 65535
  window.packet_max = properties.maximum_packet_size
  return packet
end

function RECEIVE:publish(packet)
  local properties = packet.properties
  if properties and properties.topic_alias then
    -- [MQTT-3.2.2-18]: this server allows none.
    return protocol_error("a topic alias, and none is taken", reason.topic_alias_invalid)
  end
  if properties and properties.subscription_identifier then
    -- [MQTT-3.3.4-6]
    return protocol_error("a subscription identifier in a PUBLISH to the server")
  end
  if packet.qos == 2 then return protocol_error("QoS 2, and at most 1 is taken", reason.qos_not_supported) end
  if packet.qos == 1 then
    -- [MQTT-3.3.4-7]
    if self.unacknowledged >= self.options.receive_maximum then
      return protocol_error("more than Receive Maximum allows", reason.receive_maximum_exceeded)
    end
    self.unacknowledged = self.unacknowledged + 1
  end
  return packet
end

function RECEIVE:puback(packet)
  local ticket, err = self.outgoing:acknowledged(packet, self.last_received)
  if not ticket then return nil, err end
end

function RECEIVE:subscribe(packet)
  return packet
end

function RECEIVE:unsubscribe(packet)
  return packet
end

function RECEIVE:pingreq()
  -- [MQTT-3.12.4-1]
  assert(encode(self.output, { type = "pingresp" }, self.version))
end

function RECEIVE:disconnect(packet)
  self:close()
  return packet
end

--- Refuses what the client sent: says why, where the version can, and ends.
---@private
---@param err cosocket.Error
---@return nil
---@return cosocket.Error err
function Session:reject(err)
  if self.state == "waiting" and err.code == reason.unsupported_protocol_version then
    -- [MQTT-3.1.2-2]
    self:refuse(err.code)
  else
    self:disconnect(err.code --[[@as integer]])
  end
  return nil, err
end

--- Takes packets off the front of `input` until one is an event.
---@param input cosocket.Buffer
---@param now number
---@return mqtt.Packet? event
---@return cosocket.Error? err
function Session:receive(input, now)
  while self.state == "waiting" or self.state == "connected" do
    local packet, err = decode(input, self.version, self.options.packet_max)
    if not packet then
      if err then return self:reject(err) end
      return nil
    end
    self.last_received = now
    if not PACKETS[self.state][packet.type] then
      _, err = protocol_error(("%s, which may not come now"):format(packet.type:upper()))
      return self:reject(err)
    end
    local event
    event, err = RECEIVE[packet.type](self, packet)
    if event then return event end
    if err then return self:reject(err) end
  end
  if self.state == "connecting" then return nil end
  return nil, cosocket.error("closed", "mqtt.broker", "the session is over")
end

local server_session = {}

--- A session that waits for CONNECT.
---@param options? mqtt.ServerSessionOptions
---@param now number
---@return mqtt.ServerSession
function server_session.new(options, now)
  options = options or {}
  local output = cosocket.buffer()
  return setmetatable({
    output = output,
    deadline = now + (options.timeout or 10),
    state = "waiting",
    client_id = "",
    keep_alive = math.huge,
    last_received = now,
    unacknowledged = 0,
    outgoing = outgoing.new(output),
    options = {
      packet_max = options.packet_max or 1048576,
      receive_maximum = options.receive_maximum or 1000,
    },
  }, Session)
end

return server_session
