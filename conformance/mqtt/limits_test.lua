-- A broker that takes little, and says so.
-- run for: version

local broker = require("broker")
local proxy = require("proxy")
local test = require("test")

--- The broker of the harness that takes little, or else the one under test, which may have limits, too.
---@return string
local function limits()
  return broker.urls.limits or broker.needs(broker.urls.tcp, "a broker on plain TCP")
end

--- A client of a broker that announces a limit, and the limit; `max` is the highest that a case can reach.
---@param limit string
---@param max integer
---@param options? table
---@return mqtt.Client client
---@return integer value
local function limited(limit, max, options)
  options = options or {}
  options.url = options.url or limits()
  local client = broker.connect(options)
  local value = client:status().server[limit]
  if value == nil or value > max then
    client:close()
    test.skip(("it announces no %s up to %d"):format(limit, max))
  end
  return client, value
end

return broker.cases({
  ["[5: MQTT-3.2.2-11] a message above Maximum QoS is not sent, and the connection lives"] = function()
    local client <close>, maximum = limited("maximum_qos", 1)
    test.equal(maximum, 1)
    local err = test.fails("refused", client:publish(broker.topic(), "x", { qos = 2 }))
    test.equal(err.code, 0x9B)
    broker.publish(client, broker.topic(), "x", { qos = 1 })
  end,

  ["[5: MQTT-3.2.2-14] a message that is to be retained is not sent where nothing is retained"] = function()
    local client <close> = broker.connect({ url = limits() })
    if client:status().server.retain_available ~= false then test.skip("it retains messages") end
    for qos = 0, 1 do
      local err = test.fails("refused", client:publish(broker.topic(), "x", { qos = qos, retain = true }))
      test.equal(err.code, 0x9A)
    end
    broker.publish(client, broker.topic(), "x", { qos = 1 })
  end,

  ["[5: MQTT-3.2.2-15] a packet above Maximum Packet Size is not sent, and the connection lives"] = function()
    local client <close>, size = limited("maximum_packet_size", 64 * 1024 * 1024)
    for qos = 0, 1 do
      test.fails("limit", client:publish(broker.topic(), ("x"):rep(size), { qos = qos }))
    end
    broker.publish(client, broker.topic(), "x", { qos = 1 })
  end,

  ["[5: MQTT-3.2.2-21] the broker's keep alive is kept instead of ours"] = function()
    local client <close>, keep_alive = limited("server_keep_alive", 3600, { keep_alive = 3601 })
    test.equal(client:status().keep_alive, keep_alive)
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
    local client <close>, maximum = limited("receive_maximum", 100, { url = way.url })
    local tickets = {}
    for i = 1, 200 do tickets[i] = assert(client:publish_nowait(broker.topic(), "x", { qos = 1 })) end
    for _, ticket in ipairs(tickets) do assert(broker.soon("PUBACK", ticket.wait, ticket)) end
    test.equal(most, maximum)
  end,

  ["[5: MQTT-3.2.2-17] no topic alias is above Topic Alias Maximum, and the messages arrive"] = function()
    local highest, used = 0, 0
    local way = proxy.start(limits(), function(packet, from_client)
      local alias = from_client and packet.type == "publish" and packet.properties and packet.properties.topic_alias
      if not alias then return end
      highest = math.max(highest, alias)
      if packet.topic == "" then used = used + 1 end
    end)
    local client <close>, maximum = limited("topic_alias_maximum", 3, { url = way.url })
    local topics = { broker.topic("a"), broker.topic("b"), broker.topic("c"), broker.topic("d") }
    local inbox = broker.inbox(client, topics)
    for i = 0, 99 do
      local topic = topics[i // 25 + 1]
      broker.publish(client, topic, tostring(i))
      test.equal(broker.next(inbox).topic, topic)
    end
    test.equal(highest, maximum)
    test.equal(used > 20, true, ("%d messages went under an alias"):format(used))
  end,

  ["[3.1.1: 3.3.1.2] a QoS that the broker does not take ends the connection, and the publisher hears of it"] = function()
    local url = broker.urls.limits or broker.lacks("QoS 2") and broker.urls.tcp or nil
    -- Who wants a longer one than the broker allows is refused: 3.1.1 has no way to be told (mosquitto.conf, max_keepalive).
    local client = broker.connect({ url = broker.needs(url, "a broker that does not take QoS 2"), keep_alive = 15 })
    test.fails("closed", broker.soon("an answer", client.publish, client, broker.topic(), "x", { qos = 2 }))
  end,
})
