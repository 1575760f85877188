--- MQTT 3.1.1 and 5: publish and subscribe.
---
---     local mqtt = require("mqtt")
---
---     local client <close> = assert(mqtt.connect("mqtts://user:password@broker.example"))
---     assert(client:subscribe("devices/+/command", { qos = 1 }, function(message)
---       print(message.topic, message.payload)
---     end))
---     assert(client:publish("devices/7/state", "on", { qos = 1, retain = true }))
---
--- A client connects again by itself when the connection is lost, sends again what was not acknowledged, and tells a
--- server that has forgotten it what it had subscribed to. It keeps the program running until it is closed.

local addresses = require("mqtt.address")
local backoff = require("mqtt.backoff")
local client = require("mqtt.client")
local codec = require("mqtt.codec")
local connection = require("mqtt.connection")
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local publication = require("mqtt.publication")

--- Largest packet that is taken, unless an option says otherwise.
local PACKET_MAX = 16777216
--- QoS 1 and 2 messages that may be unacknowledged on their way to us.
local RECEIVE_MAXIMUM = 1000
--- Topic aliases in each direction.
local TOPIC_ALIAS_MAX = 32
--- Seconds the server remembers a session that is to outlive connections, and one that is to outlive programs.
local SESSION_EXPIRY = 3600
local SESSION_EXPIRY_KEPT = 7 * 86400

local mqtt = {}

---@class mqtt.WillOptions: mqtt.PublishOptions
---@field topic string
---@field payload? string
---@field delay? number Seconds the server waits for us to come back; MQTT 5.

--- Enhanced authentication (MQTT 5, 4.12): a challenge and a response, as often as the server wants.
---@class mqtt.Authentication
---@field method string The name of the method, such as `"SCRAM-SHA-256"`.
---@field data? string|fun(): string? What is sent first; asked for anew for each connection.
---@field answer fun(data: string?, done: boolean): string?, any What to answer to the server's data. `done`: the server is content, and nothing is answered. A second result is an error, and ends the connection.

---@class mqtt.Options
---@field version? 5|"3.1.1"|"auto" `"auto"` is 5, and 3.1.1 when the server refuses that. Default "auto".
---@field client_id? string Default: the server assigns one; with a store, one is made and kept.
---@field username? string Instead of the one in the address.
---@field password? string|fun(): string A function is asked for each connection: for passwords that expire.
---@field authentication? mqtt.Authentication Enhanced authentication; MQTT 5.
---@field keep_alive? integer Seconds within which both sides notice that the other is gone; 0 turns it off. Default 60. While a packet is still leaving, or coming, over a slow line, we wait; but a server may count whole packets, and end the connection when one takes one and a half times as long [MQTT-3.1.2-22] (3.1.1: [MQTT-3.1.2-24]): choose it longer than the largest message takes there.
---@field clean_start? boolean `true`: nothing is remembered from before the program started, nor after it has closed. `false` goes on with what the server remembers of `client_id`. Default `true`; with a store what both remember goes on, and a new store begins anew.
---@field session_expiry? integer Seconds the server remembers us without a connection; MQTT 5. Default 3600; 604800 with `clean_start = false` or a store; 0 with `reconnect = false`.
---@field will? mqtt.WillOptions What the server publishes when we are lost.
---@field tls? cosocket.TlsOptions For `mqtts://` and `wss://`.
---@field timeout? number Seconds everything may take until a server has accepted us, for each address. Default 30.
---@field wait? boolean `false`: do not wait for the first connection, and queue meanwhile. Default `true`.
---@field reconnect? boolean|mqtt.ReconnectOptions Connect again after a connection was lost. Default `true`.
---@field follow_reference? boolean Go where the server says, with the same credentials (Server Reference; MQTT 5). Default `false`.
---@field store? string File of the database in which QoS 1 and 2 messages on their way survive the program.
---@field queue_max? integer Messages that may wait to be sent. Default 10000.
---@field queue_bytes_max? integer Bytes of them. Default 16777216.
---@field queue_policy? "reject"|"drop_oldest"|"drop_newest" When no more may wait: `reject` fails the publish, `drop_newest` too and counts it, `drop_oldest` makes room. Default "reject".
---@field in_flight_max? integer QoS 1 and 2 messages that are sent before the first is acknowledged; fewer when the server says so. Default: what the server says; 20 with 3.1.1.
---@field packet_max? integer Largest packet in bytes that is taken. Default 16777216.
---@field receive_maximum? integer QoS 1 and 2 messages that the server may send before the first is acknowledged; MQTT 5. Default 1000.
---@field receive_queue_max? integer Bytes of messages that may wait for a handler or loop; then nothing is read. Default 1048576.
---@field topic_alias_max? integer Topic aliases the server may use, and that are used at most; MQTT 5. 0 turns them off. Default 32.
---@field response_topic? string What the topics for responses to `request` begin with. Default: what the server says, or `response/CLIENT_ID`.
---@field request_response_information? boolean Ask the server what response topics begin with; MQTT 5. Default `false`.
---@field user? [string, string][]|table<string, string> User properties of CONNECT; MQTT 5.
---@field on_connected? fun(client: mqtt.Client, connack: mqtt.Connack) Called after each connection is made, in a task of its own.
---@field on_disconnected? fun(client: mqtt.Client, err: cosocket.Error) Called after each connection that is lost and will be made again.

