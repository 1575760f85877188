-- MQTT in the binary frames of a WebSocket connection (MQTT 5, 6; MQTT 3.1.1, 6).
-- run for: version, websocket

local broker = require("broker")
local crypto = require("crypto")
local proxy = require("proxy")
local test = require("test")

local cases = {
  ["[MQTT-6.0.0-1] messages of each QoS pass in both directions"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic, { qos = 2 })
    for qos = 0, broker.qos_max do
      broker.publish(client, topic, "at " .. qos, { qos = qos })
      local message = broker.next(inbox)
      test.equal({ message.payload, message.qos }, { "at " .. qos, qos })
    end
  end,

  ["[MQTT-6.0.0-2] packets are taken as they come, however frames cut them"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic, { qos = 1 })
    local tickets = {}
    for i = 1, 100 do tickets[i] = assert(client:publish_nowait(topic, tostring(i), { qos = 1 })) end
    for i = 1, 100 do test.equal(broker.next(inbox).payload, tostring(i)) end
    for _, ticket in ipairs(tickets) do assert(broker.soon("PUBACK", ticket.wait, ticket)) end
  end,

  ["[MQTT-6.0.0-2] a packet of many frames is one packet"] = function()
    local client <close> = broker.connect()
    local topic, payload = broker.topic(), crypto.random_bytes(30000)
    local inbox = broker.inbox(client, topic, { qos = 1 })
    broker.publish(client, topic, payload, { qos = 1 })
    assert(broker.next(inbox).payload == payload, "the payload has changed")
  end,

  ["[MQTT-6.0.0-1] half a mebibyte gets to the broker, and to others over TCP"] = function()
    local url = broker.needs(broker.urls.tcp, "a broker that is on plain TCP, too")
    local client <close> = broker.connect()
    local watcher <close> = broker.connect({ url = url })
    local topic, payload = broker.topic(), crypto.random_bytes(512 * 1024)
    local inbox = broker.inbox(watcher, topic, { qos = 1 })
    broker.publish(client, topic, payload, { qos = 1 })
    assert(broker.next(inbox).payload == payload, "the payload has changed")
  end,

  ["[MQTT-6.0.0-1] a retained message comes with the subscription"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    broker.publish(client, topic, "kept", { qos = 1, retain = true })
    local message = broker.next(broker.inbox(client, topic))
    test.equal({ message.payload, message.retain }, { "kept", true })
    broker.publish(client, topic, "", { qos = 1, retain = true })
  end,

  ["[MQTT-3.1.2-8] the will of a client whose connection is cut is published"] = function()
    local watcher <close> = broker.connect()
    local way = proxy.start(broker.url)
    local topic = broker.topic("will")
    local inbox = broker.inbox(watcher, topic)
    local client = broker.connect({ url = way.url, will = { topic = topic, payload = "cut", qos = 1 } })
    way:refuse()
    test.equal(broker.next(inbox).payload, "cut")
    broker.wait_for_end(client)
  end,

  ["[MQTT-4.4.0-1] a session goes on when the connection was cut"] = function()
    local way = proxy.start(broker.url)
    local client, connections = broker.returning({ url = way.url })
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic, { qos = 2 })
    way:interrupt()
    broker.publish(client, topic, "exactly once", { qos = broker.qos_max })
    local connack = broker.next(connections)
    test.equal(connack.session_present, true)
    test.equal(broker.next(inbox).payload, "exactly once")
    broker.forget(client)
  end,

  ["[MQTT-3.14.4-3] a client that says goodbye has no will published"] = function()
    local watcher <close> = broker.connect()
    local topic = broker.topic("will")
    local inbox = broker.inbox(watcher, topic)
    broker.connect({ will = { topic = topic, payload = "never", qos = 1 } }):close()
    broker.publish(watcher, topic, "afterwards")
    test.equal(broker.next(inbox).payload, "afterwards")
  end,
}

if broker.transport == "wss" then
  cases["[RFC 5280 6.1] a broker that nobody known signed for is refused"] = function()
    local err = test.fails("tls", broker.try_connect({ ca = false }))
    test.matches(tostring(err):lower(), "authority")
  end
end

return broker.cases(cases)
