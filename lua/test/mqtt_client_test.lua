-- Connecting and publishing: a server that says in packets what a test wants.
local cosocket = require("cosocket")
local mqtt = require("mqtt")
local broker = require("mqtt.broker")
local mqtt_peer = require("test.mqtt_peer")
local test = require("test")

return {
  connect = {
    ["wrong arguments raise and say what is wanted"] = function()
      local function raises(pattern, ...) test.raises(pattern, mqtt.connect, ...) end
      raises("unknown option \"keepalive\"; did you mean \"keep_alive\"?", "mqtt://h", { keepalive = 5 })
      raises("must be an integer, not a string", "mqtt://h", { keep_alive = "5" })
      raises('unknown option "tls.cafile"', "mqtts://h", { tls = { cafile = "x" } })
      raises("keep_alive must be from 0 to 65535", "mqtt://h", { keep_alive = 70000 })
      raises("receive_maximum must be from 1 to 65535", "mqtt://h", { receive_maximum = 0 })
      raises("version must be 5, \"3.1.1\" or \"auto\"", "mqtt://h", { version = 4 })
      raises("must begin with mqtt://, mqtts://, ws://, wss:// or unix://", "http://h")
      raises("must begin with mqtt://, mqtts://, ws://, wss:// or unix://", "h:1883")
      raises("an address has no path", "mqtt://h/topic")
      raises("empty host", "mqtt://:1883")
      raises("an address is wanted, or a list of them", nil)
      raises("an address is wanted, or a list of them", {})
      raises("must be a string, not a number", { "mqtt://h", 5 })
      raises("tls goes with mqtts://", "mqtt://h", { tls = {} })
      raises("clean_start = false needs a client_id", "mqtt://h", { clean_start = false })
      raises("the will needs a topic", "mqtt://h", { will = { topic = "a/#" } })
      local misspelt = { will = { topic = "a", retian = true } }
      raises("unknown option \"retian\"; did you mean \"retain\"?", "mqtt://h", misspelt)
      raises("qos must be 0, 1 or 2", "mqtt://h", { will = { topic = "a", qos = 3 } })
    end,

    ["mistakes blame the line that called"] = function()
      local message = test.raises("version must be", function() mqtt.connect("mqtt://h", { version = 4 }) end)
      test.matches(message, "mqtt_client_test%.lua:%d+: mqtt%.connect: version")
      message = test.raises("unknown option", function() mqtt.connect("mqtt://h", { x = 4 }) end)
      test.matches(message, "mqtt_client_test%.lua:%d+: unknown option")
    end,

    ["CONNECT says what the options say"] = function()
      local client, _, server = mqtt_peer.scripted({
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
          topic_alias_maximum = 32,
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
      local refusal = { reason_code = 0x86, properties = { reason_string = "go away" } }
      local client, err = mqtt_peer.scripted({}, nil, refusal)
      test.fails("refused", client, err)
      test.equal({ err.op, err.code, err.reason }, { "mqtt.connect", 0x86, "go away" })
      test.equal(err.message, "the server refused the connection: bad user name or password (go away)")
      client, err = mqtt_peer.scripted({ version = "3.1.1" }, nil, { reason_code = 5 })
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
      test.near(cosocket.now() - before, 7, 0.1)
      near, far = cosocket.pair()
      local err = test.fails("timeout", cosocket.deadline(3, mqtt.connect, near))
      test.equal(tostring(err), "mqtt.connect: the server did not answer CONNECT (timeout)")
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
            local server = mqtt_peer.server(assert(listener:accept()))
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
      local client = mqtt_peer.scripted({ keep_alive = 60 }, nil, {
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
      local client = mqtt_peer.scripted({}, function(server)
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
      test.equal({ err.op, err.code }, { "mqtt.publish", 0x97 })
      test.equal(err.message, "the server refused the message: quota exceeded")
      client:close()
    end,

    ["options become properties"] = function()
      local client, _, _, task = mqtt_peer.scripted({}, function(server)
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
      local client = mqtt_peer.scripted()
      local function raises(pattern, ...) test.raises(pattern, client.publish, client, ...) end
      raises("the topic must be a string, not a nil", nil)
      test.raises("call this with a colon, on a client: client:publish%(%)", client.publish, "t", "x")
      raises("the payload must be a string, not a number", "t", 5)
      raises("\"a/#\" is not a topic to publish to", "a/#", "")
      raises("is not a topic to publish to", "", "")
      raises("unknown option \"qs\"; did you mean \"qos\"?", "t", "", { qs = 1 })
      raises("qos must be 0, 1 or 2", "t", "", { qos = 3 })
      raises("must be a boolean", "t", "", { retain = 1 })
      raises("expiry must be from 0", "t", "", { expiry = -1 })
      local message = test.raises("qos must be", function() client:publish("t", "", { qos = 3 }) end)
      test.matches(message, "mqtt_client_test%.lua:%d+: publish: qos")
      -- What only MQTT 5 can say is not dropped in silence.
      client:close()
      local old = mqtt_peer.scripted({ version = "3.1.1" })
      test.fails("protocol", old:publish("t", "", { expiry = 5 }))
      old:close()
    end,

    ["many tasks publish at once and each gets its own answer, within Receive Maximum"] = function()
      local most, live = 0, 0
      local client = mqtt_peer.scripted({}, function(server)
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
      local client = mqtt_peer.scripted({}, function(server)
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
      local client, _, server = mqtt_peer.scripted({}, function(server) cosocket.sleep(1000) end)
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
}
