--- What `--check` does: asks the service what its page would ask, and shows the answers.

local http = require("http")
local wsrpc = require("wsrpc")

local check = {}

---@async
---@param address string
function check.run(address)
  local response = assert(http.get(("http://%s/"):format(address)))
  print(("the page: %d %s"):format(response.status, response.headers["content-type"]))

  local peer <close> = assert(wsrpc.connect(("ws://%s/rpc"):format(address), { token = os.getenv("DASHBOARD_TOKEN") }))
  for readings in peer:stream("readings") do
    local reading = readings[#readings]
    local load, memory = reading.load and reading.load[1], reading.memory or {}
    print(("a reading: load %s, memory %s of %s bytes"):format(load, memory.used, memory.total))
    break
  end

  local states <close> = assert(peer:subscribe("state"))
  --- Waits until the page would see the relay like this.
  local function see(on)
    repeat
      local list = assert(states:next())
    until list[#list].relay.on == on
    print("the relay: " .. (on and "on" or "off"))
  end
  see(false)
  for _, on in ipairs({ true, false }) do
    assert(peer:call("set_relay", { on = on }))
    see(on)
  end

  local _, err = peer:call("set_relay", { on = "perhaps" })
  print("nonsense: " .. err.message)
end

return check
