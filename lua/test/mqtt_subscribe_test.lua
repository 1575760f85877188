-- Subscribing and receiving: handlers, loops, and what happens when they are slow.
local cosocket = require("cosocket")
local log = require("log")
local mqtt_peer = require("test.mqtt_peer")
local test = require("test")

-- Some tests make mistakes on purpose, which are told.
log.level("off")

return {
  ["messages go to the handler of their filter, and the rest to the loop"] = function()
    local one, connect = mqtt_peer.broker()
    for _, version in ipairs({ 5, "3.1.1" }) do
      local client <close> = connect({ version = version })
      local seen = {}
      local function note(name)
        return function(message) seen[#seen + 1] = ("%s %s %s"):format(name, message.topic, message.payload) end
      end
      test.equal(client:subscribe("a/+", { qos = 1 }, note("plus")), 1)
      test.equal(client:subscribe({ "b", "c" }), { 0, 0 })
      test.equal(client:subscribe("d", note("d")), 0)
      for _, topic in ipairs({ "a/1", "b", "a/2", "c", "d" }) do
        assert(client:publish(topic, topic:upper(), { qos = 1 }))
      end
      local loop = {}
      for message in client:messages() do
        loop[#loop + 1] = message.topic
        if #loop == 2 then break end
      end
      test.equal(loop, { "b", "c" })
      cosocket.sleep(0.1)
      test.equal(seen, { "plus a/1 A/1", "plus a/2 A/2", "d d D" })
      test.equal(client:unsubscribe({ "a/+", "never" }), true)
      assert(client:publish("a/3", "", { qos = 1 }))
      cosocket.sleep(0.1)
      test.equal(#seen, 3)
    end
    one:close()
  end,

  ["a handler subscribed again takes the place of the first"] = function()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect()
    local seen = {}
    assert(client:subscribe("t", function() seen[#seen + 1] = "first" end))
    assert(client:subscribe("t", function() seen[#seen + 1] = "second" end))
    assert(client:publish("t", ""))
    cosocket.sleep(0.1)
    test.equal(seen, { "second" })
    one:close()
  end,

  ["messages that come before the SUBACK reach the handler"] = function()
    local client = mqtt_peer.scripted({}, function(server)
      local packet = server:expect("subscribe")
      server:send(
        { type = "publish", topic = "t", payload = "early" },
        { type = "suback", packet_id = packet.packet_id, reason_codes = { 0 } }
      )
      server:expect("disconnect")
    end)
    local seen
    assert(client:subscribe("t", function(message) seen = message.payload end))
    cosocket.sleep(0.1)
    test.equal(seen, "early")
    client:close()
  end,

  ["each option by itself becomes its own bits"] = function()
    local client = mqtt_peer.scripted({}, function(server)
      for _ = 1, 2 do
        local packet = server:expect("subscribe")
        server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = { 0 } })
        local one = packet.subscriptions[1]
        local options = { one.qos, one.no_local, one.retain_as_published, one.retain_handling }
        if one.filter == "a" then
          test.equal(options, { 1, false, false, 2 })
          test.equal(packet.properties, nil)
        else
          test.equal(options, { 0, true, true, 1 })
          test.equal(packet.properties, { subscription_identifier = { 7 }, user_property = { { "k", "v" } } })
        end
      end
      server:expect("disconnect")
    end)
    assert(client:subscribe("a", { qos = 1, retain_handling = 2 }))
    assert(client:subscribe("b", {
      no_local = true,
      retain_as_published = true,
      retain_handling = 1,
      identifier = 7,
      user = { k = "v" },
    }))
    client:close()
  end,

  ["a refused filter is an error with the server's answers, and its handler is forgotten"] = function()
    local client = mqtt_peer.scripted({}, function(server)
      local packet = server:expect("subscribe")
      server:send(
        { type = "suback", packet_id = packet.packet_id, reason_codes = { 1, 0x87 } },
        { type = "publish", topic = "a", payload = "for a" },
        { type = "publish", topic = "b", payload = "for nobody" }
      )
      server:expect("disconnect")
    end)
    local seen = {}
    local err = test.fails("refused", client:subscribe({ "a", "b" }, { qos = 1 }, function(message)
      seen[#seen + 1] = message.payload
    end))
    test.equal({ err.code, err.codes, err.filter }, { 0x87, { 1, 0x87 }, "b" })
    test.equal(err.message, "the server refused the subscription to \"b\": not authorized")
    cosocket.sleep(0.1)
    test.equal(seen, { "for a" })
    client:close()
  end,

  ["wrong arguments raise"] = function()
    local client = mqtt_peer.scripted()
    local function raises(pattern, ...) test.raises(pattern, client.subscribe, client, ...) end
    raises("a topic filter or a list of them is wanted", nil)
    raises("a topic filter or a list of them is wanted", {})
    raises("\"a#\" is not a topic filter", "a#")
    raises("\"5\" is not a topic filter", { 5 })
    raises("unknown option \"quos\"", "a", { quos = 1 })
    raises("qos must be 0, 1 or 2", "a", { qos = 3 })
    raises("retain_handling must be 0, 1 or 2", "a", { retain_handling = 3 })
    raises("the handler must be a function, not a string", "a", {}, "print")
    test.raises("\"a#\" is not a topic filter", client.messages, client, "a#")
    test.raises("\"a#\" is not a topic filter", client.unsubscribe, client, "a#")
    client:close()
  end,

  ["an error in a handler is told and the client lives on"] = function()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect()
    local seen = {}
    assert(client:subscribe("t", { qos = 1 }, function(message)
      seen[#seen + 1] = message.payload
      if message.payload == "bad" then error("a mistake in the handler") end
    end))
    for _, payload in ipairs({ "good", "bad", "good again" }) do assert(client:publish("t", payload, { qos = 1 })) end
    cosocket.sleep(0.1)
    test.equal(seen, { "good", "bad", "good again" })
    test.equal(client:status().state, "connected")
    one:close()
  end,

  ["a QoS 1 message is acknowledged when its handler has returned, or the loop goes on"] = function()
    local acknowledged = {}
    local client, _, server = mqtt_peer.scripted({ receive_maximum = 10 }, function(server)
      local packet = server:expect("subscribe")
      server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = { 1 } })
      for id = 1, 2 do server:send({ type = "publish", topic = "handled", qos = 1, packet_id = id }) end
      for id = 3, 4 do server:send({ type = "publish", topic = "looped", qos = 1, packet_id = id }) end
      while true do
        packet = server:next()
        if not packet or packet.type ~= "puback" then return end
        acknowledged[#acknowledged + 1] = packet.packet_id
      end
    end)
    assert(client:subscribe("handled", { qos = 1 }, function() cosocket.sleep(1) end))
    cosocket.sleep(0.5)
    test.equal(acknowledged, {})
    cosocket.sleep(1)
    test.equal(acknowledged, { 1 })
    cosocket.sleep(1)
    test.equal(acknowledged, { 1, 2 })
    for message in client:messages() do
      cosocket.sleep(1)
      test.equal(#acknowledged, message.packet_id - 1)
      if message.packet_id == 4 then break end
    end
    cosocket.sleep(0.1)
    test.equal(acknowledged, { 1, 2, 3, 4 })
    client:close()
    test.equal(server.version, 5)
  end,

  ["two handlers of one message both get it and it is acknowledged once"] = function()
    local acknowledged = 0
    local client = mqtt_peer.scripted({}, function(server)
      for _ = 1, 2 do
        local packet = server:expect("subscribe")
        server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = { 1 } })
      end
      server:send({ type = "publish", topic = "a/b", qos = 1, packet_id = 1 })
      server:expect("puback")
      acknowledged = acknowledged + 1
      server:expect("disconnect")
    end)
    local seen = {}
    assert(client:subscribe("a/#", { qos = 1 }, function() seen[#seen + 1] = "hash" end))
    assert(client:subscribe("a/+", { qos = 1 }, function()
      cosocket.sleep(1)
      test.equal(acknowledged, 0)
      seen[#seen + 1] = "plus"
    end))
    cosocket.sleep(2)
    test.equal(seen, { "hash", "plus" })
    test.equal(acknowledged, 1)
    client:close()
  end,

  ["a loop over a filter takes what came before it, and leaves the rest"] = function()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect()
    assert(client:subscribe("#"))
    for i = 1, 3 do
      assert(client:publish("a", tostring(i), { qos = 1 }))
      assert(client:publish("b", tostring(i), { qos = 1 }))
    end
    local seen = {}
    for message in client:messages("a") do
      seen[#seen + 1] = message.topic .. message.payload
      if #seen == 3 then break end
    end
    for message in client:messages() do
      seen[#seen + 1] = message.topic .. message.payload
      if #seen == 6 then break end
    end
    test.equal(seen, { "a1", "a2", "a3", "b1", "b2", "b3" })
    one:close()
  end,

  ["a deadline around a loop ends it and loses nothing"] = function()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect()
    assert(client:subscribe("t"))
    local _, err = cosocket.deadline(2, function()
      for _ in client:messages() do end
    end)
    test.equal(err.kind, "timeout")
    assert(client:publish("t", "later"))
    for message in client:messages() do
      test.equal(message.payload, "later")
      break
    end
    one:close()
  end,

  ["back-pressure"] = {
    ["a slow handler stops the reading and nothing is lost"] = function()
      local sent = 0
      local client = mqtt_peer.scripted({ receive_queue_max = 50000 }, function(server)
        local packet = server:expect("subscribe")
        server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = { 0 } })
        for i = 1, 2000 do
          local payload = ("%05d"):format(i) .. ("x"):rep(995)
          if not server:send({ type = "publish", topic = "t", payload = payload }) then return end
          server.stream:flush()
          sent = i
        end
        server:expect("disconnect")
      end)
      local seen, most = 0, 0
      assert(client:subscribe("t", function(message)
        seen = seen + 1
        assert(tonumber(message.payload:sub(1, 5)) == seen)
        most = math.max(most, client:status().received_bytes)
        if seen == 1 then cosocket.sleep(100) end
        cosocket.sleep(0.01)
      end))
      cosocket.sleep(50)
      assert(sent < 1500, sent)
      cosocket.sleep(100)
      test.equal(seen, 2000)
      assert(most <= 55000, most)
      test.equal(client:status().dropped, 0)
      client:close()
    end,

    ["while nothing is read, the keep alive goes on and what is published is sent"] = function()
      local published = 0
      local client, _, server = mqtt_peer.scripted({ receive_queue_max = 1000, keep_alive = 10 }, function(server)
        local packet = server:expect("subscribe")
        server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = { 0 } })
        for _ = 1, 20 do server:send({ type = "publish", topic = "t", payload = ("x"):rep(500) }) end
        while true do
          packet = server:next()
          if not packet or packet.type == "disconnect" then return end
          published = published + 1
        end
      end)
      assert(client:subscribe("t", function() cosocket.sleep(100) end))
      cosocket.sleep(50)
      test.equal(client:status().state, "connected")
      assert(server.pings >= 4, server.pings)
      assert(client:publish("elsewhere", "x"))
      cosocket.sleep(1)
      test.equal(published, 1)
      client:close()
    end,

    ["a handler that publishes and waits for the answer does not wait for ever"] = function()
      -- The answer comes behind messages that nobody can take before the handler returns.
      local client = mqtt_peer.scripted({ receive_queue_max = 2000 }, function(server)
        local packet = server:expect("subscribe")
        server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = { 1 } })
        for id = 1, 50 do
          server:send({ type = "publish", topic = "t", payload = ("x"):rep(500), qos = 1, packet_id = id })
        end
        while true do
          packet = server:next()
          if not packet or packet.type == "disconnect" then return end
          if packet.type == "publish" then server:send({ type = "puback", packet_id = packet.packet_id }) end
        end
      end)
      local answered = 0
      assert(client:subscribe("t", { qos = 1 }, function()
        test.equal(client:publish("answer", "", { qos = 1 }), 0)
        answered = answered + 1
      end))
      cosocket.sleep(10)
      test.equal(answered, 50)
      client:close()
    end,

    ["messages that nobody takes do not stop the client"] = function()
      local one, connect = mqtt_peer.broker()
      local client <close> = connect({ receive_queue_max = 5000 })
      assert(client:subscribe("t", { qos = 1 }))
      for _ = 1, 100 do test.equal(client:publish("t", ("x"):rep(500), { qos = 1 }), 0) end
      local status = client:status()
      assert(status.dropped > 80 and status.received_bytes <= 6000, status.dropped)
      one:close()
    end,
  },
}
