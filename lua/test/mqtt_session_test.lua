-- The client's session: bytes and numbers only. Nothing is opened, nothing sleeps.
local cosocket = require("cosocket")
local mqtt_peer = require("test.mqtt_peer")
local session = require("mqtt.session")
local test = require("test")

local packets = mqtt_peer.packets

--- A buffer of packets.
local function wire(version, ...)
  return cosocket.buffer(mqtt_peer.wire(version, ...))
end

--- The types of packets in a buffer.
local function types(buffer, version)
  local list = {}
  for i, packet in ipairs(packets(buffer, version)) do list[i] = packet.type end
  return list
end

--- A client session whose CONNECT was answered at time 0; what it sent so far is dropped.
local function connected(options, connack)
  local client = session.new(options)
  assert(client:connect(0))
  packets(client.output, client.version)
  local answer = { type = "connack" }
  for name, value in pairs(connack or {}) do answer[name] = value end
  test.equal(assert(client:receive(wire(client.version, answer), 0)).type, "connack")
  test.equal(client.state, "connected")
  assert(client:resume(0))
  return client
end

return {
  ["CONNECT carries what was asked for, in its version"] = function()
    local options = {
      client_id = "device",
      username = "u",
      password = "p",
      keep_alive = 30,
      session_expiry = 100,
      receive_maximum = 20,
      packet_max = 5000,
      properties = { user_property = { { "a", "1" }, { "a", "2" } } },
      will = { topic = "gone", payload = "bye", qos = 1, retain = true, properties = { will_delay_interval = 5 } },
    }
    local client = session.new(options)
    assert(client:connect(0, false))
    test.equal(packets(client.output)[1], {
      type = "connect",
      protocol_version = 5,
      clean_start = false,
      keep_alive = 30,
      client_id = "device",
      username = "u",
      password = "p",
      will = { topic = "gone", payload = "bye", qos = 1, retain = true, properties = { will_delay_interval = 5 } },
      -- Defect of others: an unknown property name became a user property.
      properties = {
        session_expiry_interval = 100,
        receive_maximum = 20,
        maximum_packet_size = 5000,
        user_property = { { "a", "1" }, { "a", "2" } },
      },
    })
    options.version = 4
    client = session.new(options)
    assert(client:connect(0, false))
    test.equal(packets(client.output)[1], {
      type = "connect",
      protocol_version = 4,
      clean_start = false,
      keep_alive = 30,
      client_id = "device",
      username = "u",
      password = "p",
      will = { topic = "gone", payload = "bye", qos = 1, retain = true },
    })
  end,

  ["a server that does not answer CONNECT in time is given up"] = function()
    local client = session.new({ timeout = 5 })
    assert(client:connect(10))
    test.equal(client.deadline, 15)
    test.equal(client:expire(14), true)
    test.fails("timeout", client:expire(15))
    test.equal(client.state, "closed")
  end,

  ["a refusal is an event, and the session is over"] = function()
    for version, code in pairs({ [4] = 5, [5] = 0x87 }) do
      local client = session.new({ version = version })
      assert(client:connect(0))
      local event = client:receive(wire(version, { type = "connack", reason_code = code }), 0)
      test.equal(event.reason_code, code)
      test.equal(client.state, "closed")
      test.fails("closed", client:subscribe({ { filter = "f" } }, nil, 0))
    end
  end,

  ["a server of 3.1.1 that refuses version 5 is understood"] = function()
    local client = session.new()
    assert(client:connect(0))
    local event = client:receive(cosocket.buffer("\x20\x02\x00\x01"), 0)
    test.equal(event.reason_code, 0x84)
  end,

  ["requests are refused before CONNACK and after the end, and messages wait"] = function()
    local client = session.new()
    local function all_fail()
      for qos = 0, 2 do test.equal(client:publish("t", "", qos, false, nil, 0).state, "waiting") end
      test.fails("closed", client:subscribe({ { filter = "f" } }, nil, 0))
      test.fails("closed", client:unsubscribe({ "f" }, nil, 0))
    end
    all_fail()
    test.fails("closed", client:disconnect())
    assert(client:connect(0))
    all_fail()
    test.fails("closed", client:connect(0))
    client:disconnected()
    all_fail()
    test.equal(client:connect(0), true)
    test.equal(client.outgoing:waiting_count(), 9)
  end,

  ["the server may not say what it may not say yet, or ever"] = function()
    for _, packet in ipairs({
      { type = "publish", topic = "t" },
      { type = "pingresp" },
      { type = "puback", packet_id = 1 },
      { type = "disconnect" },
      { type = "connect" },
    }) do
      local client = session.new()
      assert(client:connect(0))
      test.fails("protocol", client:receive(wire(5, packet), 0))
      test.equal(client.state, "closed")
    end
    for _, packet in ipairs({
      { type = "connack" },
      { type = "connect" },
      { type = "subscribe", packet_id = 1, subscriptions = { { filter = "f" } } },
      { type = "pingreq" },
      { type = "publish", topic = "t", properties = { topic_alias = 1 } },
      { type = "puback", packet_id = 1 },
      { type = "suback", packet_id = 1, reason_codes = { 0 } },
      { type = "auth" },
    }) do
      local client = connected()
      local err = test.fails("protocol", client:receive(wire(5, packet), 0))
      local said = packets(client.output, 5)
      test.equal({ #said, said[1].type, said[1].reason_code }, { 1, "disconnect", err.code }, packet.type)
    end
    test.fails("protocol", connected({ version = 4 }):receive(wire(4, { type = "disconnect" }), 0))
  end,

  ["a malformed packet is answered with DISCONNECT and its reason"] = function()
    local client = connected()
    test.fails("protocol", client:receive(cosocket.buffer("\x36"), 0))
    test.equal(packets(client.output, 5), { { type = "disconnect", reason_code = 0x81 } })
    client = connected({ version = 4 })
    test.fails("protocol", client:receive(cosocket.buffer("\x36"), 0))
    test.equal(#client.output, 0)
    client = connected({ packet_max = 100 })
    test.fails("limit", client:receive(cosocket.buffer("\x30\xff\x01"), 0))
    test.equal(packets(client.output, 5), { { type = "disconnect", reason_code = 0x95 } })
  end,

  ["QoS 0 is sent at once and QoS 1 until its PUBACK"] = function()
    for _, version in ipairs({ 4, 5 }) do
      local client = connected({ version = version })
      test.equal(client:publish("t", "a", 0, true, nil, 0), true)
      local ticket = client:publish("t", "b", 1, false, nil, 0)
      test.equal(packets(client.output, version), {
        { type = "publish", topic = "t", payload = "a", qos = 0, retain = true },
        { type = "publish", topic = "t", payload = "b", qos = 1, packet_id = 1 },
      })
      local event = client:receive(wire(version, { type = "puback", packet_id = 1 }), 0)
      test.equal(event.ticket == ticket, true)
      test.equal(ticket.answer.reason_code, 0)
      test.equal(client.outgoing.in_flight, 0)
    end
  end,

  ["properties of a message leave in order and with repeats"] = function()
    local client = connected()
    local properties = { user_property = { { "b", "1" }, { "a", "2" }, { "b", "3" } }, response_topic = "r" }
    client:publish("t", "", 0, false, properties, 0)
    test.equal(packets(client.output, 5)[1].properties, properties)
    local received = { subscription_identifier = { 3, 1, 3 }, user_property = properties.user_property }
    local event = client:receive(wire(5, { type = "publish", topic = "t", properties = received }), 0)
    test.equal(event.properties, received)
  end,

  ["no more is in flight than Receive Maximum, and the rest follows in order"] = function()
    local client = connected({}, { properties = { receive_maximum = 2 } })
    for i = 1, 5 do client:publish("t", tostring(i), 1, false, nil, 0) end
    test.equal(#packets(client.output, 5), 2)
    test.equal(client.outgoing:waiting_count(), 3)
    -- Other packets do not wait [MQTT-3.3.4-8].
    client:publish("t", "zero", 0, false, nil, 0)
    client:subscribe({ { filter = "f" } }, nil, 0)
    test.equal(types(client.output, 5), { "publish", "subscribe" })
    local order = {}
    for _ = 1, 5 do
      local id = next(client.outgoing.live)
      for live, ticket in pairs(client.outgoing.live) do
        if ticket.type == "publish" and ticket.payload < (client.outgoing.live[id].payload or "~") then id = live end
      end
      order[#order + 1] = client.outgoing.live[id].payload
      assert(client:receive(wire(5, { type = "puback", packet_id = id }), 0).ticket:is_done())
      for _, packet in ipairs(packets(client.output, 5)) do test.equal(packet.type, "publish") end
      assert(client.outgoing.in_flight <= 2)
    end
    test.equal(order, { "1", "2", "3", "4", "5" })
  end,

  ["a packet identifier is not used again while it is live"] = function()
    -- Defect of others: 70,000 QoS 1 publishes wrapped around and overwrote live ones.
    local client = connected()
    local first = client:publish("t", "", 1, false, nil, 0)
    local subscription = client:subscribe({ { filter = "f" } }, nil, 0)
    test.equal({ first.packet_id, subscription.packet_id }, { 1, 2 })
    local seen = { [1] = true, [2] = true }
    for _ = 3, 65535 do
      local ticket = client:publish("t", "", 1, false, nil, 0)
      assert(not seen[ticket.packet_id])
      seen[ticket.packet_id] = true
    end
    test.equal(client.outgoing.in_flight, 65534)
    client.output:clear()
    -- The window has room for one more, but no identifier is free.
    local err = test.fails("limit", client:publish("t", "", 1, false, nil, 0))
    test.equal(err.message, "all 65535 packet identifiers are in use")
    test.fails("limit", client:unsubscribe({ "f" }, nil, 0))
    assert(client:receive(wire(5, { type = "puback", packet_id = 700 }), 0))
    test.equal(client:publish("t", "", 1, false, nil, 0).packet_id, 700)
    test.equal({ #client:disconnected(), #client:abandon() }, { 1, 65534 })
  end,

  ["the server's limits are kept before anything is sent"] = function()
    local client = connected({}, {
      properties = {
        maximum_qos = 0,
        retain_available = false,
        maximum_packet_size = 50,
        wildcard_subscription_available = false,
        shared_subscription_available = false,
        subscription_identifier_available = false,
      },
    })
    test.equal(test.fails("refused", client:publish("t", "", 1, false, nil, 0)).code, 0x9B)
    test.equal(test.fails("refused", client:publish("t", "", 0, true, nil, 0)).code, 0x9A)
    test.equal(test.fails("limit", client:publish("t", ("x"):rep(60), 0, false, nil, 0)).code, 0x95)
    test.equal(test.fails("refused", client:subscribe({ { filter = "a/#" } }, nil, 0)).code, 0xA2)
    test.equal(test.fails("refused", client:subscribe({ { filter = "$share/g/a" } }, nil, 0)).code, 0x9E)
    local id = { subscription_identifier = 1 }
    test.equal(test.fails("refused", client:subscribe({ { filter = "a" } }, id, 0)).code, 0xA1)
    test.fails("limit", client:subscribe({ { filter = ("a"):rep(60) } }, nil, 0))
    test.equal(#client.output, 0)
    test.equal(next(client.outgoing.live), nil)
    test.equal(client:publish("t", "fits", 0, false, nil, 0), true)
  end,

  ["a message too large for the server is refused though it would have to wait"] = function()
    local client = connected({}, { properties = { receive_maximum = 1, maximum_packet_size = 50 } })
    client:publish("t", "", 1, false, nil, 0)
    test.fails("limit", client:publish("t", ("x"):rep(60), 1, false, nil, 0))
    test.equal(client.outgoing:waiting_count(), 0)
  end,

  ["the server assigns client identifier and keep alive"] = function()
    local client = connected(
      { keep_alive = 60 },
      { properties = { assigned_client_identifier = "auto-7", server_keep_alive = 10 } }
    )
    test.equal(client.client_id, "auto-7")
    test.equal(client.keep_alive, 10)
    test.equal(client.deadline, 9)
    client = connected({ keep_alive = 60 }, { properties = { server_keep_alive = 0 } })
    test.equal(client.deadline, math.huge)
  end,

  ["answers that come many at a time mean what they mean one by one"] = function()
    local random = test.random()
    --- What a session that has published a hundred messages makes of answers: what it says, what becomes of its messages,
    --- how many are in flight, and why it ends.
    local function follow(reports, version, room, qualities, answers)
      local client = connected({ version = version, in_flight_max = room })
      client.reports = reports
      local tickets = {}
      for i, qos in ipairs(qualities) do tickets[i] = assert(client:publish("t", tostring(i), qos, false, nil, 1)) end
      local input, events, err = cosocket.buffer(answers), 0, nil
      repeat
        local event
        event, err = client:receive(input, 2)
        events = events + (event and 1 or 0)
      until not event
      local fates = {}
      for i, ticket in ipairs(tickets) do
        local answer = ticket.answer
        fates[i] = ("%s %s %s"):format(ticket.state, answer and answer.type, answer and answer.reason_code)
      end
      local said = {}
      for i, packet in ipairs(packets(client.output, version)) do
        said[i] = ("%s %s %s %s"):format(packet.type, packet.packet_id, packet.payload, packet.reason_code)
      end
      -- What waited for room leaves after each answer, or after all.
      if room < #qualities then table.sort(said) end
      return { said, fates, client.outgoing.in_flight, client.last_sent, err and err.message, #input }, events
    end
    for round = 1, 60 do
      local version, room = random:pick({ 4, 5 }), random:pick({ 10, 60, 65535 })
      local qualities, bytes = {}, {}
      for i = 1, 50 do qualities[i] = random(1, 2) end
      local function answer(type, id, code)
        -- MQTT 5 has a short form, one with a reason code, and one with an empty list of properties.
        local wire = mqtt_peer.wire(version, { type = type, packet_id = id, reason_code = code })
        if version == 5 and #wire == 4 then
          wire = random:pick({ wire, wire:sub(1, 1) .. "\3" .. wire:sub(3) .. "\0", wire:sub(1, 1) .. "\4" .. wire:sub(3) .. "\0\0" })
        end
        bytes[#bytes + 1] = wire
      end
      for i = 1, math.min(room, 50) do
        local code = version == 5 and random:pick({ 0, 0, 0, 0, 0x10, 0x97 }) or 0
        if qualities[i] == 1 then
          answer("puback", i, code)
        else
          answer("pubrec", i, code)
          if code < 0x80 then
            if random(8) == 1 then answer("pubrec", i, 0) end
            answer("pubcomp", i, 0)
          end
        end
        if random(40) == 1 then bytes[#bytes + 1] = mqtt_peer.wire(version, { type = "pingresp" }) end
        -- An answer to nothing, or of another kind than is due.
        if random(60) == 1 then answer(random:pick({ "puback", "pubrec", "pubcomp" }), random:pick({ 60000, i + 1 }), 0) end
      end
      local all = table.concat(bytes)
      local one, events = follow(true, version, room, qualities, all)
      local many, none = follow(false, version, room, qualities, all)
      test.equal(many, one, ("round %d"):format(round))
      assert(events > 0 and none == 0)
    end
  end,

  ["a silent client pings before its keep alive is over, and gives up a server that does not answer"] = function()
    local client = connected({ keep_alive = 20 })
    test.equal(client.deadline, 18)
    test.equal(client:expire(18), true)
    test.equal(types(client.output, 5), { "pingreq" })
    test.equal(client.deadline, 28)
    test.equal(client:receive(wire(5, { type = "pingresp" }), 19), nil)
    test.equal(client.deadline, 36)
    test.equal(client:expire(36), true)
    test.fails("timeout", client:expire(46))
    test.equal(client.state, "closed")
  end,

  ["the answer to a PINGREQ is due although another PINGREQ follows before"] = function()
    -- With the shortest keep alive the next one is due sooner than the answer.
    local client = connected({ keep_alive = 1 })
    test.equal(client:expire(0.9), true)
    test.equal(client:expire(1.8), true)
    test.equal(types(client.output, 5), { "pingreq", "pingreq" })
    test.fails("timeout", client:expire(1.9))
  end,

  ["own traffic keeps alive while the server is heard, and received traffic does not"] = function()
    -- Defects of others: PINGREQ in spite of own traffic; the timer reset by what was received.
    local client = connected({ keep_alive = 20 })
    for now = 10, 200, 10 do
      client:publish("t", "", 0, false, nil, now)
      client:receive(wire(5, { type = "publish", topic = "t" }), now)
      if now >= client.deadline then test.equal(client:expire(now), true) end
    end
    for _, packet in ipairs(packets(client.output, 5)) do test.equal(packet.type, "publish") end
    for now = 201, 217 do
      test.equal(client:receive(wire(5, { type = "publish", topic = "t" }), now).type, "publish")
      if now >= client.deadline then test.equal(client:expire(now), true) end
    end
    test.equal(#client.output, 0)
    test.equal(client:expire(218), true)
    test.equal(types(client.output, 5), { "pingreq" })
  end,

  ["who sends all the time notices a server that is silent, too"] = function()
    local client = connected({ keep_alive = 20 })
    local pinged, failure = 0, nil
    for now = 1, 60 do
      client:publish("t", "", 0, false, nil, now)
      local ok, err = true, nil
      if now >= client.deadline then
        ok, err = client:expire(now)
      end
      for _, type in ipairs(types(client.output, 5)) do pinged = pinged + (type == "pingreq" and 1 or 0) end
      if not ok then
        failure = { now, test.fails("timeout", ok, err).message }
        break
      end
    end
    test.equal(pinged, 1)
    test.equal(failure, { 28, "the server did not answer PINGREQ" })
  end,

  ["a PINGREQ behind something large is unanswered only when nothing moves any more, or after it has left"] = function()
    -- The answer may take 10 seconds.
    for _, stops in ipairs({ true, false }) do
      local client = connected({ keep_alive = 20 })
      client:publish("t", ("x"):rep(1000000), 1, false, nil, 1)
      local total = #client.output
      client.output:clear()
      local pings, ended = {}, nil
      for now = 2, 200 do
        -- A line that carries 10,000 bytes a second, and once stops at the second 50.
        local delivered = math.min(total + 2, 10000 * (stops and math.min(now, 50) or now))
        if now >= client.deadline then
          local ok, err = client:expire(now, delivered, total - delivered)
          if not ok then ended = { now, err.message } end
        end
        if ended then break end
        for _, type in ipairs(types(client.output, 5)) do
          test.equal(type, "pingreq")
          table.insert(pings, now)
          total = total + 2
        end
      end
      -- The next would follow the first at once; it is for the server when the first has left.
      test.equal(pings, stops and { 18 } or { 18, 108 })
      -- It is looked at every two and a half seconds.
      assert(ended[1] >= (stops and 60 or 110) and ended[1] <= (stops and 64 or 115), ended[1])
      test.equal(ended[2], "the server did not answer PINGREQ")
    end
  end,

  ["a PINGREQ that comes to lie behind what the stream has not been given waits for that, too"] = function()
    local client = connected({ keep_alive = 20 })
    client:publish("t", ("x"):rep(1000), 0, false, nil, 1)
    local size = #client.output
    test.equal(client:expire(19, 0, 0), true)
    test.equal(client:expire(21.5, 500, 0), true)
    test.equal(client:expire(28.9, 500, 0), true)
    client.output:clear()
    -- Left at last: the answer may take its time from here.
    test.equal(client:expire(31.4, size + 2, 0), true)
    test.equal(client:expire(41.3, size + 2, 0), true)
    test.fails("timeout", client:expire(41.5, size + 2, 0))
  end,

  ["while part of a packet has come after the PINGREQ its answer is not late"] = function()
    local client = connected({ keep_alive = 20 })
    local input, whole = cosocket.buffer(), mqtt_peer.wire(5, { type = "publish", topic = "t", payload = ("x"):rep(500) })
    test.equal(client:expire(18, 100, 0), true)
    for now = 19, 60 do
      input:append(whole:sub(now - 18, now - 18))
      test.equal({ client:receive(input, now) }, {})
      if now >= client.deadline then test.equal(client:expire(now, 100, 0), true) end
    end
    -- Looking at the same bytes again is no sign of life.
    for now = 61, 69 do
      test.equal(client:receive(input, now), nil)
      if now >= client.deadline then test.equal(client:expire(now, 100, 0), true) end
    end
    test.equal(client.deadline, 70)
    test.fails("timeout", client:expire(70, 100, 0))
  end,

  ["an acknowledgement counts as own traffic"] = function()
    local client = connected({ keep_alive = 20 })
    local message = client:receive(wire(5, { type = "publish", topic = "t", qos = 1, packet_id = 1 }), 10)
    client:acknowledge(message, 12)
    packets(client.output, 5)
    test.equal(client:expire(18), true)
    test.equal(#client.output, 0)
    -- Counted from the message, which was heard before it was acknowledged.
    test.equal(client.deadline, 28)
  end,

  ["an answer that is not read because we do not read is not late"] = function()
    local client = connected({ keep_alive = 20 })
    client:pause(true, 1)
    for now = 18, 198, 18 do test.equal(client:expire(now), true) end
    test.equal(#packets(client.output, 5), 11, "the keep alive goes on")
    client:pause(false, 200)
    test.equal(client:expire(215), true)
    test.fails("timeout", client:expire(235))
  end,

  ["without keep alive nothing is due"] = function()
    local client = connected({ keep_alive = 0 })
    test.equal(client.deadline, math.huge)
    client:publish("t", "", 0, false, nil, 1e6)
    test.equal(client.deadline, math.huge)
  end,

  ["subscriptions are answered one by one"] = function()
    for _, version in ipairs({ 4, 5 }) do
      local client = connected({ version = version })
      local ticket = client:subscribe({ { filter = "a", qos = 1 }, { filter = "b" } }, nil, 0)
      local packet = packets(client.output, version)[1]
      test.equal({ packet.packet_id, #packet.subscriptions }, { ticket.packet_id, 2 })
      local event = client:receive(wire(version, { type = "suback", packet_id = 1, reason_codes = { 1, 0x80 } }), 0)
      test.equal(event.ticket == ticket, true)
      test.equal(ticket.answer.reason_codes, { 1, 0x80 })
      ticket = client:unsubscribe({ "a", "b" }, nil, 0)
      test.equal(packets(client.output, version)[1].filters, { "a", "b" })
      local codes = version == 5 and { 0, 0x11 } or nil
      event = client:receive(wire(version, { type = "unsuback", packet_id = 2, reason_codes = codes }), 0)
      test.equal(event.ticket == ticket, true)
    end
  end,

  ["retain handling is sent whatever retain as published is"] = function()
    -- Defect of others: options byte 0x01 instead of 0x29.
    local client = connected()
    client:subscribe({
      { filter = "a", qos = 1, retain_handling = 2 },
      { filter = "b", qos = 1, retain_handling = 2, retain_as_published = true },
    }, nil, 0)
    test.equal(client.output:peek(), "\x82\x0b\x00\x01\x00\x00\x01a\x21\x00\x01b\x29")
  end,

  ["a subscription with 128 and more bytes of properties is counted right"] = function()
    for _, size in ipairs({ 110, 119, 120, 121, 300 }) do
      local client = connected()
      local properties = { user_property = { { "k", ("v"):rep(size) } }, subscription_identifier = { 200 } }
      client:subscribe({ { filter = "f", qos = 1 } }, properties, 0)
      client:unsubscribe({ "f" }, { user_property = properties.user_property }, 0)
      local sent = packets(client.output, 5)
      test.equal(sent[1].properties, properties)
      test.equal(sent[1].subscriptions[1].qos, 1)
      test.equal(sent[2].properties.user_property, properties.user_property)
    end
  end,

  ["an answer of the wrong kind or length is refused and nobody is forgotten"] = function()
    for _, answer in ipairs({
      { type = "suback", packet_id = 1, reason_codes = { 0 } },
      { type = "unsuback", packet_id = 1, reason_codes = { 0, 0 } },
      { type = "puback", packet_id = 1 },
    }) do
      local client = connected()
      local ticket = client:subscribe({ { filter = "a" }, { filter = "b" } }, nil, 0)
      test.fails("protocol", client:receive(wire(5, answer), 0))
      test.equal(client:disconnected()[1] == ticket, true)
    end
  end,

  ["acknowledgements leave in the order the messages came"] = function()
    -- [MQTT-4.6.0-2]
    local client = connected()
    local input = cosocket.buffer()
    for id = 1, 4 do input:append(wire(5, { type = "publish", topic = "t", qos = 1, packet_id = id * 10 })) end
    local messages = {}
    for i = 1, 4 do messages[i] = client:receive(input, 0) end
    client:acknowledge(messages[2], 0)
    client:acknowledge(messages[4], 0)
    test.equal(#client.output, 0)
    client:acknowledge(messages[1], 0)
    test.equal(packets(client.output, 5), {
      { type = "puback", packet_id = 10, reason_code = 0 },
      { type = "puback", packet_id = 20, reason_code = 0 },
    })
    client:acknowledge(messages[3], 0)
    test.equal(#packets(client.output, 5), 2)
    client:acknowledge(messages[3], 0)
    test.equal(#client.output, 0, "once is enough")
    -- After its PUBACK an identifier may come again.
    test.equal(client:receive(wire(5, { type = "publish", topic = "t", qos = 1, packet_id = 10 }), 0).packet_id, 10)
  end,

  ["a server that uses an identifier twice is refused, one that exceeds our Receive Maximum is not"] = function()
    local client = connected()
    local publish = { type = "publish", topic = "t", qos = 1, packet_id = 5 }
    assert(client:receive(wire(5, publish), 0))
    test.equal(test.fails("protocol", client:receive(wire(5, publish), 0)).code, 0x82)
    client = connected({ receive_maximum = 2 })
    for id = 1, 2 do assert(client:receive(wire(5, { type = "publish", topic = "t", qos = 1, packet_id = id }), 0)) end
    -- Mosquitto 2.0.11 does that to slow clients.
    publish.packet_id = 3
    local third = assert(client:receive(wire(5, publish), 0))
    test.equal(client.incoming.count, 3)
    client:acknowledge(third, 0)
    test.equal(packets(client.output, 5), {})
  end,

  ["DISCONNECT of the server ends the session, in its shortest form too"] = function()
    -- Defect of others: E0 00 raised an error.
    for bytes, code in pairs({ ["\xe0\x00"] = 0, ["\xe0\x01\x8b"] = 0x8B, ["\xe0\x02\x8e\x00"] = 0x8E }) do
      local client = connected()
      local event = client:receive(cosocket.buffer(bytes), 0)
      test.equal({ event.type, event.reason_code, client.state }, { "disconnect", code, "closed" })
      test.equal(#client.output, 0)
    end
  end,

  ["our DISCONNECT is the last packet"] = function()
    for version, bytes in pairs({ [4] = "\xe0\x00", [5] = "\xe0\x01\x04" }) do
      local client = connected({ version = version })
      test.equal(client:disconnect(4), true)
      test.equal(client.output:take(), bytes)
      client:publish("t", "", 0, false, nil, 0)
      test.equal(#client.output, 0)
      local input = wire(version, { type = "publish", topic = "t" })
      test.equal(client:receive(input, 0), nil)
    end
    local client = connected()
    client:disconnect()
    test.equal(client.output:take(), "\xe0\x00")
  end,

  ["what is unanswered when the connection goes comes back in its order"] = function()
    local client = connected({}, { properties = { receive_maximum = 2 } })
    local tickets = {}
    for i = 1, 3 do tickets[i] = client:publish("t", tostring(i), 1, false, nil, 0) end
    tickets[4] = client:subscribe({ { filter = "f" } }, nil, 0)
    test.equal(client:disconnected(), { tickets[4] })
    test.equal(client:abandon(), { tickets[1], tickets[2], tickets[3] })
    test.equal(client:connect(0), true)
  end,

  ["every packet of a conversation may arrive cut anywhere"] = function()
    local properties = { user_property = { { "k", "v" } } }
    local conversation = wire(
      5,
      { type = "connack" },
      { type = "publish", topic = "a", payload = "1", qos = 1, packet_id = 1, properties = properties },
      { type = "suback", packet_id = 1, reason_codes = { 1 } },
      { type = "publish", topic = "b", payload = "2" },
      { type = "disconnect", reason_code = 0x8B }
    ):take()
    test.every_cut(conversation, function(first, second)
      local client = session.new()
      assert(client:connect(0))
      local input, seen = cosocket.buffer(), {}
      for _, part in ipairs({ first, second }) do
        input:append(part)
        while true do
          local event, err = client:receive(input, 0)
          if err then test.equal({ err.kind, seen[#seen] }, { "closed", "disconnect" }) end
          if not event then break end
          seen[#seen + 1] = event.type
          if event.type == "connack" then
            client:resume(0)
            client:subscribe({ { filter = "a", qos = 1 } }, nil, 0)
          end
        end
      end
      test.equal(seen, { "connack", "publish", "suback", "publish", "disconnect" })
    end)
  end,

  ["random bytes after CONNECT never do more than fail"] = function()
    local random = test.random()
    for _ = 1, 2000 do
      local client = random(2) == 1 and connected() or connected({ version = 4 })
      local input = cosocket.buffer(random:bytes(random(40)))
      for _ = 1, 50 do
        local event, err = client:receive(input, 0)
        if err then
          assert(err.kind == "protocol" or err.kind == "limit", tostring(err))
          test.equal(client.state, "closed")
        end
        -- Two bytes of zeroes behind the right one are a DISCONNECT.
        if not event or event.type == "disconnect" then break end
      end
    end
  end,
}
