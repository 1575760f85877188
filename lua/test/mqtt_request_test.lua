-- Requests, and how handlers are given messages: our client and the development broker in one process.
local cosocket = require("cosocket")
local log = require("log")
local mqtt_peer = require("test.mqtt_peer")
local test = require("test")

log.level("off")

return {
  ["a request gets the response that belongs to it, whatever their order"] = function()
    local one, connect = mqtt_peer.broker()
    local device <close> = connect({ client_id = "device" })
    local asker <close> = connect({ client_id = "a+b/#" })
    assert(device:subscribe("cmd/+", { qos = 1, concurrency = 10 }, function(message)
      -- The first to ask is answered last.
      cosocket.sleep(1 / tonumber(message.payload))
      assert(device:respond(message, "re " .. message.payload, { content_type = "text/plain" }))
    end))
    local answers = {}
    cosocket.group(function()
      for i = 1, 5 do
        cosocket.spawn(function()
          local response = assert(asker:request("cmd/x", tostring(i)))
          answers[#answers + 1] = response.payload
          test.equal(response.properties.content_type, "text/plain")
        end)
      end
    end)
    test.equal(answers, { "re 5", "re 4", "re 3", "re 2", "re 1" })
    one:close()
  end,

  ["a request that nobody answers ends in time, and one that nobody hears at once"] = function()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect()
    assert(client:subscribe("deaf"))
    local before = cosocket.now()
    test.matches(test.fails("timeout", client:request("deaf", "x", 3)).message, 'no response to "deaf" within 3 s')
    test.equal(math.floor(cosocket.now() - before + 0.5), 3)
    test.equal(test.fails("refused", client:request("nobody", "x", 3)).code, 0x10)
    one:close()
  end,

  ["the response topic is what the script says, or the client's own"] = function()
    local one, connect = mqtt_peer.broker()
    local topics = {}
    local device <close> = connect()
    assert(device:subscribe("cmd", function(message)
      topics[#topics + 1] = message.properties.response_topic
      device:respond(message)
    end))
    for _, options in ipairs({ { client_id = "a+b" }, { response_topic = "my/answers" } }) do
      local client <close> = connect(options)
      test.equal(assert(client:request("cmd")).payload, "")
      test.equal(assert(client:request("cmd")).payload, "")
    end
    test.matches(topics[1], "^response/a_b/%x+$")
    test.equal(topics[2], topics[1])
    test.matches(topics[3], "^my/answers/%x+$")
    one:close()
  end,

  ["wrong requests raise, and what cannot be is refused"] = function()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect()
    local old <close> = connect({ version = "3.1.1" })
    test.raises("timeout must be a number", client.request, client, "t", "", { timeout = "5" })
    test.raises("are chosen for each request", client.request, client, "t", "", { correlation = "x" })
    test.raises("unknown option", client.request, client, "t", "", { tiemout = 1 })
    test.fails("refused", old:request("t"))
    test.fails("protocol", client:respond({ type = "publish", topic = "t", qos = 0 }))
    one:close()
  end,

  ["a handler is given as many messages at a time as it may have"] = function()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect()
    local now, most, count = 0, 0, 0
    assert(client:subscribe("t", { qos = 1, concurrency = 3 }, function()
      now = now + 1
      most = math.max(most, now)
      cosocket.sleep(1)
      now, count = now - 1, count + 1
    end))
    for i = 1, 9 do client:publish("t", tostring(i), { qos = 1 }) end
    local before = cosocket.now()
    repeat cosocket.sleep(0.1) until count == 9
    test.equal(most, 3)
    assert(cosocket.now() - before < 4)
    one:close()
  end,

  ["handlers that wait for answers of the server do not stop the reading, however many"] = function()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect({ receive_queue_max = 100 })
    local count = 0
    assert(client:subscribe("in", { qos = 1, concurrency = 2 }, function(message)
      assert(client:publish("out", message.payload, { qos = 1 }))
      count = count + 1
    end))
    local other <close> = connect()
    for i = 1, 20 do other:publish("in", tostring(i), { qos = 1 }) end
    repeat cosocket.sleep(0.1) until count == 20
    one:close()
  end,

  ["what is acknowledged by hand is acknowledged when the script says so"] = function()
    local said, messages = {}, {}
    local got = cosocket.event()
    local client, _, _, task = mqtt_peer.scripted({}, function(server)
      local packet = server:expect("subscribe")
      server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = { 2 } })
      for id = 1, 3 do server:send({ type = "publish", topic = "t", qos = id % 2 + 1, packet_id = id }) end
      for i = 1, 3 do
        packet = server:next()
        said[i] = ("%s %d %d"):format(packet.type, packet.packet_id, packet.reason_code)
      end
    end)
    assert(client:subscribe("t", { qos = 2, manual_acknowledge = true }, function(message)
      messages[#messages + 1] = message
      if #messages == 3 then got:set() end
    end))
    got:wait()
    client:acknowledge(messages[2])
    client:acknowledge(messages[1], 0x80)
    client:acknowledge(messages[1])
    client:acknowledge(messages[3])
    task:join()
    test.equal(said, { "pubrec 1 128", "puback 2 0", "pubrec 3 0" })
    test.raises("a received message is wanted", client.acknowledge, client, "x")
    test.raises("a reason code", client.acknowledge, client, messages[1], 999)
    test.raises("are for a handler", client.subscribe, client, "t", { manual_acknowledge = true })
    client:close()
  end,

  ["a copy for each subscription goes to the handler of each, once"] = function()
    -- 3.3.4: a server may send overlapping subscriptions their own copies.
    local client, _, _, task = mqtt_peer.scripted({}, function(server)
      for id = 1, 3 do
        local packet = server:expect("subscribe")
        test.equal(packet.properties and packet.properties.subscription_identifier, id < 3 and { id } or nil)
        server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = { 0 } })
      end
      local function publish(payload, ...)
        local properties = (...) and { subscription_identifier = { ... } } or nil
        server:send({ type = "publish", topic = "a/b", payload = payload, properties = properties })
      end
      publish("1", 1)
      publish("2", 2)
      publish("both", 1, 2)
      publish("none")
      publish("unknown", 77)
    end)
    local seen = { {}, {}, {} }
    assert(client:subscribe("a/#", function(message) table.insert(seen[1], message.payload) end))
    assert(client:subscribe("a/b", function(message) table.insert(seen[2], message.payload) end))
    assert(client:subscribe("+/b"))
    task:join()
    cosocket.sleep(0.1)
    test.equal(seen, {
      { "1", "both", "none", "unknown" },
      { "2", "both", "none", "unknown" },
      {},
    })
    client:close()
  end,
}
