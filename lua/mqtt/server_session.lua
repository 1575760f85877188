--- The server's side of one MQTT connection, for the development broker: bytes and `now` in, events and bytes out.
---
--- Events are the client's packets:
---
--- | event | answered with |
--- |---|---|
--- | `connect` | `accept`, `refuse`, or `ask` when the client wants enhanced authentication |
--- | `auth` | `ask`, `accept`, `refuse`; `authenticated` when the client was connected before |
--- | `publish` | `acknowledge` |
--- | `subscribe`, `unsubscribe` | `suback`, `unsuback` |
--- | `disconnect` | |
---
--- What outlives the connection (`outgoing`, `incoming`) is the owner's, and is handed over with `accept`.

local alias = require("mqtt.alias")
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local incoming = require("mqtt.incoming")
local outgoing = require("mqtt.outgoing")
local reason = require("mqtt.reason")

local decode, encode = codec.decode, codec.encode

--- A silent client is given up after this many times its Keep Alive [MQTT-3.1.2-24].
local KEEP_ALIVE_FACTOR = 1.5
--- Largest packet that is taken.
local PACKET_MAX = 1048576
--- QoS 1 and 2 messages a client may have unacknowledged.
local RECEIVE_MAXIMUM = 1000
--- Topic aliases that are used on the way to one client, of those it takes.
local ALIASES_MAX = 64
--- Seconds until a client must be accepted.
local TIMEOUT = 10

--- What 3.1.1 calls a refusal (3.1.1, 3.2.2.3); all others are "not authorized".
local CONNECT_RETURN = { [0x84] = 1, [0x85] = 2, [0x88] = 3, [0x89] = 3, [0x97] = 3, [0x86] = 4, [0x87] = 5 }

--- Which packets may come in each state; CONNECT once, and first [MQTT-3.1.0-1], [MQTT-3.1.0-2].
---@type table<string, table<string, true>>
local PACKETS = {
  waiting = { connect = true },
  -- Between CONNECT and the owner's answer nothing is looked at (3.1.4).
  connecting = {},
  -- [MQTT-3.1.0-1], 4.12
  authenticating = { auth = true, disconnect = true },
  connected = {
    publish = true,
    puback = true,
    pubrec = true,
    pubrel = true,
    pubcomp = true,
    subscribe = true,
    unsubscribe = true,
    pingreq = true,
    disconnect = true,
    auth = true,
  },
  closed = {},
}

--- What a server takes, and says in CONNACK that it takes.
---@class mqtt.ServerLimits
---@field timeout? number Seconds until a client must be accepted. Default 10.
---@field packet_max? integer Largest packet in bytes that is taken. Default 1048576.
---@field receive_maximum? integer QoS 1 and 2 messages a client may have unacknowledged. Default 1000.
---@field in_flight_max? integer QoS 1 and 2 messages that are sent to a client before the first is acknowledged; fewer when it says so. Default 65535.
---@field maximum_qos? mqtt.Qos Default 2.
---@field retain_available? boolean Default `true`.
---@field wildcard_subscription_available? boolean Default `true`.
---@field shared_subscription_available? boolean Default `true`.
---@field subscription_identifier_available? boolean Default `true`.
---@field topic_alias_maximum? integer Topic aliases a client may use. Default 0.

--- What of a session outlives its connections.
---@class mqtt.ServerSessionState
---@field outgoing mqtt.Outgoing
---@field incoming mqtt.Incoming
---@field present boolean The client goes on with it.

---@class mqtt.ServerSession: net.Session<mqtt.Packet>
---@field state "waiting"|"connecting"|"authenticating"|"connected"|"closed"
---@field version mqtt.codec.Version? Known from CONNECT on.
---@field connect mqtt.Connect?
---@field client_id string
---@field outgoing mqtt.Outgoing
---@field incoming mqtt.Incoming
---@field private limits mqtt.ServerLimits
---@field private keep_alive number
---@field private last_received number
---@field private now number When something came last, or the owner was told something.
---@field private packet_max integer? What the client takes at most.
---@field private topics string[] Topic aliases of the client.
---@field private method string? Of enhanced authentication.
---@field private asked boolean AUTH was sent, and is not answered.
---@field private reauthenticating boolean
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

