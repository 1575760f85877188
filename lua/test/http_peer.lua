--- test.http_peer: a server that answers what a test tells it to, byte for byte. It is at the other end of a pair of
--- streams, so that time is virtual; `peer.http` is the module `http` that finds it.

local body = require("http.body")
local codec = require("http.codec")
local cosocket = require("cosocket")
local http = require("http")

local peer = {}

--- The peers that there are, by "host:port".
local listening = {} ---@type table<string, fun(stream: cosocket.Stream)>
local last = 0

---@type http.Connect
local function connect(host, port, options)
  local accept = listening[("%s:%d"):format(host, port)]
  if not accept then return cosocket.connect(host, port, options) end
  local near, far = cosocket.pair()
  if not near then return nil, far --[[@as cosocket.Error]] end
  accept(far --[[@as cosocket.Stream]])
  return near
end

--- `options` with the way to the peers.
---@param options table?
---@return table
local function with_connect(options)
  local more = {}
  for name, value in pairs(options or {}) do more[name] = value end
  if not more.unix then more.connect = connect end
  return more
end

--- The module `http`, whose requests find peers.
peer.http = { jar = http.jar, file = http.file }
for _, name in ipairs({ "get", "post", "put", "patch", "delete", "head", "options", "events" }) do
  peer.http[name] = function(url, options) return http[name](url, with_connect(options)) end
end
function peer.http.client(options) return http.client(with_connect(options)) end
function peer.http.request(method, url, options) return http.request(method, url, with_connect(options)) end
function peer.http.upload(url, source, options) return http.upload(url, source, with_connect(options)) end
function peer.http.cancel_upload(url, source, options) return http.cancel_upload(url, source, with_connect(options)) end
function peer.http.save(url, path, options) return http.save(url, path, with_connect(options)) end

---@class test.HttpRequest
---@field method string
---@field target string
---@field headers http.Headers
---@field length integer Of the body, as `codec.decode_request` tells it.
---@field body string When it has been read.
---@field trailers http.Headers?
---@field number integer The how manieth request it is.
---@field connection integer The how manieth connection it came on.
---@field stream cosocket.Stream

---@class test.HttpPeer
---@field url string Without a slash at its end.
---@field address string
---@field requests test.HttpRequest[]
---@field counts table<string, integer> How many requests there were of each method.
---@field connections integer How many there have been.
---@field open integer How many there are.
local Peer = {}
Peer.__index = Peer

--- Gives every connection to `handle`, which closes it by returning.
---@param handle fun(stream: cosocket.Stream, number: integer)
---@return test.HttpPeer
function peer.listen(handle)
  last = last + 1
  local host = ("peer%d.test"):format(last)
  local made = setmetatable({ requests = {}, counts = {}, connections = 0, open = 0, key = host .. ":80" }, Peer)
  made.address, made.url = host, "http://" .. host
  listening[made.key] = function(stream)
    made.connections, made.open = made.connections + 1, made.open + 1
    local number = made.connections
    cosocket.spawn("peer's connection", function()
      local _ <close> = setmetatable({}, {
        __close = function()
          made.open = made.open - 1
          stream:close()
        end,
      })
      handle(stream, number)
    end)
  end
  return made
end

--- Answers each request, whose body has not been read, with the bytes that `respond` makes of it. `nil` closes the
--- connection, and `false` says that `respond` has written itself.
---@param respond fun(request: test.HttpRequest, reader: http.BodyReader): string|false|nil
---@return test.HttpPeer
function peer.respond(respond)
  local made
  made = peer.listen(function(stream, number)
    local input = cosocket.buffer()
    while true do
      local method, target, _, headers, length = codec.decode_request(input)
      if method then
        local request = { method = method, target = target, headers = headers, length = length, connection = number, stream = stream }
        table.insert(made.requests, request)
        request.number = #made.requests
        made.counts[method] = (made.counts[method] or 0) + 1
        local bytes = respond(request, body.reader(stream, input, length))
        if bytes == nil then return end
        if bytes and not stream:write(bytes) then return end
      elseif target then
        error(target)
      elseif not stream:fill(input) then
        return
      end
    end
  end)
  return made
end

--- Answers each request, when it has come whole, with the bytes that `answer` makes of it; otherwise as `respond`.
---@param answer fun(request: test.HttpRequest): string|false|nil
---@return test.HttpPeer
function peer.serve(answer)
  return peer.respond(function(request, reader)
    local text = reader:read_all()
    if not text then return nil end
    request.body, request.trailers = text, reader.trailers
    return answer(request)
  end)
end

--- A response with a body.
---@param text string
---@param fields? string Lines, each with its CRLF.
---@param status? string
---@return string
function peer.response(text, fields, status)
  return ("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s"):format(status or "200 OK", fields or "", #text, text)
end

--- Stops listening.
function Peer:close()
  listening[self.key] = nil
end

return peer
