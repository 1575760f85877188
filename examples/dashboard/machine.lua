--- Readings of a Linux machine, from the files of /proc and /sys. What a machine does not have is absent from its
--- readings; nothing here fails.

local cosocket = require("cosocket")

--- Sensors of temperature that are looked for, and those that are shown.
local ZONES_MAX, SENSORS_MAX = 16, 4
--- Interfaces that carry what others carry already.
local VIRTUAL = { "^lo$", "^veth", "^docker", "^br%-", "^virbr", "^ifb" }

---@class dashboard.Reading
---@field at number Seconds since 1970.
---@field every number Seconds to the next one.
---@field busy number? Per cent of all processors.
---@field load number[]? Of the last minute, five and fifteen.
---@field memory {used: integer, total: integer}? Bytes.
---@field network {received: number, sent: number}? Bytes in a second.
---@field temperatures {name: string, celsius: number?}[]? Of a sensor that does not answer, its name.
---@field uptime number? Seconds.

---@class dashboard.Machine
local Machine = {}
Machine.__index = Machine

--- What is in a file, or `nil`.
local function read(path)
  local file <close> = io.open(path)
  -- Some sensors can be opened and do not answer.
  return file and file:read("a")
end

local function first_line(path)
  local line = (read(path) or ""):match("^[^\n%z]+")
  return line and line:match("^%s*(.-)%s*$")
end

-- Temperature -----------------------------------------------------------------

--- The files to read, found once: thermal zones, or else what monitors the hardware.
local function find_sensors(sys)
  local found = {}
  local function look(path, name)
    if #found < SENSORS_MAX and tonumber(first_line(path)) then found[#found + 1] = { path = path, name = name } end
  end
  for i = 0, ZONES_MAX - 1 do
    local zone = ("%s/class/thermal/thermal_zone%d/"):format(sys, i)
    look(zone .. "temp", first_line(zone .. "type") or "zone " .. i)
  end
  if found[1] then return found end
  for i = 0, ZONES_MAX - 1 do
    local chip = ("%s/class/hwmon/hwmon%d/"):format(sys, i)
    for input = 1, SENSORS_MAX do
      local name = first_line(chip .. ("temp%d_label"):format(input)) or first_line(chip .. "name")
      look(chip .. ("temp%d_input"):format(input), name or "sensor " .. i)
    end
  end
  return found
end

function Machine:temperatures()
  local list = {}
  for i, sensor in ipairs(self.sensors) do
    local thousandths = tonumber(first_line(sensor.path))
    list[i] = { name = sensor.name, celsius = thousandths and thousandths / 1000 }
  end
  return list[1] and list
end

-- Processor, memory, network --------------------------------------------------

--- Per cent of the time since the last reading in which processors had something to do.
function Machine:busy()
  local line = (read(self.proc .. "/stat") or ""):match("^cpu +([^\n]+)")
  if not line then return nil end
  local all, idle, column = 0, 0, 0
  for ticks in line:gmatch("%d+") do
    column = column + 1
    -- user nice system IDLE IOWAIT irq softirq steal; guests are counted among users.
    if column <= 8 then all = all + ticks end
    if column == 4 or column == 5 then idle = idle + ticks end
  end
  local before = self.ticks
  self.ticks = { all = all, idle = idle }
  if not before or all <= before.all then return nil end
  return 100 * math.max(0, 1 - (idle - before.idle) / (all - before.all))
end

function Machine:load()
  local one, five, fifteen = (read(self.proc .. "/loadavg") or ""):match("^([%d.]+) ([%d.]+) ([%d.]+)")
  return one and { tonumber(one), tonumber(five), tonumber(fifteen) }
end

function Machine:memory()
  local text = read(self.proc .. "/meminfo") or ""
  local total = tonumber(text:match("MemTotal:%s*(%d+)"))
  local available = tonumber(text:match("MemAvailable:%s*(%d+)") or text:match("MemFree:%s*(%d+)"))
  return total and available and { used = (total - available) * 1024, total = total * 1024 }
end

local function is_virtual(interface)
  for _, pattern in ipairs(VIRTUAL) do
    if interface:find(pattern) then return true end
  end
  return false
end

--- Bytes in a second since the last reading.
function Machine:network()
  local received, sent, any = 0, 0, false
  for interface, numbers in (read(self.proc .. "/net/dev") or ""):gmatch("([^%s:]+):([%d ]+)") do
    if not is_virtual(interface) then
      local columns = {}
      for number in numbers:gmatch("%d+") do columns[#columns + 1] = tonumber(number) end
      received, sent, any = received + (columns[1] or 0), sent + (columns[9] or 0), true
    end
  end
  if not any then return nil end
  local before, now = self.traffic, cosocket.now()
  self.traffic = { received = received, sent = sent, at = now }
  -- An interface that went away took its numbers along.
  if not before or now <= before.at or received < before.received or sent < before.sent then return nil end
  local seconds = now - before.at
  return { received = (received - before.received) / seconds, sent = (sent - before.sent) / seconds }
end

-- The machine -----------------------------------------------------------------

--- Takes a reading. What is counted, such as bytes, is told from the second one on.
---@param every number Seconds to the next one.
---@return dashboard.Reading
function Machine:read(every)
  -- The wall's clock knows whole seconds only; it is followed when somebody sets it.
  local now, wall = cosocket.now(), os.time()
  if math.abs(wall - self.epoch - now) > 2 then self.epoch = wall - now end
  return {
    at = self.epoch + now,
    every = every,
    busy = self:busy(),
    load = self:load(),
    memory = self:memory(),
    network = self:network(),
    temperatures = self:temperatures(),
    uptime = tonumber((read(self.proc .. "/uptime") or ""):match("^[%d.]+")),
  }
end

local machine = {}

--- The machine whose files are in these folders: /proc and /sys, but in a container.
---@param proc string
---@param sys string
---@return dashboard.Machine
function machine.new(proc, sys)
  local release = first_line(proc .. "/sys/kernel/osrelease")
  local _, cores = (read(proc .. "/stat") or ""):gsub("\ncpu%d", "")
  return setmetatable({
    proc = proc,
    sensors = find_sensors(sys),
    epoch = os.time() - cosocket.now(),
    name = first_line(proc .. "/sys/kernel/hostname") or "device",
    model = first_line(sys .. "/firmware/devicetree/base/model") or first_line(sys .. "/class/dmi/id/product_name"),
    system = release and "Linux " .. release:match("^[%d.]*%d"),
    cores = cores > 0 and cores or nil,
  }, Machine)
end

return machine
