-- The development broker, asked by our client and by bytes.
local broker = require("mqtt.broker")
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local log = require("log")
local mqtt = require("mqtt")
local mqtt_peer = require("test.mqtt_peer")
local mqtt_raw = require("test.mqtt_raw")
local test = require("test")

-- Some tests make mistakes on purpose, which are told.
log.level("off")

--- Sends packets, and answers what came back until the broker was silent, and whether it closed.
local function asked(one, version, ...)
  local near, far = cosocket.pair()
  one:serve(far)
  local output, input = cosocket.buffer(), cosocket.buffer()
  for _, packet in ipairs({ ... }) do
    if type(packet) == "string" then
      output:append(packet)
    else
      assert(codec.encode(output, packet, version))
    end
  end
  near:write(output)
  local ended = false
  cosocket.deadline(1, function()
    repeat
      local count, err = near:fill(input)
      ended = err ~= nil and err.kind == "closed"
    until not count
  end)
  local answers = {}
  while #input > 0 do answers[#answers + 1] = assert(codec.decode(input, version)) end
  return answers, ended, near
end

--- Collects what a subscription brings.
local function collect(client, filter, options)
  local seen = {}
  assert(client:subscribe(filter, options, function(message) seen[#seen + 1] = message end))
  return seen
end

--- Lets everything arrive.
local function settle()
  cosocket.sleep(0.1)
end

local function payloads(messages)
  local list = {}
  for i, message in ipairs(messages) do list[i] = message.payload end
  return list
end

return {
  ["a client that sends and does not read is not read either, and given up when its keep alive is over"] = function()
    local one = broker.new({ queue_max = 1000 })
    local near, far = cosocket.pair()
    for _, stream in ipairs({ near, far }) do
      assert(stream:set_option("send_buffer", 4096))
      assert(stream:set_option("queue_max", 4096))
    end
    one:serve(far)
    near:write("\x10\x0d\0\4MQTT\4\2\0\10\0\1a")
    assert(near:read(4))
    local sent, most, pings = 0, 0, ("\xc0\0"):rep(500)
    local asking = cosocket.spawn(function()
      for _ = 1, 400 do
        if not near:write(pings) then return end
        sent = sent + #pings
      end
    end)
    for _ = 1, 14 do
      cosocket.sleep(1)
      for connection in pairs(one.connections) do most = math.max(most, connection:backlog()) end
    end
    assert(sent > 2000 and sent < 100000, sent)
    assert(most > 1000 and most < 10000, most)
    test.equal(asking:status(), "waiting")
    cosocket.sleep(10)
    test.equal(next(one.connections), nil)
    test.equal(asking:status(), "done")
  end,

  ["a message reaches everybody who has subscribed, in both versions"] = function()
    local one, connect = mqtt_peer.broker()
    local new <close> = connect({ version = 5 })
    local old <close> = connect({ version = "3.1.1" })
    local by_new, by_old = collect(new, "a/+"), collect(old, "#", { qos = 1 })
    test.equal(new:publish("a/b", "1", { qos = 1, user = { { "k", "v" } } }), 0)
    test.equal(old:publish("a/b", "2", { qos = 1 }), 0)
    test.equal(new:publish("a/b", "3"), 0)
    settle()
    test.equal(payloads(by_new), { "1", "2", "3" })
    test.equal(payloads(by_old), { "1", "2", "3" })
    -- The lesser of what was published and what was asked for [MQTT-3.8.4-8].
    test.equal({ by_new[1].qos, by_old[1].qos, by_old[3].qos }, { 0, 1, 0 })
    test.equal(by_new[1].properties.user_property, { { "k", "v" } })
    test.equal(by_old[1].properties, nil)
    one:close()
  end,

  ["a publisher of MQTT 5 learns that nobody has subscribed"] = function()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect({ version = 5 })
    test.equal(client:publish("t", "", { qos = 1 }), 0x10)
    one:close()
  end,

  ["properties of a message pass unaltered and in order"] = function()
    local one <close> = broker.new()
    local client = mqtt_raw.connect(one)
    client:subscribe("t")
    local properties = {
      response_topic = "r",
      correlation_data = "\0\1",
      content_type = "c",
      payload_format_indicator = 1,
      user_property = { { "b", "1" }, { "a", "2" }, { "b", "3" } },
    }
    client:publish("t", "x", { properties = properties })
    test.equal(client:expect("publish").properties, properties)
    one:publish("t", "x", { user = properties.user_property, response_topic = "r" })
    test.equal(client:expect("publish").properties, { user_property = properties.user_property, response_topic = "r" })
  end,

  ["one copy has the identifiers of all subscriptions that match, and the highest of their QoS"] = function()
    local one <close> = broker.new()
    local client = mqtt_raw.connect(one)
    local function subscribe(filter, identifier, qos)
      client:subscribe(filter, { qos = qos, properties = { subscription_identifier = identifier } })
    end
    subscribe("a/#", 1, 0)
    subscribe("a/+", 2, 1)
    subscribe("b", 3, 2)
    subscribe("+/b", nil, 0)
    one:publish("a/b", "x", { qos = 2 })
    local message = client:take({ qos = 1 })
    test.equal(message.properties, { subscription_identifier = { 1, 2 } })
    client:silent()
  end,

  ["a wildcard in front does not see topics that begin with a dollar"] = function()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect()
    local all, system = collect(client, "#"), collect(client, "$SYS/#")
    client:publish("$SYS/x", "hidden")
    client:publish("x", "seen")
    settle()
    test.equal(payloads(all), { "seen" })
    test.equal(payloads(system), { "hidden" })
    one:close()
  end,

  ["a subscription made again replaces the first"] = function()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect()
    assert(client:subscribe("t", { qos = 0 }))
    assert(client:subscribe("t", { qos = 1 }))
    client:publish("t", "x", { qos = 1 })
    local count = 0
    for message in client:messages() do
      count = count + 1
      if message.payload == "x" then test.equal(message.qos, 1) end
      if message.payload == "end" then break end
      client:publish("t", "end")
    end
    test.equal(count, 2)
    one:close()
  end,

  retained = {
    ["the last retained message of a topic is sent to who subscribes later"] = function()
      local one, connect = mqtt_peer.broker()
      for _, version in ipairs({ 5, "3.1.1" }) do
        local client <close> = connect({ version = version })
        client:publish("r/1", "old", { retain = true, qos = 1 })
        client:publish("r/1", "new", { retain = true, qos = 1 })
        client:publish("r/2", "two", { retain = true, qos = 1 })
        client:publish("r/3", "not retained", { qos = 1 })
        local seen = collect(client, "r/+", { qos = 1 })
        settle()
        table.sort(seen, function(a, b) return a.topic < b.topic end)
        test.equal(payloads(seen), { "new", "two" })
        test.equal({ seen[1].retain, seen[2].retain }, { true, true })
        -- What is published to a subscription that exists is not marked [MQTT-3.3.1-12].
        client:publish("r/1", "live", { retain = true, qos = 1 })
        settle()
        test.equal({ seen[3].payload, seen[3].retain }, { "live", nil })
        -- An empty one takes it back [MQTT-3.3.1-6].
        client:publish("r/1", "", { retain = true, qos = 1 })
        client:publish("r/2", "", { retain = true, qos = 1 })
        settle()
        local later = collect(client, "r/#")
        settle()
        test.equal(#later, 0)
        client:unsubscribe({ "r/+", "r/#" })
      end
      one:close()
    end,

    ["retain handling and retain as published do what they say, each by itself"] = function()
      local one, connect = mqtt_peer.broker()
      local client <close> = connect()
      client:publish("r", "kept", { retain = true, qos = 1 })
      local function count(options)
        local seen = collect(client, "r", options)
        settle()
        return #seen
      end
      test.equal(count({ retain_handling = 2 }), 0)
      test.equal(count({ retain_handling = 1 }), 0, "the subscription existed")
      test.equal(count({ retain_handling = 0 }), 1)
      client:unsubscribe("r")
      test.equal(count({ retain_handling = 1 }), 1, "the subscription is new")
      client:unsubscribe("r")
      local seen = collect(client, "r", { retain_handling = 2, retain_as_published = true })
      client:publish("r", "live", { retain = true, qos = 1 })
      settle()
      test.equal({ seen[1].payload, seen[1].retain }, { "live", true })
      one:close()
    end,

    ["a retained message that has expired is gone, and one that has not says how long it has"] = function()
      local one, connect = mqtt_peer.broker()
      local client <close> = connect()
      client:publish("r/short", "s", { retain = true, qos = 1, expiry = 5 })
      client:publish("r/long", "l", { retain = true, qos = 1, expiry = 100 })
      cosocket.sleep(10)
      local seen = collect(client, "r/#")
      settle()
      test.equal(payloads(seen), { "l" })
      test.equal(seen[1].properties.message_expiry_interval, 90)
      one:close()
    end,
  },

  ["no local keeps a client's own messages from it"] = function()
    local one, connect = mqtt_peer.broker()
    local a <close> = connect({ client_id = "a" })
    local b <close> = connect({ client_id = "b" })
    local seen = collect(a, "t", { no_local = true })
    a:publish("t", "own")
    b:publish("t", "other")
    settle()
    test.equal(payloads(seen), { "other" })
    one:close()
  end,

  wills = {
    ["the will of a client that is lost is published, retained if it says so"] = function()
      local one, connect = mqtt_peer.broker()
      local watcher <close> = connect({ client_id = "watcher" })
      local seen = collect(watcher, "will/#", { qos = 1 })
      for _, version in ipairs({ 4, 5 }) do
        local near, far = cosocket.pair()
        one:serve(far)
        local output = cosocket.buffer()
        assert(codec.encode(output, {
          type = "connect",
          clean_start = true,
          client_id = "lost",
          will = { topic = "will/" .. version, payload = "lost", qos = 1, retain = true },
        }, version))
        near:write(output)
        near:read()
        near:close()
        settle()
      end
      test.equal(payloads(seen), { "lost", "lost" })
      test.equal(seen[1].qos, 1)
      local later <close> = connect()
      local kept = collect(later, "will/+")
      settle()
      test.equal(#kept, 2)
      one:close()
    end,

    ["a client that breaks the protocol or is silent for too long is lost too"] = function()
      local one, connect = mqtt_peer.broker()
      local watcher <close> = connect({ client_id = "watcher", keep_alive = 0 })
      local seen = collect(watcher, "will")
      local connect_packet = {
        type = "connect",
        clean_start = true,
        keep_alive = 10,
        client_id = "x",
        will = { topic = "will", payload = "gone" },
      }
      local answers = asked(one, 5, connect_packet, "\x36\x00")
      test.equal({ #answers, answers[2].type, answers[2].reason_code }, { 2, "disconnect", 0x81 })
      settle()
      test.equal(#seen, 1)
      local _, _, near = asked(one, 5, connect_packet)
      cosocket.sleep(13)
      test.equal(#seen, 1)
      cosocket.sleep(2)
      test.equal(#seen, 2)
      local input = cosocket.buffer()
      near:fill(input)
      test.equal(codec.decode(input, 5), { type = "disconnect", reason_code = 0x8D })
      one:close()
    end,
  },

  ["a second client of the same identifier takes over"] = function()
    local one, connect = mqtt_peer.broker()
    local watcher <close> = connect({ client_id = "watcher" })
    local wills = collect(watcher, "will")
    local first = connect({ client_id = "same", will = { topic = "will", payload = "first" } })
    local second <close> = connect({ client_id = "same" })
    for _ in first:messages() do end
    local err = first:status().error
    test.equal({ err.kind, err.code }, { "closed", 0x8E })
    test.equal(err.message, "the server ended the connection: session taken over")
    settle()
    test.equal(#wills, 1)
    local seen = collect(second, "t")
    second:publish("t", "x")
    settle()
    test.equal(#seen, 1)
    one:close()
  end,

  ["who may connect is decided by authenticate"] = function()
    local one = mqtt_peer.broker({
      authenticate = function(client_id, username, password)
        if username == "broken" then error("oops") end
        return client_id == "c" and username == "u" and password == "p"
      end,
    })
    local function try(options)
      options.client_id = "c"
      local near, far = cosocket.pair()
      one:serve(far)
      local client, err = mqtt.connect(near, options)
      if client then return client:close() end
      return err.code
    end
    test.equal(try({ username = "u", password = "p" }), true)
    test.equal(try({ username = "u", password = "q" }), 0x86)
    test.equal(try({}), 0x86)
    test.equal(try({ username = "u", version = "3.1.1" }), 4)
    test.equal(try({ username = "broken" }), 0x80)
    one:close()
  end,

  ["a client without an identifier is given one of its own"] = function()
    local one, connect = mqtt_peer.broker()
    local a <close> = connect()
    local b <close> = connect()
    local names = { a:status().client_id, b:status().client_id }
    assert(names[1] ~= "" and names[2] ~= "" and names[1] ~= names[2])
    -- 3.1.1: [MQTT-3.1.3-8]
    local answers, ended = asked(one, 4, { type = "connect", clean_start = false })
    test.equal({ answers[1].reason_code, ended }, { 2, true })
    one:close()
  end,

  ["what the protocol forbids is refused in the standard's words"] = function()
    local one = mqtt_peer.broker({ packet_max = 2000 })
    local function code_of(...)
      local answers, ended = asked(one, 5, ...)
      test.equal(ended, true)
      return answers[#answers].reason_code
    end
    local connect_packet = { type = "connect", clean_start = true }
    test.equal(code_of({ type = "connect", properties = { authentication_method = "M" } }), 0x8C)
    test.equal(code_of(connect_packet, connect_packet), 0x82)
    test.equal(code_of(connect_packet, { type = "publish", topic = "t", payload = ("x"):rep(3000) }), 0x95)
    one:close()
  end,

  ["a server keep alive is told, and kept to"] = function()
    local one, connect = mqtt_peer.broker({ server_keep_alive = 4 })
    local client <close> = connect({ keep_alive = 100 })
    test.equal(client:status().keep_alive, 4)
    cosocket.sleep(60)
    test.equal(client:status().state, "connected")
    one:close()
  end,

  ["a client that does not read loses QoS 0 messages beyond its queue and no more memory"] = function()
    local one, connect = mqtt_peer.broker({ queue_max = 100000 })
    local near, far = cosocket.pair()
    one:serve(far)
    local output = cosocket.buffer()
    codec.encode(output, { type = "connect", clean_start = true, keep_alive = 0, client_id = "slow" }, 5)
    codec.encode(output, { type = "subscribe", packet_id = 1, subscriptions = { { filter = "t" } } }, 5)
    near:write(output)
    settle()
    local client <close> = connect()
    for i = 1, 5000 do assert(client:publish("t", ("%04d"):format(i) .. ("x"):rep(996))) end
    settle()
    local input, received, last = cosocket.buffer(), 0, 0
    cosocket.deadline(1, function()
      while near:fill(input) do
        while true do
          local packet = codec.decode(input, 5)
          if not packet then break end
          if packet.type == "publish" then
            received = received + 1
            local number = tonumber(packet.payload:sub(1, 4))
            assert(number > last, "in order")
            last = number
          end
        end
      end
    end)
    assert(received > 100 and received < 4000, received)
    -- It is still a client like any other.
    client:publish("t", "9999")
    near:fill(input)
    test.equal(codec.decode(input, 5).payload, "9999")
    near:close()
    one:close()
  end,

  ["closing tells every client and frees the address"] = function()
    local one = assert(broker.listen("tcp://127.0.0.1:0"))
    local address = one:address()
    test.equal(one:url(), "mqtt://" .. address)
    local client = mqtt_raw.connect(one)
    one:close()
    client:expect("disconnect", { reason_code = 0x8B })
    client:closed()
    local again = assert(broker.listen("tcp://" .. address))
    again:close()
    test.equal(again:close(), true)
  end,

  ["a broker listens at several addresses"] = function()
    local path = os.tmpname()
    os.remove(path)
    local one <close> = assert(broker.listen({ "tcp://127.0.0.1:0", "unix://" .. path }))
    local third = assert(one:listen("tcp://127.0.0.1:0"))
    test.equal({ one:address(2), one:address(3), one:address(4) or "none" }, { path, third, "none" })
    test.equal(one:url(2), "unix://" .. path)
    local seen = 0
    for number = 1, 3 do
      local client <close> = assert(mqtt.connect(one:url(number)))
      test.equal(client:status().state, "connected")
      seen = seen + 1
    end
    test.equal(seen, 3)
    -- One that cannot be had leaves the others free.
    local failed, err = broker.listen({ "unix://" .. path .. "2", "tcp://" .. third })
    test.equal({ failed, err and err.code }, { nil, "EADDRINUSE" })
    assert(broker.listen("unix://" .. path .. "2")):close()
  end,

  ["clients are listed, with what is known of them"] = function()
    local one <close> = broker.new()
    local properties = { session_expiry_interval = 60, receive_maximum = 1 }
    local a = mqtt_raw.connect(one, { client_id = "a", username = "u", properties = properties })
    -- Kept, so that the collector does not close it.
    local _b = mqtt_raw.connect(one, { client_id = "b", clean_start = true }, 4)
    a:subscribe("t", { qos = 1 })
    a:subscribe("s")
    for _ = 1, 3 do one:publish("t", "x", { qos = 1 }) end
    test.equal(one:clients(), {
      {
        client_id = "a", connected = true, version = 5, username = "u", subscriptions = { "s", "t" },
        in_flight = 1, waiting = 2, dropped = 0,
      },
      {
        client_id = "b", connected = true, version = "3.1.1", subscriptions = {},
        in_flight = 0, waiting = 0, dropped = 0,
      },
    })
    a:drop()
    local status = one:clients()[1]
    test.equal({ status.connected, status.in_flight, status.waiting }, { false, 0, 2 })
    assert(status.expires_in > 59 and status.expires_in <= 60)
  end,

  ["a connection whose task is cancelled is a connection that is lost, and its session goes on"] = function()
    local one <close> = broker.new()
    local watcher = mqtt_raw.connect(one, { client_id = "watcher", clean_start = true })
    watcher:subscribe("will")
    local near, far = cosocket.pair()
    local task = one:serve(far)
    near:write(mqtt_peer.wire(5, {
      type = "connect",
      client_id = "c",
      will = { topic = "will", payload = "w" },
      properties = { session_expiry_interval = 10 },
    }))
    near:read()
    task:cancel()
    watcher:expect("publish", { payload = "w" })
    test.equal(one:clients()[2].connected, false)
    cosocket.sleep(11)
    test.equal(#one:clients(), 1)
    -- The group that started it may go as a whole.
    local group = cosocket.spawn(function()
      cosocket.group(function()
        local inner = broker.new()
        mqtt_raw.connect(inner, { client_id = "c", properties = { session_expiry_interval = 10 } })
        cosocket.sleep(100)
      end)
    end)
    cosocket.sleep(1)
    group:cancel()
    pcall(group.join, group)
    test.equal(group:status(), "cancelled")
  end,

  ["what the broker publishes itself is checked as what clients publish"] = function()
    local one <close> = broker.new()
    test.raises("not a topic to publish to", one.publish, one, "a/#", "x")
    test.raises("the payload must be a string", one.publish, one, "a", 1)
    test.raises("unknown option", one.publish, one, "a", "x", { quality = 1 })
    test.equal(one:publish("a", "x", { retain = true }), true)
    local client = mqtt_raw.connect(one)
    client:subscribe("a")
    client:expect("publish", { payload = "x", retain = true })
  end,

  ["whatever bytes a client sends, the others are served"] = function()
    local random = test.random()
    local one, connect = mqtt_peer.broker()
    local client <close> = connect()
    local seen = collect(client, "t")
    local start = cosocket.buffer()
    codec.encode(start, { type = "connect", clean_start = true, client_id = "fuzz" }, 5)
    local connect_bytes = start:take()
    for round = 1, 200 do
      local near, far = cosocket.pair()
      one:serve(far)
      near:write(random(2) == 1 and connect_bytes or "", random:bytes(random(200)))
      cosocket.sleep(0.01)
      near:close()
      if round % 50 == 0 then test.equal(client:publish("t", "x", { qos = 1 }), 0) end
    end
    settle()
    test.equal(#seen, 4)
    one:close()
  end,

  ["whatever packets clients send, in whatever order, the others are served"] = function()
    local random = test.random()
    local one <close> = broker.new({
      topic_alias_maximum = 2,
      session_queue_max = 5,
      queue_qos0 = true,
      auth = { M = function(exchange) return random(3) > 1 or exchange:ask("more") == "yes" end },
    })
    local judge = mqtt_raw.connect(one, { client_id = "judge", clean_start = true })
    judge:subscribe("judge", { qos = 2 })
    local topics = { "a", "a/b", "$x", "judge/2", "" }
    local filters = { "a", "a/+", "#", "+/b", "$share/g/a/#", "$share/g/#", "$share/h/a" }
    local function properties()
      return {
        message_expiry_interval = random(3) == 1 and random(0, 3) or nil,
        topic_alias = random(3) == 1 and random(3) or nil,
        response_topic = random(5) == 1 and "r" or nil,
      }
    end
    local function acknowledgement(type)
      return function() return { type = type, packet_id = random(6), reason_code = random(6) == 1 and 0x80 or 0 } end
    end
    local authentication = { authentication_method = "M", authentication_data = "yes" }
    local packets = {
      function()
        return {
          type = "publish", topic = random:pick(topics), payload = random(4) == 1 and "" or "x", qos = random(0, 2),
          retain = random(2) == 1, packet_id = random(6), properties = properties(),
        }
      end,
      function()
        local subscriptions = {}
        for i = 1, random(3) do
          subscriptions[i] = { filter = random:pick(filters), qos = random(0, 2), retain_handling = random(0, 2) }
        end
        local identifier = { subscription_identifier = random(2) == 1 and random(9) or nil }
        return { type = "subscribe", packet_id = random(6), subscriptions = subscriptions, properties = identifier }
      end,
      function() return { type = "unsubscribe", packet_id = random(6), filters = { random:pick(filters) } } end,
      acknowledgement("puback"), acknowledgement("pubrec"), acknowledgement("pubrel"), acknowledgement("pubcomp"),
      function() return { type = "pingreq" } end,
      function() return { type = "auth", reason_code = random:pick({ 0x18, 0x19 }), properties = authentication } end,
      function()
        local expiry = { session_expiry_interval = random(3) == 1 and random(0, 9) or nil }
        return { type = "disconnect", reason_code = random:pick({ 0, 4 }), properties = expiry }
      end,
    }
    local seen = {}
    for round = 1, 400 do
      local version = random:pick({ 4, 5 })
      local packet = { client_id = "c" .. random(4), clean_start = random(4) == 1 }
      if random(2) == 1 then
        packet.will = { topic = "a/b", payload = "will", qos = random(0, 2), retain = random(2) == 1 }
      end
      if version == 5 then
        packet.properties = {
          session_expiry_interval = random(2) == 1 and random(0, 20) or nil,
          receive_maximum = random(2) == 1 and random(3) or nil,
          topic_alias_maximum = random(0, 3),
          authentication_method = random(3) == 1 and "M" or nil,
        }
        if packet.will then packet.will.properties = { will_delay_interval = random(0, 5) } end
      end
      local client = mqtt_raw.open(one, packet, version)
      for _ = 1, random(20) do
        local made = random:pick(packets)()
        if made.qos == 0 then made.packet_id = nil end
        if version == 4 then made.properties, made.reason_code = nil, nil end
        -- What our codec does not write is another test's.
        local bytes = cosocket.buffer()
        if codec.encode(bytes, made, version) then client:send(bytes:take()) end
        if random(4) == 1 then cosocket.sleep(random()) end
      end
      for _, answer in ipairs(client:all()) do seen[answer.type] = true end
      if random(2) == 1 then client:drop() end
      if round % 40 == 0 then
        judge:publish("judge", "x", { qos = 0 })
        judge:take({ payload = "x" })
        local _ = one:clients(), one:snapshot()
      end
    end
    local answers = { "connack", "publish", "puback", "pubrec", "pubrel", "pubcomp", "suback", "unsuback", "auth" }
    for _, type in ipairs(answers) do assert(seen[type], type) end
    -- Nothing is left of clients that are gone for good; those of 3.1.1 may come back whenever they like.
    for i = 1, 4 do one:drop("c" .. i) end
    cosocket.sleep(1e6)
    local restored <close> = broker.new({ state = one:snapshot() })
    test.equal(#restored:clients(), #one:clients() - 1, "all but the judge")
    for _, client in ipairs(restored:clients()) do test.equal(client.expires_in, math.huge) end
  end,

  ["wrong arguments raise, and an address in use is an error"] = function()
    test.raises("unknown option \"max_packet\"", broker.listen, "tcp://127.0.0.1:0", { max_packet = 1 })
    local one = assert(broker.listen("tcp://127.0.0.1:0"))
    local taken, err = broker.listen("tcp://" .. one:address())
    test.equal({ taken, err and err.code }, { nil, "EADDRINUSE" })
    one:close()
  end,
}
