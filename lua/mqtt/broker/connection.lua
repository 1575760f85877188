--- One connection of a client to a broker, from its first byte to its last.

local authentication = require("mqtt.broker.authentication")
local broker_session = require("mqtt.broker.session")
local cosocket = require("cosocket")
local drive = require("net.drive")
local log = require("log").new("mqtt.broker")
local reason = require("mqtt.reason")
local server_session = require("mqtt.server_session")
local subscriptions = require("mqtt.broker.subscriptions")
local trace = require("net.trace")
local wire = require("mqtt.broker.wire")

local now = cosocket.now

--- Connections at a time.
local CLIENTS_MAX = 10000
--- Subscriptions of one client.
local SUBSCRIPTIONS_MAX = 10000
--- Seconds a parting word may take to leave.
local GOODBYE = 2
--- Session Expiry Interval of a session that never ends (3.1.2.11.2).
local FOR_EVER = 0xFFFFFFFF

---@class mqtt.broker.Connection
---@field broker mqtt.Broker
---@field stream cosocket.Stream
---@field server mqtt.ServerSession
---@field wire mqtt.broker.Wire
---@field input cosocket.Buffer
---@field session mqtt.broker.Session? Once the client was accepted, and until it is gone.
---@field client mqtt.broker.Client? Who it is.
local Connection = {}
Connection.__index = Connection

-- Sending ---------------------------------------------------------------------

--- Starts what was written on its way; never parks.
function Connection:flush()
  local wired, stream = self.wire, self.stream
  local before = wired.deadline
  wired:pump(now())
  local output = wired.output
  if #output > 0 then stream:try_flush(output) end
  -- Its task looks after what did not fit, and after a new deadline.
  if #output > 0 or wired.cut or wired.deadline < before then stream:wake() end
end

--- Bytes that have not left yet.
---@return integer
function Connection:backlog()
  return self.wire:backlog()
end

--- Ends the connection with a reason, if the client's version has them.
---@param code integer
---@param properties? mqtt.Properties
---@return true? ok
---@return cosocket.Error? err
function Connection:disconnect(code, properties)
  local ok, err = self.server:disconnect(code, properties)
  self:flush()
  self.wire:close()
  self.stream:wake()
  -- Nothing may follow a DISCONNECT [MQTT-3.14.4-1], and the client is gone from now on.
  self:leave()
  return ok, err
end

--- Ends the connection without a word.
function Connection:drop()
  local stream = self.stream
  self.wire.cut = true
  self.wire:close()
  stream:wake()
  self:leave()
  -- A WebSocket connection has parting words of its own.
  if stream.lose then stream:lose(cosocket.error("closed", "mqtt.broker", "cut off on purpose")) end
end

-- Connecting ------------------------------------------------------------------

--- Why a client is not accepted, if so. Otherwise, what CONNACK tells it of its authentication.
---@private
---@async
---@param packet mqtt.Connect
---@return integer? objection
---@return mqtt.Properties? properties
function Connection:objection(packet)
  local broker, options = self.broker, self.broker.options
  if broker.connection_count > (options.clients_max or CLIENTS_MAX) then return reason.server_busy end
  local objection, more = self.server:objection(), nil
  if objection then return objection end
  self.client = authentication.client(self)
  if packet.properties and packet.properties.authentication_method then
    objection, more = authentication.exchange(self, packet)
    if objection then return objection end
    more = type(more) == "string" and { authentication_data = more } or nil
  elseif options.authenticate then
    objection, more = authentication.verdict(
      "authenticate", reason.bad_user_name_or_password, options.authenticate,
      packet.client_id, packet.username, packet.password, self.client
    )
    if objection then return objection, type(more) == "table" and more or nil end
    more = nil
  end
  if packet.will then objection = self:forbidden("publish", packet.will.topic) end
  return objection, more
end

--- Why a client may not do something, if so.
---@private
---@async
---@param action "publish"|"subscribe"
---@param topic string
---@return integer? objection
function Connection:forbidden(action, topic)
  local authorize = self.broker.options.authorize
  if not authorize then return nil end
  return (authentication.verdict("authorize", reason.not_authorized, authorize, self.client, action, topic))
end

--- Seconds for which a session outlives its connection, of those a client asked for.
---@private
---@param wanted integer
---@return number
function Connection:granted_expiry(wanted)
  local granted = math.min(wanted, self.broker.options.session_expiry_max or FOR_EVER)
  return granted == FOR_EVER and math.huge or granted
end

