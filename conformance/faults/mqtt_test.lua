-- MQTT through a network that fails: Mosquitto behind the fault proxy.

local broker = require("conformance.mqtt.broker")
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local mqtt = require("mqtt")
local proxy = require("conformance.faults.proxy")
local take_packet = require("conformance.mqtt.proxy").take_packet
local test = require("test")
local timed = require("conformance.faults.timed")

--- The shortest keep alive there is, in seconds, and when a client has noticed at the latest that nobody answers.
local KEEP_ALIVE, NOTICED = 1, 2.5
--- Seconds that a connection may take in these cases, and how much later it may know.
local PATIENCE, SLACK = 0.5, 0.8

local URL = broker.urls.tcp

--- A client behind a proxy that comes back by itself.
---@param faults? faults.Options
---@param options? table
---@return mqtt.Client client
---@return faults.Proxy way
---@return cosocket.Queue connections
---@return cosocket.Queue losses
local function through(faults, options)
  local way = proxy.start(URL, faults)
  local losses = cosocket.queue(1000)
  local all = { url = way.url, on_disconnected = function(_, err) losses:put(err) end }
  for key, value in pairs(options or {}) do all[key] = value end
  local client, connections = broker.returning(all)
  return client, way, connections, losses
end

--- Waits for a loss that is of this kind, and answers how long that took.
local function loses(losses, kind)
  local took, err = timed(broker.soon, "the end of the connection", losses.get, losses)
  if err.kind ~= kind then error(("%s, not %s"):format(err, kind), 2) end
  return took
end

--- Publishes 1 to 3 at QoS 1 and 4 to 6 at QoS 2 on a topic, and waits until the broker has them all.
local function publish_six(client, topic)
  local tickets = {}
  for i = 1, 6 do tickets[i] = assert(client:publish_nowait(topic, tostring(i), { qos = i > 3 and 2 or 1 })) end
  for i, ticket in ipairs(tickets) do assert(broker.soon("an acknowledgement of " .. i, ticket.wait, ticket)) end
end

