-- A broker that takes little, and says so.
-- run for: version

local broker = require("broker")
local proxy = require("proxy")
local test = require("test")

---@return string
local function limits()
  return broker.needs(broker.urls.limits, "a broker of the harness that takes little")
end

return broker.cases({
  ["[5: MQTT-3.2.2-11] a message above Maximum QoS is not sent, and the connection lives"] = function()
    local client <close> = broker.connect({ url = limits() })
    test.equal(client:status().server.maximum_qos, 1)
    local err = test.fails("refused", client:publish(broker.topic(), "x", { qos = 2 }))
    test.equal(err.code, 0x9B)
    broker.publish(client, broker.topic(), "x", { qos = 1 })
  end,

  ["[5: MQTT-3.2.2-14] a message that is to be retained is not sent where nothing is retained"] = function()
    local client <close> = broker.connect({ url = limits() })
    for qos = 0, 1 do
      local err = test.fails("refused", client:publish(broker.topic(), "x", { qos = qos, retain = true }))
      test.equal(err.code, 0x9A)
    end
    broker.publish(client, broker.topic(), "x", { qos = 1 })
  end,

  ["[5: MQTT-3.2.2-15] a packet above Maximum Packet Size is not sent, and the connection lives"] = function()
    local client <close> = broker.connect({ url = limits() })
    local size = client:status().server.maximum_packet_size
    for qos = 0, 1 do
      test.fails("limit", client:publish(broker.topic(), ("x"):rep(size), { qos = qos }))
    end
    broker.publish(client, broker.topic(), "x", { qos = 1 })
  end,

  ["[5: MQTT-3.2.2-21] the broker's keep alive is kept instead of ours"] = function()
    local client <close> = broker.connect({ url = limits(), keep_alive = 60 })
    test.equal(client:status().keep_alive, 20)
  end,

  ["[5: MQTT-3.3.4-7] a small Receive Maximum is kept to, and everything gets through"] = function()
    local in_flight, most = 0, 0
    local way = proxy.start(limits(), function(packet, from_client)
      if packet.type == "publish" and from_client then
        in_flight = in_flight + 1
      elseif packet.type == "puback" and not from_client then
        in_flight = in_flight - 1
      end
      most = math.max(most, in_flight)
    end)
    local client <close> = broker.connect({ url = way.url })
    local tickets = {}
    for i = 1, 200 do tickets[i] = assert(client:publish_nowait(broker.topic(), "x", { qos = 1 })) end
    for _, ticket in ipairs(tickets) do assert(broker.soon("PUBACK", ticket.wait, ticket)) end
    test.equal(most, client:status().server.receive_maximum)
  end,

  ["[5: MQTT-3.2.2-17] no topic alias is above Topic Alias Maximum, and the messages arrive"] = function()
    local highest, used = 0, 0
    local way = proxy.start(limits(), function(packet, from_client)
      local alias = from_client and packet.type == "publish" and packet.properties and packet.properties.topic_alias
      if not alias then return end
      highest = math.max(highest, alias)
      if packet.topic == "" then used = used + 1 end
    end)
    local client <close> = broker.connect({ url = way.url })
    local topics = { broker.topic("a"), broker.topic("b"), broker.topic("c"), broker.topic("d") }
    local inbox = broker.inbox(client, topics)
    for i = 0, 99 do
      local topic = topics[i // 25 + 1]
      broker.publish(client, topic, tostring(i))
      test.equal(broker.next(inbox).topic, topic)
    end
    test.equal(highest, 2)
    test.equal(used > 20, true, ("%d messages went under an alias"):format(used))
  end,

  ["[3.1.1: 3.3.1.2] a QoS that the broker does not take ends the connection, and the publisher hears of it"] = function()
    -- Who wants a longer one than the broker allows is refused: 3.1.1 has no way to be told (mosquitto.conf, max_keepalive).
    local client = broker.connect({ url = limits(), keep_alive = 15 })
    test.fails("closed", broker.soon("an answer", client.publish, client, broker.topic(), "x", { qos = 2 }))
  end,
})
