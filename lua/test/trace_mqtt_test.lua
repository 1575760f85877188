-- What is shown of MQTT.
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local test = require("test")
local tracing = require("test.tracing")

local function packet(version, fields)
  local buffer = cosocket.buffer()
  assert(codec.encode(buffer, fields, version))
  return buffer:take()
end

local CONNECT = {
  type = "connect",
  protocol_version = 5,
  clean_start = true,
  keep_alive = 60,
  client_id = "device-7",
  username = "joe",
  password = "s3cret",
  will = { topic = "gone", payload = "x", qos = 1, retain = true },
  properties = { authentication_method = "M", authentication_data = "h1dden", user_property = { { "api-token", "t0ken" }, { "site", "a" } } },
}

local SCRIPT = {
  { ">", packet(5, CONNECT) },
  { "<", packet(5, { type = "connack", session_present = true, reason_code = 0, properties = { receive_maximum = 20 } }) },
  { ">", packet(5, { type = "subscribe", packet_id = 1, subscriptions = { { filter = "a/#", qos = 1, no_local = true }, { filter = "b", qos = 0 } } }) },
  { "<", packet(5, { type = "suback", packet_id = 1, reason_codes = { 1, 0x87 } }) },
  { ">", packet(5, { type = "publish", topic = "a/b", payload = "hello", qos = 2, dup = true, retain = true, packet_id = 7 }) },
  { "<", packet(5, { type = "pubrec", packet_id = 7, reason_code = 0x10 }) },
  { ">", packet(5, { type = "pingreq" }) },
  { "<", packet(5, { type = "pingresp" }) },
  { ">", packet(5, { type = "disconnect", reason_code = 4 }) },
}

local LINES = {
  '#1 > mqtt CONNECT MQTT 5 client_id="device-7" clean_start keep_alive=60 username="joe" password=*** '
    .. 'will(topic="gone" qos=1 retain payload 1 byte "x") authentication_data=*** authentication_method="M" '
    .. 'user_property={"api-token"=***, "site"="a"} (88 bytes)',
  "#1 < mqtt CONNACK 0x00 success session_present receive_maximum=20 (8 bytes)",
  '#1 > mqtt SUBSCRIBE id=1 "a/#" qos=1 no_local "b" qos=0 (15 bytes)',
  "#1 < mqtt SUBACK id=1 0x01 granted QoS 1, 0x87 not authorized (7 bytes)",
  '#1 > mqtt PUBLISH id=7 qos=2 dup retain topic="a/b" payload 5 bytes "hello" (15 bytes)',
  "#1 < mqtt PUBREC id=7 0x10 no matching subscribers (5 bytes)",
  "#1 > mqtt PINGREQ (2 bytes)",
  "#1 < mqtt PINGRESP (2 bytes)",
  "#1 > mqtt DISCONNECT 0x04 disconnect with will message (3 bytes)",
}

