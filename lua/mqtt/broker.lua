--- An MQTT broker in the same process: a peer for scripts that are being written, and for tests. It is NOT for
--- production: everything is in memory and ends with the process, one loop serves everybody, and nobody is forbidden
--- anything unless a callback does.
---
---     local broker <close> = assert(require("mqtt.broker").listen("tcp://127.0.0.1:0"))
---     local client <close> = assert(require("mqtt").connect(broker:url()))
---
--- MQTT 3.1.1 and 5, both to the full: QoS 0, 1 and 2; sessions that outlive connections, with what was published
--- meanwhile; retained messages; wills, at once or with a delay; shared subscriptions, in both versions; subscription
--- identifiers and options; topic aliases and flow control both ways; expiry of messages and sessions; enhanced
--- authentication; TCP, TLS, WebSocket and unix sockets, and any stream that is handed to `serve`.
---
--- How clients take a server that can less is seen with the options from `maximum_qos` on; how they take one that
--- goes astray, with `on_packet`, `drop`, `kill` and `snapshot`:
---
---     -- Every second PUBACK is lost.
---     local count = 0
---     broker:on_packet(function(packet, direction)
---       if direction ~= "send" or packet.type ~= "puback" then return nil end
---       count = count + 1
---       if count % 2 == 0 then return "drop" end
---     end)
---
---     -- The broker dies, and comes back at the same address with what it knew before.
---     local address, state = broker:address(), broker:snapshot()
---     broker:kill()
---     broker = assert(require("mqtt.broker").listen("tcp://" .. address, { state = state }))

local acceptor = require("net.acceptor")
local codec = require("mqtt.codec")
local connections = require("mqtt.broker.connection")
local cosocket = require("cosocket")
local listening = require("net.listening")
local log = require("log").new("mqtt.broker")
local publication = require("mqtt.publication")
local reason = require("mqtt.reason")
local retained = require("mqtt.broker.retained")
local sessions = require("mqtt.broker.sessions")
local subscriptions = require("mqtt.broker.subscriptions")

local message_of = require("mqtt.broker.session").message

---@class mqtt.BrokerOptions: mqtt.ServerLimits
---@field tls? cosocket.TlsServerOptions For addresses that begin with `tls://` or `wss://`.
---@field authenticate? async fun(client_id: string, username: string?, password: string?, client: mqtt.broker.Client): (boolean|integer)?, mqtt.Properties? Whether a client may connect; an integer is the reason code of a refusal, and then properties may follow, such as `server_reference`. Called in the client's own task.
---@field auth? table<string, async fun(exchange: mqtt.broker.Exchange): (boolean|integer)?, string?> Methods of enhanced authentication, by name: each answers as `authenticate`, and with what the client is told when it is accepted.
---@field authorize? async fun(client: mqtt.broker.Client, action: "publish"|"subscribe", topic: string): (boolean|integer)? Whether a client may publish to a topic, or subscribe to a filter.
---@field server_keep_alive? integer Seconds; clients of MQTT 5 are told to use it.
---@field session_expiry_max? integer Seconds a session may outlive its connection; clients of MQTT 5 are told. Default: what they ask for.
---@field response_information? string What clients that ask for it make their response topics of.
---@field on_packet? mqtt.broker.OnPacket See `Broker:on_packet`.
---@field state? mqtt.broker.Snapshot What an earlier broker knew.
---@field queue_max? integer Bytes that may wait for a client that is connected; more QoS 0 messages are dropped. Default 1048576.
---@field session_queue_max? integer Messages that may wait for a client. One that is away loses what is more, one that is connected is disconnected. Default 10000.
---@field queue_qos0? boolean Whether QoS 0 messages wait for clients that are away, too. Default `false`.
---@field clients_max? integer Connections at a time. Default 10000.
---@field sessions_max? integer Sessions at a time. Default 100000.
---@field subscriptions_max? integer Subscriptions of one client. Default 10000.
---@field retained_max? integer Topics whose messages are retained. Default 100000.

