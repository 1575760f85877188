-- Client and server on the loopback: handshakes, refusals, limits, the end.
local cosocket = require("cosocket")
local http_server = require("http.server")
local test = require("test")
local websocket = require("websocket")

--- Says everything back until the end.
local function echo(connection)
  for message, kind in connection:messages() do
    if kind == "text" then
      connection:send(message)
    else
      connection:send_binary(message)
    end
  end
end

---@return websocket.Server server
---@return string address
local function listen(handler, options)
  local server = assert(websocket.listen("ws://127.0.0.1:0", handler or echo, options))
  return server, "ws://" .. server:address()
end

local REQUEST = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
  .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

--- What a server answers to bytes, until it closes.
local function ask(server, bytes)
  local stream <close> = assert(cosocket.connect("tcp://" .. server:address()))
  assert(stream:write(bytes))
  return stream:read_all()
end

--- A server that answers one request with bytes.
local function answering(bytes)
  local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
  cosocket.spawn(function()
    local stream <close> = assert(listener:accept())
    local head = stream:read_until("\r\n\r\n")
    local key = head:match("Sec%-WebSocket%-Key: (%S+)")
    local accept = require("websocket.codec").accept_key(key)
    stream:write((bytes:gsub("ACCEPT", accept)))
    stream:flush()
    stream:shutdown("write")
    stream:read_all()
    listener:close()
  end)
  return "ws://" .. listener:local_address()
end

