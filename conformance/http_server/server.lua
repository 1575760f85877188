-- The server under test: `moonwire server.lua WWW CERTIFICATE KEY`. Prints `ready PORT TLS_PORT`.
local cosocket = require("cosocket")
local http_server = require("http.server")

local www, certificate, key = table.unpack(arg, 1, 3)

local LIMITS = { head_max = 8192, headers_max = 50, start_line_max = 2048, body_max = 64 * 1048576, head_timeout = 2 }

local function routes(server)
  server:get("/hello", function(_, response) response:send("hello") end)
  server:get("/things/:id", function(request, response)
    response:json({ id = request.params.id, query = request.query })
  end)
  server:post("/echo", function(request, response)
    local body, err = request:body()
    if not body then return response:fail(err) end
    response:send({ body = body, type = request.headers["content-type"] or "application/octet-stream" })
  end)
  -- Counts what comes, in pieces, and tells at the end.
  server:put("/count", function(request, response)
    local size = 0
    for piece in request:chunks() do size = size + #piece end
    local trailer = request.trailers and request.trailers["checksum"]
    response:json({ size = size, checksum = trailer })
  end)
  server:post("/refuse", function(_, response) response:error(403) end)
  server:get("/chunks", function(_, response)
    response:send({ type = "text/plain", trailers = { Lines = 100 }, body = function(write)
      for i = 1, 100 do assert(write(("line %d\n"):format(i))) end
    end })
  end)
  server:get("/broken", function(_, response)
    response:write("a part")
    error("on purpose")
  end)
  server:get("/boom", function() error("on purpose") end)
  server:get("/slow", function(_, response)
    response:start({ type = "text/plain" })
    response:write("begun\n")
    cosocket.sleep(1)
    response:write("done\n")
  end)
  server:get("/events", function(_, response)
    local events = response:events()
    for i = 1, 3 do events:send({ id = tostring(i), data = "tick" }) end
  end)
  server:get("/tls", function(request, response) response:send(request.tls and request.tls.version or "none") end)
  server:get("/upgrade", function(request, response)
    local stream, unread = request:upgrade("echo")
    if not stream then return response:fail(unread) end
    local first = unread:take()
    if first ~= "" then stream:write(first) end
    while true do
      local piece = stream:read()
      if not piece then break end
      stream:write(piece)
    end
    stream:close()
  end)
  server:static("/files", www)
  return server
end

local plain, secure = http_server.new(LIMITS), nil
do
  local options = { tls = { certificate = certificate, key = key } }
  for name, value in pairs(LIMITS) do options[name] = value end
  secure = http_server.new(options)
end
assert(routes(plain):listen("http://127.0.0.1:0"))
assert(routes(secure):listen("https://127.0.0.1:0"))
print(("ready %s %s"):format(plain:address():match("%d+$"), secure:address():match("%d+$")))
io.stdout:flush()