local OPTIONS = {
  tls = "tls_server",
  authenticate = "function",
  auth = "table",
  authorize = "function",
  timeout = "number",
  packet_max = "integer",
  receive_maximum = "integer",
  in_flight_max = "integer",
  maximum_qos = "integer",
  retain_available = "boolean",
  wildcard_subscription_available = "boolean",
  shared_subscription_available = "boolean",
  subscription_identifier_available = "boolean",
  topic_alias_maximum = "integer",
  server_keep_alive = "integer",
  session_expiry_max = "integer",
  response_information = "string",
  on_packet = "function",
  state = "table",
  queue_max = "integer",
  session_queue_max = "integer",
  queue_qos0 = "boolean",
  clients_max = "integer",
  sessions_max = "integer",
  subscriptions_max = "integer",
  retained_max = "integer",
}

--- Bounds that the protocol sets.
local RANGES = {
  packet_max = { 1, 268435460 },
  receive_maximum = { 1, 65535 },
  in_flight_max = { 1, 65535 },
  maximum_qos = { 0, 2 },
  topic_alias_maximum = { 0, 65535 },
  server_keep_alive = { 0, 65535 },
  session_expiry_max = { 0, 0xFFFFFFFF },
}

--- What a broker knew at one moment: sessions, their messages, retained messages. For `state`, in the same process.
---@class mqtt.broker.Snapshot
---@field package sessions mqtt.broker.SavedSession[]
---@field package retained mqtt.broker.Message[]

---@class mqtt.Broker
---@field options mqtt.BrokerOptions
---@field sessions mqtt.broker.Sessions
---@field subscriptions mqtt.broker.Subscriptions
---@field retained mqtt.broker.Retained
---@field connections table<mqtt.broker.Connection, true> Accepted or not yet.
---@field connection_count integer
---@field closed boolean
---@field private listeners {listener: cosocket.Listener|websocket.Server, scheme: string, address: string}[]
---@field private forget_stop fun()
local Broker = {}
Broker.__index = Broker
Broker.__name = "mqtt.Broker"

-- Messages --------------------------------------------------------------------

--- Takes a message in: retains it, and hands it to everybody who has subscribed.
---@param message mqtt.broker.Message
---@param from string? The client that published it.
---@return integer code For its acknowledgement.
function Broker:take(message, from)
  if message.retain and not self.retained:set(message) then return reason.quota_exceeded end
  local deliveries = self.subscriptions:deliveries(message, from)
  for _, delivery in ipairs(deliveries) do
    delivery.session:deliver(message, delivery.qos, delivery.retain, delivery.identifiers, delivery.share)
  end
  return deliveries[1] and 0 or reason.no_matching_subscribers
end

--- Publishes a message as if a client had.
---@param topic string
---@param payload? string
---@param options? mqtt.PublishOptions
---@return true? ok
---@return cosocket.Error? err `limit`: there is no more room for retained messages.
function Broker:publish(topic, payload, options)
  if type(topic) ~= "string" or not codec.valid_topic(topic) then
    error(("publish: %q is not a topic to publish to"):format(tostring(topic)), 2)
  end
  if payload ~= nil and type(payload) ~= "string" then
    error(("publish: the payload must be a string, not a %s"):format(type(payload)), 2)
  end
  local qos, retain, properties = publication.check("publish", options or {})
  local message = { topic = topic, payload = payload, qos = qos, retain = retain, properties = properties }
  if self:take(message_of(message)) == reason.quota_exceeded then
    return nil, cosocket.error("limit", "mqtt.broker", "no more messages are retained: raise retained_max")
  end
  return true
end

-- Clients ---------------------------------------------------------------------

---@class mqtt.broker.ClientStatus
---@field client_id string
---@field connected boolean
---@field version 5|"3.1.1"
---@field address string?
---@field username string?
---@field subscriptions string[] Sorted.
---@field in_flight integer Messages sent to it and not acknowledged.
---@field waiting integer Messages that wait to be sent.
---@field dropped integer Messages that were not kept for want of room.
---@field expires_in number? Seconds after which its session ends, while it is away; `math.huge` is never.

