-- Keep alive, and wills.

local broker = require("broker")
local proxy = require("proxy")
local test = require("test")

--- The shortest keep alive there is, in seconds.
local KEEP_ALIVE = 1

return broker.cases({
  ["[5: MQTT-3.1.2-20; 3.1.1: MQTT-3.1.2-23] a silent client sends PINGREQ before its time is over"] = function()
    local way = proxy.start(broker.url)
    local client <close> = broker.connect({ url = way.url, keep_alive = KEEP_ALIVE })
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    while way.sent:try_get() do end -- CONNECT, SUBSCRIBE
    for _ = 1, 3 do
      local chunk = broker.soon("a PINGREQ", way.sent.get, way.sent)
      if broker.transport == "tcp" then test.equal(chunk, "\xC0\x00") end
    end
    -- Three keep alives later the broker still knows us.
    broker.publish(client, topic, "alive")
    test.equal(broker.next(inbox).payload, "alive")
  end,

  ["[5: MQTT-3.1.2-22; 3.1.1: MQTT-3.1.2-24] a client that falls silent is dropped, and its will published"] = function()
    local watcher <close> = broker.connect()
    local way = proxy.start(broker.url)
    local topic = broker.topic("will")
    local inbox = broker.inbox(watcher, topic)
    local client = broker.connect({
      url = way.url,
      keep_alive = KEEP_ALIVE,
      will = { topic = topic, payload = "lost", qos = 1 },
    })
    way:lose()
    test.equal(broker.next(inbox).payload, "lost")
    -- No PINGRESP comes either, so the client knows, too.
    broker.wait_for_end(client)
  end,

  ["[MQTT-3.1.2-8] the will of a client whose connection is cut is published"] = function()
    local watcher <close> = broker.connect()
    local way = proxy.start(broker.url)
    local topic = broker.topic("will")
    local inbox = broker.inbox(watcher, topic)
    local client = broker.connect({
      url = way.url,
      will = { topic = topic, payload = "cut", qos = 1, retain = false },
    })
    way:refuse()
    local message = broker.next(inbox)
    test.equal(message.payload, "cut")
    test.equal(message.qos, 1)
    broker.wait_for_end(client)
  end,

  ["[5: MQTT-3.1.2-15; 3.1.1: MQTT-3.1.2-17] a will may be retained"] = function()
    local watcher <close> = broker.connect()
    local way = proxy.start(broker.url)
    local topic = broker.topic("will")
    local inbox = broker.inbox(watcher, topic)
    local client = broker.connect({
      url = way.url,
      will = { topic = topic, payload = "kept", qos = 0, retain = true },
    })
    way:refuse()
    test.equal(broker.next(inbox).payload, "kept")
    test.equal(broker.retained_elsewhere(topic), { qos = 0, retain = true, payload = "kept" })
    broker.wait_for_end(client)
  end,

  ["[MQTT-3.14.4-3] the will of a client that says goodbye is not published"] = function()
    local watcher <close> = broker.connect()
    local topic = broker.topic("will")
    local inbox = broker.inbox(watcher, topic)
    local client = broker.connect({ will = { topic = topic, payload = "never", qos = 1 } })
    client:close()
    -- The broker has heard the goodbye before it hears this.
    broker.publish_elsewhere(topic, "afterwards")
    test.equal(broker.next(inbox).payload, "afterwards")
  end,
})
