-- Holds many idle connections: `moonwire idle.lua PORT COUNT`. Each asks once, then all are silent, then each asks again.
local cosocket = require("cosocket")

local port, count = arg[1], tonumber(arg[2])

local function ask(stream)
  stream:write("GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
  return stream:read_until("\r\n\r\n") and stream:read(5) == "hello"
end

local streams, alive = {}, 0
for i = 1, count do
  streams[i] = assert(cosocket.connect("tcp://127.0.0.1:" .. port))
  assert(ask(streams[i]))
end
for _, stream in ipairs(streams) do
  if ask(stream) then alive = alive + 1 end
end
print(("%d of %d"):format(alive, count))
for _, stream in ipairs(streams) do stream:close() end