--- Every session, of clients that are connected or away, in the order in which they began.
---@return mqtt.broker.ClientStatus[]
function Broker:clients()
  local list = {}
  for i, session in ipairs(self.sessions:all()) do
    local client = session.connection and session.connection.client
    local filters = {}
    for filter in pairs(session.subscriptions) do filters[#filters + 1] = filter end
    table.sort(filters)
    list[i] = {
      client_id = session.client_id,
      connected = session.connection ~= nil,
      version = session.version == 5 and 5 or "3.1.1",
      address = client and client.address,
      username = client and client.username,
      subscriptions = filters,
      in_flight = session.outgoing.in_flight,
      waiting = session.outgoing:waiting_count(),
      dropped = session.dropped,
      expires_in = session.expires_at and session.expires_at - cosocket.now(),
    }
  end
  return list
end

--- Disconnects a client, with a reason if it speaks MQTT 5. Its session and its will take their course.
---@param client_id string
---@param reason_code? integer Default 0x98, administrative action.
---@param properties? mqtt.Properties E.g. `server_reference`, with 0x9C or 0x9D.
---@return boolean done `false`: no such client is connected.
---@return cosocket.Error? err The properties cannot be sent.
function Broker:disconnect(client_id, reason_code, properties)
  local session = self.sessions:find(client_id)
  local connection = session and session.connection
  if not connection then return false end
  local ok, err = connection:disconnect(reason_code or reason.administrative_action, properties)
  return ok or false, err
end

--- Cuts a client off without a word, as a broken network does.
---@param client_id string
---@return boolean done `false`: no such client is connected.
function Broker:drop(client_id)
  local session = self.sessions:find(client_id)
  local connection = session and session.connection
  if not connection then return false end
  connection:drop()
  return true
end

--- Sets what looks at every packet of every connection from now on, and may let it go astray: see
--- `mqtt.broker.Mischief`. `nil` takes it back.
---@param fn mqtt.broker.OnPacket?
function Broker:on_packet(fn)
  if fn ~= nil and type(fn) ~= "function" then
    error(("on_packet: a function is wanted, not a %s"):format(type(fn)), 2)
  end
  self.options.on_packet = fn
  for connection in pairs(self.connections) do connection.wire.on_packet = fn end
end

-- Connections -----------------------------------------------------------------

---@async
---@param connection mqtt.broker.Connection
local function run(connection)
  connection:run()
end

--- Serves one more connection in a task of its own: an accepted stream, one end of `cosocket.pair`, or anything else
--- that has `turn`, `try_flush`, `wake`, `shutdown` and `close` as a stream has them; it may have `peer_address` and
--- `tls_info`, which `authenticate` is told.
---@param stream cosocket.Stream
---@return cosocket.Task
function Broker:serve(stream)
  return cosocket.spawn("mqtt broker connection", run, connections.new(self, stream))
end

--- Listens for WebSocket (MQTT 5, 6): binary messages of the subprotocol `mqtt`.
---@async
---@param broker mqtt.Broker
---@param address string
---@param tls cosocket.TlsServerOptions?
---@return websocket.Server? listener
---@return cosocket.Error? err
local function listen_websocket(broker, address, tls)
  return require("websocket").listen(address, function(stream)
    -- [MQTT-6.0.0-3]
    if stream:subprotocol() ~= "mqtt" then return stream:close(1002, "the subprotocol is mqtt") end
    -- Its task ends with the connection.
    run(connections.new(broker, stream --[[@as cosocket.Stream]]))
  end, { subprotocols = { "mqtt" }, origins = "*", tls = tls })
end

local SCHEMES = { tcp = "mqtt", tls = "mqtts", ws = "ws", wss = "wss", unix = "unix" }

--- Listens at one more address.
---@async
---@param address string `"tcp://127.0.0.1:0"`, `"tls://..."`, `"ws://..."`, `"wss://..."` or `"unix:///path"`.
---@param options? {tls: cosocket.TlsServerOptions?} Default: the broker's.
---@return string? address Where: `"127.0.0.1:1883"`, or a path.
---@return cosocket.Error? err
function Broker:listen(address, options)
  options = cosocket.check_options("listen", options, { tls = "tls_server" })
  listening.check("listen", address, options.tls or self.options.tls, 2)
  local scheme = type(address) == "string" and address:match("^(%a+)://")
  if not SCHEMES[scheme] then
    error("listen: the address must begin with tcp://, tls://, ws://, wss:// or unix://", 2)
  end
  local tls = (scheme == "tls" or scheme == "wss") and (options.tls or self.options.tls) or nil
  local listener, err, where
  if scheme == "ws" or scheme == "wss" then
    listener, err = listen_websocket(self, address, tls)
    where = listener and listener:address()
  else
    listener, err = cosocket.listen(address, { tls = tls })
    where = listener and listener:local_address()
    if listener then cosocket.spawn("mqtt broker", acceptor.take_all, listener, log, self.serve, self) end
  end
  if not listener then return nil, err end
  table.insert(self.listeners, { listener = listener, scheme = scheme, address = where })
  return where
end

--- Where it listens: `"127.0.0.1:1883"`, or a path; `nil` when nowhere.
---@param number? integer Which of its addresses, in the order they were given. Default 1.
---@return string?
function Broker:address(number)
  local one = self.listeners[number or 1]
  return one and one.address
end

--- Where it listens, as `mqtt.connect` wants it; `nil` when nowhere.
---@param number? integer As in `address`.
---@return string?
function Broker:url(number)
  local one = self.listeners[number or 1]
  return one and ("%s://%s"):format(SCHEMES[one.scheme], one.address)
end

-- The end ---------------------------------------------------------------------

--- What the broker knows now, as if every connection was lost: sessions that outlive their connections, what waits
--- for them or is not acknowledged, retained messages, wills that are being delayed. A broker with this as its `state`
--- goes on from there. Later changes are not in it, so that a broker that forgets what it has acknowledged is one that
--- goes on from an older snapshot.
---@return mqtt.broker.Snapshot
function Broker:snapshot()
  return { sessions = self.sessions:save(), retained = self.retained:all() }
end

--- Ends every connection and stops to listen. From now on nothing ends and nothing is published.
---@private
---@param finish fun(connection: mqtt.broker.Connection)
---@return true
function Broker:stop(finish)
  if self.closed then return true end
  self.closed = true
  self.forget_stop()
  self.sessions:close()
  for connection in pairs(self.connections) do finish(connection) end
  for _, one in ipairs(self.listeners) do one.listener:close() end
  return true
end

--- Ends every connection, with a word to those who understand it, and stops to listen. Wills are not published. May
--- wait for WebSocket clients to close, too.
---@return true
function Broker:close()
  return self:stop(function(connection) connection:disconnect(reason.server_shutting_down) end)
end

--- Ends as a process does that is killed: nobody is told anything.
---@return true
function Broker:kill()
  return self:stop(function(connection) connection:drop() end)
end

function Broker:__close()
  self:close()
end

local broker = {}

--- Makes a broker.
---@param options mqtt.BrokerOptions?
---@param level integer As of `error`, from the caller.
---@return mqtt.Broker
local function make(options, level)
  options = cosocket.check_options("mqtt.broker", options, OPTIONS, level + 1)
  for name, range in pairs(RANGES) do
    local value = options[name]
    if value and (value < range[1] or value > range[2]) then
      error(("mqtt.broker: %s must be from %d to %d"):format(name, range[1], range[2]), level + 1)
    end
  end
  -- `on_packet` changes it.
  local own = {}
  for name, value in pairs(options) do own[name] = value end
  local self = setmetatable({
    options = own,
    subscriptions = subscriptions.new(),
    retained = retained.new(own.retained_max),
    connections = {},
    connection_count = 0,
    listeners = {},
    closed = false,
  }, Broker)
  self.sessions = sessions.new(own, self.subscriptions, function(message, from) self:take(message, from) end)
  if own.state then
    for _, message in ipairs(own.state.retained) do self.retained:set(message) end
    self.sessions:restore(own.state.sessions)
  end
  self.forget_stop = cosocket.on_stop(function() self:close() end)
  return self
end

--- A broker that listens nowhere: give it streams with `serve`.
---@param options? mqtt.BrokerOptions
---@return mqtt.Broker
function broker.new(options)
  local self = make(options, 2)
  return self
end

--- Starts a broker, in tasks of its own.
---@async
---@param addresses string|string[] `"tcp://127.0.0.1:0"`, `"tls://..."`, `"ws://..."`, `"unix:///path"`, or a list of these.
---@param options? mqtt.BrokerOptions
---@return mqtt.Broker? broker
---@return cosocket.Error? err
function broker.listen(addresses, options)
  if type(addresses) ~= "table" then addresses = { addresses } end
  local tls = type(options) == "table" and options.tls or nil
  for _, address in ipairs(addresses) do listening.check("mqtt.broker", address, tls, 2) end
  local self = make(options, 2)
  for _, address in ipairs(addresses) do
    local ok, err = self:listen(address)
    if not ok then
      self:close()
      return nil, err
    end
  end
  return self
end

return broker