--- The connection is gone. What outlives it is the owner's.
function Session:lost()
  self:close()
  self.output:clear()
end

--- The deadline has passed: the client was not accepted, or was silent for too long.
---@param now number
---@return true? alive
---@return cosocket.Error? err
function Session:expire(now)
  if now < self.deadline then return true end
  if self.state ~= "connected" then
    local message = self.state == "waiting" and "no CONNECT" or "the client was not accepted in time"
    self:close()
    return nil, cosocket.error("timeout", "mqtt.broker", message)
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

--- Why a CONNECT cannot be accepted by this server, if so.
---@return integer? reason_code
function Session:objection()
  local will, limits = self.connect.will, self.limits
  -- 3.1.1: [MQTT-3.1.3-8]
  if self.connect.client_id == "" and not self.connect.clean_start and self.version == 4 then
    return reason.client_identifier_not_valid
  end
  -- [MQTT-3.2.2-12], [MQTT-3.2.2-13]
  if will and will.qos > limits.maximum_qos then return reason.qos_not_supported end
  if will and will.retain and not limits.retain_available then return reason.retain_not_supported end
end

--- The limits as properties of CONNACK; what the standard takes for granted is not said.
---@private
---@return mqtt.Properties
function Session:announced()
  local limits = self.limits
  local function unless_available(name)
    if not limits[name] then return false end
  end
  return {
    -- [MQTT-3.2.2-9]
    maximum_qos = limits.maximum_qos < 2 and limits.maximum_qos or nil,
    receive_maximum = limits.receive_maximum,
    maximum_packet_size = limits.packet_max,
    topic_alias_maximum = limits.topic_alias_maximum > 0 and limits.topic_alias_maximum or nil,
    retain_available = unless_available("retain_available"),
    wildcard_subscription_available = unless_available("wildcard_subscription_available"),
    shared_subscription_available = unless_available("shared_subscription_available"),
    subscription_identifier_available = unless_available("subscription_identifier_available"),
    authentication_method = self.method,
  }
end

--- Takes over what the session remembers, and sends again what the client has not acknowledged.
---@private
---@param state mqtt.ServerSessionState
---@param now number
function Session:adopt(state, now)
  local properties = self.connect.properties or {}
  local window, receiver = state.outgoing, state.incoming
  window.output, receiver.output = self.output, self.output
  window.version, receiver.version = self.version, self.version
  window.receive_maximum = math.min(properties.receive_maximum or 65535, self.limits.in_flight_max)
  window.packet_max = properties.maximum_packet_size
  local aliases = properties.topic_alias_maximum or 0
  -- [MQTT-3.1.2-26], [MQTT-3.1.2-27]
  window.aliases = aliases > 0 and alias.sender(math.min(aliases, ALIASES_MAX)) or nil
  receiver.receive_maximum = self.limits.receive_maximum
  self.outgoing, self.incoming = window, receiver
  if state.present then
    -- [MQTT-4.4.0-1]
    window:resume(now)
  else
    receiver:restart()
    window:restart(now)
  end
end

--- Accepts the client: CONNACK with what this server can.
---@param properties mqtt.Properties? More of them, for MQTT 5.
---@param now number
---@param state? mqtt.ServerSessionState Default: nothing is remembered.
---@return true? ok
---@return cosocket.Error? err
function Session:accept(properties, now, state)
  assert(self.state == "connecting" or self.state == "authenticating", "there is no CONNECT to accept")
  local connack = { type = "connack", reason_code = 0, session_present = state ~= nil and state.present }
  local keep_alive = self.connect.keep_alive
  if self.version == 5 then
    connack.properties = self:announced()
    for name, value in pairs(properties or {}) do connack.properties[name] = value end
    -- [MQTT-3.2.2-22]
    keep_alive = connack.properties.server_keep_alive or keep_alive
  end
  local ok, err = encode(self.output, connack, self.version)
  if not ok then return nil, err end
  self.state = "connected"
  self.keep_alive = keep_alive > 0 and keep_alive * KEEP_ALIVE_FACTOR or math.huge
  self.last_received, self.now = now, now
  self.deadline = now + self.keep_alive
  self:adopt(state or { outgoing = self.outgoing, incoming = self.incoming, present = false }, now)
  return true
