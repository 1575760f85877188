-- The client on streams: the development broker, and servers that say exactly what a test wants.
local broker = require("mqtt.broker")
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local log = require("log")
local mqtt = require("mqtt")
local test = require("test")

-- Some tests make mistakes on purpose, which are told.
log.level("off")

--- The bytes of packets.
local function wire(version, ...)
  local buffer = cosocket.buffer()
  for _, packet in ipairs({ ... }) do assert(codec.encode(buffer, packet, version)) end
  return buffer:take()
end

--- A server at the other end of a stream, in the words of packets. It reads packet by packet.
local Server = {}
Server.__index = Server

--- The next packet but for pings, which are answered; `nil` at the end of the stream.
function Server:next()
  while true do
    local packet, err = codec.decode(self.input, self.version)
    if err then error(err, 0) end
    if packet and packet.type == "connect" then self.version = packet.protocol_version end
    if packet and packet.type == "pingreq" then
      self.pings = self.pings + 1
      self:send({ type = "pingresp" })
    elseif packet then
      return packet
    elseif not self.stream:fill(self.input) then
      return nil
    end
  end
end

--- The next packet, which is of `type`.
function Server:expect(type)
  local packet = self:next()
  test.equal(packet and packet.type, type)
  return packet
end

function Server:send(...)
  return self.stream:write(wire(self.version, ...))
end

--- A client, and a server that runs `script(server)` after it has accepted it.
local function scripted(options, script, connack)
  local near, far = cosocket.pair()
  local server = setmetatable({ stream = far, input = cosocket.buffer(), pings = 0 }, Server)
  local task = cosocket.spawn("scripted server", function()
    server.connect = server:expect("connect")
    local answer = { type = "connack" }
    for name, value in pairs(connack or {}) do answer[name] = value end
    server:send(answer)
    if script then script(server) end
  end)
  options = options or {}
  options.version = options.version or 5
  local client, err = mqtt.connect(near, options)
  return client, err, server, task
end

--- A broker without a socket, and a function that connects to it.
local function new_broker(options)
  local one = broker.new(options)
  return one, function(client_options)
    local near, far = cosocket.pair()
    one:serve(far)
    return assert(mqtt.connect(near, client_options))
  end
end

