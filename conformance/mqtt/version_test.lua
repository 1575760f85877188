-- The version of the protocol, when it is left open and when it is not.
-- run for: transport

local broker = require("broker")
local test = require("test")

--- Shows that messages pass.
---@param client mqtt.Client
local function works(client)
  local topic = broker.topic()
  local inbox = broker.inbox(client, topic)
  broker.publish(client, topic, "through")
  test.equal(broker.next(inbox).payload, "through")
end

return {
  ["[3.1.2.2] a client that leaves the version open gets the highest that the broker speaks"] = function()
    local client <close> = broker.connect({ version = "auto" })
    test.equal(client:status().version, broker.lacks("MQTT 5") and "3.1.1" or 5)
    works(client)
  end,

  ["[3.1.2.2] a client that insists on version 5 gets it, or hears that it cannot"] = function()
    local client, err = broker.try_connect({ version = 5 })
    if broker.lacks("MQTT 5") then
      test.fails(err.code and "refused" or "closed", client, err)
      test.equal(err.code, err.code and 0x84)
    else
      local owned <close> = assert(client, err)
      works(owned)
    end
  end,

  ["[MQTT-3.1.2-2] a client that insists on version 3.1.1 gets it"] = function()
    local client <close> = broker.connect({ version = "3.1.1" })
    test.equal(client:status().version, "3.1.1")
    works(client)
  end,
}
