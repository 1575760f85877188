-- Retained messages.

local broker = require("broker")
local test = require("test")

return broker.cases({
  ["[5: MQTT-3.3.1-9; 3.1.1: MQTT-3.3.1-6] a new subscription brings the retained message, marked as such"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    broker.publish(client, topic, "kept", { qos = 1, retain = true })
    local message = broker.next(broker.inbox(client, topic))
    test.equal(message.payload, "kept")
    test.equal(message.retain, true)
    test.equal(message.qos, 1)
  end,

  ["[MQTT-3.3.1-5] the last retained message of a topic takes the place of the one before"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    broker.publish(client, topic, "first", { qos = 1, retain = true })
    broker.publish(client, topic, "second", { qos = 1, retain = true })
    test.equal(broker.retained_elsewhere(topic), { qos = 1, retain = true, payload = "second" })
    test.equal(broker.next(broker.inbox(client, topic)).payload, "second")
  end,

  ["[5: MQTT-3.3.1-8; 3.1.1: MQTT-3.3.1-12] a message without RETAIN leaves what is retained alone"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    broker.publish(client, topic, "kept", { qos = 1, retain = true })
    broker.publish(client, topic, "passing", { qos = 1 })
    test.equal(broker.next(broker.inbox(client, topic)).payload, "kept")
  end,

  ["[5: MQTT-3.3.1-6; 3.1.1: MQTT-3.3.1-10] an empty retained message takes it away"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    broker.publish(client, topic, "kept", { qos = 1, retain = true })
    broker.publish(client, topic, "", { qos = 1, retain = true })
    test.equal(broker.retained_elsewhere(topic), nil)
    -- Nothing comes before what is sent now.
    local inbox = broker.inbox(client, topic)
    broker.publish(client, topic, "new")
    test.equal(broker.next(inbox).payload, "new")
  end,

  ["[5: MQTT-3.3.1-12; 3.1.1: MQTT-3.3.1-9] who is subscribed already receives it without RETAIN"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    broker.publish(client, topic, "kept", { qos = 1, retain = true })
    test.falsy(broker.next(inbox).retain)
  end,

  ["[5: MQTT-3.3.1-13] who wants RETAIN as it was published gets it so"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic, { qos = 1, retain_as_published = true })
    broker.publish(client, topic, "kept", { qos = 1, retain = true })
    test.equal(broker.next(inbox).retain, true)
    broker.publish(client, topic, "passing", { qos = 1 })
    test.falsy(broker.next(inbox).retain)
  end,

  ["[5: MQTT-3.3.1-11] who wants no retained messages gets none"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    broker.publish(client, topic, "kept", { qos = 1, retain = true })
    local inbox = broker.inbox(client, topic, { qos = 1, retain_handling = 2 })
    broker.publish(client, topic, "new")
    test.equal(broker.next(inbox).payload, "new")
  end,

  ["[MQTT-3.3.1-5] what mosquitto_pub retains is brought by a subscription"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    broker.publish_elsewhere(topic, "from there", { qos = 1, retain = true })
    local message = broker.next(broker.inbox(client, topic))
    test.equal(message.payload, "from there")
    test.equal(message.retain, true)
  end,

  ["[5: MQTT-3.3.1-9; 3.1.1: MQTT-3.3.1-6] a wildcard brings each retained message that it matches"] = function()
    local client <close> = broker.connect()
    broker.requires("retained messages of a wildcard")
    local top = broker.topic("levels")
    for _, last in ipairs({ "a", "b", "b/c" }) do
      broker.publish(client, top .. "/" .. last, last, { qos = 1, retain = true })
    end
    local inbox, seen = broker.inbox(client, top .. "/#"), {}
    for _ = 1, 3 do seen[broker.next(inbox).payload] = true end
    test.equal(seen, { a = true, b = true, ["b/c"] = true })
  end,
})
