-- Who may connect, what bad input does, slow peers, groups, the client for browsers.
local close_code = require("websocket.close_code")
local cosocket = require("cosocket")
local http = require("http")
local http_server = require("http.server")
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

--- Sends a text on a bare connection: the answer, decoded.
local function ask(connection, text)
  assert(connection:send(text))
  return assert(json.decode((assert(connection:receive()))))
end

local METHODS = { ping = function() return "pong" end }

return {
  ["bad input is answered with its code, and the connection goes on"] = function()
    local server <close>, url = serve(METHODS)
    local raw <close> = assert(websocket.connect(url))
    local other <close> = assert(wsrpc.connect(url))
    for text, code in pairs({
      ["nonsense"] = -32700,
      [("["):rep(50000)] = -32700,
      ['{"jsonrpc":"2.0","id":1e400,"method":"ping"}'] = -32700,
      ['{"jsonrpc":"2.0","id":1,"method":"__gc"}'] = -32601,
      ['{"jsonrpc":"2.0","id":1,"method":"constructor"}'] = -32601,
      ['{"jsonrpc":"2.0","id":1,"method":"__proto__"}'] = -32601,
      ['{"jsonrpc":"3.0","id":1,"method":"ping"}'] = -32600,
      ['{"jsonrpc":"2.0","id":"' .. ("x"):rep(100000) .. '","method":"ping"}'] = -32600,
      ['{"__proto__":{"jsonrpc":"2.0"},"id":1,"method":"ping"}'] = -32600,
    }) do
      test.equal(ask(raw, text).error.code, code)
    end
    local huge = '{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"ping"}'
    test.equal(ask(raw, huge), { jsonrpc = "2.0", id = 1.2345678901234568e29, result = "pong" })
    test.equal(other:call("ping"), "pong")
  end,

  ["a server that closes does not wait for peers that read slowly"] = function()
    local path = os.tmpname()
    os.remove(path)
    local server = assert(wsrpc.serve("unix://" .. path, {
      much = function() return ("x"):rep(4000000) end,
    }, { message_max = 8000000, queue_max = 8000000 }))
    local client <close> = assert(websocket.connect("ws://localhost/rpc", { unix = path, message_max = 8000000 }))
    assert(client:send('{"jsonrpc":"2.0","id":1,"method":"much"}'))
    local total = 0
    local reads = cosocket.spawn(function()
      while true do
        local piece = client:receive_piece()
        if not piece then return end
        total = total + #piece
        cosocket.sleep(1)
      end
    end)
    cosocket.sleep(2)
    local began = cosocket.now()
    server:close()
    test.near(cosocket.now() - began, 5, 0.5)
    reads:cancel()
    test.truthy(total > 0 and total < 4000000)
    test.equal(server:peer_count(), 0)
  end,

  ["what is no text, too long or no UTF-8 closes the connection with its code, and no other"] = function()
    local server <close>, url = serve(METHODS)
    local other <close> = assert(wsrpc.connect(url))
    for code, send in pairs({
      [close_code.unsupported_data] = function(raw) raw:send_binary("{}") end,
      [close_code.message_too_big] = function(raw)
        raw:send('{"jsonrpc":"2.0","method":"ping","id":"' .. ("x"):rep(10000000) .. '"}')
      end,
    }) do
      local raw = assert(websocket.connect(url))
      send(raw)
      local message, err = raw:receive()
      test.equal({ message, err.code }, { nil, code })
    end
    -- A text frame, masked with zeros, whose payload is no UTF-8.
    local stream <close> = assert(cosocket.connect("tcp://" .. server:address()))
    stream:write("GET /rpc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    assert(stream:read_until("\r\n\r\n"))
    stream:write("\x81\x81\0\0\0\0\xff")
    test.equal(stream:read(4), "\x88\x02" .. (">I2"):pack(close_code.invalid_data))
    test.equal(other:call("ping"), "pong")
  end,

  ["a token lets in, as a header and as a subprotocol"] = function()
    local server <close>, url = serve({ me = { function(peer) return peer.identity end, with_peer = true } }, {
      token = { "secret one", "two" },
    })
    test.equal(test.fails("refused", wsrpc.connect(url)).code, 401)
    test.equal(test.fails("refused", wsrpc.connect(url, { token = "three" })).code, 403)
    local peer <close> = assert(wsrpc.connect(url, { token = "two" }))
    test.equal(peer:call("me"), true)
    local named = "bearer." .. require("base64").encode("secret one", { url = true })
    local raw <close> = assert(websocket.connect(url, { subprotocols = { "jsonrpc", named } }))
    test.equal(raw:subprotocol(), "jsonrpc")
    for _, wrong in ipairs({ "bearer.", "bearer.!", "bearer.dGhyZWU", named .. "x" }) do
      test.fails("refused", websocket.connect(url, { subprotocols = { "jsonrpc", wrong } }))
    end
  end,

  ["authorize decides, and says who it is"] = function()
    local server <close>, url = serve({ me = { function(peer) return peer.identity.name end, with_peer = true } }, {
      authorize = function(request, token)
        if request.headers:get("x-device") == "busy" then return nil, 503 end
        return token == "t" and { name = request.headers:get("x-device") } or nil
      end,
    })
    test.equal(test.fails("refused", wsrpc.connect(url)).code, 401)
    test.equal(test.fails("refused", wsrpc.connect(url, { token = "u" })).code, 403)
    test.equal(test.fails("refused", wsrpc.connect(url, { headers = { ["X-Device"] = "busy" } })).code, 503)
    local peer <close> = assert(wsrpc.connect(url, { token = "t", headers = { ["X-Device"] = "boiler" } }))
    test.equal(peer:call("me"), "boiler")
  end,

  ["pages of other origins are refused, and too many peers"] = function()
    local server <close>, url = serve(METHODS, { peers_max = 1 })
    test.equal(test.fails("refused", wsrpc.connect(url, { origin = "http://elsewhere.example" })).code, 403)
    local peer <close> = assert(wsrpc.connect(url, { origin = "http://" .. server:address() }))
    test.equal(test.fails("refused", wsrpc.connect(url)).code, 503)
    local listed <close>, there = serve(METHODS, { origins = { "https://app.example" } })
    local page <close> = assert(wsrpc.connect(there, { origin = "https://app.example" }))
    test.equal({ peer:call("ping"), page:call("ping") }, { "pong", "pong" })
  end,

  ["a peer that does not read is cut off with a reason, and the others are not"] = function()
    local cut = cosocket.queue()
    local server <close>, url = serve(METHODS, {
      queue_max = 1000000,
      on_disconnect = function(_, err) cut:put(err) end,
    })
    local slow = assert(websocket.connect(url))
    local heard = cosocket.queue(100000)
    local peer <close> = assert(wsrpc.connect(url, { methods = { news = function(n) heard:put(n) end } }))
    local text, count = ("x"):rep(50000), 0
    local told
    repeat
      count = count + 1
      told = server:broadcast("news", { count, text })
      test.equal(peer:call("ping"), "pong")
    until told == 1
    local err = cut:get()
    test.equal({ err.kind, err.code }, { "limit", close_code.policy_violation })
    test.matches(err.message, "too slow")
    for i = 1, count do test.equal(heard:get(), i) end
    test.equal(server:peer_count(), 1)
    slow:close()
  end,

  ["a peer that reads nothing for too long is cut off, however little waits"] = function()
    local cut = cosocket.queue()
    local server <close>, url = serve({
      flood = {
        function(emit)
          while emit(("x"):rep(100000)) do end
        end,
        stream = true,
      },
    }, { send_timeout = 0.1, on_disconnect = function(_, err) cut:put(err) end })
    local slow = assert(websocket.connect(url))
    slow:send('{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":{"subscription":1,"name":"flood","credit":1000}}')
    local err = cut:get()
    test.equal({ err.kind, err.code }, { "limit", close_code.policy_violation })
    test.matches(err.message, "what was sent is not read")
    slow:close()
  end,

  ["too many messages in too short a time cut a peer off"] = function()
    local server <close>, url = serve(METHODS, { rate = 5 })
    local raw = assert(websocket.connect(url))
    for _ = 1, 50 do raw:send('{"jsonrpc":"2.0","method":"ping"}') end
    local message, err = raw:receive()
    test.equal({ message, err.code }, { nil, close_code.policy_violation })
    test.matches(err.reason, "too many messages")
  end,

  ["groups hear what they are told, and whoever goes leaves them"] = function()
    local group = wsrpc.group()
    local server <close>, url = serve({
      join = { function(peer) group:add(peer) return group:count() end, with_peer = true },
      leave = { function(peer) group:remove(peer) return group:count() end, with_peer = true },
    })
    local heard = cosocket.queue()
    local function connect(name)
      return assert(wsrpc.connect(url, { methods = { news = function(what) heard:put(name .. what) end } }))
    end
    local one, two, three <close> = connect("one "), connect("two "), connect("three ")
    test.equal({ one:call("join"), two:call("join") }, { 1, 2 })
    test.equal(group:notify("news", { "a" }), 2)
    local got = { heard:get(), heard:get() }
    table.sort(got)
    test.equal(got, { "one a", "two a" })
    test.equal(two:call("leave"), 1)
    two:close()
    one:close()
    test.equal(three:call("leave"), 0)
    test.equal(server:broadcast("news", { "b" }), 1)
    test.equal(heard:get(), "three b")
    test.equal(server.everyone:count(), 1)
  end,

  ["it is a route of an HTTP server, beside the client for browsers"] = function()
    local web = http_server.new()
    web:get("/", function(_, response) response:send("page") end)
    local rpc = assert(wsrpc.serve(web, METHODS, { path = "/live", client_path = "/js/rpc.js" }))
    assert(web:listen("tcp://127.0.0.1:0"))
    local base = web:address()
    test.equal(assert(http.get("http://" .. base .. "/")).body, "page")
    local script = assert(http.get("http://" .. base .. "/js/rpc.js"))
    test.equal(script.headers:get("content-type"), "text/javascript; charset=utf-8")
    test.matches(script.body, "export function connect")
    test.matches(assert(http.get("http://" .. base .. "/js/rpc.d.ts")).body, "export function connect")
    test.equal(assert(http.get("http://" .. base .. "/live")).status, 426)
    local peer <close> = assert(wsrpc.connect("ws://" .. base .. "/live", { reconnect = false }))
    test.equal(peer:call("ping"), "pong")
    rpc:close()
    assert(peer:wait_closed())
    test.equal(peer.err.code, close_code.going_away)
    test.equal(assert(http.get("http://" .. base .. "/live")).status, 503)
    web:stop()
  end,

  ["the server calls each peer that connects, and may add methods"] = function()
    local names = cosocket.queue()
    local server <close>, url = serve({}, {
      on_connect = function(peer) names:put(assert(peer:call("name"))) end,
    })
    local peer <close> = assert(wsrpc.connect(url, { methods = { name = function() return "boiler" end } }))
    test.equal(names:get(), "boiler")
    server:on("late", function() return "added" end)
    test.equal(peer:call("late"), "added")
    server:on("late", nil)
    test.equal(test.fails("refused", peer:call("late")).code, -32601)
  end,
}
