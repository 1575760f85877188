-- The client under test: runs the cases of a fuzzing server, saying everything back.
-- `moonwire client.lua url=ws://127.0.0.1:P agent=NAME [from=N] [to=N] [alone=1]`;
-- `alone=1`: this side offers to compress without context takeover. Says "done CASE" of each.
local arguments = require("conformance.arguments")
local websocket = require("websocket")

local options = arguments(arg)
local url, agent = options.url, options.agent or "moonwire"

--- One message of the fuzzing server.
local function ask(path)
  local connection <close> = assert(websocket.connect(url .. path))
  return assert(connection:receive())
end

local count = tonumber((ask("/getCaseCount"))) --[[@as integer]]
for case = tonumber(options.from) or 1, tonumber(options.to) or count do
  local connection, err = websocket.connect(("%s/runCase?case=%d&agent=%s"):format(url, case, agent), {
    compression = { client_no_context_takeover = options.alone == "1" },
    message_max = 32 * 1024 * 1024,
    keep_alive = 0,
  })
  if connection then
    for message, kind in connection:messages() do
      if kind == "text" then
        connection:send(message)
      else
        connection:send_binary(message)
      end
    end
  else
    -- A case may be that no handshake comes about; the fuzzing server says what it thinks of it.
    print(("case %d: %s"):format(case, err))
  end
  print("done " .. case)
end
-- The last words of the fuzzing server: it writes its report, and is deaf until it has.
local connection <close> = assert(websocket.connect(("%s/updateReports?agent=%s"):format(url, agent), { keep_alive = 0 }))
connection:receive()
print(("ran %d cases"):format(count))
