local certificate = require("test.certificate")
local cosocket = require("cosocket")
local test = require("test")

--- Sends now, not at the next wait.
local function send(stream, ...)
  assert(stream:write(...))
  assert(stream:flush())
end

--- Two streams over TCP on the loopback.
local function tcp_pair(options)
  local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0", options))
  local accepting = cosocket.spawn(function() return assert(listener:accept()) end)
  local near = assert(cosocket.connect("tcp://" .. listener:local_address()))
  return near, accepting:join()
end

--- Runs the tests over both kinds of stream.
local function over_both(body)
  return {
    ["over a pair"] = function() body(cosocket.pair()) end,
    ["over TCP"] = function() body(tcp_pair()) end,
  }
end

return {
  ["read answers whatever is there, read(n) exactly so many"] = over_both(function(one, other)
    send(other, "hello world")
    test.equal(one:read(), "hello world")
    send(other, "abc")
    local reader = cosocket.spawn(function() return one:read(6) end)
    cosocket.sleep(0.01)
    test.equal(reader:status(), "waiting")
    send(other, "defg")
    test.equal(reader:join(), "abcdef")
    test.equal(one:read(0), "")
    test.equal(one:read(1), "g")
  end),

  ["a read of much that is there lets others have their turn, and is still one read"] = function()
    local one, other = cosocket.pair()
    -- As much as the system holds at once.
    local text = ("0123456789"):rep(14000)
    send(other, text)
    local seen = {}
    cosocket.spawn(function()
      seen[#seen + 1] = "a turn"
      seen[#seen + 1] = tostring(select(2, one:read()))
    end)
    test.equal(one:read(#text), text)
    test.equal(seen[1], "a turn")
    test.matches(seen[2], "another task.*is waiting here already")
    -- A deadline in the middle takes nothing away, and a cancellation is heard of.
    send(other, text)
    local ok, err = cosocket.deadline(0, one.read, one, #text)
    test.equal({ ok, err.kind }, { nil, "timeout" })
    test.equal(one:read(#text), text)
    send(other, text)
    local reader = cosocket.spawn(function() return one:read(#text + 1) end)
    cosocket.spawn(function() reader:cancel() end)
    test.equal({ pcall(reader.join, reader) }, { true, nil, cosocket.error("cancelled", "join", "the task was cancelled") })
    other:close()
  end,

  ["read_line takes LF and CRLF, and gives back neither"] = over_both(function(one, other)
    send(other, "one\ntwo\r\n\nlone\rcr\n")
    test.equal({ one:read_line(), one:read_line(), one:read_line(), one:read_line() }, { "one", "two", "", "lone\rcr" })
  end),

  ["lines cut at any byte are the same lines"] = function()
    test.every_cut("first line\r\nsecond\n", function(first, second)
      local one, other = cosocket.pair()
      cosocket.spawn(function()
        send(other, first)
        cosocket.sleep(0.01)
        send(other, second)
        other:close()
      end)
      test.equal({ one:read_line(), one:read_line() }, { "first line", "second" })
      test.fails("closed", one:read_line())
    end)
  end,

  ["read_until takes its pattern along, however it is cut"] = function()
    test.every_cut("head\r\n\r\nbody", function(first, second)
      local one, other = cosocket.pair()
      cosocket.spawn(function()
        send(other, first)
        cosocket.sleep(0.01)
        send(other, second)
        other:close()
      end)
      test.equal(one:read_until("\r\n\r\n"), "head\r\n\r\n")
      test.equal(one:read_all(), "body")
    end)
  end,

  ["read_all answers everything up to the end, the empty text included"] = over_both(function(one, other)
    local text = ("0123456789"):rep(100000)
    cosocket.spawn(function()
      other:write(text)
      other:close()
    end)
    assert(one:read_all() == text)
    test.equal(one:read_all(), "")
    test.fails("closed", one:read())
  end),

  ["a limit that is reached consumes nothing"] = over_both(function(one, other)
    send(other, "0123456789\n")
    test.matches(test.fails("limit", one:read_line(5)).message, "longer than 5 bytes")
    test.fails("limit", one:read_until("9", 4))
    test.fails("limit", one:read_until("nowhere", 4))
    test.equal(one:read_line(10), "0123456789")
    send(other, "0123456789")
    local full = cosocket.spawn(function() return one:read_all(9) end)
    test.fails("limit", full:join())
    other:shutdown("write")
    test.equal(one:read_all(10), "0123456789")
  end),

  ["a line of just the limit passes, with LF and CRLF"] = function()
    for _, ending in ipairs({ "\n", "\r\n" }) do
      local one, other = cosocket.pair()
      send(other, "12345", ending, "123456", ending)
      test.equal(one:read_line(5), "12345")
      test.fails("limit", one:read_line(5))
      test.equal(one:read_line(6), "123456")
    end
  end,

  ["a peer that never ends a line is stopped at the limit, not at the end of memory"] = function()
    local one, other = cosocket.pair()
    local writer = cosocket.spawn(function()
      while other:write(("x"):rep(65536)) do end
    end)
    local before = collectgarbage("count")
    test.fails("limit", one:read_line())
    test.fails("limit", one:read_until("\r\n\r\n"))
    test.fails("limit", one:read_all(1000000))
    assert(collectgarbage("count") - before < 4096)
    writer:cancel()
  end,

  ["a read of a huge size allocates nothing before the bytes are there"] = function()
    local one, other = cosocket.pair()
    send(other, "abc")
    local before = tonumber(io.open("/proc/self/statm"):read("a"):match("^%d+ (%d+)"))
    test.fails("timeout", cosocket.deadline(1, one.read, one, 1 << 30))
    local after = tonumber(io.open("/proc/self/statm"):read("a"):match("^%d+ (%d+)"))
    assert((after - before) * 4096 < 8 << 20, "grew")
    test.equal(one:read(3), "abc")
  end,

  ["a read that times out consumes nothing"] = {
    ["whichever read it is"] = function()
      local calls = {
        function(stream) return stream:read(100) end,
        function(stream) return stream:read_line() end,
        function(stream) return stream:read_until("END") end,
        function(stream) return stream:read_all() end,
      }
      for round, call in ipairs(calls) do
        local one, other = cosocket.pair()
        for _, part in ipairs({ "some ", "bytes ", "here" }) do
          send(other, part)
          test.fails("timeout", cosocket.deadline(0.5, call, one))
        end
        test.equal(one:read(15), "some bytes here", ("call %d"):format(round))
        test.fails("timeout", cosocket.deadline(0.5, call, one))
        send(other, "next\n")
        test.equal(one:read_line(), "next")
      end
    end,

    ["over TCP, with bytes that come while nobody reads"] = function()
      local one, other = tcp_pair()
      send(other, "ab")
      test.fails("timeout", cosocket.deadline(0.05, one.read, one, 4))
      send(other, "cd")
      test.equal(one:read(4), "abcd")
    end,

    ["with fill and turn"] = function()
      local one, other = cosocket.pair()
      local input, output = cosocket.buffer(), cosocket.buffer()
      test.fails("timeout", cosocket.deadline(1, one.fill, one, input))
      test.fails("timeout", one:turn(input, output, cosocket.now() + 1))
      send(other, "hello")
      test.equal(one:fill(input), 5)
      test.equal(input:take(), "hello")
    end,
  },

  ["one task reads while another writes"] = over_both(function(one, other)
    local size = 3000000
    local function pump(stream)
      local writer = cosocket.spawn(function()
        for _ = 1, size // 1000 do assert(stream:write(("x"):rep(1000))) end
        assert(stream:shutdown("write"))
      end)
      local count = 0
      while true do
        local data = stream:read()
        if not data then break end
        count = count + #data
      end
      writer:join()
      return count
    end
    local far = cosocket.spawn(pump, other)
    test.equal(pump(one), size)
    test.equal(far:join(), size)
  end),

  ["a second reader is told who reads already"] = function()
    local one, other = cosocket.pair()
    local first = cosocket.spawn("the first", function() return one:read() end)
    cosocket.sleep(0)
    local err = test.fails("io", one:read_line())
    test.equal(err.code, "EBUSY")
    test.matches(err.message, "another task %(the first%)")
    test.matches(err.message, "one task reads at a time")
    test.fails("io", one:turn(cosocket.buffer(), cosocket.buffer()))
    test.fails("io", one:fill(cosocket.buffer()))
    send(other, "x")
    test.equal(first:join(), "x")
    send(other, "y")
    test.equal(one:read(), "y")
  end,

  ["a write beyond queue_max parks until there is room, try_write says limit"] = function()
    local one, other = tcp_pair()
    assert(one:set_option("queue_max", 1000))
    local chunk, sent = ("x"):rep(1000), 0
    local writer = cosocket.spawn(function()
      for _ = 1, 20000 do
        assert(one:write(chunk))
        sent = sent + #chunk
      end
    end)
    cosocket.sleep(0.2)
    test.equal(writer:status(), "waiting")
    assert(sent < 20000000)
    local err = test.fails("limit", one:try_write(chunk))
    test.matches(err.message, "1000 bytes do not fit")
    local got = 0
    while got < 20000000 do got = got + #other:read() end
    test.equal(writer:join(), nil)
    test.equal(one:try_write("small"), true)
    test.equal(other:read(5), "small")
  end,

  ["try_write takes all or nothing"] = function()
    local one, other = cosocket.pair()
    one:set_option("queue_max", 100)
    test.fails("limit", one:try_write("a", ("x"):rep(100)))
    test.equal(one:try_write("a", "b", 1), true)
    test.equal(other:read(), "ab1")
  end,

  ["several writers do not mix their writes"] = function()
    for _, make in ipairs({ cosocket.pair, tcp_pair }) do
      local one, other = make()
      one:set_option("queue_max", 5000)
      for id = 1, 5 do
        cosocket.spawn(function()
          for i = 1, 200 do
            local size = (id * 37 + i * 91) % 3000
            assert(one:write("<", id, " ", size, " ", ("x"):rep(size), cosocket.buffer("!"), ">\n"))
          end
        end)
      end
      for _ = 1, 1000 do
        local line = assert(other:read_line())
        local size = test.matches(line, "^<%d (%d+) x*!>$")
        test.equal(#line, #"<1  !>" + #tostring(size) + math.tointeger(size))
      end
    end
  end,

  ["small writes of many parts stay together although turns are short"] = function()
    -- More parts than one turn has operations.
    local one, other = cosocket.pair()
    for id = 1, 4 do
      cosocket.spawn(function()
        for _ = 1, 50 do one:write(id, id, id, id, id, id, id, "\n") end
      end)
    end
    for _ = 1, 200 do test.matches(other:read_line(), "^(%d)%1%1%1%1%1%1$") end
  end,

  ["a write that times out in the middle spoils the stream, before the first byte it does not"] = function()
    local one, other = tcp_pair()
    local big = ("x"):rep(20000000)
    test.fails("timeout", cosocket.deadline(0.1, one.write, one, big))
    test.matches(test.fails("closed", one:write("more")).message, "cut short")
    other:close()
    local near, far = tcp_pair()
    local filler = cosocket.spawn(function() near:write(big) end)
    cosocket.sleep(0.1)
    test.fails("timeout", cosocket.deadline(0.1, near.write, near, "second"))
    cosocket.spawn(function()
      test.equal(#far:read(#big), #big)
      test.equal(far:read(5), "third")
    end)
    filler:join()
    test.equal(near:write("third"), true)
    test.equal(near:flush(), true)
  end,

  ["everything written before close arrives"] = function()
    for _, make in ipairs({ cosocket.pair, tcp_pair }) do
      local one, other = make()
      local text = ("0123456789abcdef"):rep(65536)
      one:set_option("queue_max", 2 * #text)
      test.equal(one:write(text), true)
      one:close()
      local got = {}
      while true do
        local part, err = other:read(4096)
        if not part then
          test.fails("closed", part, err)
          break
        end
        got[#got + 1] = part
        if #got % 100 == 0 then cosocket.sleep(0.001) end
      end
      assert(table.concat(got) == text)
    end
  end,

  ["after shutdown the other side reads the end, and may still answer"] = over_both(function(one, other)
    assert(one:write("question"))
    test.equal(one:shutdown("write"), true)
    test.equal(other:read_all(), "question")
    send(other, "answer")
    other:close()
    test.equal(one:read_all(), "answer")
    test.fails("closed", one:write("x"))
    test.equal(one:shutdown(), true)
  end),

  ["what the other side said before it closed is read although writing fails"] = over_both(function(one, other)
    send(other, "421 going away\r\n")
    other:close()
    cosocket.sleep(0.01)
    one:write("HELO\r\n")
    one:flush()
    one:write("MAIL\r\n")
    one:flush()
    test.equal(one:read_line(), "421 going away")
    test.fails("closed", one:read_line())
    test.fails("closed", one:write("x"))
  end),

  ["a reset is not a clean end"] = over_both(function(one, other)
    one:write("never read")
    one:flush()
    send(other, "half of an ans")
    cosocket.sleep(0.01)
    test.equal(one:read(4), "half")
    local reader = cosocket.spawn(function() return one:read_all() end)
    cosocket.sleep(0.01)
    other:close() -- with unread bytes: the system resets
    local err = test.fails("closed", reader:join())
    test.equal(err.code, "ECONNRESET")
    test.equal(test.fails("closed", one:read_all()).code, "ECONNRESET")
  end),

  ["a reset that a write meets first is no clean end for who reads"] = function()
    local one, other = tcp_pair()
    send(other, "half of an ans")
    cosocket.sleep(0.01)
    other:reset()
    cosocket.sleep(0.01)
    one:write("question")
    test.equal(test.fails("closed", one:flush()).code, "ECONNRESET")
    test.equal(one:read(4), "half")
    test.equal(test.fails("closed", one:read_all()).code, "ECONNRESET")
    test.equal(one:read(), " of an ans")
    test.equal(test.fails("closed", one:read()).code, "ECONNRESET")
  end,

  ["reset ends a TCP connection by RST, for whoever waits on either side"] = function()
    local one, other = tcp_pair()
    local reader = cosocket.spawn(function() return one:read_all() end)
    local own_reader = cosocket.spawn(function() return other:read() end)
    cosocket.sleep(0.01)
    assert(other:write("never sent"))
    test.equal(other:reset(), true)
    test.equal(test.fails("closed", reader:join()).code, "ECONNRESET")
    test.fails("closed", own_reader:join())
    test.fails("closed", other:write("x"))
    test.equal(other:reset(), true)
    test.equal(other:close(), true)
  end,

  ["reset drops what a closed stream still has to send"] = function()
    local one, other = tcp_pair()
    -- More than the system takes, so that it cannot leave before somebody reads.
    assert(other:set_option("queue_max", 64 * 1024 * 1024))
    assert(other:write(("x"):rep(32 * 1024 * 1024)))
    other:close()
    cosocket.sleep(0.01)
    other:reset()
    local got = 0
    local data, err = one:read()
    while data do
      got = got + #data
      data, err = one:read()
    end
    test.equal(test.fails("closed", data, err).code, "ECONNRESET")
    assert(got < 32 * 1024 * 1024)
  end,

  ["a pair that is reset ends: no RST is known there"] = function()
    local one, other = cosocket.pair()
    other:write("dropped")
    other:reset()
    test.equal(one:read_all(), "")
  end,

  ["an end in the middle says how much was left"] = function()
    local one, other = cosocket.pair()
    send(other, "abc")
    other:close()
    test.matches(test.fails("closed", one:read(10)).message, "too early; 3 bytes")
    test.matches(test.fails("closed", one:read_line()).message, "too early; 3 bytes")
    test.equal(one:read(), "abc")
    test.fails("closed", one:read())
  end,

  ["a closed stream says so to everyone, those who wait included"] = function()
    local one = cosocket.pair()
    local reader = cosocket.spawn(function() return one:read() end)
    cosocket.sleep(0)
    test.equal(one:close(), true)
    test.fails("closed", reader:join())
    test.equal(one:close(), true)
    for _, call in ipairs({ "read", "read_line", "read_all", "flush", "handshake", "shutdown", "start_tls" }) do
      test.fails("closed", one[call](one))
    end
    test.fails("closed", one:read_until("x"))
    test.fails("closed", one:write("x"))
    test.fails("closed", one:try_write("x"))
    test.fails("closed", one:fill(cosocket.buffer()))
    test.fails("closed", one:turn(cosocket.buffer(), cosocket.buffer("x")))
    test.fails("closed", one:try_flush(cosocket.buffer("x")))
    test.fails("closed", one:local_address())
    test.fails("closed", one:peer_address())
    test.fails("closed", one:set_option("nodelay", true))
    test.equal(one:tls_info(), nil)
    test.equal(one:wake(), nil)
    test.matches(tostring(one), "closed")
  end,

  ["turn"] = {
    ["moves both directions and parks on either"] = function()
      local one, other = tcp_pair()
      local size = 5000000
      local function exchange(stream)
        local input, output = cosocket.buffer(), cosocket.buffer(("x"):rep(size))
        local got = 0
        while got < size or #output > 0 do
          assert(stream:turn(input, output))
          got = got + #input
          input:clear()
        end
        assert(stream:flush())
        return got
      end
      local far = cosocket.spawn(exchange, other)
      test.equal(exchange(one), size)
      test.equal(far:join(), size)
    end,

    ["is woken by another task"] = function()
      local one = cosocket.pair()
      local turned = cosocket.spawn(function() return one:turn(cosocket.buffer(), cosocket.buffer()) end)
      cosocket.sleep(1)
      one:wake()
      test.equal(turned:join(), true)
      -- A wake that came before counts, once.
      one:wake()
      test.equal(one:turn(cosocket.buffer(), cosocket.buffer()), true)
      test.fails("timeout", one:turn(cosocket.buffer(), cosocket.buffer(), cosocket.now() + 1))
    end,

    ["without input sends, is woken, and ends at its deadline, and reads nothing"] = function()
      local one, other = tcp_pair()
      local size = 5000000
      local output = cosocket.buffer(("x"):rep(size))
      send(other, "unread")
      local sender = cosocket.spawn(function()
        while #output > 0 do assert(one:turn(nil, output)) end
        return one:turn(nil, output)
      end)
      test.equal(#other:read(size), size)
      cosocket.sleep(1)
      test.equal(sender:status(), "waiting")
      send(other, ", still")
      cosocket.sleep(1)
      test.equal(sender:status(), "waiting")
      one:wake()
      test.equal(sender:join(), true)
      local before = cosocket.now()
      test.fails("timeout", one:turn(nil, output, before + 1))
      test.near(cosocket.now() - before, 1, 0.001)
      local input = cosocket.buffer()
      test.equal(one:turn(input, output), true)
      test.equal(input:take(), "unread, still")
    end,

    ["without input is the one who reads all the same"] = function()
      local one <close> = cosocket.pair()
      local waiting = cosocket.spawn(function() return one:turn(nil, cosocket.buffer()) end)
      cosocket.sleep(1)
      test.fails("io", one:turn(nil, cosocket.buffer()))
      one:wake()
      test.equal(waiting:join(), true)
      one:close()
      test.fails("closed", one:turn(nil, cosocket.buffer("x")))
    end,

    ["gives what can still be read before it tells that nobody listens"] = function()
      local one, other = cosocket.pair()
      send(other, "last words")
      other:close()
      local input, output = cosocket.buffer(), cosocket.buffer("to nobody")
      test.equal(one:turn(input, output), true)
      test.equal(input:take(), "last words")
      test.fails("closed", one:turn(input, output))
    end,
  },

  ["try_flush moves what may wait, and leaves the rest"] = function()
    local one, other = cosocket.pair()
    local output = cosocket.buffer("hello")
    test.equal(one:try_flush(output), true)
    test.equal(#output, 0)
    test.equal(other:read(), "hello")
    output:append(("x"):rep(3000000))
    test.equal(one:try_flush(output), true)
    assert(#output > 0)
  end,

  ["write takes strings, numbers and buffers, and keeps the buffers"] = function()
    local one, other = cosocket.pair()
    local buffer = cosocket.buffer("buf")
    test.equal(one:write("a", 1, 2.5, buffer, "", buffer), true)
    test.equal(other:read(), "a12.5bufbuf")
    test.equal(buffer:peek(), "buf")
    test.equal(one:write(), true)
  end,

  ["progress tells what has arrived at the other side's system, read or not, and what waits"] = function()
    local one, other = tcp_pair()
    test.equal({ one:progress() }, { 0, 0 })
    send(one, ("x"):rep(1000))
    assert(other:read(1000))
    -- With its own bytes the other side acknowledges ours.
    send(other, "y")
    assert(one:read(1))
    test.equal({ one:progress() }, { 1000, 0 })
    local size = 20000000
    assert(one:set_option("queue_max", size))
    assert(one:write(("x"):rep(size)))
    local delivered, waiting = one:progress()
    test.equal(delivered + waiting, 1000 + size)
    assert(waiting > 0, waiting)
    -- Nobody reads: what has arrived fills the other side's buffer, and then nothing moves.
    local before
    repeat
      before = delivered
      cosocket.sleep(1)
      assert(one:try_flush(cosocket.buffer()))
      delivered, waiting = one:progress()
      test.equal(delivered + waiting, 1000 + size)
    until delivered == before
    assert(waiting > 0, waiting)
    local reader = cosocket.spawn(function()
      assert(other:read(size))
      send(other, "y")
    end)
    assert(one:read(1))
    reader:join()
    test.equal({ one:progress() }, { 1000 + size, 0 })
    one:close()
    test.fails("closed", one:progress())
  end,

  ["progress over TLS is exact when nothing is on its way"] = function()
    local one, other = tcp_pair()
    local tls = { server = true, certificate = certificate.localhost, key = certificate.key }
    local serving = cosocket.spawn(function() return assert(other:start_tls(tls)) end)
    assert(one:start_tls({ ca = certificate.ca, server_name = "localhost" }))
    serving:join()
    local size = 20000000
    assert(one:set_option("queue_max", size))
    assert(one:write(("x"):rep(size)))
    local delivered, waiting = one:progress()
    -- What waits is longer by what TLS adds.
    assert(waiting > 0 and delivered < size and delivered + waiting >= size, delivered)
    assert(delivered + waiting < size * 1.01, waiting)
    local reader = cosocket.spawn(function()
      assert(other:read(size))
      send(other, "y")
    end)
    assert(one:read(1))
    reader:join()
    test.equal({ one:progress() }, { size, 0 })
  end,

  ["progress of a pair is what the system has taken"] = function()
    local one, other = cosocket.pair()
    local size = 2000000
    assert(one:set_option("queue_max", size))
    assert(one:write(("x"):rep(size)))
    local delivered, waiting = one:progress()
    assert(delivered > 0 and waiting > 0, delivered)
    test.equal(delivered + waiting, size)
    assert(other:read(size))
    test.equal({ one:progress() }, { size, 0 })
  end,

  ["wrong arguments raise, blame the caller's line and send nothing"] = function()
    local one, other = cosocket.pair()
    local calls = {
      function() one:read(-1) end,
      function() one:read(1 << 40) end,
      function() one:read("many") end,
      function() one:read(1.5) end,
      function() one:read_line(0) end,
      function() one:read_until() end,
      function() one:read_until("") end,
      function() one:read_all({}) end,
      function() one:fill() end,
      function() one:fill("x") end,
      function() one:turn(cosocket.buffer()) end,
      function()
        local same = cosocket.buffer()
        one:turn(same, same)
      end,
      function() one:turn(cosocket.buffer(), cosocket.buffer(), "soon") end,
      function() one:write("sent?", {}) end,
      function() one:write(nil) end,
      function() one:try_write(true) end,
      function() one:try_flush("x") end,
      function() one:shutdown("read") end,
      function() one:set_option("colour", 1) end,
      function() one:set_option("nodelay", "yes") end,
      function() one:set_option("queue_max", 0) end,
      function() one:set_option("queue_max", {}) end,
      function() one:set_option({}, 1) end,
      function() one:set_option() end,
      function() one:start_tls(5) end,
      function() one:start_tls({ serve = true }) end,
      function() one.read() end,
      function() one.read(5) end,
      function() one.close({}) end,
      function() one.local_address("x") end,
      function() one.progress(1) end,
      function() one:set_option("keepalive_interval", "1") end,
      function() one:set_option("keepalive_count", 1.5) end,
      function() one.shutdown(1) end,
      function() one.start_tls(io.stdout) end,
    }
    for i, call in ipairs(calls) do
      local ok, err = pcall(call)
      local note = ("call %d: %s"):format(i, tostring(err))
      assert(not ok and cosocket.is_error(err, "argument"), note)
      test.equal(type(err.op), "string", note)
      test.matches(err.message, "^lua/test/cosocket_stream_test.lua:%d+: ")
      local line = tonumber(err.message:match(":(%d+):"))
      local info = debug.getinfo(call, "S")
      assert(line >= info.linedefined and line <= info.lastlinedefined, note)
    end
    one:close()
    test.equal(other:read_all(), "")
  end,
}
