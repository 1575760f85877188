--- test.http_asker: a client that asks a server by bytes, over one end of a pair of streams, so that time is virtual.

local body = require("http.body")
local cosocket = require("cosocket")
local message = require("http.message")
local server = require("http.server")

local asker = {}

--- A client's end of a connection to a server.
---@class Asker
---@field stream cosocket.Stream
---@field input cosocket.Buffer
---@field output cosocket.Buffer
---@field task cosocket.Task? The server's.
local Asker = {}
Asker.__index = Asker

--- One who asks over this stream.
---@param stream cosocket.Stream
---@param task? cosocket.Task
---@return Asker
function asker.over(stream, task)
  return setmetatable({ stream = stream, input = cosocket.buffer(), output = cosocket.buffer(), task = task }, Asker)
end

--- A connection to a server.
---@param one http.Server
---@return Asker
function asker.connect(one)
  local near, far = cosocket.pair()
  return asker.over(near --[[@as cosocket.Stream]], one:serve(far --[[@as cosocket.Stream]]))
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
function Asker:receive(method)
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
function Asker:ask(bytes, method)
  self.stream:write(bytes)
  return self:receive(method)
end

--- A request without a body.
---@param target string
---@param fields? string
---@param method? string
---@return Answer
function Asker:get(target, fields, method)
  method = method or "GET"
  return self:ask(("%s %s HTTP/1.1\r\nHost: h\r\n%s\r\n"):format(method, target, fields or ""), method)
end

---@param target string
---@param text string
---@param fields? string
---@return Answer
function Asker:post(target, text, fields)
  local head = "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%s\r\n"
  return self:ask(head:format(target, #text, fields or "") .. text)
end

--- Whether the server has closed.
---@return boolean
function Asker:is_closed()
  local piece, err = cosocket.deadline(100, self.stream.read, self.stream)
  return piece == nil and err.kind == "closed"
end

--- A server that says hello, and what it is told.
---@param options? http.ServerOptions
---@return http.Server
function asker.new(options)
  local one = server.new(options)
  one:get("/hello", function(_, response) response:send("hello") end)
  one:post("/echo", function(request, response)
    local text, err = request:body()
    if not text then return response:fail(err) end
    response:send({ body = text, type = "text/plain" })
  end)
  return one
end

return asker
