-- The server's session, alone and joined to a client's: bytes and numbers only.
local cosocket = require("cosocket")
local incoming = require("mqtt.incoming")
local mqtt_peer = require("test.mqtt_peer")
local outgoing = require("mqtt.outgoing")
local server_session = require("mqtt.server_session")
local session = require("mqtt.session")
local test = require("test")
local tickets = require("mqtt.ticket")

local packets = mqtt_peer.packets

--- A buffer of packets.
local function wire(version, ...)
  return cosocket.buffer(mqtt_peer.wire(version, ...))
end

--- Both ends of a connection, and a function that carries bytes until nobody has any; what happened is noted.
local function pair(options, server_options)
  local client = session.new(options)
  local server = server_session.new(server_options, 0)
  local to_client, to_server = cosocket.buffer(), cosocket.buffer()
  local link = { client = client, server = server, client_events = {}, server_events = {}, now = 0 }
  function link.settle()
    repeat
      local quiet = #client.output == 0 and #server.output == 0
      to_server:append(client.output:take())
      to_client:append(server.output:take())
      local function drain(one, input, events)
        while true do
          local event, err = one:receive(input, link.now)
          if err then link.err = err end
          if not event then break end
          events[#events + 1] = event
          if one == server and event.type == "connect" then assert(server:accept(nil, link.now)) end
          if one == server and event.type == "publish" then server:acknowledge(event) end
          if one == client and event.type == "connack" then assert(client:resume(link.now)) end
        end
      end
      drain(server, to_server, link.server_events)
      drain(client, to_client, link.client_events)
    until quiet
  end
  assert(client:connect(0))
  link.settle()
  return link
end

return {
  ["70,000 QoS 1 publishes all arrive, and never more than allowed are in flight"] = function()
    local link = pair({}, { receive_maximum = 50 })
    for i = 1, 70000 do
      assert(link.client:publish("t", tostring(i), 1, false, nil, 0))
      if i % 1000 == 0 then link.settle() end
    end
    test.equal(link.err, nil)
    local expected = 0
    for _, event in ipairs(link.server_events) do
      if event.type == "publish" then
        expected = expected + 1
        assert(event.payload == tostring(expected) and not event.dup)
      end
    end
    test.equal(expected, 70000)
    local window = link.client.outgoing
    test.equal({ window.in_flight, window:waiting_count(), next(window.live) }, { 0, 0 })
  end,

  ["waits for CONNECT, and for nothing else, and not for ever"] = function()
    local server = server_session.new({ timeout = 3 }, 0)
    test.equal(server.deadline, 3)
    test.fails("timeout", server:expire(3))
    server = server_session.new({}, 0)
    test.fails("protocol", server:receive(cosocket.buffer("\xc0"), 0))
    server = server_session.new({}, 0)
    test.fails("protocol", server:receive(cosocket.buffer("GET / HTTP/1.1\r\n"), 0))
    test.equal(#server.output, 0)
  end,

  ["tells a version it does not speak in words every version knows"] = function()
    local server = server_session.new({}, 0)
    local old = cosocket.buffer("\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00")
    local err = test.fails("protocol", server:receive(old, 0))
    test.equal(err.code, 0x84)
    test.equal(server.output:take(), "\x20\x02\x00\x01")
  end,

  ["refuses in the words of the client's version"] = function()
    for version, bytes in pairs({ [4] = "\x20\x02\x00\x04", [5] = "\x20\x03\x00\x86\x00" }) do
      local server = server_session.new({}, 0)
      assert(server:receive(wire(version, { type = "connect", client_id = "c" }), 0))
      assert(server:refuse(0x86))
      test.equal(server.output:take(), bytes)
      test.equal(server.state, "closed")
    end
  end,

  ["a second CONNECT is a protocol error"] = function()
    local link = pair()
    local err = test.fails("protocol", link.server:receive(wire(5, { type = "connect" }), 0))
    test.equal(err.code, 0x82)
    test.equal(packets(link.server.output, 5)[1].reason_code, 0x82)
  end,

  ["gives up a client that is silent for one and a half times its keep alive"] = function()
    local link = pair({ keep_alive = 10 })
    test.equal(link.server.deadline, 15)
    link.now = 9
    test.equal(link.client:expire(9), true)
    link.settle()
    test.equal(link.server:expire(15), true)
    test.equal(link.server.deadline, 24)
    test.fails("timeout", link.server:expire(24))
    test.equal(packets(link.server.output, 5)[1].reason_code, 0x8D)
    test.equal(pair({ keep_alive = 0 }).server.deadline, math.huge)
  end,

  ["announces its limits to MQTT 5, and only those that are any"] = function()
    local link = pair({}, { receive_maximum = 7, packet_max = 9000 })
    test.equal(link.client.connack.properties, { receive_maximum = 7, maximum_packet_size = 9000 })
    link = pair({}, { maximum_qos = 1, retain_available = false, topic_alias_maximum = 4 })
    test.equal(link.client.connack.properties, {
      receive_maximum = 1000,
      maximum_packet_size = 1048576,
      maximum_qos = 1,
      retain_available = false,
      topic_alias_maximum = 4,
    })
    test.equal(pair({ version = 4 }).client.connack.properties, nil)
  end,

  ["refuses what it said it does not take"] = function()
    local cases = {
      [0x9B] = { type = "publish", topic = "t", qos = 2, packet_id = 1 },
      [0x9A] = { type = "publish", topic = "t", retain = true },
      [0x9E] = { type = "subscribe", packet_id = 1, subscriptions = { { filter = "$share/g/t" } } },
      [0xA2] = { type = "subscribe", packet_id = 1, subscriptions = { { filter = "t/#" } } },
      [0xA1] = {
        type = "subscribe",
        packet_id = 1,
        subscriptions = { { filter = "t" } },
        properties = { subscription_identifier = 1 },
      },
      [0x94] = { type = "publish", topic = "t", properties = { topic_alias = 1 } },
      [0x82] = { type = "publish", topic = "t", properties = { subscription_identifier = { 1 } } },
      [0x95] = { type = "publish", topic = "t", payload = ("x"):rep(10000) },
    }
    for code, packet in pairs(cases) do
      local link = pair({}, {
        packet_max = 9000,
        maximum_qos = 1,
        retain_available = false,
        shared_subscription_available = false,
        wildcard_subscription_available = false,
        subscription_identifier_available = false,
      })
      local _, err = link.server:receive(wire(5, packet), 0)
      test.equal(err.code, code)
      test.equal(packets(link.server.output, 5)[1].reason_code, code)
    end
  end,

  ["keeps to the client's Receive Maximum and Maximum Packet Size"] = function()
    local link = pair({ receive_maximum = 2, packet_max = 100 })
    local window = link.server.outgoing
    for i = 1, 4 do
      local one = { type = "publish", topic = "t", payload = tostring(i), qos = 1, retain = false }
      assert(window:publish(tickets.new(one), 0))
    end
    test.fails("limit", window:write("t", ("x"):rep(200), 0, false, false))
    link.settle()
    test.equal(#link.client_events, 3, "connack and two messages")
    link.client:acknowledge(link.client_events[2], 0)
    link.client:acknowledge(link.client_events[3], 0)
    link.settle()
    local payloads = {}
    for i = 2, 5 do payloads[i - 1] = link.client_events[i].payload end
    test.equal(payloads, { "1", "2", "3", "4" })
    test.equal(link.err, nil)
  end,

  ["what a session remembers is sent again right behind CONNACK, and only when the client goes on with it"] = function()
    for _, present in ipairs({ true, false }) do
      local nowhere = cosocket.buffer()
      local state = { outgoing = outgoing.new(nowhere), incoming = incoming.new(nowhere), present = present }
      local function server()
        local one = server_session.new({}, 0)
        assert(one:receive(wire(5, { type = "connect", client_id = "c" }), 0))
        assert(one:accept(nil, 0, state))
        return one
      end
      local first = server()
      local message = { type = "publish", topic = "t", payload = "x", qos = 1, retain = false }
      assert(state.outgoing:publish(tickets.new(message), 0))
      local sent = packets(first.output, 5)
      test.equal({ sent[1].type, sent[2].payload, sent[2].dup }, { "connack", "x" })
      state.outgoing:disconnected()
      first:lost()
      local again = packets(server().output, 5)
      test.equal({ again[1].session_present, again[2].payload }, { present, "x" })
      test.equal(again[2].dup, present or nil)
    end
  end,

  ["says one failure to 3.1.1"] = function()
    local link = pair({ version = 4 })
    local ticket = link.client:subscribe({ { filter = "a" }, { filter = "b", qos = 1 } }, nil, 0)
    link.settle()
    assert(link.server:suback(link.server_events[2], { 0x87, 1 }))
    link.settle()
    test.equal(ticket.answer.reason_codes, { 0x80, 1 })
  end,
}
