-- WebSocket within an HTTP server: the handler of a request that asks for it has a task and a stack of its own.
local cosocket = require("cosocket")
local http_server = require("http.server")
local test = require("test")
local websocket = require("websocket")

local REQUEST = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
  .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

--- A server of one handler, and a client's stream to it.
local function serving(handler, options)
  options = options or {}
  options.access_log = false
  local server = http_server.new(options)
  server.handler = handler
  local near, far = assert(cosocket.pair())
  server:serve(far)
  return server, near
end

--- Status and body of the next answer.
local function answer(stream)
  local head = assert(stream:read_until("\r\n\r\n"))
  local length = tonumber(head:match("[Cc]ontent%-[Ll]ength: (%d+)")) or 0
  return tonumber(head:match("^HTTP/1.1 (%d+)")), length > 0 and stream:read(length) or ""
end

local function echo(request, response)
  local connection <close> = websocket.accept(request, response)
  if not connection then return end
  for message in connection:messages() do connection:send(message) end
end

return {
  ["a connection is taken over, and its end is that of the server's"] = function()
    local server, stream = serving(echo)
    stream:write(REQUEST, "\x81\x82\0\0\0\0hi")
    stream:flush()
    test.equal(answer(stream), 101)
    test.equal(stream:read(4), "\x81\2hi")
    test.equal(server:count(), 1)
    stream:write("\x88\x80\0\0\0\0")
    test.equal(stream:read_all(), "\x88\0")
    while server:count() > 0 do cosocket.sleep(0.01) end
    server:stop()
  end,

  ["a request that is answered as HTTP is followed by others on its connection"] = function()
    local server, stream = serving(function(request, response)
      if request.path == "/fails" then error("as asked") end
      return response:send({ body = request.path })
    end)
    for _, path in ipairs({ "/one", "/two", "/fails", "/three" }) do
      stream:write((REQUEST:gsub("/", path, 1)))
      stream:flush()
      local status, body = answer(stream)
      if path == "/fails" then test.equal(status, 500) else test.equal({ status, body }, { 200, path }) end
    end
    stream:write("GET /plain HTTP/1.1\r\nHost: h\r\n\r\n")
    test.equal({ answer(stream) }, { 200, "/plain" })
    test.equal(server:count(), 1)
    stream:close()
    while server:count() > 0 do cosocket.sleep(0.01) end
    server:stop()
  end,

  ["requests that came together are answered in their order, with a refused one among them"] = function()
    local server, stream = serving(function(request, response)
      if request.path == "/" then return echo(request, response) end
      return response:send({ body = request.path })
    end)
    local refused = REQUEST:gsub("13", "12")
    stream:write("GET /one HTTP/1.1\r\nHost: h\r\n\r\n", refused, "GET /two HTTP/1.1\r\nHost: h\r\n\r\n")
    stream:flush()
    test.equal({ answer(stream) }, { 200, "/one" })
    test.equal(answer(stream), 426)
    test.equal({ answer(stream) }, { 200, "/two" })
    stream:close()
    server:stop()
  end,

  ["a handler that raises after it has taken over closes the stream"] = function()
    local server, stream = serving(function(request, response)
      assert(websocket.accept(request, response))
      error("as asked")
    end)
    stream:write(REQUEST)
    test.equal(answer(stream), 101)
    test.equal(stream:read_all(), "")
    while server:count() > 0 do cosocket.sleep(0.01) end
    server:stop()
  end,

  ["a server that stops ends the handlers that have taken over"] = function()
    local ended = false
    local server, stream = serving(function(request, response)
      local connection <close> = assert(websocket.accept(request, response))
      local guard <close> = setmetatable({}, { __close = function() ended = true end })
      connection:receive()
    end)
    stream:write(REQUEST)
    test.equal(answer(stream), 101)
    test.falsy(ended)
    server:stop(0)
    cosocket.sleep(0)
    test.truthy(ended)
    test.equal(server:count(), 0)
    stream:close()
  end,

  ["a response that has begun cannot be taken over, and the caller is blamed"] = function()
    local message
    local server, stream = serving(function(request, response)
      response:send({ body = "x" })
      local _, err = pcall(function() websocket.accept(request, response) end)
      message = tostring(err)
    end)
    stream:write(REQUEST)
    test.equal({ answer(stream) }, { 200, "x" })
    cosocket.sleep(0)
    test.matches(message, "websocket_accept_test.lua:%d+: websocket.accept: a response has been sent already")
    stream:close()
    server:stop()
  end,

  ["a connection that is idle costs little more than its handler"] = function()
    local server = http_server.new({ access_log = false })
    server.handler = echo
    local streams, count = {}, 300
    local function heap()
      for _ = 1, 3 do collectgarbage() end
      return collectgarbage("count")
    end
    local pairs_of = {}
    for i = 1, count do
      local near, far = assert(cosocket.pair())
      streams[i], pairs_of[i] = near, far
    end
    local before = heap()
    for i = 1, count do
      server:serve(pairs_of[i])
      streams[i]:write(REQUEST)
      streams[i]:flush()
      test.equal(answer(streams[i]), 101)
    end
    -- On the stack that has read and judged the request, 4.7 KiB.
    local each = (heap() - before) / count
    test.truthy(each < 3.2, ("%.2f KiB each"):format(each))
    test.equal(server:count(), count)
    for _, stream in ipairs(streams) do stream:close() end
    server:stop()
  end,
}
