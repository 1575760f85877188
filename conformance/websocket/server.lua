-- The server under test: says everything back. `moonwire server.lua port=P [cert=F key=F]`; prints where it listens,
-- and "done" when a connection has ended.
local arguments = require("conformance.arguments")
local websocket = require("websocket")

local options = arguments(arg)

local server = assert(websocket.listen(
  ("%s://127.0.0.1:%s"):format(options.cert and "wss" or "ws", options.port or "0"),
  function(connection)
    for message, kind in connection:messages() do
      if kind == "text" then
        connection:send(message)
      else
        connection:send_binary(message)
      end
    end
    print("done")
  end,
  {
    tls = options.cert and { certificate = options.cert, key = options.key } or nil,
    compression = true,
    subprotocols = { "echo" },
    -- 9.* has messages of 16 MiB.
    message_max = 32 * 1024 * 1024,
  }
))
print("listening on " .. server:address())