end

--- Refuses the client; the owner closes the connection [MQTT-3.2.2-7].
---@param code integer A reason code of MQTT 5; 3.1.1 gets the nearest it knows.
---@param properties? mqtt.Properties
---@return true? ok
---@return cosocket.Error? err
function Session:refuse(code, properties)
  local connack = { type = "connack", session_present = false, reason_code = code }
  if self.version == 5 then
    connack.properties = properties
  else
    connack.reason_code = CONNECT_RETURN[code] or 5
  end
  -- A client whose version nobody knows understands the shortest CONNACK there is.
  local ok, err = encode(self.output, connack, self.version or 4)
  self:close()
  return ok, err
end

--- Goes on with enhanced authentication: AUTH, which the client answers with AUTH [MQTT-4.12.0-2].
---@param data string?
---@return true? ok
---@return cosocket.Error? err
function Session:ask(data)
  if self.state == "connecting" then self.state = "authenticating" end
  self.asked = true
  return encode(self.output, {
    type = "auth",
    reason_code = reason.continue_authentication,
    properties = { authentication_method = self.method, authentication_data = data },
  }, 5, self.packet_max)
end

--- A client that was connected has authenticated itself again (4.12.1).
---@param data string?
---@return true? ok
---@return cosocket.Error? err
function Session:authenticated(data)
  self.reauthenticating, self.asked = false, false
  return encode(self.output, {
    type = "auth",
    reason_code = 0,
    properties = { authentication_method = self.method, authentication_data = data },
  }, 5, self.packet_max)
end

--- Answers a message, in the order in which they came.
---@param packet mqtt.Publish
---@param code? integer Reason code; from 0x80 on the message is refused. Default 0.
function Session:acknowledge(packet, code)
  if packet.qos > 0 then self.incoming:acknowledge(packet, code) end
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
---@param properties? mqtt.Properties
---@return true? ok
---@return cosocket.Error? err
function Session:disconnect(code, properties)
  local ok, err = true, nil
  if self.version == 5 and self.state == "connected" then
    local packet = { type = "disconnect", reason_code = code, properties = properties }
    ok, err = encode(self.output, packet, 5, self.packet_max)
  end
  self:close()
  return ok, err
end

-- Packets ---------------------------------------------------------------------

---@type table<string, fun(self: mqtt.ServerSession, packet: any): mqtt.Packet?, cosocket.Error?>
local RECEIVE = {}

function RECEIVE:connect(packet)
  self.state, self.connect = "connecting", packet
  self.version, self.client_id = packet.protocol_version, packet.client_id
  local properties = packet.properties or {}
  self.packet_max = properties.maximum_packet_size
  self.method = properties.authentication_method
  return packet
end

function RECEIVE:auth(packet)
  local properties, code = packet.properties or {}, packet.reason_code
  if not self.method then
    -- [MQTT-4.12.0-6]
    return protocol_error("AUTH from a client that named no authentication method")
  elseif properties.authentication_method ~= self.method then
    -- [MQTT-4.12.0-5], [MQTT-4.12.1-1]
    return protocol_error("AUTH with another authentication method", reason.bad_authentication_method)
  elseif code == reason.continue_authentication and self.asked then
    self.asked = false
    return packet
  elseif code == reason.re_authenticate and self.state == "connected" and not self.reauthenticating then
    self.reauthenticating = true
    return packet
  end
  return protocol_error(("AUTH with reason code 0x%02X, which may not come now"):format(code))
end

