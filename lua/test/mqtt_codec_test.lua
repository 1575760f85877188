-- The module `mqtt.codec` as a script sees it. That bytes become the right packets, and what is
-- refused, is tested in Rust beside the codec.
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local test = require("test")

--- The bytes of one packet.
local function encoded(packet, version)
  local buffer = cosocket.buffer()
  assert(codec.encode(buffer, packet, version or 5))
  return buffer:take()
end

--- A packet there and back.
local function through(packet, version)
  local buffer = cosocket.buffer(encoded(packet, version))
  local decoded = assert(codec.decode(buffer, version or 5))
  test.equal(#buffer, 0)
  return decoded
end

-- Every field of every packet, with every property it may carry.
local packets = {
  {
    type = "connect",
    protocol_version = 5,
    clean_start = true,
    keep_alive = 60,
    client_id = "device",
    username = "u",
    password = "\0\xff",
    will = {
      topic = "gone",
      payload = "bye",
      qos = 1,
      retain = true,
      properties = {
        payload_format_indicator = 1,
        message_expiry_interval = 5,
        content_type = "text/plain",
        response_topic = "r",
        correlation_data = "\0",
        will_delay_interval = 9,
        user_property = { { "k", "v" } },
      },
    },
    properties = {
      session_expiry_interval = 0xFFFFFFFF,
      receive_maximum = 20,
      maximum_packet_size = 1000,
      topic_alias_maximum = 0,
      request_response_information = true,
      request_problem_information = false,
      authentication_method = "M",
      authentication_data = "d",
      user_property = { { "b", "1" }, { "a", "2" }, { "b", "3" } },
    },
  },
  {
    type = "connack",
    session_present = false,
    reason_code = 0x87,
    properties = {
      session_expiry_interval = 1,
      receive_maximum = 2,
      maximum_qos = 1,
      retain_available = false,
      maximum_packet_size = 3,
      assigned_client_identifier = "c",
      topic_alias_maximum = 4,
      reason_string = "no",
      user_property = { { "k", "v" } },
      wildcard_subscription_available = true,
      subscription_identifier_available = false,
      shared_subscription_available = true,
      server_keep_alive = 5,
      response_information = "i",
      server_reference = "s",
      authentication_method = "M",
      authentication_data = "d",
    },
  },
  {
    type = "publish",
    topic = "a/b",
    payload = "hello\0",
    qos = 2,
    retain = true,
    dup = true,
    packet_id = 65535,
    properties = {
      payload_format_indicator = 0,
      message_expiry_interval = 1,
      topic_alias = 2,
      response_topic = "r",
      correlation_data = "c",
      user_property = { { "k", "v" } },
      subscription_identifier = { 1, 268435455, 1 },
      content_type = "t",
    },
  },
  { type = "publish", topic = "t", payload = "", qos = 0 },
  { type = "puback", packet_id = 1, reason_code = 0x10, properties = { reason_string = "r" } },
  { type = "pubrec", packet_id = 1, reason_code = 0 },
  { type = "pubrel", packet_id = 1, reason_code = 0x92 },
  { type = "pubcomp", packet_id = 1, reason_code = 0, properties = { user_property = { { "", "" } } } },
  {
    type = "subscribe",
    packet_id = 7,
    subscriptions = {
      { filter = "a/#", qos = 1, no_local = true, retain_as_published = false, retain_handling = 2 },
      { filter = "$share/g/+", qos = 0, no_local = false, retain_as_published = true, retain_handling = 0 },
    },
    properties = { subscription_identifier = { 5 } },
  },
  { type = "suback", packet_id = 7, reason_codes = { 0, 1, 2, 0x80 } },
  { type = "unsubscribe", packet_id = 7, filters = { "a", "b/#" } },
  { type = "unsuback", packet_id = 7, reason_codes = { 0x11 } },
  { type = "pingreq" },
  { type = "pingresp" },
  { type = "disconnect", reason_code = 0x9C, properties = { server_reference = "other", session_expiry_interval = 1 } },
  { type = "disconnect", reason_code = 0 },
  { type = "auth", reason_code = 0x18, properties = { authentication_method = "M" } },
}

return {
  ["every packet comes back with every field"] = function()
    for _, packet in ipairs(packets) do test.equal(through(packet), packet) end
  end,

  ["the packets of 3.1.1 come back without what only 5 has"] = function()
    for _, packet in ipairs({
      { type = "connect", protocol_version = 4, clean_start = true, keep_alive = 0, client_id = "" },
      { type = "connack", session_present = true, reason_code = 0 },
      { type = "publish", topic = "t", payload = "p", qos = 1, packet_id = 1 },
      { type = "puback", packet_id = 1, reason_code = 0 },
      { type = "suback", packet_id = 1, reason_codes = { 0x80 } },
      { type = "unsuback", packet_id = 1, reason_codes = {} },
      { type = "disconnect", reason_code = 0 },
    }) do
      test.equal(through(packet, 4), packet)
    end
    local buffer = cosocket.buffer()
    local publish = { type = "publish", topic = "t", properties = { topic_alias = 1 } }
    test.fails("protocol", codec.encode(buffer, publish, 4))
    test.fails("protocol", codec.encode(buffer, { type = "auth" }, 4))
    test.equal(#buffer, 0)
  end,

  ["a packet split at any byte is one packet"] = function()
    test.every_cut(encoded(packets[3]), function(first, second)
      local buffer = cosocket.buffer(first)
      test.equal(codec.decode(buffer, 5), nil)
      test.equal(#buffer, #first)
      test.equal(codec.decode(buffer:append(second), 5), packets[3])
    end)
  end,

  ["packets come one by one and the rest stays"] = function()
    local buffer = cosocket.buffer(encoded({ type = "pingreq" }) .. encoded({ type = "disconnect" }) .. "\x30")
    test.equal(codec.decode(buffer, 5).type, "pingreq")
    test.equal(codec.decode(buffer, 5).type, "disconnect")
    test.equal({ codec.decode(buffer, 5) }, {})
    test.equal(buffer:peek(), "\x30")
  end,

  ["what cannot be right is refused with its reason code and stays in the buffer"] = function()
    local buffer = cosocket.buffer("\x36\x00")
    local err = test.fails("protocol", codec.decode(buffer, 5))
    test.equal({ err.op, err.code, err.message }, { "mqtt.decode", 0x81, "PUBLISH: QoS 3 does not exist" })
    test.equal(#buffer, 2)
    err = test.fails("limit", codec.decode(cosocket.buffer("\x30\xff\xff\xff\x7f"), 5, 1000))
    test.equal(err.code, 0x95)
    err = test.fails("protocol", codec.decode(cosocket.buffer("\xc0\x00")))
    test.equal(err.message, "the first packet is not CONNECT")
  end,

  ["a field that is too long is an error that names it, and nothing is written"] = function()
    local long = ("x"):rep(65536)
    local cases = {
      { { type = "connect", client_id = long }, "client_id" },
      { { type = "connect", username = long }, "username" },
      { { type = "connect", password = long }, "password" },
      { { type = "connect", will = { topic = long } }, "will topic" },
      { { type = "connect", will = { topic = "t", payload = long } }, "will payload" },
      { { type = "publish", topic = long }, "topic" },
      { { type = "publish", topic = "t", properties = { content_type = long } }, "content_type" },
      { { type = "publish", topic = "t", properties = { correlation_data = long } }, "correlation_data" },
      { { type = "publish", topic = "t", properties = { user_property = { { "k", long } } } }, "user_property" },
      { { type = "subscribe", packet_id = 1, subscriptions = { { filter = long } } }, "filter" },
      { { type = "unsubscribe", packet_id = 1, filters = { long } }, "filter" },
    }
    for _, case in ipairs(cases) do
      local buffer = cosocket.buffer("before")
      local err = test.fails("limit", codec.encode(buffer, case[1], 5))
      test.equal(err.message, case[2] .. ": 65536 bytes, at most 65535")
      test.equal(buffer:peek(), "before")
    end
  end,

  ["properties of 128 and more bytes are counted in two bytes"] = function()
    for _, size in ipairs({ 100, 118, 119, 120, 200, 16300, 16400 }) do
      local properties = { user_property = { { "k", ("v"):rep(size) } } }
      for _, packet in ipairs({
        { type = "subscribe", packet_id = 1, properties = properties, subscriptions = { { filter = "f", qos = 1 } } },
        { type = "unsubscribe", packet_id = 1, properties = properties, filters = { "f" } },
      }) do
        local decoded = through(packet)
        test.equal(decoded.properties, properties)
        test.equal((decoded.subscriptions or decoded.filters)[1].filter or decoded.filters[1], "f")
      end
    end
  end,

  ["what the standard forbids is not written"] = function()
    for _, packet in ipairs({
      { type = "publish", topic = "a/#" },
      { type = "publish", topic = "" },
      { type = "publish", topic = "a\0" },
      { type = "publish", topic = "\xff" },
      { type = "publish", topic = "t", qos = 3 },
      { type = "publish", topic = "t", qos = 1 },
      { type = "publish", topic = "t", packet_id = 1 },
      { type = "publish", topic = "t", dup = true },
      { type = "publish", topic = "t", properties = { server_keep_alive = 1 } },
      { type = "publish", topic = "t", properties = { topic_alias = 0 } },
      { type = "publish", topic = "t", properties = { response_topic = "+" } },
      { type = "subscribe", packet_id = 1 },
      { type = "subscribe", packet_id = 0, subscriptions = { { filter = "f" } } },
      { type = "subscribe", packet_id = 1, subscriptions = { { filter = "a#" } } },
      { type = "subscribe", packet_id = 1, subscriptions = { { filter = "f", retain_handling = 3 } } },
      { type = "subscribe", packet_id = 1, subscriptions = { { filter = "f", qos = 4 } } },
      { type = "unsubscribe", packet_id = 1, filters = {} },
      { type = "connack", reason_code = 1 },
      { type = "connack", session_present = true, reason_code = 0x87 },
      { type = "puback", packet_id = 0 },
      { type = "auth", reason_code = 0x18 },
      { type = "connect", properties = { authentication_data = "d" } },
    }) do
      local buffer = cosocket.buffer()
      test.fails("protocol", codec.encode(buffer, packet, 5))
      test.equal(#buffer, 0)
    end
  end,

  ["wrong types and names that do not exist raise"] = function()
    local buffer = cosocket.buffer()
    test.raises("no packet is called \"publsh\"", codec.encode, buffer, { type = "publsh" }, 5)
    test.raises("PUBLISH: topic: string wanted, not table", codec.encode, buffer, { type = "publish", topic = {} }, 5)
    test.raises("4 (MQTT 3.1.1) or 5, not 3", codec.encode, buffer, { type = "pingreq" }, 3)
    test.raises(
      "no \"recieve_maximum\"; did you mean \"receive_maximum\"?",
      codec.encode, buffer, { type = "connect", properties = { recieve_maximum = 20 } }, 5
    )
    test.raises(
      "receive_maximum: integer wanted, not string",
      codec.encode, buffer, { type = "connect", properties = { receive_maximum = "20" } }, 5
    )
    test.raises(
      "user_property: a list of {name, value}",
      codec.encode, buffer, { type = "connect", properties = { user_property = { "k" } } }, 5
    )
    test.raises("cosocket.Buffer", codec.decode, "not a buffer", 5)
    test.equal(#buffer, 0)
  end,

  ["a publish and an acknowledgement without tables are the same bytes"] = function()
    local buffer = cosocket.buffer()
    assert(codec.encode_publish(buffer, 5, "a/b", "hi", 1, true, true, 9, { topic_alias = 3 }))
    local publish = { type = "publish", topic = "a/b", payload = "hi", qos = 1, packet_id = 9 }
    publish.retain, publish.dup, publish.properties = true, true, { topic_alias = 3 }
    test.equal(buffer:take(), encoded(publish))
    for _, type in ipairs({ "puback", "pubrec", "pubrel", "pubcomp" }) do
      assert(codec.encode_ack(buffer, 5, type, 300))
      test.equal(buffer:take(), encoded({ type = type, packet_id = 300 }))
    end
    assert(codec.encode_ack(buffer, 5, "puback", 300, 0x97))
    test.equal(buffer:take(), encoded({ type = "puback", packet_id = 300, reason_code = 0x97 }))
    test.fails("protocol", codec.encode_ack(buffer, 4, "puback", 300, 0x97))
    test.fails("protocol", codec.encode_ack(buffer, 5, "puback", 0))
    test.fails("limit", codec.encode_publish(buffer, 5, "t", "12345", 0, false, false, nil, nil, 10))
    test.fails("protocol", codec.encode_publish(buffer, 5, "t/+", ""))
    test.equal(#buffer, 0)
    assert(codec.encode_publish(buffer, 5, "t", "12345", 0, false, false, nil, nil, 11))
    test.equal(#buffer, 11)
  end,

  ["a finaliser that touches the buffer while a packet is made of it loses nothing"] = function()
    local wire = encoded(packets[1])
    local buffer = cosocket.buffer()
    local touched = 0
    local function leave_garbage()
      setmetatable({}, {
        __gc = function()
          touched = touched + 1
          buffer:append("\xc0\x00")
        end,
      })
    end
    collectgarbage("incremental", 1, 1000)
    while touched < 3 do
      leave_garbage()
      collectgarbage("stop")
      local before = touched
      buffer:clear():append(wire)
      collectgarbage("restart")
      local packet = codec.decode(buffer, 5)
      collectgarbage("stop")
      test.equal(packet, packets[1])
      test.equal(buffer:take(), ("\xc0\x00"):rep(touched - before))
      collectgarbage("restart")
    end
    collectgarbage("incremental", 200, 100)
  end,

  ["answers that say no more than that all is well are taken as numbers, and nothing else is"] = function()
    local PUBACK, PUBREC, PUBCOMP = 4 << 16, 5 << 16, 7 << 16
    for _, case in ipairs({
      { 4, "\x40\2\1\2", PUBACK | 0x0102 },
      { 5, "\x40\2\1\2", PUBACK | 0x0102 },
      { 5, "\x50\3\xff\xff\0", PUBREC | 0xFFFF },
      { 5, "\x70\4\0\1\0\0", PUBCOMP | 1 },
      { 5, "\x40\3\0\1\x10" }, -- a reason code
      { 5, "\x40\6\0\1\0\4\x1f\0\1x" }, -- a property, cut
      { 5, "\x40\8\0\1\0\4\x1f\0\1x" },
      { 4, "\x40\3\0\1\0" },
      { 5, "\x40\2\0\0" }, -- no identifier
      { 5, "\x41\2\0\1" },
      { 5, "\x62\2\0\1" }, -- PUBREL
      { 5, "\xd0\0" },
      { 5, "\x40\2\0" },
      { 5, "" },
    }) do
      local version, wire, ack = table.unpack(case)
      local buffer = cosocket.buffer(wire .. (ack and "rest" or ""))
      test.equal(codec.take_ack(buffer, version), ack)
      test.equal(buffer:take() or "", ack and "rest" or wire)
    end
  end,

  ["topics, filters and matching"] = function()
    test.equal(codec.valid_topic("a/b"), true)
    test.equal(codec.valid_topic("a/+"), false)
    test.equal(codec.valid_topic(""), false)
    test.equal(codec.valid_topic(("x"):rep(65536)), false)
    test.equal(codec.valid_filter("a/+/#"), true)
    test.equal(codec.valid_filter("a+"), false)
    test.equal(codec.valid_filter("$share/g"), false)
    test.equal(codec.valid_filter("\xff"), false)
    test.equal(codec.matches("a/+/#", "a/b"), true)
    test.equal(codec.matches("#", "$SYS/x"), false)
    test.equal(codec.matches("$share/g/a/#", "a/b"), true)
  end,

  ["reason codes have words"] = function()
    test.equal(codec.reason(0x87), "not authorized")
    test.equal(codec.reason(5, 4), "not authorized")
    test.equal(codec.reason(0x03), nil)
  end,
}
