-- A device that takes commands and answers each of them, by MQTT 5's request and response.
--
--     moonwire examples/responder.lua
--
-- Whoever asks gives a response topic with the command; `client:respond` publishes there, with the correlation data
-- that tells answers apart, and `client:request` does the other half: here it plays the operator.
--
-- MQTT_URL  the broker. Without it a development broker is started in this process.
-- MQTT_CA   a file with the authority that signed the broker's certificate, for mqtts://

local cosocket = require("cosocket")
local development = require("mqtt.broker")
local json = require("json")
local mqtt = require("mqtt")

local COMMANDS_TOPIC = "devices/responder-1/command"

local broker
local url, ca = os.getenv("MQTT_URL"), os.getenv("MQTT_CA")
if not url then
  broker = assert(development.listen("tcp://127.0.0.1:0"))
  url = broker:url()
end
local options = { version = 5, tls = ca and { ca = ca } or nil }

-- The device --------------------------------------------------------------------

local valve = "closed"

--- What each command does; what it returns is the answer.
local COMMANDS = {
  status = function() return { ok = true, valve = valve } end,

  set_valve = function(command)
    if command.to ~= "open" and command.to ~= "closed" then return { ok = false, error = "to: open or closed" } end
    valve = command.to
    return { ok = true, valve = valve }
  end,
}

local device <close> = assert(mqtt.connect(url, options))
assert(device:subscribe(COMMANDS_TOPIC, { qos = 1 }, function(message)
  local command = json.decode(message.payload)
  local known = type(command) == "table" and COMMANDS[command.command]
  local answer = known and known(command) or { ok = false, error = "no such command" }
  -- An error here is the asker's loss only: it waits until its time is over.
  assert(device:respond(message, assert(json.encode(answer)), { content_type = "application/json" }))
end))

-- The operator ------------------------------------------------------------------

local operator <close> = assert(mqtt.connect(url, options))

--- Asks the device, and waits for its answer for at most 5 seconds.
local function ask(command)
  local response, err = operator:request(COMMANDS_TOPIC, assert(json.encode(command)), 5)
  if not response then return print(command.command .. ": " .. err.message) end
  local answer = assert(json.decode(response.payload))
  print(("%s: %s"):format(command.command, answer.ok and "valve " .. answer.valve or answer.error))
end

ask({ command = "status" })
ask({ command = "set_valve", to = "open" })
ask({ command = "set_valve", to = "ajar" })
ask({ command = "dance" })

-- Many may ask at once: each gets the answer to its own question.
local answers = {}
cosocket.group(function()
  for i = 1, 10 do
    cosocket.spawn(function() answers[i] = operator:request(COMMANDS_TOPIC, '{"command":"status"}') end)
  end
end)
print(("%d of 10 questions answered"):format(#answers))

operator:close()
device:close()
if broker then broker:close() end
