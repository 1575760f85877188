-- Options that reach into the connection below, and limits as the other side meets them.
local close_code = require("websocket.close_code")
local cosocket = require("cosocket")
local http = require("http")
local json = require("json")
local test = require("test")
local websocket = require("websocket")
local wsrpc = require("wsrpc")

---@return wsrpc.Server server
---@return string url
local function serve(methods, options)
  local server = assert(wsrpc.serve("tcp://127.0.0.1:0", methods, options))
  return server, "ws://" .. server:address() .. "/rpc"
end

--- A WebSocket handshake as a client makes it, with a key whose answer is known.
local REQUEST = "GET /rpc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
  .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

--- A server that agrees to speak WebSocket and says nothing more.
local function silent_server()
  local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
  cosocket.spawn(function()
    while true do
      local stream = listener:accept()
      if not stream then return end
      local key = assert(stream:read_until("\r\n\r\n")):match("[Kk]ey: (%S+)")
      local crypto, base64 = require("crypto"), require("base64")
      local accept = base64.encode(crypto.sha1(key .. "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
      stream:write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        .. "Sec-WebSocket-Accept: " .. accept .. "\r\n\r\n")
      stream:flush()
      cosocket.spawn(function()
        while stream:read() do end
      end)
    end
  end)
  return listener, "ws://" .. listener:local_address() .. "/rpc"
end

local METHODS = { ping = function() return "pong" end, echo = function(value) return value end }

return {
  ["compression is used where both sides want it"] = function()
    local server <close>, url = serve(METHODS, { compression = true })
    local raw <close> = assert(websocket.connect(url, { compression = true }))
    test.equal(raw:status().compressed, true)
    local plain <close> = assert(websocket.connect(url))
    test.equal(plain:status().compressed, false)
    local peer <close> = assert(wsrpc.connect(url, { compression = { threshold = 0 } }))
    local text = ("compressible "):rep(10000)
    test.equal(peer:call("echo", { text }), text)
    -- What a client asks for, as a server sees it.
    local agreed = cosocket.queue()
    local other <close> = assert(websocket.listen("ws://127.0.0.1:0", function(connection)
      agreed:put(connection:status().compressed)
      connection:receive()
    end, { compression = true }))
    for _, wanted in ipairs({ true, false }) do
      local one <close> = assert(wsrpc.connect("ws://" .. other:address(), { compression = wanted, reconnect = false }))
      test.equal(agreed:get(), wanted)
    end
  end,

  ["a peer of which nothing is heard is given up by the server"] = function()
    local lost = cosocket.queue()
    local server <close> = serve(METHODS, {
      keep_alive = 5,
      keep_alive_timeout = 3,
      on_disconnect = function(_, err) lost:put({ err.kind, cosocket.now() }) end,
    })
    local stream <close> = assert(cosocket.connect("tcp://" .. server:address()))
    stream:write(REQUEST)
    assert(stream:read_until("\r\n\r\n"))
    local began = cosocket.now()
    -- A Ping comes, and nobody answers it.
    test.equal(stream:read(2), "\x89\0")
    local kind, at = table.unpack(lost:get())
    test.equal(kind, "timeout")
    test.near(at - began, 8, 0.5)
  end,

  ["a server of which nothing is heard is given up by the client, which connects again"] = function()
    local listener <close>, url = silent_server()
    local lost = cosocket.queue()
    local peer <close> = assert(wsrpc.connect(url, {
      keep_alive = 5,
      keep_alive_timeout = 3,
      on_disconnect = function(_, err) lost:put({ err.kind, cosocket.now() }) end,
    }))
    local began = cosocket.now()
    local kind, at = table.unpack(lost:get())
    test.equal(kind, "timeout")
    test.near(at - began, 8, 0.5)
    assert(peer:wait_open())
    test.equal(peer:is_open(), true)
  end,

  ["without keep-alive silence is no end"] = function()
    local server <close>, url = serve(METHODS, { keep_alive = 0 })
    local peer <close> = assert(wsrpc.connect(url, { keep_alive = 0 }))
    cosocket.sleep(3600)
    test.equal(peer:call("ping"), "pong")
    test.equal(server:peer_count(), 1)
  end,

  ["keep-alive keeps both sides there"] = function()
    local server <close>, url = serve(METHODS, { keep_alive = 2, keep_alive_timeout = 1 })
    local peer <close> = assert(wsrpc.connect(url, { keep_alive = 2, keep_alive_timeout = 1, reconnect = false }))
    cosocket.sleep(5)
    test.equal(peer:call("ping"), "pong")
  end,

  ["a proxy leads to the server"] = function()
    local server <close>, url = serve(METHODS)
    local proxy <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local asked
    cosocket.spawn(function()
      local near = assert(proxy:accept())
      asked = near:read_until("\r\n\r\n")
      local far = assert(cosocket.connect("tcp://" .. server:address()))
      near:write("HTTP/1.1 200 OK\r\n\r\n")
      local function pass(from, to)
        for bytes in function() return from:read() end do to:write(bytes) end
        to:shutdown("write")
      end
      cosocket.spawn(pass, near, far)
      pass(far, near)
    end)
    local through = "http://" .. proxy:local_address()
    local peer <close> = assert(wsrpc.connect(url, { proxy = through, reconnect = false }))
    test.equal(peer:call("ping"), "pong")
    test.matches(asked, "^CONNECT " .. server:address():gsub("%p", "%%%0") .. " HTTP/1.1\r\n")
    test.equal(server:peer_count(), 1)
  end,

  ["a Unix socket leads to the server"] = function()
    local path = os.tmpname()
    os.remove(path)
    local server <close> = assert(wsrpc.serve("unix://" .. path, METHODS))
    local peer <close> = assert(wsrpc.connect("ws://device.local/rpc", { unix = path, reconnect = false }))
    test.equal(peer:call("ping"), "pong")
  end,

  ["a server that does not answer is waited for as long as the options say"] = function()
    local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local began = cosocket.now()
    test.fails("timeout", wsrpc.connect("ws://" .. listener:local_address(), { timeout = 7 }))
    test.near(cosocket.now() - began, 7, 0.5)
  end,

  ["a call waits as long as the options say, or itself"] = function()
    local server <close>, url = serve({ hang = function() return cosocket.sleep(1000) end })
    local peer <close> = assert(wsrpc.connect(url, { call_timeout = 3 }))
    for wanted, err in pairs({
      [3] = select(2, peer:call("hang")),
      [2] = select(2, peer:call("hang", nil, 2)),
    }) do
      test.equal(err.kind, "timeout")
      test.matches(err.message, ("hang was not answered within %d s"):format(wanted))
    end
    local began = cosocket.now()
    test.fails("timeout", peer:batch({ { "hang" } }))
    test.near(cosocket.now() - began, 3, 0.5)
  end,

  ["a message that is too long closes the connection of whoever sent it"] = function()
    local server <close>, url = serve(METHODS, { message_max = 1000 })
    local other <close> = assert(wsrpc.connect(url))
    local peer <close> = assert(wsrpc.connect(url, { reconnect = false }))
    local around = #'{"jsonrpc":"2.0","id":1,"method":"echo","params":[""]}'
    local longest = ("x"):rep(1000 - around)
    test.equal(peer:call("echo", { longest }), longest)
    test.fails("closed", peer:call("echo", { longest .. "xx" }))
    test.equal(peer.err.code, close_code.message_too_big)
    test.equal(other:call("ping"), "pong")
  end,

  ["a result that is too long is an error, and the connection goes on"] = function()
    local server <close>, url = serve({ long = function(n) return ("x"):rep(n) end }, { message_max = 1000 })
    local peer <close> = assert(wsrpc.connect(url))
    test.equal(#peer:call("long", { 900 }), 900)
    for _, length in ipairs({ 970, 1000, 100000 }) do
      test.equal(test.fails("refused", peer:call("long", { length })).code, wsrpc.code.internal_error)
    end
    test.equal(#peer:call("long", { 10 }), 10)
  end,

  ["values nest as deep as the options say"] = function()
    local server <close>, url = serve(METHODS, { depth_max = 5 })
    local peer <close> = assert(wsrpc.connect(url))
    test.equal(peer:call("echo", { { { { 1 } } } }), json.array({ json.array({ json.array({ 1 }) }) }))
    test.fails("timeout", peer:call("echo", { { { { { 1 } } } } }, 0.1))
    local raw <close> = assert(websocket.connect(url))
    raw:send('{"jsonrpc":"2.0","id":1,"method":"echo","params":[[[[[1]]]]]}')
    test.equal(assert(json.decode((raw:receive()))).error.code, -32700)
    local shallow <close> = assert(wsrpc.connect(url, { depth_max = 3 }))
    test.fails("limit", shallow:call("echo", { { { { 1 } } } }))
  end,

  ["calls, batches and subscriptions of ours keep to the options"] = function()
    local hold = { function(emit) while emit(1) do cosocket.sleep(1) end end, stream = true }
    local server <close>, url = serve({ hang = function() cosocket.sleep(1000) end, hold = hold })
    local peer <close> = assert(wsrpc.connect(url, { pending_max = 2, batch_max = 2, subscriptions_max = 1 }))
    local one, two = cosocket.spawn(peer.call, peer, "hang"), cosocket.spawn(peer.call, peer, "hang")
    cosocket.sleep(0.01)
    test.matches(test.fails("limit", peer:call("hang")).message, "pending_max")
    test.matches(test.fails("limit", peer:batch({ { "a" } })).message, "pending_max")
    one:cancel()
    two:cancel()
    cosocket.sleep(0.01)
    test.matches(test.fails("limit", peer:batch({ { "a" }, { "b" }, { "c" } })).message, "batch_max")
    local stream <close> = assert(peer:subscribe("hold"))
    test.matches(test.fails("limit", peer:subscribe("hold")).message, "subscriptions_max")
    stream:close()
    local next_one <close> = assert(peer:subscribe("hold"))
    test.equal(next_one:next(), 1)
  end,

  ["subscriptions of the other side keep to the options"] = function()
    local hold = { function(emit) while emit(1) do cosocket.sleep(1) end end, stream = true }
    local server <close>, url = serve({ hold = hold }, { subscriptions_max = 1, batch_max = 1 })
    local peer <close> = assert(wsrpc.connect(url))
    local stream <close> = assert(peer:subscribe("hold"))
    test.equal(test.fails("refused", peer:subscribe("hold")).code, wsrpc.code.busy)
    test.equal(stream:next(), 1)
    local raw <close> = assert(websocket.connect(url))
    raw:send('[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","id":2,"method":"a"}]')
    test.equal(assert(json.decode((raw:receive()))).error.code, wsrpc.code.invalid_request)
  end,

  ["more messages than the rate are refused with its code"] = function()
    local server <close>, url = serve(METHODS, { rate = 10 })
    local peer <close> = assert(wsrpc.connect(url))
    for _ = 1, 10 do test.equal(peer:call("ping"), "pong") end
    test.equal(test.fails("refused", peer:call("ping")).code, wsrpc.code.rate_exceeded)
    cosocket.sleep(1)
    test.equal(peer:call("ping"), "pong")
  end,

  ["every page may connect where the options say so"] = function()
    local server <close>, url = serve(METHODS, { origins = "*" })
    local peer <close> = assert(wsrpc.connect(url, { origin = "http://elsewhere.example" }))
    test.equal(peer:call("ping"), "pong")
  end,

  ["the client for browsers is not handed out where the options say so"] = function()
    local server <close> = serve(METHODS, { client_path = false })
    for _, path in ipairs({ "/wsrpc.js", "/wsrpc.d.ts" }) do
      test.equal(assert(http.get("http://" .. server:address() .. path)).status, 404)
    end
  end,

  ["a token and fields of one's own go together"] = function()
    local seen
    local server <close>, url = serve(METHODS, {
      authorize = function(request, token)
        seen = { token, request.headers:get("x-device"), request.headers:get("x-other") }
        return true
      end,
    })
    local peer <close> = assert(wsrpc.connect(url, { token = "t", headers = { ["X-Device"] = "boiler", ["X-Other"] = "1" } }))
    test.equal(seen, { "t", "boiler", "1" })
  end,

  ["a method that is deprecated says so"] = function()
    local server <close>, url = serve({ old = { print, deprecated = true, description = "Once." } })
    local peer <close> = assert(wsrpc.connect(url))
    local old = assert(peer:call("rpc.discover")).methods[1]
    test.equal({ old.deprecated, old.description }, { true, "Once." })
  end,

  ["unknown options and those of the wrong kind are refused by name"] = function()
    local server <close>, url = serve({})
    test.raises("keep_alve", wsrpc.connect, url, { keep_alve = 1 })
    test.raises("calls_max", wsrpc.connect, url, { calls_max = "many" })
    test.raises("peer_max", wsrpc.serve, "tcp://127.0.0.1:0", {}, { peer_max = 1 })
    test.raises("token", wsrpc.serve, "tcp://127.0.0.1:0", {}, { token = 1 })
    test.raises("colour", wsrpc.serve, "tcp://127.0.0.1:0", { m = { print, colour = 1 } })
    local peer <close> = assert(wsrpc.connect(url))
    test.raises("windw", peer.subscribe, peer, "s", nil, { windw = 1 })
    test.raises("window must be at least 1", peer.subscribe, peer, "s", nil, { window = 0 })
  end,
}
