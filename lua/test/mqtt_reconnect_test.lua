-- Connections that end, and clients that come back: scripted servers on the loopback, a virtual clock.
local cosocket = require("cosocket")
local log = require("log")
local mqtt = require("mqtt")
local mqtt_peer = require("test.mqtt_peer")
local test = require("test")

-- Lost connections are told, on purpose.
log.level("off")

local RESUMED = { session_present = true }
local QUICK = { delay_min = 0.01, delay_max = 0.1 }

--- Reads to the client's end, and answers everything as a server does that has time.
local function oblige(server)
  while true do
    local packet = server:next()
    if not packet or packet.type == "disconnect" then return packet end
    if packet.type == "publish" and packet.qos == 1 then
      server:send({ type = "puback", packet_id = packet.packet_id })
    elseif packet.type == "publish" and packet.qos == 2 then
      server:send({ type = "pubrec", packet_id = packet.packet_id })
    elseif packet.type == "pubrel" then
      server:send({ type = "pubcomp", packet_id = packet.packet_id })
    elseif packet.type == "subscribe" then
      local codes = {}
      for i, subscription in ipairs(packet.subscriptions) do codes[i] = subscription.qos end
      server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = codes })
    elseif packet.type == "unsubscribe" then
      server:send({ type = "unsuback", packet_id = packet.packet_id, reason_codes = { 0 } })
    end
  end
end

--- Options for a client that comes back quickly.
local function quick(options)
  local all = { version = 5, reconnect = QUICK }
  for name, value in pairs(options or {}) do all[name] = value end
  return all
end