local OPTIONS = {
  version = "integer|string",
  client_id = "string",
  username = "string",
  password = "string|function",
  authentication = "table",
  keep_alive = "integer",
  clean_start = "boolean",
  session_expiry = "integer",
  will = "table",
  tls = "tls",
  timeout = "number",
  wait = "boolean",
  reconnect = "boolean|table",
  follow_reference = "boolean",
  store = "string",
  queue_max = "integer",
  queue_bytes_max = "integer",
  queue_policy = "string",
  in_flight_max = "integer",
  packet_max = "integer",
  receive_maximum = "integer",
  receive_queue_max = "integer",
  topic_alias_max = "integer",
  response_topic = "string",
  request_response_information = "boolean",
  user = "table",
  on_connected = "function",
  on_disconnected = "function",
}

local AUTHENTICATION = { method = "string", data = "string|function", answer = "function" }

--- The least and the greatest of what the protocol or sense allows.
---@type table<string, {[1]: integer, [2]: integer}>
local RANGES = {
  keep_alive = { 0, 65535 },
  session_expiry = { 0, 0xFFFFFFFF },
  in_flight_max = { 1, 65535 },
  packet_max = { 1, 268435460 },
  receive_maximum = { 1, 65535 },
  receive_queue_max = { 1, math.maxinteger },
  queue_max = { 0, math.maxinteger },
  queue_bytes_max = { 0, math.maxinteger },
  topic_alias_max = { 0, 65535 },
}

local POLICIES = { reject = true, drop_oldest = true, drop_newest = true }

--- The versions to try, in order.
---@type table<any, mqtt.codec.Version[]>
local VERSIONS = { [5] = { 5 }, ["3.1.1"] = { 4 }, auto = { 5, 4 } }

--- Raises a mistake in the arguments of `connect`, which called the caller.
---@param message string
local function mistake(message)
  error("mqtt.connect: " .. message, 4)
end

