-- The server, asked by bytes on streams and sockets: what goes wrong, what takes too long, and how it stops.
local asker = require("test.http_asker")
local cosocket = require("cosocket")
local log = require("log")
local message = require("http.message")
local server = require("http.server")
local test = require("test")

-- Some tests make mistakes on purpose, which are told.
log.level("off")

local connect, new = asker.connect, asker.new

local failures = {
  ["a handler that fails is answered with 500, and nothing is told"] = function()
    local one = new()
    one:get("/raise", function() error("the password is secret") end)
    one:get("/raise_table", function() error({ secret = "secret" }) end)
    one:get("/nothing", function() end)
    one:get("/split", function(_, response) response:send({ headers = { X = "a\r\nSecret: b" }, body = "x" }) end)
    one:get("/twice", function(_, response)
      response:send("once")
      response:send("twice")
    end)
    local peer = connect(one)
    for _, path in ipairs({ "/raise", "/raise_table", "/nothing", "/split" }) do
      local answer = peer:get(path)
      test.equal({ answer.status, answer.body }, { 500, "Internal Server Error\n" }, path)
    end
    test.equal(peer:get("/twice").body, "once")
    test.equal(peer:get("/hello").status, 200)
  end,

  ["a response that is cut short cannot be taken for whole"] = function()
    local one = new()
    one:get("/chunks", function(_, response)
      response:write("a")
      error("oh")
    end)
    one:get("/source", function(_, response) response:send({ body = function(write)
      write("a")
      error("oh")
    end }) end)
    one:get("/source_error", function(_, response)
      local told = false
      response:send({ body = function()
        if told then return nil, cosocket.error("io", "sensor", "gone") end
        told = true
        return "a"
      end })
    end)
    one:get("/short", function(_, response) response:send({ length = 5, body = function(write) write("abc") end }) end)
    one:get("/short_write", function(_, response)
      response:start({ length = 5 })
      response:write("abc")
    end)
    for _, path in ipairs({ "/chunks", "/source", "/source_error", "/short", "/short_write" }) do
      local peer = connect(one)
      local answer = peer:get(path)
      test.equal(answer.status, 200)
      test.equal(test.fails("closed", answer.body, answer.err).kind, "closed", path)
    end
    -- What is too long is not sent.
    one:get("/long", function(_, response) response:send({ length = 2, body = function(write) write("abc") end }) end)
    local answer = connect(one):get("/long")
    test.fails("closed", answer.body, answer.err)
  end,

  ["what is no request is answered with what is wrong, and the connection ends"] = function()
    local one = new({ head_max = 300, headers_max = 3, start_line_max = 100, body_max = 10 })
    local cases = {
      ["GARBAGE\r\n\r\n"] = 400,
      ["GET / HTTP/1.1\r\n\r\n"] = 400,
      ["GET / HTTP/1.1\nHost: h\n\n"] = 400,
      ["GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"] = 400,
      ["POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] = 400,
      ["POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\nx"] = 400,
      ["GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n"] = 400,
      ["GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n"] = 400,
      ["GET / HTTP/2.0\r\nHost: h\r\n\r\n"] = 505,
      ["POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"] = 501,
      ["POST / HTTP/1.1\r\nHost: h\r\nExpect: wonders\r\n\r\n"] = 417,
      ["GET /" .. ("x"):rep(200)] = 414,
      ["GET / HTTP/1.1\r\nHost: h\r\nX: " .. ("x"):rep(300)] = 431,
      ["GET / HTTP/1.1\r\nHost: h\r\na: b\r\na: b\r\na: b\r\n\r\n"] = 431,
      ["POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello world"] = 413,
      ["POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n"] = 413,
      ["POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"] = 400,
    }
    for bytes, status in pairs(cases) do
      local peer = connect(one)
      -- What follows must never be taken for a request.
      local answer = peer:ask(bytes .. "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
      test.equal({ answer.status, answer.headers and answer.headers["connection"] }, { status, "close" }, bytes)
      test.equal({ peer:is_closed(), #peer.input }, { true, 0 }, bytes)
    end
    -- A client gets a little time to read our last words.
    cosocket.sleep(3)
    test.equal(one:count(), 0)
  end,

  ["random bytes are refused or answered, and nothing is left behind"] = function()
    local random, one = test.random(), new({ head_timeout = 1, idle_timeout = 2, body_timeout = 1 })
    local parts = { "GET /hello HTTP/1.1\r\n", "Host: h\r\n", "\r\n", "POST /echo HTTP/1.1\r\n", "Content-Length: 3\r\n", "abc", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n", "0\r\n\r\n", "\0", "\n", "Connection: close\r\n", "Expect: 100-continue\r\n" }
    for _ = 1, 150 do
      local peer, bytes = connect(one), {}
      for i = 1, random(1, 12) do bytes[i] = random(8) == 1 and random:bytes(random(1, 20)) or random:pick(parts) end
      peer.stream:write(table.concat(bytes))
      peer.stream:flush()
      cosocket.deadline(100, function()
        repeat
          peer.input:clear()
          local count = peer.stream:fill(peer.input)
        until not count
      end)
      peer.stream:close()
    end
    cosocket.sleep(10)
    test.equal(one:count(), 0)
  end,
}

local bodies = {
  ["100 is sent when a handler wants the body, and only then"] = function()
    local one = new()
    one:post("/no", function(_, response) response:error(403) end)
    local head = "POST %s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    local peer = connect(one)
    peer.stream:write(head:format("/echo"))
    test.equal(message.next_response(peer.stream, peer.input, peer.output, "POST"), 100)
    test.equal(peer:ask("hello").body, "hello")
    -- The body is here already.
    test.equal(peer:ask(head:format("/echo") .. "hello").body, "hello")
    -- Refused: the client may now send the body or not, so the connection ends (RFC 9110, 10.1.1).
    local answer = peer:ask(head:format("/no"))
    test.equal({ answer.status, answer.headers["connection"] }, { 403, "close" })
    peer.stream:close()
    -- Too large, which nobody needs to see.
    peer = connect(new({ body_max = 4 }))
    answer = peer:ask(head:format("/echo"))
    test.equal({ answer.status, answer.headers["connection"] }, { 413, "close" })
  end,

  ["a body that the handler did not read is dropped, if it is short"] = function()
    local one = new()
    one:post("/ignore", function(_, response) response:send("ignored") end)
    local peer = connect(one)
    test.equal(peer:post("/ignore", ("x"):rep(60000)).body, "ignored")
    local head = "POST /ignore HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    test.equal(peer:ask(head .. "3\r\nabc\r\n0\r\n\r\n").body, "ignored")
    test.equal(peer:get("/hello").body, "hello")
    local answer = peer:post("/ignore", ("x"):rep(70000))
    test.equal({ answer.body, answer.headers["connection"] }, { "ignored", "close" })
    test.equal(peer:is_closed(), true)
    -- Chunks say only later that they are many.
    peer = connect(one)
    test.equal(peer:ask(head .. "11170\r\n" .. ("x"):rep(70000) .. "\r\n0\r\n\r\n").body, "ignored")
    test.equal(peer:is_closed(), true)
  end,

  ["a body that nobody reads cannot hold a connection for ever"] = function()
    local one = new({ body_timeout = 10 })
    one:post("/ignore", function(_, response) response:send("ignored") end)
    local peer = connect(one)
    local head = "POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"
    test.equal(peer:ask(head).body, "ignored")
    local began = cosocket.now()
    cosocket.spawn(function()
      while peer.stream:write("x") and peer.stream:flush() do cosocket.sleep(5) end
    end)
    test.equal(peer:is_closed(), true)
    test.near(cosocket.now() - began, 10, 1)
  end,

  ["a client that goes away in the middle of its body is an error for the handler only"] = function()
    local one, seen = new(), nil
    one:post("/see", function(request)
      local _, err = request:body()
      seen = err
    end)
    local peer = connect(one)
    peer.stream:write("POST /see HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel")
    peer.stream:close()
    cosocket.sleep(1)
    test.fails("closed", nil, seen)
    test.equal(one:count(), 0)
  end,
}

local patience = {
  ["a head that comes too slowly is answered with 408"] = function()
    local peer = connect(new({ head_timeout = 10 }))
    local began = cosocket.now()
    cosocket.spawn(function()
      for byte in ("GET /hello HTTP/1.1\r\nHost: h"):gmatch(".") do
        if not peer.stream:write(byte) then return end
        cosocket.sleep(1)
      end
    end)
    local answer = peer:receive()
    test.equal({ answer.status, answer.headers["connection"] }, { 408, "close" })
    test.near(cosocket.now() - began, 10, 0.5)
  end,

  ["a connection without requests is closed in silence"] = function()
    local one = new({ idle_timeout = 20 })
    local peer = connect(one)
    local began = cosocket.now()
    test.equal(peer:is_closed(), true)
    test.near(cosocket.now() - began, 20, 0.5)
    peer = connect(one)
    cosocket.sleep(15)
    test.equal(peer:get("/hello").status, 200)
    cosocket.sleep(15)
    test.equal(peer:get("/hello").status, 200)
    test.equal(peer:is_closed(), true)
    test.equal(one:count(), 0)
  end,

  ["a body that stalls is answered with 408, one that only takes its time is not"] = function()
    local one = new({ body_timeout = 10 })
    local head = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"
    local peer = connect(one)
    peer.stream:write(head)
    for byte in ("hello"):gmatch(".") do
      cosocket.sleep(8)
      peer.stream:write(byte)
      peer.stream:flush()
    end
    test.equal(peer:receive().body, "hello")
    peer.stream:write(head .. "hel")
    local answer = peer:receive()
    test.equal({ answer.status, answer.headers["connection"] }, { 408, "close" })
    test.equal(peer:is_closed(), true)
  end,

  ["a client that does not read is given up"] = function()
    local one, outcome = new({ write_timeout = 30 }), nil
    one:get("/flood", function(_, response)
      local piece = ("x"):rep(65536)
      while true do
        local ok, err = response:write(piece)
        if not ok then
          outcome = err
          return
        end
      end
    end)
    local peer = connect(one)
    peer.stream:write("GET /flood HTTP/1.1\r\nHost: h\r\n\r\n")
    peer.stream:flush()
    cosocket.sleep(60)
    test.fails("timeout", nil, outcome)
    test.equal(one:count(), 0)
  end,

  ["a client that reads slowly gets all of a long body"] = function()
    local one, outcomes = new({ write_timeout = 30 }), {}
    local text = ("0123456789abcdef"):rep(125000)
    local bodies = {
      text = text,
      buffer = cosocket.buffer(text),
      pushed = function(write) return nil, select(2, write(text)) end,
    }
    for name, body in pairs(bodies) do
      one:get("/" .. name, function(_, response) outcomes[name] = response:send({ body = body }) end)
    end
    for name in pairs(bodies) do
      local peer = connect(one)
      peer.stream:write(("GET /%s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"):format(name))
      local came = {}
      while true do
        local piece = peer.stream:read()
        if not piece then break end
        came[#came + 1] = piece
        cosocket.sleep(#piece / 20000)
      end
      local answer = table.concat(came)
      test.equal(outcomes[name], true, name)
      if name ~= "pushed" then test.truthy(answer:sub(-#text) == text, name) end
    end
  end,

  ["a client that sends requests and reads no answers is given up, too"] = function()
    local one = new({ write_timeout = 30 })
    one:get("/large", function(_, response) response:send(("x"):rep(100000)) end)
    local peer = connect(one)
    for _ = 1, 50 do peer.stream:write("GET /large HTTP/1.1\r\nHost: h\r\n\r\n") end
    peer.stream:flush()
    cosocket.sleep(60)
    test.equal(one:count(), 0)
  end,

  ["a connection has so many requests and no more"] = function()
    local peer = connect(new({ requests_max = 3 }))
    test.equal(peer:get("/hello").headers["connection"], nil)
    test.equal(peer:get("/hello").headers["connection"], nil)
    test.equal(peer:get("/hello").headers["connection"], "close")
    test.equal(peer:is_closed(), true)
  end,

  ["there are so many connections and no more"] = function()
    local one = new({ connections_max = 2 })
    local first, second, third = connect(one), connect(one), connect(one)
    test.equal(first:get("/hello").status, 200)
    test.equal(second:get("/hello").status, 200)
    local answer = third:receive()
    test.equal({ answer.status, answer.headers["connection"], answer.headers["retry-after"] }, { 503, "close", "1" })
    test.equal(third:is_closed(), true)
    first.stream:close()
    cosocket.sleep(0.1)
    test.equal(connect(one):get("/hello").status, 200)
  end,
}

local stopping = {
  ["a stop closes what is idle and lets requests finish"] = function()
    local one = new()
    one:get("/slow", function(_, response)
      cosocket.sleep(3)
      response:send("done")
    end)
    local idle, busy = connect(one), connect(one)
    test.equal(idle:get("/hello").status, 200)
    busy.stream:write("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
    busy.stream:flush()
    cosocket.sleep(1)
    local began = cosocket.now()
    local stopped = cosocket.spawn(function() return one:stop(10) end)
    test.equal(idle:is_closed(), true)
    test.near(cosocket.now() - began, 0, 0.1)
    local answer = busy:receive()
    test.equal({ answer.body, answer.headers["connection"] }, { "done", "close" })
    test.equal(stopped:join(), true)
    test.near(cosocket.now() - began, 2, 0.1)
    test.equal(one:count(), 0)
    test.equal(connect(one):receive().status, 503)
  end,

  ["a stop ends what does not finish in time"] = function()
    local one = new()
    one:get("/never", function() cosocket.event():wait() end)
    local peer = connect(one)
    peer.stream:write("GET /never HTTP/1.1\r\nHost: h\r\n\r\n")
    peer.stream:flush()
    cosocket.sleep(1)
    local began = cosocket.now()
    test.equal(one:stop(4), true)
    test.near(cosocket.now() - began, 4, 0.1)
    test.equal(peer:is_closed(), true)
    test.equal(one:count(), 0)
  end,

  ["a server listens, says where, and stops listening"] = function()
    local one = assert(server.listen("http://127.0.0.1:0", { ["GET /a"] = function(_, response) response:send("a") end }))
    local address = one:address()
    local stream = assert(cosocket.connect("tcp://" .. address))
    local peer = asker.over(stream)
    test.equal(peer:get("/a").body, "a")
    test.equal(peer:get("/b").status, 404)
    one:stop()
    test.equal(peer:is_closed(), true)
    test.fails("connect", cosocket.connect("tcp://" .. address))
    local two = assert(server.listen("tcp://127.0.0.1:0", function(request, response) response:send(request.peer) end))
    local other = assert(cosocket.connect("tcp://" .. two:address()))
    peer = asker.over(other)
    test.equal(peer:get("/any").body, other:local_address())
    test.fails("io", server.listen("tcp://" .. two:address(), function() end))
    two:stop()
  end,

  ["TCP keep-alive is that of the connections a server accepts"] = function()
    local function table_of_connections()
      local file <close> = io.open("/proc/net/tcp")
      return file and file:read("a") or test.skip("no /proc/net/tcp, which tells the timers of connections")
    end
    for _, case in ipairs({ { options = { keepalive = 100 }, most = 100 }, { options = {} } }) do
      local one = assert(server.listen("tcp://127.0.0.1:0", function() end, case.options))
      local stream <close> = assert(cosocket.connect("tcp://" .. one:address()))
      while one:count() == 0 do cosocket.sleep(0) end
      local port = function(address) return ("%04X"):format(math.tointeger(address:match("%d+$"))) end
      -- Addresses, state, queues, then which timer runs (2: keep-alive) and until when, in hundredths of a second.
      local line = ("0100007F:%s 0100007F:%s 01 %%x+:%%x+ (%%x+):(%%x+)"):format(port(one:address()), port(stream:local_address()))
      local timer, left = test.matches(table_of_connections(), line)
      test.equal(timer, case.most and "02" or "00")
      if case.most then assert(tonumber(left, 16) <= 100 * case.most and tonumber(left, 16) > 50 * case.most, left) end
      one:stop()
    end
  end,
}

return {
  failures = failures,
  bodies = bodies,
  patience = patience,
  stopping = stopping,
}
