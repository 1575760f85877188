-- Connections on pairs of streams and on scripted peers.
local close_code = require("websocket.close_code")
local codec = require("websocket.codec")
local connection = require("websocket.connection")
local cosocket = require("cosocket")
local session = require("websocket.session")
local test = require("test")
require("websocket.stream")

--- Both ends of a connection, and their streams.
local function pair(options, agreed)
  local near, far = cosocket.pair()
  local client = connection.new(assert(near, far), session.config("client", options, agreed))
  local server = connection.new(far, session.config("server", options, agreed))
  return client, server, near, far
end

--- A client whose server plays steps.
local function scripted(steps, options)
  local stream = test.stream(steps)
  return connection.new(stream, session.config("client", options)), stream
end

--- A step: waits for one frame of a client, and checks what it is and says.
local function frame(kind, payload, code)
  local rules = codec.rules({ role = "server" })
  return function(far, input)
    local found, what, _, extra
    repeat
      found, what, _, extra = codec.decode(input, rules)
      if not found and not what then assert(far:fill(input)) end
    until found or what
    test.equal({ what, found, extra }, { kind, payload, code })
  end
end

--- Runs functions as tasks, and waits for all.
local function together(...)
  local tasks = { ... }
  cosocket.group(function()
    for _, fn in ipairs(tasks) do cosocket.spawn(fn) end
  end)
end

