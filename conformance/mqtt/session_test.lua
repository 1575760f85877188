-- Sessions that outlive their connections: what is sent again, what is not, and what the broker remembers.
-- run for: version

local broker = require("broker")
local cosocket = require("cosocket")
local proxy = require("proxy")
local test = require("test")

--- A client that comes back, behind a proxy that shows packets.
---@param inspect fun(packet: table, from_client: boolean): proxy.Verdict
---@param options? table
---@return mqtt.Client client
---@return cosocket.Queue connections
---@return proxy.Proxy way
---@return cosocket.Queue losses
local function through(inspect, options)
  local way = proxy.start(broker.needs(broker.urls.tcp, "a broker on plain TCP"), inspect, broker.version)
  local all = { url = way.url }
  for key, value in pairs(options or {}) do all[key] = value end
  local losses = cosocket.queue(1000)
  all.on_disconnected = function(_, err) losses:put(err) end
  local client, connections = broker.returning(all)
  if broker.lacks("sessions without subscriptions") then broker.inbox(client, broker.topic("session")) end
  return client, connections, way, losses
end

--- Lets a client lose its connection, and know it.
---@param way proxy.Proxy
---@param losses cosocket.Queue
local function lose(way, losses)
  way:refuse()
  assert(broker.soon("the end of the connection", losses.get, losses))
end

--- Waits for one connection more, and answers its CONNACK.
---@param connections cosocket.Queue
---@return mqtt.Connack
local function again(connections)
  return (assert(broker.soon("another connection", connections.get, connections)))
end

