--- The broker under test: where it is, clients of it, witnesses that are not ours, and topics nobody else uses.
---
--- The harness says where the broker is in the environment, and runs each file for version 5 and 3.1.1, over each
--- transport. A case that needs more than this broker has says so with `broker.needs`, and is skipped.

local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local mqtt = require("mqtt")
local test = require("test")
local urls = require("url")

--- Seconds in which anything that is to happen has happened. Nobody waits this long unless something is wrong.
local PATIENCE = 10
--- Messages an inbox holds before whoever fills it has to wait.
local INBOX_CAPACITY = 20000

---@param name string
---@return string?
local function setting(name)
  return os.getenv("MOONWIRE_MQTT_" .. name)
end

local broker = {
  ---@type 5|"3.1.1"
  version = setting("VERSION") == "3.1.1" and "3.1.1" or 5,
  ---@type "tcp"|"tls"|"ws"|"wss"
  transport = setting("TRANSPORT") or "tcp",
  --- Files: certificates and keys.
  ca = setting("CA"),
  other_ca = setting("OTHER_CA"),
  certificate = setting("CERTIFICATE"),
  key = setting("KEY"),
  other_certificate = setting("OTHER_CERTIFICATE"),
  other_key = setting("OTHER_KEY"),
  --- What the password listener knows.
  user = setting("USER"),
  password = setting("PASSWORD"),
  --- Addresses of the listeners.
  urls = {
    tcp = setting("TCP_URL"),
    tls = setting("TLS_URL"),
    ws = setting("WS_URL"),
    wss = setting("WSS_URL"),
    password = setting("PASSWORD_URL"),
    client_certificate = setting("CLIENT_CERTIFICATE_URL"),
    expired = setting("EXPIRED_URL"),
    wrong_name = setting("WRONG_NAME_URL"),
    --- One that takes little: see servers/NAME/limits.conf.
    limits = setting("LIMITS_URL"),
  },
}
local urls_of = broker.urls
broker.url = urls_of[broker.transport] or urls_of.tls or urls_of.ws or urls_of.wss

-- Names -----------------------------------------------------------------------

--- The name of a case for the version under test: `"[5: A; 3.1.1: B] what"` is `"[A] what"` or `"[B] what"`,
--- `"[5: A] what"` is no case of version 3.1.1, and `"[A] what"` is the same for both.
---@param name string
---@return string?
local function name_for_version(name)
  local clauses, statement = name:match("^%[([^%]]*: [^%]]*)%](.*)$")
  if not clauses then return name end
  for part in clauses:gmatch("[^;]+") do
    local version, clause = part:match("^%s*([%d.]+): (.+)$")
    if not version then error(("%q: a clause is `VERSION: CLAUSE`"):format(name), 0) end
    if version == tostring(broker.version) then return ("[%s]%s"):format(clause, statement) end
  end
  return nil
end

--- The cases of a file that are cases of the version under test, by their names for it.
---@param cases table<string, fun()>
---@return table<string, fun()>
function broker.cases(cases)
  local chosen = {}
  for name, case in pairs(cases) do
    local chosen_name = name_for_version(name)
    if chosen_name then
      chosen[chosen_name] = function()
        if broker.version == 5 then broker.requires("MQTT 5") end
        case()
      end
    end
  end
  return chosen
end

--- Ends the case as skipped unless there is what it needs: only a broker that the harness started has it all.
---@generic T
---@param value? T
---@param what string
---@return T
function broker.needs(value, what)
  if value == nil then test.skip("it needs " .. what) end
  return value
end

--- What this broker does not offer: see servers/NAME/lacks.txt.
local lacked = {}
for feature in (setting("LACKS") or ""):gmatch("[^,]+") do lacked[feature] = true end

--- Whether the broker is known not to offer a feature.
---@param feature string
---@return boolean
function broker.lacks(feature)
  return lacked[feature] == true
end

--- Ends the case as skipped when the broker is known not to offer a feature.
---@param feature string As servers/NAME/lacks.txt has it.
function broker.requires(feature)
  if lacked[feature] then test.skip("lacks " .. feature) end
end

--- The highest QoS that it delivers.
broker.qos_max = lacked["QoS 2"] and 1 or 2

--- A topic that no other case and no other run uses.
---@param last? string Last level.
---@return string
function broker.topic(last)
  return ("moonwire/%s/%s"):format(hex.encode(crypto.random_bytes(6)), last or "topic")
end

--- A client identifier that nobody else uses, of letters and digits as every broker takes them [MQTT-3.1.3-5].
---@return string
function broker.client_id()
  return "moonwire" .. hex.encode(crypto.random_bytes(6))
end

-- Waiting ---------------------------------------------------------------------

--- Runs `fn` and raises when it has not ended in time.
---@async
---@param what string
---@param fn fun(...): ...
---@return any ...
function broker.soon(what, fn, ...)
  local began = cosocket.now()
  local function answer(value, err, ...)
    if value == nil and cosocket.is_error(err, "timeout") and cosocket.now() - began >= PATIENCE then
      error(("%s: not within %d s"):format(what, PATIENCE), 0)
    end
    return value, err, ...
  end
  return answer(cosocket.deadline(PATIENCE, fn, ...))
end

-- Clients ---------------------------------------------------------------------

--- Tries to connect; `options.url` may be another listener's, `options.ca` another authority or `false`. The client has
--- one connection, unless the case wants another: none is to be lost unnoticed.
---@async
---@param options? table
---@return mqtt.Client? client
---@return cosocket.Error? err
function broker.try_connect(options)
  options = options or {}
  local url = options.url or broker.url
  local all = { version = broker.version, reconnect = false }
  for key, value in pairs(options) do
    if key ~= "url" and key ~= "ca" then all[key] = value end
  end
  if (url:find("^mqtts:") or url:find("^wss:")) and options.ca ~= false and (options.ca or broker.ca) then
    all.tls = all.tls or {}
    all.tls.ca = options.ca or broker.ca
  end
  return broker.soon("connecting", mqtt.connect, url, all)
