-- The development broker goes astray when it is told to.
local broker = require("mqtt.broker")
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local log = require("log")
local mqtt_raw = require("test.mqtt_raw")
local test = require("test")

log.level("off")

local connect = mqtt_raw.connect

--- Does `mischief` to packets of a type in one direction.
local function on(direction, type, mischief)
  return function(packet, way)
    if way ~= direction or packet.type ~= type then return nil end
    return mischief
  end
end

return {
  ["every packet of every connection is seen, with its bytes, in both directions"] = function()
    local seen = {}
    local one <close> = broker.new({
      on_packet = function(packet, direction, client_id, bytes)
        local again = cosocket.buffer()
        assert(codec.encode(again, packet, 5))
        test.equal(again:take(), bytes)
        seen[#seen + 1] = ("%s %s %s"):format(client_id, direction, packet.type)
      end,
    })
    local a = connect(one, { client_id = "a", clean_start = true })
    a:subscribe("t", { qos = 1 })
    a:send({ type = "publish", topic = "t", payload = "x", qos = 1, packet_id = 1 })
    a:payloads()
    test.equal(seen, {
      " receive connect",
      "a send connack",
      "a receive subscribe",
      "a send suback",
      "a receive publish",
      "a send publish",
      "a send puback",
      "a receive puback",
    })
  end,

  ["a dropped packet is as if it had never been"] = function()
    local one <close> = broker.new()
    local a = connect(one, { client_id = "a", clean_start = true })
    local b = connect(one, { client_id = "b", clean_start = true })
    b:subscribe("t")
    one:on_packet(on("receive", "publish", "drop"))
    a:send({ type = "publish", topic = "t", payload = "x", qos = 1, packet_id = 1 })
    a:silent()
    b:silent()
    one:on_packet(on("send", "puback", "drop"))
    a:send({ type = "publish", topic = "t", payload = "x", qos = 1, packet_id = 2 })
    a:silent()
    b:expect("publish")
    one:on_packet(nil)
    test.equal(a:publish("t", "x", { qos = 1 }), 0)
  end,

  ["a duplicated packet comes twice"] = function()
    local one <close> = broker.new({ on_packet = on("send", "publish", "duplicate") })
    local a = connect(one)
    a:subscribe("t")
    one:publish("t", "x")
    test.equal(a:payloads(), { "x", "x" })
    one:on_packet(on("receive", "publish", "duplicate"))
    a:publish("t", "y")
    test.equal(a:payloads(), { "y", "y" })
  end,

  ["a delayed packet comes later, and what follows waits behind it"] = function()
    for _, direction in ipairs({ "send", "receive" }) do
      local one <close> = broker.new()
      local a = connect(one, { client_id = "a", clean_start = true })
      a:subscribe("t")
      one:on_packet(function(packet, way)
        if way == direction and packet.type == "publish" and packet.payload == "1" then return { delay = 3 } end
      end)
      local start = cosocket.now()
      for i = 1, 3 do a:publish("t", tostring(i)) end
      a:send({ type = "pingreq" })
      local order = {}
      for packet in function() return a:next(5) end do order[#order + 1] = packet.payload or packet.type end
      test.equal(order, { "1", "2", "3", "pingresp" }, direction)
      local took = cosocket.now() - start
      assert(took >= 3 and took < 9, took)
      -- All is well again.
      a:publish("t", "4")
      a:expect("publish", { payload = "4" })
    end
  end,

  ["a packet may be replaced by bytes that are none"] = function()
    local one <close> = broker.new()
    local a = connect(one, { client_id = "a", clean_start = true })
    a:subscribe("t")
    one:on_packet(on("send", "publish", { replace = "\x36\x00" }))
    one:publish("t", "x")
    test.equal(a.stream:read(2), "\x36\x00")
    one:on_packet(on("receive", "publish", { replace = "\x36\x00" }))
    a:publish("t", "x")
    a:expect("disconnect", { reason_code = 0x81 })
    a:closed()
  end,

  ["the connection may end instead of a packet, or after it, and its will is published"] = function()
    local one <close> = broker.new()
    local watcher = connect(one, { client_id = "watcher", clean_start = true })
    watcher:subscribe("will")
    for mischief, expected in pairs({ close = 0, close_after = 1 }) do
      for _, direction in ipairs({ "send", "receive" }) do
        local a = connect(one, { client_id = "a", clean_start = true, will = { topic = "will", payload = "w" } })
        a:subscribe("t")
        one:on_packet(function(packet, way, client_id)
          if client_id == "a" and way == direction and packet.type == "publish" then return mischief end
        end)
        if direction == "send" then
          one:publish("t", "x")
          for _ = 1, expected do a:expect("publish", { payload = "x" }) end
        else
          a:send({ type = "publish", topic = "u", payload = "x", retain = true })
        end
        a:closed()
        one:on_packet(nil)
        watcher:expect("publish", { payload = "w" })
      end
      -- What came with the last packet was still done.
      local b = connect(one, { client_id = "b", clean_start = true })
      b:subscribe("u")
      test.equal(#b:all(), expected)
      one:publish("u", "", { retain = true })
    end
  end,

  ["a stalled direction is silent, and the connection stays open"] = function()
    local one <close> = broker.new()
    local a = connect(one, { client_id = "a", clean_start = true, keep_alive = 20 })
    a:subscribe("t")
    one:on_packet(on("send", "publish", "stall"))
    one:publish("t", "x")
    a:send({ type = "pingreq" })
    a:silent()
    test.equal(a.err, nil)
    test.equal(one:clients()[1].connected, true)
    one:on_packet(nil)
    a:send({ type = "pingreq" })
    a:silent()

    -- A broker that does not read holds the client back by full buffers.
    local b = connect(one, { client_id = "b", clean_start = true, keep_alive = 20 })
    one:on_packet(on("receive", "publish", "stall"))
    local chunk = ("x"):rep(100000)
    local taken = 0
    cosocket.deadline(5, function()
      while b:send({ type = "publish", topic = "t", payload = chunk }) do taken = taken + 1 end
    end)
    assert(taken > 0 and taken < 200, taken)
    -- It counts as silent in the end.
    cosocket.sleep(40)
    test.equal(#one:clients(), 0)
  end,

  ["an on_packet that fails closes the connection and no other"] = function()
    local one <close> = broker.new()
    local a = connect(one, { client_id = "a", clean_start = true })
    local b = connect(one, { client_id = "b", clean_start = true })
    one:on_packet(function(_, _, client_id)
      if client_id == "a" then error("oops") end
    end)
    a:send({ type = "pingreq" })
    b:send({ type = "pingreq" })
    a:closed()
    b:expect("pingresp")
    test.raises("a function is wanted", one.on_packet, one, "drop")
  end,

  ["a broker that is killed tells nobody anything and publishes no will"] = function()
    local one = broker.new()
    local a = connect(one, { client_id = "a", clean_start = true, will = { topic = "t", payload = "w" } })
    local b = connect(one, { client_id = "b", clean_start = true })
    b:subscribe("t")
    test.equal({ one:kill(), one:kill(), one:close() }, { true, true, true })
    a:closed()
    b:closed()
  end,

  ["whatever goes astray, the broker lives on"] = function()
    local random = test.random()
    local one <close> = broker.new()
    local judge = connect(one, { client_id = "judge", clean_start = true })
    judge:subscribe("judge", { qos = 2 })
    local calls = 0
    one:on_packet(function(_, _, client_id, bytes)
      if client_id == "judge" then return nil end
      calls = calls + 1
      local what = random(12)
      if what == 1 then return "drop" end
      if what == 2 then return "duplicate" end
      if what == 3 then return "close" end
      if what == 4 then return "close_after" end
      if what == 5 then return "stall" end
      if what == 6 then return { delay = random() } end
      if what == 7 then return { replace = bytes:sub(1, random(#bytes)), delay = random() } end
      if what == 8 then return { replace = random:bytes(random(20)) } end
    end)
    for round = 1, 150 do
      local properties = { session_expiry_interval = 100, receive_maximum = 3, topic_alias_maximum = 2 }
      local a = mqtt_raw.open(one, { client_id = "a" .. random(3), properties = properties })
      a:send({ type = "subscribe", packet_id = 1, subscriptions = { { filter = "topic/#", qos = 2 } } })
      for i = 1, random(6) do
        local qos = random(0, 2)
        a:send({ type = "publish", topic = "topic/x", payload = "", qos = qos, packet_id = qos > 0 and i or nil })
      end
      cosocket.sleep(random())
      a:drop()
      if round % 50 == 0 then
        judge:publish("judge", "x", { qos = 0 })
        judge:take({ payload = "x" })
      end
    end
    assert(calls > 150, calls)
  end,
}