--- What has come until a message of the watcher's own: QoS 2 once, QoS 1 at least once, each in its order.
local function six_have_come(inbox, note)
  local once, at_least = {}, {}
  while true do
    local payload = broker.next(inbox).payload
    if payload == "end" then break end
    local list = tonumber(payload) > 3 and once or at_least
    if list == once or list[#list] ~= payload then list[#list + 1] = payload end
  end
  test.equal(once, { "4", "5", "6" }, note)
  -- What is sent again comes again from the first that was not acknowledged.
  local seen = {}
  for _, payload in ipairs(at_least) do
    if not seen[payload] then seen[#seen + 1] = payload end
    seen[payload] = true
  end
  test.equal({ seen[1], seen[2], seen[3] }, { "1", "2", "3" }, note)
end

--- Counts the packets of the first connection but for CONNECT and CONNACK, and has `fault` happen after number `at`.
local function at_packet(at, fault)
  local count = 0
  return {
    take = take_packet,
    inspect = function(bytes, _, number)
      local packet = assert(codec.decode(cosocket.buffer(bytes), 5))
      if number > 1 or packet.type == "connect" or packet.type == "connack" then return end
      count = count + 1
      if count == at then return fault, true end
    end,
  }, function() return count end
end

return {
  ["[MQTT-3.1.2-22; 3.1.2.10] a way that loses either direction is noticed by the missing PINGRESP, and left for another"] = function()
    -- A keep alive of 2 s: Mosquitto counts whole seconds, and with 1 s may end the connection (1.5 times as long) first.
    for _, direction in ipairs({ "up", "down" }) do
      local client, way, connections, losses = through(nil, { keep_alive = 2 * KEEP_ALIVE })
      way:lose(direction)
      test.truthy(loses(losses, "timeout") < 2 * NOTICED)
      way:resume()
      test.equal(broker.next(connections).session_present, true)
      broker.publish(client, broker.topic(), "alive")
      broker.forget(client)
    end
  end,

  ["[3.1.2.10] who keeps publishing notices a way that loses everything just as well"] = function()
    local client, way, connections, losses = through(nil, { keep_alive = KEEP_ALIVE })
    local topic, stop = broker.topic(), false
    local busy = cosocket.spawn("publishing", function()
      while not stop do
        client:publish(topic, "into the void", { qos = 0 })
        cosocket.sleep(0.05)
      end
    end)
    way:lose()
    test.truthy(loses(losses, "timeout") < NOTICED)
    way:resume()
    broker.next(connections)
    stop = true
    busy:join()
    broker.forget(client)
  end,

  ["[3.1.2.10] a server that takes nothing more is noticed, though what waits fills every buffer"] = function()
    local client, way, connections, losses = through(nil, { keep_alive = KEEP_ALIVE, queue_bytes_max = 1048576 })
    local topic, payload = broker.topic(), ("x"):rep(65536)
    way:stall("up")
    local publisher = cosocket.spawn("publishing", function()
      local count = 0
      while count < 500 and client:publish(topic, payload, { qos = 0 }) do count = count + 1 end
      return count
    end)
    test.truthy(loses(losses, "timeout") < NOTICED + 1)
    way:resume()
    broker.next(connections)
    -- Who publishes was held back, or told, and goes on.
    broker.soon("the publisher", publisher.join, publisher)
    broker.publish(client, topic, "alive")
    broker.forget(client)
  end,

  ["[MQTT-4.1.0-1, MQTT-4.3.3-1] messages in flight arrive through a cut or a reset after every packet, QoS 2 once"] = function()
    local watcher <close> = broker.connect()
    local number, rounds = 0, 0
    repeat
      number = number + 1
      local fault = number % 2 == 0 and "cut" or "reset"
      local topic = broker.topic()
      local inbox = broker.inbox(watcher, topic, { qos = 2 })
      local faults, count = at_packet(number, fault)
      local client = through(faults)
      publish_six(client, topic)
      broker.publish(watcher, topic, "end", { qos = 2 })
      six_have_come(inbox, ("%s after packet %d"):format(fault, number))
      local hit = count() >= number
      rounds = rounds + (hit and 1 or 0)
      broker.forget(client)
    until not hit
    -- Six PUBLISH, three PUBACK, three each of PUBREC, PUBREL and PUBCOMP.
    test.equal(rounds, 18)
  end,

  ["[MQTT-4.3.3-1] messages arrive through a reset after every byte, of either direction, QoS 2 once"] = function()
    local watcher <close> = broker.connect()
    local whole = {}
    do
      local client, way = through()
      for direction, bytes in pairs(way.passed) do whole[direction] = { bytes } end
      publish_six(client, broker.topic())
      for direction, bytes in pairs(way.passed) do whole[direction][2] = bytes end
      broker.forget(client)
    end
    for direction, range in pairs(whole) do
      -- One byte up is one behind CONNECT: with less there would be no first connection.
      for after = range[1] + 1, range[2] - 1, 3 do
        local topic = broker.topic()
        local inbox = broker.inbox(watcher, topic, { qos = 2 })
        local client = through({
          connection = function(number)
            return { [direction] = number == 1 and { after = after, fault = "reset" } or nil }
          end,
        })
        publish_six(client, topic)
        broker.publish(watcher, topic, "end", { qos = 2 })
        six_have_come(inbox, ("a reset after %d bytes %s"):format(after, direction))
        broker.forget(client)
      end
    end
  end,

  ["[MQTT-4.4.0-1, MQTT-4.3.3-10] what is sent to a client arrives through cuts after every packet, QoS 2 once"] = function()
    local publisher <close> = broker.connect()
    local number, rounds = 0, 0
    repeat
      number = number + 1
      local topic = broker.topic()
      local faults, count = at_packet(number, number % 2 == 0 and "cut" or "reset")
      local client = through(faults)
      local inbox = broker.inbox(client, topic, { qos = 2 })
      publish_six(publisher, topic)
      broker.publish(publisher, topic, "end", { qos = 2 })
      six_have_come(inbox, ("packet %d"):format(number))
      local hit = count() >= number
      rounds = rounds + (hit and 1 or 0)
      broker.forget(client)
    until not hit
    -- CONNECT to SUBACK and seven messages: whether acknowledgements pass before the last of these is a matter of time.
    test.truthy(rounds >= 11, rounds)
  end,

  ["[4.6] with latency and jitter publishing is pipelined and holds its order"] = function()
    local watcher <close> = broker.connect()
    local way, count = { latency = 0.1, jitter = 0.05 }, 150
    local client = through({ up = way, down = way })
    for qos = 1, 2 do
      local topic = broker.topic()
      local inbox = broker.inbox(watcher, topic, { qos = qos })
      local began, tickets = cosocket.now(), {}
      for i = 1, count do tickets[i] = assert(client:publish_nowait(topic, tostring(i), { qos = qos })) end
      for _, ticket in ipairs(tickets) do assert(broker.soon("an acknowledgement", ticket.wait, ticket)) end
      local took = cosocket.now() - began
      for i = 1, count do test.equal(broker.next(inbox).payload, tostring(i)) end
      -- One after another, these would take half a minute and more.
      test.truthy(took < 5, took)
    end
    broker.forget(client)
  end,

  ["[2.1] packets in slices of one byte are the same packets"] = function()
    local topic = broker.topic()
    local client = through({ up = { slice = 1 }, down = { slice = 1 } })
    local inbox = broker.inbox(client, topic, { qos = 2 })
    for qos = 0, 2 do
      broker.publish(client, topic, "at " .. qos, { qos = qos, user = { { "key", "value" } } })
      local message = broker.next(inbox)
      test.equal({ message.payload, message.qos, message.properties.user_property }, { "at " .. qos, qos, { { "key", "value" } } })
    end
    broker.forget(client)
  end,

  ["a server that refuses, accepts and stays silent, resets, or does not answer CONNECT is left for the next of the list"] = function()
    local silent, resetting = proxy.start(URL, { accept = "silent" }), proxy.start(URL, { accept = "reset" })
    local deaf = proxy.start(URL, { down = { fault = "lose" } })
    local client = assert(mqtt.connect({ proxy.refused(URL), silent.url, resetting.url, deaf.url, URL }, { timeout = PATIENCE, version = 5 }))
    test.equal(client:status().connections, 1)
    assert(client:status().address:find(URL:match("%d+$"), 1, true))
    for _, way in ipairs({ silent, resetting, deaf }) do test.equal(way.connections, 1) end
    client:close()
  end,

  ["a connection that is lost moves on to the next of the list, messages and all"] = function()
    local watcher <close> = broker.connect()
    local topic = broker.topic()
    local inbox = broker.inbox(watcher, topic, { qos = 2 })
    local first, second = proxy.start(URL), proxy.start(URL)
    local client = assert(mqtt.connect({ first.url, second.url }, {
      client_id = broker.client_id(),
      reconnect = { delay_min = 0.02, delay_max = 0.2 },
    }))
    first:refuse()
    publish_six(client, topic)
    broker.publish(watcher, topic, "end", { qos = 2 })
    six_have_come(inbox)
    test.equal(second.connections, 1)
    client:close()
  end,

  ["a refused connection says whose address refused"] = function()
    local url = proxy.refused(URL)
    local client, err = broker.try_connect({ url = url })
    test.fails("connect", client, err)
    test.equal(err.code, "ECONNREFUSED")
    assert(tostring(err):find(url:match("//(.+)$"), 1, true), tostring(err))
  end,

  ["[3.2] a server that never answers CONNECT is a timeout, whatever of the answer has come"] = function()
    for after = 0, 3 do
      local way = proxy.start(URL, { down = { after = after, fault = "stall" } })
      local took, client, err = timed(broker.try_connect, { url = way.url, timeout = PATIENCE })
      test.fails("timeout", client, err)
      test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
    end
  end,

  ["a TLS handshake that stalls is a timeout, one that ends or is reset is an error of TLS"] = function()
    for _, after in ipairs({ 0, 5, 100 }) do
      for fault, kind in pairs({ stall = "timeout", lose = "timeout", ["end"] = "tls", reset = "tls" }) do
        local way = proxy.start(broker.urls.tls, { down = { after = after, fault = fault } })
        local took, client, err = timed(broker.try_connect, { url = way.url, timeout = 0.3 })
        if client or err.kind ~= kind then error(("%s after %d: %s"):format(fault, after, err)) end
        test.truthy(took < 0.3 + SLACK, took)
      end
    end
  end,

  ["subscribing and publishing through a stall end by their deadlines, and the connection lives on"] = function()
    local client, way = through()
    way:stall("down")
    local took, answer, err = timed(cosocket.deadline, PATIENCE, client.subscribe, client, broker.topic(), { qos = 1 })
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
    took, answer, err = timed(cosocket.deadline, PATIENCE, client.publish, client, broker.topic(), "late", { qos = 1 })
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
    way:resume()
    local topic = broker.topic()
    local inbox = broker.inbox(client, topic)
    broker.publish(client, topic, "in time")
    test.equal(broker.next(inbox).payload, "in time")
    test.equal(way.connections, 1)
    broker.forget(client)
  end,

  ["closing ends in time on a way that loses everything"] = function()
    local client, way = through()
    assert(client:publish_nowait(broker.topic(), "never acknowledged", { qos = 1 }))
    way:lose()
    local took = timed(client.close, client)
    test.truthy(took < 10, took)
    test.equal(client:status().state, "closed")
  end,

  ["[MQTT-3.1.2-8] the will of a client that is reset is published"] = function()
    local watcher <close> = broker.connect()
    local topic = broker.topic("will")
    local inbox = broker.inbox(watcher, topic)
    local way = proxy.start(URL)
    local client = broker.connect({ url = way.url, will = { topic = topic, payload = "reset", qos = 1 } })
    way:reset()
    test.equal(broker.next(inbox).payload, "reset")
    test.equal(broker.wait_for_end(client).kind, "closed")
  end,

  ["a large message arrives over a slow way, in slices, while the keep alive goes on"] = function()
    local topic, payload = broker.topic(), test.random():bytes(300000)
    local client, way = through({ up = { bandwidth = 100000 }, down = { slice = 5000 } }, { keep_alive = 3 })
    local inbox = broker.inbox(client, topic, { qos = 1 })
    local ticket = assert(client:publish_nowait(topic, payload, { qos = 1 }))
    assert(broker.soon("PUBACK", ticket.wait, ticket))
    assert(broker.next(inbox).payload == payload, "another payload")
    test.equal(way.connections, 1)
    broker.forget(client)
  end,

  ["[3.1.2.10] a message that takes longer to leave than keep alive and PINGRESP arrives once, on one connection"] = function()
    local topic, payload = broker.topic(), test.random():bytes(1048576)
    local watcher <close> = broker.connect()
    local inbox = broker.inbox(watcher, topic, { qos = 2 })
    local slow = { bandwidth = 65536, buffer = 8192 }
    local client, way = through({ up = slow }, { keep_alive = 2 })
    local took, ok, err = timed(client.publish, client, topic, payload, { qos = 1 })
    assert(ok, err)
    test.truthy(took > 15 and took < 20, took)
    assert(broker.next(inbox).payload == payload, "another payload")
    broker.publish(watcher, topic, "end", { qos = 2 })
    test.equal(broker.next(inbox).payload, "end")
    test.equal(way.connections, 1)
    broker.forget(client)
  end,

  ["a client that comes back a hundred times leaves nothing behind"] = function()
    local client, way, connections, losses = through(nil, { reconnect = { delay_min = 0.005, delay_max = 0.02 } })
    local function round()
      for i = 1, 50 do
        if i % 2 == 0 then way:reset() else way:interrupt() end
        broker.next(connections)
      end
      while losses:try_get() do end
      for _ = 1, 2 do collectgarbage() end
      return #cosocket.tasks()
    end
    -- The first round makes what is made once.
    local tasks = round()
    local heap = collectgarbage("count")
    test.equal(round(), tasks)
    test.truthy(collectgarbage("count") - heap < 100, collectgarbage("count") - heap)
    broker.forget(client)
  end,
}
