-- Publishing and being published to; what others see, and what others send.

local broker = require("broker")
local cosocket = require("cosocket")
local test = require("test")

--- Every byte there is, and a length that is not a round number.
local function all_bytes()
  local bytes = {}
  for byte = 0, 255 do bytes[#bytes + 1] = string.char(byte) end
  return table.concat(bytes) .. "\r\n\0"
end

--- Messages in flight at once: more than either side takes unacknowledged.
local MANY = 2000

return broker.cases({
  ["[MQTT-4.3.1-1] a QoS 0 message arrives as it was sent"] = function()
    local client <close> = broker.connect()
    local topic, payload = broker.topic(), all_bytes()
    local inbox = broker.inbox(client, topic, { qos = 0 })
    broker.publish(client, topic, payload, { qos = 0 })
    local message = broker.next(inbox)
    test.equal(message.topic, topic)
    test.equal(message.payload, payload)
    test.equal(message.qos, 0)
    test.falsy(message.retain)
  end,

  ["[5: MQTT-4.3.2-4; 3.1.1: MQTT-4.3.2-2] a QoS 1 message is acknowledged, and arrives"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    broker.publish(client, topic, "at least once", { qos = 1 })
    local message = broker.next(inbox)
    test.equal(message.payload, "at least once")
    test.equal(message.qos, 1)
  end,

  ["[5: MQTT-3.4.2-1] a message that nobody wants is acknowledged with that reason"] = function()
    local client <close> = broker.connect()
    test.equal(broker.publish(client, broker.topic(), "to nobody", { qos = 1 }), 0x10)
  end,

  ["[5: MQTT-3.8.4-8; 3.1.1: MQTT-3.8.4-6] a message comes with the lower of both QoS"] = function()
    local client <close> = broker.connect()
    for granted = 0, broker.qos_max do
      for published = 0, broker.qos_max do
        local topic = broker.topic()
        local inbox = broker.inbox(client, topic, { qos = granted })
        broker.publish(client, topic, "x", { qos = published })
        test.equal(broker.next(inbox).qos, math.min(granted, published))
      end
    end
  end,

  ["[5: MQTT-4.6.0-5; 3.1.1: MQTT-4.6.0-6] messages come in the order in which they were sent"] = function()
    local client <close> = broker.connect()
    for qos = 0, broker.qos_max do
      local topic = broker.topic()
      local inbox = broker.inbox(client, topic, { qos = qos })
      for i = 1, 100 do broker.publish(client, topic, tostring(i), { qos = qos }) end
      for i = 1, 100 do test.equal(broker.next(inbox).payload, tostring(i)) end
    end
  end,

  ["[5: MQTT-4.3.2-1; 3.1.1: MQTT-4.3.2-1] two thousand QoS 1 messages in flight arrive, each once"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    local seen = {}
    cosocket.group(function()
      for i = 1, MANY do
        cosocket.spawn(function() broker.publish(client, topic, tostring(i), { qos = 1 }) end)
      end
    end)
    for _ = 1, MANY do
      local payload = broker.next(inbox).payload
      test.equal(seen[payload], nil, "twice: " .. payload)
      seen[payload] = true
    end
  end,

  ["[5: MQTT-4.3.3-1; 3.1.1: MQTT-4.3.3-1] a QoS 2 message is acknowledged in both steps, and arrives once"] = function()
    broker.requires("QoS 2")
    local client <close> = broker.connect()
    local topic, marker = broker.topic(), broker.topic("marker")
    local inbox, after = broker.inbox(client, topic, { qos = 2 }), broker.inbox(client, marker)
    broker.publish(client, topic, "exactly once", { qos = 2 })
    local message = broker.next(inbox)
    test.equal(message.payload, "exactly once")
    test.equal(message.qos, 2)
    broker.publish(client, marker, "end")
    broker.next(after)
    test.equal(inbox:try_get(), nil)
    test.equal(client:status().in_flight, 0)
  end,

  ["[MQTT-4.3.3-1] two thousand QoS 2 messages in flight arrive, each once, in their order"] = function()
    broker.requires("QoS 2")
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic, { qos = 2 })
    local tickets = {}
    for i = 1, MANY do tickets[i] = assert(client:publish_nowait(topic, tostring(i), { qos = 2 })) end
    for i = 1, MANY do test.equal(broker.next(inbox).payload, tostring(i)) end
    for _, ticket in ipairs(tickets) do test.equal(broker.soon("PUBCOMP", ticket.wait, ticket), 0) end
    test.equal(inbox:try_get(), nil)
  end,

  ["[5: MQTT-4.3.3-13; 3.1.1: MQTT-4.3.3-2] what mosquitto_pub sends with QoS 2 arrives, once"] = function()
    broker.requires("QoS 2")
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic, { qos = 2 })
    for i = 1, 3 do broker.publish_elsewhere(topic, tostring(i), { qos = 2 }) end
    for i = 1, 3 do
      local message = broker.next(inbox)
      test.equal(message.payload, tostring(i))
      test.equal(message.qos, 2)
    end
    test.equal(inbox:try_get(), nil)
  end,

  ["[MQTT-4.3.3-1] mosquitto_sub receives every byte of a QoS 2 message"] = function()
    broker.requires("QoS 2")
    local client <close> = broker.connect()
    local topic, payload = broker.topic(), all_bytes()
    broker.publish(client, topic, payload, { qos = 2, retain = true })
    test.equal(broker.retained_elsewhere(topic), { qos = 2, retain = true, payload = payload })
  end,

  ["[MQTT-4.3.1-1] what mosquitto_pub sends with QoS 0 arrives"] = function()
    local client <close> = broker.connect()
    local topic, payload = broker.topic(), all_bytes()
    local inbox = broker.inbox(client, topic)
    broker.publish_elsewhere(topic, payload, { qos = 0 })
    local message = broker.next(inbox)
    test.equal(message.payload, payload)
    test.equal(message.qos, 0)
  end,

  ["[MQTT-4.5.0-2] what mosquitto_pub sends with QoS 1 arrives, and is acknowledged"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    for i = 1, 3 do broker.publish_elsewhere(topic, tostring(i), { qos = 1 }) end
    for i = 1, 3 do
      local message = broker.next(inbox)
      test.equal(message.payload, tostring(i))
      test.equal(message.qos, 1)
    end
  end,

  ["[5: MQTT-3.3.4-9] a client that takes one message at a time gets one after the other"] = function()
    local client <close> = broker.connect({ receive_maximum = 1 })
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    for i = 1, 10 do broker.publish(client, topic, tostring(i)) end
    -- Each comes only when the one before has been acknowledged.
    for i = 1, 10 do test.equal(broker.next(inbox).payload, tostring(i)) end
  end,

  ["[MQTT-4.3.1-1] mosquitto_sub receives every byte of a QoS 0 message"] = function()
    local client <close> = broker.connect()
    local topic, payload = broker.topic(), all_bytes()
    broker.publish(client, topic, payload, { qos = 0, retain = true })
    -- A QoS 1 message behind it: once that is acknowledged, the broker has both.
    broker.publish(client, broker.topic(), "", { qos = 1 })
    test.equal(broker.retained_elsewhere(topic), { qos = 0, retain = true, payload = payload })
  end,

  ["[5: MQTT-4.3.2-2; 3.1.1: MQTT-4.3.2-1] mosquitto_sub receives every byte of a QoS 1 message"] = function()
    local client <close> = broker.connect()
    local topic, payload = broker.topic(), all_bytes()
    broker.publish(client, topic, payload, { qos = 1, retain = true })
    test.equal(broker.retained_elsewhere(topic), { qos = 1, retain = true, payload = payload })
  end,

  ["[5: MQTT-3.3.2-17] user properties arrive in their order, and so do the other properties"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    broker.publish(client, topic, "{}", {
      qos = 1,
      content_type = "application/json",
      response_topic = "answers/here",
      correlation = "\0\1",
      user = { { "b", "1" }, { "a", "2" }, { "b", "3" } },
    })
    local properties = broker.next(inbox).properties
    test.equal(properties.content_type, "application/json")
    test.equal(properties.response_topic, "answers/here")
    test.equal(properties.correlation_data, "\0\1")
    test.equal(properties.user_property, { { "b", "1" }, { "a", "2" }, { "b", "3" } })
  end,

  ["[5: MQTT-3.3.2-4] a payload that is marked as text arrives so marked"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    broker.publish(client, topic, "Grüße", { qos = 1, utf8 = true })
    test.equal(broker.next(inbox).properties.payload_format_indicator, 1)
  end,

  ["[5: MQTT-3.3.2-17] what mosquitto_pub says in properties arrives"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    local more = { "-D", "publish", "user-property", "a", "1", "-D", "publish", "user-property", "a", "2" }
    table.move({ "-D", "publish", "content-type", "text/plain" }, 1, 4, #more + 1, more)
    broker.publish_elsewhere(topic, "x", { more = more })
    local properties = broker.next(inbox).properties
    test.equal(properties.user_property, { { "a", "1" }, { "a", "2" } })
    test.equal(properties.content_type, "text/plain")
  end,

  ["[MQTT-3.3.2-1] a topic may hold any character, and spaces"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic("Küche, 2. Stock/温度 °C/🌡")
    local inbox = broker.inbox(client, topic)
    broker.publish_elsewhere(topic, "from there")
    test.equal(broker.next(inbox).topic, topic)
    broker.publish(client, topic, "from here")
    test.equal(broker.next(inbox).topic, topic)
  end,

  ["[MQTT-3.3.2-2] a topic with a wildcard is refused before it is sent"] = function()
    local client <close> = broker.connect()
    for _, topic in ipairs({ "a/+/b", "a/#", "" }) do
      test.raises("is not a topic", client.publish, client, topic, "x")
    end
    -- The connection has not suffered.
    broker.publish(client, broker.topic(), "x")
  end,
})
