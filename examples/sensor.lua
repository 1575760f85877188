-- A sensor that loses no reading: not when the broker is away, not when the program is restarted or the power fails.
--
--     moonwire examples/sensor.lua
--
-- Readings are published at QoS 1 by a client with a `store`: a reading is on disk before the program goes on, and stays
-- there until the broker has it. A program that starts again with the same store goes on where the last one ended.
--
-- MQTT_URL      the broker. Without it a development broker is started in this process, is down for a while, and
--               comes back, as brokers do.
-- MQTT_CA       a file with the authority that signed the broker's certificate, for mqtts://
-- SENSOR_STORE  the file of the store. Default: one in /tmp that is removed in the end.

local cosocket = require("cosocket")
local development = require("mqtt.broker")
local mqtt = require("mqtt")

local DEVICE = "sensor-1"
local TOPIC = ("devices/%s/temperature"):format(DEVICE)

local given_store = os.getenv("SENSOR_STORE")
local store = given_store or os.tmpname()

local broker
local url, ca = os.getenv("MQTT_URL"), os.getenv("MQTT_CA")
if not url then
  broker = assert(development.listen("tcp://127.0.0.1:0"))
  url = broker:url()
end

--- The sensor's connection. It does not wait for the broker: readings are taken whether it is there or not.
local function connect()
  return assert(mqtt.connect(url, {
    client_id = DEVICE,
    store = store,
    wait = false,
    reconnect = { delay_min = 0.1, delay_max = 5 },
    tls = ca and { ca = ca } or nil,
  }))
end

--- Takes a reading. When this returns, it will be delivered, whatever happens.
local function take_reading(client, number)
  local reading = ('{"reading":%d,"celsius":%.1f}'):format(number, 20 + number / 10)
  return assert(client:publish_nowait(TOPIC, reading, { qos = 1 }))
end

-- Somebody looks on, to show that every reading arrives. QoS 1 brings some twice.
local watcher = assert(mqtt.connect(url, { tls = ca and { ca = ca } or nil, reconnect = { delay_min = 0.1 } }))
local arrived, arrivals = {}, cosocket.queue(100)
assert(watcher:subscribe(TOPIC, { qos = 1 }, function(message)
  local number = message.payload:match('"reading":(%d+)')
  if arrived[number] then return end
  arrived[number] = true
  arrivals:put(number)
end))

--- Waits for the next readings.
local function see(count)
  for _ = 1, count do print("arrived: reading " .. assert(cosocket.deadline(20, arrivals.get, arrivals))) end
end

local client = connect()
for number = 1, 2 do take_reading(client, number) end
see(2)

-- The broker goes away. Readings go on; they wait on disk.
local address, state
if broker then
  address, state = broker:address(), broker:snapshot()
  broker:kill()
end
for number = 3, 4 do take_reading(client, number) end
print("taken: readings 3 and 4")

-- The program is restarted, and takes more.
client:close()
client = connect()
for number = 5, 6 do take_reading(client, number) end
print("started again: readings 5 and 6")

-- The broker comes back, with what it knew.
if broker then broker = assert(development.listen("tcp://" .. address, { state = state })) end

see(4)
watcher:close()
client:close()
if broker then broker:close() end
if not given_store then
  for _, suffix in ipairs({ "", "-wal", "-shm" }) do os.remove(store .. suffix) end
end