return {
  ["a publish is answered by the next connection when one is lost"] = function()
    local url = mqtt_peer.listening(function(server, number)
      server:accept(number > 1 and RESUMED or nil)
      local packet = server:expect("publish")
      test.equal({ packet.payload, packet.packet_id, packet.dup }, { "x", 1, number > 1 or nil })
      if number < 3 then return end
      server:send({ type = "puback", packet_id = 1, reason_code = 0x10 })
      oblige(server)
    end)
    local client <close> = assert(mqtt.connect(url, quick()))
    test.equal(client:publish("t", "x", { qos = 1 }), 0x10)
    test.equal(client:status().connections, 3)
  end,

  ["later connections go on with the session of the first"] = function()
    local seen = {}
    local url = mqtt_peer.listening(function(server, number)
      local connect = server.connect
      seen[number] = { connect.clean_start, connect.client_id, connect.properties.session_expiry_interval }
      server:accept({ properties = number == 1 and { assigned_client_identifier = "auto" } or nil })
      if number == 2 then oblige(server) end
    end)
    local client <close> = assert(mqtt.connect(url, quick()))
    repeat cosocket.sleep(0.1) until client:status().connections == 2
    test.equal(seen, { { true, "", 3600 }, { false, "auto", 3600 } })
  end,

  ["a session that began with the client ends with it, and one that did not stays"] = function()
    for clean, expected in pairs({ [true] = { session_expiry_interval = 0 }, [false] = 0 }) do
      local goodbye
      local url = mqtt_peer.listening(function(server)
        server:accept()
        goodbye = oblige(server)
      end)
      local client = assert(mqtt.connect(url, quick({ client_id = "c", clean_start = clean })))
      client:close()
      repeat cosocket.sleep(0.1) until goodbye
      test.equal(goodbye.properties or 0, expected)
    end
  end,

  ["a server that has forgotten is told the subscriptions again, and one that has not is not"] = function()
    local told = {}
    local url = mqtt_peer.listening(function(server, number)
      server:accept({ session_present = number == 2 })
      if number == 1 then
        for _ = 1, 3 do
          local packet = server:next()
          if packet.type == "subscribe" then
            local codes = {}
            for i in ipairs(packet.subscriptions) do codes[i] = 1 end
            server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = codes })
          else
            server:send({ type = "unsuback", packet_id = packet.packet_id, reason_codes = { 0 } })
          end
        end
      elseif number == 2 then
        told[number] = cosocket.deadline(1, server.next, server) or "nothing"
      else
        told[number] = { server:expect("subscribe"), server:expect("subscribe") }
        server:send({ type = "suback", packet_id = told[3][1].packet_id, reason_codes = { 1 } })
        server:send({ type = "publish", topic = "b", payload = "x" })
        oblige(server)
      end
    end)
    local client <close> = assert(mqtt.connect(url, quick()))
    local got = cosocket.event()
    assert(client:subscribe({ "a", "b" }, { qos = 1, no_local = true }, function() got:set() end))
    assert(client:subscribe("c", { qos = 1 }))
    assert(client:unsubscribe("a"))
    got:wait()
    test.equal(told[2], "nothing")
    test.equal(told[3][1].subscriptions[1].filter, "b")
    test.equal(told[3][1].subscriptions[1].no_local, true)
    test.equal(told[3][2].subscriptions[1].filter, "c")
  end,

  ["a request without an answer is made again on the next connection"] = function()
    local asked = {}
    local url = mqtt_peer.listening(function(server, number)
      server:accept({ session_present = number > 1 })
      local packet = server:expect("subscribe")
      asked[number] = packet.subscriptions[1].filter
      if number == 1 then return end
      server:send({ type = "suback", packet_id = packet.packet_id, reason_codes = { 1 } })
      oblige(server)
    end)
    local client <close> = assert(mqtt.connect(url, quick()))
    test.equal(client:subscribe("a", { qos = 1 }), 1)
    test.equal(asked, { "a", "a" })
  end,

  ["servers are tried in order, and round"] = function()
    local order = {}
    local function serve(name, turns)
      return (mqtt_peer.listening(function(server)
        order[#order + 1] = name
        if turns[1] == "refuse" then
          server:accept({ reason_code = 0x88 })
        else
          server:accept()
          if turns[1] == "stay" then oblige(server) end
        end
        table.remove(turns, 1)
      end))
    end
    local gone = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local nobody = "mqtt://" .. gone:local_address()
    gone:close()
    local one, two = serve("one", { "refuse", "stay" }), serve("two", { "drop", "refuse" })
    local client <close> = assert(mqtt.connect({ nobody, one, two }, quick()))
    test.equal(client:status().address, two)
    repeat cosocket.sleep(0.1) until #order == 4 and client:status().state == "connected"
    test.equal(order, { "one", "two", "two", "one" })
    test.equal(client:status().address, one)
  end,

  ["when every server fails the last error is told, and nothing goes on"] = function()
    local url = mqtt_peer.listening(function(server) server:accept({ reason_code = 0x87 }) end)
    local err = test.fails("refused", mqtt.connect({ url, url }, quick()))
    test.equal(err.code, 0x87)
  end,

  ["the version that a server took is kept"] = function()
    local versions = {}
    local url = mqtt_peer.listening(function(server, number)
      versions[number] = server.version
      if server.version == 5 then
        server:accept({ reason_code = 0x84 })
      else
        server:accept()
        if number == 3 then oblige(server) end
      end
    end)
    local client <close> = assert(mqtt.connect(url, { reconnect = QUICK }))
    repeat cosocket.sleep(0.1) until client:status().connections == 2
    test.equal(versions, { 5, 4, 4 })
    test.equal(client:status().version, "3.1.1")
  end,

  ["a client that does not wait queues until there is a server"] = function()
    local gone = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local address = gone:local_address()
    gone:close()
    local client <close> = assert(mqtt.connect("mqtt://" .. address, quick({ wait = false, queue_max = 3 })))
    local one = assert(client:publish_nowait("t", "1", { qos = 1 }))
    test.equal(client:publish("t", "0"), 0)
    local two = assert(client:publish_nowait("t", "2", { qos = 2 }))
    test.fails("limit", client:publish("t", "3", { qos = 1 }))
    test.equal(client:status().waiting, 3)
    cosocket.sleep(1)
    test.equal(client:status().state, "waiting")
    test.equal(client:status().error.kind, "connect")
    local listener = assert(cosocket.listen("tcp://" .. address))
    local seen = {}
    cosocket.spawn(function()
      local server = mqtt_peer.server(assert(listener:accept()))
      server:expect("connect")
      server:accept()
      for i = 1, 3 do seen[i] = server:expect("publish").payload end
      server:send({ type = "puback", packet_id = 1 }, { type = "pubrec", packet_id = 2 })
      oblige(server)
    end)
    assert(client:wait_connected())
    test.equal({ one:wait(), two:wait() }, { 0, 0 })
    test.equal(seen, { "1", "0", "2" })
    listener:close()
  end,

  ["closing ends the wait for the next attempt, and an attempt"] = function()
    local client = assert(mqtt.connect("mqtt://127.0.0.1:1", { wait = false, reconnect = { delay_min = 1000, delay_max = 1000 } }))
    cosocket.sleep(0.1)
    local ticket = assert(client:publish_nowait("t", "", { qos = 1 }))
    local before = cosocket.now()
    client:close()
    test.fails("closed", ticket:wait())
    test.fails("closed", client:publish("t", ""))
    test.fails("closed", client:wait_connected())
    local silent = mqtt_peer.listening(function(server, number)
      if number == 1 then server:accept() end
      server:drain()
    end)
    client = assert(mqtt.connect(silent, quick()))
    -- The second connection gets no answer to its CONNECT.
    client:publish("t", "")
    assert(cosocket.now() - before < 20)
    local stream = client.stream
    stream:close()
    cosocket.sleep(1)
    test.equal(client:status().state, "connecting")
    before = cosocket.now()
    client:close()
    assert(cosocket.now() - before < 20)
    test.equal(client:status().state, "closed")
  end,

  ["close lets what was published be acknowledged before it says goodbye"] = function()
    local order = {}
    local url = mqtt_peer.listening(function(server)
      server:accept()
      for i = 1, 3 do order[i] = server:expect("publish").payload end
      cosocket.sleep(0.5)
      for i = 1, 3 do server:send({ type = "puback", packet_id = i }) end
      order[4] = server:next().type
    end)
    local client = assert(mqtt.connect(url, quick()))
    local tickets = {}
    for i = 1, 3 do tickets[i] = client:publish_nowait("t", tostring(i), { qos = 1 }) end
    client:close()
    for i = 1, 3 do test.equal(tickets[i]:wait(), 0) end
    repeat cosocket.sleep(0.1) until order[4]
    test.equal(order, { "1", "2", "3", "disconnect" })
  end,

  ["who takes our identifier over is left in peace"] = function()
    local url = mqtt_peer.listening(function(server, number)
      server:accept()
      test.equal(number, 1)
      server:send({ type = "disconnect", reason_code = 0x8E })
    end)
    local client = assert(mqtt.connect(url, quick()))
    for _ in client:messages() do end
    test.equal(client:status().error.code, 0x8E)
    test.equal(client:status().state, "closed")
  end,

  ["a client that is not to reconnect ends with its connection"] = function()
    local url = mqtt_peer.listening(function(server)
      server:accept()
      server:expect("publish")
    end)
    local client = assert(mqtt.connect(url, quick({ reconnect = false })))
    test.fails("closed", client:publish("t", "", { qos = 1 }))
    test.equal(client:status().state, "closed")
  end,

  ["a server reference is followed only when that is allowed"] = function()
    local target = mqtt_peer.listening(function(server)
      server:accept()
      oblige(server)
    end)
    local reference = target:match("//(.*)")
    for _, code in ipairs({ 0x9C, 0x9D }) do
      local url = mqtt_peer.listening(function(server)
        server:accept({ reason_code = code, properties = { server_reference = "[bad " .. reference } })
      end)
      local err = test.fails("refused", mqtt.connect(url, quick()))
      test.equal(err.server_reference, "[bad " .. reference)
      local client <close> = assert(mqtt.connect(url, quick({ follow_reference = true })))
      test.equal(client:status().state, "connected")
    end
  end,

  ["a server reference in DISCONNECT is followed, too"] = function()
    local arrived = cosocket.event()
    local target = mqtt_peer.listening(function(server)
      server:accept()
      arrived:set()
      oblige(server)
    end)
    local url = mqtt_peer.listening(function(server)
      server:accept()
      server:send({ type = "disconnect", reason_code = 0x9D, properties = { server_reference = target:match("//(.*)") } })
    end)
    local client <close> = assert(mqtt.connect(url, quick({ follow_reference = true })))
    arrived:wait()
    cosocket.sleep(0.1)
    test.equal(client:status().address, target)
  end,

  ["servers that refer to each other are not followed for ever"] = function()
    local urls = {}
    for i = 1, 2 do
      urls[i] = mqtt_peer.listening(function(server)
        server:accept({ reason_code = 0x9C, properties = { server_reference = urls[3 - i]:match("//(.*)") } })
      end)
    end
    test.fails("refused", mqtt.connect(urls[1], quick({ follow_reference = true })))
  end,

  ["each connection asks for the password, and is announced"] = function()
    local passwords, events = {}, {}
    local url = mqtt_peer.listening(function(server, number)
      passwords[number] = server.connect.password
      server:accept({ session_present = number > 1 })
      if number == 2 then oblige(server) end
    end)
    local turn = 0
    local client <close> = assert(mqtt.connect(url, quick({
      username = "u",
      password = function()
        turn = turn + 1
        return "token " .. turn
      end,
      on_connected = function(_, connack) events[#events + 1] = connack.session_present end,
      on_disconnected = function(_, err) events[#events + 1] = err.kind end,
    })))
    repeat cosocket.sleep(0.1) until #events == 3
    test.equal(passwords, { "token 1", "token 2" })
    test.equal(events, { false, "closed", true })
    test.equal(client:status().connections, 2)
  end,

  ["a password function that fails is an error of the connection"] = function()
    local url = mqtt_peer.listening(function(server) server:accept() end)
    local err = test.fails("refused", mqtt.connect(url, quick({ password = function() error("no token") end })))
    test.matches(err.message, "password function failed")
  end,

  ["callbacks that fail are told, and the client lives on"] = function()
    local url = mqtt_peer.listening(function(server)
      server:accept()
      oblige(server)
    end)
    local client <close> = assert(mqtt.connect(url, quick({ on_connected = function() error("oops") end })))
    test.equal(client:publish("t", "", { qos = 1 }), 0)
  end,

  ["enhanced authentication is a challenge and a response, as often as it takes"] = function()
    local said = {}
    local url = mqtt_peer.listening(function(server)
      local properties = server.connect.properties
      said[1] = { properties.authentication_method, properties.authentication_data }
      local function challenge(data)
        server:send({
          type = "auth",
          reason_code = 0x18,
          properties = { authentication_method = "M", authentication_data = data },
        })
        local packet = server:expect("auth")
        said[#said + 1] = { packet.reason_code, packet.properties.authentication_method, packet.properties.authentication_data }
      end
      challenge("c1")
      challenge("c2")
      server:accept({ properties = { authentication_method = "M", authentication_data = "final" } })
      local packet = server:expect("auth")
      said[#said + 1] = { packet.reason_code, packet.properties.authentication_data }
      challenge("c3")
      server:send({ type = "auth", reason_code = 0, properties = { authentication_method = "M" } })
      oblige(server)
    end)
    local heard = {}
    local client <close> = assert(mqtt.connect(url, quick({
      authentication = {
        method = "M",
        data = function() return "first" end,
        answer = function(data, done)
          heard[#heard + 1] = { data or "-", done }
          return not done and "re:" .. data or nil
        end,
      },
    })))
    test.equal(client:reauthenticate(), true)
    test.equal(said, {
      { "M", "first" },
      { 0x18, "M", "re:c1" },
      { 0x18, "M", "re:c2" },
      { 0x19, "first" },
      { 0x18, "M", "re:c3" },
    })
    test.equal(heard, { { "c1", false }, { "c2", false }, { "final", true }, { "c3", false }, { "-", true } })
  end,

  ["a server whose proof is wrong is not connected to"] = function()
    local url = mqtt_peer.listening(function(server)
      server:accept({ properties = { authentication_method = "M", authentication_data = "forged" } })
    end)
    local err = test.fails("refused", mqtt.connect(url, quick({
      authentication = {
        method = "M",
        answer = function(data, done)
          if done and data ~= "proof" then return nil, "the server does not know our key" end
        end,
      },
    })))
    test.matches(err.message, "the server does not know our key")
  end,

  ["AUTH of another method, or that nobody asked for, ends the connection"] = function()
    -- [MQTT-4.12.0-5], [MQTT-4.12.0-6]
    local url = mqtt_peer.listening(function(server)
      server:send({ type = "auth", reason_code = 0x18, properties = { authentication_method = "other" } })
      server:drain()
    end)
    test.fails("protocol", mqtt.connect(url, quick()))
    local authentication = { method = "M", answer = function() return "x" end }
    test.fails("protocol", mqtt.connect(url, quick({ authentication = authentication })))
  end,
}