return {
  connect = {
    ["wrong arguments raise and say what is wanted"] = function()
      local function raises(pattern, ...) test.raises(pattern, mqtt.connect, ...) end
      raises("unknown option \"keepalive\"; did you mean \"keep_alive\"?", "mqtt://h", { keepalive = 5 })
      raises("must be a integer, not a string", "mqtt://h", { keep_alive = "5" })
      raises("keep_alive must be from 0 to 65535", "mqtt://h", { keep_alive = 70000 })
      raises("receive_maximum must be from 1 to 65535", "mqtt://h", { receive_maximum = 0 })
      raises("version must be 5, \"3.1.1\" or \"auto\"", "mqtt://h", { version = 4 })
      raises("must begin with mqtt://, mqtts:// or unix://", "http://h")
      raises("must begin with mqtt://, mqtts:// or unix://", "h:1883")
      raises("an address has no path", "mqtt://h/topic")
      raises("empty host", "mqtt://:1883")
      raises("must be a string, not a nil", nil)
      raises("tls goes with mqtts://", "mqtt://h", { tls = {} })
      raises("clean_start = false needs a client_id", "mqtt://h", { clean_start = false })
      raises("the will needs a topic", "mqtt://h", { will = { topic = "a/#" } })
      raises("unknown option \"retian\"; did you mean \"retain\"?", "mqtt://h", { will = { topic = "a", retian = true } })
      raises("qos must be 0 or 1", "mqtt://h", { will = { topic = "a", qos = 2 } })
    end,

    ["mistakes blame the line that called"] = function()
      local message = test.raises("version must be", function() mqtt.connect("mqtt://h", { version = 4 }) end)
      test.matches(message, "mqtt_client_test%.lua:%d+: mqtt%.connect: version")
      message = test.raises("unknown option", function() mqtt.connect("mqtt://h", { x = 4 }) end)
      test.matches(message, "mqtt_client_test%.lua:%d+: unknown option")
    end,

    ["CONNECT says what the options say"] = function()
      local client, _, server = scripted({
        client_id = "device",
        username = "u",
        password = "p",
        keep_alive = 7,
        clean_start = false,
        session_expiry = 9,
        packet_max = 1000,
        receive_maximum = 20,
        user = { b = "2", a = "1" },
        will = { topic = "w", payload = "x", qos = 1, retain = true, delay = 3, user = { { "k", "v" } }, expiry = 1.5 },
      })
      test.equal(server.connect, {
        type = "connect",
        protocol_version = 5,
        clean_start = false,
        keep_alive = 7,
        client_id = "device",
        username = "u",
        password = "p",
        properties = {
          session_expiry_interval = 9,
          maximum_packet_size = 1000,
          receive_maximum = 20,
          user_property = { { "a", "1" }, { "b", "2" } },
        },
        will = {
          topic = "w",
          payload = "x",
          qos = 1,
          retain = true,
          properties = { will_delay_interval = 3, message_expiry_interval = 2, user_property = { { "k", "v" } } },
        },
      })
      client:close()
    end,

    ["a refusal has the server's code and words"] = function()
      local client, err = scripted({}, nil, { reason_code = 0x86, properties = { reason_string = "go away" } })
      test.fails("refused", client, err)
      test.equal({ err.op, err.code, err.reason }, { "mqtt.connect", 0x86, "go away" })
      test.equal(err.message, "the server refused the connection: bad user name or password (go away)")
      client, err = scripted({ version = "3.1.1" }, nil, { reason_code = 5 })
      test.fails("refused", client, err)
      test.equal(err.message, "the server refused the connection: not authorized")
    end,

    ["a server that closes, is silent, or speaks something else is told apart"] = function()
      local near, far = cosocket.pair()
      far:close()
      test.fails("closed", mqtt.connect(near))
      near, far = cosocket.pair()
      local before = cosocket.now()
      test.fails("timeout", mqtt.connect(near, { timeout = 7 }))
      test.equal(cosocket.now() - before, 7)
      near, far = cosocket.pair()
      far:write("HTTP/1.1 400 Bad Request\r\n\r\n")
      test.fails("protocol", mqtt.connect(near))
    end,

    ["auto falls back to 3.1.1 when the server does not want 5"] = function()
      -- Three ways to refuse version 5: closing, MQTT 5's words, 3.1.1's words.
      for _, refusal in ipairs({ "", "\x20\x03\x00\x84\x00", "\x20\x02\x00\x01" }) do
        local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
        local versions = {}
        local task = cosocket.spawn(function()
          for _ = 1, 2 do
            local server = setmetatable({ stream = assert(listener:accept()), input = cosocket.buffer(), pings = 0 }, Server)
            local connect = server:expect("connect")
            versions[#versions + 1] = connect.protocol_version
            if connect.protocol_version == 5 then
              server.stream:write(refusal)
              server.stream:close()
            else
              server:send({ type = "connack" })
              server:expect("disconnect")
              server.stream:close()
            end
          end
        end)
        local client = assert(mqtt.connect("mqtt://" .. listener:local_address()))
        test.equal(client:status().version, "3.1.1")
        client:close()
        task:join()
        listener:close()
        test.equal(versions, { 5, 4 })
      end
    end,

    ["a name and password in the address are used and may be encoded"] = function()
      local seen
      local one = assert(broker.listen("tcp://127.0.0.1:0", {
        authenticate = function(_, username, password)
          seen = { username, password }
          return true
        end,
      }))
      local client <close> = assert(mqtt.connect("mqtt://us%40er:p%3Ass@" .. one:address()))
      test.equal(seen, { "us@er", "p:ss" })
      one:close()
    end,

    ["the server's client identifier, keep alive and limits are in the status"] = function()
      local client = scripted({ keep_alive = 60 }, nil, {
        properties = { assigned_client_identifier = "auto", server_keep_alive = 5, maximum_qos = 0 },
      })
      local status = client:status()
      test.equal({ status.state, status.version, status.client_id, status.keep_alive }, { "connected", 5, "auto", 5 })
      test.equal(status.server.maximum_qos, 0)
      test.equal(test.fails("refused", client:publish("t", "", { qos = 1 })).code, 0x9B)
      client:close()
    end,
  },

  publish = {
    ["QoS 0 is handed over and QoS 1 returns with the answer's reason code"] = function()
      local client = scripted({}, function(server)
        test.equal(server:expect("publish").payload, "zero")
        for _, code in ipairs({ 0, 0x10, 0x97 }) do
          local packet = server:expect("publish")
          server:send({ type = "puback", packet_id = packet.packet_id, reason_code = code })
        end
        server:expect("disconnect")
      end)
      test.equal(client:publish("t", "zero"), 0)
      test.equal(client:publish("t", "one", { qos = 1 }), 0)
      test.equal(client:publish("t", "two", { qos = 1 }), 0x10)
      local err = test.fails("refused", client:publish("t", "three", { qos = 1 }))
      test.equal({ err.op, err.code, err.message }, { "mqtt.publish", 0x97, "the server refused the message: quota exceeded" })
      client:close()
    end,

    ["options become properties"] = function()
      local client, _, _, task = scripted({}, function(server)
        test.equal(server:expect("publish").properties, {
          message_expiry_interval = 60,
          content_type = "text/plain",
          response_topic = "r",
          correlation_data = "\1",
          payload_format_indicator = 1,
          user_property = { { "a", "1" }, { "b", "2" } },
        })
        test.equal(server:expect("publish").properties, nil)
      end)
      client:publish("t", "", {
        expiry = 60,
        content_type = "text/plain",
        response_topic = "r",
        correlation = "\1",
        utf8 = true,
        user = { b = "2", a = "1" },
      })
      client:publish("t", "", { retain = true })
      task:join()
      client:close()
    end,

    ["wrong arguments raise"] = function()
      local client = scripted()
      local function raises(pattern, ...) test.raises(pattern, client.publish, client, ...) end
      raises("the topic must be a string, not a nil", nil)
      raises("the payload must be a string, not a number", "t", 5)
      raises("\"a/#\" is not a topic to publish to", "a/#", "")
      raises("is not a topic to publish to", "", "")
      raises("unknown option \"qs\"; did you mean \"qos\"?", "t", "", { qs = 1 })
      raises("qos must be 0 or 1", "t", "", { qos = 2 })
      raises("must be a boolean", "t", "", { retain = 1 })
      raises("expiry must be from 0", "t", "", { expiry = -1 })
      local message = test.raises("qos must be", function() client:publish("t", "", { qos = 2 }) end)
      test.matches(message, "mqtt_client_test%.lua:%d+: publish: qos")
      -- What only MQTT 5 can say is not dropped in silence.
      client:close()
      local old = scripted({ version = "3.1.1" })
      test.fails("protocol", old:publish("t", "", { expiry = 5 }))
      old:close()
    end,

    ["many tasks publish at once and each gets its own answer, within Receive Maximum"] = function()
      local most, live = 0, 0
      local client = scripted({}, function(server)
        local held = {}
        while true do
          local packet = server:next()
          if not packet or packet.type == "disconnect" then return end
          live = live + 1
          most = math.max(most, live)
          held[#held + 1] = packet
          -- Answers come late and backwards.
          if #held == 5 then
            for i = 5, 1, -1 do
              live = live - 1
              server:send({ type = "puback", packet_id = held[i].packet_id, reason_code = tonumber(held[i].payload) })
            end
            held = {}
          end
        end
      end, { properties = { receive_maximum = 5 } })
      cosocket.group(function()
        for i = 1, 100 do
          cosocket.spawn(function()
            local code = i % 2 == 0 and 0 or 0x10
            test.equal(client:publish("t", tostring(code), { qos = 1 }), code)
          end)
        end
      end)
      test.equal(most, 5)
      client:close()
    end,

    ["a deadline around a publish ends the wait and nothing else"] = function()
      local client = scripted({}, function(server)
        local first = server:expect("publish")
        local second = server:expect("publish")
        server:send({ type = "puback", packet_id = first.packet_id }, { type = "puback", packet_id = second.packet_id })
        server:expect("disconnect")
      end)
      test.fails("timeout", cosocket.deadline(3, function() return client:publish("t", "a", { qos = 1 }) end))
      test.equal(client:publish("t", "b", { qos = 1 }), 0)
      client:close()
    end,

    ["a server that does not read holds the publisher back"] = function()
      local client, _, server = scripted({}, function(server) cosocket.sleep(1000) end)
      local payload, count = ("x"):rep(10000), 0
      local task = cosocket.spawn(function()
        for i = 1, 1000 do
          assert(client:publish("t", payload))
          count = i
        end
      end)
      cosocket.sleep(1)
      local stalled = count
      assert(stalled < 500, stalled)
      cosocket.sleep(1)
      test.equal(count, stalled)
      local received = 0
      while received < 1000 do
        server:expect("publish")
        received = received + 1
      end
      task:join()
      test.equal(count, 1000)
      client:close()
    end,
  },

  subscribe = {
    ["messages go to the handler of their filter, and the rest to the loop"] = function()
      local one, connect = new_broker()
      for _, version in ipairs({ 5, "3.1.1" }) do
        local client <close> = connect({ version = version })
        local seen = {}
        local function note(name)
          return function(message) seen[#seen + 1] = ("%s %s %s"):format(name, message.topic, message.payload) end
        end
        test.equal(client:subscribe("a/+", { qos = 1 }, note("plus")), 1)
        test.equal(client:subscribe({ "b", "c" }), { 0, 0 })
        test.equal(client:subscribe("d", note("d")), 0)
        for _, topic in ipairs({ "a/1", "b", "a/2", "c", "d" }) do assert(client:publish(topic, topic:upper(), { qos = 1 })) end
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

    ["messages that come before the SUBACK reach the handler"] = function()
      local client = scripted({}, function(server)
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
      local client = scripted({}, function(server)
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
      local client = scripted({}, function(server)
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
      local client = scripted()
      local function raises(pattern, ...) test.raises(pattern, client.subscribe, client, ...) end
      raises("a topic filter or a list of them is wanted", nil)
      raises("a topic filter or a list of them is wanted", {})
      raises("\"a#\" is not a topic filter", "a#")
      raises("\"5\" is not a topic filter", { 5 })
      raises("unknown option \"quos\"", "a", { quos = 1 })
      raises("qos must be 0 or 1", "a", { qos = 2 })
      raises("retain_handling must be 0, 1 or 2", "a", { retain_handling = 3 })
      raises("the handler must be a function, not a string", "a", {}, "print")
      test.raises("\"a#\" is not a topic filter", client.messages, client, "a#")
      test.raises("\"a#\" is not a topic filter", client.unsubscribe, client, "a#")
      client:close()
    end,

    ["an error in a handler is told and the client lives on"] = function()
      local one, connect = new_broker()
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
      local client, _, server = scripted({ receive_maximum = 10 }, function(server)
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
      local client = scripted({}, function(server)
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
      local one, connect = new_broker()
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
      local one, connect = new_broker()
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
  },

  ["back-pressure"] = {
    ["a slow handler stops the reading and nothing is lost"] = function()
      local sent = 0
      local client = scripted({ receive_queue_max = 50000 }, function(server)
        local packet = server:expect("subscribe")
        server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = { 0 } })
        for i = 1, 2000 do
          if not server:send({ type = "publish", topic = "t", payload = ("%05d"):format(i) .. ("x"):rep(995) }) then return end
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
      local client, _, server = scripted({ receive_queue_max = 1000, keep_alive = 10 }, function(server)
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
      local client = scripted({ receive_queue_max = 2000 }, function(server)
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
      local one, connect = new_broker()
      local client <close> = connect({ receive_queue_max = 5000 })
      assert(client:subscribe("t", { qos = 1 }))
      for _ = 1, 100 do test.equal(client:publish("t", ("x"):rep(500), { qos = 1 }), 0) end
      local status = client:status()
      assert(status.dropped > 80 and status.received_bytes <= 6000, status.dropped)
      one:close()
    end,
  },

  ["the end"] = {
    ["close says DISCONNECT, and everything published before has arrived"] = function()
      -- Defect of others: the socket was closed before DISCONNECT had left.
      local payloads, last = 0, nil
      local client, _, _, task = scripted({}, function(server)
        while true do
          local packet = server:next()
          if not packet then return end
          last = packet
          if packet.type == "publish" then payloads = payloads + #packet.payload end
        end
      end)
      for _ = 1, 500 do assert(client:publish("t", ("x"):rep(4000))) end
      test.equal(client:close(), true)
      task:join()
      test.equal(payloads, 2000000)
      test.equal(last, { type = "disconnect", reason_code = 0 })
      test.equal(client:close(), true, "twice is fine")
      local err = test.fails("closed", client:publish("t", ""))
      test.equal(err.message, "this client is closed")
      test.fails("closed", client:publish("t", "", { qos = 1 }))
      test.fails("closed", client:subscribe("t"))
      test.fails("closed", client:unsubscribe("t"))
      test.equal({ client:status().state, client:status().error.message }, { "closed", "this client is closed" })
    end,

    ["a will is not published after close, and with reason 4 it is"] = function()
      local one, connect = new_broker()
      local watcher <close> = connect({ client_id = "watcher" })
      local seen = {}
      assert(watcher:subscribe("will/#", function(message) seen[#seen + 1] = message.payload end))
      for _, version in ipairs({ 5, "3.1.1" }) do
        connect({ version = version, will = { topic = "will/1", payload = "normal" } }):close()
      end
      connect({ will = { topic = "will/2", payload = "with will" } }):close(4)
      cosocket.sleep(0.1)
      test.equal(seen, { "with will" })
      one:close()
    end,

    ["leaving the block closes"] = function()
      local connected, _, server, task = scripted({}, function(server) server:expect("disconnect") end)
      do
        local client <close> = connected
      end
      task:join()
      test.equal(server.version, 5)
    end,

    ["a server that does not read cannot keep us from closing"] = function()
      local client = scripted({}, function() cosocket.sleep(1000) end)
      for _ = 1, 40 do client:publish("t", ("x"):rep(10000)) end
      local before = cosocket.now()
      client:close()
      assert(cosocket.now() - before <= 6.1)
    end,

    ["everybody who waits is told when the connection is lost"] = function()
      local client = scripted({}, function(server)
        for _ = 1, 2 do server:expect("publish") end
        server:expect("subscribe")
        server.stream:close()
      end, { properties = { receive_maximum = 2 } })
      local kinds = {}
      cosocket.group(function()
        for i = 1, 4 do
          cosocket.spawn(function()
            local _, err = client:publish("t", "", { qos = 1 })
            kinds[i] = err and err.kind
          end)
        end
        cosocket.spawn(function()
          local _, err = client:subscribe("t")
          kinds[5] = err and err.kind
        end)
        cosocket.spawn(function()
          for _ in client:messages() do end
          kinds[6] = "loop ended"
        end)
      end)
      test.equal(kinds, { "closed", "closed", "closed", "closed", "closed", "loop ended" })
      test.equal(client:status().state, "closed")
      test.equal(client:close(), true)
    end,

    ["the server's DISCONNECT says why, in its shortest form too"] = function()
      for bytes, words in pairs({
        ["\xe0\x00"] = "the server ended the connection: normal disconnection",
        ["\xe0\x01\x8b"] = "the server ended the connection: server shutting down",
        ["\xe0\x06\x8e\x04\x1f\x00\x01x"] = "the server ended the connection: session taken over (x)",
      }) do
        local client = scripted({}, function(server) server.stream:write(bytes) end)
        for _ in client:messages() do end
        local err = client:status().error
        test.equal({ err.kind, err.message }, { "closed", words })
      end
    end,

    ["a server that breaks the protocol is told why before we close"] = function()
      local said
      local client, _, _, task = scripted({}, function(server)
        server.stream:write("\x36\x00")
        said = server:expect("disconnect")
        test.equal(server:next(), nil)
      end)
      for _ in client:messages() do end
      task:join()
      test.equal(said.reason_code, 0x81)
      local err = client:status().error
      test.equal({ err.kind, err.code, err.message }, { "protocol", 0x81, "PUBLISH: QoS 3 does not exist" })
    end,

    ["a silent server is given up after an unanswered PINGREQ"] = function()
      local client = scripted({ keep_alive = 10 }, function(server)
        local count = 0
        repeat
          local got = server.stream:fill(server.input)
          count = count + (got or 0)
        until not got
      end)
      local before = cosocket.now()
      for _ in client:messages() do end
      test.equal(client:status().error.kind, "timeout")
      test.near(cosocket.now() - before, 14, 0.001)
    end,

    ["an idle hour costs a ping every nine tenths of the keep alive, and a busy one none"] = function()
      local client, _, server = scripted({ keep_alive = 60 }, function(server)
        repeat until not server:next()
      end)
      cosocket.sleep(3600)
      test.equal(server.pings, 66)
      for _ = 1, 360 do
        assert(client:publish("t", ""))
        cosocket.sleep(10)
      end
      test.equal(server.pings, 66)
      client:close()
    end,

    ["a cancelled task that holds a client closes it"] = function()
      local ended = false
      local near, far = cosocket.pair()
      local server = setmetatable({ stream = far, input = cosocket.buffer(), pings = 0 }, Server)
      cosocket.spawn(function()
        server:expect("connect")
        server:send({ type = "connack" })
        repeat until not server:next()
        ended = true
      end)
      local task = cosocket.spawn(function()
        local client <close> = assert(mqtt.connect(near, { version = 5 }))
        cosocket.sleep(1000)
      end)
      cosocket.sleep(1)
      task:cancel()
      cosocket.sleep(10)
      test.equal(ended, true)
    end,
  },
}
