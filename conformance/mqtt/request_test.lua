-- Requests and their responses (MQTT 5, 4.10).

local broker = require("broker")
local cosocket = require("cosocket")
local test = require("test")

return broker.cases({
  ["[5: 4.10.1] a request is answered, and the answer comes to who asked"] = function()
    local responder <close> = broker.connect()
    local asker <close> = broker.connect()
    local topic = broker.topic("commands")
    assert(responder:subscribe(topic, { qos = 1 }, function(message, client)
      assert(client:respond(message, message.payload:upper()))
    end))
    local response = assert(broker.soon("a response", asker.request, asker, topic, "ping"))
    test.equal(response.payload, "PING")
  end,

  ["[5: MQTT-3.3.2-15] responses that overtake each other come to the right requests"] = function()
    local responder <close> = broker.connect()
    local asker <close> = broker.connect()
    local topic, held = broker.topic("commands"), {}
    assert(responder:subscribe(topic, { qos = 1 }, function(message, client)
      held[#held + 1] = message
      if #held < 10 then return end
      for i = #held, 1, -1 do assert(client:respond(held[i], "to " .. held[i].payload)) end
    end))
    local answers = {}
    assert(broker.soon("all responses", cosocket.group, function()
      for i = 1, 10 do
        cosocket.spawn(function() answers[i] = assert(asker:request(topic, tostring(i))).payload end)
      end
      return true
    end))
    for i = 1, 10 do test.equal(answers[i], "to " .. i) end
  end,

  ["[5: MQTT-3.4.2-1] a request that nobody hears is refused at once"] = function()
    local asker <close> = broker.connect()
    local err = test.fails("refused", broker.soon("an answer", asker.request, asker, broker.topic(), "anyone?"))
    test.equal(err.code, 0x10)
  end,

  ["[5: 4.10.1] a request that nobody answers ends in time"] = function()
    local responder <close> = broker.connect()
    local asker <close> = broker.connect()
    local topic = broker.topic("commands")
    local inbox = broker.inbox(responder, topic)
    test.fails("timeout", asker:request(topic, "anyone?", 0.2))
    -- The response that comes too late is for nobody.
    assert(responder:respond(broker.next(inbox), "late"))
    local marker = broker.topic("marker")
    local after = broker.inbox(asker, marker)
    broker.publish(asker, marker, "end")
    test.equal(broker.next(after).payload, "end")
  end,

  ["[5: MQTT-3.3.2-15] mosquitto_rr is answered"] = function()
    local responder <close> = broker.connect()
    local topic = broker.topic("commands")
    assert(responder:subscribe(topic, { qos = 1 }, function(message, client)
      assert(client:respond(message, "answered " .. message.payload))
    end))
    local topics = { response = broker.topic("response"), answer = broker.topic("answer") }
    local inbox = broker.inbox(responder, topics.answer)
    broker.request_elsewhere(topic, "there", topics.response, topics.answer)
    test.equal(broker.next(inbox).payload, "answered there\n")
  end,
})
