--- A small MQTT broker in the same process, for development and tests. NOT for production: it keeps everything in
--- memory, remembers no session, knows no permissions beyond `authenticate`, and looks at every subscription.
---
---     local broker = assert(require("mqtt.broker").listen("tcp://127.0.0.1:0"))
---     local client = assert(require("mqtt").connect("mqtt://" .. broker:address()))
---
--- MQTT 3.1.1 and 5, QoS 0 and 1, retained messages, wildcards, wills, keep alive, TLS.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local drive = require("net.drive")
local log = require("log").new("mqtt.broker")
local reason = require("mqtt.reason")
local server_session = require("mqtt.server_session")

local now = cosocket.now

--- Bytes that may wait for one client; more QoS 0 messages are dropped.
local QUEUE_MAX = 1048576
--- QoS 1 messages that may wait for one client; then it is too slow and is disconnected.
local WAITING_MAX = 10000
--- Topics whose messages are retained.
local RETAINED_MAX = 100000
--- Subscriptions of one client.
local SUBSCRIPTIONS_MAX = 10000
--- Clients at a time.
local CLIENTS_MAX = 10000
--- Seconds a parting word may take to leave.
local GOODBYE = 2

---@class mqtt.BrokerOptions
---@field tls? cosocket.TlsServerOptions For an address that begins with `tls://`.
---@field authenticate? fun(client_id: string, username: string?, password: string?): boolean? Called for each client, in its own task.
---@field packet_max? integer Largest packet in bytes that is taken. Default 1048576.
---@field receive_maximum? integer QoS 1 messages a client may have unacknowledged. Default 1000.
---@field queue_max? integer Bytes that may wait for one client; more QoS 0 messages are dropped. Default 1048576.
---@field server_keep_alive? integer Seconds; clients of MQTT 5 are told to use it.

local OPTIONS = {
  tls = "table",
  authenticate = "function",
  packet_max = "integer",
  receive_maximum = "integer",
  queue_max = "integer",
  server_keep_alive = "integer",
}

--- One client that is connected.
---@class mqtt.broker.Peer
---@field stream cosocket.Stream
---@field session mqtt.ServerSession
---@field subscriptions table<string, mqtt.broker.Subscription>
---@field subscription_count integer
---@field will mqtt.Will?
---@field dropped integer
---@field verdict integer? The reason code this client is to be disconnected with.

---@class mqtt.broker.Subscription: mqtt.Subscription
---@field identifier integer?

---@class mqtt.broker.Retained
---@field message mqtt.Publish|mqtt.Will
---@field since number

---@class mqtt.Broker
---@field private listener cosocket.Listener?
---@field private forget_stop fun()
---@field private options mqtt.BrokerOptions
---@field private peers table<string, mqtt.broker.Peer> By client identifier.
---@field private streams table<cosocket.Stream, mqtt.ServerSession> All connections, accepted or not yet.
---@field private stream_count integer
---@field private retained table<string, mqtt.broker.Retained>
---@field private retained_count integer
---@field private assigned integer
---@field private closed boolean
local Broker = {}
Broker.__index = Broker
Broker.__name = "mqtt.Broker"

-- Sending ---------------------------------------------------------------------

---@param peer mqtt.broker.Peer
local function flush(peer)
  local output = peer.session.output
  if #output == 0 then return end
  peer.stream:try_flush(output)
  if #output > 0 then peer.stream:wake() end
end

--- Disconnects a client, with a reason if its version has them.
---@param peer mqtt.broker.Peer
---@param code integer
local function expel(peer, code)
  peer.session:disconnect(code)
  flush(peer)
  peer.stream:wake()
end

