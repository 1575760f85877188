-- A device that serves its page, its readings as JSON and as events, and takes settings.
--
--     moonwire examples/web_server.lua [ADDRESS]
--
-- With an address, such as tcp://0.0.0.0:8080, it serves until it is stopped; `curl` and a browser can talk to it.
-- Without, it listens on a free port of this machine, asks itself a few things, and ends.

local cosocket = require("cosocket")
local http = require("http")

local settings = { interval = 1 }

local PAGE = [[
<!doctype html>
<title>Device</title>
<h1>Device</h1>
<pre id="readings"></pre>
<script>
  new EventSource("/readings").onmessage = event => readings.textContent += event.data + "\n"
</script>
]]

-- Routes ----------------------------------------------------------------------

local server = http.server.new({ body_max = 4096 })

server:get("/", function(_, response)
  response:send({ type = "text/html; charset=utf-8", body = PAGE })
end)

server:get("/settings", function(_, response) response:json(settings) end)

server:put("/settings/:name", function(request, response)
  local name = request.params.name
  if settings[name] == nil then return response:error(404, "no such setting") end
  local value, err = request:json()
  if err then return response:fail(err) end
  if type(value) ~= "number" or value <= 0 then return response:error(400, "a number above 0 is wanted") end
  settings[name] = value
  response:send({})
end)

-- Server-sent events: the handler is plain sequential code, and ends when the client has gone.
server:get("/readings", function(request, response)
  local count = tonumber(request.query.count) or math.huge
  local events = response:events()
  local number = 0
  while number < count do
    number = number + 1
    if not events:send({ id = tostring(number), data = ("reading %d"):format(number) }) then return end
    cosocket.sleep(settings.interval)
  end
end)

-- Asking itself ---------------------------------------------------------------

local function show(method, path, body)
  local response = assert(http.request(method, ("http://%s%s"):format(server:address(), path), { body = body }))
  print(("%s %s -> %d %s"):format(method, path, response.status, response.reason))
  for line in response.body:gmatch("[^\n]+") do print("  " .. line) end
end

local address = arg[1]
assert(server:listen(address or "tcp://127.0.0.1:0"))
print("listening on " .. server:address())

if not address then
  show("GET", "/settings")
  show("PUT", "/settings/interval", "0.1")
  show("PUT", "/settings/interval", "often")
  show("PUT", "/settings/colour", "1")
  show("DELETE", "/settings")
  show("GET", "/readings?count=2")
  show("GET", "/nowhere")
  server:stop()
  print("stopped")
end
