-- MQTT over WebSocket, to the development broker.
local broker = require("mqtt.broker")
local cosocket = require("cosocket")
local log = require("log")
local mqtt = require("mqtt")
local test = require("test")
local websocket = require("websocket")

-- Lost connections are told, on purpose.
log.level("off")

return {
  ["clients of WebSocket and of TCP meet, in both versions and with large messages"] = function()
    local one <close> = assert(broker.listen({ "ws://127.0.0.1:0", "tcp://127.0.0.1:0" }))
    test.equal(one:url(), "ws://" .. one:address())
    local new <close> = assert(mqtt.connect(one:url() .. "/mqtt"))
    local old <close> = assert(mqtt.connect(one:url() .. "/mqtt", { version = "3.1.1" }))
    local plain <close> = assert(mqtt.connect(one:url(2)))
    local got = cosocket.queue(8)
    for _, client in ipairs({ new, old, plain }) do
      assert(client:subscribe("t", { qos = 2 }, function(message) got:put(#message.payload) end))
    end
    test.equal(new:publish("t", ("x"):rep(500000), { qos = 2 }), 0)
    test.equal(plain:publish("t", "y", { qos = 1 }), 0)
    local sizes = {}
    for i = 1, 6 do sizes[i] = assert(got:get()) end
    table.sort(sizes)
    test.equal(sizes, { 1, 1, 1, 500000, 500000, 500000 })
  end,

  ["a client of WebSocket comes back to its session after the broker was killed"] = function()
    local one = assert(broker.listen("ws://127.0.0.1:0"))
    local address = one:address()
    local client <close> = assert(mqtt.connect(one:url(), {
      client_id = "c",
      clean_start = false,
      reconnect = { delay_min = 0.01, delay_max = 0.02 },
    }))
    local got = cosocket.queue(8)
    assert(client:subscribe("t", { qos = 1 }, function(message) got:put(message.payload) end))
    local state = one:snapshot()
    one:kill()
    local two <close> = assert(broker.listen("ws://" .. address, { state = state }))
    two:publish("t", "while away", { qos = 1 })
    test.equal(got:get(), "while away")
  end,

  ["a client that does not ask for the subprotocol is not served, nor is one that sends text"] = function()
    local one <close> = assert(broker.listen("ws://127.0.0.1:0"))
    local wrong = assert(websocket.connect(one:url()))
    local _, err = wrong:receive()
    test.equal({ err and err.kind, err and err.code }, { "closed", 1002 })
    local text = assert(websocket.connect(one:url(), { subprotocols = { "mqtt" } }))
    text:send("hello")
    _, err = text:receive()
    -- [MQTT-6.0.0-1]
    test.equal({ err and err.kind, err and err.code }, { "closed", 1003 })
    test.equal(one:clients(), {})
  end,
}
