-- A device with a page: live charts of this machine, a switch, a log.
--
--     moonwire examples/dashboard/main.lua [--listen ADDRESS] [--relay FILE] ...
--
-- and open the address it prints. The page (the folder page/ beside this file) is files for the browser and nothing
-- else; it speaks JSON-RPC with this script over one WebSocket: it calls what stands in METHODS below, follows the
-- streams there, and is told notices. `--help` lists the options.
--
-- machine.lua   reads /proc and /sys           settings.lua  remembers, in SQLite
-- feed.lua      values that many pages follow  fleet.lua     MQTT
-- options.lua   the command line               check.lua     --check: a page in Lua, for tests
--
-- DASHBOARD_TOKEN  who opens the page must have it: http://ADDRESS/#token=TOKEN, or the page asks for it. Without one it
--                  must be opened by an IP address, as localhost, or by this machine's own name.
-- MQTT_URL         a broker: readings are published, other devices are shown, commands come in; see fleet.lua.
-- MQTT_CA          a file with the authority that signed the broker's certificate, for mqtts://

local cosocket = require("cosocket")
local feed = require("feed")
local fleet = require("fleet")
local http = require("http")
local machine = require("machine")
local options = require("options").parse(arg)
local settings = require("settings")
local wsrpc = require("wsrpc")

--- Readings that are kept for pages that come later, and entries of the log.
local READINGS, ENTRIES = 1800, 100
--- Seconds between readings that a page may ask for.
local INTERVALS = { [0.5] = true, [1] = true, [2] = true, [5] = true }

--- The page may load what this server has, and nothing else; nobody may put it into a frame.
local HEADERS = {
  ["Content-Security-Policy"] = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    .. "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    .. "require-trusted-types-for 'script'",
  ["X-Content-Type-Options"] = "nosniff",
  ["Referrer-Policy"] = "no-referrer",
}

local function quit(...)
  io.stderr:write("dashboard: ", table.concat({ ... }), "\n")
  os.exit(1)
end

-- What the device knows -------------------------------------------------------

local store, err = settings.open(options.check and ":memory:" or options.state, ENTRIES)
if not store then quit(options.state, ": ", tostring(err)) end

local device = machine.new(options.proc, options.sys)
local relay = { on = store:get("relay") == 1, since = store:get("relay_since"), output = options.relay }
local interval = store:get("interval")
if not INTERVALS[interval] then interval = 1 end

--- What pages follow.
local readings, states, entries, devices = feed.new(READINGS), feed.new(1), feed.new(ENTRIES), feed.new(1)
for _, entry in ipairs(store:entries()) do entries:add(entry) end

local server, service, link ---@type http.Server, wsrpc.Server, dashboard.Fleet?
local interval_changed = cosocket.event()

--- Tells everybody how things are.
local function tell_state()
  states:add({
    device = { name = device.name, model = device.model, system = device.system, cores = device.cores },
    has_sensors = device.sensors[1] ~= nil,
    relay = relay,
    interval = interval,
    broker = link and link:status(),
  })
end

local function note(kind, text)
  entries:add(store:note(kind, text))
end

-- What the device does --------------------------------------------------------

--- Sets the pin, if there is one.
---@return true? ok
---@return cosocket.Error? err
local function set_pin(on)
  if not options.relay then return true end
  local pin, why = io.open(options.relay, "w")
  local done = pin
  if pin then
    -- A driver that refuses says so when it is written to.
    pin:setvbuf("no")
    done, why = pin:write(on and "1\n" or "0\n")
    pin:close()
  end
  if done then return true end
  return nil, cosocket.error("io", "relay", why or options.relay)
end

--- Puts the relay into a position, and remembers it.
---@param who string
---@return true? ok
---@return cosocket.Error? err
local function switch(on, who)
  local ok, why = set_pin(on)
  local since = os.time()
  if ok then ok, why = store:set({ relay = on and 1 or 0, relay_since = since }) end
  if not ok then return nil, why end
  if relay.on ~= on then
    relay.on, relay.since = on, since
    note("relay", ("Relay switched %s by %s"):format(on and "on" or "off", who))
  end
  tell_state()
  if link then link:publish_relay(on) end
  return true
end

--- Takes readings, as long as the program runs: a task.
local function take_readings()
  while true do
    local reading = device:read(interval)
    readings:add(reading)
    if link then link:publish(reading) end
    interval_changed:clear()
    cosocket.select(interval_changed, interval)
  end
end

