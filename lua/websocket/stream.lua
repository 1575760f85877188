--- A connection as a stream of bytes, with the methods of TCP and TLS streams: what is written leaves as binary messages,
--- and the payload of binary messages is what is read, wherever their borders are. So protocols that speak bytes, such
--- as MQTT, run over WebSocket.

local close_code = require("websocket.close_code")
local connection = require("websocket.connection")
local cosocket = require("cosocket")

--- Longest line, or text before a pattern, unless the call says otherwise.
local LINE_MAX = 65536
--- Most bytes `read_all` takes, unless the call says otherwise.
local ALL_MAX = 16777216

---@class websocket.Connection
local Connection = connection.class

--- Waits for more bytes.
---@async
---@param self websocket.Connection
---@return cosocket.Buffer? bytes
---@return cosocket.Error? err
local function more(self)
  local piece, kind, last
  repeat
    piece, kind, last = self:receive_piece()
    if not piece then return nil, kind --[[@as cosocket.Error]] end
    if kind == "text" then
      self:close(close_code.unsupported_data)
      return nil, cosocket.error("protocol", "websocket.read", "a text message came where bytes are wanted", {
        code = close_code.unsupported_data,
      })
    end
  until piece ~= ""
  self.bytes = self.bytes or cosocket.buffer()
  self.bytes:append(piece)
  return self.bytes
end

--- Takes from what has come with `take`, or waits for more. Empty memory is given back.
---@async
---@param self websocket.Connection
---@param take fun(bytes: cosocket.Buffer): string?, cosocket.Error?
---@return string? data
---@return cosocket.Error? err
local function read(self, take)
  local bytes, err = self.bytes, nil
  while true do
    local data
    if bytes then data, err = take(bytes) end
    if bytes and #bytes == 0 then self.bytes = nil end
    if data or err then return data, err end
    bytes, err = more(self)
    if not bytes then return nil, err end
  end
end

---@param what string
---@param max integer
local function too_long(what, max)
  return nil, cosocket.error("limit", "websocket.read", ("the %s is longer than %d bytes"):format(what, max))
end

--- Without `n`: whatever has arrived, at least one byte. With `n`: exactly `n` bytes.
---@async
---@param n? integer
---@return string? data
---@return cosocket.Error? err
function Connection:read(n)
  if n == 0 then return "" end
  return read(self, function(bytes)
    if #bytes == 0 then return nil end
    return bytes:take(n)
  end)
end

--- One line without its LF or CRLF.
---@async
---@param max? integer Default 65536.
---@return string? line
---@return cosocket.Error? err `limit` when longer; nothing is consumed then
function Connection:read_line(max)
  max = max or LINE_MAX
  return read(self, function(bytes)
    local at = bytes:find("\n")
    local text = at and (at > 0 and bytes:peek(1, at - 1) == "\r" and at - 1 or at)
    if (text or #bytes - 1) > max then return too_long("line", max) end
    return bytes:line()
  end)
end

--- Everything up to and including `pattern` (plain bytes).
---@async
---@param pattern string
---@param max? integer Default 65536.
---@return string? data
---@return cosocket.Error? err
function Connection:read_until(pattern, max)
  max = max or LINE_MAX
  return read(self, function(bytes)
    local at = bytes:find(pattern)
    if (at and at + #pattern or #bytes) > max then return too_long("text before the pattern", max) end
    return at and bytes:take(at + #pattern)
  end)
end

--- Everything until the other side closes.
---@async
---@param max? integer Default 16777216.
---@return string? data
---@return cosocket.Error? err
function Connection:read_all(max)
  max = max or ALL_MAX
  while true do
    if self.bytes and #self.bytes > max then return too_long("stream", max) end
    local bytes, err = more(self)
    if not bytes then
      ---@cast err cosocket.Error
      local clean = err.kind == "closed" and err.code ~= close_code.abnormal
      if not clean then return nil, err end
      local data = self.bytes and self.bytes:take() or ""
      self.bytes = nil
      return data
    end
  end
end

--- Reads whatever has arrived onto the end of `buffer`, at least one byte.
---@async
---@param buffer cosocket.Buffer
---@return integer? count
---@return cosocket.Error? err
function Connection:fill(buffer)
  local data, err = self:read()
  if not data then return nil, err end
  buffer:append(data)
  return #data
end

--- The arguments of a `write` as one string.
---@param ... string|cosocket.Buffer|integer|number
---@return string
local function joined(...)
  if select("#", ...) == 1 and type(...) == "string" then return ... end
  return cosocket.buffer():append(...):take() or ""
end

--- Sends all arguments as one message; nothing when there are no bytes.
---@async
---@param ... string|cosocket.Buffer|integer|number
---@return true? ok
---@return cosocket.Error? err
function Connection:write(...)
  local bytes = joined(...)
  if bytes == "" then return true end
  return self:send_binary(bytes)
end

--- As `write`, but never parks: answers `nil` and a `limit` error while earlier messages wait to leave.
---@param ... string|cosocket.Buffer|integer|number
---@return true? ok
---@return cosocket.Error? err
function Connection:try_write(...)
  if self.err then return nil, self.err end
  local bytes = joined(...)
  if self.sending or #self.output > 0 then
    return nil, cosocket.error("limit", "websocket.try_write", "earlier messages wait to leave")
  end
  if bytes == "" then return true end
  local ok, err = self:send_unflushed(bytes)
  if not ok then return nil, err end
  self:settle()
  return true
end

--- Moves the front of `buffer` on its way, as one message; never parks.
---@param buffer cosocket.Buffer
---@return true? ok
---@return cosocket.Error? err
function Connection:try_flush(buffer)
  if self.err then return nil, self.err end
  if #buffer == 0 or self.sending then return true end
  if #self.output > 0 then
    self:settle()
    if #self.output > 0 then return true end
  end
  local ok, err = self:send_unflushed(buffer:take() --[[@as string]])
  if not ok then return nil, err end
  self:settle()
  return true
end

--- Ends this direction: the other side reads the end after what was written, and is then heard until it ends, too.
---@param direction? "write"
---@return true
function Connection:shutdown(direction)
  if direction ~= nil and direction ~= "write" then error("shutdown: only \"write\" can be ended alone", 2) end
  return self:start_close()
end

---@return string?
function Connection:peer_address()
  return self.stream:peer_address()
end

---@return string?
function Connection:local_address()
  return self.stream:local_address()
end

--- Sets an option of the stream below.
---@param name "nodelay"|"keepalive"|"keepalive_interval"|"keepalive_count"|"queue_max"|"receive_buffer"|"send_buffer"
---@param value boolean|integer|number
---@return true? ok
---@return cosocket.Error? err
function Connection:set_option(name, value)
  return self.stream:set_option(name, value)
end

--- What TLS was agreed on, on `wss://`.
---@return cosocket.TlsInfo?
function Connection:tls_info()
  return self.stream:tls_info()
end

return Connection
