-- Large messages, and ones that are too large.

local broker = require("broker")
local crypto = require("crypto")
local test = require("test")

--- The brokers of the harness take packets up to 2 MiB, where that can be told to them.
local LARGE = 1024 * 1024
local TOO_LARGE = 2 * 1024 * 1024

return broker.cases({
  ["[MQTT-3.3.2-1] a payload of one mebibyte comes back as it went, at each QoS"] = function()
    local client <close> = broker.connect()
    local topic, payload = broker.topic(), crypto.random_bytes(LARGE)
    local inbox = broker.inbox(client, topic, { qos = 2 })
    for qos = 0, broker.qos_max do
      broker.publish(client, topic, payload, { qos = qos })
      local message = broker.next(inbox)
      assert(message.payload == payload, "the payload has changed")
      test.equal(message.qos, qos)
    end
  end,

  ["[MQTT-3.3.2-1] mosquitto_sub receives a mebibyte as we sent it"] = function()
    local client <close> = broker.connect()
    local topic, payload = broker.topic(), crypto.random_bytes(LARGE)
    broker.publish(client, topic, payload, { qos = 1, retain = true })
    assert(broker.retained_elsewhere(topic).payload == payload, "the payload has changed")
    broker.publish(client, topic, "", { qos = 1, retain = true })
  end,

  ["[MQTT-3.3.2-1] sizes around the steps of the length's encoding come back as they went"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    -- One to three bytes of remaining length (1.5.5; 2.2.3 in version 3.1.1).
    for _, step in ipairs({ 128, 16384 }) do
      for size = step - #topic - 8, step + 8 do
        local payload = ("p"):rep(math.max(0, size))
        broker.publish(client, topic, payload, { qos = 0 })
        test.equal(#broker.next(inbox).payload, #payload)
      end
    end
  end,

  ["[5: MQTT-3.1.2-24] the broker does not send a packet larger than we take, and goes on with the next"] = function()
    local client <close> = broker.connect({ packet_max = 500 })
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    broker.publish_elsewhere(topic, ("x"):rep(1000))
    broker.publish_elsewhere(topic, "small")
    test.equal(broker.next(inbox).payload, "small")
  end,

  ["[5: MQTT-3.2.2-15] a packet larger than the broker takes is not sent, and the connection lives"] = function()
    local client <close> = broker.connect()
    local size = client:status().server.maximum_packet_size
    if not size then broker.requires("Maximum Packet Size") end
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    test.fails("limit", client:publish(topic, ("x"):rep(size), { qos = 1 }))
    broker.publish(client, topic, "small")
    test.equal(broker.next(inbox).payload, "small")
  end,

  ["[3.1.1: MQTT-4.8.0-1] a packet larger than the broker takes ends the connection, and the publisher hears of it"] = function()
    broker.requires("a limit of packets")
    local client = broker.connect()
    local published, err =
      broker.soon("an answer", client.publish, client, broker.topic(), ("x"):rep(TOO_LARGE), { qos = 1 })
    test.fails("closed", published, err)
  end,
})
