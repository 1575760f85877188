-- WebSocket, both ends in one script: a server that says everything back, and a client that talks to it.
--
--   moonwire examples/websocket_echo.lua

local cosocket = require("cosocket")
local websocket = require("websocket")

-- The server. Each client gets a task, and the end of its handler closes the connection.
local server = assert(websocket.listen("ws://127.0.0.1:0", function(connection)
  for message, kind in connection:messages() do
    if kind == "text" then
      connection:send(message)
    else
      connection:send_binary(message)
    end
  end
end, {
  subprotocols = { "echo" },
  -- Browsers let any page connect anywhere: name the pages that may. Programs that are no browser may anyway.
  origins = { "https://app.example" },
  compression = true,
}))

-- The client. `<close>` says goodbye at the end of the block, whatever happens in it.
do
  local connection <close> = assert(websocket.connect("ws://" .. server:address() .. "/", {
    subprotocols = "echo",
    compression = { client_no_context_takeover = true, server_no_context_takeover = true },
    timeout = 5,
  }))
  print("subprotocol: " .. connection:subprotocol())

  assert(connection:send("temperature 21.5 °C"))
  print("text: " .. assert(connection:receive()))

  assert(connection:send_binary(string.pack(">I2 I2", 215, 480)))
  local bytes, kind = connection:receive()
  print(("%s: %d bytes"):format(kind, #assert(bytes)))

  -- What is too long to be held goes and comes in pieces, while both directions are under way.
  cosocket.spawn(function()
    local left = 1000
    assert(connection:send_stream("text", function()
      left = left - 1
      return left >= 0 and ("line %03d\n"):format(left) or nil
    end))
  end)
  local total = 0
  for piece in connection:pieces() do total = total + #piece end
  print(("pieces: %d bytes"):format(total))

  -- Waiting with a deadline takes nothing away.
  local message, err = cosocket.deadline(0.1, connection.receive, connection)
  print(("nothing to receive: %s"):format(message or err.kind))

  connection:close(3000, "done")
  print(("closed with %d"):format(connection.close_code))
end

-- A page that was not named is refused.
local connection, err = websocket.connect("ws://" .. server:address() .. "/", { origin = "https://elsewhere.example" })
print(("another page: %s, status %d"):format(connection or err.kind, err.code))

server:close()
