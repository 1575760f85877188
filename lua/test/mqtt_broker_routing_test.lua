-- How the development broker routes: the tree of topics, shared subscriptions, subscription options, wills.
local broker = require("mqtt.broker")
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local log = require("log")
local mqtt_peer = require("test.mqtt_peer")
local mqtt_raw = require("test.mqtt_raw")
local test = require("test")
local topic_tree = require("mqtt.broker.topic_tree")

log.level("off")

local connect = mqtt_raw.connect

--- Several clients of a broker, by name.
local function clients(one, ...)
  local list = {}
  for i, name in ipairs({ ... }) do list[i] = connect(one, { client_id = name, clean_start = true }) end
  return table.unpack(list)
end

--- CONNECT with a will.
local function with_will(will, properties, more)
  local packet = { client_id = "c", will = { topic = "will", payload = "w" }, properties = properties }
  for name, value in pairs(will or {}) do packet.will[name] = value end
  for name, value in pairs(more or {}) do packet[name] = value end
  return packet
end

return {
  tree = {
    ["finds the filters of a topic and the topics of a filter as the standard says"] = function()
      local random = test.random()
      local function made(levels)
        local parts = {}
        for i = 1, random(4) do parts[i] = random:pick(levels) end
        return table.concat(parts, "/")
      end
      local compared = 0
      for _ = 1, 300 do
        local filters, topics = topic_tree.new(), topic_tree.new()
        local all_filters, all_topics = {}, {}
        for _ = 1, 12 do
          local filter, topic = made({ "a", "b", "", "+", "#", "$x" }), made({ "a", "b", "", "c", "$x" })
          if codec.valid_filter(filter) then
            filters:make(filter).value = filter
            all_filters[filter] = true
          end
          if codec.valid_topic(topic) then
            topics:make(topic).value = topic
            all_topics[topic] = true
          end
        end
        local function sorted(list)
          table.sort(list)
          return list
        end
        for topic in pairs(all_topics) do
          local expected = {}
          for filter in pairs(all_filters) do
            if codec.matches(filter, topic) then expected[#expected + 1] = filter end
          end
          test.equal(sorted(filters:filters_of(topic)), sorted(expected), topic)
          compared = compared + #expected
        end
        for filter in pairs(all_filters) do
          local expected = {}
          for topic in pairs(all_topics) do
            if codec.matches(filter, topic) then expected[#expected + 1] = topic end
          end
          test.equal(sorted(topics:topics_of(filter)), sorted(expected), filter)
        end
        for filter in pairs(all_filters) do filters:clear(filters:find(filter)) end
        test.equal(next(filters.root.children), nil, "nothing is left of what was taken away")
      end
      assert(compared > 300)
    end,

    ["a topic or filter of very many levels is refused and costs nothing"] = function()
      local one <close> = broker.new()
      local a = connect(one)
      local deep = ("x/"):rep(300) .. "x"
      test.equal(a:subscribe(deep), 0x97)
      test.equal(a:publish(deep, "x", { qos = 1, retain = true }), 0x97)
      test.equal(a:subscribe("#"), 0)
      test.equal(a:publish(deep, "x", { qos = 0 }), nil)
      a:expect("publish", { topic = deep })
    end,
  },

  shared = {
    ["a group takes turns, whatever the version of its members"] = function()
      local one <close> = broker.new()
      local a, b = clients(one, "a", "b")
      local c = connect(one, { client_id = "c", clean_start = true }, 4)
      for _, client in ipairs({ a, b, c }) do test.equal(client:subscribe("$share/g/t/+", { qos = 1 }), 1) end
      for i = 1, 6 do one:publish("t/x", tostring(i), { qos = 1 }) end
      test.equal({ a:payloads(), b:payloads(), c:payloads() }, { { "1", "4" }, { "2", "5" }, { "3", "6" } })
    end,

    ["each group and each ordinary subscription has its own copy, with its identifier"] = function()
      local one <close> = broker.new()
      local a, b, c = clients(one, "a", "b", "c")
      a:subscribe("$share/g/t", { properties = { subscription_identifier = 1 } })
      b:subscribe("$share/h/t", { properties = { subscription_identifier = 2 } })
      c:subscribe("t", { properties = { subscription_identifier = 3 } })
      c:subscribe("$share/h/+", { properties = { subscription_identifier = 4 } })
      one:publish("t", "x")
      local function identifiers(client)
        local list = {}
        for i, packet in ipairs(client:all()) do list[i] = packet.properties.subscription_identifier end
        return list
      end
      test.equal({ identifiers(a), identifiers(b) }, { { { 1 } }, { { 2 } } })
      test.equal(identifiers(c), { { 3 }, { 4 } })
    end,

    ["others take over what waits for a member that leaves, but not what is on its way"] = function()
      local one <close> = broker.new()
      local a = connect(one, {
        client_id = "a",
        clean_start = true,
        properties = { receive_maximum = 1, session_expiry_interval = 100 },
      })
      a:subscribe("$share/g/t", { qos = 2 })
      for i = 1, 3 do one:publish("t", tostring(i), { qos = 2 }) end
      a:expect("publish", { payload = "1" })
      local b = clients(one, "b")
      b:subscribe("$share/g/t", { qos = 1 })
      a:drop()
      b:take({ payload = "2", qos = 1 })
      b:take({ payload = "3", qos = 1 })
      one:publish("t", "4", { qos = 1 })
      b:take({ payload = "4" })
      -- With the session ends the message of QoS 2 that was sent [MQTT-4.8.2-5].
      cosocket.sleep(101)
      b:silent()
      b:drop()
      -- Nobody is left, and nothing is kept for nobody.
      test.equal(one:clients(), {})
    end,

    ["a message of QoS 1 that a member did not acknowledge goes to another one when its session ends"] = function()
      local one <close> = broker.new()
      local a = clients(one, "a")
      a:subscribe("$share/g/t", { qos = 1 })
      one:publish("t", "x", { qos = 1 })
      a:expect("publish", { payload = "x" })
      local b = clients(one, "b")
      b:subscribe("$share/g/t", { qos = 1 })
      a:drop()
      b:take({ payload = "x" })
    end,

    ["while all members are away their sessions keep the messages"] = function()
      local one <close> = broker.new()
      local packet = { client_id = "a", properties = { session_expiry_interval = 100 } }
      local a = connect(one, packet)
      a:subscribe("$share/g/t", { qos = 1 })
      a:drop()
      for i = 1, 3 do one:publish("t", tostring(i), { qos = 1 }) end
      a = connect(one, packet)
      test.equal(a:payloads(), { "1", "2", "3" })
    end,

    ["a member that unsubscribes has no turn any more, and retained messages are for nobody"] = function()
      local one <close> = broker.new()
      local a, b = clients(one, "a", "b")
      one:publish("t", "kept", { retain = true })
      a:subscribe("$share/g/t")
      b:subscribe("$share/g/t")
      a:silent()
      a:send({ type = "unsubscribe", packet_id = 1, filters = { "$share/g/t", "$share/h/t" } })
      test.equal(a:expect("unsuback").reason_codes, { 0, 0x11 })
      for i = 1, 3 do one:publish("t", tostring(i)) end
      test.equal(b:payloads(), { "1", "2", "3" })
    end,

    ["no local on a shared subscription is a protocol error"] = function()
      local one <close> = broker.new()
      local a = clients(one, "a")
      -- Our codec does not write what is forbidden: the bit is set behind its back [MQTT-3.8.3-4].
      local packet = { type = "subscribe", packet_id = 1, subscriptions = { { filter = "$share/g/t" } } }
      a:send(mqtt_peer.wire(5, packet):sub(1, -2) .. "\4")
      a:expect("disconnect", { reason_code = 0x82 })
      a:closed()
    end,
  },

  wills = {
    ["a normal goodbye takes the will back, any other does not"] = function()
      for code, seen in pairs({ [0] = {}, [4] = { "w" }, [0x81] = { "w" } }) do
        local one <close> = broker.new()
        local watcher = clients(one, "watcher")
        watcher:subscribe("will")
        connect(one, with_will()):disconnect({ reason_code = code })
        test.equal(watcher:payloads(), seen)
      end
    end,

    ["a will waits for its delay, and for the end of the session at most"] = function()
      local one <close> = broker.new()
      local watcher = clients(one, "watcher")
      watcher:subscribe("will", { qos = 2 })
      local user = { { "a", "b" } }
      local properties = { will_delay_interval = 10, content_type = "c", user_property = user }
      local delayed = { qos = 2, properties = properties }
      connect(one, with_will(delayed, { session_expiry_interval = 100 })):drop()
      cosocket.sleep(9)
      watcher:silent()
      cosocket.sleep(1)
      test.equal(watcher:take({ payload = "w", qos = 2 }).properties, { content_type = "c", user_property = user })
      connect(one, with_will(delayed, { session_expiry_interval = 5 })):drop()
      cosocket.sleep(4)
      watcher:silent()
      cosocket.sleep(1)
      watcher:take({ payload = "w" })
      -- Without a session there is no delay.
      connect(one, with_will(delayed, nil, { clean_start = true })):drop()
      watcher:take({ payload = "w" })
    end,

    ["who comes back in time keeps its will to itself, unless it starts clean"] = function()
      local one <close> = broker.new()
      local watcher = clients(one, "watcher")
      watcher:subscribe("will")
      local delayed = { properties = { will_delay_interval = 10 } }
      local packet = with_will(delayed, { session_expiry_interval = 100 })
      connect(one, packet):drop()
      cosocket.sleep(5)
      local a = connect(one, { client_id = "c", properties = { session_expiry_interval = 100 } })
      cosocket.sleep(20)
      watcher:silent()
      a:disconnect()
      connect(one, packet):drop()
      -- [MQTT-3.1.3-9]: the session ends here.
      connect(one, { client_id = "c", clean_start = true })
      watcher:expect("publish", { payload = "w" })
    end,

    ["a client that is taken over or disconnected by the broker leaves its will"] = function()
      local one <close> = broker.new()
      local watcher = clients(one, "watcher")
      watcher:subscribe("will")
      local a = connect(one, with_will())
      connect(one, { client_id = "c", clean_start = true })
      a:expect("disconnect", { reason_code = 0x8E })
      watcher:expect("publish")
      local b = connect(one, with_will())
      test.equal(one:disconnect("c"), true)
      b:expect("disconnect", { reason_code = 0x98 })
      watcher:expect("publish")
      connect(one, with_will())
      test.equal({ one:drop("c"), one:drop("c") }, { true, false })
      watcher:expect("publish")
    end,
  },

  ["a retained will is kept"] = function()
    local one <close> = broker.new()
    connect(one, with_will({ retain = true, qos = 1 })):drop()
    local watcher = clients(one, "watcher")
    watcher:subscribe("will", { qos = 1 })
    watcher:take({ payload = "w", retain = true, qos = 1 })
  end,

  ["retained messages come in the order in which they were published"] = function()
    local one <close> = broker.new({ retained_max = 20 })
    for i = 1, 20 do one:publish("t/" .. (i * 7) % 20, tostring(i), { retain = true }) end
    test.fails("limit", one:publish("t/more", "x", { retain = true }))
    -- There is room to replace one, and to take one away.
    test.equal(one:publish("t/1", "last", { retain = true }), true)
    test.equal(one:publish("t/0", "", { retain = true }), true)
    local expected = {}
    for i = 1, 20 do
      if (i * 7) % 20 > 1 then expected[#expected + 1] = tostring(i) end
    end
    expected[#expected + 1] = "last"
    local a = connect(one)
    a:subscribe("t/#")
    test.equal(a:payloads(), expected)
  end,

  ["topic aliases are understood when the broker takes them, and used when the client does"] = function()
    local one <close> = broker.new({ topic_alias_maximum = 2 })
    local a = connect(one, { client_id = "a", clean_start = true, properties = { topic_alias_maximum = 1 } })
    test.equal(a.connack.properties.topic_alias_maximum, 2)
    a:subscribe("long/topic/#")
    a:publish("long/topic/1", "1", { properties = { topic_alias = 2 } })
    a:publish("", "2", { properties = { topic_alias = 2 } })
    a:publish("", "3", { properties = { topic_alias = 2 } })
    local topics, aliases = {}, {}
    for i, packet in ipairs(a:all()) do
      topics[i], aliases[i] = packet.topic, packet.properties and packet.properties.topic_alias or 0
    end
    -- Our aliases are our own, and not those it was told.
    test.equal(topics, { "long/topic/1", "long/topic/1", "" })
    test.equal(aliases, { 0, 1, 1 })
    a:publish("", "x", { properties = { topic_alias = 1 } })
    a:expect("disconnect", { reason_code = 0x82 })
    local b = connect(one)
    b:publish("t", "x", { properties = { topic_alias = 3 } })
    b:expect("disconnect", { reason_code = 0x94 })
    b:closed()
  end,
}
