--- test.http_peer: a server on the loopback that answers what a test tells it to, byte for byte.

local body = require("http.body")
local codec = require("http.codec")
local cosocket = require("cosocket")

local peer = {}

---@class test.HttpRequest
---@field method string
---@field target string
---@field headers http.Headers
---@field body string
---@field trailers http.Headers?
---@field connection integer The how manieth connection it came on.
---@field stream cosocket.Stream

---@class test.HttpPeer
---@field url string Without a slash at its end.
---@field address string
---@field requests test.HttpRequest[]
---@field connections integer How many there have been.
---@field open integer How many there are.
local Peer = {}
Peer.__index = Peer

--- Gives every connection to `handle`, which closes it by returning.
---@param handle fun(stream: cosocket.Stream, number: integer)
---@param options? cosocket.ListenOptions
---@param address? string
---@return test.HttpPeer
function peer.listen(handle, options, address)
  local scheme = options and options.tls and "tls" or "tcp"
  local listener = assert(cosocket.listen(address or scheme .. "://127.0.0.1:0", options))
  local made = setmetatable({ requests = {}, connections = 0, open = 0, listener = listener }, Peer)
  made.address = listener:local_address()
  made.url = (scheme == "tls" and "https://" or "http://") .. made.address
  made.task = cosocket.spawn("peer", function()
    while true do
      local stream = listener:accept()
      if not stream then return end
      made.connections, made.open = made.connections + 1, made.open + 1
      local number = made.connections
      cosocket.spawn("peer's connection", function()
        local _ <close> = setmetatable({}, { __close = function()
          made.open = made.open - 1
          stream:close()
        end })
        handle(stream, number)
      end)
    end
  end)
  return made
end

--- Answers each request with the bytes that `answer` makes of it. `nil` closes the connection, and `false` says that
--- `answer` has written itself.
---@param answer fun(request: test.HttpRequest): string|false|nil
---@param options? cosocket.ListenOptions
---@param address? string
---@return test.HttpPeer
function peer.serve(answer, options, address)
  local made
  made = peer.listen(function(stream, number)
    local input = cosocket.buffer()
    while true do
      local method, target, _, headers, length = codec.decode_request(input)
      if method then
        local reader = body.reader(stream, input, length)
        local text = reader:read_all()
        if not text then return end
        local request = {
          method = method,
          target = target,
          headers = headers,
          body = text,
          trailers = reader.trailers,
          connection = number,
          stream = stream,
        }
        table.insert(made.requests, request)
        local bytes = answer(request)
        if bytes == nil then return end
        if bytes and not stream:write(bytes) then return end
      elseif target then
        error(target)
      elseif not stream:fill(input) then
        return
      end
    end
  end, options, address)
  return made
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
  self.listener:close()
end

return peer