--- The session of the client: the one that is remembered, or a new one.
---@private
---@param packet mqtt.Connect
---@return mqtt.broker.Session? session
---@return boolean present
function Connection:find_session(packet)
  local sessions, client_id = self.broker.sessions, self.server.client_id
  local session = sessions:find(client_id)
  if session and session.connection then
    -- [MQTT-3.1.4-3] (3.1.1: [MQTT-3.1.4-2])
    session.connection:disconnect(reason.session_taken_over)
    session = sessions:find(client_id)
  end
  if session and (packet.clean_start or session.expires_at <= now()) then
    -- [MQTT-3.1.2-4]
    sessions:finish(session)
    session = nil
  end
  if session then
    -- [MQTT-3.1.3-9]
    session.will, session.will_at = nil, nil
    return session, true
  end
  return sessions:start(client_id), false
end

--- What CONNACK says besides the limits.
---@private
---@param packet mqtt.Connect
---@return mqtt.Properties
function Connection:greeting(packet)
  local options, asked = self.broker.options, packet.properties or {}
  local properties = { server_keep_alive = options.server_keep_alive }
  local wanted = asked.session_expiry_interval
  if wanted and wanted > (options.session_expiry_max or FOR_EVER) then
    -- [MQTT-3.2.2-21] is for Keep Alive; this is 3.2.2.3.2.
    properties.session_expiry_interval = options.session_expiry_max
  end
  if asked.request_response_information and options.response_information then
    properties.response_information = options.response_information
  end
  return properties
end

--- Answers CONNECT.
---@private
---@async
---@param packet mqtt.Connect
function Connection:welcome(packet)
  local server, broker = self.server, self.broker
  local objection, properties = self:objection(packet)
  -- It may have gone, or run out of time, while that was found out.
  if server.state == "closed" then return end
  if broker.closed then objection, properties = reason.server_shutting_down, nil end
  if objection then return server:refuse(objection, properties) end
  local greeting = self:greeting(packet)
  for name, value in pairs(properties or {}) do greeting[name] = value end
  if packet.client_id == "" then
    -- [MQTT-3.1.3-6], [MQTT-3.2.2-16]
    server.client_id = broker.sessions:assign()
    greeting.assigned_client_identifier = server.client_id
    self.client.client_id = server.client_id
  end
  local session, present = self:find_session(packet)
  if not session then return server:refuse(reason.quota_exceeded) end
  if server.version == 5 then
    session.expiry = self:granted_expiry(packet.properties and packet.properties.session_expiry_interval or 0)
  else
    -- 3.1.1, 3.1.2.4
    session.expiry = packet.clean_start and 0 or self:granted_expiry(FOR_EVER)
  end
  session.will = packet.will
  self.session = session
  session:attach(self)
  local ok, err = server:accept(greeting, now(), {
    outgoing = session.outgoing,
    incoming = session.incoming,
    present = present,
  })
  if not ok then
    ---@cast err cosocket.Error
    log.error(("CONNACK cannot be written: %s"):format(err.message), { client = server.client_id })
    session.will = nil
    server:disconnect(reason.unspecified_error)
  end
end

-- Packets of clients ----------------------------------------------------------

--- What is done with each packet.
---@type table<string, async fun(connection: mqtt.broker.Connection, packet: any)>
local RECEIVE = {}

function RECEIVE.connect(connection, packet)
  connection:welcome(packet)
end

function RECEIVE.publish(connection, packet)
  local code = connection:forbidden("publish", packet.topic)
  if not code then code = connection.broker:take(broker_session.message(packet), connection.server.client_id) end
  connection.server:acknowledge(packet, code)
end

--- Adds a subscription. Answers its reason code.
---@async
---@param subscription mqtt.broker.Subscription
---@return integer code
---@return boolean? new
function Connection:subscribe(subscription)
  local session, options = self.session, self.broker.options
  local filter = subscription.filter
  local group, plain = subscriptions.parse(filter)
  if group and options.shared_subscription_available == false then
    return reason.shared_subscriptions_not_supported
  elseif options.wildcard_subscription_available == false and plain:find("[+#]") then
    return reason.wildcard_subscriptions_not_supported
  end
  local code = self:forbidden("subscribe", plain)
  if code then return code end
  -- It may have been taken over while that was found out.
  if not session or self.session ~= session then return reason.unspecified_error end
  local new = session.subscriptions[filter] == nil
  if (new and session.subscription_count >= (options.subscriptions_max or SUBSCRIPTIONS_MAX))
    or subscriptions.is_too_deep(filter)
  then
    return reason.quota_exceeded
  end
  -- [MQTT-3.2.2-10]
  subscription.qos = math.min(subscription.qos, options.maximum_qos or 2)
  session.subscriptions[filter] = subscription
  if new then session.subscription_count = session.subscription_count + 1 end
  self.broker.subscriptions:set(session, subscription)
  return subscription.qos, new
end

