-- A device that publishes numbers of this machine and takes commands, over MQTT.
--
--     moonwire examples/telemetry.lua [--count N]
--
-- Every second a reading goes to devices/<hostname>/telemetry as JSON, and is printed when it has come back
-- through the broker. Commands are JSON on devices/<hostname>/command:
--
--     {"command": "interval", "seconds": 2}      {"command": "ping"}
--
-- and are answered on the message's response topic, or else on devices/<hostname>/response.
--
-- MQTT_URL  the broker: mqtt://host, mqtts://user:password@host:port, ...  Without it a small broker is started
--           in this process.
-- MQTT_CA   a file with the authority that signed the broker's certificate, for mqtts://.

local broker = require("mqtt.broker")
local cosocket = require("cosocket")
local json = require("json")
local mqtt = require("mqtt")

--- Seconds a reading may take to come back.
local ROUND_TRIP_MAX = 10

---@param status integer
---@param ... string
local function quit(status, ...)
  io.stderr:write("telemetry: ", table.concat({ ... }), "\n")
  os.exit(status)
end

--- `--count N`: how many readings; `math.huge` without.
local function parse_arguments(arguments)
  local usage = "\nusage: moonwire examples/telemetry.lua [--count N]"
  if #arguments == 0 then return math.huge end
  local value = arguments[1] == "--count" and arguments[2] or arguments[1]:match("^%-%-count=(.*)$")
  if arguments[1] ~= "--count" and not value then quit(2, "unknown argument ", arguments[1], usage) end
  local count = math.tointeger(tonumber(value))
  if not count or count < 1 then quit(2, "--count wants a whole number, 1 or more", usage) end
  local extra = arguments[arguments[1] == "--count" and 3 or 2]
  if extra then quit(2, "unknown argument ", extra, usage) end
  return count
end

-- The machine -----------------------------------------------------------------

--- A file of /proc, whole.
local function read_proc(name)
  local file = io.open("/proc/" .. name)
  if not file then quit(1, "there is no /proc/", name, " here: this example reads its numbers from Linux") end
  local text = file:read("a")
  file:close()
  return text
end

local function read_machine(sequence)
  local memory = read_proc("meminfo")
  return {
    sequence = sequence,
    load_1m = tonumber(read_proc("loadavg"):match("^[%d.]+")),
    memory_total_kib = math.tointeger(tonumber(memory:match("MemTotal:%s*(%d+)"))),
    memory_available_kib = math.tointeger(tonumber(memory:match("MemAvailable:%s*(%d+)"))),
    uptime_seconds = tonumber(read_proc("uptime"):match("^[%d.]+")),
  }
end

local function print_reading(reading)
  print(("reading %d: load %.2f, memory %d of %d MiB used, up %d s"):format(
    reading.sequence,
    reading.load_1m,
    (reading.memory_total_kib - reading.memory_available_kib) // 1024,
    reading.memory_total_kib // 1024,
    reading.uptime_seconds // 1
  ))
end

-- The device ------------------------------------------------------------------

local count = parse_arguments(arg)
-- Characters that mean something in a topic are no part of a name.
local device = "devices/" .. read_proc("sys/kernel/hostname"):gsub("%s+$", ""):gsub("[/+#]", "-")

local url, ca = os.getenv("MQTT_URL"), os.getenv("MQTT_CA")
local own_broker
if not url then
  local err
  own_broker, err = broker.listen("tcp://127.0.0.1:0")
  if not own_broker then quit(1, tostring(err)) end
  url = "mqtt://" .. own_broker:address()
  print("MQTT_URL is not set: using a development broker in this process")
end

local client, err = mqtt.connect(url, { tls = ca and url:find("^mqtts:") and { ca = ca } or nil })
if not client then quit(1, tostring(err)) end
print(("connected to %s as %s"):format(url:gsub("//[^@/]*@", "//"), device))
io.stdout:flush()

local interval = 1
local interval_changed, all_back = cosocket.event(), cosocket.event()

--- What each command does; the answer is sent back.
local COMMANDS = {
  ping = function() return { ok = true } end,

  interval = function(command)
    local seconds = command.seconds
    if type(seconds) ~= "number" or not (seconds >= 0.1 and seconds <= 3600) then
      return { ok = false, error = "seconds must be a number from 0.1 to 3600" }
    end
    interval = seconds
    interval_changed:set()
    return { ok = true, seconds = seconds }
  end,
}

local function obey(message)
  local command = json.decode(message.payload)
  local name = type(command) == "table" and command.command
  local known = COMMANDS[name]
  local answer = known and known(command) or { ok = false, error = "a command is wanted: interval or ping" }
  answer.command = name or nil
  print(("command %s: %s"):format(name or "?", answer.ok and "done" or answer.error))
  io.stdout:flush()
  local properties = message.properties or {}
  local topic = properties.response_topic or device .. "/response"
  assert(client:publish(topic, assert(json.encode(answer)), { correlation = properties.correlation_data }))
end

local function show(message)
  local reading = assert(json.decode(message.payload))
  print_reading(reading)
  io.stdout:flush()
  if reading.sequence >= count then all_back:set() end
end

--- Publishes readings until there are enough of them and they have come back.
local function run()
  local ok, why = client:subscribe(device .. "/command", { qos = 1 }, obey)
  if ok then ok, why = client:subscribe(device .. "/telemetry", { qos = 1 }, show) end
  if not ok then return nil, why end
  for sequence = 1, count do
    local reading = assert(json.encode(read_machine(sequence)))
    ok, why = client:publish(device .. "/telemetry", reading, { qos = 1 })
    if not ok then return nil, why end
    if sequence < count then
      interval_changed:clear()
      cosocket.select(interval_changed, interval)
    end
  end
  return cosocket.deadline(ROUND_TRIP_MAX, function() return all_back:wait() end)
end

local stopping = false
cosocket.on_stop(function() stopping = true end)

local ok, why = run()
client:close()
if own_broker then own_broker:close() end
-- A program that is asked to stop closes its clients: that is no failure.
if not ok and not stopping then quit(1, tostring(why)) end