return {
  ["messages are said back"] = function()
    local server <close>, address = listen()
    local connection <close> = assert(websocket.connect(address .. "/path?query"))
    for _, size in ipairs({ 0, 1, 125, 126, 70000, 1000000 }) do
      assert(connection:send(("x"):rep(size)))
      test.equal(#assert(connection:receive()), size)
      assert(connection:send_binary(("\xff"):rep(size)))
      local got, kind = connection:receive()
      test.equal({ #got, kind }, { size, "binary" })
    end
    test.equal(server:connection_count(), 1)
  end,

  ["the path, the headers and the page reach the handler"] = function()
    local seen
    local server <close>, address = listen(function(_, request) seen = request end, { origins = { "http://page.example" } })
    local connection = assert(websocket.connect(address .. "/a/b?c=d", {
      headers = { ["X-Token"] = "t" },
      origin = "http://page.example",
    }))
    local err = test.fails("closed", connection:receive())
    test.equal(err.code, 1000)
    test.equal({ seen.method, seen.target, seen.headers:get("x-token"), seen.headers:get("origin") }, {
      "GET",
      "/a/b?c=d",
      "t",
      "http://page.example",
    })
    test.matches(seen.peer_address, "^127%.0%.0%.1:%d+$")
    test.equal(server:connection_count(), 0)
  end,

  ["the server's favourite of the offered subprotocols is spoken"] = function()
    local server <close>, address = listen(echo, { subprotocols = { "v2", "v1" } })
    for _, case in ipairs({ { { "v1", "v2" }, "v2" }, { "v1", "v1" }, { { "v3" } }, { nil } }) do
      local connection <close> = assert(websocket.connect(address, { subprotocols = case[1] }))
      test.equal(connection:subprotocol(), case[2])
    end
    local stream <close> = assert(websocket.connect_stream(address, { subprotocol = "v1" }))
    test.equal(stream:subprotocol(), "v1")
    assert(stream:write("bytes\n"))
    test.equal(stream:read_line(), "bytes")
    test.fails("refused", websocket.connect_stream(address, { subprotocol = "v3" }))
  end,

  ["pages of other origins are refused, and what is no browser is not"] = function()
    local server <close>, address = listen()
    local err = test.fails("refused", websocket.connect(address, { origin = "http://elsewhere.example" }))
    test.equal(err.code, 403)
    assert(websocket.connect(address, { origin = "http://" .. server:address() })):close()
    assert(websocket.connect(address)):close()
    local open <close>, anywhere = listen(echo, { origins = "*" })
    assert(websocket.connect(anywhere, { origin = "null" })):close()
    _ = open
  end,

  ["what is no handshake is answered with the status that says why"] = function()
    local server <close> = listen()
    test.matches(ask(server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "^HTTP/1.1 426 .*Upgrade: websocket")
    test.matches(
      ask(server, (REQUEST:gsub("Version: 13", "Version: 7")) .. "\r\n"),
      "^HTTP/1.1 426 .*Sec%-WebSocket%-Version: 13"
    )
    test.matches(ask(server, (REQUEST:gsub("dGh", "!!!")) .. "\r\n"), "^HTTP/1.1 400 ")
    test.matches(ask(server, (REQUEST:gsub("GET", "POST")) .. "\r\n"), "^HTTP/1.1 405 ")
    test.matches(ask(server, REQUEST .. "Origin: http://other\r\n\r\n"), "^HTTP/1.1 403 ")
    test.matches(ask(server, "nonsense\r\n\r\n"), "^HTTP/1.1 400 ")
    test.matches(ask(server, REQUEST .. "X: " .. ("x"):rep(20000) .. "\r\n\r\n"), "^HTTP/1.1 431 ")
    cosocket.sleep(0.1)
    test.equal(server:connection_count(), 0)
  end,

  ["a frame that comes with the handshake is not lost"] = function()
    local server <close> = listen()
    local stream <close> = assert(cosocket.connect("tcp://" .. server:address()))
    stream:write(REQUEST, "\r\n", "\x81\x82\0\0\0\0hi", "\x88\x80\0\0\0\0")
    local answer = stream:read_all()
    test.matches(answer, "^HTTP/1.1 101 ")
    test.matches(answer, "s3pPLMBiTxaQ9kYGzzhZRbK%+xOo=")
    test.equal(answer:sub(-6), "\x81\x02hi\x88\x00")
  end,

  ["answers that are no agreement are refused"] = function()
    local right = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    for answer, pattern in pairs({
      [right .. "Sec-WebSocket-Accept: nonsense\r\n\r\n"] = "Sec%-WebSocket%-Accept",
      [right .. "\r\n"] = "Sec%-WebSocket%-Accept",
      [right .. "Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: x\r\n\r\n"] = "subprotocol",
      [right .. "Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"] = "extension",
      ["HTTP/1.1 101 X\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n"] = "Upgrade",
    }) do
      local err = test.fails("protocol", websocket.connect(answering(answer)))
      test.matches(err.message, pattern)
    end
    local err = test.fails("refused", websocket.connect(answering("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")))
    test.equal({ err.code, err.response.body }, { 404, "no" })
    local connection = assert(websocket.connect(answering(right .. "Sec-WebSocket-Accept: ACCEPT\r\n\r\n\x81\x02hi")))
    test.equal(connection:receive(), "hi")
  end,

  ["compression is used when both want it"] = function()
    for _, case in ipairs({ { true, true, true }, { true, nil, false }, { nil, true, false } }) do
      local server <close>, address = listen(echo, { compression = case[1] })
      local connection <close> = assert(websocket.connect(address, { compression = case[2] }))
      test.equal(connection:status().compressed, case[3])
      assert(connection:send(("again and "):rep(10000)))
      test.equal(connection:receive(), ("again and "):rep(10000))
      _ = server
    end
    local compression = { server_max_window_bits = 9, client_no_context_takeover = true, level = 1 }
    local server <close>, address = listen(echo, { compression = compression })
    local connection <close> = assert(websocket.connect(address, { compression = { client_max_window_bits = 10 } }))
    for _ = 1, 3 do
      assert(connection:send(("again and "):rep(10000)))
      test.equal(connection:receive(), ("again and "):rep(10000))
    end
    _ = server
  end,

  ["a handler that raises closes its connection with 1011, and only that"] = function()
    local server <close>, address = listen(function(connection)
      local message = connection:receive()
      if message == "fail" then error("as asked") end
      echo(connection)
    end)
    local good <close> = assert(websocket.connect(address))
    assert(good:send("go on"))
    local bad = assert(websocket.connect(address))
    assert(bad:send("fail"))
    local err = test.fails("closed", bad:receive())
    test.equal(err.code, 1011)
    assert(good:send("still there"))
    test.equal(good:receive(), "still there")
    test.equal(server:connection_count(), 1)
  end,

  ["a client that is slow to ask is dropped"] = function()
    local server <close> = listen(echo, { handshake_timeout = 3 })
    local began = cosocket.now()
    test.equal(ask(server, "GET / HTTP/1.1\r\n"), "")
    test.near(cosocket.now() - began, 3, 0.2)
    cosocket.sleep(0.1)
    test.equal(server:connection_count(), 0)
  end,

  ["no more than connections_max are open at a time"] = function()
    local server <close>, address = listen(echo, { connections_max = 2 })
    local one, two = assert(websocket.connect(address)), assert(websocket.connect(address))
    test.falsy((websocket.connect(address)))
    one:close()
    local three = assert(websocket.connect(address))
    two:close()
    three:close()
    test.equal(server:connection_count(), 0)
  end,

  ["a server that closes says so to all"] = function()
    local server, address = listen()
    local connections = {}
    for i = 1, 20 do connections[i] = assert(websocket.connect(address)) end
    local tasks = {}
    for i, connection in ipairs(connections) do
      tasks[i] = cosocket.spawn(function()
        local err = test.fails("closed", connection:receive())
        test.equal(err.code, 1001)
      end)
    end
    server:close()
    for _, task in ipairs(tasks) do task:join() end
    test.equal(server:connection_count(), 0)
    test.fails("connect", cosocket.connect("tcp://" .. address:match("//(.*)")))
  end,

  ["a server does not wait for clients that do not answer"] = function()
    local server = listen(echo, { close_timeout = 3 })
    local stream <close> = assert(cosocket.connect("tcp://" .. server:address()))
    stream:write(REQUEST, "\r\n")
    test.matches(stream:read_until("\r\n\r\n"), "^HTTP/1.1 101")
    local began = cosocket.now()
    server:close()
    assert(cosocket.now() - began < 6, cosocket.now() - began)
    test.equal(server:connection_count(), 0)
  end,

  ["limits of a server hold"] = function()
    local server <close>, address = listen(echo, { message_max = 1000 })
    local connection = assert(websocket.connect(address))
    assert(connection:send(("x"):rep(1000)))
    assert(connection:receive())
    assert(connection:send(("x"):rep(1001)))
    local err = test.fails("closed", connection:receive())
    test.equal(err.code, 1009)
    _ = server
  end,

  ["a timeout ends a handshake that is not answered"] = function()
    local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local began = cosocket.now()
    test.fails("timeout", websocket.connect("ws://" .. listener:local_address(), { timeout = 2 }))
    test.near(cosocket.now() - began, 2, 0.2)
  end,

  ["a request of an HTTP server becomes a connection"] = function()
    local options = { subprotocols = { "live" }, compression = true, message_max = 1000 }
    local refusal
    local server = assert(http_server.listen("tcp://127.0.0.1:0", {
      ["GET /plain"] = function(_, response) response:send({ body = "plain" }) end,
      ["GET /live/:name"] = function(request, response)
        local connection <close>, err = websocket.accept(request, response, options)
        refusal = err
        if not connection then return end
        connection:send(request.params.name)
        echo(connection)
      end,
    }, { access_log = false }))
    local address = "ws://" .. server:address()
    local connection = assert(websocket.connect(address .. "/live/x", { subprotocols = "live", compression = true }))
    test.equal({ connection:subprotocol(), connection:status().compressed }, { "live", true })
    test.equal(connection:receive(), "x")
    assert(connection:send("and back"))
    test.equal(connection:receive(), "and back")
    connection:close(3000)
    local err = test.fails("refused", websocket.connect(address .. "/plain"))
    test.equal(err.code, 200)
    err = test.fails("refused", websocket.connect(address .. "/live/x", { origin = "http://elsewhere.example" }))
    test.equal({ err.code, refusal.kind, refusal.code }, { 403, "refused", 403 })
    local answer = assert(require("http").get("http://" .. server:address() .. "/live/x"))
    test.equal({ answer.status, answer.headers.Upgrade }, { 426, "websocket" })
    server:stop(1)
  end,

  ["a proxy is asked for a tunnel"] = function()
    local server <close>, address = listen()
    local proxy <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local asked
    local task = cosocket.spawn(function()
      local near <close> = assert(proxy:accept())
      asked = near:read_until("\r\n\r\n")
      local far <close> = assert(cosocket.connect("tcp://" .. server:address()))
      near:write("HTTP/1.1 200 OK\r\n\r\n")
      local function pass(from, to)
        for bytes in function() return from:read() end do to:write(bytes) end
        to:shutdown("write")
      end
      cosocket.group(function()
        cosocket.spawn(pass, near, far)
        cosocket.spawn(pass, far, near)
      end)
    end)
    local connection = assert(websocket.connect(address, { proxy = "http://" .. proxy:local_address() }))
    assert(connection:send("through"))
    test.equal(connection:receive(), "through")
    connection:close()
    task:join()
    test.matches(asked, "^CONNECT " .. server:address():gsub("%p", "%%%0") .. " HTTP/1.1\r\n")
  end,

  ["MQTT runs over it"] = function()
    local broker = assert(require("mqtt.broker").listen("ws://127.0.0.1:0"))
    local client = assert(require("mqtt").connect("ws://" .. broker:address()))
    local queue = cosocket.queue()
    assert(client:subscribe("a/#", { qos = 1 }, function(message) queue:put(message.payload) end))
    for _, size in ipairs({ 0, 10, 100000 }) do
      assert(client:publish("a/b", ("x"):rep(size), { qos = 1 }))
      test.equal(#queue:get(), size)
    end
    client:close()
    broker:close()
  end,

  ["mistakes raise"] = function()
    test.raises("ws:// or wss://", websocket.connect, "http://127.0.0.1")
    local here = "websocket_server_test.lua:" .. debug.getinfo(1, "l").currentline + 1
    local message = test.raises("begins with ws://", function() assert(websocket.connect("http://h/")) end)
    test.matches(message, here)
    test.raises("unknown option", websocket.connect, "ws://127.0.0.1", { subprotocol = "x" })
    test.raises("not the name of a subprotocol", websocket.connect, "ws://127.0.0.1", { subprotocols = "a b" })
    test.raises("there twice", websocket.connect, "ws://127.0.0.1", { subprotocols = { "a", "b", "a" } })
    here = "websocket_server_test.lua:" .. debug.getinfo(1, "l").currentline + 2
    message = test.raises("see subprotocols", function()
      assert(websocket.connect("ws://h/", { headers = { ["Sec-WebSocket-Protocol"] = "a" } }))
    end)
    test.matches(message, here)
    test.raises("itself says upgrade", websocket.connect, "ws://h/", { headers = { { "upgrade", "h2c" } } })
    test.raises("from 9 to 15", websocket.connect, "ws://127.0.0.1", { compression = { client_max_window_bits = 8 } })
    test.raises("did you mean", websocket.connect, "ws://127.0.0.1", { compression = { levle = 1 } })
    test.raises("must be a function", websocket.listen, "ws://127.0.0.1:0")
    test.raises("a list or", websocket.listen, "ws://127.0.0.1:0", echo, { origins = "http://x" })
    test.raises("not the name", websocket.listen, "ws://127.0.0.1:0", echo, { subprotocols = { "" } })
  end,
}
