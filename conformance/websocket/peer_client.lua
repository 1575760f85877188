-- Our client against an independent server, peer.py: `moonwire peer_client.lua url=ws://127.0.0.1:P [ca=FILE]`. Prints
-- "passed NAME" or "failed NAME: why" for each case.
local arguments = require("conformance.arguments")
local case = require("conformance.case")
local cosocket = require("cosocket")
local websocket = require("websocket")

local told = arguments(arg)
local url, ca = told.url, told.ca
local SIZES = { 0, 1, 125, 126, 65535, 65536, 1000000 }

--- A connection to the server, whose authority is trusted.
---@param path? string
---@param options? websocket.ConnectOptions
local function connect(path, options)
  options = options or {}
  options.tls = ca and { ca = ca } or nil
  return assert(websocket.connect(url .. (path or ""), options))
end

--- Sends messages of every size, and sees that they come back.
local function echoes(connection)
  for _, size in ipairs(SIZES) do
    local text = ("aß€ "):rep(size // 7) .. ("x"):rep(size % 7)
    assert(connection:send(text))
    local got, kind = connection:receive()
    assert(got == text and kind == "text", "another text came back")
    local bytes = ("\0\xff\x80"):rep(size // 3)
    assert(connection:send_binary(bytes))
    got, kind = connection:receive()
    assert(got == bytes and kind == "binary", "other bytes came back")
  end
end

case("messages of every size are said back", function()
  local connection <close> = connect()
  echoes(connection)
end)

case("compressed with every window, with and without context takeover", function()
  for bits = 9, 15, 3 do
    for _, alone in ipairs({ false, true }) do
      local connection <close> = connect("", {
        compression = {
          client_max_window_bits = bits,
          server_max_window_bits = bits,
          client_no_context_takeover = alone,
          server_no_context_takeover = alone,
          threshold = 0,
        },
      })
      assert(connection:status().compressed, "no compression was agreed on")
      echoes(connection)
    end
  end
end)

case("a message in pieces is one message", function()
  local connection <close> = connect("", { compression = true })
  assert(connection:send_stream("text", ("one two three four"):gmatch("%a+ ?")))
  assert(connection:receive() == "one two three four")
end)

case("fragments are one message, or pieces", function()
  local connection <close> = connect("/pieces")
  local text = ("piece "):rep(5000)
  assert(connection:send(text))
  assert(connection:receive() == text)
  assert(connection:send(text))
  local parts = {}
  for piece in connection:pieces() do parts[#parts + 1] = piece end
  assert(table.concat(parts) == text)
end)

case("pings are answered while a task receives", function()
  -- The server asks every 0.2 seconds.
  local connection <close> = connect()
  cosocket.deadline(1.5, connection.receive, connection)
  assert(connection:send("still there"))
  assert(connection:receive() == "still there")
end)

case("the subprotocol is agreed on", function()
  local connection <close> = connect("", { subprotocols = { "other", "echo" } })
  assert(connection:subprotocol() == "echo")
end)

case("a close is answered with its code", function()
  local connection = connect()
  connection:close(3002, "enough")
  assert(connection.close_code == 3002, connection.close_code)
end)

case("the server's code and reason are heard", function()
  local connection = connect("/close")
  local _, err = connection:receive()
  assert(err.kind == "closed" and connection.close_code == 3001 and connection.close_reason == "as asked", err)
end)

case("a connection that is dropped is an abnormal end", function()
  local connection = connect("/drop")
  local _, err = connection:receive()
  assert(err.kind == "closed" and connection.close_code == 1006, err)
end)

if ca then
  case("a server whose authority is not trusted is refused", function()
    local connection, err = websocket.connect(url)
    assert(not connection and err.kind == "tls", err)
  end)

  case("a server of another name is refused", function()
    local connection, err = websocket.connect(url, { tls = { ca = ca, server_name = "other.example" } })
    assert(not connection and err.kind == "tls", err)
  end)
end
