-- Asks a server of compose.yaml for what it is there for, and prints what it said.
--
--     moonwire conformance/compose/ask.lua mqtt://127.0.0.1:1883

local cosocket = require("cosocket")
local http = require("http")
local mqtt = require("mqtt")
local smtp = require("smtp")
local websocket = require("websocket")

--- Each answers a line that says what came back, or nil and an error.
---@type table<string, async fun(url: string): string?, cosocket.Error?>
local ask = {
  mqtt = function(url)
    local client <close> = assert(mqtt.connect(url, { reconnect = false }))
    local topic, got = "conformance/" .. client:status().client_id, cosocket.queue(1)
    assert(client:subscribe(topic, { qos = 1 }, function(message) got:put(message.payload) end))
    assert(client:publish(topic, "a message of our own", { qos = 1 }))
    return got:get()
  end,

  http = function(url)
    local response, err = http.get(url)
    if not response then return nil, err end
    return ("status %d of %s"):format(response.status, response.headers.server or "nobody")
  end,

  smtp = function(url)
    local message = { from = "pump@example.test", to = "service@example.test", subject = "87", text = "The bearing is hot." }
    local sent, err = smtp.send(url, message, { starttls = "off" })
    if not sent then return nil, err end
    return sent.code .. " " .. sent.text
  end,

  ws = function(url)
    local connection <close> = assert(websocket.connect(url .. "/getCaseCount"))
    local count, err = connection:receive()
    if not count then return nil, err end
    return count .. " cases"
  end,
}

local url = assert(arg[1], "usage: moonwire conformance/compose/ask.lua URL")
local scheme = url:match("^(%a+)://")
local how = assert(ask[scheme], "an address begins with mqtt, http, smtp or ws")
print((assert(cosocket.deadline(20, how, url))))