--- Where a page is; asked first when it comes, and remembered when it has gone.
local function host_of(peer)
  peer.data.host = peer.data.host or peer.request.peer:gsub(":%d+$", "")
  return peer.data.host
end

-- What the page may call ------------------------------------------------------

local function stream(values, summary)
  return { function(emit) values:follow(emit) end, stream = true, summary = summary }
end

local METHODS = {
  readings = stream(readings, "Lists of readings: first what is kept, then each as it is taken"),
  state = stream(states, "The device, its relay and its broker, whenever they change"),
  log = stream(entries, "Lists of entries: first the last ones, then each as it is made"),
  devices = stream(devices, "Other devices at the broker"),

  set_relay = {
    function(peer, on)
      local ok, why = switch(on, "the page at " .. host_of(peer))
      if ok then return true end
      note("error", "The relay could not be switched: " .. why.message)
      return nil, wsrpc.error(1, "the relay does not answer")
    end,
    params = { { name = "on", schema = { type = "boolean" } } },
    summary = "Switches the relay",
    with_peer = true,
  },

  set_interval = {
    function(peer, seconds)
      if not INTERVALS[seconds] then return nil, wsrpc.error(2, "0.5, 1, 2 or 5 seconds") end
      if seconds == interval then return true end
      interval = seconds
      store:set({ interval = seconds })
      note("settings", ("A reading every %g s, says the page at %s"):format(seconds, host_of(peer)))
      interval_changed:set()
      tell_state()
      return true
    end,
    params = { { name = "seconds", schema = { type = "number" } } },
    summary = "Seconds between readings",
    with_peer = true,
  },
}

-- Serving ---------------------------------------------------------------------

--- Whether a page was opened under a name that is ours. Without a token to ask for, others are refused: anybody's name
--- can be made to lead here, and then his page would pass for ours (DNS rebinding).
local function is_ours(request)
  local host = (request.headers:get("host") or ""):gsub(":%d+$", ""):lower()
  local name = device.name:lower()
  return host == "localhost" or host == name or host == name .. ".local" or host:find("^[%d.]+$") or host:find("^%[")
end

local function serve()
  server = http.server.new({ body_max = 0 })
  server:static("/", arg[0]:match("^(.*)/[^/]*$") .. "/page", { headers = HEADERS })
  local token = os.getenv("DASHBOARD_TOKEN")
  if token and not token:find("^[%w%-._~+/]+=*$") then quit("DASHBOARD_TOKEN: letters, digits and -._~+/ are wanted") end
  service = assert(wsrpc.serve(server, METHODS, {
    title = "dashboard",
    compression = true,
    token = token,
    authorize = not token and function(request) return is_ours(request), 403 end or nil,
    on_connect = function(peer) note("page", "Page opened at " .. host_of(peer)) end,
    on_disconnect = function(peer) note("page", "Page closed at " .. host_of(peer)) end,
  }))
  local address = options.check and "127.0.0.1:0" or options.listen
  local ok, why = server:listen("tcp://" .. address)
  if not ok then quit("cannot listen at ", address, ": ", tostring(why)) end
  print(("dashboard: http://%s/"):format((server:address():gsub("^0%.0%.0%.0", device.name))))
  if not token and not server:address():find("^127%.") and not server:address():find("^%[::1%]") then
    print("whoever reaches this address may switch the relay: DASHBOARD_TOKEN keeps others out")
  end
  io.stdout:flush()
end

--- Connects to the broker, if one is set.
local function connect()
  local url = os.getenv("MQTT_URL")
  if not url then return end
  local why
  link, why = fleet.connect(url, {
    ca = os.getenv("MQTT_CA"),
    name = device.name,
    on_command = function(on)
      if on == relay.on then return end
      local ok, wrong = switch(on, "a command over MQTT")
      if not ok then return note("error", "The relay could not be switched: " .. wrong.message) end
      service:broadcast("notice", { text = ("Relay switched %s over MQTT"):format(on and "on" or "off") })
    end,
    on_devices = function(list) devices:add(list) end,
    on_status = function(status)
      note("broker", ("Broker %s: %s"):format(status.address, status.state))
      tell_state()
    end,
  })
  if not link then quit(tostring(why)) end
  link:publish_relay(relay.on)
end

-- Where the power was away, the pin has forgotten.
local ok, wrong = set_pin(relay.on)
if not ok then quit(tostring(wrong)) end
serve()
connect()
note("start", "Started")
tell_state()
cosocket.spawn("readings", take_readings)

if options.check then
  require("check").run(server:address())
  cosocket.stop()
end