end

--- Connects, and raises when that fails.
---@async
---@param options? table
---@return mqtt.Client
function broker.connect(options)
  return (assert(broker.try_connect(options)))
end

--- Connects a client that comes back by itself, soon, to a session that outlives its connections.
---@async
---@param options? table
---@return mqtt.Client client
---@return cosocket.Queue connections A CONNACK for each connection.
function broker.returning(options)
  local connections = cosocket.queue(INBOX_CAPACITY)
  local all = {
    client_id = broker.client_id(),
    clean_start = false,
    session_expiry = 60,
    reconnect = { delay_min = 0.02, delay_max = 0.2 },
    on_connected = function(_, connack) connections:put(connack) end,
  }
  for key, value in pairs(options or {}) do all[key] = value end
  local client = broker.connect(all)
  broker.next(connections)
  return client, connections
end

--- Has the broker forget the session of a client, and closes it.
---@async
---@param client mqtt.Client
function broker.forget(client)
  local client_id = client:status().client_id
  client:close()
  broker.connect({ client_id = client_id, clean_start = true }):close()
end

--- Subscribes; messages arrive in the queue that is answered.
---@async
---@param client mqtt.Client
---@param filter string|string[]
---@param options? table
---@return cosocket.Queue
function broker.inbox(client, filter, options)
  local queue = cosocket.queue(INBOX_CAPACITY)
  local function keep(message) queue:put(message) end
  assert(broker.soon("subscribing", client.subscribe, client, filter, options or { qos = 1 }, keep))
  return queue
end

--- The next message of an inbox.
---@async
---@param inbox cosocket.Queue
---@return table
function broker.next(inbox)
  return (assert(broker.soon("a message", inbox.get, inbox)))
end

--- Publishes, and raises when that fails.
---@async
---@param client mqtt.Client
---@param topic string
---@param payload string
---@param options? table
---@return any answer
function broker.publish(client, topic, payload, options)
  return (assert(broker.soon("publishing", client.publish, client, topic, payload, options or { qos = 1 })))
end

--- Waits until a client's connection has ended by itself. Answers why.
---@async
---@param client mqtt.Client
---@return cosocket.Error err
function broker.wait_for_end(client)
  broker.soon("the end of the connection", function()
    for _ in client:messages() do end
    return true
  end)
  return client:status().error
end

-- Witnesses -------------------------------------------------------------------

---@param text string
---@return string
local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- A command of Mosquitto's own clients, which come in by the plain listener where there is one.
---@param program string
---@param arguments string[]
---@return string
local function command(program, arguments)
  local url = broker.urls.tcp or broker.url
  if not url:find("^mqtts?:") then test.skip(program .. " speaks MQTT over TCP and TLS only") end
  local address = assert(urls.parse(url))
  local secure = address.scheme == "mqtts"
  local port = tostring(address.port_or_default)
  local all = { program, "-h", address.host, "-p", port, "-V", broker.version == 5 and "5" or "311" }
  local function also(option, value)
    all[#all + 1] = option
    all[#all + 1] = quoted(value)
  end
  if address.username then also("-u", address.username) end
  if address.password then also("-P", address.password) end
  if secure and broker.ca then
    also("--cafile", broker.ca)
  elseif secure then
    also("--capath", "/etc/ssl/certs")
  end
  for _, argument in ipairs(arguments) do all[#all + 1] = quoted(argument) end
  return table.concat(all, " ")
end

--- Publishes with `mosquitto_pub`.
---@param topic string
---@param payload string
---@param options? {qos: integer?, retain: boolean?, more: string[]?} `more`: arguments of its own.
function broker.publish_elsewhere(topic, payload, options)
  options = options or {}
  local arguments = { "-t", topic, "-q", tostring(options.qos or 1), "-s" }
  if options.retain then arguments[#arguments + 1] = "-r" end
  table.move(options.more or {}, 1, #(options.more or {}), #arguments + 1, arguments)
  local pipe = assert(io.popen(command("mosquitto_pub", arguments), "w"))
  pipe:write(payload)
  assert(pipe:close(), "mosquitto_pub failed")
end

--- Has `mosquitto_rr` send a request, and `mosquitto_pub` publish the response it gets, while we go on.
---@param topic string
---@param payload string
---@param response_topic string
---@param to string Where the response is published.
function broker.request_elsewhere(topic, payload, response_topic, to)
  local asking = command("mosquitto_rr", { "-t", topic, "-m", payload, "-q", "1", "-W", "5", "-e", response_topic })
  local telling = command("mosquitto_pub", { "-t", to, "-q", "1", "-s" })
  assert(os.execute(("(%s | %s) >/dev/null 2>&1 &"):format(asking, telling)))
end

--- What is retained, as `mosquitto_sub` receives it.
---@param topic string
---@return {qos: integer, retain: boolean, payload: string}? message `nil` when there is none.
function broker.retained_elsewhere(topic)
  local arguments = { "-t", topic, "-q", "2", "-C", "1", "-W", "1", "-F", "%q %r %x" }
  local pipe = assert(io.popen(command("mosquitto_sub", arguments) .. " 2>&1", "r"))
  local line = pipe:read("a")
  pipe:close()
  local qos, retain, payload = line:match("^(%d) (%d) (%x*)")
  if not qos then return nil end
  return { qos = tonumber(qos), retain = retain == "1", payload = hex.decode(payload) }
end

return broker
