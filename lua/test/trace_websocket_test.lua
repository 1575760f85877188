-- What is shown of WebSocket, and of what runs within.
local codec = require("websocket.codec")
local cosocket = require("cosocket")
local mqtt = require("mqtt.codec")
local test = require("test")
local tracing = require("test.tracing")

--- The two heads of an upgrade.
local function upgrade(subprotocol, extensions)
  local fields = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
  if subprotocol then fields = fields .. "Sec-WebSocket-Protocol: " .. subprotocol .. "\r\n" end
  if extensions then fields = fields .. "Sec-WebSocket-Extensions: " .. extensions .. "\r\n" end
  return { ">", "GET / HTTP/1.1\r\nHost: h\r\n" .. fields .. "\r\n" }, { "<", "HTTP/1.1 101 Switching Protocols\r\n" .. fields .. "\r\n" }
end

--- What encodes the messages of one side.
local function encoder(role, deflate)
  local rules, writing = codec.rules({ role = role, deflate = deflate, threshold = 0 }), nil
  return function(kind, payload)
    local buffer, ok = cosocket.buffer(), nil
    ok, writing = codec.encode(buffer, rules, kind, payload, writing)
    assert(ok)
    return buffer:take()
  end
end

--- The lines of these protocols only.
local function only(lines, ...)
  local kept = {}
  for _, line in ipairs(lines) do
    for _, name in ipairs({ ... }) do
      if line:find("^#1 [<>] " .. name) then kept[#kept + 1] = line end
    end
  end
  return kept
end

--- The payloads of frames that are not compressed, unmasked.
local function payloads(bytes, role)
  local buffer, rules, reading, found = cosocket.buffer(bytes), codec.rules({ role = role }), nil, {}
  while #buffer > 0 do
    local payload, _, next_reading = codec.decode(buffer, rules, reading)
    if not payload then return found, true end
    found[#found + 1], reading = payload, next_reading
  end
  return found
end

local client, server = encoder("client"), encoder("server")

local PLAIN = { { ">", client("text", "hello \27") }, { "<", server("binary", "\1\2") }, { ">", client("ping", "p") }, { "<", "\x88\x05\x03\xe9bye" } }
local PLAIN_LINES = {
  '#1 > websocket text 7 bytes fin masked "hello \\x1b"',
  '#1 < websocket binary 2 bytes fin "\\x01\\x02"',
  '#1 > websocket ping 1 byte fin masked "p"',
  '#1 < websocket close 5 bytes fin 1001 going_away "bye"',
}

local function mqtt_script()
  local ask, answer = upgrade("mqtt")
  local connect, publish = cosocket.buffer(), cosocket.buffer()
  assert(mqtt.encode(connect, { type = "connect", protocol_version = 5, client_id = "c", keep_alive = 0, username = "u", password = "s3cret" }, 5))
  assert(mqtt.encode(publish, { type = "publish", topic = "t", payload = "v", qos = 0 }, 5))
  local bytes = connect:take() .. publish:take()
  -- Borders of messages mean nothing.
  return { ask, answer, { ">", client("binary", bytes:sub(1, 20)) }, { ">", client("binary", bytes:sub(21)) } }, bytes
end

local CALL = '{"jsonrpc":"2.0","id":7,"method":"add","params":{"a":1,"token":"t0ken"}}'
local RESULT = '{"jsonrpc":"2.0","id":7,"result":3}'

return {
  ["frames are shown with their payload"] = function()
    local ask, answer = upgrade()
    local lines = tracing.hear("http", "client", { ask, answer, table.unpack(PLAIN) })
    test.equal(only(lines, "websocket"), PLAIN_LINES)
  end,

  ["frames that come in pieces of any size are the same lines and the same bytes"] = function()
    local ask, answer = upgrade()
    local script = { ask, answer, table.unpack(PLAIN) }
    for cut = 1, 60 do
      local lines, captured = tracing.hear("http", "client", script, { cut = cut })
      test.equal(only(lines, "websocket"), PLAIN_LINES)
      test.equal(captured.sent, tracing.bytes(script, ">"))
      test.equal(captured.received, tracing.bytes(script, "<"))
    end
  end,

  ["frames that come with the answer to the upgrade are decoded"] = function()
    local ask, answer = upgrade()
    local lines = tracing.hear("http", "client", { ask, { "<", answer[2] .. server("text", "early") } })
    test.equal(only(lines, "websocket"), { '#1 < websocket text 5 bytes fin "early"' })
  end,

  ["MQTT within is shown packet by packet, and its password is nowhere"] = function()
    local script, bytes = mqtt_script()
    for cut = 1, 200, 7 do
      local lines, captured = tracing.hear("http", "client", script, { cut = cut })
      test.equal(only(lines, "websocket", "mqtt"), {
        "#1 > websocket binary 20 bytes fin masked",
        ("#1 > websocket binary %d bytes fin masked"):format(#bytes - 20),
        '#1 > mqtt CONNECT MQTT 5 client_id="c" keep_alive=0 username="u" password=*** (27 bytes)',
        '#1 > mqtt PUBLISH qos=0 topic="t" payload 1 byte "v" (7 bytes)',
      })
      test.equal(#captured.sent, #tracing.bytes(script, ">"))
      -- The frames of the capture are frames, of the same length, and without the password.
      local found = payloads(captured.sent:sub(#script[1][2] + 1), "server")
      test.equal(table.concat(found), (bytes:gsub("s3cret", "******")))
    end
  end,

  ["only MQTT is shown when only MQTT is wanted"] = function()
    local lines, captured = tracing.hear("http", "client", (mqtt_script()), { protocols = "mqtt" })
    test.equal(#lines, 2)
    -- The capture has what came before, too.
    test.matches(captured.sent, "^GET / HTTP")
  end,

  ["JSON-RPC within is shown call by call"] = function()
    local ask, answer = upgrade("jsonrpc")
    local lines, captured = tracing.hear("http", "client", { ask, answer, { ">", client("text", CALL) }, { "<", server("text", RESULT) } })
    test.equal(only(lines, "websocket", "wsrpc"), {
      ("#1 > websocket text %d bytes fin masked"):format(#CALL),
      '#1 > wsrpc call add id=7 params={"a":1,"token":"***"}',
      ("#1 < websocket text %d bytes fin"):format(#RESULT),
      "#1 < wsrpc result id=7 3",
    })
    test.equal(payloads(captured.sent:sub(#ask[2] + 1), "server"), { (CALL:gsub("t0ken", "*****")) })
  end,

  ["JSON-RPC is known without a name"] = function()
    local ask, answer = upgrade()
    local lines = tracing.hear("http", "client", { ask, answer, { ">", client("text", CALL) } })
    test.equal(#only(lines, "wsrpc"), 1)
  end,

  ["messages of JSON-RPC have their words"] = function()
    local ask, answer = upgrade("jsonrpc")
    local function said(text)
      return only(tracing.hear("http", "client", { ask, answer, { "<", server("text", text) } }, { bytes = 20 }), "wsrpc")
    end
    test.equal(said('{"jsonrpc":"2.0","method":"tick"}'), { "#1 < wsrpc notification tick" })
    test.equal(said('{"jsonrpc":"2.0","id":"a","error":{"code":-32601,"message":"Method not found","data":[1]}}'), {
      '#1 < wsrpc error id="a" -32601 "Method not found" data=[1]',
    })
    test.equal(said('[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","id":1,"result":"' .. ("x"):rep(50) .. '"}]'), {
      "#1 < wsrpc batch of 2",
      "#1 < wsrpc notification a",
      '#1 < wsrpc result id=1 "xxxxxxxxxxxxxxxxxxx...',
    })
    test.matches(said("{nonsense")[1], "^#1 < wsrpc no JSON: .* \"{nonsense\"$")
    test.equal(said("7"), { "#1 < wsrpc neither a call nor an answer: 7" })
  end,

  ["a message of JSON-RPC in several frames is one"] = function()
    local ask, answer = upgrade("jsonrpc")
    local half = #RESULT // 2
    local first = string.char(0x01, half) .. RESULT:sub(1, half)
    local second = string.char(0x80, #RESULT - half) .. RESULT:sub(half + 1)
    local lines, captured = tracing.hear("http", "client", { ask, answer, { "<", first .. second } })
    test.equal(only(lines, "wsrpc"), { "#1 < wsrpc result id=7 3" })
    test.equal(captured.received, answer[2] .. first .. second)
  end,

  ["compressed messages are shown, and captured, inflated"] = function()
    local ask, answer = upgrade(nil, "permessage-deflate")
    local sender, receiver = encoder("client", {}), encoder("server", {})
    local long = ("hello "):rep(40)
    local script = { ask, answer, { ">", sender("text", long) }, { "<", receiver("text", "short") }, { ">", sender("text", long) } }
    for _, cut in ipairs({ 1, 3, 1000 }) do
      local lines, captured = tracing.hear("http", "client", script, { cut = cut, bytes = 5 })
      local frames = only(lines, "websocket")
      test.matches(frames[1], '^#1 > websocket text %d+ bytes fin inflated to 240 bytes masked "hello"%.%.%.$')
      test.matches(frames[2], '^#1 < websocket text %d+ bytes fin inflated to 5 bytes "short"$')
      -- The second refers to the first.
      test.matches(frames[3], '^#1 > websocket text %d+ bytes fin inflated to 240 bytes masked "hello"%.%.%.$')
      test.equal(payloads(captured.sent:sub(#ask[2] + 1), "server"), { long, long })
    end
  end,

  ["what cannot be inflated is told of, and not shown"] = function()
    local ask, answer = upgrade(nil, "permessage-deflate")
    local lines, captured = tracing.hear("http", "client", { ask, answer, { "<", "\xc1\x04\xff\xff\xff\xff" }, { "<", "\xc1\x01a" } })
    local frames = only(lines, "websocket")
    test.matches(frames[1], "^#1 < websocket text 4 bytes fin compressed, .+$")
    test.matches(frames[2], "^#1 < websocket text 1 byte fin compressed, .+$")
    test.equal(captured.received, answer[2] .. "\xc1\x04****\xc1\x01*")
    ask, answer = upgrade()
    lines = tracing.hear("http", "client", { ask, answer, { "<", "\xc1\x01a" } })
    test.equal(only(lines, "websocket"), { "#1 < websocket text 1 byte fin compressed, no compression was agreed on" })
  end,

  ["a frame that is too long passes piece by piece"] = function()
    local ask, answer = upgrade()
    local long = client("binary", ("x"):rep(300000))
    local script = { ask, answer, { ">", long }, { ">", client("text", "after") } }
    local lines, captured = tracing.hear("http", "client", script, { cut = 7001, bytes = 3 })
    test.equal(only(lines, "websocket"), {
      '#1 > websocket binary 300000 bytes fin masked "xxx"...',
      '#1 > websocket text 5 bytes fin masked "aft"...',
    })
    test.equal(captured.sent, tracing.bytes(script, ">"))
  end,

  ["a decoder of one's own is found by the name of the subprotocol"] = function()
    package.loaded["trace.shout"] = {
      follow = function(lane)
        while lane:need(1) do lane:say(lane:take(lane:count()):upper()) end
      end,
    }
    local ask, answer = upgrade("shout")
    local lines = tracing.hear("http", "client", { ask, answer, { "<", server("text", "hey") } })
    package.loaded["trace.shout"] = nil
    test.equal(only(lines, "shout"), { "#1 < shout HEY" })
  end,

  ["random frames fail nothing"] = function()
    local random = test.random()
    for _ = 1, 200 do
      local ask, answer = upgrade(random:pick({ "mqtt", "jsonrpc", "other" }), random(2) == 1 and "permessage-deflate" or nil)
      local script = { ask, answer }
      for i = 3, 2 + random(6) do script[i] = { random(2) == 1 and ">" or "<", random:bytes(random(1, 80)) } end
      for _, line in ipairs((tracing.hear("http", "client", script, { cut = random(1, 30) }))) do
        test.falsy(line:find("decoder failed", 1, true), line)
        test.falsy(line:find("%c"), line)
      end
    end
  end,
}
