-- Sessions of the development broker: what outlives a connection, what is sent again, who takes over.
local broker = require("mqtt.broker")
local cosocket = require("cosocket")
local log = require("log")
local mqtt_raw = require("test.mqtt_raw")
local test = require("test")

-- Some tests make mistakes on purpose, which are told.
log.level("off")

local connect = mqtt_raw.connect

--- CONNECT of a client whose session outlives its connection, in either version.
local function lasting(version, client_id, more)
  local packet = { client_id = client_id or "c", clean_start = false }
  if version == 5 then packet.properties = { session_expiry_interval = 1000 } end
  for name, value in pairs(more or {}) do packet[name] = value end
  return packet
end

local function each_version(fn)
  for _, version in ipairs({ 5, 4 }) do
    local one <close> = broker.new()
    fn(one, version)
  end
end

return {
  ["a QoS 2 message goes through its four steps, each way, once"] = function()
    each_version(function(one, version)
      local a = connect(one, { client_id = "a", clean_start = true }, version)
      local b = connect(one, { client_id = "b", clean_start = true }, version)
      test.equal(b:subscribe("t", { qos = 2 }), 2)
      local message = { type = "publish", topic = "t", payload = "x", qos = 2, packet_id = 7 }
      a:send(message)
      a:expect("pubrec", { packet_id = 7, reason_code = 0 })
      -- It was handed on at once, and the same again is not [MQTT-4.3.3-10].
      test.equal(b:take().payload, "x")
      message.dup = true
      a:send({ type = "pubrel", packet_id = 7 })
      a:expect("pubcomp", { packet_id = 7, reason_code = 0 })
      a:silent()
      b:silent()
      -- The identifier is free again.
      message.dup, message.payload = nil, "y"
      a:send(message)
      a:expect("pubrec", { packet_id = 7 })
      test.equal(b:take().payload, "y")
    end)
  end,

  ["a QoS 2 message that was sent again after a reconnection is handed on once"] = function()
    each_version(function(one, version)
      local watcher = connect(one, { client_id = "w", clean_start = true }, version)
      watcher:subscribe("t", { qos = 2 })
      local a = connect(one, lasting(version), version)
      local message = { type = "publish", topic = "t", payload = "x", qos = 2, packet_id = 7 }
      a:send(message)
      a:expect("pubrec")
      test.equal(watcher:take().payload, "x")
      a:drop()
      a = connect(one, lasting(version), version)
      test.equal(a.connack.session_present, true)
      message.dup = true
      a:send(message)
      a:expect("pubrec", { packet_id = 7, reason_code = 0 })
      a:send({ type = "pubrel", packet_id = 7 })
      a:expect("pubcomp", { reason_code = 0 })
      watcher:silent()
      -- One that nobody knows is told apart where the version can (3.7.2.1).
      a:send({ type = "pubrel", packet_id = 7 })
      a:expect("pubcomp", { reason_code = version == 5 and 0x92 or 0 })
    end)
  end,

  ["what was not acknowledged is sent again with DUP, in its order, and then what came meanwhile"] = function()
    each_version(function(one, version)
      local a = connect(one, lasting(version), version)
      a:subscribe("t/#", { qos = 2 })
      local b = connect(one, { client_id = "b", clean_start = true }, version)
      for i, qos in ipairs({ 1, 2, 1, 2, 2 }) do b:publish("t/1", tostring(i), { qos = qos }) end
      local first = {}
      for i = 1, 5 do first[i] = a:expect("publish", { payload = tostring(i) }) end
      -- 1 is done, 2 and 4 are in our hands, and of 4 the PUBREL is lost, too.
      a:send({ type = "puback", packet_id = first[1].packet_id })
      a:send({ type = "pubrec", packet_id = first[2].packet_id })
      a:expect("pubrel", { packet_id = first[2].packet_id })
      a:send({ type = "pubrec", packet_id = first[4].packet_id })
      a:expect("pubrel", { packet_id = first[4].packet_id })
      a:send({ type = "pubcomp", packet_id = first[4].packet_id })
      a:silent()
      a:drop()
      b:publish("t/2", "lost", { qos = 0 })
      b:publish("t/2", "6", { qos = 1 })
      b:publish("t/2", "7", { qos = 2 })
      a = connect(one, lasting(version), version)
      test.equal(a.connack.session_present, true)
      a:expect("pubrel", { packet_id = first[2].packet_id })
      a:expect("publish", { payload = "3", dup = true, packet_id = first[3].packet_id, qos = 1 })
      a:expect("publish", { payload = "5", dup = true, packet_id = first[5].packet_id, qos = 2 })
      a:expect("publish", { payload = "6", qos = 1 })
      a:expect("publish", { payload = "7", qos = 2 })
      a:silent()
    end)
  end,

  ["a clean start forgets everything, and so does the end of the session"] = function()
    local one <close> = broker.new()
    local a = connect(one, lasting(5))
    test.equal(a.connack.session_present, false)
    a:subscribe("t", { qos = 1 })
    a:drop()
    a = connect(one, lasting(5, "c", { clean_start = true }))
    test.equal(a.connack.session_present, false)
    test.equal(one:clients()[1].subscriptions, {})
    a:subscribe("t", { qos = 1 })
    a:drop()
    cosocket.sleep(999)
    a = connect(one, lasting(5))
    test.equal(a.connack.session_present, true)
    a:drop()
    cosocket.sleep(1001)
    test.equal(one:clients(), {})
    a = connect(one, lasting(5))
    test.equal(a.connack.session_present, false)
  end,

  ["without an expiry interval a session ends with its connection, and with the largest one never"] = function()
    local one <close> = broker.new()
    connect(one, { client_id = "short", clean_start = false }):drop()
    connect(one, { client_id = "ever", properties = { session_expiry_interval = 0xFFFFFFFF } }):drop()
    connect(one, { client_id = "clean", clean_start = true }, 4):drop()
    connect(one, { client_id = "old", clean_start = false }, 4):drop()
    cosocket.sleep(1e9)
    local names = {}
    for i, client in ipairs(one:clients()) do names[i] = client.client_id end
    test.equal(names, { "ever", "old" })
    test.equal(one:clients()[1].expires_in, math.huge)
  end,

  ["DISCONNECT changes the session expiry interval, but not from nothing"] = function()
    local one <close> = broker.new()
    connect(one, lasting(5)):disconnect({ properties = { session_expiry_interval = 5 } })
    cosocket.sleep(4)
    test.equal(one:clients()[1].connected, false)
    cosocket.sleep(2)
    test.equal(one:clients(), {})
    connect(one, lasting(5)):disconnect({ properties = { session_expiry_interval = 0 } })
    test.equal(one:clients(), {})
    local a = connect(one, { client_id = "c" })
    a:send({ type = "disconnect", properties = { session_expiry_interval = 5 } })
    a:expect("disconnect", { reason_code = 0x82 })
    a:closed()
    test.equal(one:clients(), {})
  end,

  ["a broker may grant less than is asked for, and says so"] = function()
    local one <close> = broker.new({ session_expiry_max = 10 })
    local a = connect(one, lasting(5))
    test.equal(a.connack.properties.session_expiry_interval, 10)
    a:drop()
    connect(one, lasting(4, "old"), 4):drop()
    cosocket.sleep(9)
    test.equal(#one:clients(), 2)
    cosocket.sleep(2)
    test.equal(one:clients(), {})
    local b = connect(one, { client_id = "b", properties = { session_expiry_interval = 7 } })
    test.equal(b.connack.properties.session_expiry_interval, nil)
  end,

  ["a second client of the same identifier takes the session over, and the first is told"] = function()
    local one <close> = broker.new()
    local a = connect(one, lasting(5))
    a:subscribe("t", { qos = 1 })
    local sender = connect(one, { client_id = "s" })
    sender:publish("t", "1", { qos = 1 })
    local first = a:expect("publish")
    local b = connect(one, lasting(5))
    test.equal(b.connack.session_present, true)
    a:expect("disconnect", { reason_code = 0x8E })
    a:closed()
    b:take({ payload = "1", dup = true, packet_id = first.packet_id })
    sender:publish("t", "2", { qos = 1 })
    b:take({ payload = "2" })
    b:silent()
    -- In 3.1.1 there is no word for it.
    local c = connect(one, lasting(4), 4)
    b:expect("disconnect", { reason_code = 0x8E })
    local d = connect(one, lasting(4), 4)
    c:closed()
    sender:publish("t", "3", { qos = 1 })
    d:take({ payload = "3" })
  end,

  ["a session goes on in another version, without what the old one does not know"] = function()
    local one <close> = broker.new()
    connect(one, lasting(5)):subscribe("t", { qos = 1 })
    one:drop("c")
    one:publish("t", "x", { qos = 1, user = { a = "b" } })
    local old = connect(one, lasting(4), 4)
    test.equal(old.connack.session_present, true)
    test.equal(old:take({ payload = "x" }).properties, nil)
  end,

  ["messages that expire while a client is away are gone, and others say how long they still have"] = function()
    local one <close> = broker.new()
    local a = connect(one, lasting(5))
    a:subscribe("t", { qos = 1 })
    a:drop()
    one:publish("t", "short", { qos = 1, expiry = 5 })
    one:publish("t", "long", { qos = 1, expiry = 100 })
    one:publish("t", "ever", { qos = 1 })
    cosocket.sleep(10)
    a = connect(one, lasting(5))
    test.equal(a:take({ payload = "long" }).properties.message_expiry_interval, 90)
    test.equal(a:take({ payload = "ever" }).properties, nil)
    a:silent()
  end,

  ["QoS 0 messages wait for clients that are away when the broker is told so"] = function()
    local one <close> = broker.new({ queue_qos0 = true })
    local a = connect(one, lasting(5))
    a:subscribe("t", { qos = 2 })
    a:drop()
    one:publish("t", "0", { qos = 0 })
    one:publish("t", "1", { qos = 1 })
    a = connect(one, lasting(5))
    test.equal(a:payloads(), { "0", "1" })
  end,

  ["no more waits for a client that is away than may, and what is more is counted"] = function()
    local one <close> = broker.new({ session_queue_max = 3 })
    local a = connect(one, lasting(5))
    a:subscribe("t", { qos = 1 })
    a:drop()
    for i = 1, 5 do one:publish("t", tostring(i), { qos = 1 }) end
    local status = one:clients()[1]
    test.equal({ status.connected, status.waiting, status.dropped }, { false, 3, 2 })
    a = connect(one, lasting(5))
    test.equal(a:payloads(), { "1", "2", "3" })
  end,

  ["a client that acknowledges nothing is disconnected when too much waits for it"] = function()
    local one <close> = broker.new({ session_queue_max = 3 })
    local a = connect(one, lasting(5, "c", { properties = { session_expiry_interval = 9, receive_maximum = 2 } }))
    a:subscribe("t", { qos = 1 })
    for i = 1, 6 do one:publish("t", tostring(i), { qos = 1 }) end
    a:expect("publish", { payload = "1" })
    a:expect("publish", { payload = "2" })
    a:expect("disconnect", { reason_code = 0x97 })
    a:closed()
    a = connect(one, lasting(5))
    test.equal(a:payloads(), { "1", "2", "3", "4", "5" })
  end,

  ["the client's Receive Maximum is kept to, for what is sent again, too"] = function()
    local one <close> = broker.new()
    local properties = { session_expiry_interval = 9, receive_maximum = 2 }
    local a = connect(one, lasting(5, "c", { properties = properties }))
    a:subscribe("t", { qos = 2 })
    for i = 1, 4 do one:publish("t", tostring(i), { qos = i % 2 + 1 }) end
    a:expect("publish", { payload = "1" })
    a:expect("publish", { payload = "2" })
    a:silent()
    a:drop()
    a = connect(one, lasting(5, "c", { properties = properties }))
    local first = a:expect("publish", { payload = "1", dup = true, qos = 2 })
    a:expect("publish", { payload = "2", dup = true, qos = 1 })
    a:silent()
    a:send({ type = "pubrec", packet_id = first.packet_id })
    a:expect("pubrel")
    a:silent()
    a:send({ type = "pubcomp", packet_id = first.packet_id })
    a:expect("publish", { payload = "3", dup = nil })
  end,

  ["a broker may send fewer messages at a time than the client takes"] = function()
    for version, window in pairs({ [4] = 3, [5] = 2 }) do
      local one <close> = broker.new({ in_flight_max = 3 })
      local properties = version == 5 and { receive_maximum = 2 } or nil
      local a = connect(one, { client_id = "a", clean_start = true, properties = properties }, version)
      a:subscribe("t", { qos = 1 })
      for i = 1, 5 do one:publish("t", tostring(i), { qos = 1 }) end
      local first = a:expect("publish", { payload = "1" })
      test.equal(#a:all(), window - 1)
      a:send({ type = "puback", packet_id = first.packet_id })
      a:expect("publish", { payload = tostring(window + 1) })
      a:silent()
    end
  end,

  ["a client that sends more than the broker's Receive Maximum is told and disconnected"] = function()
    local one <close> = broker.new({ receive_maximum = 2 })
    local a = connect(one)
    test.equal(a.connack.properties.receive_maximum, 2)
    -- Each is acknowledged with PUBREC, which does not end it (4.9).
    for id = 1, 3 do a:send({ type = "publish", topic = "t", payload = "", qos = 2, packet_id = id }) end
    a:expect("pubrec")
    a:expect("pubrec")
    a:expect("disconnect", { reason_code = 0x93 })
    a:closed()
  end,

  ["an acknowledgement of nothing is a protocol error"] = function()
    for _, type in ipairs({ "puback", "pubcomp" }) do
      local one <close> = broker.new()
      local a = connect(one)
      a:send({ type = type, packet_id = 9 })
      a:expect("disconnect", { reason_code = 0x82 })
      a:closed()
    end
  end,

  snapshots = {
    ["a broker goes on from what another one knew"] = function()
      each_version(function(first, version)
        local a = connect(first, lasting(version), version)
        a:subscribe("t", { qos = 2 })
        a:subscribe("$share/g/u", { qos = 1 })
        local b = connect(first, lasting(version, "b"), version)
        b:send({ type = "publish", topic = "t", payload = "1", qos = 2, packet_id = 3 })
        b:expect("pubrec")
        b:publish("t", "2", { qos = 1, packet_id = 4 })
        b:publish("kept", "k", { qos = 1, retain = true, packet_id = 4 })
        local one_id = a:expect("publish", { payload = "1" }).packet_id
        local two_id = a:expect("publish", { payload = "2" }).packet_id
        a:send({ type = "pubrec", packet_id = one_id })
        a:expect("pubrel")
        a:drop()
        b:publish("t", "3", { qos = 2, packet_id = 4 })
        b:publish("u", "4", { qos = 1, packet_id = 4 })
        local state = first:snapshot()
        -- What comes later is not in it.
        b:publish("t", "forgotten", { qos = 1, packet_id = 4 })
        first:kill()
        b:closed()

        for _ = 1, 2 do
          local second <close> = broker.new({ state = state })
          local c = connect(second, lasting(version), version)
          test.equal(c.connack.session_present, true)
          c:expect("pubrel", { packet_id = one_id })
          c:expect("publish", { payload = "2", dup = true, packet_id = two_id })
          c:expect("publish", { payload = "3", qos = 2 })
          c:expect("publish", { payload = "4", qos = 1 })
          c:silent()
          c:subscribe("kept")
          c:expect("publish", { payload = "k", retain = true })
          b = connect(second, lasting(version, "b"), version)
          test.equal(b.connack.session_present, true)
          b:send({ type = "publish", topic = "t", payload = "1", qos = 2, packet_id = 3, dup = true })
          b:expect("pubrec")
          c:silent()
          b:publish("u", "5", { qos = 1 })
          c:expect("publish", { payload = "5" })
        end
      end)
    end,

    ["sessions and wills go on expiring where they were"] = function()
      local first = broker.new()
      local a = connect(first, {
        client_id = "a",
        will = { topic = "will", payload = "w", properties = { will_delay_interval = 30 } },
        properties = { session_expiry_interval = 50 },
      })
      connect(first, { client_id = "gone", clean_start = true })
      a:drop()
      cosocket.sleep(20)
      local state = first:snapshot()
      first:close()
      local second <close> = broker.new({ state = state })
      local watcher = connect(second, { client_id = "w", clean_start = true })
      watcher:subscribe("will")
      test.equal(#second:clients(), 2)
      cosocket.sleep(9)
      watcher:silent()
      cosocket.sleep(1)
      watcher:expect("publish", { payload = "w" })
      cosocket.sleep(21)
      test.equal(#second:clients(), 1)
    end,
  },
}
