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
--- A connected client keeps the program running until it is closed.

local client = require("mqtt.client")
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local drive = require("net.drive")
local publication = require("mqtt.publication")
local session = require("mqtt.session")
local url_module = require("url")

--- Largest packet that is taken, unless an option says otherwise.
local PACKET_MAX = 16777216
--- Bytes of received messages that may wait to be taken.
local RECEIVE_QUEUE_MAX = 1048576
--- QoS 1 messages that may be unacknowledged on their way to us.
local RECEIVE_MAXIMUM = 1000
--- Seconds for name, connection, handshakes and CONNACK together.
local TIMEOUT = 30

local mqtt = {}

---@class mqtt.WillOptions: mqtt.PublishOptions
---@field topic string
---@field payload? string
---@field delay? number Seconds the server waits for us to come back; MQTT 5.

---@class mqtt.Options
---@field version? 5|"3.1.1"|"auto" `"auto"` is 5, and 3.1.1 when the server refuses that. Default "auto".
---@field client_id? string Default: the server assigns one.
---@field username? string Instead of the one in the address.
---@field password? string
---@field keep_alive? integer Seconds within which both sides notice that the other is gone; 0 turns it off. Default 60.
---@field clean_start? boolean `false` goes on with what the server remembers of `client_id`. Default `true`.
---@field session_expiry? integer Seconds the server remembers us after the connection; MQTT 5. Default 0.
---@field will? mqtt.WillOptions What the server publishes when we are lost.
---@field tls? cosocket.TlsOptions For `mqtts://`.
---@field timeout? number Seconds everything may take until the server has accepted us. Default 30.
---@field packet_max? integer Largest packet in bytes that is taken. Default 16777216.
---@field receive_maximum? integer QoS 1 messages that the server may send before the first is acknowledged; MQTT 5. Default 1000.
---@field receive_queue_max? integer Bytes of messages that may wait for a handler or loop; then nothing is read. Default 1048576.
---@field user? [string, string][]|table<string, string> User properties of CONNECT; MQTT 5.

local OPTIONS = {
  version = "integer|string",
  client_id = "string",
  username = "string",
  password = "string",
  keep_alive = "integer",
  clean_start = "boolean",
  session_expiry = "integer",
  will = "table",
  tls = "table",
  timeout = "number",
  packet_max = "integer",
  receive_maximum = "integer",
  receive_queue_max = "integer",
  user = "table",
}

--- The versions to try, in order.
---@type table<any, mqtt.codec.Version[]>
local VERSIONS = { [5] = { 5 }, ["3.1.1"] = { 4 }, auto = { 5, 4 } }

local SCHEMES = { mqtt = 1883, mqtts = 8883, unix = 0 }

--- Raises a mistake in the arguments of `connect`, which called the caller.
---@param message string
local function mistake(message)
  error("mqtt.connect: " .. message, 4)
end

---@class mqtt.Address
---@field address string
---@field tls boolean
---@field username string?
---@field password string?

--- Takes an address apart; raises for what is none.
---@param text string
---@return mqtt.Address
local function parse_address(text)
  if type(text) ~= "string" then mistake(("the address must be a string, not a %s"):format(type(text))) end
  local scheme = text:match("^(%a+)://")
  if not scheme or not SCHEMES[scheme:lower()] then
    mistake(("the address must begin with mqtt://, mqtts:// or unix://, unlike %q"):format(text))
  end
  scheme = scheme:lower()
  if scheme == "unix" then return { address = text, tls = false } end
  local url, err = url_module.parse(text)
  if not url then mistake(err and err.message or "not an address") end
  ---@cast url url.Url
  if not url.host or url.host == "" then mistake(("%q names no host"):format(text)) end
  if (url.path ~= "" and url.path ~= "/") or url.query or url.fragment then
    mistake("an address has no path: topics are named in publish and subscribe")
  end
  local host = url.host:find(":", 1, true) and ("[%s]"):format(url.host) or url.host
  return {
    address = ("%s://%s:%d"):format(scheme == "mqtts" and "tls" or "tcp", host, url.port or SCHEMES[scheme]),
    tls = scheme == "mqtts",
    username = url.username,
    password = url.password,
  }
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

