--- The client's side of MQTT 3.1.1 and 5: bytes and `now` in, events and bytes out. It opens nothing and waits
--- for nothing; `mqtt` joins it to sockets, one after another: what was sent and received and is not acknowledged
--- outlives a connection.
---
--- Events are packets: the `connack`, upon which the owner says `resume`; every `publish` that is to be handed on;
--- each answer (`puback`, `pubrec` that refuses, `pubcomp`, `suback`, `unsuback`) with the `ticket` of what it answers;
--- `auth`; and the server's `disconnect`. A `publish` of QoS 1 or 2 is acknowledged when `acknowledge` is called.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local incoming = require("mqtt.incoming")
local liveness = require("mqtt.session.liveness")
local outgoing = require("mqtt.outgoing")
local reason = require("mqtt.reason")
local receiving = require("mqtt.session.receiving")
local tickets = require("mqtt.ticket")

local decode, encode, encode_publish = codec.decode, codec.encode, codec.encode_publish
local receive = receiving.packets

--- Which commands each state allows.
---@type table<string, table<string, true>>
local COMMANDS = {
  idle = { connect = true },
  connecting = { disconnect = true, authenticate = true },
  connected = { resume = true, subscribe = true, unsubscribe = true, disconnect = true, authenticate = true },
  closed = { connect = true },
}

--- Which packets may come in each state.
---@type table<string, table<string, true>>
local PACKETS = {
  idle = {},
  connecting = { connack = true, auth = true },
  connected = {
    publish = true,
    puback = true,
    pubrec = true,
    pubrel = true,
    pubcomp = true,
    suback = true,
    unsuback = true,
    pingresp = true,
    auth = true,
    disconnect = true,
  },
  closed = {},
}

---@class mqtt.SessionOptions
---@field version? mqtt.codec.Version Default 5.
---@field client_id? string Default: the server assigns one.
---@field username? string
---@field password? string
---@field keep_alive? integer Seconds; 0 turns it off. Default 60.
---@field session_expiry? integer Seconds the server remembers us after the connection; MQTT 5. Default 0.
---@field will? {topic: string, payload?: string, qos?: mqtt.Qos, retain?: boolean, properties?: mqtt.Properties}
---@field receive_maximum? integer QoS 1 and 2 messages that may be unacknowledged on their way to us; MQTT 5.
---@field in_flight_max? integer QoS 1 and 2 messages that may be unacknowledged on their way to the server. Default: what the server says; 20 with 3.1.1.
---@field topic_alias_max? integer Topic aliases the server may use, and at most as many are used by us; MQTT 5. Default 0.
---@field packet_max? integer Largest packet we take.
---@field authentication_method? string Of enhanced authentication; MQTT 5.
---@field authentication_data? string What CONNECT carries of it.
---@field properties? mqtt.Properties More properties of CONNECT.
---@field timeout? number Seconds the CONNACK may take. Default 30.

---@alias mqtt.Event mqtt.Connack|mqtt.Publish|mqtt.Ack|mqtt.Acks|mqtt.Reason

---@class mqtt.Session: net.Session<mqtt.Event>
---@field state "idle"|"connecting"|"connected"|"closed"
---@field version mqtt.codec.Version
---@field client_id string The server's, if it assigned one.
---@field keep_alive integer The server's, if it set one.
---@field connack mqtt.Connack? The server's last answer.
---@field outgoing mqtt.Outgoing What we send and is not answered.
---@field incoming mqtt.Incoming? What we received and did not acknowledge to the end; made when the first comes.
---@field options mqtt.SessionOptions
---@field private packet_max integer? Largest packet we take.
---@field reports boolean Whether answers to messages are events; their tickets know of them without. Default `true`.
---@field private clean boolean What CONNECT asked for.
---@field private last_sent number
---@field private last_heard number When something came last, a packet or part of one.
---@field private partial integer Bytes of a packet that has not come to its end.
---@field private pong_by number? When the answer to a PINGREQ is due.
---@field private patience net.Patience? With an answer whose PINGREQ has not left yet.
---@field private paused boolean
---@field private topics string[]? What the server's topic aliases stand for on this connection.
local Session = {
  deadline = math.huge,
  state = "idle",
  clean = true,
  reports = true,
  last_sent = 0,
  last_heard = 0,
  partial = 0,
  paused = false,
}
Session.__index = Session

for name, method in pairs(liveness) do Session[name] = method end

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

-- Commands --------------------------------------------------------------------

