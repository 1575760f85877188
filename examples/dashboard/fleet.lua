--- The broker's side of the dashboard: other devices are seen, and this one is seen and switched.
---
--- | topic | carries |
--- |---|---|
--- | `devices/NAME/telemetry` | readings, as JSON, of this device and of others |
--- | `devices/NAME/relay` | `on` or `off`: what this device's relay is; retained |
--- | `devices/NAME/relay/set` | `on` or `off`: what it shall be |

local cosocket = require("cosocket")
local json = require("json")
local log = require("log").new("dashboard")
local mqtt = require("mqtt")

--- Devices that are shown, numbers of each, bytes of their names, and bytes of a message.
local DEVICES_MAX, NUMBERS_MAX, NAME_MAX, PACKET_MAX = 50, 6, 64, 65536
--- Seconds between two looks at what is new: others may publish as often as they like.
local PACE = 1

---@class dashboard.Fleet
local Fleet = {}
Fleet.__index = Fleet

--- What is shown of a message: a few of its numbers.
local function numbers_of(payload)
  local reading = json.decode(payload)
  if type(reading) ~= "table" then return nil end
  local names, numbers = {}, {}
  for name, value in pairs(reading) do
    if type(name) == "string" and #name <= NAME_MAX and type(value) == "number" then names[#names + 1] = name end
  end
  table.sort(names)
  for i = 1, math.min(#names, NUMBERS_MAX) do numbers[i] = { name = names[i], value = reading[names[i]] } end
  return numbers[1] and numbers
end

--- Another device has published.
function Fleet:heard(message)
  local name = message.topic:match("^devices/([^/]+)/telemetry$")
  if not name or name == self.name or #name > NAME_MAX then return end
  local numbers = numbers_of(message.payload)
  if not numbers then return end
  if not self.devices[name] then
    if self.count >= DEVICES_MAX then return end
    self.count = self.count + 1
  end
  self.devices[name] = { name = name, at = os.time(), numbers = numbers }
  self.changed = true
end

--- Somebody wants the relay on or off.
function Fleet:asked(message)
  local wanted = ({ on = true, off = false })[message.payload]
  if wanted == nil then return log.warn("neither on nor off", { topic = message.topic }) end
  self.on_command(wanted)
end

--- Subscribes once the broker is there, and tells whenever there is something new.
local function run(self)
  cosocket.spawn("subscriptions", function()
    local client = self.client
    local ok, err = client:subscribe("devices/+/telemetry", { qos = 0 }, function(message) self:heard(message) end)
    if ok then
      -- What was asked for before we came, and was kept by the broker, is no command any more.
      local options = { qos = 1, retain_handling = 2 }
      ok, err = client:subscribe(self.topic .. "/relay/set", options, function(message) self:asked(message) end)
    end
    if not ok then log.error("no subscription", { error = err }) end
  end)
  while true do
    if self.changed then
      self.changed = false
      local list = {}
      for _, device in pairs(self.devices) do list[#list + 1] = device end
      table.sort(list, function(a, b) return a.name < b.name end)
      self.on_devices(list)
    end
    cosocket.sleep(PACE)
  end
end

--- Publishes a reading, if there is a connection: an old one is of no use.
---@async
---@param reading dashboard.Reading
function Fleet:publish(reading)
  if self:status().state ~= "connected" then return end
  local memory = reading.memory or {}
  self.client:publish(self.topic .. "/telemetry", assert(json.encode({
    busy_percent = reading.busy,
    load_1m = reading.load and reading.load[1],
    memory_used_kib = memory.used and memory.used // 1024,
    memory_total_kib = memory.total and memory.total // 1024,
    uptime_seconds = reading.uptime,
  })))
end

--- Publishes what the relay is. The broker hears of it when it is back, if it is away.
---@async
---@param on boolean
function Fleet:publish_relay(on)
  self.client:publish_nowait(self.topic .. "/relay", on and "on" or "off", { qos = 1, retain = true })
end

--- How the connection is, for the page.
---@return {state: string, address: string}
function Fleet:status()
  local status = self.client:status()
  return { state = status.state, address = status.address }
end

local fleet = {}

---@class dashboard.FleetOptions
---@field ca string? File with the authority that signed the broker's certificate.
---@field name string What this device is called.
---@field on_command fun(on: boolean) The relay shall be switched.
---@field on_devices fun(devices: table[]) Others were heard.
---@field on_status fun(status: {state: string, address: string}) The connection has come, or has gone.

--- Connects to the broker; it need not be there yet.
---@async
---@param url string
---@param options dashboard.FleetOptions
---@return dashboard.Fleet? fleet
---@return cosocket.Error? err
function fleet.connect(url, options)
  -- Characters that mean something in a topic are no part of a name.
  local name = options.name:gsub("[/+#]", "-")
  local self = setmetatable({
    name = name,
    topic = "devices/" .. name,
    on_command = options.on_command,
    on_devices = options.on_devices,
    devices = {},
    count = 0,
    changed = false,
  }, Fleet)
  local function tell() options.on_status(self:status()) end
  local err
  self.client, err = mqtt.connect(url, {
    wait = false,
    packet_max = PACKET_MAX,
    tls = options.ca and url:find("^mqtts:") and { ca = options.ca } or nil,
    on_connected = tell,
    on_disconnected = tell,
  })
  if not self.client then return nil, err end
  cosocket.spawn("fleet", run, self)
  return self
end

return fleet