--- Bounds that the protocol sets.
---@param options mqtt.Options
---@param address mqtt.Address
local function check_together(options, address)
  local function range(name, least, most)
    local value = options[name]
    if value and (value < least or value > most) then
      mistake(("%s must be from %d to %d"):format(name, least, most))
    end
  end
  range("keep_alive", 0, 65535)
  range("session_expiry", 0, 0xFFFFFFFF)
  range("packet_max", 1, 268435460)
  range("receive_maximum", 1, 65535)
  range("receive_queue_max", 1, math.maxinteger)
  if options.version and not VERSIONS[options.version] then mistake("version must be 5, \"3.1.1\" or \"auto\"") end
  if options.clean_start == false and (options.client_id or "") == "" then
    mistake("clean_start = false needs a client_id that the server knows again")
  end
  if options.tls and not address.tls then mistake("tls goes with mqtts://") end
end

--- Why the server refused, in its words.
---@param connack mqtt.Connack
---@param version mqtt.codec.Version
---@return cosocket.Error
local function refusal(connack, version)
  local code, properties = connack.reason_code, connack.properties or {}
  local words = codec.reason(code, version) or ("reason code 0x%02X"):format(code)
  local reason = properties.reason_string
  local message = ("the server refused the connection: %s%s"):format(words, reason and (" (%s)"):format(reason) or "")
  return cosocket.error("refused", "mqtt.connect", message, {
    code = code,
    reason = reason,
    server_reference = properties.server_reference,
  })
end

--- Connects once, in one version.
---@async
---@param open fun(seconds: number): cosocket.Stream?, cosocket.Error?
---@param options mqtt.Options
---@param session_options mqtt.SessionOptions
---@param deadline number
---@return mqtt.Client? client
---@return cosocket.Error? err
---@return boolean? other_version Another version may be what the server wants.
local function attempt(open, options, session_options, deadline)
  local stream, err = open(math.max(0, deadline - cosocket.now()))
  if not stream then return nil, err end
  local one = session.new(session_options)
  session_options.timeout = math.max(0, deadline - cosocket.now())
  local input = cosocket.buffer()
  local connack, ok
  ok, err = one:connect(cosocket.now())
  if ok then connack, err = drive.next_event(stream, one, input) end
  if not connack then
    stream:close()
    ---@cast err cosocket.Error
    if err.kind ~= "closed" then return nil, err end
    local message = "the server closed the connection instead of answering CONNECT"
    return nil, cosocket.error("closed", "mqtt.connect", message, { cause = err }), true
  end
  if connack.reason_code ~= 0 then
    stream:close()
    return nil, refusal(connack, one.version), connack.reason_code == 0x84
  end
  return client.new(stream, one, input, options.receive_queue_max or RECEIVE_QUEUE_MAX)
end

--- Connects to a server: `"mqtt://host"`, `"mqtts://user:password@host:port"` or `"unix:///path"`. A stream that is
--- connected already does too; then only one version is tried.
---@async
---@param url string|cosocket.Stream
---@param options? mqtt.Options
---@return mqtt.Client? client
---@return cosocket.Error? err `refused` with `code` when the server says no; `resolve`, `connect`, `tls`, `timeout`, `closed`
function mqtt.connect(url, options)
  options = cosocket.check_options("mqtt.connect", options, OPTIONS)
  local address, open = nil, nil
  if type(url) == "userdata" then
    address = { address = "", tls = false }
    ---@cast url cosocket.Stream
    open = function() return url end
  else
    ---@cast url string
    address = parse_address(url)
    open = function(seconds)
      return cosocket.connect(address.address, { timeout = seconds, tls = address.tls and options.tls or nil })
    end
  end
  check_together(options, address)
  local will = check_will(options.will)
  local user = publication.user_properties("mqtt.connect", options.user)
  local deadline = cosocket.now() + (options.timeout or TIMEOUT)
  local last_err
  for _, version in ipairs(VERSIONS[options.version or "auto"]) do
    local connected, err, other_version = attempt(open, options, {
      version = version,
      client_id = options.client_id,
      username = options.username or address.username,
      password = options.password or address.password,
      keep_alive = options.keep_alive,
      clean_start = options.clean_start,
      session_expiry = options.session_expiry,
      will = will,
      packet_max = options.packet_max or PACKET_MAX,
      receive_maximum = options.receive_maximum or RECEIVE_MAXIMUM,
      properties = user and { user_property = user } or nil,
    }, deadline)
    if connected then return connected end
    last_err = err
    if not other_version or type(url) == "userdata" then break end
  end
  return nil, last_err
end

return mqtt
