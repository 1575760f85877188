-- How a connection ends: by us, by the server, by neither; and how it is kept alive until then.
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local mqtt = require("mqtt")
local mqtt_peer = require("test.mqtt_peer")
local test = require("test")

return {
  ["close says DISCONNECT, and everything published before has arrived"] = function()
    -- Defect of others: the socket was closed before DISCONNECT had left.
    local payloads, last = 0, nil
    local client, _, _, task = mqtt_peer.scripted({}, function(server)
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
    local one, connect = mqtt_peer.broker()
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

  ["a loop over the messages of a client that has ended ends at once"] = function()
    local closed = mqtt_peer.scripted({}, function(server) server:expect("disconnect") end)
    closed:close()
    for _ in closed:messages() do error("nothing was sent") end
    local lost = mqtt_peer.scripted({}, function(server) server.stream:close() end)
    cosocket.sleep(1)
    test.equal(lost:status().state, "closed")
    for _ in lost:messages("t") do error("nothing was sent") end
  end,

  ["leaving the block closes"] = function()
    local connected, _, server, task = mqtt_peer.scripted({}, function(server) server:expect("disconnect") end)
    do
      local client <close> = connected
    end
    task:join()
    test.equal(server.version, 5)
  end,

  ["a server that does not read cannot keep us from closing"] = function()
    local client = mqtt_peer.scripted({}, function() cosocket.sleep(1000) end)
    for _ = 1, 40 do client:publish("t", ("x"):rep(10000)) end
    local before = cosocket.now()
    client:close()
    assert(cosocket.now() - before <= 6.1)
  end,

  ["everybody who waits is told when the connection is lost"] = function()
    local client = mqtt_peer.scripted({}, function(server)
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
    local err = client:status().error
    test.equal(err.message, "the connection is lost: the other side has closed the connection")
    test.equal(client:status().state, "closed")
    test.equal(client:close(), true)
  end,

  ["the server's DISCONNECT says why, in its shortest form too"] = function()
    for bytes, words in pairs({
      ["\xe0\x00"] = "the server ended the connection: normal disconnection",
      ["\xe0\x01\x8b"] = "the server ended the connection: server shutting down",
      ["\xe0\x06\x8e\x04\x1f\x00\x01x"] = "the server ended the connection: session taken over (x)",
    }) do
      local client = mqtt_peer.scripted({}, function(server) server.stream:write(bytes) end)
      for _ in client:messages() do end
      local err = client:status().error
      test.equal({ err.kind, err.message }, { "closed", words })
    end
  end,

  ["a server that breaks the protocol is told why before we close"] = function()
    local said
    local client, _, _, task = mqtt_peer.scripted({}, function(server)
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
    local client = mqtt_peer.scripted({ keep_alive = 10 }, function(server)
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

  ["a message that takes longer to leave than keep alive and PINGRESP arrives once, on one connection"] = function()
    local size, got = 3000000, nil
    local client = mqtt_peer.scripted({ keep_alive = 20 }, function(server)
      repeat
        cosocket.sleep(1)
        assert(server.stream:fill(server.input))
        got = codec.decode(server.input, 5)
      until got
      server:send({ type = "puback", packet_id = got.packet_id })
      server:drain()
    end)
    local before = cosocket.now()
    test.equal(client:publish("t", ("x"):rep(size), { qos = 1 }), 0)
    -- 18 seconds to the PINGREQ, and 10 for its answer, were not enough.
    assert(cosocket.now() - before > 40, cosocket.now() - before)
    test.equal({ #got.payload, got.dup or false, client:status().connections }, { size, false, 1 })
    client:close()
  end,

  ["a server that stops reading in the middle of a large message is given up when nothing moves any more"] = function()
    local stopped
    local client = mqtt_peer.scripted({ keep_alive = 20, reconnect = false }, function(server)
      for _ = 1, 25 do
        cosocket.sleep(1)
        assert(server.stream:read(65536))
      end
      stopped = cosocket.now()
    end)
    test.fails("timeout", client:publish("t", ("x"):rep(3000000), { qos = 1 }))
    -- So long may the answer take, and so often is it looked.
    test.near(cosocket.now() - stopped, 11.25, 1.25)
  end,

  ["a large message that comes slowly is waited for though the PINGRESP comes after it"] = function()
    local size = 3000000
    local bytes = mqtt_peer.wire(5, { type = "publish", topic = "t", payload = ("x"):rep(size) })
    local client = mqtt_peer.scripted({ keep_alive = 20 }, function(server)
      for at = 1, #bytes, 65536 do
        cosocket.sleep(1)
        server.stream:write(bytes:sub(at, at + 65535))
      end
      server:drain()
    end)
    local next_message = client:messages()
    test.equal(#assert(next_message()).payload, size)
    test.equal(client:status().connections, 1)
    client:close()
  end,

  ["an idle hour costs a ping every nine tenths of the keep alive, and so does one of sending unheard"] = function()
    local client, _, server = mqtt_peer.scripted({ keep_alive = 60 }, function(server)
      server:drain()
    end)
    cosocket.sleep(3600)
    test.equal(server.pings, 66)
    for _ = 1, 360 do
      assert(client:publish("t", ""))
      cosocket.sleep(10)
    end
    test.equal(server.pings, 133)
    client:close()
  end,

  ["a cancelled task that holds a client closes it"] = function()
    local ended = false
    local near, far = cosocket.pair()
    local server = mqtt_peer.server(far)
    cosocket.spawn(function()
      server:expect("connect")
      server:send({ type = "connack" })
      server:drain()
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
}
