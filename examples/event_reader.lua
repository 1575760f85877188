-- A device that follows a stream of server-sent events, and goes on behind the last one when the connection is lost.
--
--     moonwire examples/event_reader.lua [URL]
--
-- Without a URL it follows a server in the same process, which ends every connection after three events.

local http = require("http")

local url, server = arg[1], nil

if not url then
  server = http.server.new({ access_log = false })
  server:get("/readings", function(request, response)
    local last = tonumber(request.headers["Last-Event-ID"]) or 0
    print(("-- a reader from event %d on"):format(last + 1))
    -- No more to come: readers need not ask again.
    if last >= 6 then return response:send({ status = 204 }) end
    local events = response:events()
    for id = last + 1, last + 3 do
      assert(events:send({ id = tostring(id), event = id % 3 == 0 and "alarm" or nil, data = ("%d degrees"):format(20 + id) }))
    end
  end)
  assert(server:listen("tcp://127.0.0.1:0"))
  url = ("http://%s/readings"):format(server:address())
end

for event in http.events(url, { retry_delay = 0.05 }) do
  print(("%s %s: %s"):format(event.id, event.type, event.data))
end
print("the server has no more")
if server then server:stop() end
