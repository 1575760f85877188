-- The server, asked by bytes on streams and sockets.
local body = require("http.body")
local codec = require("http.codec")
local cosocket = require("cosocket")
local log = require("log")
local message = require("http.message")
local server = require("http.server")
local test = require("test")

-- Some tests make mistakes on purpose, which are told.
log.level("off")

--- A client's end of a connection to a server.
---@class Peer
---@field stream cosocket.Stream
---@field input cosocket.Buffer
---@field output cosocket.Buffer
---@field task cosocket.Task? The server's.
local Peer = {}
Peer.__index = Peer

---@param one http.Server
---@return Peer
local function connect(one)
  local near, far = cosocket.pair()
  local task = one:serve(far --[[@as cosocket.Stream]])
  return setmetatable({ stream = near, input = cosocket.buffer(), output = cosocket.buffer(), task = task }, Peer)
end

---@class Answer
---@field status integer
---@field headers http.Headers
---@field body string?
---@field err cosocket.Error?
---@field trailers http.Headers?

--- The next response.
---@param method? string
---@return Answer
function Peer:receive(method)
  local status, reason, _, headers, length =
    message.next_response(self.stream, self.input, self.output, method or "GET", nil, cosocket.now() + 1000)
  if not status then return { err = reason } end
  local reader = body.reader(self.stream, self.input, length)
  local text, err = reader:read_all()
  return { status = status, reason = reason, headers = headers, body = text, err = err, trailers = reader.trailers }
end

---@param bytes string
---@param method? string
---@return Answer
function Peer:ask(bytes, method)
  self.stream:write(bytes)
  return self:receive(method)
end

--- A request without a body.
---@param target string
---@param fields? string
---@param method? string
---@return Answer
function Peer:get(target, fields, method)
  method = method or "GET"
  return self:ask(("%s %s HTTP/1.1\r\nHost: h\r\n%s\r\n"):format(method, target, fields or ""), method)
end

