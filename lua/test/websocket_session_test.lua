-- Both ends of a connection after the handshake: bytes and numbers only.
local close_code = require("websocket.close_code")
local codec = require("websocket.codec")
local cosocket = require("cosocket")
local session = require("websocket.session")
local test = require("test")

--- A client and a server that begin at time 0.
local function pair(options, compression)
  local function one(role, inflate, deflate)
    local agreed = compression and { compression = { inflate = inflate, deflate = deflate, threshold = 0 } }
    return session.new(session.config(role, options, agreed), 0)
  end
  local of_client, of_server = compression and compression.client, compression and compression.server
  return one("client", of_server, of_client), one("server", of_client, of_server)
end

--- What `to` makes of everything `from` has queued.
local function deliver(from, to, now, pieces)
  local wire = cosocket.buffer(from.output:take())
  local list = {}
  while true do
    local message, kind, last = to:receive(wire, now or 0, pieces)
    if not message then
      return list, kind
    end
    list[#list + 1] = { message, kind, last }
  end
end

--- A session of one role, and a function that hands it bytes.
local function alone(role, options)
  local one = session.new(session.config(role, options), 0)
  return one, function(bytes, now) return one:receive(cosocket.buffer(bytes), now or 0) end
end

return {
  ["messages arrive as they were sent, both ways"] = function()
    local random = test.random()
    for _, compression in ipairs({
      false,
      { client = { takeover = true }, server = { takeover = true, window_bits = 9 } },
      { client = { takeover = false }, server = { takeover = false, window_bits = 12 } },
    }) do
      local client, server = pair(nil, compression or nil)
      for _ = 1, 100 do
        local bytes = random:bytes(random:pick({ 0, 1, 125, 126, 300, 5000, 70000 }))
        local text = ("wörter %d "):format(random(1000)):rep(random(0, 50))
        for _, way in ipairs({ { client, server }, { server, client } }) do
          local from, to = way[1], way[2]
          assert(from:send("binary", bytes))
          assert(from:send("text", text))
          local got, err = deliver(from, to)
          test.equal(err, nil)
          test.equal(got, { { bytes, "binary" }, { text, "text" } })
        end
      end
    end
  end,

  ["a message cut at any byte is one message"] = function()
    local client, server = pair()
    assert(client:send("text", "grüße"))
    local wire = client.output:take()
    test.every_cut(wire, function(first, second)
      local input = cosocket.buffer(first)
      test.equal(server:receive(input, 0), nil)
      input:append(second)
      test.equal({ server:receive(input, 0) }, { "grüße", "text" })
      test.equal(#input, 0)
    end)
  end,

  ["fragments are one message, and control frames may come between them"] = function()
    for _, compression in ipairs({ false, { client = {}, server = {} } }) do
      local client, server = pair(nil, compression or nil)
      assert(client:send_piece("text", "eins ", false))
      assert(client:ping("between"))
      assert(client:send_piece(nil, "zwei ", false))
      assert(client:send_piece(nil, "", true))
      test.equal(deliver(client, server), { { "eins zwei ", "text" } })
      local _, kind = codec.decode(server.output, client.config.rules)
      test.equal(kind, "pong")
    end
  end,

  ["a message in pieces is handed over as it comes"] = function()
    local client, server = pair({ message_max = 10, frame_max = 10 })
    assert(client:send_piece("binary", "part one", false))
    test.equal(deliver(client, server, 0, true), { { "part one", "binary", false } })
    assert(client:send_piece(nil, "and a second that is longer than message_max", true))
    test.equal(deliver(client, server, 0, true), { { "and a second that is longer than message_max", "binary", true } })
  end,

  ["a ping is answered with its payload"] = function()
    local one, receive = alone("client")
    test.equal(receive("\x89\x03abc"), nil)
    local payload, kind = codec.decode(one.output, codec.rules({ role = "server" }))
    test.equal({ payload, kind }, { "abc", "pong" })
    -- A Pong that nobody asked for is nothing (5.5.3).
    test.equal(receive("\x8A\x01x"), nil)
    test.equal(#one.output, 0)
  end,

  ["pings whose answers do not leave are answered once, and cost no memory"] = function()
    local one, receive = alone("client")
    local size = 0
    for count = 1, 5000 do
      test.equal(receive(("\x89\x7D%05d"):format(count) .. ("x"):rep(120)), nil)
      size = math.max(size, #one.output)
    end
    test.truthy(size <= 65536 + 127, ("%d bytes of answers wait"):format(size))
    one.output:clear()
    -- 5.5.3: the most recent one is owed an answer.
    test.equal(receive(""), nil)
    local payload, kind = codec.decode(one.output, codec.rules({ role = "server" }))
    test.equal({ payload and payload:sub(1, 5), kind }, { "05000", "pong" })
    test.equal(#one.output, 0)
    -- And is answered with what came last, though not once more.
    test.equal(receive("\x89\x01a"), nil)
    test.equal({ codec.decode(one.output, codec.rules({ role = "server" })) }, { "a", "pong" })
  end,

  ["each silence is asked about, although an answer may take longer than the silence"] = function()
    local client, server = pair({ keep_alive = 10, keep_alive_timeout = 60 })
    local asked = {}
    for second = 0, 45 do
      if second >= client.deadline then test.equal(client:expire(second), true) end
      if #client.output > 0 then
        asked[#asked + 1] = second
        deliver(client, server, second)
        deliver(server, client, second)
      end
    end
    test.equal(asked, { 10, 20, 30, 40 })
    -- One that does not answer has its time.
    test.equal(client:expire(50), true)
    local at = 50
    repeat
      at = at + 1
      local alive = at < client.deadline or client:expire(at)
    until not alive
    test.equal(at, 110)
  end,

  ["a silent peer is asked, and given up when it stays silent"] = function()
    local client, server = pair({ keep_alive = 30, keep_alive_timeout = 20 })
    test.equal(client.deadline, 30)
    test.equal(client:expire(29), true)
    test.equal(#client.output, 0)
    test.equal(client:expire(30), true)
    test.equal(client.deadline, 50)
    local wire = client.output:peek()
    deliver(client, server, 30)
    -- It answers: all is well until 30 seconds after that.
    deliver(server, client, 45)
    test.equal(client:expire(50), true)
    test.equal(client.deadline, 75)
    test.equal(#client.output, 0)
    test.equal(client:expire(75), true)
    test.equal(#client.output, #wire)
    test.fails("timeout", client:expire(95))
    test.equal(client.state, "closed")
    test.equal(client.deadline, math.huge)
  end,

  ["a Ping behind something large is unanswered only when nothing moves any more, or after it has left"] = function()
    for _, stops in ipairs({ true, false }) do
      local client = pair({ keep_alive = 30, keep_alive_timeout = 20 })
      client:send("binary", ("x"):rep(1000000))
      local total, pings, ended = #client.output, 0, nil
      client.output:clear()
      for now = 1, 200 do
        -- A line that carries 10,000 bytes a second, and once stops at the second 60.
        local delivered = math.min(total, 10000 * (stops and math.min(now, 60) or now))
        if now >= client.deadline and not ended then
          local ok, err = client:expire(now, delivered, total - delivered)
          if not ok then ended = { now, err.kind } end
        end
        if #client.output > 0 then
          pings, total = pings + 1, total + #client.output
          client.output:clear()
        end
      end
      -- It is looked at every five seconds.
      assert(ended[1] >= (stops and 80 or 120) and ended[1] <= (stops and 85 or 125), ended[1])
      test.equal({ pings, ended[2] }, { 1, "timeout" })
    end
  end,

  ["a sign of life ends the wait for a Ping that is leaving still"] = function()
    local client, server = pair({ keep_alive = 30, keep_alive_timeout = 20 })
    test.equal(client:expire(30, 0, 1000000), true)
    test.equal(client.deadline, 35)
    server:send("text", "here")
    deliver(server, client, 33)
    test.equal(client:expire(35, 1000, 999000), true)
    test.equal(client.deadline, 63)
    test.equal(client:expire(63, 1000, 0), true)
    test.equal(client:expire(64, 1000, 0), true)
    test.fails("timeout", client:expire(83, 1000, 0))
  end,

  ["whatever is heard counts as a sign of life"] = function()
    local client, server = pair({ keep_alive = 30 })
    assert(server:send("text", "hello"))
    deliver(server, client, 20)
    test.equal(client:expire(30), true)
    test.equal(client.deadline, 50)
    test.equal(#client.output, 0)
    -- A part of a long frame, too.
    assert(server:send("binary", ("x"):rep(10000)))
    test.equal(client:receive(cosocket.buffer(server.output:take(5000)), 45), nil)
    test.equal(client:expire(50), true)
    test.equal(client.deadline, 75)
  end,

  ["without a keep-alive nobody is asked"] = function()
    local client = session.new(session.config("client", { keep_alive = 0 }), 0)
    test.equal(client.deadline, math.huge)
    test.equal(client:expire(1e9), true)
    test.equal(#client.output, 0)
  end,

  ["a close is answered with its code, and both sides know it"] = function()
    local client, server = pair()
    assert(client:close(3001, "so long", 0))
    test.equal(client.state, "closing")
    local _, err = deliver(client, server)
    test.equal({ err.kind, err.code, err.reason }, { "closed", 3001, "so long" })
    test.equal(server.state, "closed")
    _, err = deliver(server, client)
    test.equal({ err.kind, err.code }, { "closed", 3001 })
    test.equal(client.state, "closed")
    for _, one in ipairs({ client, server }) do
      test.fails("closed", one:send("text", "too late"))
      test.fails("closed", one:send_piece("text", "too late", true))
      test.fails("closed", one:ping())
      test.fails("closed", one:close(1000, nil, 0))
      test.fails("closed", one:receive(cosocket.buffer(), 0))
    end
  end,

  ["a close without a code is answered without one"] = function()
    local one, receive = alone("server", {})
    local _, err = receive("\x88\x80\0\0\0\0")
    test.equal({ err.kind, err.code, err.reason }, { "closed", close_code.no_status, "" })
    test.equal(one.output:take(), "\x88\0")
  end,

  ["two that close at once are both closed"] = function()
    local client, server = pair()
    assert(client:close(1000, nil, 0))
    assert(server:close(1001, nil, 0))
    local from_client, from_server = client.output:take(), server.output:take()
    test.fails("closed", server:receive(cosocket.buffer(from_client), 0))
    test.fails("closed", client:receive(cosocket.buffer(from_server), 0))
    -- Each has said it once.
    test.equal(#client.output + #server.output, 0)
  end,

  ["what crosses a close is not for anybody"] = function()
    local client, server = pair()
    assert(server:send("text", "on its way"))
    assert(server:ping("?"))
    assert(client:close(1000, nil, 0))
    client.output:clear()
    test.equal(deliver(server, client), {})
    test.equal(#client.output, 0)
  end,

  ["a close that is not answered is not waited for"] = function()
    local client = pair({ close_timeout = 5 })
    assert(client:close(1000, nil, 10))
    test.equal(client.deadline, 15)
    test.equal(client:expire(14), true)
    test.fails("timeout", client:expire(15))
    test.equal(client.state, "closed")
  end,

  ["codes and reasons that may not be sent raise"] = function()
    for _, code in ipairs({ 0, 999, 1004, 1005, 1006, 1015, 2999, 5000 }) do
      local client = pair()
      test.raises("not a code to close with", client.close, client, code, nil, 0)
      test.equal(#client.output, 0)
    end
    local client = pair()
    test.raises("at most 123 bytes", client.close, client, 1000, ("x"):rep(124), 0)
    test.raises("at most 123 bytes", client.close, client, 1000, "\xff", 0)
    test.raises("needs a code", client.close, client, nil, "why", 0)
    assert(client:close(1000, ("x"):rep(123), 0))
  end,

  ["what breaks the protocol is answered with a close that says why"] = function()
    for bytes, expected in pairs({
      ["\xC1\x00"] = { "protocol", 1002 },
      ["\x80\x00"] = { "protocol", 1002 },
      ["\x81\x80"] = { "protocol", 1002 },
      ["\x81\x02\xC3\x28"] = { "protocol", 1007 },
      ["\x88\x02\x03\xED"] = { "protocol", 1002 },
      ["\x82\x7E\x04\x00"] = { "limit", 1009 },
    }) do
      local one, receive = alone("client", { message_max = 1000 })
      local _, err = receive(bytes)
      test.equal({ err.kind, err.code }, expected)
      local reason, kind, _, code = codec.decode(one.output, codec.rules({ role = "server" }))
      test.equal({ reason, kind, code }, { "", "close", expected[2] })
      test.equal(one.state, "closed")
    end
  end,

  ["a text that is not UTF-8 raises and sends nothing"] = function()
    local client = pair()
    local message = test.raises("must be UTF-8", client.send, client, "text", "\xff")
    test.matches(message, "send_binary")
    test.equal(#client.output, 0)
    test.equal(client.state, "open")
  end,

  ["client frames are masked with keys that differ"] = function()
    local client = pair()
    local seen = {}
    for _ = 1, 200 do
      assert(client:send("binary", ("\0"):rep(8)))
      local frame = client.output:take()
      test.equal(frame:byte(2), 0x80 | 8)
      local key = frame:sub(3, 6)
      test.equal(frame:sub(7), key .. key)
      seen[key] = true
    end
    local count = 0
    for _ in pairs(seen) do count = count + 1 end
    assert(count > 190, count)
  end,

  ["random bytes never raise"] = function()
    local random = test.random()
    for _ = 1, 3000 do
      local one = session.new(session.config(random:pick({ "client", "server" })), 0)
      local input = cosocket.buffer(random:bytes(random(1, 40)))
      repeat
        local message, kind = one:receive(input, 0)
      until not message
    end
  end,
}