function RECEIVE:publish(packet)
  local properties, limits = packet.properties, self.limits
  if properties and properties.subscription_identifier then
    -- [MQTT-3.3.4-6]
    return protocol_error("a subscription identifier in a PUBLISH to the server")
  end
  if properties and properties.topic_alias then
    local ok, err = alias.resolve(self.topics, packet, limits.topic_alias_maximum)
    if not ok then return nil, err end
  end
  if packet.qos > limits.maximum_qos then
    -- [MQTT-3.2.2-11]
    local message = ("QoS %d, and at most %d is taken"):format(packet.qos, limits.maximum_qos)
    return protocol_error(message, reason.qos_not_supported)
  end
  if packet.retain and not limits.retain_available then
    -- [MQTT-3.2.2-14]
    return protocol_error("a message to retain, and none is retained", reason.retain_not_supported)
  end
  if packet.qos == 0 then return packet end
  local what, err = self.incoming:receive(packet)
  if err then return nil, err end
  -- One that is known is not handed on again [MQTT-4.3.3-10].
  if what == "new" then return packet end
end

--- An acknowledgement of something we sent.
---@param self mqtt.ServerSession
---@param packet mqtt.Ack
local function acknowledged(self, packet)
  local _, err = self.outgoing:acknowledged(packet, self.now)
  return nil, err
end

RECEIVE.puback, RECEIVE.pubrec, RECEIVE.pubcomp = acknowledged, acknowledged, acknowledged

function RECEIVE:pubrel(packet)
  self.incoming:release(packet)
end

function RECEIVE:subscribe(packet)
  local limits = self.limits
  if self.version ~= 5 then return packet end
  -- 3.2.2.3.11 to 3.2.2.3.13
  if not limits.subscription_identifier_available and packet.properties
    and packet.properties.subscription_identifier
  then
    return protocol_error("a subscription identifier, and none is taken", reason.subscription_identifiers_not_supported)
  end
  for _, subscription in ipairs(packet.subscriptions) do
    local shared = subscription.filter:find("^%$share/") ~= nil
    if shared and not limits.shared_subscription_available then
      return protocol_error("a shared subscription, and none is taken", reason.shared_subscriptions_not_supported)
    elseif not limits.wildcard_subscription_available and subscription.filter:find("[+#]") then
      return protocol_error("a wildcard, and none is taken", reason.wildcard_subscriptions_not_supported)
    end
  end
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
  local given = self.connect.properties and self.connect.properties.session_expiry_interval or 0
  local wanted = packet.properties and packet.properties.session_expiry_interval
  if wanted and wanted > 0 and given == 0 then
    -- [MQTT-3.14.2-2]
    return protocol_error("a Session Expiry Interval in DISCONNECT, where CONNECT had none")
  end
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
  elseif self.state == "authenticating" then
    -- [MQTT-4.12.0-1]
    self:refuse(err.code --[[@as integer]])
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
  self.now = now
  while next(PACKETS[self.state]) do
    local packet, err = decode(input, self.version, self.limits.packet_max)
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
---@param limits? mqtt.ServerLimits
---@param now number
---@return mqtt.ServerSession
function server_session.new(limits, now)
  limits = limits or {}
  local output = cosocket.buffer()
  return setmetatable({
    output = output,
    deadline = now + (limits.timeout or TIMEOUT),
    state = "waiting",
    client_id = "",
    keep_alive = math.huge,
    last_received = now,
    now = now,
    topics = {},
    asked = false,
    reauthenticating = false,
    outgoing = outgoing.new(output),
    incoming = incoming.new(output),
    limits = {
      packet_max = limits.packet_max or PACKET_MAX,
      receive_maximum = limits.receive_maximum or RECEIVE_MAXIMUM,
      in_flight_max = limits.in_flight_max or 65535,
      maximum_qos = limits.maximum_qos or 2,
      topic_alias_maximum = limits.topic_alias_maximum or 0,
      retain_available = limits.retain_available ~= false,
      wildcard_subscription_available = limits.wildcard_subscription_available ~= false,
      shared_subscription_available = limits.shared_subscription_available ~= false,
      subscription_identifier_available = limits.subscription_identifier_available ~= false,
    },
  }, Session)
end

return server_session
