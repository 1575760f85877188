-- Filters, wildcards, several subscriptions, taking them back.

local broker = require("broker")
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
  end,

  ["[5: MQTT-3.8.3-3] a subscription without local messages brings those of others only"] = function()
    local client <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic, { qos = 1, no_local = true })
    broker.publish(client, topic, "own")
    broker.publish_elsewhere(topic, "another's")
    test.equal(broker.next(inbox).payload, "another's")
  end,

  ["[MQTT-4.7.1-2] a filter that cannot be is refused before it is sent"] = function()
    local client <close> = broker.connect()
    for _, filter in ipairs({ "a/#/b", "a#", "a/b+", "" }) do
      test.raises("is not a topic filter", client.subscribe, client, filter)
    end
    broker.publish(client, broker.topic(), "x")
  end,
})
