--- What a broker remembers of one client (4.1): its subscriptions, the messages on their way to it and from it, its
--- will. It outlives connections.

local cosocket = require("cosocket")
local incoming = require("mqtt.incoming")
local log = require("log").new("mqtt.broker")
local outgoing = require("mqtt.outgoing")
local reason = require("mqtt.reason")
local ticket = require("mqtt.ticket")

local now = cosocket.now

--- Bytes that may wait for one client that is connected; more QoS 0 messages are dropped.
local QUEUE_MAX = 1048576
--- Messages that may wait for one client.
local SESSION_QUEUE_MAX = 10000
--- Bytes of messages that may wait for one client.
local SESSION_BYTES_MAX = 67108864

--- A message on its way through the broker.
---@class mqtt.broker.Message
---@field topic string
---@field payload string
---@field qos mqtt.Qos
---@field retain boolean
---@field properties mqtt.Properties?
---@field expires_at number? When nobody needs it any more [MQTT-3.3.2-5].

---@class mqtt.broker.Session
---@field client_id string
---@field serial integer Sessions are numbered as they begin.
---@field version mqtt.codec.Version Of the last connection.
---@field connection mqtt.broker.Connection? `nil` while the client is away.
---@field subscriptions table<string, mqtt.broker.Subscription> By filter.
---@field subscription_count integer
---@field outgoing mqtt.Outgoing
---@field incoming mqtt.Incoming
---@field expiry number Seconds it outlives a connection; `math.huge` is for ever.
---@field expires_at number? While the client is away.
---@field will mqtt.Will?
---@field will_at number? When the will is published, while the client is away.
---@field away cosocket.Event? Set when the client is back or the session has ended.
---@field dropped integer Messages that were not kept for want of room.
---@field private options mqtt.BrokerOptions
local Session = {}
Session.__index = Session

local session = { QUEUE_MAX = QUEUE_MAX }

--- A message as the broker keeps it, from a PUBLISH or a will.
---@param packet {topic: string, payload: string?, qos: mqtt.Qos?, retain: boolean?, properties: mqtt.Properties?}
---@return mqtt.broker.Message
function session.message(packet)
  local expiry = packet.properties and packet.properties.message_expiry_interval
  return {
    topic = packet.topic,
    payload = packet.payload or "",
    qos = packet.qos or 0,
    retain = packet.retain or false,
    properties = packet.properties,
    expires_at = expiry and now() + expiry,
  }
end

--- Properties that belong to one hop, and are not handed on.
local OF_ONE_HOP = { topic_alias = true, subscription_identifier = true, will_delay_interval = true }

--- The properties of a message on its way to a subscriber: unaltered [MQTT-3.3.2-4], [MQTT-3.3.2-15] to -20, but
--- for the time that has passed [MQTT-3.3.2-6] and the identifiers of the subscriptions [MQTT-3.3.4-3].
---@param message mqtt.broker.Message
---@param identifiers integer[]
---@return mqtt.Properties?
local function forwarded(message, identifiers)
  local properties
  for name, value in pairs(message.properties or {}) do
    if not OF_ONE_HOP[name] then
      properties = properties or {}
      properties[name] = value
    end
  end
  if message.expires_at then properties.message_expiry_interval = math.max(0, math.ceil(message.expires_at - now())) end
  if identifiers[1] then
    properties = properties or {}
    properties.subscription_identifier = identifiers
  end
  return properties
end

-- Messages --------------------------------------------------------------------

--- Sends a message that will not be sent again.
---@private
---@param message mqtt.broker.Message
---@param retain boolean
---@param properties mqtt.Properties?
function Session:send(message, retain, properties)
  local connection = self.connection
  ---@cast connection mqtt.broker.Connection
  if connection:backlog() > (self.options.queue_max or QUEUE_MAX) then
    self.dropped = self.dropped + 1
    return
  end
  local ok, err = self.outgoing:write(message.topic, message.payload, 0, retain, false, nil, properties)
  -- One that is larger than the client takes counts as sent [MQTT-3.1.2-25].
  if not ok and err.kind ~= "limit" then
    log.error("a message could not be forwarded", { client = self.client_id, topic = message.topic, error = err })
  end
end

--- Gives the client a message, or keeps it until the client can take it.
---@param message mqtt.broker.Message
---@param qos mqtt.Qos What the subscription asks for at most.
---@param retain boolean
---@param identifiers integer[]
---@param share? string The filter of the shared subscription it came through.
function Session:deliver(message, qos, retain, identifiers, share)
  -- [MQTT-3.8.4-8]
  qos = math.min(qos, message.qos)
  local connection, window = self.connection, self.outgoing
  if qos == 0 and not connection and not self.options.queue_qos0 then return end
  local properties = self.version == 5 and forwarded(message, identifiers) or nil
  if qos == 0 and connection then
    self:send(message, retain, properties)
  else
    local waiting = ticket.new({
      type = "publish",
      topic = message.topic,
      payload = message.payload,
      qos = qos,
      retain = retain,
      properties = properties,
      expires_at = message.expires_at,
      share = share,
    })
    local dropped = window.backlog.dropped
    local ok, err = window:publish(waiting, now())
    if not ok and err.kind ~= "limit" then
      log.error("a message could not be forwarded", { client = self.client_id, topic = message.topic, error = err })
    elseif window.backlog.dropped > dropped then
      self.dropped = self.dropped + 1
      -- It is told, rather than left in the belief that it gets everything.
      if connection then return connection:disconnect(reason.quota_exceeded) end
    end
  end
  if connection then connection:flush() end
