-- What a session keeps from one connection to the next: bytes and numbers only.
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local incoming = require("mqtt.incoming")
local mqtt_peer = require("test.mqtt_peer")
local session = require("mqtt.session")
local test = require("test")

local packets = mqtt_peer.packets

--- A buffer of packets.
local function wire(version, ...)
  return cosocket.buffer(mqtt_peer.wire(version, ...))
end

--- Connects a session; what it says then is what it resends.
local function connect(client, connack, clean)
  assert(client:connect(0, clean or false))
  packets(client.output)
  local answer = { type = "connack" }
  for name, value in pairs(connack or {}) do answer[name] = value end
  test.equal(assert(client:receive(wire(client.version, answer), 0)).type, "connack")
  assert(client:resume(0))
  return client
end

--- A session that is connected.
local function connected(options, connack)
  return connect(session.new(options), connack, true)
end

--- What a session says, in short: `publish 1 a`, with `dup` and the quality of service.
local function said(client)
  local list = {}
  for i, packet in ipairs(packets(client.output, client.version)) do
    local words = { packet.type, packet.packet_id }
    if packet.type == "publish" then
      words = { packet.dup and "dup" or "publish", packet.packet_id or 0, packet.payload }
    elseif packet.reason_code and packet.reason_code > 0 then
      words[3] = packet.reason_code
    end
    list[i] = table.concat(words, " ")
  end
  return list
end

local function hear(client, ...)
  return client:receive(wire(client.version, ...), 0)
end

local RESUMED = { session_present = true }

