-- Who may do what at the development broker, and what it says that it cannot: callbacks, AUTH, limits.
local broker = require("mqtt.broker")
local cosocket = require("cosocket")
local log = require("log")
local mqtt_raw = require("test.mqtt_raw")
local test = require("test")

-- Some tests make mistakes on purpose, which are told.
log.level("off")

local connect = mqtt_raw.connect

--- Answers a challenge with its bytes turned round, twice.
local function mirror(exchange)
  if exchange.data ~= "hello" then return false end
  for _, challenge in ipairs({ "abc", "xyz" }) do
    local answer, err = exchange:ask(challenge)
    if not answer then return nil, err end
    if answer ~= challenge:reverse() then return false end
  end
  return true, exchange.again and "again" or "welcome"
end

local function auth(code, data, method)
  local properties = { authentication_method = method or "MIRROR", authentication_data = data }
  return { type = "auth", reason_code = code, properties = properties }
end

local function mirrored(data)
  local properties = { authentication_method = "MIRROR", authentication_data = data or "hello" }
  return { client_id = "c", clean_start = true, properties = properties }
end

--- A client that has authenticated itself.
local function admitted(one)
  local a = mqtt_raw.open(one, mirrored())
  a:expect("auth", auth(0x18, "abc"))
  a:send(auth(0x18, "cba"))
  a:expect("auth", auth(0x18, "xyz"))
  a:send(auth(0x18, "zyx"))
  local properties = a:expect("connack", { reason_code = 0 }).properties
  test.equal({ properties.authentication_method, properties.authentication_data }, { "MIRROR", "welcome" })
  return a
end