--- Begins a connection: CONNECT is the first packet on it [MQTT-3.1.0-1].
---@param now number
---@param clean_start? boolean Have the server forget what was before. Default `true`.
---@return true? ok
---@return cosocket.Error? err
function Session:connect(now, clean_start)
  clean_start = clean_start ~= false
  local ok, err = self:check("mqtt.connect", "connect")
  if not ok then return nil, err end
  local options, version = self.options, self.version
  local properties
  if version == 5 then
    properties = {}
    for name, value in pairs(options.properties or {}) do properties[name] = value end
    if (options.session_expiry or 0) > 0 then properties.session_expiry_interval = options.session_expiry end
    if (options.topic_alias_max or 0) > 0 then properties.topic_alias_maximum = options.topic_alias_max end
    properties.receive_maximum = options.receive_maximum
    properties.maximum_packet_size = options.packet_max
    properties.authentication_method = options.authentication_method
    properties.authentication_data = options.authentication_data
  end
  local will = options.will
  self.output:clear()
  ok, err = encode(self.output, {
    type = "connect",
    client_id = self.client_id,
    username = options.username,
    password = options.password,
    keep_alive = options.keep_alive or 60,
    clean_start = clean_start,
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
  local received = self.incoming
  if self.outgoing.version ~= version then self.outgoing.version = version end
  if received then received.version = version end
  self.state, self.clean = "connecting", clean_start
  self.pong_by, self.patience, self.topics = nil, nil, nil
  if self.partial > 0 then self.partial = 0 end
  if self.paused then self.paused = false end
  self.last_sent = now
  self.deadline = now + (options.timeout or 30)
  return true
end

--- Sends again what was not acknowledged, and goes on with what waits. To be said once after a `connack`; what is to
--- reach the server before (a SUBSCRIBE that it has forgotten) is said before.
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Session:resume(now)
  local ok, err = self:check("mqtt", "resume")
  if not ok then return nil, err end
  if self.connack.session_present then
    self.outgoing:resume(now)
  else
    self.outgoing:restart(now)
  end
  if #self.output > 0 then self.last_sent = now end
  return true
end

--- Publishes. QoS 0 is sent and forgotten: the answer is `true`. All else is a ticket: it is finished when the server
--- has acknowledged the message. While there is no connection every message waits.
---@param topic string
---@param payload? string
---@param qos? mqtt.Qos
---@param retain? boolean
---@param properties? mqtt.Properties
---@param now number
---@param expiry? number Seconds after which nobody needs it.
---@return true|mqtt.Ticket|nil sent
---@return cosocket.Error? err
function Session:publish(topic, payload, qos, retain, properties, now, expiry)
  local window = self.outgoing
  if (not qos or qos == 0) and window.open then
    local ok, err
    if retain then
      err = window:objection(0, true)
      if err then return nil, err end
    end
    if window.alias_maximum then
      ok, err = window:write(topic, payload, 0, retain, false, nil, properties)
    else
      ok, err = encode_publish(
        self.output, self.version, topic, payload, 0, retain, false, nil, properties, window.packet_max
      )
    end
    if not ok then return nil, err end
    self.last_sent = now
    return true
  end
  if window.plain and qos and qos > 0 and not retain and not properties and not expiry then
    local sent = window:send_plain(topic, payload, qos)
    if sent then
      self.last_sent = now
      return sent
    end
  end
  -- Eight fields, so that the table has room for what most will have.
  local ticket = tickets.new({
    topic = topic,
    payload = payload,
    qos = qos or 0,
    state = nil,
    seq = nil,
    packet_id = nil,
    client = nil,
    answer = nil,
  })
  if retain then ticket.retain = true end
  if properties then ticket.properties = properties end
  if expiry then ticket.expires_at = now + expiry end
  local ok, err = window:publish(ticket, now)
  if not ok then return nil, err end
  if ticket.state == "sent" then self.last_sent = now end
  return ticket
end

--- Sends SUBSCRIBE or UNSUBSCRIBE.
---@param ticket mqtt.Ticket With the packet to send.
---@param now number
---@return mqtt.Ticket? ticket
---@return cosocket.Error? err
function Session:ask(ticket, now)
  local packet, window = ticket.packet, self.outgoing
  local op = "mqtt." .. ticket.type
  local ok, err = self:check(op, ticket.type)
  if not ok then return nil, err end
  packet.packet_id = window:claim(ticket)
  if not packet.packet_id then return nil, cosocket.error("limit", op, "all 65535 packet identifiers are in use") end
  ok, err = encode(self.output, packet, self.version, window.packet_max)
  if not ok then
    window:release(ticket)
    return nil, err
  end
  ticket.seq = window:next_seq()
  self.last_sent = now
  return ticket
end

--- Why the server would not take a subscription, from what it said of itself (3.2.2.3.11 to 3.2.2.3.13).
---@param subscriptions {filter: string}[]
---@param properties? mqtt.Properties
---@return true? ok
---@return cosocket.Error? err
function Session:allows(subscriptions, properties)
  local op = "mqtt.subscribe"
  local can = self.connack and self.connack.properties or {}
  for _, subscription in ipairs(subscriptions) do
    if can.wildcard_subscription_available == false and subscription.filter:find("[+#]") then
      return refused(op, "the server takes no wildcards", reason.wildcard_subscriptions_not_supported)
    elseif can.shared_subscription_available == false and subscription.filter:find("^%$share/") then
      return refused(op, "the server takes no shared subscriptions", reason.shared_subscriptions_not_supported)
    end
  end
  if can.subscription_identifier_available == false and properties and properties.subscription_identifier then
    return refused(op, "the server takes no subscription identifiers", reason.subscription_identifiers_not_supported)
  end
  return true
end

--- Subscribes. The `suback` event will carry the ticket.
---@param subscriptions {filter: string, qos?: mqtt.Qos, no_local?: boolean, retain_as_published?: boolean, retain_handling?: 0|1|2}[]
---@param properties? mqtt.Properties
---@param now number
---@return mqtt.Ticket? ticket
---@return cosocket.Error? err
function Session:subscribe(subscriptions, properties, now)
  local ok, err = self:check("mqtt.subscribe", "subscribe")
  if ok then ok, err = self:allows(subscriptions, properties) end
  if not ok then return nil, err end
  local packet = { type = "subscribe", subscriptions = subscriptions, properties = properties }
  return self:ask(tickets.new({ type = "subscribe", packet = packet }), now)
end

--- Unsubscribes. The `unsuback` event will carry the ticket.
---@param filters string[]
---@param properties? mqtt.Properties
---@param now number
---@return mqtt.Ticket? ticket
---@return cosocket.Error? err
function Session:unsubscribe(filters, properties, now)
  local packet = { type = "unsubscribe", filters = filters, properties = properties }
  return self:ask(tickets.new({ type = "unsubscribe", packet = packet }), now)
end

--- Acknowledges a received message. PUBACK and PUBREC packets leave in the order of the messages [MQTT-4.6.0-2],
--- [MQTT-4.6.0-3], whatever the order of calls. One whose connection is gone will be sent again.
---@param message mqtt.Publish
---@param now number
---@param code? integer Reason code; MQTT 5. From 0x80 on the message is refused. Default 0.
function Session:acknowledge(message, now, code)
  local received = self.incoming
  if message.qos == 0 or not received then return end
  local output = self.output
  local before = #output
  received:acknowledge(message, code)
  if #output > before then self.last_sent = now end
end

--- Goes on with enhanced authentication (4.12), or begins it anew on a connection.
---@param data? string Authentication Data.
---@param now number
---@param again? boolean Re-authenticate (4.12.1).
---@return true? ok
---@return cosocket.Error? err
function Session:authenticate(data, now, again)
  local ok, err = self:check("mqtt.authenticate", "authenticate")
  if not ok then return nil, err end
  local code = again and reason.re_authenticate or reason.continue_authentication
  -- [MQTT-4.12.0-5]
  local properties = { authentication_method = self.options.authentication_method, authentication_data = data }
  ok, err = encode(self.output, { type = "auth", reason_code = code, properties = properties }, 5, self.outgoing.packet_max)
  if not ok then return nil, err end
  self.last_sent = now
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
  self.state, self.deadline, self.outgoing.open = "closed", math.huge, false
end

--- The connection is gone. Answers the SUBSCRIBE and UNSUBSCRIBE tickets that will not be answered, in their order; to
--- `ask` them again is the owner's choice. Messages are kept, for another connection.
---@return mqtt.Ticket[]
function Session:disconnected()
  self:close()
  self.output:clear()
  if self.incoming then self.incoming:disconnected() end
  return self.outgoing:disconnected()
end

--- There will be no other connection. Answers the messages that were not acknowledged, in the order they were given.
---@return mqtt.Ticket[]
function Session:abandon()
  self:close()
  return self.outgoing:abandon()
end

-- Packets ---------------------------------------------------------------------

--- The first message of QoS 1 or 2 is coming.
---@return mqtt.Incoming
function Session:make_incoming()
  local received = incoming.new(self.output)
  received.version = self.version
  -- What comes beyond our own Receive Maximum is taken, though 3.3.4 would have us leave: Mosquitto 2.0.11, which
  -- Debian 12 has, sends more to a slow client, and would do so again on every connection. `receive_queue_max` bounds
  -- the memory whatever a server sends.
  received.receive_maximum = 65535
  self.incoming = received
  return received
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
  local version, packet_max = self.version, self.packet_max
  while self.state ~= "closed" do
    local packet, err = decode(input, version, packet_max)
    if packet then self.last_heard = now end
    -- Most there are; nothing is to be checked or remembered of it.
    if packet and packet.qos == 0 and not packet.properties and self.state == "connected" then return packet end
    if not packet then
      if err then return self:refuse(err) end
      local partial = #input
      if partial ~= self.partial then
        self.partial = partial
        if partial > 0 then self.last_heard = now end
      end
      return nil
    end
    local type = packet.type
    if not PACKETS[self.state][type] then
      _, err = receiving.protocol_error("mqtt", ("the server sends %s while the session is %s"):format(type:upper(), self.state))
      return self:refuse(err)
    end
    local event
    event, err = receive[type](self, packet, now, input)
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
  local version = options.version or 5
  local window = outgoing.new(output)
  if version ~= window.version then window.version = version end
  return setmetatable({
    output = output,
    version = version,
    client_id = options.client_id or "",
    keep_alive = options.keep_alive or 60,
    outgoing = window,
    options = options,
    packet_max = options.packet_max,
  }, Session)
end

return session