--- The addresses of a call.
---@param url string|string[]
---@return mqtt.Address[]
local function check_addresses(url)
  if url == nil or (type(url) == "table" and #url == 0) then mistake("an address is wanted, or a list of them") end
  local list = type(url) == "table" and url or { url }
  local servers = {}
  for i, text in ipairs(list) do
    local one, wrong = addresses.parse(text)
    if not one then mistake(wrong --[[@as string]]) end
    servers[i] = one
  end
  return servers
end

--- The will as the session wants it.
---@param will mqtt.WillOptions?
---@return table?
local function check_will(will)
  if not will then return nil end
  local options = {}
  for name, value in pairs(will) do
    if name ~= "topic" and name ~= "payload" and name ~= "delay" then options[name] = value end
  end
  if type(will.topic) ~= "string" or not codec.valid_topic(will.topic) then mistake("the will needs a topic") end
  if will.payload ~= nil and type(will.payload) ~= "string" then mistake("the payload of the will must be a string") end
  if will.delay ~= nil and (math.type(will.delay) ~= "integer" or will.delay < 0) then
    mistake("the delay of the will must be a number of whole seconds")
  end
  local qos, retain, properties = publication.check("mqtt.connect: will", options, 4)
  if will.delay then
    properties = properties or {}
    properties.will_delay_interval = will.delay
  end
  return { topic = will.topic, payload = will.payload, qos = qos, retain = retain, properties = properties }
end

--- What the options must be, and what goes with what.
---@param options mqtt.Options
---@param servers mqtt.Address[]
local function check_together(options, servers)
  for name, range in pairs(RANGES) do
    local value = options[name]
    if value and (value < range[1] or value > range[2]) then
      mistake(("%s must be from %d to %d"):format(name, range[1], range[2]))
    end
  end
  if options.version and not VERSIONS[options.version] then mistake("version must be 5, \"3.1.1\" or \"auto\"") end
  if options.queue_policy and not POLICIES[options.queue_policy] then
    mistake("queue_policy must be \"reject\", \"drop_oldest\" or \"drop_newest\"")
  end
  if options.clean_start == false and (options.client_id or "") == "" and not options.store then
    mistake("clean_start = false needs a client_id that the server knows again")
  end
  if options.clean_start and options.store then
    mistake("a store goes on where the last program ended: clean_start = true would forget that")
  end
  if options.response_topic and not codec.valid_topic(options.response_topic) then
    mistake(("response_topic: %q is not a topic"):format(options.response_topic))
  end
  if options.tls then
    local any = false
    for _, server in ipairs(servers) do any = any or server.tls end
    if not any then mistake("tls goes with mqtts:// and wss://") end
  end
  local authentication = options.authentication
  if authentication then
    cosocket.check_options("mqtt.connect: authentication", authentication, AUTHENTICATION, 3)
    if not authentication.method or not authentication.answer then
      mistake("authentication needs a method and an answer")
    elseif options.version == "3.1.1" then
      mistake("authentication needs MQTT 5")
    end
  end
end

--- Opens the store, and settles who we are.
---@async
---@param options mqtt.Options
---@return mqtt.Journal? journal
---@return string|cosocket.Error? client_id
local function open_store(options)
  local client_id = options.client_id
  if client_id == "" then client_id = nil end
  local journal, err = require("mqtt.store").open(options.store, client_id)
  if not journal then return nil, err end
  return journal, client_id or journal.client_id or "moonwire-" .. hex.encode(crypto.random_bytes(6))
end

--- Seconds the server is to remember us.
---@param options mqtt.Options
---@param reconnects any
---@param clean boolean
---@return integer
local function session_expiry(options, reconnects, clean)
  if options.session_expiry then return options.session_expiry end
  if not clean then return SESSION_EXPIRY_KEPT end
  return reconnects and SESSION_EXPIRY or 0
end

--- What most clients leave as it is, once for all of them.
local SESSION_DEFAULTS = {
  __index = { packet_max = PACKET_MAX, receive_maximum = RECEIVE_MAXIMUM, topic_alias_max = TOPIC_ALIAS_MAX },
}

--- The options of the session: what was given, and defaults.
---@param options mqtt.Options
---@param more mqtt.SessionOptions
---@return mqtt.SessionOptions
local function session_options(options, more)
  local all = setmetatable({}, SESSION_DEFAULTS)
  for name, value in pairs(more) do all[name] = value end
  for _, name in ipairs({ "keep_alive", "packet_max", "receive_maximum", "in_flight_max", "topic_alias_max" }) do
    all[name] = options[name]
  end
  return all
end

--- Connects to a server: `"mqtt://host"`, `"mqtts://user:password@host:port"`, `"ws://host/path"`, `"wss://host/path"` or
--- `"unix:///path"`; or to one of a list, which are tried in order and round. A stream that is connected already does
--- too; then only one version is tried, once.
---@async
---@param url string|string[]|cosocket.Stream
---@param options? mqtt.Options
---@return mqtt.Client? client
---@return cosocket.Error? err `refused` with `code` when the server says no; `resolve`, `connect`, `tls`, `timeout`, `closed`; `io` for the store
function mqtt.connect(url, options)
  options = cosocket.check_options("mqtt.connect", options, OPTIONS)
  local servers, versions = nil, VERSIONS[options.version or "auto"]
  local reconnect = options.reconnect
  if reconnect == nil then reconnect = true end
  if type(url) == "userdata" then
    ---@cast url cosocket.Stream
    servers = { { stream = url, text = "", target = "", tls = false, websocket = false } }
    versions, reconnect = versions and { versions[1] }, false
  else
    ---@cast url string|string[]
    servers = check_addresses(url)
  end
  check_together(options, servers)
  backoff.check("mqtt.connect: reconnect", reconnect, 2)
  local will = check_will(options.will)
  local user = publication.user_properties("mqtt.connect", options.user, 3)
  local clean, journal, client_id = options.clean_start, nil, options.client_id
  if clean == nil then clean = options.store == nil end
  if options.store then
    local answer
    journal, answer = open_store(options)
    if not journal then return nil, answer --[[@as cosocket.Error]] end
    client_id = answer --[[@as string]]
  end
  local asks = options.request_response_information
  local self = client.new({
    options = options,
    session_options = session_options(options, {
      version = versions[1],
      client_id = client_id,
      session_expiry = session_expiry(options, reconnect, clean),
      will = will,
      properties = (user or asks) and { user_property = user, request_response_information = asks } or nil,
    }),
    servers = servers,
    versions = versions,
    clean = clean,
    journal = journal,
    reconnect = reconnect,
  })
  return client.start(self, options.wait ~= false)
end

return mqtt
