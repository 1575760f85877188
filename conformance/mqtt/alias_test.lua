-- Topic aliases, chosen by use.
-- run for: version

local broker = require("broker")
local proxy = require("proxy")
local test = require("test")

return broker.cases({
  ["[5: MQTT-3.3.2-12] a topic that is used often goes under an alias, and means the same"] = function()
    local lengths = {}
    local url = broker.needs(broker.urls.tcp, "a broker on plain TCP")
    local way = proxy.start(url, function(packet, from_client)
      if packet.type == "publish" and from_client then lengths[#lengths + 1] = #packet.topic end
    end)
    local client <close> = broker.connect({ url = way.url })
    if not client:status().server.topic_alias_maximum then test.skip("the broker takes no topic aliases") end
    local topic = broker.topic("a/rather/long/topic/that/is/worth/it")
    local inbox = broker.inbox(client, topic, { qos = 2 })
    for i = 1, 30 do
      broker.publish(client, topic, tostring(i), { qos = i % (broker.qos_max + 1) })
      local message = broker.next(inbox)
      test.equal({ message.topic, message.payload }, { topic, tostring(i) })
    end
    test.equal(lengths[1], #topic)
    test.equal(lengths[#lengths], 0)
  end,

  ["[5: MQTT-3.3.2-7] aliases end with their connection: the next one begins with the topic"] = function()
    local lengths = {}
    local url = broker.needs(broker.urls.tcp, "a broker on plain TCP")
    local way = proxy.start(url, function(packet, from_client)
      if packet.type == "publish" and from_client then lengths[#lengths + 1] = #packet.topic end
    end)
    local client, connections = broker.returning({ url = way.url })
    if not client:status().server.topic_alias_maximum then test.skip("the broker takes no topic aliases") end
    local topic = broker.topic("a/rather/long/topic")
    for _ = 1, 10 do broker.publish(client, topic, "before") end
    test.equal(lengths[10], 0)
    way:interrupt()
    broker.next(connections)
    local inbox = broker.inbox(client, topic)
    broker.publish(client, topic, "after")
    test.equal(lengths[11], #topic)
    test.equal(broker.next(inbox).payload, "after")
    broker.forget(client)
  end,

  ["[5: MQTT-3.3.2-8] messages that the broker sends under an alias have their topic"] = function()
    local aliased = 0
    local url = broker.needs(broker.urls.tcp, "a broker on plain TCP")
    local way = proxy.start(url, function(packet, from_client)
      local properties = packet.type == "publish" and not from_client and packet.properties
      if properties and properties.topic_alias then aliased = aliased + 1 end
    end)
    local client <close> = broker.connect({ url = way.url, topic_alias_max = 10 })
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    for i = 1, 20 do
      broker.publish(client, topic, tostring(i))
      test.equal(broker.next(inbox).topic, topic)
    end
    if aliased == 0 then test.skip("the broker uses no topic aliases") end
  end,
})