function RECEIVE.subscribe(connection, packet)
  local codes, granted = {}, {}
  local identifiers = packet.properties and packet.properties.subscription_identifier
  for i, subscription in ipairs(packet.subscriptions) do
    subscription.identifier = identifiers and identifiers[1]
    local code, new = connection:subscribe(subscription)
    codes[i] = code
    -- 3.3.1.3: what is shared brings nothing that is retained.
    local wanted = subscription.retain_handling == 0 or (subscription.retain_handling == 1 and new)
    if code < 0x80 and wanted and not subscriptions.parse(subscription.filter) then
      granted[#granted + 1] = subscription
    end
  end
  connection.server:suback(packet, codes)
  for _, subscription in ipairs(granted) do
    -- [MQTT-3.3.1-9] to [MQTT-3.3.1-11]
    for _, message in ipairs(connection.broker.retained:matching(subscription.filter, now())) do
      if not connection.session then return end
      connection.session:deliver(message, subscription.qos, true, { subscription.identifier })
    end
  end
end

function RECEIVE.unsubscribe(connection, packet)
  local session, codes = connection.session, {}
  ---@cast session mqtt.broker.Session
  for i, filter in ipairs(packet.filters) do
    local had = session.subscriptions[filter] ~= nil
    codes[i] = had and 0 or reason.no_subscription_existed
    if had then
      session.subscriptions[filter], session.subscription_count = nil, session.subscription_count - 1
      connection.broker.subscriptions:remove(session, filter)
    end
  end
  connection.server:unsuback(packet, codes)
end

function RECEIVE.auth(connection, packet)
  local objection, data = authentication.exchange(connection, packet)
  if connection.server.state ~= "connected" then return end
  if objection then return connection.server:disconnect(objection) end
  connection.server:authenticated(type(data) == "string" and data or nil)
end

function RECEIVE.disconnect(connection, packet)
  local session = connection.session
  if not session then return end
  -- Only a normal goodbye takes the will back [MQTT-3.14.4-3]; 3.1.1 has no other.
  if (packet.reason_code or 0) == 0 then session.will = nil end
  local expiry = packet.properties and packet.properties.session_expiry_interval
  if expiry then session.expiry = connection:granted_expiry(expiry) end
end

--- Does what a packet asks for.
---@async
---@param packet mqtt.Packet
function Connection:handle(packet)
  -- Another connection may have taken the session over.
  if packet.type ~= "connect" and packet.type ~= "disconnect" and not self.session then return end
  RECEIVE[packet.type](self, packet)
end

--- The next packet that something is to be done about.
---@async
---@return mqtt.Packet? packet
---@return cosocket.Error? err
function Connection:next()
  while true do
    local packet, err = drive.next_event(self.stream, self.wire, self.input)
    if packet ~= wire.HOLD then return packet, err end
    local ok
    ok, err = drive.hold(self.stream, self.wire, self.wire.go_on)
    if not ok then return nil, err end
  end
end

-- The end ---------------------------------------------------------------------

--- The client is gone, as far as its session is concerned.
function Connection:leave()
  local session = self.session
  if not session then return end
  self.session = nil
  self.broker.sessions:leave(session)
end

--- Sends what is left, so that it arrives before the connection is closed: a refusal, a DISCONNECT.
---@private
---@async
function Connection:say_goodbye()
  local stream, input, output = self.stream, self.input, self.wire.output
  cosocket.deadline(GOODBYE, function()
    while #output > 0 do
      input:clear()
      if not stream:turn(input, output) then return end
    end
    if not stream:shutdown("write") then return end
    repeat input:clear() until not stream:turn(input, output)
  end)
end

--- Serves the connection to its end: a task.
---@async
function Connection:run()
  local broker = self.broker
  broker.connections[self], broker.connection_count = true, broker.connection_count + 1
  local gone <close> = setmetatable({}, {
    -- However this task ends, cancelled too.
    __close = function()
      broker.connections[self], broker.connection_count = nil, broker.connection_count - 1
      self:leave()
      self.server:lost()
      self.stream:close()
    end,
  })
  local packet, err
  while true do
    packet, err = self:next()
    if not packet then break end
    self:handle(packet)
    self:flush()
  end
  if err and err.kind ~= "closed" then log.info(err.message, { client = self.server.client_id }) end
  self.server:lost()
  self:leave()
  if self.wire.cut then
    self.stream:try_flush(self.wire.output)
  else
    self:say_goodbye()
  end
end

local connection = {}

---@param broker mqtt.Broker
---@param stream cosocket.Stream
---@return mqtt.broker.Connection
function connection.new(broker, stream)
  trace.attach(stream, "mqtt", "server")
  local server = server_session.new(broker.options, now())
  return setmetatable({
    broker = broker,
    stream = stream,
    server = server,
    -- More than messages come to: that much only those leave unread who do not read the answers to what they send.
    wire = wire.new(server, broker.options.on_packet, 2 * (broker.options.queue_max or broker_session.QUEUE_MAX)),
    input = cosocket.buffer(),
  }, Connection)
end

return connection
