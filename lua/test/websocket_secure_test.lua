-- wss:// on the loopback: who is trusted, and that a connection over TLS is one like any other.
local certificate = require("test.certificate")
local cosocket = require("cosocket")
local http_server = require("http.server")
local test = require("test")
local websocket = require("websocket")

local IDENTITY = { certificate = certificate.localhost, key = certificate.key }
local TRUST = { ca = certificate.ca }

---@return websocket.Server server
---@return string port
local function listen(options)
  local all = { tls = IDENTITY }
  for name, value in pairs(options or {}) do all[name] = value end
  local server = assert(websocket.listen("wss://localhost:0", function(connection)
    for message, kind in connection:messages() do
      if message == "bye" then connection:close(3003, "as asked") end
      if kind == "text" then connection:send(message) else connection:send_binary(message) end
    end
  end, all))
  return server, server:address():match("(%d+)$")
end

return {
  ["messages of every size are said back, compressed and not"] = function()
    local server <close>, port = listen({ compression = true })
    for _, compression in ipairs({ false, true }) do
      local connection <close> = assert(websocket.connect("wss://localhost:" .. port, { tls = TRUST, compression = compression }))
      test.equal(connection:status().compressed, compression)
      for _, size in ipairs({ 0, 1, 125, 126, 16384, 70000, 1000000 }) do
        local text, bytes = ("aß€ "):rep(size // 7) .. ("x"):rep(size % 7), ("\xff\0"):rep(size // 2)
        assert(connection:send(text))
        test.equal({ connection:receive() }, { text, "text" })
        assert(connection:send_binary(bytes))
        test.equal({ connection:receive() }, { bytes, "binary" })
      end
    end
  end,

  ["a close and its reason come through"] = function()
    local server <close>, port = listen()
    local connection = assert(websocket.connect("wss://localhost:" .. port, { tls = TRUST }))
    assert(connection:send("bye"))
    local _, err = connection:receive()
    test.equal({ err.kind, err.code, err.reason }, { "closed", 3003, "as asked" })
    local other = assert(websocket.connect("wss://localhost:" .. port, { tls = TRUST }))
    other:close(3002, "enough")
    test.equal(other.close_code, 3002)
  end,

  ["a server that nobody vouches for is refused, and so is one by another name"] = function()
    local server <close>, port = listen()
    test.fails("tls", websocket.connect("wss://localhost:" .. port))
    test.fails("tls", websocket.connect("wss://127.0.0.1:" .. port, { tls = TRUST }))
    local _, err = websocket.connect("wss://127.0.0.1:" .. port, { tls = TRUST })
    test.matches(err.message, "name")
    local named <close> = assert(websocket.connect("wss://127.0.0.1:" .. port, { tls = { ca = certificate.ca, server_name = "localhost" } }))
    assert(named:send("x"))
    test.equal(named:receive(), "x")
    test.fails("tls", websocket.connect("wss://localhost:" .. port, { tls = { ca = certificate.ca, pin_sha256 = ("00"):rep(32) } }))
  end,

  ["ws:// to a server of wss:// is no handshake, and the other way round"] = function()
    local server <close>, port = listen()
    local connection, err = websocket.connect("ws://localhost:" .. port)
    test.equal(connection, nil)
    test.truthy(err.kind == "closed" or err.kind == "protocol", err)
    local plain <close> = assert(websocket.listen("ws://127.0.0.1:0", function() end))
    test.fails("tls", websocket.connect("wss://" .. plain:address(), { tls = TRUST, timeout = 5 }))
  end,

  ["it is accepted within a server of https://, and as a stream of bytes"] = function()
    local server = http_server.new({ tls = IDENTITY, access_log = false })
    server:get("/live", function(request, response)
      local connection <close> = websocket.accept(request, response)
      if not connection then return end
      for message in connection:messages() do connection:send_binary(message:upper()) end
    end)
    assert(server:listen("https://localhost:0"))
    local port = server:address():match("(%d+)$")
    local stream = assert(websocket.connect_stream("wss://localhost:" .. port .. "/live", { tls = TRUST }))
    assert(stream:write("one line\nand "))
    test.equal(stream:read_line(), "ONE LINE")
    test.equal(stream:read(4), "AND ")
    stream:close()
    server:stop()
  end,

  ["many connections at once keep their messages apart"] = function()
    local server <close>, port = listen()
    cosocket.group(function()
      for number = 1, 20 do
        cosocket.spawn(function()
          local connection <close> = assert(websocket.connect("wss://localhost:" .. port, { tls = TRUST }))
          for round = 1, 10 do
            local text = ("%d %d "):format(number, round):rep(100)
            assert(connection:send(text))
            test.equal(connection:receive(), text)
          end
        end)
      end
    end)
  end,
}