return {
  ["messages of every size go both ways"] = function()
    local client, server = pair()
    for _, size in ipairs({ 0, 1, 125, 126, 65535, 65536, 300000 }) do
      for _, way in ipairs({ { client, server }, { server, client } }) do
        local bytes = ("\0\xff"):rep(size // 2) .. ("x"):rep(size % 2)
        together(function()
          assert(way[1]:send_binary(bytes))
          assert(way[1]:send("done"))
        end, function()
          local got, kind = way[2]:receive()
          test.truthy(got == bytes)
          test.equal(kind, "binary")
          test.equal({ way[2]:receive() }, { "done", "text" })
        end)
      end
    end
  end,

  ["a task that sends after a silence leaves what comes to the one that receives"] = function()
    local client, server = pair()
    together(function()
      -- Silence, after which a task that sends looks at what has come.
      cosocket.sleep(2)
      for i = 1, 3 do
        assert(client:send("question " .. i))
        assert(server:send("answer " .. i))
      end
    end, function()
      for i = 1, 3 do test.equal(client:receive(), "answer " .. i) end
    end, function()
      for i = 1, 3 do test.equal(server:receive(), "question " .. i) end
    end)
  end,

  ["a task that sends much and one that receives share what comes"] = function()
    local client, server = pair()
    local text, count = ("x"):rep(400000), 20
    local function sending(one)
      return function()
        for _ = 1, count do assert(one:send(text)) end
      end
    end
    local function receiving(one)
      return function()
        for _ = 1, count do test.equal(#assert(one:receive()), #text) end
      end
    end
    together(sending(client), receiving(client), sending(server), receiving(server))
  end,

  ["two that send much before they read do not wait for each other"] = function()
    local client, server = pair()
    local text = ("x"):rep(700000)
    local function talk(one)
      assert(one:send(text))
      test.equal(#assert(one:receive()), #text)
    end
    together(function() talk(client) end, function() talk(server) end)
  end,

  ["a sender waits while the other side does not read"] = function()
    local client, server = pair()
    local sent = 0
    local task = cosocket.spawn(function()
      for _ = 1, 100 do
        assert(client:send_binary(("x"):rep(100000)))
        sent = sent + 1
      end
    end)
    cosocket.sleep(1)
    assert(sent < 60, sent)
    for _ = 1, 100 do test.equal(#assert(server:receive()), 100000) end
    task:join()
    test.equal(sent, 100)
  end,

  ["messages of many tasks arrive whole"] = function()
    local client, server = pair()
    local tasks = {}
    for id = 1, 20 do
      tasks[id] = function()
        for round = 1, 10 do assert(client:send(("%d "):format(id):rep(round * 500))) end
      end
    end
    tasks[#tasks + 1] = function()
      local count = {}
      for _ = 1, 200 do
        local id = assert(server:receive()):match("^(%d+) ")
        count[id] = (count[id] or 0) + 1
      end
      for id = 1, 20 do test.equal(count[tostring(id)], 10) end
    end
    together(table.unpack(tasks))
  end,

  ["connections with half a message each do not mix"] = function()
    local random = test.random()
    local ends = {}
    for id = 1, 10 do
      local near, far = cosocket.pair()
      ends[id] = { connection.new(assert(near), session.config("client")), far }
    end
    local tasks = {}
    for id, pair_of in ipairs(ends) do
      local client, far = pair_of[1], pair_of[2]
      local wire, expected = cosocket.buffer(), {}
      local rules = codec.rules({ role = "server" })
      for round = 1, 20 do
        expected[round] = ("%d/%d "):format(id, round):rep(random(1, 200))
        codec.encode(wire, rules, "text", expected[round])
      end
      tasks[#tasks + 1] = function()
        while #wire > 0 do
          assert(far:write(wire:take(math.min(#wire, random(1, 700)))))
          cosocket.sleep(0.001)
        end
      end
      tasks[#tasks + 1] = function()
        for round = 1, 20 do test.equal(client:receive(), expected[round]) end
      end
    end
    together(table.unpack(tasks))
  end,

  ["a connection without anything under way holds no buffer"] = function()
    local client, server = pair()
    together(function()
      for _ = 1, 50 do assert(client:send("hello")) end
      assert(client:send_binary(("x"):rep(500000)))
      test.equal(client:receive(), "thanks")
    end, function()
      for _ = 1, 51 do assert(server:receive()) end
      assert(server:send("thanks"))
    end)
    for _, one in ipairs({ client, server }) do
      cosocket.deadline(1, one.receive, one)
      for _, name in ipairs({ "input", "output", "reading", "writing", "held", "bytes" }) do
        test.equal(rawget(one, name), nil, name)
      end
    end
  end,

  ["a deadline that passes takes nothing away"] = function()
    local client = scripted({
      { send = "\x81\x0bhello" },
      { stall = 10 },
      { send = " world\x81\x01!" },
    })
    test.fails("timeout", cosocket.deadline(5, client.receive, client))
    test.equal(client:receive(), "hello world")
    test.equal(client:receive(), "!")
  end,

  ["one task receives at a time, and another is told"] = function()
    local client, server = pair()
    local task = cosocket.spawn(function() test.equal(client:receive(), "for the first") end)
    cosocket.sleep(1)
    local err = test.fails("io", client:receive())
    test.equal(err.code, "EBUSY")
    assert(server:send("for the first"))
    task:join()
  end,

  ["a ping is answered while somebody receives"] = function()
    local client = scripted({
      { send = "\x89\x02hi" },
      frame("pong", "hi"),
      { send = "\x81\x02ok" },
    })
    test.equal(client:receive(), "ok")
  end,

  ["a ping is answered while a task only sends, and what comes then is kept"] = function()
    local client = scripted({
      { send = "\x89\x02hi\x81\x04news\x81\x04more" },
      frame("text", "1"),
      frame("pong", "hi"),
      frame("text", "2"),
    })
    cosocket.sleep(2)
    assert(client:send("1"))
    assert(client:send("2"))
    test.equal({ client:receive() }, { "news", "text", true })
    test.equal(client:receive(), "more")
  end,

  ["a silent peer is asked and then given up"] = function()
    local began = cosocket.now()
    local client = scripted({ frame("ping", "") }, { keep_alive = 30, keep_alive_timeout = 20 })
    local err = test.fails("timeout", client:receive())
    test.near(cosocket.now() - began, 50, 0.1)
    test.equal({ err.code, client.close_code }, { 1006, 1006 })
    test.equal(client:send("late"), nil)
  end,

  ["a message that takes longer to leave than a Ping may stay unanswered arrives"] = function()
    local client, server, _, far = pair({ keep_alive = 30, keep_alive_timeout = 20 })
    local bytes = ("x"):rep(8000000)
    local receiving = cosocket.spawn(function() return client:receive() end)
    local sending = cosocket.spawn(function() return client:send_binary(bytes) end)
    local arrived, began = cosocket.buffer(), cosocket.now()
    -- A slow line: 100,000 bytes a second.
    while #arrived < #bytes do
      cosocket.sleep(1)
      arrived:append(assert(far:read(math.min(100000, #bytes - #arrived))))
    end
    assert(cosocket.now() - began > 75)
    test.equal(sending:join(), true)
    server.input = arrived
    local got = server:receive()
    assert(got == bytes, "another message came")
    assert(server:send("thanks"))
    test.equal(receiving:join(), "thanks")
    test.equal({ client:progress() }, { select(1, client:progress()), 0 })
    together(function() server:receive() end, function() client:close() end)
    test.fails("closed", client:progress())
  end,

  ["a peer that answers pings is not given up"] = function()
    local client, server = pair({ keep_alive = 30 })
    local task = cosocket.spawn(function() server:receive() end)
    local _, err = cosocket.deadline(1000, client.receive, client)
    test.equal({ err.kind, client.err }, { "timeout" })
    task:cancel()
  end,

  ["a ping of one's own shows that the other side is there"] = function()
    local client = scripted({ frame("ping", "?"), { send = "\x8a\x01?" }, { send = "\x81\x01x" } })
    assert(client:ping("?"))
    test.equal(client:receive(), "x")
    test.raises("125 bytes", client.ping, client, ("x"):rep(126))
  end,

  ["both sides know why a connection is closed"] = function()
    local client, server = pair()
    local seen
    together(function()
      for message in server:messages() do seen = message end
    end, function()
      assert(client:send("last"))
      client:close(3001, "enough")
    end)
    test.equal(seen, "last")
    for _, one in ipairs({ client, server }) do
      test.equal({ one.err.kind, one.close_code }, { "closed", 3001 })
      local status = one:status()
      test.equal({ status.state, status.close_code, status.error == one.err }, { "closed", 3001, true })
      test.fails("closed", one:send("x"))
      test.fails("closed", one:receive())
      test.fails("closed", one:ping())
      test.fails("closed", one:send_stream("text", function() end))
      one:close()
    end
    test.equal(server.close_reason, "enough")
  end,

  ["one task may close what another receives from"] = function()
    local client, server = pair()
    local told
    together(function()
      local _, err = client:receive()
      told = err
    end, function()
      cosocket.sleep(1)
      client:close(1000)
    end, function()
      for _ in server:messages() do end
    end)
    test.equal({ told.kind, told.code }, { "closed", 1000 })
  end,

  ["a close that is not answered ends in time"] = function()
    local began = cosocket.now()
    local client = scripted({ frame("close", "", 1000), { expect_close = true } }, { close_timeout = 5 })
    client:close()
    test.near(cosocket.now() - began, 5, 0.1)
    test.equal({ client.err.kind, client.close_code }, { "timeout", 1006 })
  end,

  ["the end of a scope closes"] = function()
    local client, server = pair()
    together(function()
      local one <close> = client
      assert(one:send("x"))
    end, function()
      test.equal(server:receive(), "x")
      test.equal(select(2, server:receive()).code, 1000)
    end)
  end,

  ["a stream that ends without a close is an abnormal end"] = function()
    local client = scripted({ { send = "\x81\x05hel" }, { close = true } })
    local err = test.fails("closed", client:receive())
    test.equal({ err.code, client.close_code, err.cause.kind }, { 1006, 1006, "closed" })
    client = scripted({ { reset = true } })
    err = test.fails("closed", client:receive())
    test.equal(err.code, 1006)
  end,

  ["what breaks the protocol is told to the other side before the end"] = function()
    for bytes, code in pairs({ ["\xb1\x00"] = 1002, ["\x81\x02\xc3\x28"] = 1007, ["\x82\x7e\xff\xff"] = 1009 }) do
      local client = scripted({
        { send = bytes },
        frame("close", "", code),
        { close = true },
      }, { message_max = 1000 })
      test.fails(code == 1009 and "limit" or "protocol", client:receive())
      test.equal(client.close_code, code)
    end
  end,

  ["a server lets its last words arrive although more is sent to it"] = function()
    local near, far = cosocket.pair()
    local server = connection.new(far, session.config("server"))
    near:write("\x81\x00", ("x"):rep(200000))
    test.fails("protocol", server:receive())
    local rest = near:read_all()
    test.equal(rest, "\x88\x02\x03\xea")
  end,

  ["a long message is received in pieces and sent in pieces"] = function()
    local client, server = pair({ message_max = 1000 })
    local total, count = 0, 0
    together(function()
      local left = 100
      assert(client:send_stream("binary", function()
        left = left - 1
        return left >= 0 and ("x"):rep(10000) or nil
      end))
      assert(client:send("after"))
    end, function()
      for piece, kind in server:pieces() do
        test.equal(kind, "binary")
        total, count = total + #piece, count + 1
      end
      test.equal(server:receive(), "after")
    end)
    test.equal(total, 1000000)
    assert(count > 5, count)
  end,

  ["pieces of nothing are an empty message"] = function()
    local client, server = pair()
    assert(client:send_stream("text", function() end))
    for _ in server:pieces() do test.falsy(true) end
    assert(client:send_stream("text", ipairs({})))
    test.equal({ server:receive() }, { "", "text" })
  end,

  ["other messages wait until one in pieces is through, pings do not"] = function()
    local client, server = pair()
    together(function()
      local step = 0
      assert(client:send_stream("text", function()
        step = step + 1
        cosocket.sleep(1)
        return step < 4 and tostring(step) or nil
      end))
    end, function()
      cosocket.sleep(1.5)
      assert(client:ping())
      assert(client:send("behind"))
    end, function()
      test.equal(server:receive(), "123")
      test.equal(server:receive(), "behind")
    end)
  end,

  ["a message whose pieces fail closes the connection"] = function()
    local client, server = pair()
    together(function()
      test.raises("no more", function()
        client:send_stream("text", function(_, last)
          if last then error("no more") end
          return "half"
        end)
      end)
    end, function()
      local err = test.fails("closed", server:receive())
      test.equal(err.code, close_code.internal_error)
    end)
    test.equal(client.err ~= nil, true)
  end,

  ["a message that is cut raises in a loop over its pieces"] = function()
    local client = scripted({ { send = "\x02\x04half" }, { close = true } })
    local seen = ""
    test.raises("the connection is lost", function()
      for piece in client:pieces() do seen = seen .. piece end
    end)
    test.equal(seen, "half")
  end,

  ["mistakes raise, and blame the line that made them"] = function()
    local client = pair()
    test.matches(test.raises("must be UTF-8", function() client:send("\xff") end), "websocket_connection_test")
    test.matches(test.raises("a string is wanted", function() client:send(nil) end), "websocket_connection_test")
    test.raises("a string is wanted", client.send_binary, client, 5)
    local message = test.raises("connection:send%(%)", function() client.send("x") end)
    test.matches(message, "websocket_connection_test.lua:%d+: call this with a colon")
    test.raises("not a code", client.close, client, 1006)
    test.raises("not a code", client.close, client, "x")
    test.raises("123 bytes", client.close, client, 1000, ("x"):rep(124))
    test.raises("\"text\" or \"binary\"", client.send_stream, client, "json", function() end)
    test.equal({ client.err, #client.output, client.state }, { nil, 0, "open" })
  end,

  ["compressed connections say the same"] = function()
    for _, takeover in ipairs({ true, false }) do
      local both = { window_bits = 10, takeover = takeover }
      local client, server = pair(nil, { compression = { inflate = both, deflate = both, threshold = 0 } })
      test.equal(client:status().compressed, true)
      for _ = 1, 5 do
        local text = ("words and words "):rep(1000)
        assert(client:send(text))
        test.truthy(server:receive() == text)
        assert(server:send_stream("text", text:gmatch("%a+ ")))
        test.truthy(client:receive() == text)
      end
    end
  end,

  ["what a finaliser sends goes where it belongs"] = function()
    local client, server = pair()
    local other, far = pair()
    for round = 1, 200 do
      do
        local _ = setmetatable({}, { __gc = function() other:send("from a finaliser") end })
      end
      assert(client:send(("%d"):format(round):rep(100)))
      if round % 50 == 0 then collectgarbage() end
      test.equal(server:receive(), ("%d"):format(round):rep(100))
    end
    collectgarbage()
    for _ = 1, 100 do test.equal(far:receive(), "from a finaliser") end
  end,
}
