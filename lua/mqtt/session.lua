--- The client's side of MQTT 3.1.1 and 5: bytes and `now` in, events and bytes out. It opens nothing and waits
--- for nothing; `mqtt` joins it to a socket.
---
--- Events are packets: the `connack`, every `publish`, each answer (`puback`, `suback`, `unsuback`) with the
--- `ticket` of what it answers, and the server's `disconnect`. A `publish` of QoS 1 is acknowledged when
--- `acknowledge` is called.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local outgoing = require("mqtt.outgoing")
local reason = require("mqtt.reason")

local decode, encode, encode_ack, encode_publish = codec.decode, codec.encode, codec.encode_ack, codec.encode_publish

--- The share of the Keep Alive after which a PINGREQ is sent: it must leave before the time is over [MQTT-3.1.2-22].
local KEEP_ALIVE_SHARE = 0.9
--- Seconds the answer to a PINGREQ may take at most.
local PING_TIMEOUT_MAX = 30

--- Which commands each state allows.
---@type table<string, table<string, true>>
local COMMANDS = {
  idle = { connect = true },
  connecting = { disconnect = true },
  connected = { publish = true, acknowledge = true, subscribe = true, unsubscribe = true, disconnect = true },
  closed = { connect = true },
}

--- Which packets may come in each state. AUTH and those of QoS 2 are in none: without an authentication method no
--- AUTH may come [MQTT-4.12.0-6], and QoS 2 is never asked for.
---@type table<string, table<string, true>>
local PACKETS = {
  idle = {},
  connecting = { connack = true },
  connected = { publish = true, puback = true, suback = true, unsuback = true, pingresp = true, disconnect = true },
  closed = {},
}

---@class mqtt.SessionOptions
---@field version? mqtt.codec.Version Default 5.
---@field client_id? string Default: the server assigns one.
---@field username? string
---@field password? string
---@field keep_alive? integer Seconds; 0 turns it off. Default 60.
---@field clean_start? boolean Default `true`.
---@field session_expiry? integer Seconds the server remembers us after the connection; MQTT 5. Default 0.
---@field will? {topic: string, payload?: string, qos?: 0|1, retain?: boolean, properties?: mqtt.Properties}
---@field receive_maximum? integer QoS 1 messages that may be unacknowledged on their way to us; MQTT 5.
---@field packet_max? integer Largest packet we take.
---@field properties? mqtt.Properties More properties of CONNECT.
---@field timeout? number Seconds the CONNACK may take. Default 30.

---@alias mqtt.Event mqtt.Connack|mqtt.Publish|mqtt.Ack|mqtt.Acks|mqtt.Reason

---@class mqtt.Session: net.Session<mqtt.Event>
---@field state "idle"|"connecting"|"connected"|"closed"
---@field version mqtt.codec.Version
---@field client_id string The server's, if it assigned one.
---@field keep_alive integer The server's, if it set one.
---@field connack mqtt.Connack? The server's answer.
---@field outgoing mqtt.Outgoing
---@field options mqtt.SessionOptions
---@field maximum_qos mqtt.Qos What the server takes.
---@field retain_available boolean
---@field private last_sent number
---@field private pong_by number? When the answer to a PINGREQ is due.
---@field private paused boolean
---@field private unacknowledged table<integer, boolean> By packet identifier: whether it may be acknowledged.
---@field private received integer[] Their order.
---@field private first integer
---@field private last integer
local Session = {}
Session.__index = Session

---@param op string
---@param message string
---@param code? integer
local function protocol_error(op, message, code)
  return nil, cosocket.error("protocol", op, message, { code = code or reason.protocol_error })
end

---@param op string
---@param message string
---@param code integer
local function refused(op, message, code)
  return nil, cosocket.error("refused", op, message, { code = code })
end

--- Whether the state allows `command`.
---@private
---@param op string
---@param command string
---@return true? ok
---@return cosocket.Error? err
function Session:check(op, command)
  if COMMANDS[self.state][command] then return true end
  return nil, cosocket.error("closed", op, ("the session is %s"):format(self.state))
end

-- Time ------------------------------------------------------------------------

--- Seconds without own packets after which a PINGREQ is due.
---@private
---@return number
function Session:ping_interval()
  return self.keep_alive > 0 and self.keep_alive * KEEP_ALIVE_SHARE or math.huge
end

--- Sets the deadline: the next PINGREQ, or the answer to the last one. Only what we send keeps the connection
--- alive. Sending does not move the deadline, which may be early: `expire` looks again.
---@private
function Session:schedule()
  local due = self.last_sent + self:ping_interval()
  if self.pong_by and not self.paused then due = math.min(due, self.pong_by) end
  self.deadline = due
end

