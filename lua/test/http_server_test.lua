-- The server, asked by bytes on streams and sockets: what requests and responses are.
local asker = require("test.http_asker")
local codec = require("http.codec")
local cosocket = require("cosocket")
local log = require("log")
local message = require("http.message")
local server = require("http.server")
local test = require("test")

-- Some tests make mistakes on purpose, which are told.
log.level("off")

local connect, new = asker.connect, asker.new

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
    test.raises("call this with a colon, on a server: server:get%(%)", server.new({}).get, "/", function() end)
    test.raises('an address such as "tcp://127.0.0.1:8080" is wanted, not a number', function() server.new():listen(8080) end)
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

local mistakes = {
  ["wrong options, routes and responses raise"] = function()
    test.raises('unknown option "head_mx"; did you mean "head_max"', server.new, { head_mx = 1 })
    test.raises('unknown option "tls.cert"; there are alpn, certificate, ', server.new, { tls = { cert = "x" } })
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
      raised[#raised + 1] = tostring(select(2, pcall(response.json, { open = true })))
      response:send("fine")
      raised[#raised + 1] = tostring(select(2, pcall(response.write, response, "x")))
    end)
    test.equal(connect(one):get("/wrong").body, "fine")
    for at, pattern in ipairs({
      "unknown option \"stats\"", "100 is no final status", "204 has no body", "a body is a string", "1 bytes, not the 2",
      "response:json:", "follows with write", "nothing has been started",
      "call this with a colon, on a response: response:json%(%)", "sent already",
    }) do
      test.matches(raised[at], (pattern:gsub("%-", "%%-")))
    end
  end,
}

return {
  basics = basics,
  upgrade = upgrade,
  handlers = handlers,
  mistakes = mistakes,
}
