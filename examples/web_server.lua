-- A device that serves its page, its readings as JSON and as events, and takes settings.
--
--     moonwire examples/web_server.lua [ADDRESS]
--
-- With an address, such as tcp://0.0.0.0:8080, it serves until it is stopped; `curl` and a browser can talk to it.
-- Without, it listens on a free port of this machine, asks itself a few things, and ends.

local cosocket = require("cosocket")
local http_server = require("http.server")

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

local server = http_server.new({ body_max = 4096 })

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

--- One request by hand; answers the status line and the body.
local function ask(method, path, body)
  local stream <close> = assert(cosocket.connect("tcp://" .. server:address()))
  stream:write(method, " ", path, " HTTP/1.0\r\nContent-Length: ", #(body or ""), "\r\n\r\n", body or "")
  local status = assert(stream:read_line())
  assert(stream:read_until("\r\n\r\n"))
  return status, assert(stream:read_all())
end

local function show(method, path, body)
  local status, text = ask(method, path, body)
  print(("%s %s -> %s"):format(method, path, (status:gsub("^HTTP/1.1 ", ""))))
  for line in text:gmatch("[^\n]+") do print("  " .. line) end
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
