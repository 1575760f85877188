-- A program as a service of systemd: it says when it is ready, after each round of work that it is alive, and when it stops.
--
--     moonwire examples/service.lua
--
-- With this unit it runs until it is stopped, and is started anew when a round takes longer than 30 seconds:
--
--     [Service]
--     Type=notify
--     ExecStart=/usr/local/bin/moonwire /opt/device/service.lua
--     WatchdogSec=30
--     Restart=on-failure
--
-- Without systemd it plays that part, too, and stops the service after three rounds.

local cosocket = require("cosocket")

local path, watchdog_usec = os.getenv("NOTIFY_SOCKET"), os.getenv("WATCHDOG_USEC")
local heard_all

-- What systemd does ------------------------------------------------------------

if not path then
  path, watchdog_usec, heard_all = os.tmpname(), "20000", cosocket.event()
  os.remove(path)
  local socket = assert(cosocket.udp({ bind = "unix://" .. path, mode = tonumber("600", 8) }))
  cosocket.spawn("systemd", function()
    local alive = 0
    for state in function() return socket:receive() end do
      print("systemd hears " .. state)
      if state == "WATCHDOG=1" then alive = alive + 1 end
      if state == "WATCHDOG=1" and alive == 3 then cosocket.stop() end
      if state == "STOPPING=1" then heard_all:set() end
    end
  end)
end

-- The service ------------------------------------------------------------------

--- Tells systemd how the service is: sd_notify(3).
local systemd <close> = assert(cosocket.udp({ connect = "unix://" .. path }))
local function tell(state) assert(systemd:send(state)) end

local stopping = false
cosocket.on_stop(function()
  stopping = true
  tell("STOPPING=1")
  if heard_all then heard_all:wait() end
end)

--- One round of what the device is for.
local function work() cosocket.sleep(0.001) end

-- Twice as often as systemd wants to hear it.
local pause = (tonumber(watchdog_usec) or 60e6) / 1e6 / 2

tell("READY=1")
while not stopping do
  work()
  if not stopping then tell("WATCHDOG=1") end
  cosocket.sleep(pause)
end