return broker.cases({
  ["[MQTT-4.4.0-1] QoS 1 messages without their PUBACK are sent again: DUP, same identifiers, same order"] = function()
    local holding, seen = true, { {}, {} }
    local round, all_sent = 1, cosocket.event()
    local client, connections, way = through(function(packet, from_client)
      if from_client and packet.type == "publish" then
        table.insert(seen[round], { packet.payload, packet.packet_id, packet.dup or false })
        if #seen[round] == 5 then all_sent:set() end
      elseif holding and packet.type == "puback" then
        return "drop"
      end
    end)
    local topic, tickets = broker.topic(), {}
    for i = 1, 5 do tickets[i] = assert(client:publish_nowait(topic, tostring(i), { qos = 1 })) end
    broker.soon("five messages", all_sent.wait, all_sent)
    holding, round = false, 2
    way:interrupt()
    test.equal(again(connections).session_present, true)
    for _, ticket in ipairs(tickets) do assert(broker.soon("PUBACK", ticket.wait, ticket)) end
    for i = 1, 5 do
      local first, second = seen[1][i], seen[2][i]
      test.equal({ first[1], first[3] }, { tostring(i), false })
      test.equal(second, { first[1], first[2], true })
    end
    broker.forget(client)
  end,

  ["[MQTT-4.3.3-1] a QoS 2 message whose PUBREC was lost is sent again, and arrives once"] = function()
    broker.requires("QoS 2")
    local watcher <close> = broker.connect()
    local topic, marker = broker.topic(), broker.topic("marker")
    local inbox, after = broker.inbox(watcher, topic, { qos = 2 }), broker.inbox(watcher, marker)
    local cut, packets = false, {}
    local client, connections = through(function(packet, from_client)
      if from_client and packet.type == "publish" then table.insert(packets, { packet.packet_id, packet.dup or false }) end
      if packet.type == "pubrec" and not from_client and not cut then
        cut = true
        return "cut"
      end
    end)
    test.equal(broker.publish(client, topic, "once", { qos = 2 }) < 0x80, true)
    test.equal(again(connections).session_present, true)
    test.equal(packets, { { packets[1][1], false }, { packets[1][1], true } })
    broker.publish(watcher, marker, "end")
    broker.next(after)
    test.equal(broker.next(inbox).payload, "once")
    test.equal(inbox:try_get(), nil)
    broker.forget(client)
  end,

  ["[5: MQTT-4.3.3-5; 3.1.1: MQTT-4.4.0-1] once PUBREC has come only PUBREL is sent again"] = function()
    broker.requires("QoS 2")
    local watcher <close> = broker.connect()
    local topic, marker = broker.topic(), broker.topic("marker")
    local inbox, after = broker.inbox(watcher, topic, { qos = 2 }), broker.inbox(watcher, marker)
    local cut, packets = false, {}
    local client = through(function(packet, from_client)
      if from_client and packet.packet_id and packet.type:find("^pub") then table.insert(packets, packet.type) end
      if packet.type == "pubcomp" and not from_client and not cut then
        cut = true
        return "cut"
      end
    end)
    broker.publish(client, topic, "once", { qos = 2 })
    test.equal(packets, { "publish", "pubrel", "pubrel" })
    broker.publish(watcher, marker, "end")
    broker.next(after)
    test.equal(broker.next(inbox).payload, "once")
    test.equal(inbox:try_get(), nil)
    broker.forget(client)
  end,

  ["[5: MQTT-4.3.3-10; 3.1.1: MQTT-4.3.3-2] a QoS 2 message that the broker sends again is handed on once"] = function()
    broker.requires("QoS 2")
    local publisher <close> = broker.connect()
    local topic, marker = broker.topic(), broker.topic("marker")
    local cut, sent, sent_again = false, 0, cosocket.event()
    local client, connections = through(function(packet, from_client)
      if not from_client and packet.type == "publish" and packet.qos == 2 then
        sent = sent + 1
        if sent == 2 then sent_again:set() end
      end
      if packet.type == "pubrec" and from_client and not cut then
        cut = true
        return "cut"
      end
    end)
    local inbox, after = broker.inbox(client, topic, { qos = 2 }), broker.inbox(client, marker)
    broker.publish(publisher, topic, "once", { qos = 2 })
    test.equal(again(connections).session_present, true)
    broker.soon("the message once more", sent_again.wait, sent_again)
    broker.publish(publisher, marker, "end")
    broker.next(after)
    test.equal(broker.next(inbox).payload, "once")
    test.equal(inbox:try_get(), nil)
    test.equal(sent, 2)
    broker.forget(client)
  end,

  ["[MQTT-4.5.0-2] a QoS 1 message whose PUBACK was lost comes again, with DUP"] = function()
    local publisher <close> = broker.connect()
    local topic, cut = broker.topic(), false
    local client, connections = through(function(packet, from_client)
      if packet.type == "puback" and from_client and not cut then
        cut = true
        return "cut"
      end
    end)
    local inbox = broker.inbox(client, topic)
    broker.publish(publisher, topic, "at least once", { qos = 1 })
    local first = broker.next(inbox)
    test.equal(again(connections).session_present, true)
    local second = broker.next(inbox)
    test.equal({ first.payload, second.payload }, { "at least once", "at least once" })
    test.equal({ first.dup or false, second.dup }, { false, true })
    broker.forget(client)
  end,

  ["[MQTT-4.6.0-6] a connection that is cut again and again loses nothing and keeps the order"] = function()
    broker.requires("QoS 2")
    broker.requires("QoS 2 on a connection that is cut")
    local watcher <close> = broker.connect()
    local topic, count = broker.topic(), 300
    local inbox = broker.inbox(watcher, topic, { qos = 2 })
    local passed = 0
    local client = through(function(packet)
      if packet.type == "connect" or packet.type == "connack" then return end
      passed = passed + 1
      -- A number that goes through all steps of QoS 2, and leaves time to get on.
      if passed % 331 == 0 then return "cut" end
    end)
    local tickets = {}
    for i = 1, count do tickets[i] = assert(client:publish_nowait(topic, tostring(i), { qos = 2 })) end
    for i = 1, count do test.equal(broker.next(inbox).payload, tostring(i)) end
    for _, ticket in ipairs(tickets) do assert(broker.soon("PUBCOMP", ticket.wait, ticket)) end
    test.equal(inbox:try_get(), nil)
    test.equal(client:status().connections > 3, true)
    broker.forget(client)
  end,

  ["[MQTT-4.6.0-1] what is published without a connection goes out on the next one, in order"] = function()
    local watcher <close> = broker.connect()
    local topics = { [0] = broker.topic("0"), broker.topic("1"), broker.topic("2") }
    local inboxes = {}
    local kinds = broker.qos_max + 1
    for qos = 0, broker.qos_max do inboxes[qos] = broker.inbox(watcher, topics[qos], { qos = 2 }) end
    local client, connections, way, losses = through(nil)
    lose(way, losses)
    local tickets = {}
    for i = 1, 9 do
      local qos = i % kinds
      tickets[i] = assert(client:publish_nowait(topics[qos], tostring(i), { qos = qos }))
    end
    way:admit()
    again(connections)
    for i = 1, 9 do test.equal(broker.next(inboxes[i % kinds]).payload, tostring(i)) end
    for _, ticket in ipairs(tickets) do assert(broker.soon("an answer", ticket.wait, ticket)) end
    broker.forget(client)
  end,

  ["[5: MQTT-3.1.2-5; 3.1.1: MQTT-3.1.2-4] a client that comes back to its session gets what came meanwhile"] = function()
    local topic = broker.topic()
    local client, connections, way = through(nil)
    local inbox = broker.inbox(client, topic)
    way:refuse()
    broker.publish_elsewhere(topic, "meanwhile")
    way:admit()
    test.equal(again(connections).session_present, true)
    test.equal(broker.next(inbox).payload, "meanwhile")
    broker.forget(client)
  end,

  ["[MQTT-3.2.2-3] a client whose session is gone subscribes again by itself"] = function()
    local topic = broker.topic()
    local client, connections, way = through(nil)
    local inbox = broker.inbox(client, topic)
    way:refuse()
    -- Somebody has the broker forget.
    broker.connect({ client_id = client:status().client_id, clean_start = true }):close()
    way:admit()
    test.equal(again(connections).session_present, false)
    -- Once the broker has answered this one, it has what came before.
    broker.inbox(client, broker.topic("another"))
    broker.publish_elsewhere(topic, "afterwards")
    test.equal(broker.next(inbox).payload, "afterwards")
    broker.forget(client)
  end,

  ["[5: MQTT-3.1.2-23] a session without an expiry ends with its connection"] = function()
    local client_id = broker.client_id()
    local once = { client_id = client_id, clean_start = false, session_expiry = 0 }
    local before = broker.connect(once)
    broker.inbox(before, broker.topic())
    before:close()
    local client <close> = broker.connect(once)
    test.equal(client:status().session_present, false)
  end,

  ["[5: 3.14.2.2.2] a clean client that says goodbye takes its session with it"] = function()
    local client_id = broker.client_id()
    local before = broker.connect({ client_id = client_id, clean_start = true, session_expiry = 60 })
    broker.inbox(before, broker.topic())
    before:close()
    local client <close> = broker.connect({ client_id = client_id, clean_start = false, session_expiry = 0 })
    test.equal(client:status().session_present, false)
  end,

  ["[5: MQTT-2.2.1-3; 3.1.1: MQTT-2.3.1-2] no two messages in flight have the same identifier"] = function()
    local live, most, twice = {}, 0, false
    local client = through(function(packet, from_client)
      if from_client and packet.type == "publish" then
        if live[packet.packet_id] then twice = true end
        live[packet.packet_id] = true
        local count = 0
        for _ in pairs(live) do count = count + 1 end
        most = math.max(most, count)
      elseif not from_client and packet.type == "puback" then
        live[packet.packet_id] = nil
      end
    end)
    local topic, tickets = broker.topic(), {}
    for i = 1, 500 do tickets[i] = assert(client:publish_nowait(topic, tostring(i), { qos = 1 })) end
    for _, ticket in ipairs(tickets) do assert(broker.soon("PUBACK", ticket.wait, ticket)) end
    test.equal(twice, false)
    test.equal(most > 1, true)
    broker.forget(client)
  end,

  ["[5: MQTT-3.3.4-7] all messages pass, and no more are unacknowledged than the broker's Receive Maximum"] = function()
    local ours, most, allowed = 0, 0, nil
    local client = through(function(packet, from_client)
      if packet.type == "connack" then allowed = (packet.properties or {}).receive_maximum or 65535 end
      if packet.type == "publish" and packet.qos > 0 and from_client then
        ours = ours + 1
      elseif (packet.type == "puback" or packet.type == "pubcomp") and not from_client then
        ours = ours - 1
      end
      most = math.max(most, ours)
    end, { receive_maximum = 5 })
    local topic, tickets = broker.topic(), {}
    local inbox = broker.inbox(client, topic, { qos = 2 })
    for i = 1, 500 do
      local qos = math.min(1 + i % 2, broker.qos_max)
      tickets[i] = assert(client:publish_nowait(topic, tostring(i), { qos = qos }))
    end
    for _ = 1, 500 do broker.next(inbox) end
    for _, ticket in ipairs(tickets) do assert(broker.soon("an answer", ticket.wait, ticket)) end
    test.equal(most <= allowed, true, ("%d in flight, %d allowed"):format(most, allowed))
    broker.forget(client)
  end,

  ["[5: MQTT-3.3.4-9] a slow client gets all that waits for it, though a broker sends more at a time than it may"] = function()
    local topic = broker.topic()
    local client, connections, way = through(nil, { receive_maximum = 5 })
    local seen = {}
    local done = cosocket.event()
    assert(client:subscribe(topic, { qos = 1 }, function(message)
      -- Mosquitto 2.0.11 has more unacknowledged than these five.
      seen[#seen + 1] = message.payload
      if #seen == 90 then done:set() end
      -- Others get their turn before it is acknowledged.
      cosocket.sleep(0)
    end))
    way:refuse()
    local publisher <close> = broker.connect()
    for i = 1, 90 do assert(publisher:publish_nowait(topic, tostring(i), { qos = 1 })) end
    broker.publish(publisher, broker.topic(), "after them")
    way:admit()
    again(connections)
    broker.soon("everything", done.wait, done)
    for i = 1, 90 do test.equal(seen[i], tostring(i)) end
    test.equal(client:status().connections, 2)
    broker.forget(client)
  end,

  ["[5: MQTT-3.3.2-6] the broker counts an expiry down while the message waits for its receiver"] = function()
    local topic = broker.topic()
    local client, connections, way = through(nil)
    local inbox = broker.inbox(client, topic)
    way:refuse()
    local publisher <close> = broker.connect()
    broker.publish(publisher, topic, "gone", { qos = 1, expiry = 1 })
    broker.publish(publisher, topic, "kept", { qos = 1, expiry = 60 })
    -- It is time itself that is waited for.
    cosocket.sleep(2.1)
    way:admit()
    again(connections)
    local message = broker.next(inbox)
    test.equal(message.payload, "kept")
    test.equal(message.properties.message_expiry_interval < 60, true)
    broker.forget(client)
  end,

  ["[5: MQTT-3.3.2-6] we count an expiry down while the message waits for a connection"] = function()
    local watcher <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(watcher, topic)
    local client, connections, way, losses = through(nil)
    lose(way, losses)
    local gone = assert(client:publish_nowait(topic, "gone", { qos = 1, expiry = 1 }))
    local kept = assert(client:publish_nowait(topic, "kept", { qos = 1, expiry = 60 }))
    cosocket.sleep(1.1)
    way:admit()
    again(connections)
    test.fails("timeout", broker.soon("an answer", gone.wait, gone))
    assert(broker.soon("PUBACK", kept.wait, kept))
    local message = broker.next(inbox)
    test.equal(message.payload, "kept")
    test.equal(message.properties.message_expiry_interval < 60, true)
    broker.forget(client)
  end,
})