return {
  ["QoS 2 is four packets, and each step is taken once"] = function()
    for _, version in ipairs({ 4, 5 }) do
      local client = connected({ version = version })
      local ticket = client:publish("t", "a", 2, false, nil, 0)
      test.equal(said(client), { "publish 1 a" })
      test.equal(hear(client, { type = "pubrec", packet_id = 1 }), nil)
      test.equal(said(client), { "pubrel 1" })
      test.equal({ ticket:is_done(), ticket.state }, { false, "released" })
      -- A second PUBREC gets a second PUBREL (4.3.3).
      test.equal(hear(client, { type = "pubrec", packet_id = 1 }), nil)
      test.equal(said(client), { "pubrel 1" })
      local event = hear(client, { type = "pubcomp", packet_id = 1 })
      test.equal(event.ticket == ticket and ticket:is_done(), true)
      test.equal({ next(client.outgoing.live), client.outgoing.in_flight }, { nil, 0 })
      test.equal(ticket:wait(), 0)
    end
  end,

  ["a PUBREC that refuses is the end of the message"] = function()
    local client = connected()
    local ticket = client:publish("t", "a", 2, false, nil, 0)
    test.equal(hear(client, { type = "pubrec", packet_id = 1, reason_code = 0x97 }).type, "pubrec")
    local err = test.fails("refused", ticket:wait())
    test.equal(err.code, 0x97)
    test.equal(#said(client), 1)
    test.equal(next(client.outgoing.live), nil)
  end,

  ["a received QoS 2 message is handed on once, and its identifier is free after PUBREL"] = function()
    -- [MQTT-4.3.3-10], [MQTT-4.3.3-11], [MQTT-4.3.3-12]
    for _, version in ipairs({ 4, 5 }) do
      local client = connected({ version = version })
      local message = hear(client, { type = "publish", topic = "t", payload = "a", qos = 2, packet_id = 7 })
      test.equal(#client.output, 0)
      client:acknowledge(message, 0)
      test.equal(said(client), { "pubrec 7" })
      local again = { type = "publish", topic = "t", payload = "a", qos = 2, packet_id = 7, dup = true }
      test.equal(hear(client, again), nil)
      test.equal(said(client), { "pubrec 7" })
      test.equal(hear(client, { type = "pubrel", packet_id = 7 }), nil)
      test.equal(said(client), { "pubcomp 7" })
      test.equal(hear(client, { type = "publish", topic = "t", payload = "b", qos = 2, packet_id = 7 }).payload, "b")
    end
  end,

  ["a PUBREL for what nobody knows is answered all the same"] = function()
    local client = connected()
    hear(client, { type = "pubrel", packet_id = 9 })
    test.equal(said(client), { "pubcomp 9 146" })
    hear(client, { type = "pubrec", packet_id = 9 })
    test.equal(said(client), { "pubrel 9 146" })
    client = connected({ version = 4 })
    hear(client, { type = "pubrel", packet_id = 9 })
    test.equal(said(client), { "pubcomp 9" })
  end,

  ["a message that is refused by hand says so, and its identifier is free at once"] = function()
    local client = connected()
    local message = hear(client, { type = "publish", topic = "t", qos = 2, packet_id = 7 })
    client:acknowledge(message, 0, 0x87)
    test.equal(said(client), { "pubrec 7 135" })
    test.equal(client.incoming.count, 0)
    test.equal(hear(client, { type = "publish", topic = "t", payload = "b", qos = 2, packet_id = 7 }).payload, "b")
  end,

  ["acknowledgements of both kinds leave in the order of the messages"] = function()
    -- [MQTT-4.6.0-2], [MQTT-4.6.0-3]
    local client = connected()
    local messages = {}
    for id = 1, 4 do messages[id] = hear(client, { type = "publish", topic = "t", qos = id % 2 + 1, packet_id = id }) end
    for _, id in ipairs({ 4, 2, 3 }) do client:acknowledge(messages[id], 0) end
    test.equal(#client.output, 0)
    client:acknowledge(messages[1], 0)
    test.equal(said(client), { "pubrec 1", "puback 2", "pubrec 3", "puback 4" })
  end,

  ["what was not acknowledged is sent again with DUP in its order, and what waits follows"] = function()
    -- [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-3.3.1-1]
    for _, version in ipairs({ 4, 5 }) do
      local client = connected({ version = version, in_flight_max = 5 })
      for i = 1, 7 do client:publish("t", tostring(i), i % 2 + 1, false, nil, 0) end
      test.equal(#said(client), 5)
      hear(client, { type = "puback", packet_id = 2 })
      hear(client, { type = "pubrec", packet_id = 3 })
      test.equal(said(client), { "publish 6 6", "pubrel 3" })
      client:disconnected()
      connect(client, RESUMED)
      test.equal(said(client), { "pubrel 3", "dup 1 1", "dup 4 4", "dup 5 5", "dup 6 6", "publish 7 7" })
      -- What waits for a connection waits behind them.
      client:disconnected()
      client:publish("t", "8", 1, false, nil, 0)
      connect(client, RESUMED)
      test.equal(said(client), { "pubrel 3", "dup 1 1", "dup 4 4", "dup 5 5", "dup 6 6", "dup 7 7" })
      for id = 1, 8 do
        if id % 2 == 0 and id ~= 2 then hear(client, { type = "puback", packet_id = id }) end
        if id % 2 == 1 and id ~= 3 then hear(client, { type = "pubrec", packet_id = id }) end
        if id % 2 == 1 then hear(client, { type = "pubcomp", packet_id = id }) end
      end
      test.equal({ client.outgoing:is_idle(), client.outgoing.in_flight }, { true, 0 })
    end
  end,

  ["the window of the new connection is kept when messages are sent again"] = function()
    -- 4.9: the quota begins anew, and PUBREL takes none of it.
    local client = connected()
    for i = 1, 4 do client:publish("t", tostring(i), 2, false, nil, 0) end
    hear(client, { type = "pubrec", packet_id = 1 })
    said(client)
    client:disconnected()
    connect(client, { session_present = true, properties = { receive_maximum = 1 } })
    test.equal(said(client), { "pubrel 1", "dup 2 2" })
    hear(client, { type = "pubcomp", packet_id = 1 })
    test.equal(said(client), {})
    hear(client, { type = "pubrec", packet_id = 2 }, { type = "pubcomp", packet_id = 2 })
    test.equal(client.outgoing.in_flight, 1)
    test.equal(said(client), { "pubrel 2", "dup 3 3" })
  end,

  ["a message whose PUBCOMP was lost is delivered, though the server knows its identifier no more"] = function()
    local client = connected()
    local ticket = client:publish("t", "a", 2, false, nil, 0)
    hear(client, { type = "pubrec", packet_id = 1 })
    client:disconnected()
    connect(client, RESUMED)
    test.equal(said(client), { "pubrel 1" })
    hear(client, { type = "pubcomp", packet_id = 1, reason_code = 0x92 })
    test.equal(ticket:wait(), 0)
    -- At any other time it means that the server has forgotten.
    ticket = client:publish("t", "b", 2, false, nil, 0)
    hear(client, { type = "pubrec", packet_id = 2 }, { type = "pubcomp", packet_id = 2, reason_code = 0x92 })
    test.equal(test.fails("refused", ticket:wait()).code, 0x92)
  end,

  ["a connection that is lost while it resends changes nothing of the order"] = function()
    local client = connected()
    for i = 1, 4 do client:publish("t", tostring(i), 1, false, nil, 0) end
    said(client)
    client:disconnected()
    connect(client, { session_present = true, properties = { receive_maximum = 2 } })
    test.equal(said(client), { "dup 1 1", "dup 2 2" })
    client:publish("t", "5", 1, false, nil, 0)
    client:disconnected()
    connect(client, RESUMED)
    test.equal(said(client), { "dup 1 1", "dup 2 2", "dup 3 3", "dup 4 4", "publish 5 5" })
  end,

  ["a server that has forgotten gets what it had not taken over as something new"] = function()
    local client = connected()
    local tickets = {}
    for i = 1, 4 do tickets[i] = client:publish("t", tostring(i), i % 2 + 1, false, nil, 0) end
    hear(client, { type = "pubrec", packet_id = 1 })
    said(client)
    client:disconnected()
    connect(client, { session_present = false })
    test.equal(said(client), { "publish 5 2", "publish 6 3", "publish 7 4" })
    test.equal(tickets[1]:wait(), 0, "PUBREC had come: the server owned it")
  end,

  ["a QoS 2 message in somebody's hands is not handed on again by the next connection"] = function()
    local client = connected()
    local publish = { type = "publish", topic = "t", payload = "a", qos = 2, packet_id = 7 }
    local message = hear(client, publish)
    client:disconnected()
    connect(client, RESUMED)
    publish.dup = true
    test.equal(hear(client, publish), nil)
    test.equal(said(client), {})
    client:acknowledge(message, 0)
    test.equal(said(client), { "pubrec 7" })
    hear(client, { type = "pubrel", packet_id = 7 })
    test.equal(said(client), { "pubcomp 7" })
  end,

  ["a QoS 2 message acknowledged without a connection is not handed on again either"] = function()
    local client = connected()
    local publish = { type = "publish", topic = "t", payload = "a", qos = 2, packet_id = 7 }
    local message = hear(client, publish)
    client:disconnected()
    client:acknowledge(message, 0)
    test.equal(#client.output, 0)
    connect(client, RESUMED)
    test.equal(hear(client, publish), nil)
    test.equal(said(client), { "pubrec 7" })
  end,

  ["a QoS 1 message comes again, and only the new one is acknowledged"] = function()
    local client = connected()
    local publish = { type = "publish", topic = "t", payload = "a", qos = 1, packet_id = 7 }
    local old = hear(client, publish)
    client:disconnected()
    connect(client, RESUMED)
    local new = hear(client, publish)
    test.equal(new.payload, "a")
    client:acknowledge(old, 0)
    test.equal(#client.output, 0)
    client:acknowledge(new, 0)
    test.equal(said(client), { "puback 7" })
  end,

  ["when the server has forgotten, identifiers mean something new in both directions"] = function()
    local client = connected()
    local publish = { type = "publish", topic = "t", payload = "a", qos = 2, packet_id = 7 }
    local old = hear(client, publish)
    client:disconnected()
    connect(client, { session_present = false })
    local new = hear(client, publish)
    test.equal(new.payload, "a")
    client:acknowledge(old, 0)
    test.equal(#client.output, 0)
    client:acknowledge(new, 0)
    test.equal(said(client), { "pubrec 7" })
  end,

  ["what is being received is counted until it is acknowledged to the end, on this connection"] = function()
    local client = connected({ receive_maximum = 2 })
    local one = hear(client, { type = "publish", topic = "t", qos = 2, packet_id = 1 })
    client:acknowledge(one, 0)
    hear(client, { type = "publish", topic = "t", qos = 1, packet_id = 2 })
    test.equal(client.incoming.count, 2)
    client:disconnected()
    connect(client, RESUMED)
    test.equal(client.incoming.count, 0)
    hear(client, { type = "publish", topic = "t", qos = 2, packet_id = 1, dup = true })
    hear(client, { type = "pubrel", packet_id = 1 })
    test.equal(client.incoming.count, 0)
  end,

  ["messages wait for a connection, in order and with what is left of their time"] = function()
    local client = session.new()
    local tickets = {}
    local function publish(payload, qos, expiry, now)
      local properties = expiry and { message_expiry_interval = expiry } or nil
      local ticket = client:publish("t", payload, qos, false, properties, now, expiry)
      tickets[#tickets + 1] = ticket
      return ticket
    end
    publish("0", 0, nil, 0)
    publish("1", 1, 100, 0)
    publish("gone", 1, 5, 0)
    publish("2", 2, nil, 10)
    test.equal(client.outgoing:waiting_count(), 4)
    assert(client:connect(20, false))
    packets(client.output)
    client:receive(wire(5, { type = "connack" }), 20)
    client:resume(20)
    local sent = packets(client.output, 5)
    test.equal({ #sent, sent[1].qos, sent[2].payload, sent[3].payload }, { 3, 0, "1", "2" })
    test.equal(sent[2].properties, { message_expiry_interval = 80 })
    test.equal(tickets[1]:wait(), 0)
    test.fails("timeout", tickets[3]:wait())
  end,

  ["what waits is held to a limit, as the policy says"] = function()
    local function full(policy)
      local client = session.new()
      local backlog = client.outgoing.backlog
      backlog.queue_max, backlog.queue_policy = 2, policy
      local one = client:publish("t", "1", 1, false, nil, 0)
      client:publish("t", "2", 1, false, nil, 0)
      local three, err = client:publish("t", "3", 1, false, nil, 0)
      connect(client)
      return one, three, err, said(client), backlog.dropped
    end
    local one, three, err, sent, dropped = full("reject")
    test.equal({ one.err, three, err.kind, dropped }, { nil, nil, "limit", 0 })
    test.equal(sent, { "publish 1 1", "publish 2 2" })
    one, three, err, sent, dropped = full("drop_newest")
    test.equal({ one.err, three, err.kind, dropped }, { nil, nil, "limit", 1 })
    test.equal(sent, { "publish 1 1", "publish 2 2" })
    one, three, err, sent, dropped = full("drop_oldest")
    test.equal({ test.fails("limit", one:wait()).kind, err, dropped }, { "limit", nil, 1 })
    test.equal(sent, { "publish 1 2", "publish 2 3" })
    test.equal(three.state, "sent")
  end,

  ["bytes that wait are held to a limit too, and what was sent before is not dropped"] = function()
    local client = connected({ in_flight_max = 1 })
    local window = client.outgoing
    client:publish("t", "sent", 1, false, nil, 0)
    said(client)
    client:disconnected()
    connect(client, RESUMED)
    client:disconnected()
    window.backlog.queue_bytes_max, window.backlog.queue_policy = 2 * (200 + 1 + 1000), "drop_oldest"
    local big = ("x"):rep(1000)
    for _ = 1, 5 do client:publish("t", big, 1, false, nil, 0) end
    test.equal({ window:waiting_count(), window.backlog.dropped }, { 2, 3 })
    test.fails("limit", client:publish("t", big .. big .. big, 1, false, nil, 0))
    connect(client, RESUMED)
    test.equal(said(client), { "dup 1 sent" })
  end,

  ["a queued message that the next server would not take fails, and the others go on"] = function()
    local client = session.new()
    local two = client:publish("t", "2", 2, false, nil, 0)
    local retained = client:publish("t", "r", 1, true, nil, 0)
    local large = client:publish("t", ("x"):rep(100), 1, false, nil, 0)
    client:publish("t", "1", 1, false, nil, 0)
    connect(client, { properties = { maximum_qos = 1, retain_available = false, maximum_packet_size = 50 } })
    test.equal(said(client), { "publish 2 1" })
    test.equal(test.fails("refused", two:wait()).code, 0x9B)
    test.equal(test.fails("refused", retained:wait()).code, 0x9A)
    test.equal(test.fails("limit", large:wait()).code, 0x95)
  end,

  ["our DISCONNECT leaves what is on its way for the next connection"] = function()
    local client = connected()
    client:publish("t", "1", 1, false, nil, 0)
    client:disconnect()
    client:disconnected()
    connect(client, RESUMED)
    test.equal(said(client), { "dup 1 1" })
  end,

  ["whatever is cut off wherever, QoS 1 arrives and QoS 2 arrives once"] = function()
    -- A client and a server of the same parts, on a wire that breaks at random.
    local random = test.random()
    for _ = 1, 60 do
      local client = session.new({ in_flight_max = 4 })
      local received = incoming.new(cosocket.buffer())
      local sent, seen, present = 0, {}, false
      for connection = 1, 400 do
        client:connect(0, false)
        client.output:clear()
        client:receive(wire(5, { type = "connack", session_present = present }), 0)
        client:resume(0)
        present = true
        local input, from_server = cosocket.buffer(), cosocket.buffer()
        local budget = connection > 60 and math.huge or random(400)
        for _ = 1, 30 do
          while sent < 40 and random(2) == 1 do
            sent = sent + 1
            client:publish("t", tostring(sent), sent % 2 + 1, false, nil, 0)
          end
          local bytes = client.output:take()
          input:append(bytes:sub(1, budget == math.huge and #bytes or math.max(0, budget)))
          budget = budget - #bytes
          while true do
            local packet = codec.decode(input, 5)
            if not packet then break end
            if packet.type == "publish" then
              local found = assert(received:receive(packet))
              if found == "new" then
                seen[packet.payload] = (seen[packet.payload] or 0) + 1
                received:acknowledge(packet)
              end
            elseif packet.type == "pubrel" then
              received:release(packet)
            end
          end
          bytes = received.output:take()
          from_server:append(bytes:sub(1, budget == math.huge and #bytes or math.max(0, budget)))
          budget = budget - #bytes
          while client:receive(from_server, 0) do end
        end
        client:disconnected()
        received:disconnected()
        received.output:clear()
        if sent == 40 and client.outgoing:is_idle() then break end
      end
      test.equal(client.outgoing:is_idle(), true)
      for i = 1, 40 do
        local times = seen[tostring(i)] or 0
        assert(times >= 1 and (i % 2 == 0 or times == 1), ("message %d arrived %d times"):format(i, times))
      end
    end
  end,
}
