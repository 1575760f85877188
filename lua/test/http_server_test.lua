-- The server, asked by bytes on streams and sockets.
local body = require("http.body")
local codec = require("http.codec")
local cosocket = require("cosocket")
local log = require("log")
local message = require("http.message")
local server = require("http.server")
local test = require("test")

-- Some tests make mistakes on purpose, which are told.
log.level("off")

--- A client's end of a connection to a server.
---@class Peer
---@field stream cosocket.Stream
---@field input cosocket.Buffer
---@field output cosocket.Buffer
---@field task cosocket.Task? The server's.
local Peer = {}
Peer.__index = Peer

---@param one http.Server
---@return Peer
local function connect(one)
  local near, far = cosocket.pair()
  local task = one:serve(far --[[@as cosocket.Stream]])
  return setmetatable({ stream = near, input = cosocket.buffer(), output = cosocket.buffer(), task = task }, Peer)
end

---@class Answer
---@field status integer
---@field headers http.Headers
---@field body string?
---@field err cosocket.Error?
---@field trailers http.Headers?

--- The next response.
---@param method? string
---@return Answer
function Peer:receive(method)
  local status, reason, _, headers, length =
    message.next_response(self.stream, self.input, self.output, method or "GET", nil, cosocket.now() + 1000)
  if not status then return { err = reason } end
  local reader = body.reader(self.stream, self.input, length)
  local text, err = reader:read_all()
  return { status = status, reason = reason, headers = headers, body = text, err = err, trailers = reader.trailers }
end

---@param bytes string
---@param method? string
---@return Answer
function Peer:ask(bytes, method)
  self.stream:write(bytes)
  return self:receive(method)
end

--- A request without a body.
---@param target string
---@param fields? string
---@param method? string
---@return Answer
function Peer:get(target, fields, method)
  method = method or "GET"
  return self:ask(("%s %s HTTP/1.1\r\nHost: h\r\n%s\r\n"):format(method, target, fields or ""), method)
end

---@param target string
---@param text string
---@param fields? string
---@return Answer
function Peer:post(target, text, fields)
  local head = "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%s\r\n"
  return self:ask(head:format(target, #text, fields or "") .. text)
end

--- Whether the server has closed.
---@return boolean
function Peer:is_closed()
  local piece, err = cosocket.deadline(100, self.stream.read, self.stream)
  return piece == nil and err.kind == "closed"
end

---@param options? http.ServerOptions
---@return http.Server
local function new(options)
  local one = server.new(options)
  one:get("/hello", function(_, response) response:send("hello") end)
  one:post("/echo", function(request, response)
    local text, err = request:body()
    if not text then return response:fail(err) end
    response:send({ body = text, type = "text/plain" })
  end)
  return one
end

local basics = {
  ["a request is answered, and the connection goes on"] = function()
    local peer = connect(new())
    for _ = 1, 3 do
      local answer = peer:get("/hello")
      test.equal({ answer.status, answer.body, answer.headers["content-length"] }, { 200, "hello", "5" })
      test.matches(answer.headers["date"], "^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$")
      test.equal(answer.headers["connection"], nil)
    end
  end,

  ["a request cut at any byte is one request"] = function()
    local one = new()
    local bytes = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    test.every_cut(bytes, function(first, second)
      local peer = connect(one)
      peer.stream:write(first)
      peer.stream:flush()
      cosocket.sleep(0.01)
      test.equal(peer:ask(second).body, "hello")
      peer.stream:close()
    end)
  end,

  ["pipelined requests are answered in order"] = function()
    local one = new()
    one:get("/n/:n", function(request, response)
      cosocket.sleep(1 / tonumber(request.params.n))
      response:send(request.params.n)
    end)
    local peer, bytes = connect(one), {}
    for n = 1, 20 do bytes[n] = ("GET /n/%d HTTP/1.1\r\nHost: h\r\n\r\n"):format(n) end
    bytes[21] = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    bytes[22] = "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    peer.stream:write(table.concat(bytes))
    for n = 1, 20 do test.equal(peer:receive().body, tostring(n)) end
    test.equal(peer:receive().body, "abc")
    local last = peer:receive()
    test.equal({ last.body, last.headers["connection"] }, { "hello", "close" })
    test.equal(peer:is_closed(), true)
  end,
}

local upgrade = {
  ["an upgrade hands over the stream and what was unread"] = function()
    local one = new()
    one:get("/ws", function(request, response)
      test.equal(request:offers("WebSocket"), true)
      test.equal(request:offers("h2c"), false)
      local stream, unread = request:upgrade("websocket", { ["Sec-WebSocket-Accept"] = "x" })
      assert(stream, unread)
      test.equal(unread:take(), "early")
      stream:write("late")
      test.equal(stream:read(3), "bye")
      stream:close()
    end)
    local peer = connect(one)
    peer.stream:write("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
    local status, _, _, headers, length = message.next_response(peer.stream, peer.input, peer.output, "GET")
    test.equal({ status, length }, { 101, codec.TUNNEL })
    test.equal({ headers.connection, headers.upgrade, headers["sec-websocket-accept"] }, { "Upgrade", "websocket", "x" })
    while #peer.input < 4 do assert(peer.stream:fill(peer.input)) end
    test.equal(peer.input:take(), "late")
    peer.stream:write("bye")
    test.equal(peer:is_closed(), true)
    test.equal(one:count(), 0)
  end,

  ["whoever does not offer to upgrade is not upgraded"] = function()
    local one = new()
    one:get("/ws", function(request, response)
      local stream, err = request:upgrade("websocket")
      test.equal(stream, nil)
      response:fail(err)
    end)
    for _, fields in ipairs({ "", "Upgrade: websocket\r\n", "Connection: upgrade\r\nUpgrade: h2c\r\n" }) do
      local peer = connect(one)
      local answer = peer:get("/ws", fields)
      test.equal({ answer.status, answer.headers["upgrade"], answer.headers["connection"] }, { 426, "websocket", "upgrade" })
      test.equal(peer:get("/hello").status, 200)
    end
  end,

  ["a stream that was handed over is closed when the handler fails"] = function()
    local one = new()
    one:get("/ws", function(request)
      assert(request:upgrade("x"))
      error("oh")
    end)
    local peer = connect(one)
    peer:get("/ws", "Connection: upgrade\r\nUpgrade: x\r\n")
    test.equal(peer:is_closed(), true)
  end,
}

return { basics = basics, upgrade = upgrade }
