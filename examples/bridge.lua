-- A bridge between two brokers: what a site's own broker gets for the cloud is handed on, and commands come back.
--
--     moonwire examples/bridge.lua
--
-- A message is acknowledged to the one broker when the other has it: while either of them is away, nothing is lost.
--
-- MQTT_URL         the site's broker. Without it a development broker is started in this process.
-- MQTT_REMOTE_URL  the other broker. Default: another development broker; with MQTT_URL that broker again, below the
--                  topic `cloud/`.
-- MQTT_CA          a file with the authority that signed the brokers' certificates, for mqtts://

local cosocket = require("cosocket")
local development = require("mqtt.broker")
local mqtt = require("mqtt")

--- Topics on the other side begin with this, so that two sides on one broker are told apart.
local PREFIX = "cloud/site-1/"

local brokers = {}
local ca = os.getenv("MQTT_CA")

--- The address in a variable, or of a development broker.
local function address_of(name, otherwise)
  local url = os.getenv(name) or otherwise
  if url then return url end
  local broker = assert(development.listen("tcp://127.0.0.1:0"))
  brokers[#brokers + 1] = broker
  return broker:url()
end

local site_url = address_of("MQTT_URL")
local cloud_url = address_of("MQTT_REMOTE_URL", os.getenv("MQTT_URL"))

local function connect(url, client_id)
  -- The session outlives the bridge: what comes while it is away waits at the broker.
  return assert(mqtt.connect(url, {
    client_id = client_id,
    clean_start = client_id == nil,
    tls = ca and url:find("^mqtts:") and { ca = ca } or nil,
  }))
end

-- The bridge --------------------------------------------------------------------

local site, cloud = connect(site_url, "bridge-site-1"), connect(cloud_url, "bridge-cloud-1")

--- Hands a message on: all of it, and only what it was.
local function forward(message, to, topic)
  local properties = message.properties or {}
  -- `publish` returns when the other broker has acknowledged; only then does the handler return, and is the message
  -- acknowledged where it came from.
  assert(to:publish(topic, message.payload, {
    qos = message.qos,
    retain = message.retain,
    content_type = properties.content_type,
    expiry = properties.message_expiry_interval,
    user = properties.user_property,
  }))
end

-- With `retain_as_published` what is retained here is retained there; with `no_local` a bridge does not hear itself.
local up = { qos = 1, retain_as_published = true, no_local = true }
assert(site:subscribe("telemetry/#", up, function(message) forward(message, cloud, PREFIX .. message.topic) end))
assert(cloud:subscribe(PREFIX .. "command/#", { qos = 1, no_local = true }, function(message)
  forward(message, site, message.topic:sub(#PREFIX + 1))
end))

-- A device at the site, and somebody in the cloud ---------------------------------

local device, operator = connect(site_url), connect(cloud_url)
local lines = cosocket.queue(10)
local function show(who)
  return function(message) lines:put(("%s: %s = %s"):format(who, message.topic, message.payload)) end
end
assert(operator:subscribe(PREFIX .. "telemetry/#", { qos = 1 }, show("cloud")))
assert(device:subscribe("command/#", { qos = 1 }, show("site")))

assert(device:publish("telemetry/level", "0.7", { qos = 1 }))
print(cosocket.deadline(10, function() return lines:get() end))
assert(operator:publish(PREFIX .. "command/pump", "on", { qos = 1 }))
print(cosocket.deadline(10, function() return lines:get() end))

for _, client in ipairs({ device, operator, site, cloud }) do client:close() end
for _, broker in ipairs(brokers) do broker:close() end