---@param target string
---@param text string
---@param fields? string
---@return Answer
function Peer:post(target, text, fields)
  local head = "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%s\r\n"
  return self:ask(head:format(target, #text, fields or "") .. text)
end

--- Whether the server has closed.
---@return boolean
function Peer:is_closed()
  local piece, err = cosocket.deadline(100, self.stream.read, self.stream)
  return piece == nil and err.kind == "closed"
end

---@param options? http.ServerOptions
---@return http.Server
local function new(options)
  local one = server.new(options)
  one:get("/hello", function(_, response) response:send("hello") end)
  one:post("/echo", function(request, response)
    local text, err = request:body()
    if not text then return response:fail(err) end
    response:send({ body = text, type = "text/plain" })
  end)
  return one
end

local basics = {
  ["a request is answered, and the connection goes on"] = function()
    local peer = connect(new())
    for _ = 1, 3 do
      local answer = peer:get("/hello")
      test.equal({ answer.status, answer.body, answer.headers["content-length"] }, { 200, "hello", "5" })
      test.matches(answer.headers["date"], "^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$")
      test.equal(answer.headers["connection"], nil)
    end
  end,

  ["a request cut at any byte is one request"] = function()
    local one = new()
    local bytes = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    test.every_cut(bytes, function(first, second)
      local peer = connect(one)
      peer.stream:write(first)
      peer.stream:flush()
      cosocket.sleep(0.01)
      test.equal(peer:ask(second).body, "hello")
      peer.stream:close()
    end)
  end,

  ["pipelined requests are answered in order"] = function()
    local one = new()
    one:get("/n/:n", function(request, response)
      cosocket.sleep(1 / tonumber(request.params.n))
      response:send(request.params.n)
    end)
    local peer, bytes = connect(one), {}
    for n = 1, 20 do bytes[n] = ("GET /n/%d HTTP/1.1\r\nHost: h\r\n\r\n"):format(n) end
    bytes[21] = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    bytes[22] = "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    peer.stream:write(table.concat(bytes))
    for n = 1, 20 do test.equal(peer:receive().body, tostring(n)) end
    test.equal(peer:receive().body, "abc")
    local last = peer:receive()
    test.equal({ last.body, last.headers["connection"] }, { "hello", "close" })
    test.equal(peer:is_closed(), true)
  end,
}

local upgrade = {
  ["an upgrade hands over the stream and what was unread"] = function()
    local one = new()
    one:get("/ws", function(request, response)
      test.equal(request:offers("WebSocket"), true)
      test.equal(request:offers("h2c"), false)
      local stream, unread = request:upgrade("websocket", { ["Sec-WebSocket-Accept"] = "x" })
      assert(stream, unread)
      test.equal(unread:take(), "early")
      stream:write("late")
      test.equal(stream:read(3), "bye")
      stream:close()
    end)
    local peer = connect(one)
    peer.stream:write("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
    local status, _, _, headers, length = message.next_response(peer.stream, peer.input, peer.output, "GET")
    test.equal({ status, length }, { 101, codec.TUNNEL })
    test.equal({ headers.connection, headers.upgrade, headers["sec-websocket-accept"] }, { "Upgrade", "websocket", "x" })
    while #peer.input < 4 do assert(peer.stream:fill(peer.input)) end
    test.equal(peer.input:take(), "late")
    peer.stream:write("bye")
    test.equal(peer:is_closed(), true)
    test.equal(one:count(), 0)
  end,

  ["whoever does not offer to upgrade is not upgraded"] = function()
    local one = new()
    one:get("/ws", function(request, response)
      local stream, err = request:upgrade("websocket")
      test.equal(stream, nil)
      response:fail(err)
    end)
    for _, fields in ipairs({ "", "Upgrade: websocket\r\n", "Connection: upgrade\r\nUpgrade: h2c\r\n" }) do
      local peer = connect(one)
      local answer = peer:get("/ws", fields)
      test.equal({ answer.status, answer.headers["upgrade"], answer.headers["connection"] }, { 426, "websocket", "upgrade" })
      test.equal(peer:get("/hello").status, 200)
    end
  end,

  ["a stream that was handed over is closed when the handler fails"] = function()
    local one = new()
    one:get("/ws", function(request)
      assert(request:upgrade("x"))
      error("oh")
    end)
    local peer = connect(one)
    peer:get("/ws", "Connection: upgrade\r\nUpgrade: x\r\n")
    test.equal(peer:is_closed(), true)
  end,
}

local handlers = {
  ["what a handler sees of a request"] = function()
    local one, seen = new(), nil
    one:route("*", "/see/:what/*rest", function(request, response)
      seen = {
        request.method, request.target, request.path, request.query_string, request.query, request.params,
        request.version, request.headers:get("x-a"), request.body_length, request.trailers,
      }
      response:send("")
    end)
    local peer = connect(one)
    peer:get("/see/a%2Fb/c/d%20e?x=1&y=%2F&x=2", "X-A: b\r\n", "FROB")
    test.equal(seen, {
      "FROB", "/see/a%2Fb/c/d%20e?x=1&y=%2F&x=2", "/see/a%2Fb/c/d%20e", "x=1&y=%2F&x=2", { x = "1", y = "/" },
      { what = "a/b", rest = "c/d e" }, "1.1", "b", 0, nil,
    })
    -- 3.2.2: the form that proxies use.
    peer:get("http://other/see/x/y?z", nil, "GET")
    test.equal({ seen[3], seen[4], seen[5], seen[6] }, { "/see/x/y", "z", { z = "" }, { what = "x", rest = "y" } })
    peer:ask("GET /see/1/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    test.equal({ seen[5], seen[6], seen[7] }, { {}, { what = "1", rest = "" }, "1.0" })
  end,

  ["bodies come whole, in pieces, as JSON and as forms"] = function()
    local one = new()
    one:post("/json", function(request, response)
      local value, err = request:json()
      if err then return response:fail(err) end
      response:json({ got = value })
    end)
    one:post("/form", function(request, response)
      local first, all = request:form()
      if not first then return response:fail(all) end
      response:json({ first = first, count = #all })
    end)
    one:post("/pieces", function(request, response)
      local pieces = {}
      for piece in request:chunks() do pieces[#pieces + 1] = piece end
      local trailer = request.trailers and request.trailers:get("sum") or "none"
      response:send(table.concat(pieces) .. "," .. trailer)
    end)
    local peer = connect(one)
    test.equal(peer:post("/json", '{"a":[1,2]}').body, '{"got":{"a":[1,2]}}')
    test.equal(peer:post("/json", "{").status, 400)
    local form = "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n"
    test.equal(peer:post("/form", "a=1&b=x+y&a=2", form).body, '{"count":3,"first":{"a":"1","b":"x y"}}')
    test.equal(peer:post("/form", "a=1").status, 415)
    test.equal(peer:post("/form", ("a&"):rep(1000), form).status, 413)
    test.equal(peer:post("/pieces", "hello").body, "hello,none")
    local head = "POST /pieces HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    test.equal(peer:ask(head .. "3\r\nhel\r\n2\r\nlo\r\n0\r\nSum: 5\r\n\r\n").body, "hello,5")
    test.equal(peer:get("/pieces", nil, "POST").body, ",none")
  end,

  ["responses of every kind"] = function()
    local one = new()
    one:get("/empty", function(_, response) response:send({}) end)
    one:get("/status", function(_, response)
      response:send({ status = 299, reason = "So so", headers = { { "X", "1" }, { "X", "2" } }, body = "b", type = "a/b" })
    end)
    one:get("/list", function(_, response)
      local items = { "one", "", "two" }
      local at = 0
      response:send({ body = function()
        at = at + 1
        return items[at]
      end, trailers = function() return { Count = at } end })
    end)
    one:get("/sized", function(_, response)
      response:send({ length = 4, body = function(write)
        write("ab")
        write(cosocket.buffer("cd"))
      end })
    end)
    one:get("/write", function(_, response)
      response:start({ status = 201, type = "text/x" })
      response:write("a")
      cosocket.sleep(1)
      response:write("")
      response:write("b")
    end)
    one:get("/redirect", function(_, response) response:redirect("/hello", 307) end)
    one:get("/close", function(_, response) response:send({ headers = { Connection = "close" }, body = "x" }) end)
    one:get("/date", function(_, response) response:send({ headers = { Date = "then" }, body = "x" }) end)
    one:get("/large", function(_, response) response:send(("0123456789"):rep(100000)) end)
    local peer = connect(one)
    local answer = peer:get("/empty")
    test.equal({ answer.status, answer.headers["content-length"] }, { 204 })
    answer = peer:get("/status")
    test.equal({ answer.status, answer.reason, answer.headers["x"], answer.headers["content-type"], answer.body }, { 299, "So so", "1, 2", "a/b", "b" })
    answer = peer:get("/list")
    test.equal({ answer.body, answer.headers["transfer-encoding"], answer.trailers:get("count") }, { "onetwo", "chunked", "4" })
    answer = peer:get("/sized")
    test.equal({ answer.body, answer.headers["content-length"] }, { "abcd", "4" })
    answer = peer:get("/write")
    test.equal({ answer.status, answer.body, answer.headers["content-type"] }, { 201, "ab", "text/x" })
    answer = peer:get("/redirect")
    test.equal({ answer.status, answer.headers["location"], answer.body }, { 307, "/hello", "" })
    test.equal(peer:get("/date").headers:get_all("date"), { "then" })
    assert(peer:get("/large").body == ("0123456789"):rep(100000))
    answer = peer:get("/close")
    test.equal({ answer.headers["connection"], peer:is_closed() }, { "close", true })
  end,

  ["HEAD is answered as GET, without the body"] = function()
    local one = new()
    one:get("/chunks", function(_, response)
      response:write("a")
      response:write("b")
    end)
    one:get("/sized", function(_, response) response:send({ length = 3, body = function() error("asked") end }) end)
    local peer = connect(one)
    test.equal(peer:get("/hello", nil, "HEAD").headers["content-length"], "5")
    test.equal(peer:get("/sized", nil, "HEAD").headers["content-length"], "3")
    test.equal(peer:get("/chunks", nil, "HEAD").headers["transfer-encoding"], "chunked")
    test.equal(peer:get("/nothing", nil, "HEAD").status, 404)
    test.equal(peer:get("/hello").body, "hello")
  end,

  ["methods and paths that have no handler are told so"] = function()
    local one = new()
    one:get("/echo", function(_, response) response:send("got") end)
    one:delete("/things/:id", function(_, response) response:send({}) end)
    local peer = connect(one)
    local answer = peer:get("/echo", nil, "PUT")
    test.equal({ answer.status, answer.headers["allow"] }, { 405, "GET, HEAD, OPTIONS, POST" })
    answer = peer:get("/things/1", nil, "GET")
    test.equal({ answer.status, answer.headers["allow"] }, { 405, "DELETE, OPTIONS" })
    answer = peer:get("/echo", nil, "OPTIONS")
    test.equal({ answer.status, answer.headers["allow"] }, { 204, "GET, HEAD, OPTIONS, POST" })
    test.equal(peer:get("*", nil, "OPTIONS").status, 204)
    test.equal(peer:get("/nothing").status, 404)
    test.equal(peer:get("/things/").status, 404)
    test.equal(peer:get("h:80", nil, "CONNECT").status, 501)
  end,

  ["plain paths come before patterns, and patterns before the rest"] = function()
    local one = new()
    for _, pattern in ipairs({ "/*all", "/a/*deep", "/:x/b", "/a/:y", "/a/b", "/a/b/*deeper" }) do
      one:get(pattern, function(_, response) response:send(pattern) end)
    end
    local peer = connect(one)
    for path, pattern in pairs({
      ["/a/b"] = "/a/b", ["/a/c"] = "/a/:y", ["/c/b"] = "/:x/b", ["/a/c/d"] = "/a/*deep", ["/a/b/c"] = "/a/b/*deeper",
      ["/"] = "/*all", ["/c"] = "/*all", ["/c/d/e"] = "/*all", ["/a/"] = "/a/*deep", ["/a%2Fb"] = "/*all",
    }) do
      test.equal(peer:get(path).body, pattern, path)
    end
  end,

  ["HTTP/1.0 is answered without chunks, and kept alive when it asks"] = function()
    local one = new()
    one:get("/chunks", function(_, response)
      response:write("a")
      response:write("b")
    end)
    local peer = connect(one)
    local answer = peer:ask("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    test.equal({ answer.headers["connection"], answer.body }, { "keep-alive", "hello" })
    answer = peer:ask("GET /chunks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    test.equal({ answer.headers["connection"], answer.headers["transfer-encoding"], answer.body }, { "close", nil, "ab" })
    answer = connect(one):ask("GET /hello HTTP/1.0\r\n\r\n")
    test.equal({ answer.headers["connection"], answer.body }, { "close", "hello" })
  end,

  ["server-sent events are written as they should be"] = function()
    local one = new()
    one:get("/events", function(_, response)
      local events = assert(response:events())
      events:send("plain")
      events:send({ event = "tick", id = "7", retry = 1.5, data = "two\r\nlines\n" })
      events:comment("alive")
      test.raises("must be one line", events.send, events, { event = "a\nb" })
      events:close()
    end)
    local answer = connect(one):get("/events")
    test.equal({ answer.headers["content-type"], answer.headers["cache-control"] }, { "text/event-stream", "no-store" })
    test.equal(answer.body, "data: plain\n\nevent: tick\nid: 7\nretry: 1500\ndata: two\ndata: lines\ndata: \n\n:alive\n\n")
  end,
}

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
    local peer = setmetatable({ stream = stream, input = cosocket.buffer(), output = cosocket.buffer() }, Peer)
    test.equal(peer:get("/a").body, "a")
    test.equal(peer:get("/b").status, 404)
    one:stop()
    test.equal(peer:is_closed(), true)
    test.fails("connect", cosocket.connect("tcp://" .. address))
    local two = assert(server.listen("tcp://127.0.0.1:0", function(request, response) response:send(request.peer) end))
    local other = assert(cosocket.connect("tcp://" .. two:address()))
    peer = setmetatable({ stream = other, input = cosocket.buffer(), output = cosocket.buffer() }, Peer)
    test.equal(peer:get("/any").body, other:local_address())
    test.fails("io", server.listen("tcp://" .. two:address(), function() end))
    two:stop()
  end,
}

local mistakes = {
  ["wrong options, routes and responses raise"] = function()
    test.raises('unknown option "head_mx"; did you mean "head_max"', server.new, { head_mx = 1 })
    test.raises("a handler or a table of routes is wanted", server.listen, "tcp://127.0.0.1:0", "x")
    local one = new()
    local function fn() end
    test.raises("begins with a slash", one.get, one, "x", fn)
    test.raises("must be a function", one.get, one, "/x", "x")
    test.raises("is there already", one.get, one, "/hello", fn)
    test.raises("without a name", one.get, one, "/:", fn)
    test.raises("something follows the rest", one.get, one, "/*a/b", fn)
    local raised = {}
    one:get("/wrong", function(_, response)
      for _, answer in ipairs({ { stats = 1 }, { status = 100 }, { status = 204, body = "x" }, { body = {} }, { body = "x", length = 2 } }) do
        raised[#raised + 1] = tostring(select(2, pcall(response.send, response, answer)))
      end
      raised[#raised + 1] = tostring(select(2, pcall(response.json, response, { function() end })))
      raised[#raised + 1] = tostring(select(2, pcall(response.start, response, { body = "x" })))
      raised[#raised + 1] = tostring(select(2, pcall(response.finish, response)))
      response:send("fine")
      raised[#raised + 1] = tostring(select(2, pcall(response.write, response, "x")))
    end)
    test.equal(connect(one):get("/wrong").body, "fine")
    for at, pattern in ipairs({
      "unknown option \"stats\"", "100 is no final status", "204 has no body", "a body is a string", "1 bytes, not the 2",
      "response:json:", "follows with write", "nothing has been started", "sent already",
    }) do
      test.matches(raised[at], (pattern:gsub("%-", "%%-")))
    end
  end,
}

return {
  basics = basics,
  upgrade = upgrade,
  handlers = handlers,
  failures = failures,
  bodies = bodies,
  patience = patience,
  stopping = stopping,
  mistakes = mistakes,
}
