-- Wills: when, and with what.
-- run for: version

local broker = require("broker")
local proxy = require("proxy")
local test = require("test")

---@return string
local function plain()
  return broker.needs(broker.urls.tcp, "a broker on plain TCP")
end

return broker.cases({
  ["[5: 3.14.2.1] a client that leaves with reason 4 has its will published"] = function()
    local watcher <close> = broker.connect()
    local topic = broker.topic("will")
    local inbox = broker.inbox(watcher, topic)
    broker.connect({ will = { topic = topic, payload = "with will", qos = 1 } }):close(4)
    test.equal(broker.next(inbox).payload, "with will")
  end,

  ["[5: 3.1.3.2] a will has its properties, and its QoS"] = function()
    local watcher <close> = broker.connect()
    local topic = broker.topic("will")
    local inbox = broker.inbox(watcher, topic, { qos = 2 })
    broker.connect({
      will = {
        topic = topic,
        payload = "{}",
        qos = broker.qos_max,
        content_type = "application/json",
        response_topic = "answers/here",
        correlation = "\0\1",
        user = { { "a", "1" }, { "a", "2" } },
        expiry = 600,
        utf8 = true,
      },
    }):close(4)
    local message = broker.next(inbox)
    test.equal(message.qos, broker.qos_max)
    local properties = message.properties
    test.equal(properties.content_type, "application/json")
    test.equal(properties.response_topic, "answers/here")
    test.equal(properties.correlation_data, "\0\1")
    test.equal(properties.user_property, { { "a", "1" }, { "a", "2" } })
    test.equal(properties.message_expiry_interval <= 600, true)
    test.equal(properties.payload_format_indicator, 1)
  end,

  ["[5: MQTT-3.1.3-9] a will with a delay is not published when the client comes back in time"] = function()
    local watcher <close> = broker.connect()
    local topic, marker = broker.topic("will"), broker.topic("marker")
    local inbox = broker.inbox(watcher, { topic, marker })
    local way = proxy.start(plain())
    local client, connections = broker.returning({
      url = way.url,
      will = { topic = topic, payload = "never", qos = 1, delay = 30 },
    })
    way:interrupt()
    broker.next(connections)
    broker.publish(client, marker, "back")
    test.equal(broker.next(inbox).payload, "back")
    broker.forget(client)
  end,

  ["[5: MQTT-3.1.2-8] a will with a delay is published when that is over"] = function()
    local watcher <close> = broker.connect()
    local topic = broker.topic("will")
    local inbox = broker.inbox(watcher, topic)
    local way = proxy.start(plain())
    broker.connect({
      url = way.url,
      client_id = broker.client_id(),
      session_expiry = 60,
      will = { topic = topic, payload = "late", qos = 1, delay = 1 },
    })
    way:refuse()
    test.equal(broker.next(inbox).payload, "late")
  end,

  ["[5: MQTT-3.1.3-9] the end of the session is the end of the will's delay"] = function()
    local watcher <close> = broker.connect()
    local topic = broker.topic("will")
    local inbox = broker.inbox(watcher, topic)
    local way = proxy.start(plain())
    broker.connect({
      url = way.url,
      client_id = broker.client_id(),
      session_expiry = 1,
      will = { topic = topic, payload = "with the session", qos = 1, delay = 3600 },
    })
    way:refuse()
    test.equal(broker.next(inbox).payload, "with the session")
  end,
})