--- The deadline has passed.
---@param now number
---@return true? alive
---@return cosocket.Error? err
function Session:expire(now)
  if now < self.deadline then return true end
  if self.state == "connecting" then
    self:close()
    return nil, cosocket.error("timeout", "mqtt.connect", "the server did not answer CONNECT")
  elseif self.state ~= "connected" then
    self.deadline = math.huge
    return true
  end
  if self.pong_by and not self.paused and now >= self.pong_by then
    self:close()
    return nil, cosocket.error("timeout", "mqtt", "the server did not answer PINGREQ")
  end
  if now >= self.last_sent + self:ping_interval() then
    assert(encode(self.output, { type = "pingreq" }, self.version))
    self.pong_by = now + math.min(PING_TIMEOUT_MAX, math.max(1, self.keep_alive / 2))
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

-- Commands --------------------------------------------------------------------

--- Begins a connection: CONNECT is the first packet on it [MQTT-3.1.0-1].
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Session:connect(now)
  local ok, err = self:check("mqtt.connect", "connect")
  if not ok then return nil, err end
  local options, version = self.options, self.version
  local properties
  if version == 5 then
    properties = {}
    for name, value in pairs(options.properties or {}) do properties[name] = value end
    if options.session_expiry and options.session_expiry > 0 then
      properties.session_expiry_interval = options.session_expiry
    end
    properties.receive_maximum = options.receive_maximum
    properties.maximum_packet_size = options.packet_max
  end
  local will = options.will
  self.output:clear()
  ok, err = encode(self.output, {
    type = "connect",
    client_id = self.client_id,
    username = options.username,
    password = options.password,
    keep_alive = options.keep_alive or 60,
    clean_start = options.clean_start ~= false,
    will = will and {
      topic = will.topic,
      payload = will.payload,
      qos = will.qos,
      retain = will.retain,
      properties = version == 5 and will.properties or nil,
    },
    properties = properties,
  }, version)
  if not ok then return nil, err end
  self.state = "connecting"
  self.pong_by, self.paused = nil, false
  self.unacknowledged, self.received, self.first, self.last = {}, {}, 1, 0
  self.last_sent = now
  self.deadline = now + (options.timeout or 30)
  return true
end

--- Publishes. QoS 0 is sent and forgotten: the answer is `true`. With QoS 1 it is a ticket; the `puback` event
--- will carry it.
---@param topic string
---@param payload? string
---@param qos? 0|1
---@param retain? boolean
---@param properties? mqtt.Properties
---@param now number
---@return true|mqtt.Ticket|nil sent
---@return cosocket.Error? err
function Session:publish(topic, payload, qos, retain, properties, now)
  if self.state ~= "connected" then return self:check("mqtt.publish", "publish") end
  local window = self.outgoing
  if retain and not self.retain_available then
    -- [MQTT-3.2.2-14]
    return refused("mqtt.publish", "the server does not retain messages", reason.retain_not_supported)
  end
  if not qos or qos == 0 then
    local ok, err = encode_publish(
      self.output, self.version, topic, payload, 0, retain, false, nil, properties, window.packet_max
    )
    if not ok then return nil, err end
    self.last_sent = now
    return true
  elseif qos ~= 1 then
    error("qos must be 0 or 1", 2)
  end
  if qos > self.maximum_qos then
    -- [MQTT-3.2.2-11]
    local message = ("the server takes at most QoS %d"):format(self.maximum_qos)
    return refused("mqtt.publish", message, reason.qos_not_supported)
  end
  ---@type mqtt.Ticket
  local ticket =
    { type = "publish", topic = topic, payload = payload, qos = qos, retain = retain, properties = properties }
  local ok, err = window:publish(ticket)
  if not ok then return nil, err end
  if ticket.packet_id then self.last_sent = now end
  return ticket
end

--- Sends SUBSCRIBE or UNSUBSCRIBE.
---@private
---@param op string
---@param packet table
---@param count integer
---@param now number
---@return mqtt.Ticket? ticket
---@return cosocket.Error? err
function Session:ask(op, packet, count, now)
  ---@type mqtt.Ticket
  local ticket = { type = packet.type, count = count }
  packet.packet_id = self.outgoing:claim(ticket)
  if not packet.packet_id then return nil, cosocket.error("limit", op, "all 65535 packet identifiers are in use") end
  local ok, err = encode(self.output, packet, self.version, self.outgoing.packet_max)
  if not ok then
    self.outgoing:release(ticket)
    return nil, err
  end
  self.last_sent = now
  return ticket
end

