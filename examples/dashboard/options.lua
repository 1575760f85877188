--- The options of the command line. Each may come from the environment, too: `--listen` from DASHBOARD_LISTEN.

local OPTIONS = {
  { "listen", "ADDRESS", "127.0.0.1:8080", "where to listen; 0.0.0.0:8080 is for the whole network" },
  { "state", "FILE", "dashboard.db", "what is remembered: the relay, the interval, the log" },
  { "relay", "FILE", nil, "write 0 or 1 here to switch: /sys/class/leds/LED/brightness, .../gpio17/value" },
  { "proc", "FOLDER", "/proc", "where the machine's numbers are, if this is a container" },
  { "sys", "FOLDER", "/sys", "where its sensors are" },
}

local function help()
  print("usage: moonwire examples/dashboard/main.lua [OPTIONS]\n\nServes a page with live charts of this machine, a switch and a log.\n")
  for _, option in ipairs(OPTIONS) do
    local name, value, default, text = table.unpack(option, 1, 4)
    local otherwise = default and (" [%s]"):format(default) or ""
    print(("  --%-16s %s%s"):format(name .. " " .. value, text, otherwise))
  end
  print("  --check            connect to the page's own service, show what it says, and end")
  print("  --help             this text\n")
  print("Each option may be a variable instead: DASHBOARD_LISTEN and so on. DASHBOARD_TOKEN keeps strangers out;")
  print("MQTT_URL and MQTT_CA name a broker. The head of main.lua has more.")
end

local options = {}

---@class dashboard.Options
---@field listen string
---@field state string
---@field relay string?
---@field proc string
---@field sys string
---@field check boolean

---@param arguments string[]
---@return dashboard.Options
function options.parse(arguments)
  local found = { check = false }
  for _, option in ipairs(OPTIONS) do
    local name, default = option[1], option[3]
    found[name] = os.getenv("DASHBOARD_" .. name:upper()) or default
  end
  local at = 1
  while arguments[at] do
    local name, value = arguments[at]:match("^%-%-(%a+)=?(.*)$")
    local known = false
    for _, option in ipairs(OPTIONS) do known = known or option[1] == name end
    if name == "help" then
      help()
      os.exit(0)
    elseif name == "check" then
      found.check = true
    elseif known then
      if not arguments[at]:find("=", 1, true) then
        at = at + 1
        value = arguments[at]
      end
      if not value or value == "" then
        io.stderr:write(("dashboard: --%s wants a value; --help says which\n"):format(name))
        os.exit(2)
      end
      found[name] = value
    else
      io.stderr:write(("dashboard: unknown argument %s; --help lists the known ones\n"):format(arguments[at]))
      os.exit(2)
    end
    at = at + 1
  end
  return found
end

return options
