-- Requests and answers: servers on the loopback that say byte for byte what a test wants.
local cosocket = require("cosocket")
local peer = require("test.http_peer")
local test = require("test")

local http = peer.http

local response = peer.response

--- A server that answers everything alike, and a client.
local function fixed(bytes, options)
  local server = peer.serve(function() return bytes end)
  return server, http.client(options)
end

--- A server that sends some bytes and ends.
local function sends(bytes, cut)
  return peer.listen(function(stream)
    stream:read_until("\r\n\r\n")
    for from = 1, #bytes, cut or 65536 do
      stream:write(bytes:sub(from, from + (cut or 65536) - 1))
      stream:flush()
    end
  end)
end

local answers = {
  ["an answer has its status, fields and body"] = function()
    local server, client = fixed("HTTP/1.1 200 Fine\r\nX-One: 1\r\nx-one: 2\r\nContent-Length: 5\r\n\r\nhello")
    local answer = assert(client:get(server.url .. "/a?b=c#d"))
    test.equal({ answer.status, answer.reason, answer.ok, answer.version, answer.body }, { 200, "Fine", true, "1.1", "hello" })
    test.equal({ answer.headers["X-ONE"], answer.method, answer.url }, { "1, 2", "GET", server.url .. "/a?b=c#d" })
    local request = server.requests[1]
    test.equal({ request.method, request.target, request.headers.Host }, { "GET", "/a?b=c", server.address })
    test.equal(request.headers["User-Agent"], "moonwire")
    test.equal(request.headers:at(1), "Host")
  end,

  ["every method has a function"] = function()
    local server, client = fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    for _, name in ipairs({ "get", "post", "put", "patch", "delete", "head", "options" }) do
      test.equal(assert(client[name](client, server.url)).body, "")
      test.equal(assert(http[name](server.url)).status, 200)
      test.equal(server.requests[#server.requests].method, name:upper())
    end
    assert(client:request("PROPFIND", server.url))
    assert(http.request("BREW", server.url))
    test.equal(server.requests[#server.requests].method, "BREW")
    test.equal(server.connections, 2)
    -- RFC 9110, 8.6: methods that mean a body say that there is none.
    for _, request in ipairs(server.requests) do
      local none = request.method == "POST" or request.method == "PUT" or request.method == "PATCH"
      test.equal(request.headers["Content-Length"], none and "0" or nil, request.method)
    end
  end,

  ["an answer cut at any byte is the same answer"] = function()
    local bytes = "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n"
      .. "5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nT: end\r\n\r\n"
    local client = http.client()
    for cut = 1, 40 do
      local server = sends(bytes, cut)
      local answer = assert(client:get(server.url))
      test.equal({ answer.status, answer.body, answer.trailers.T }, { 200, "hello!", "end" })
      server:close()
    end
  end,

  ["HEAD, 204 and 304 have no body, whatever their fields say"] = function()
    local server = peer.serve(function(request)
      local status = request.target == "/head" and "200 OK" or request.target:sub(2) .. " None"
      return ("HTTP/1.1 %s\r\nContent-Length: 10\r\n\r\n"):format(status)
    end)
    local client = http.client()
    test.equal(assert(client:head(server.url .. "/head")).headers["Content-Length"], "10")
    test.equal(assert(client:get(server.url .. "/204")).body, "")
    test.equal(assert(client:get(server.url .. "/304")).body, "")
    test.equal(server.connections, 1)
  end,

  ["a body of HTTP/1.0 ends with its connection"] = function()
    local server, client = sends("HTTP/1.0 200 OK\r\n\r\nall of this"), http.client()
    local answer = assert(client:get(server.url))
    test.equal({ answer.version, answer.body }, { "1.0", "all of this" })
    test.equal({ client:connections() }, { 0, 0 })
  end,

  ["interim answers are told to who asks"] = function()
    local server, client = sends("HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\nLink: </a>\r\n\r\nHTTP/1.1 204 N\r\n\r\n"), http.client()
    local seen = {}
    assert(client:get(server.url, { on_informational = function(status, headers) seen[#seen + 1] = { status, headers.Link } end }))
    test.equal(seen, { { 102 }, { 103, "</a>" } })
    local endless = sends(("HTTP/1.1 102 P\r\n\r\n"):rep(40))
    test.fails("limit", client:get(endless.url))
    local switch = sends("HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
    test.fails("protocol", client:get(switch.url))
  end,

  ["check makes an error of a status that is none"] = function()
    local server, client = fixed(response("gone", nil, "410 Gone"))
    local answer = assert(client:get(server.url))
    test.equal(answer.ok, false)
    local _, err = answer:check()
    test.equal({ err.kind, err.code, err.response.body }, { "refused", 410, "gone" })
    local fine = assert(client:get(fixed(response("x")).url))
    test.equal(fine:check(), fine)
  end,

  ["a body is JSON when asked"] = function()
    local server, client = fixed(response('{"a":[1,2]}'))
    test.equal(assert(client:get(server.url)):json().a[2], 2)
    test.equal(assert(client:get(server.url, { stream = true })):json().a[1], 1)
    test.fails("protocol", assert(client:get(fixed(response("<html>")).url)):json())
  end,
}

local refused = {
  ["what another reader might take differently is refused"] = function()
    local client = http.client({ timeout = 5 })
    for _, head in ipairs({
      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
      "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
      "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
      "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
      "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
      "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
      "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
      "HTTP/1.1 2000 OK\r\n\r\n",
      "SSH-2.0-OpenSSH_9.2\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    }) do
      local server = sends(head)
      local answer, err = client:get(server.url)
      test.fails("protocol", answer, err)
      server:close()
    end
    test.equal({ client:connections() }, { 0, 0 })
  end,

  ["an answer that ends too early is closed, and says how far it came"] = function()
    local client = http.client()
    local function fails(bytes, pattern)
      local server = sends(bytes)
      local answer, err = client:get(server.url)
      test.fails("closed", answer, err)
      test.matches(err.message, pattern)
      server:close()
    end
    fails("", "before an answer came")
    fails("HTTP/1.1 200 OK\r\nConte", "in the middle of the answer's head")
    fails("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "4 of 10 bytes")
    fails("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "in the middle of the body")
    fails("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "after 5 bytes")
  end,

  ["limits on head, fields and body are kept"] = function()
    local client = http.client({ head_max = 200, fields_max = 3, body_max = 10 })
    test.fails("limit", client:get(sends("HTTP/1.1 200 OK\r\nX: " .. ("x"):rep(300) .. "\r\n\r\n").url))
    test.fails("limit", client:get(sends("HTTP/1.1 200 OK\r\n" .. ("A: 1\r\n"):rep(4) .. "\r\n").url))
    test.fails("limit", client:get(sends(response(("x"):rep(11))).url))
    test.fails("limit", client:get(sends("HTTP/1.1 200 OK\r\nContent-Length: 9000000000000\r\n\r\n").url))
    test.fails("limit", client:get(sends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n").url))
    test.fails("limit", client:get(sends("HTTP/1.0 200 OK\r\n\r\n" .. ("x"):rep(11)).url))
    test.equal(#assert(client:get(sends(response(("x"):rep(11))).url, { body_max = 11 })).body, 11)
    test.equal((client:connections()), 0)
  end,

  ["each stage that takes too long is a timeout that says which"] = function()
    local function stalls(bytes)
      return peer.listen(function(stream)
        stream:read_until("\r\n\r\n")
        stream:write(bytes)
        stream:read_all()
      end)
    end
    local client = http.client({ idle_timeout = 3 })
    local function fails(bytes, pattern, options)
      local started = cosocket.now()
      local answer, err = client:get(stalls(bytes).url, options)
      test.fails("timeout", answer, err)
      test.matches(err.message, pattern)
      return cosocket.now() - started
    end
    test.near(fails("", "no answer came in time"), 3, 0.5)
    test.near(fails("HTTP/1.1 20", "rest of the answer's head"), 3, 0.5)
    test.near(fails("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "after 4 of 9 bytes", { timeout = 1 }), 1, 0.5)
    test.near(fails("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "after 0 bytes"), 3, 0.5)
    test.equal({ client:connections() }, { 0, 0 })
  end,

  ["a trickle ends with the whole time"] = function()
    local server = peer.listen(function(stream)
      stream:read_until("\r\n\r\n")
      stream:write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
      while stream:write("x") and stream:flush() do cosocket.sleep(1) end
    end)
    local started = cosocket.now()
    test.fails("timeout", http.client({ idle_timeout = 5 }):get(server.url, { timeout = 20 }))
    test.near(cosocket.now() - started, 20, 1)
    test.fails("timeout", cosocket.deadline(4, http.get, server.url))
  end,

  ["nobody listens, nobody knows the name: the error says so"] = function()
    test.fails("connect", http.get("http://127.0.0.1:1/"))
    test.fails("resolve", http.get("http://no-such-host.invalid/"))
    test.fails("protocol", http.get("ftp://example.org/"))
    test.fails("protocol", http.get("/relative"))
    test.fails("protocol", http.get("http://h:99999/"))
  end,

  ["wrong arguments raise, and blame the line that called"] = function()
    local function raises(pattern, fn, ...)
      local message = test.raises(pattern, fn, ...)
      test.matches(message, "http_client_test%.lua:%d+")
    end
    local client = http.client()
    raises("did you mean \"timeout\"?", function() http.get("http://h/", { timout = 1 }) end)
    raises("did you mean \"timeout\"?", function() client:get("http://h/", { timout = 1 }) end)
    raises("must be a number", function() client:get("http://h/", { timeout = "1" }) end)
    raises("the URL must be a string", function() client:get(nil) end)
    raises("is not a method", function() client:request("GET IT", "http://h/") end)
    raises("is not a method", function() http.request("", "http://h/") end)
    raises("only one of", function() client:post("http://h/", { body = "x", json = {} }) end)
    raises("body must be", function() client:post("http://h/", { body = {} }) end)
    raises("did you mean \"keep_alive\"?", function() http.client({ keepalive = 1 }) end)
    raises("unknown option \"body\"", function() http.client({ body = "x" }) end)
    raises("call this with a colon, on a client: client:get%(%)", function() client.get("http://h/") end)
    raises("call this with a colon, on a client: client:save%(%)", function() client.save("http://h/", "x") end)
    raises("unknown option \"tls.verify\"", function() http.client({ tls = { verify = false } }) end)
    raises("unknown option \"tls.verify\"", function() http.get("https://h/", { tls = { verify = false } }) end)
    raises("base_url", function() http.client({ base_url = "nowhere" }) end)
    raises("proxy", function() http.client({ proxy = "ftp://h" }) end)
    raises("proxy must be", function() http.client({ proxy = true }) end)
    raises("user_agent must be", function() http.client({ user_agent = true }) end)
    raises("cookies must be", function() http.client({ cookies = {} }) end)
    raises("auth must be", function() client:get("http://h/", { auth = true }) end)
    raises("must not have a colon", function() client:get("http://h/", { auth = { username = "a:b" } }) end)
    raises("auth needs", function() client:get("http://h/", { auth = {} }) end)
    raises("auth.scheme", function() client:get("http://h/", { auth = { username = "a", scheme = "ntlm" } }) end)
    raises("auth.bearer", function() client:get("http://h/", { auth = { bearer = "a\r\nb" } }) end)
    raises("control character", function() client:get("http://h/", { headers = { X = "a\r\nY: b" } }) end)
    raises("not the name of a header", function() client:get("http://h/", { headers = { ["X Y"] = "a" } }) end)
    raises("not the name of a header", function() http.client({ headers = { ["X:"] = "a" } }) end)
  end,
}

local pool = {
  ["requests to one origin follow one another on one connection"] = function()
    local server, client = fixed(response("x"))
    for _ = 1, 5 do assert(client:get(server.url)) end
    test.equal({ server.connections, client:connections() }, { 1, 0, 1 })
    client:close()
    test.fails("closed", client:get(server.url))
  end,

  ["a connection is not used again when either side says close"] = function()
    local server, client = fixed(response("x", "Connection: close\r\n"))
    for _ = 1, 2 do assert(client:get(server.url)) end
    test.equal(server.connections, 2)
    local old = fixed("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx")
    for _ = 1, 2 do assert(client:get(old.url)) end
    test.equal(old.connections, 2)
    local lasting = fixed("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx")
    for _ = 1, 2 do assert(client:get(lasting.url)) end
    test.equal(lasting.connections, 1)
  end,

  ["bytes that nobody asked for cost the connection"] = function()
    local server, client = fixed(response("x") .. "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    for _ = 1, 3 do test.equal(assert(client:get(server.url)).body, "x") end
    test.equal(server.connections, 3)
    -- The same, but a moment later.
    local late = peer.serve(function(request)
      request.stream:write(response("x"))
      request.stream:flush()
      cosocket.sleep(1)
      return response("evil")
    end)
    for _ = 1, 2 do
      test.equal(assert(client:get(late.url)).body, "x")
      cosocket.sleep(5)
    end
    test.equal(late.connections, 2)
  end,

  ["a connection that timed out is not used again"] = function()
    local count = 0
    local server = peer.serve(function()
      count = count + 1
      if count == 1 then cosocket.sleep(10) end
      return response("answer " .. count)
    end)
    local client = http.client()
    test.fails("timeout", client:get(server.url, { timeout = 1 }))
    cosocket.sleep(20)
    test.equal(assert(client:get(server.url)).body, "answer 2")
    test.equal(server.connections, 2)
  end,

  ["a request that meets a closing connection is sent again, once, if that does no harm"] = function()
    local deaf = false
    local server
    server = peer.serve(function(request)
      if request.connection == 1 and #server.requests > 1 or deaf then return nil end
      return response(request.method)
    end)
    local client = http.client()
    assert(client:get(server.url))
    test.equal(assert(client:get(server.url)).body, "GET")
    test.equal({ server.connections, #server.requests }, { 2, 3 })
    -- On a connection of its own, it is not sent again.
    deaf = true
    test.fails("closed", http.client():get(server.url))
    test.equal(#server.requests, 4)
    deaf = false
    assert(client:get(server.url))
    deaf = true
    local before = #server.requests
    test.fails("closed", client:post(server.url, { body = "once" }))
    test.equal(#server.requests, before + 1)
  end,

  ["an answer that had begun is not asked for again"] = function()
    local server
    server = peer.serve(function()
      if #server.requests == 1 then return response("x") end
      server.requests[2].stream:write("HTTP/1.1 200")
      return nil
    end)
    local client = http.client()
    assert(client:get(server.url))
    test.fails("closed", client:get(server.url))
    test.equal(#server.requests, 2)
  end,

  ["who needs more connections than there may be waits in line"] = function()
    local most, now_open = 0, 0
    local server = peer.serve(function()
      now_open = now_open + 1
      most = math.max(most, now_open)
      cosocket.sleep(1)
      now_open = now_open - 1
      return response("x")
    end)
    local client = http.client({ connections_max = 3 })
    local order = {}
    local tasks = {}
    for i = 1, 9 do
      tasks[i] = cosocket.spawn(function()
        assert(client:get(server.url))
        order[#order + 1] = i
      end)
    end
    for _, task in ipairs(tasks) do task:join() end
    test.equal({ most, server.connections, #order }, { 3, 3, 9 })
    test.equal({ client:connections() }, { 0, 3 })
  end,

  ["waiting for a connection ends with the request's time"] = function()
    local server = peer.serve(function() cosocket.sleep(100) return response("x") end)
    local client = http.client({ connections_max = 1 })
    cosocket.spawn(function() client:get(server.url, { timeout = 300, idle_timeout = 300 }) end)
    cosocket.sleep(1)
    local started = cosocket.now()
    local answer, err = client:get(server.url, { timeout = 7 })
    test.fails("timeout", answer, err)
    test.matches(err.message, "connections_max")
    test.near(cosocket.now() - started, 7, 1)
  end,

  ["a task that is cancelled gives its place back"] = function()
    local server = peer.serve(function(request)
      if request.target == "/slow" then cosocket.sleep(1000) end
      return response("x")
    end)
    local client = http.client({ connections_max = 1 })
    local slow = cosocket.spawn(function() client:get(server.url .. "/slow") end)
    cosocket.sleep(1)
    local done
    cosocket.spawn(function() done = client:get(server.url) end)
    cosocket.sleep(1)
    test.equal(done, nil)
    slow:cancel()
    cosocket.sleep(5)
    test.equal(done and done.body, "x")
    -- One that is cancelled while it waits leaves the line.
    slow = cosocket.spawn(function() client:get(server.url .. "/slow") end)
    cosocket.sleep(1)
    local waiting = cosocket.spawn(function() client:get(server.url) end)
    cosocket.sleep(1)
    waiting:cancel()
    slow:cancel()
    test.equal(assert(client:get(server.url)).body, "x")
    test.equal({ client:connections() }, { 0, 1 })
  end,

  ["an answer that is forgotten gives its place back when it is collected"] = function()
    local server = peer.serve(function() return "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart" end)
    local client = http.client({ connections_max = 1 })
    do assert(client:get(server.url, { stream = true })) end
    test.equal({ client:connections() }, { 1, 0 })
    collectgarbage()
    collectgarbage()
    assert(client:get(server.url, { stream = true, timeout = 5 }))
  end,

  ["idle connections end after keep_alive, and before the server's own limit"] = function()
    local server, client = fixed(response("x"), { keep_alive = 10 })
    assert(client:get(server.url))
    cosocket.sleep(9)
    assert(client:get(server.url))
    test.equal(server.connections, 1)
    cosocket.sleep(11)
    assert(client:get(server.url))
    test.equal(server.connections, 2)
    local short = fixed(response("x", "Keep-Alive: timeout=5, max=100\r\n"))
    assert(client:get(short.url))
    cosocket.sleep(4.5)
    assert(client:get(short.url))
    test.equal(short.connections, 2)
  end,

  ["no more idle connections are kept than idle_max"] = function()
    local client = http.client({ idle_max = 2 })
    local servers = {}
    for i = 1, 4 do
      servers[i] = fixed(response("x"))
      assert(client:get(servers[i].url))
      cosocket.sleep(1)
    end
    test.equal({ client:connections() }, { 0, 2 })
    test.equal({ servers[1].open, servers[2].open, servers[3].open, servers[4].open }, { 0, 0, 1, 1 })
  end,
}

local streams = {
  ["a body is read piece by piece, and its connection used again"] = function()
    local text = ("0123456789"):rep(50000)
    local server, client = fixed(response(text))
    local answer = assert(client:get(server.url, { stream = true }))
    test.equal(answer.body, nil)
    local pieces = {}
    for piece in answer:chunks() do pieces[#pieces + 1] = piece end
    test.equal(table.concat(pieces) == text, true)
    test.equal(answer:read(), nil)
    assert(client:get(server.url, { stream = true })):read_all()
    test.equal(server.connections, 1)
  end,

  ["closing in the middle closes the connection"] = function()
    local server, client = fixed("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
    do
      local answer <close> = assert(client:get(server.url, { stream = true }))
      test.equal(answer:read(), "begin")
    end
    cosocket.sleep(1)
    test.equal({ server.open, client:connections() }, { 0, 0, 0 })
    local answer = assert(client:get(server.url, { stream = true }))
    answer:close()
    test.fails("closed", answer:read())
  end,

  ["a body that breaks off is an error of read, and raised by chunks"] = function()
    local client = http.client()
    local server = sends("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    local answer = assert(client:get(server.url, { stream = true }))
    test.equal(answer:read(), "half")
    test.fails("closed", answer:read())
    test.fails("closed", answer:read())
    answer = assert(client:get(server.url, { stream = true }))
    local ok, err = pcall(function() for _ in answer:chunks() do end end)
    test.equal({ ok, err.kind }, { false, "closed" })
    test.equal({ client:connections() }, { 0, 0 })
  end,

  ["trailers are there once the body has ended"] = function()
    local server, client = fixed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n")
    local answer = assert(client:get(server.url, { stream = true }))
    test.equal({ answer:read_all(), answer.trailers["x-sum"] }, { "abc", "6" })
  end,

  ["read_all keeps to its limit"] = function()
    local server, client = fixed(response("0123456789"))
    test.fails("limit", assert(client:get(server.url, { stream = true })):read_all(9))
    test.equal(assert(client:get(server.url, { stream = true })):read_all(10), "0123456789")
  end,

  ["a unix socket leads to the same answers"] = function()
    local path = os.tmpname()
    os.remove(path)
    local listener = assert(cosocket.listen("unix://" .. path))
    cosocket.spawn(function()
      for _ = 1, 2 do
        local stream = listener:accept()
        local host = stream:read_until("\r\n\r\n"):match("Host: (%S+)")
        stream:write(response(host))
        stream:flush()
      end
    end)
    test.equal(assert(http.client({ unix = path }):get("http://device.local/x")).body, "device.local")
    test.equal(assert(http.get("http://other/x", { unix = path })).body, "other")
    listener:close()
    os.remove(path)
  end,
}

return { answers = answers, refused = refused, pool = pool, streams = streams }