end

--- Takes out, in their order, messages of shared subscriptions: those that were never sent, and with `sent` also
--- those of QoS 1 that were.
---@param sent boolean
---@return mqtt.Ticket[]
function Session:take_shared(sent)
  local window, taken = self.outgoing, {}
  if sent then
    for _, one in ipairs(window:abandon()) do
      -- One of QoS 2 that was sent goes to nobody else [MQTT-4.8.2-5].
      if one.share and (one.qos == 1 or not one.packet_id) then taken[#taken + 1] = one end
    end
    return taken
  end
  return window.backlog:take_out(function(one) return one.share and not one.packet_id end)
end

-- Connections -----------------------------------------------------------------

--- The client is here.
---@param connection mqtt.broker.Connection
function Session:attach(connection)
  self.connection, self.version = connection, connection.server.version
  self.expires_at, self.will_at = nil, nil
  if self.away then
    self.away:set()
    self.away = nil
  end
  if self.version ~= 5 then
    -- What waits was meant for MQTT 5.
    for _, one in pairs(self.outgoing.live) do one.properties = nil end
    for one in self.outgoing.backlog:each() do one.properties = nil end
  end
end

--- The client is gone.
function Session:detach()
  self.connection = nil
  self.outgoing:disconnected()
  self.incoming:disconnected()
end

-- Snapshots -------------------------------------------------------------------

---@class mqtt.broker.SavedSession
---@field package client_id string
---@field package version mqtt.codec.Version
---@field package subscriptions mqtt.broker.Subscription[]
---@field package outgoing table[]
---@field package incoming integer[]
---@field package expiry number
---@field package expires_at number
---@field package will mqtt.Will?
---@field package will_at number?

---@param source table
---@return table
local function copy(source)
  local target = {}
  for name, value in pairs(source) do target[name] = value end
  return target
end

--- What is left of this session if everything else is lost now.
---@return mqtt.broker.SavedSession
function Session:save()
  local window, entries = self.outgoing, {}
  local function add(one)
    -- What was sent is as on a connection that is lost; what lines up again keeps its identifier.
    if one.type == "publish" then entries[#entries + 1] = copy(one) end
  end
  for _, one in pairs(window.live) do
    if one.state ~= "waiting" then add(one) end
  end
  for one in window.backlog:each() do add(one) end
  table.sort(entries, function(a, b) return a.seq < b.seq end)
  local subscriptions = {}
  for _, subscription in pairs(self.subscriptions) do
    subscriptions[#subscriptions + 1] = copy(subscription)
  end
  local received = {}
  for id in pairs(self.incoming.owned) do received[#received + 1] = id end
  return {
    client_id = self.client_id,
    version = self.version,
    subscriptions = subscriptions,
    outgoing = entries,
    incoming = received,
    expiry = self.expiry,
    expires_at = self.expires_at or now() + self.expiry,
    will = self.will_at and self.will,
    will_at = self.will_at,
  }
end

--- Goes on with what was saved.
---@param saved mqtt.broker.SavedSession
function Session:restore(saved)
  self.version, self.expiry, self.expires_at = saved.version, saved.expiry, saved.expires_at
  self.will, self.will_at = saved.will, saved.will_at
  local shares = {}
  for _, entry in ipairs(saved.outgoing) do shares[entry.seq] = entry.share end
  self.outgoing:restore(saved.outgoing, function(fields)
    fields.share = shares[fields.seq]
    return ticket.new(fields)
  end)
  self.incoming:restore(saved.incoming)
end

--- A session that nobody has heard of.
---@param client_id string
---@param serial integer
---@param options mqtt.BrokerOptions
---@return mqtt.broker.Session
function session.new(client_id, serial, options)
  local nowhere = cosocket.buffer()
  local window = outgoing.new(nowhere)
  local backlog = window.backlog
  backlog.queue_max = options.session_queue_max or SESSION_QUEUE_MAX
  backlog.queue_bytes_max, backlog.queue_policy = SESSION_BYTES_MAX, "drop_newest"
  return setmetatable({
    client_id = client_id,
    serial = serial,
    version = 5,
    subscriptions = {},
    subscription_count = 0,
    outgoing = window,
    incoming = incoming.new(nowhere),
    expiry = 0,
    dropped = 0,
    options = options,
  }, Session)
end

return session