--- Nothing of what is secret may be left, and everything else must be.
local function check_masked(captured)
  local sent = tracing.bytes(SCRIPT, ">")
  test.equal(#captured.sent, #sent)
  for _, word in ipairs({ "s3cret", "h1dden", "t0ken" }) do
    test.truthy(sent:find(word, 1, true))
    test.falsy(captured.sent:find(word, 1, true), word)
    sent = sent:gsub(word, ("*"):rep(#word))
  end
  test.equal(captured.sent, sent)
  test.equal(captured.received, tracing.bytes(SCRIPT, "<"))
end

return {
  ["each packet is a line, and no secret is in it"] = function()
    local lines, captured = tracing.hear("mqtt", "client", SCRIPT)
    test.equal(lines, LINES)
    check_masked(captured)
  end,

  ["packets that come in pieces of any size are the same lines"] = function()
    for cut = 1, 100 do
      local lines, captured = tracing.hear("mqtt", "client", SCRIPT, { cut = cut })
      test.equal(lines, LINES)
      check_masked(captured)
    end
  end,

  ["a server shows the same the other way round"] = function()
    local turned, expected = {}, {}
    for i, step in ipairs(SCRIPT) do turned[i] = { step[1] == ">" and "<" or ">", step[2] } end
    for i, line in ipairs(LINES) do
      expected[i] = line:gsub("^#1 (.)", function(mark) return "#1 " .. (mark == ">" and "<" or ">") end)
    end
    test.equal((tracing.hear("mqtt", "server", turned)), expected)
  end,

  ["MQTT 3.1.1 has its own words"] = function()
    local connect = packet(4, { type = "connect", protocol_version = 4, clean_start = true, keep_alive = 0, client_id = "", password = "s3cret", username = "u" })
    local lines, captured = tracing.hear("mqtt", "client", {
      { ">", connect },
      { "<", packet(4, { type = "connack", reason_code = 5 }) },
      { "<", packet(4, { type = "puback", packet_id = 3 }) },
    })
    test.equal(lines, {
      '#1 > mqtt CONNECT MQTT 3.1.1 client_id="" clean_session keep_alive=0 username="u" password=*** (25 bytes)',
      "#1 < mqtt CONNACK 0x05 not authorized (4 bytes)",
      "#1 < mqtt PUBACK id=3 (4 bytes)",
    })
    test.equal(captured.sent, connect:sub(1, -7) .. "******")
  end,

  ["a payload is shortened, and its control characters are shown"] = function()
    local script = { SCRIPT[1], { ">", packet(5, { type = "publish", topic = "t\u{202e}", payload = "\27[2J" .. ("x"):rep(100), qos = 0 }) } }
    local lines = tracing.hear("mqtt", "client", script, { bytes = 8 })
    test.equal(lines[2], '#1 > mqtt PUBLISH qos=0 topic="t\\u{202e}" payload 104 bytes "\\x1b[2Jxxxx"... (113 bytes)')
    lines = tracing.hear("mqtt", "client", script, { bytes = 0 })
    test.equal(lines[2], "#1 > mqtt PUBLISH qos=0 topic= payload 104 bytes  (113 bytes)")
  end,

  ["a CONNECT that is not right is masked whole, and what follows is decoded"] = function()
    local wrong = "\x10\x17\0\4MQTT\4\xc1\0\0\0\0\0\1u\0\6s3cret"
    local lines, captured = tracing.hear("mqtt", "client", { { ">", wrong .. "\xc0\0" }, { "<", "\xd0\0" } })
    test.matches(lines[1], "^#1 > mqtt CONNECT is not right: .* %(25 bytes%)$")
    test.falsy(table.concat(lines, "\n"):find("cret", 1, true))
    test.equal(captured.sent:sub(1, 25), wrong:sub(1, 2) .. ("*"):rep(23))
    test.equal({ lines[2], lines[3] }, { "#1 > mqtt PINGREQ (2 bytes)", "#1 < mqtt PINGRESP (2 bytes)" })
  end,

  ["of a packet that is too long only the beginning is decoded"] = function()
    local long = packet(5, { type = "publish", topic = "big", payload = ("x"):rep(300000), qos = 1, packet_id = 9 })
    local lines, captured = tracing.hear("mqtt", "client", { SCRIPT[1], { ">", long }, { ">", "\xc0\0" } }, { cut = 5000 })
    test.equal(lines[2], '#1 > mqtt PUBLISH qos=1 topic="big" (300012 bytes)')
    test.equal(lines[3], "#1 > mqtt PINGREQ (2 bytes)")
    test.equal(#captured.sent, #SCRIPT[1][2] + #long + 2)
  end,

  ["what ends in the middle is told of, and not shown"] = function()
    local lines, captured = tracing.hear("mqtt", "client", { { ">", SCRIPT[1][2]:sub(1, -2) } })
    test.equal(lines, { "#1 > mqtt 87 bytes of an unfinished message" })
    test.equal(captured.sent, ("*"):rep(87))
  end,

  ["a length that never ends is told of, and the rest is a dump"] = function()
    local lines = tracing.hear("mqtt", "client", { { ">", "\x30\xff\xff\xff\xff\xffabc" } })
    test.equal(lines, {
      "#1 > mqtt PUBLISH has a length of more than four bytes; the rest is not decoded",
      "#1 > mqtt 0000  30 ff ff ff ff ff 61 62 63                       |0.....abc|",
    })
  end,

  ["random bytes fail nothing"] = function()
    local random = test.random()
    for _ = 1, 300 do
      local lines = tracing.hear("mqtt", "client", {
        { ">", random:bytes(random(0, 200)) },
        { "<", random:bytes(random(0, 200)) },
      }, { cut = random(1, 50) })
      for _, line in ipairs(lines) do
        test.falsy(line:find("decoder failed", 1, true), line)
        test.falsy(line:find("%c"), line)
      end
    end
  end,
}