--- The properties of a message on its way to a subscriber: unaltered [MQTT-3.3.2-4], [MQTT-3.3.2-15] to -20, but
--- for the time that has passed [MQTT-3.3.2-6] and the identifiers of the subscriptions [MQTT-3.3.4-3].
---@param message mqtt.Publish|mqtt.Will
---@param identifiers integer[]
---@param waited number
---@return mqtt.Properties?
local function forwarded(message, identifiers, waited)
  local given = message.properties
  if not given and not identifiers[1] then return nil end
  local properties = {}
  for name, value in pairs(given or {}) do properties[name] = value end
  properties.will_delay_interval = nil
  if properties.message_expiry_interval then
    properties.message_expiry_interval = math.max(0, properties.message_expiry_interval - waited // 1 | 0)
  end
  if identifiers[1] then properties.subscription_identifier = identifiers end
  return properties
end

---@private
---@param peer mqtt.broker.Peer
---@param message mqtt.Publish|mqtt.Will
---@param qos 0|1
---@param retain boolean
---@param identifiers integer[]
---@param waited? number
function Broker:send(peer, message, qos, retain, identifiers, waited)
  local session = peer.session
  if session.state ~= "connected" then return end
  if qos == 0 and #session.output > (self.options.queue_max or QUEUE_MAX) then
    peer.dropped = peer.dropped + 1
    return
  end
  local ok, err = session:publish(message, qos, retain, forwarded(message, identifiers, waited or 0))
  if not ok then
    log.error("a message could not be forwarded", { client = session.client_id, topic = message.topic, error = err })
  elseif session.outgoing:waiting_count() > WAITING_MAX then
    expel(peer, reason.quota_exceeded)
  end
  flush(peer)
end

-- Messages --------------------------------------------------------------------

--- Keeps the last message of a topic, or forgets it [MQTT-3.3.1-5] to [MQTT-3.3.1-7].
---@private
---@param message mqtt.Publish|mqtt.Will
---@return boolean kept
function Broker:retain(message)
  local topic = message.topic
  local had = self.retained[topic] ~= nil
  if message.payload == "" then
    if had then
      self.retained[topic], self.retained_count = nil, self.retained_count - 1
    end
    return true
  end
  if not had then
    if self.retained_count >= RETAINED_MAX then return false end
    self.retained_count = self.retained_count + 1
  end
  self.retained[topic] = { message = message, since = now() }
  return true
end

--- Hands a message to everybody who has subscribed. Each gets one copy, at the highest quality of service of its
--- subscriptions that match [MQTT-3.3.4-2].
---@private
---@param message mqtt.Publish|mqtt.Will
---@param from string? The client that published it.
---@return boolean anybody
function Broker:route(message, from)
  local anybody = false
  for client_id, peer in pairs(self.peers) do
    local qos, retain, identifiers = -1, false, {}
    for filter, subscription in pairs(peer.subscriptions) do
      -- [MQTT-3.8.3-3]
      local own = subscription.no_local and client_id == from
      if not own and codec.matches(filter, message.topic) then
        qos = math.max(qos, subscription.qos)
        -- [MQTT-3.3.1-12], [MQTT-3.3.1-13]
        retain = retain or (subscription.retain_as_published and message.retain)
        identifiers[#identifiers + 1] = subscription.identifier
      end
    end
    if qos >= 0 then
      anybody = true
      -- [MQTT-3.8.4-8]
      self:send(peer, message, math.min(qos, message.qos), retain, identifiers)
    end
  end
  return anybody
end

---@private
---@param message mqtt.Publish|mqtt.Will
---@param from string?
---@return integer code For the PUBACK.
function Broker:publish(message, from)
  if message.retain and not self:retain(message) then return reason.quota_exceeded end
  return self:route(message, from) and 0 or reason.no_matching_subscribers
end

--- Sends what is retained and matches a new subscription [MQTT-3.3.1-9] to [MQTT-3.3.1-11].
---@private
---@param peer mqtt.broker.Peer
---@param subscription mqtt.broker.Subscription
function Broker:send_retained(peer, subscription)
  for topic, retained in pairs(self.retained) do
    if codec.matches(subscription.filter, topic) then
      local message, waited = retained.message, now() - retained.since
      local expiry = message.properties and message.properties.message_expiry_interval
      if expiry and waited >= expiry then
        -- [MQTT-3.3.2-5]
        self.retained[topic], self.retained_count = nil, self.retained_count - 1
      else
        self:send(peer, message, math.min(subscription.qos, message.qos), true, { subscription.identifier }, waited)
      end
    end
  end
end

-- Packets of clients ----------------------------------------------------------

--- What is done with each packet of a connected client.
---@type table<string, fun(broker: mqtt.Broker, peer: mqtt.broker.Peer, packet: any)>
local RECEIVE = {}

function RECEIVE.publish(broker, peer, packet)
  local session = peer.session
  local code = broker:publish(packet, session.client_id)
  session:puback(packet, code)
end

function RECEIVE.subscribe(broker, peer, packet)
  local codes, granted = {}, {}
  local identifiers = packet.properties and packet.properties.subscription_identifier
  for i, subscription in ipairs(packet.subscriptions) do
    local filter = subscription.filter
    local old = peer.subscriptions[filter]
    if filter:find("^%$share/") then
      codes[i] = reason.shared_subscriptions_not_supported
    elseif not old and peer.subscription_count >= SUBSCRIPTIONS_MAX then
      codes[i] = reason.quota_exceeded
    else
      subscription.qos = math.min(subscription.qos, 1)
      subscription.identifier = identifiers and identifiers[1]
      -- [MQTT-3.8.4-3]
      peer.subscriptions[filter] = subscription
      if not old then peer.subscription_count = peer.subscription_count + 1 end
      codes[i] = subscription.qos
      if subscription.retain_handling == 0 or (subscription.retain_handling == 1 and not old) then
        granted[#granted + 1] = subscription
      end
    end
  end
  peer.session:suback(packet, codes)
  for _, subscription in ipairs(granted) do broker:send_retained(peer, subscription) end
end

function RECEIVE.unsubscribe(_, peer, packet)
  local codes = {}
  for i, filter in ipairs(packet.filters) do
    local had = peer.subscriptions[filter] ~= nil
    codes[i] = had and 0 or reason.no_subscription_existed
    if had then
      peer.subscriptions[filter], peer.subscription_count = nil, peer.subscription_count - 1
    end
  end
  peer.session:unsuback(packet, codes)
end

function RECEIVE.disconnect(_, peer, packet)
  -- [MQTT-3.14.4-3]: only a normal goodbye takes the will back; 3.1.1 has no other [MQTT-3.14.4-3 there].
  if packet.reason_code ~= reason.disconnect_with_will then peer.will = nil end
end

-- Connections -----------------------------------------------------------------

--- The reason code a CONNECT is refused with, if it is.
---@private
---@async
---@param packet mqtt.Connect
---@return integer?
function Broker:objection(packet)
  local properties = packet.properties
  if self.stream_count > CLIENTS_MAX then return reason.server_busy end
  -- 3.1.1: [MQTT-3.1.3-8]
  if packet.client_id == "" and not packet.clean_start and packet.protocol_version == 4 then
    return reason.client_identifier_not_valid
  end
  -- [MQTT-4.12.0-1]
  if properties and properties.authentication_method then return reason.bad_authentication_method end
  -- [MQTT-3.2.2-12]
  if packet.will and packet.will.qos > 1 then return reason.qos_not_supported end
  local authenticate = self.options.authenticate
  if authenticate then
    local ok, answer = pcall(authenticate, packet.client_id, packet.username, packet.password)
    if not ok then
      if cosocket.is_error(answer, "cancelled") then error(answer, 0) end
      log.error(("authenticate failed: %s"):format(tostring(answer)))
      return reason.unspecified_error
    end
    if not answer then return reason.bad_user_name_or_password end
  end
end

--- Answers CONNECT.
---@private
---@async
---@param peer mqtt.broker.Peer
---@param packet mqtt.Connect
---@return true? accepted
function Broker:welcome(peer, packet)
  local session = peer.session
  local objection = self:objection(packet)
  if objection then
    session:refuse(objection)
    return nil
  end
  local properties = { server_keep_alive = self.options.server_keep_alive }
  if packet.client_id == "" then
    -- [MQTT-3.1.3-6], [MQTT-3.2.2-16]
    repeat
      self.assigned = self.assigned + 1
      session.client_id = ("auto-%d"):format(self.assigned)
    until not self.peers[session.client_id]
    properties.assigned_client_identifier = session.client_id
  end
  local old = self.peers[session.client_id]
  if old then
    -- [MQTT-3.1.4-3] (3.1.1: [MQTT-3.1.4-2])
    expel(old, reason.session_taken_over)
    self:depart(old)
  end
  peer.will = packet.will
  self.peers[session.client_id] = peer
  assert(session:accept(properties, now()))
  return true
end

--- A client has gone: its will is published, unless it took it back [MQTT-3.1.2-8]. With the session ends every
--- delay of the will.
---@private
---@param peer mqtt.broker.Peer
function Broker:depart(peer)
  local id = peer.session.client_id
  if self.peers[id] ~= peer then return end
  self.peers[id] = nil
  local will = peer.will
  peer.will = nil
  if will and not self.closed then self:publish(will, id) end
end

--- Serves one connection to its end: a task.
---@async
---@param broker mqtt.Broker
---@param stream cosocket.Stream
local function serve(broker, stream)
  local session = server_session.new(broker.options, now())
  ---@type mqtt.broker.Peer
  local peer = { stream = stream, session = session, subscriptions = {}, subscription_count = 0, dropped = 0 }
  broker.streams[stream], broker.stream_count = session, broker.stream_count + 1
  local gone <close> = setmetatable({}, {
    __close = function()
      broker.streams[stream], broker.stream_count = nil, broker.stream_count - 1
      broker:depart(peer)
      session:lost()
      stream:close()
    end,
  })
  local input = cosocket.buffer()
  local err
  while true do
    local packet
    packet, err = drive.next_event(stream, session, input)
    if not packet then break end
    if packet.type == "connect" then
      if not broker:welcome(peer, packet) then break end
    else
      RECEIVE[packet.type](broker, peer, packet)
    end
    flush(peer)
  end
  if err and err.kind ~= "closed" then log.info(err.message, { client = session.client_id }) end
  broker:depart(peer)
  -- A refusal or a DISCONNECT shall arrive before the connection is closed.
  cosocket.deadline(GOODBYE, function()
    while #session.output > 0 do
      input:clear()
      if not stream:turn(input, session.output) then return end
    end
    if not stream:shutdown("write") then return end
    repeat input:clear() until not stream:turn(input, session.output)
  end)
end

--- Serves one more connection, such as one end of `cosocket.pair`, in a task of its own.
---@param stream cosocket.Stream
function Broker:serve(stream)
  cosocket.spawn("mqtt broker connection", serve, self, stream)
end

--- Accepts connections: a task.
---@async
---@param broker mqtt.Broker
local function accept(broker)
  while true do
    local stream, err = broker.listener:accept()
    if stream then
      broker:serve(stream)
    else
      ---@cast err cosocket.Error
      if not broker.closed then log.error(("the broker accepts no more: %s"):format(tostring(err))) end
      return
    end
  end
end

--- Where it listens: `"127.0.0.1:1883"`, or a path; `nil` when nowhere.
---@return string?
function Broker:address()
  return self.listener and self.listener:local_address()
end

--- Ends every connection and stops to listen.
---@return true
function Broker:close()
  if self.closed then return true end
  self.closed = true
  self.forget_stop()
  if self.listener then self.listener:close() end
  for stream, session in pairs(self.streams) do
    session:disconnect(reason.server_shutting_down)
    stream:try_flush(session.output)
    stream:wake()
  end
  return true
end

function Broker:__close()
  self:close()
end

local broker = {}

--- A broker that listens nowhere: give it streams with `serve`.
---@param options? mqtt.BrokerOptions
---@return mqtt.Broker
function broker.new(options)
  options = cosocket.check_options("mqtt.broker", options, OPTIONS)
  local self = setmetatable({
    options = options,
    peers = {},
    streams = {},
    stream_count = 0,
    retained = {},
    retained_count = 0,
    assigned = 0,
    closed = false,
  }, Broker)
  self.forget_stop = cosocket.on_stop(function() self:close() end)
  return self
end

--- Starts a broker, in tasks of its own: `"tcp://127.0.0.1:0"`, `"tls://..."` or `"unix:///path"`.
---@async
---@param address string
---@param options? mqtt.BrokerOptions
---@return mqtt.Broker? broker
---@return cosocket.Error? err
function broker.listen(address, options)
  options = cosocket.check_options("mqtt.broker", options, OPTIONS)
  local listener, err = cosocket.listen(address, { tls = options.tls })
  if not listener then return nil, err end
  local self = broker.new(options)
  self.listener = listener
  cosocket.spawn("mqtt broker", accept, self)
  return self
end

return broker
