-- Filters, wildcards, several subscriptions, taking them back.

local broker = require("broker")
local cosocket = require("cosocket")
local test = require("test")

--- Publishes to each topic below `top`, then `end`; answers the topics that arrived, without `top`.
---@param client mqtt.Client
---@param filter string Below `top`.
---@param topics string[]
---@return string[]
local function arriving(client, filter, topics)
  local top = broker.topic("top")
  local marker = broker.topic("marker")
  local inbox = broker.inbox(client, { top .. filter, marker })
  for _, topic in ipairs(topics) do broker.publish(client, top .. topic, "x") end
  broker.publish(client, marker, "x")
  local seen = {}
  while true do
    local message = broker.next(inbox)
    if message.topic == marker then break end
    seen[#seen + 1] = message.topic:sub(#top + 1)
  end
  return seen
end

return broker.cases({
  ["[MQTT-4.7.1-3] a plus stands for one level"] = function()
    local client <close> = broker.connect()
    local topics = { "/a/x", "/b/x", "/a", "/a/b/x", "//x", "/a/x/" }
    test.equal(arriving(client, "/+/x", topics), { "/a/x", "/b/x", "//x" })
  end,

  ["[MQTT-4.7.1-2] a number sign stands for the level above it and all below"] = function()
    local client <close> = broker.connect()
    local topics = { "", "/", "/a", "/a/b/c", "x/a" }
    test.equal(arriving(client, "/#", topics), { "", "/", "/a", "/a/b/c" })
  end,

  ["[MQTT-4.7.3-4] letters are compared as they are"] = function()
    local client <close> = broker.connect()
    test.equal(arriving(client, "/Load", { "/load", "/LOAD", "/Load", "/Load/" }), { "/Load" })
  end,

  ["[MQTT-4.7.2-1] a wildcard does not stand for topics that begin with a dollar sign"] = function()
    broker.requires("$SYS topics")
    local client <close> = broker.connect()
    local inbox = broker.inbox(client, "#")
    local topic = broker.topic()
    -- The broker's own topics are retained: they would come first.
    broker.publish(client, topic, "x")
    local message = broker.next(inbox)
    while message.topic ~= topic do
      test.not_equal(message.topic:sub(1, 1), "$")
      message = broker.next(inbox)
    end
    local own = broker.next(broker.inbox(client, "$SYS/broker/version"))
    test.equal(own.topic, "$SYS/broker/version")
  end,

  ["[5: MQTT-3.8.4-5; 3.1.1: MQTT-3.8.4-4] several filters in one packet are several subscriptions"] = function()
    local client <close> = broker.connect()
    local one, other = broker.topic("one"), broker.topic("other")
    local inbox = broker.inbox(client, { one, other })
    broker.publish(client, one, "1")
    broker.publish(client, other, "2")
    test.equal(broker.next(inbox).payload, "1")
    test.equal(broker.next(inbox).payload, "2")
  end,

  ["[MQTT-3.10.4-2] nothing more comes once a subscription is taken back"] = function()
    local client <close> = broker.connect()
    local topic, marker = broker.topic(), broker.topic("marker")
    local inbox = broker.inbox(client, topic)
    local after = broker.inbox(client, marker)
    broker.publish(client, topic, "before")
    test.equal(broker.next(inbox).payload, "before")
    assert(broker.soon("unsubscribing", client.unsubscribe, client, topic))
    broker.publish(client, topic, "after")
    broker.publish(client, marker, "end")
    broker.next(after)
    test.equal(inbox:try_get(), nil)
  end,

  ["[MQTT-3.8.4-3] a new subscription to the same filter takes the place of the old one"] = function()
    local client <close> = broker.connect()
    local topic, marker = broker.topic(), broker.topic("marker")
    assert(client:subscribe(topic, { qos = 0 }))
    local inbox = broker.inbox(client, topic, { qos = 1 })
    local after = broker.inbox(client, marker)
    broker.publish(client, topic, "x")
    broker.publish(client, marker, "end")
    test.equal(broker.next(inbox).qos, 1)
    broker.next(after)
    test.equal(inbox:try_get(), nil)
  end,

  ["[5: MQTT-3.8.4-7; 3.1.1: MQTT-3.8.4-5] the broker's answer says what it grants, in the order of the filters"] = function()
    local client <close> = broker.connect()
    test.equal(client:subscribe(broker.topic(), { qos = 1 }), 1)
    test.equal(client:subscribe({ broker.topic(), broker.topic() }, { qos = 0 }), { 0, 0 })
    test.equal(client:subscribe({ broker.topic() }, { qos = 2 }), { broker.qos_max })
  end,

  ["[5: MQTT-3.8.3-3] a subscription without local messages brings those of others only"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic, { qos = 1, no_local = true })
    broker.publish(client, topic, "own")
    broker.publish_elsewhere(topic, "another's")
    test.equal(broker.next(inbox).payload, "another's")
  end,

  ["[5: MQTT-3.8.4-2; 3.1.1: MQTT-3.8.4-2] handlers of filters that overlap are each given the message"] = function()
    local client <close> = broker.connect()
    -- With a copy for each filter, only identifiers of version 5 tell which is for which (3.3.5 in 3.1.1).
    if broker.version ~= 5 then broker.requires("one copy for filters that overlap") end
    local top = broker.topic("top")
    local one, other = broker.inbox(client, top .. "/+"), broker.inbox(client, top .. "/#")
    for i = 1, 3 do
      broker.publish(client, top .. "/a", tostring(i))
      test.equal(broker.next(one).payload, tostring(i))
      test.equal(broker.next(other).payload, tostring(i))
    end
  end,

  ["[5: MQTT-3.3.4-3] a message comes with the identifier of its subscription"] = function()
    local client <close> = broker.connect()
    local one, other = broker.topic("one"), broker.topic("other")
    local first = broker.inbox(client, one, { qos = 1, identifier = 7 })
    local second = broker.inbox(client, other, { qos = 1, identifier = 268435455 })
    broker.publish(client, one, "x")
    broker.publish(client, other, "y")
    test.equal(broker.next(first).properties.subscription_identifier, { 7 })
    test.equal(broker.next(second).properties.subscription_identifier, { 268435455 })
  end,

  ["[5: MQTT-3.3.4-4] identifiers bring messages to the right handler, however filters overlap"] = function()
    local client <close> = broker.connect()
    local top = broker.topic("top")
    local inboxes = {
      broker.inbox(client, top .. "/a", { qos = 1, identifier = 1 }),
      broker.inbox(client, top .. "/#", { qos = 1, identifier = 2 }),
      broker.inbox(client, top .. "/+/c", { qos = 1, identifier = 3 }),
    }
    local marker = broker.topic("marker")
    local after = broker.inbox(client, marker)
    for _, last in ipairs({ "a", "b/c", "d" }) do broker.publish(client, top .. "/" .. last, last) end
    broker.publish(client, marker, "end")
    broker.next(after)
    local seen = {}
    for i, inbox in ipairs(inboxes) do
      seen[i] = {}
      while true do
        local message = inbox:try_get()
        if not message then break end
        table.insert(seen[i], message.payload)
      end
    end
    test.equal(seen, { { "a" }, { "a", "b/c", "d" }, { "b/c" } })
  end,

  ["[5: MQTT-3.3.1-10] retained messages come only to a subscription that is new, when that is asked for"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    broker.publish(client, topic, "kept", { qos = 1, retain = true })
    local inbox = broker.inbox(client, topic, { qos = 1, retain_handling = 1 })
    test.equal(broker.next(inbox).payload, "kept")
    inbox = broker.inbox(client, topic, { qos = 1, retain_handling = 1 })
    broker.publish(client, topic, "new")
    test.equal(broker.next(inbox).payload, "new")
  end,

  ["[5: 3.8.2.1.3] a subscription with user properties is one like any other"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic, { qos = 1, user = { { "why", "because" } } })
    broker.publish(client, topic, "x")
    test.equal(broker.next(inbox).payload, "x")
  end,

  ["[5: 3.11.3; 3.1.1: 3.11] taking back what was never subscribed to is no mistake"] = function()
    local client <close> = broker.connect()
    test.equal(client:unsubscribe(broker.topic()), true)
    test.equal(client:unsubscribe({ broker.topic(), broker.topic() }), true)
  end,

  ["[5: MQTT-4.8.2-4] each message of a shared subscription goes to one of those who share it"] = function()
    broker.requires("shared subscriptions")
    local one <close> = broker.connect()
    local other <close> = broker.connect()
    local publisher <close> = broker.connect()
    local topic = broker.topic()
    local inbox = cosocket.queue(1000)
    local counts = {}
    for _, client in ipairs({ one, other }) do
      counts[client] = 0
      assert(client:subscribe("$share/group/" .. topic, { qos = 1 }, function(message)
        counts[client] = counts[client] + 1
        inbox:put(message)
      end))
    end
    local everything = broker.inbox(publisher, topic)
    local seen = {}
    for i = 1, 40 do broker.publish(publisher, topic, tostring(i)) end
    for _ = 1, 40 do
      local payload = broker.next(inbox).payload
      test.equal(seen[payload], nil, "twice: " .. payload)
      seen[payload] = true
    end
    test.equal(counts[one] + counts[other], 40)
    test.equal(counts[one] > 0 and counts[other] > 0, true, "one of them got everything")
    -- Who does not share gets all of them.
    for i = 1, 40 do test.equal(broker.next(everything).payload, tostring(i)) end
  end,

  ["[5: MQTT-4.8.2-3] groups that share the same filter each get every message"] = function()
    broker.requires("shared subscriptions")
    local client <close> = broker.connect()
    local topic = broker.topic()
    local one = broker.inbox(client, "$share/one/" .. topic)
    local other = broker.inbox(client, "$share/other/" .. topic)
    for i = 1, 5 do broker.publish(client, topic, tostring(i)) end
    for i = 1, 5 do
      test.equal(broker.next(one).payload, tostring(i))
      test.equal(broker.next(other).payload, tostring(i))
    end
  end,

  ["[5: MQTT-4.8.2-2] who leaves a shared subscription gets no more, and the others get all"] = function()
    broker.requires("shared subscriptions")
    local one <close> = broker.connect()
    local other <close> = broker.connect()
    local topic = broker.topic()
    local filter = "$share/group/" .. topic
    local left, inbox = broker.inbox(one, filter), broker.inbox(other, filter)
    assert(broker.soon("unsubscribing", one.unsubscribe, one, filter))
    for i = 1, 10 do broker.publish(one, topic, tostring(i)) end
    for i = 1, 10 do test.equal(broker.next(inbox).payload, tostring(i)) end
    test.equal(left:try_get(), nil)
  end,

  ["[MQTT-4.7.1-2] a filter that cannot be is refused before it is sent"] = function()
    local client <close> = broker.connect()
    for _, filter in ipairs({ "a/#/b", "a#", "a/b+", "" }) do
      test.raises("is not a topic filter", client.subscribe, client, filter)
    end
    broker.publish(client, broker.topic(), "x")
  end,
})