--- Subscribes. The `suback` event will carry the ticket.
---@param subscriptions {filter: string, qos?: 0|1, no_local?: boolean, retain_as_published?: boolean, retain_handling?: 0|1|2}[]
---@param properties? mqtt.Properties
---@param now number
---@return mqtt.Ticket? ticket
---@return cosocket.Error? err
function Session:subscribe(subscriptions, properties, now)
  local op = "mqtt.subscribe"
  local ok, err = self:check(op, "subscribe")
  if not ok then return nil, err end
  local can = self.connack and self.connack.properties or {}
  for _, subscription in ipairs(subscriptions) do
    -- 3.2.2.3.11 to 3.2.2.3.13
    if can.wildcard_subscription_available == false and subscription.filter:find("[+#]") then
      return refused(op, "the server takes no wildcards", reason.wildcard_subscriptions_not_supported)
    elseif can.shared_subscription_available == false and subscription.filter:find("^%$share/") then
      return refused(op, "the server takes no shared subscriptions", reason.shared_subscriptions_not_supported)
    end
  end
  if can.subscription_identifier_available == false and properties and properties.subscription_identifier then
    return refused(op, "the server takes no subscription identifiers", reason.subscription_identifiers_not_supported)
  end
  local packet = { type = "subscribe", subscriptions = subscriptions, properties = properties }
  return self:ask(op, packet, #subscriptions, now)
end

--- Unsubscribes. The `unsuback` event will carry the ticket.
---@param filters string[]
---@param properties? mqtt.Properties
---@param now number
---@return mqtt.Ticket? ticket
---@return cosocket.Error? err
function Session:unsubscribe(filters, properties, now)
  local ok, err = self:check("mqtt.unsubscribe", "unsubscribe")
  if not ok then return nil, err end
  local packet = { type = "unsubscribe", filters = filters, properties = properties }
  return self:ask("mqtt.unsubscribe", packet, #filters, now)
end

--- Acknowledges a received QoS 1 message. PUBACK packets leave in the order of the messages [MQTT-4.6.0-2],
--- whatever the order of calls.
---@param message mqtt.Publish
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Session:acknowledge(message, now)
  if message.qos == 0 then return true end
  local id = message.packet_id --[[@as integer]]
  -- The connection it came on is gone: the server will send it again.
  if self.state ~= "connected" or self.unacknowledged[id] == nil then
    return self:check("mqtt.acknowledge", "acknowledge")
  end
  self.unacknowledged[id] = true
  while self.first <= self.last do
    id = self.received[self.first]
    if not self.unacknowledged[id] then break end
    assert(encode_ack(self.output, self.version, "puback", id))
    self.unacknowledged[id], self.received[self.first] = nil, nil
    self.first = self.first + 1
    self.last_sent = now
  end
  return true
end

--- Says goodbye, as the last packet [MQTT-3.14.4-1]. The owner sends it and closes the connection.
---@param reason_code? integer Default 0: the server forgets the will. 4: it publishes it. 3.1.1 knows only 0.
---@param properties? mqtt.Properties
---@return true? ok
---@return cosocket.Error? err
function Session:disconnect(reason_code, properties)
  local ok, err = self:check("mqtt.disconnect", "disconnect")
  if not ok then return nil, err end
  local packet = { type = "disconnect" }
  if self.version == 5 then packet.reason_code, packet.properties = reason_code, properties end
  ok, err = encode(self.output, packet, self.version, self.outgoing.packet_max)
  if not ok then return nil, err end
  self:close()
  return true
end

--- Nothing more is sent or received on this connection.
---@private
function Session:close()
  self.state, self.deadline = "closed", math.huge
end

--- The connection is gone. Answers what will not be answered any more, in the order it was sent.
---@return mqtt.Ticket[]
function Session:lost()
  self:close()
  self.output:clear()
  return self.outgoing:abandon()
end

-- Packets ---------------------------------------------------------------------

---@type table<string, fun(self: mqtt.Session, packet: any, now: number): mqtt.Event?, cosocket.Error?>
local RECEIVE = {}

function RECEIVE:connack(packet, now)
  self.connack = packet
  if packet.reason_code ~= 0 then
    self:close()
    return packet
  end
  local options, properties = self.options, packet.properties or {}
  if packet.session_present and options.clean_start ~= false then
    -- [MQTT-3.2.2-2] (3.1.1: [MQTT-3.2.2-1])
    return protocol_error("mqtt.connect", "the server resumes a session that was to start clean")
  end
  self.state = "connected"
  self.client_id = properties.assigned_client_identifier or self.client_id
  -- [MQTT-3.2.2-21]
  self.keep_alive = properties.server_keep_alive or options.keep_alive or 60
  self.maximum_qos = properties.maximum_qos or 2
  self.retain_available = properties.retain_available ~= false
  local window = self.outgoing
  window.receive_maximum = properties.receive_maximum or 65535
  -- [MQTT-3.2.2-15]
  window.packet_max = properties.maximum_packet_size
  self.last_sent = now
  self:schedule()
  return packet
end

function RECEIVE:publish(packet)
  local properties = packet.properties
  if properties and properties.topic_alias then
    -- [MQTT-3.1.2-30]: we allow none.
    return protocol_error("mqtt", "the server uses a topic alias, and we take none", reason.topic_alias_invalid)
  end
  if packet.qos == 0 then return packet end
  if packet.qos == 2 then return protocol_error("mqtt", "the server sends QoS 2, which was not asked for") end
  local id = packet.packet_id
  if self.unacknowledged[id] ~= nil then
    -- [MQTT-2.2.1-4]
    return protocol_error("mqtt", ("the server uses packet identifier %d again before its PUBACK"):format(id))
  end
  -- [MQTT-3.3.4-9]
  if self.version == 5 and self.last - self.first + 1 >= (self.options.receive_maximum or 65535) then
    return protocol_error("mqtt", "the server sends more than Receive Maximum allows", reason.receive_maximum_exceeded)
  end
  if self.first > self.last then self.first, self.last = 1, 0 end
  self.last = self.last + 1
  self.received[self.last] = id
  self.unacknowledged[id] = false
  return packet
end

--- An answer to something we sent. It has a reason code for each filter [MQTT-3.8.4-6], when it has any.
---@param self mqtt.Session
---@param packet mqtt.Ack|mqtt.Acks
---@param type "publish"|"subscribe"|"unsubscribe"
---@param now number
local function answer(self, packet, type, now)
  local window, output = self.outgoing, self.output
  local ticket = window.live[packet.packet_id]
  if not ticket or ticket.type ~= type then
    local message = ("the server answers packet identifier %d, which no %s has"):format(packet.packet_id, type)
    return protocol_error("mqtt", message)
  end
  local codes = packet.reason_codes
  if codes and #codes ~= ticket.count and not (type == "unsubscribe" and self.version == 4) then
    return protocol_error("mqtt." .. type, "the server does not answer each filter")
  end
  local before = #output
  window:settle(ticket)
  if #output > before then self.last_sent = now end
  ticket.answer, packet.ticket = packet, ticket
  return packet
end

for name, type in pairs({ puback = "publish", suback = "subscribe", unsuback = "unsubscribe" }) do
  RECEIVE[name] = function(self, packet, now) return answer(self, packet, type, now) end
end

function RECEIVE:pingresp()
  self.pong_by = nil
  self:schedule()
end

function RECEIVE:disconnect(packet)
  -- Only MQTT 5 lets a server say this, and not before its CONNACK [MQTT-3.14.0-1].
  if self.version ~= 5 then return protocol_error("mqtt", "the server sends DISCONNECT, which only clients do") end
  self:close()
  return packet
end

--- Refuses what the server sent: says why, where the version can, and ends.
---@private
---@param err cosocket.Error
---@return nil
---@return cosocket.Error err
function Session:refuse(err)
  if self.version == 5 and self.state == "connected" then
    encode(self.output, { type = "disconnect", reason_code = err.code }, 5, self.outgoing.packet_max)
  end
  self:close()
  return nil, err
end

--- Takes packets off the front of `input` until one is an event.
---@param input cosocket.Buffer
---@param now number
---@return mqtt.Event? event
---@return cosocket.Error? err
function Session:receive(input, now)
  local version, packet_max = self.version, self.options.packet_max
  while self.state ~= "closed" do
    local packet, err = decode(input, version, packet_max)
    if not packet then
      if err then return self:refuse(err) end
      return nil
    end
    local type = packet.type
    if not PACKETS[self.state][type] then
      _, err = protocol_error("mqtt", ("the server sends %s while the session is %s"):format(type:upper(), self.state))
      return self:refuse(err)
    end
    local event
    event, err = RECEIVE[type](self, packet, now)
    if event then return event end
    if err then return self:refuse(err) end
  end
  return nil, cosocket.error("closed", "mqtt", "the session is over")
end

local session = {}

--- A session that has no connection yet.
---@param options? mqtt.SessionOptions
---@return mqtt.Session
function session.new(options)
  options = options or {}
  local output = cosocket.buffer()
  local window = outgoing.new(output)
  local version = options.version or 5
  window.version = version
  return setmetatable({
    output = output,
    deadline = math.huge,
    state = "idle",
    version = version,
    client_id = options.client_id or "",
    keep_alive = options.keep_alive or 60,
    outgoing = window,
    options = options,
    last_sent = 0,
    paused = false,
    unacknowledged = {},
    received = {},
    first = 1,
    last = 0,
    maximum_qos = 2,
    retain_available = true,
  }, Session)
end

return session