return {
  ["authenticate knows who asks, and says no in its own words"] = function()
    local seen = {}
    local one <close> = broker.new({
      authenticate = function(client_id, username, password, client)
        seen[#seen + 1] = { client_id, username, password, client.version, client.connect.keep_alive }
        if username == "moved" then return 0x9D, { server_reference = "other:1883" } end
        if username == "banned" then return 0x8A end
        return username == "u" and password == "p"
      end,
    })
    local function try(username, password, version)
      local packet = { client_id = "c", clean_start = true, username = username, password = password, keep_alive = 9 }
      local a = connect(one, packet, version)
      local properties = a.connack.properties or {}
      if a.connack.reason_code ~= 0 then a:closed() end
      return { a.connack.reason_code, properties.server_reference }
    end
    test.equal(try("u", "p"), { 0 })
    test.equal(try("u", "q"), { 0x86 })
    test.equal(try("u", "q", 4), { 4 })
    test.equal(try("banned"), { 0x8A })
    test.equal(try("banned", nil, 4), { 5 })
    test.equal(try("moved"), { 0x9D, "other:1883" })
    test.equal(seen[1], { "c", "u", "p", 5, 9 })
    test.equal(seen[3][4], "3.1.1")
  end,

  ["authorize decides about every publication, subscription and will"] = function()
    local one <close> = broker.new({
      authorize = function(client, action, topic)
        if topic:find("broken") then error("oops") end
        if topic:find("quota") then return 0x97 end
        return topic:find("^" .. client.client_id .. "/") ~= nil or (action == "subscribe" and topic == "all/#")
      end,
    })
    local a = connect(one, { client_id = "a", clean_start = true })
    test.equal({ a:subscribe("a/#", { qos = 1 }), a:subscribe("b/#"), a:subscribe("all/#") }, { 1, 0x87, 0 })
    test.equal({ a:subscribe("$share/g/a/1"), a:subscribe("$share/g/b/1") }, { 0, 0x87 })
    test.equal({ a:subscribe("quota"), a:subscribe("broken") }, { 0x97, 0x80 })
    test.equal({ a:publish("b/1", "x", { qos = 1 }), a:publish("b/1", "x", { qos = 2 }) }, { 0x87, 0x87 })
    a:publish("all/1", "x")
    a:silent()
    -- A refused message of QoS 2 has given its identifier back.
    a:send({ type = "publish", topic = "a/2", payload = "mine", qos = 2, packet_id = 1 })
    a:expect("publish", { payload = "mine" })
    a:expect("pubrec", { reason_code = 0 })
    -- 3.1.1 knows no such answer: the message is acknowledged, and goes nowhere (3.1.1, 3.3.5).
    local old = connect(one, { client_id = "old", clean_start = true }, 4)
    test.equal({ old:publish("a/1", "x", { qos = 1 }), old:publish("a/1", "x", { qos = 2 }) }, { 0, 0 })
    test.equal({ old:subscribe("a/#"), old:subscribe("old/#") }, { 0x80, 0 })
    a:silent()
    local will = { topic = "a/will", payload = "" }
    test.equal(connect(one, { client_id = "b", clean_start = true, will = will }).connack.reason_code, 0x87)
  end,

  enhanced = {
    ["a client is let in when the exchange of AUTH packets says so"] = function()
      local one <close> = broker.new({ auth = { MIRROR = mirror } })
      local a = admitted(one)
      a:subscribe("t")
      test.equal(#one:clients(), 1)
    end,

    ["a client is refused for a wrong answer, an unknown method, and for saying something else"] = function()
      local one <close> = broker.new({ auth = { MIRROR = mirror } })
      local a = connect(one, mirrored("good morning"))
      test.equal(a.connack.reason_code, 0x87)
      a:closed()
      local b = mqtt_raw.open(one, mirrored())
      b:expect("auth")
      b:send(auth(0x18, "abc"))
      b:expect("connack", { reason_code = 0x87 })
      b:closed()
      test.equal(connect(one, { properties = { authentication_method = "OTHER" } }).connack.reason_code, 0x8C)
      local c = mqtt_raw.open(one, mirrored())
      c:expect("auth")
      c:send(auth(0x18, "cba", "OTHER"))
      c:expect("connack", { reason_code = 0x8C })
      c:closed()
      local d = mqtt_raw.open(one, mirrored())
      d:expect("auth")
      d:send({ type = "pingreq" })
      d:expect("connack", { reason_code = 0x82 })
      d:closed()
      test.equal(one:clients(), {})
    end,

    ["a client that leaves in the middle, or never answers, is forgotten"] = function()
      local one <close> = broker.new({ auth = { MIRROR = mirror }, timeout = 5 })
      local a = mqtt_raw.open(one, mirrored())
      a:expect("auth")
      a:drop()
      local b = mqtt_raw.open(one, mirrored())
      b:expect("auth")
      b:send({ type = "disconnect" })
      b:closed()
      local c = mqtt_raw.open(one, mirrored())
      c:expect("auth")
      cosocket.sleep(5)
      c:closed()
      b:drop()
      c:drop()
      cosocket.sleep(5)
      test.equal(one.connection_count, 0)
    end,

    ["a connected client authenticates again while everything else goes on"] = function()
      local one <close> = broker.new({ auth = { MIRROR = mirror } })
      local a = admitted(one)
      a:subscribe("t", { qos = 1 })
      a:send(auth(0x19, "hello"))
      a:expect("auth", auth(0x18, "abc"))
      test.equal(a:subscribe("u"), 0)
      one:publish("t", "meanwhile", { qos = 1 })
      a:take({ payload = "meanwhile" })
      a:send(auth(0x18, "cba"))
      a:expect("auth", auth(0x18, "xyz"))
      a:send(auth(0x18, "zyx"))
      a:expect("auth", auth(0, "again"))
      -- And once more; this time it fails [MQTT-4.12.1-2].
      a:send(auth(0x19, "hello"))
      a:expect("auth")
      a:send(auth(0x18, "wrong"))
      a:expect("disconnect", { reason_code = 0x87 })
      a:closed()
    end,

    ["AUTH that nobody asked for is a protocol error"] = function()
      local one <close> = broker.new({ auth = { MIRROR = mirror } })
      local a = connect(one)
      a:send(auth(0x19, "hello"))
      a:expect("disconnect", { reason_code = 0x82 })
      for code in pairs({ [0x18] = true, [0] = true }) do
        local b = admitted(one)
        b:send(auth(code, "hello"))
        b:expect("disconnect", { reason_code = 0x82 })
        b:closed()
      end
      local c = admitted(one)
      c:send(auth(0x19, "hello"))
      c:expect("auth")
      c:send(auth(0x19, "hello"))
      c:expect("disconnect", { reason_code = 0x82 })
    end,
  },

  limits = {
    ["are announced, and what the standard takes for granted is not"] = function()
      local one <close> = broker.new()
      test.equal(connect(one, { client_id = "a", clean_start = true }).connack.properties, {
        receive_maximum = 1000,
        maximum_packet_size = 1048576,
      })
      local limits = {
        receive_maximum = 7,
        maximum_qos = 0,
        retain_available = false,
        wildcard_subscription_available = false,
        shared_subscription_available = false,
        subscription_identifier_available = false,
        topic_alias_maximum = 3,
        server_keep_alive = 20,
      }
      local two <close> = broker.new(limits)
      limits.maximum_packet_size = 1048576
      test.equal(connect(two, { client_id = "a", clean_start = true }).connack.properties, limits)
      test.equal(connect(two, { client_id = "a", clean_start = true }, 4).connack.properties, nil)
    end,

    ["are kept to: who goes beyond is disconnected with the reason, or refused"] = function()
      local function publish(fields)
        local packet = { type = "publish", topic = "t", payload = "" }
        for name, value in pairs(fields) do packet[name] = value end
        return packet
      end
      local function subscribe(filter, properties)
        return { type = "subscribe", packet_id = 1, subscriptions = { { filter = filter } }, properties = properties }
      end
      local cases = {
        { { maximum_qos = 1 }, publish({ qos = 2, packet_id = 1 }), 0x9B },
        { { maximum_qos = 0 }, publish({ qos = 1, packet_id = 1 }), 0x9B },
        { { retain_available = false }, publish({ retain = true }), 0x9A },
        { { wildcard_subscription_available = false }, subscribe("a/+"), 0xA2, 0x80 },
        { { shared_subscription_available = false }, subscribe("$share/g/a"), 0x9E, 0x80 },
        { { subscription_identifier_available = false }, subscribe("a", { subscription_identifier = 1 }), 0xA1 },
        { { packet_max = 100 }, publish({ payload = ("x"):rep(100) }), 0x95 },
      }
      for _, case in ipairs(cases) do
        local options, packet, code, old_code = table.unpack(case)
        local one <close> = broker.new(options)
        local a = connect(one)
        a:send(packet)
        a:expect("disconnect", { reason_code = code })
        a:closed()
        local old = connect(one, nil, 4)
        packet.properties = nil
        if old_code then
          old:send(packet)
          test.equal(old:expect("suback").reason_codes, { old_code })
        elseif code ~= 0xA1 then
          old:send(packet)
          old:closed()
        end
      end
    end,

    ["hold for wills and for what is granted, too"] = function()
      local one <close> = broker.new({ maximum_qos = 1, retain_available = false })
      local function code(will)
        will.topic, will.payload = "t", ""
        return connect(one, { client_id = "c", clean_start = true, will = will }).connack.reason_code
      end
      test.equal({ code({ qos = 2 }), code({ retain = true }), code({ qos = 1 }) }, { 0x9B, 0x9A, 0 })
      test.equal(connect(one):subscribe("t", { qos = 2 }), 1)
    end,

    ["there is a limit to connections, sessions and subscriptions"] = function()
      local one <close> = broker.new({ clients_max = 2, subscriptions_max = 1 })
      local a = connect(one, { client_id = "a", clean_start = true })
      local b = connect(one, { client_id = "b", clean_start = true })
      local c = connect(one, { client_id = "c", clean_start = true })
      test.equal({ a.connack.reason_code, b.connack.reason_code, c.connack.reason_code }, { 0, 0, 0x89 })
      test.equal({ a:subscribe("t"), a:subscribe("t", { qos = 1 }), a:subscribe("u") }, { 0, 1, 0x97 })
      local two <close> = broker.new({ sessions_max = 1 })
      connect(two, { client_id = "a", properties = { session_expiry_interval = 9 } }):drop()
      test.equal(connect(two, { client_id = "b", clean_start = true }).connack.reason_code, 0x97)
      test.equal(connect(two, { client_id = "a", clean_start = true }).connack.reason_code, 0)
    end,
  },

  ["response information is for who asks for it"] = function()
    local one <close> = broker.new({ response_information = "responses/7" })
    local function told(asked)
      local properties = { request_response_information = asked }
      local client = connect(one, { client_id = "c", clean_start = true, properties = properties })
      return client.connack.properties.response_information
    end
    test.equal({ told(true), told(false) or "none" }, { "responses/7", "none" })
  end,

  ["a client is disconnected with a reason and told where to go"] = function()
    local one <close> = broker.new()
    local a = connect(one, { client_id = "a", clean_start = true })
    test.equal(one:disconnect("a", 0x9C, { server_reference = "other:1883", reason_string = "moving" }), true)
    local told = a:expect("disconnect", { reason_code = 0x9C }).properties
    test.equal(told, { server_reference = "other:1883", reason_string = "moving" })
    a:closed()
    test.equal(one:disconnect("a"), false)
    -- 3.1.1 has no word for it.
    local old = connect(one, { client_id = "a", clean_start = true }, 4)
    test.equal(one:disconnect("a"), true)
    old:closed()
  end,

  ["options out of their range are refused by name"] = function()
    test.raises("maximum_qos must be from 0 to 2", broker.new, { maximum_qos = 3 })
    test.raises("receive_maximum must be from 1 to 65535", broker.new, { receive_maximum = 0 })
    test.raises("retain_available", broker.new, { retain_available = 1 })
  end,
}
