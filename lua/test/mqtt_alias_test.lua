-- Topic aliases in both directions: bytes and numbers only.
local cosocket = require("cosocket")
local mqtt_peer = require("test.mqtt_peer")
local session = require("mqtt.session")
local test = require("test")

local packets = mqtt_peer.packets

local function wire(...)
  return cosocket.buffer(mqtt_peer.wire(5, ...))
end

--- A session whose server takes `maximum` aliases.
local function connected(options, maximum)
  local client = session.new(options)
  assert(client:connect(0))
  packets(client.output)
  client:receive(wire({ type = "connack", properties = maximum and { topic_alias_maximum = maximum } or nil }), 0)
  assert(client:resume(0))
  return client
end

--- Publishes to each topic, and answers what was said as `topic=alias`.
local function said(client, ...)
  for _, topic in ipairs({ ... }) do assert(client:publish(topic, "", 0, false, nil, 0)) end
  local list = {}
  for i, packet in ipairs(packets(client.output, 5)) do
    local alias = packet.properties and packet.properties.topic_alias
    list[i] = alias and ("%s=%d"):format(packet.topic, alias) or packet.topic
  end
  return list
end

return {
  ["a topic gets an alias the second time it is used"] = function()
    local client = connected({ topic_alias_max = 10 }, 10)
    test.equal(said(client, "devices/a", "devices/a", "devices/a"), { "devices/a", "devices/a=1", "=1" })
    test.equal(said(client, "devices/b", "devices/b", "devices/a", "devices/b"), {
      "devices/b",
      "devices/b=2",
      "=1",
      "=2",
    })
  end,

  ["no more aliases are used than both sides allow, and none for short topics"] = function()
    -- [MQTT-3.2.2-17], [MQTT-3.2.2-18]
    for _, limits in ipairs({ { 0, 10 }, { 10, 0 }, { 10 } }) do
      local client = connected({ topic_alias_max = limits[1] }, limits[2])
      test.equal(said(client, "devices/a", "devices/a"), { "devices/a", "devices/a" })
    end
    test.equal(said(connected({ topic_alias_max = 9 }, 9), "a/b", "a/b", "a/b"), { "a/b", "a/b", "a/b" })
    test.equal(said(connected({ topic_alias_max = 1 }, 9), "topic/1", "topic/1", "topic/2", "topic/2"), {
      "topic/1",
      "topic/1=1",
      "topic/2",
      "topic/2=1",
    })
  end,

  ["the alias that was not used for longest is given to another topic"] = function()
    local client = connected({ topic_alias_max = 2 }, 2)
    said(client, "topic/1", "topic/1", "topic/2", "topic/2", "topic/1")
    test.equal(said(client, "topic/3", "topic/3", "topic/1", "topic/2", "topic/2"), {
      "topic/3",
      "topic/3=2",
      "=1",
      "topic/2",
      "topic/2=2",
    })
  end,

  ["aliases end with their connection, and what is sent again has its topic"] = function()
    local client = connected({ topic_alias_max = 5 }, 5)
    for _ = 1, 3 do client:publish("devices/a", "", 1, false, nil, 0) end
    packets(client.output, 5)
    client:disconnected()
    client:connect(0, false)
    packets(client.output)
    client:receive(wire({ type = "connack", session_present = true, properties = { topic_alias_maximum = 5 } }), 0)
    client:resume(0)
    test.equal(said(client), { "devices/a", "devices/a=1", "=1" })
  end,

  ["a message that could not be sent teaches the server nothing"] = function()
    local client = session.new({ topic_alias_max = 5 })
    client:connect(0)
    packets(client.output)
    local properties = { topic_alias_maximum = 5, maximum_packet_size = 40 }
    client:receive(wire({ type = "connack", properties = properties }), 0)
    client:resume(0)
    said(client, "devices/a")
    test.fails("limit", client:publish("devices/a", ("x"):rep(50), 0, false, nil, 0))
    test.equal(said(client, "devices/a", "devices/a"), { "devices/a=1", "=1" })
  end,

  ["properties of the message are sent beside the alias, and the script's table is left alone"] = function()
    local client = connected({ topic_alias_max = 5 }, 5)
    local properties = { content_type = "c" }
    for _ = 1, 2 do client:publish("devices/a", "", 1, false, properties, 0) end
    test.equal(packets(client.output, 5)[2].properties, { content_type = "c", topic_alias = 1 })
    test.equal(properties, { content_type = "c" })
  end,

  ["the server's aliases stand for its topics"] = function()
    local client = connected({ topic_alias_max = 5 })
    local function hear(topic, alias)
      local properties = { topic_alias = alias }
      return client:receive(wire({ type = "publish", topic = topic, properties = properties }), 0)
    end
    test.equal(hear("a", 1).topic, "a")
    test.equal(hear("", 1).topic, "a")
    test.equal(hear("b", 1).topic, "b")
    test.equal(hear("", 1).topic, "b")
    test.equal(test.fails("protocol", hear("", 2)).code, 0x82)
    client = connected({ topic_alias_max = 5 })
    test.equal(test.fails("protocol", hear("a", 6)).code, 0x94)
    client = connected({})
    test.equal(test.fails("protocol", hear("a", 1)).code, 0x94)
  end,
}
