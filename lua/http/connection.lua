--- One connection to an origin: a stream, what has come and is not read, what waits to leave. It carries one exchange
--- after another (RFC 9112, 9.3): a request goes out while the answer may already be coming.

local codec = require("http.codec")
local cosocket = require("cosocket")
local trace = require("net.trace")

local now = cosocket.now
local decode_answer = codec.decode_answer
local CHUNKED <const> = codec.CHUNKED

--- Bytes of a request's body that wait to leave before more is asked of whoever makes it.
local OUTPUT_MAX = 65536
--- Bytes of an answer that are kept while the request is still on its way.
local EARLY_MAX = 1048576
--- Interim answers before the final one.
local INFORMATIONAL_MAX = 32

--- What one exchange needs. The client makes it.
---@class http.Exchange
---@field method string
---@field wire string? The whole head, when it was made before.
---@field target string What stands in the request line.
---@field base http.Headers?
---@field fields http.Headers? After those of `base`.
---@field length integer? Of the body; `codec.CHUNKED`; `nil` for a request without.
---@field upload http.Upload?
---@field trailers (table<string, string>|fun(): table<string, string>)?
---@field expect number? Seconds to wait for 100 before the body is sent.
---@field upgrade boolean? 101 is an answer that is hoped for.
---@field deadline number When everything has to be over, on the scale of `cosocket.now`.
---@field idle number Seconds without a byte either way.
---@field head_max integer
---@field fields_max integer
---@field body_max integer Bytes of a body that is taken with the head; -1: none is.
---@field on_informational fun(status: integer, headers: http.Headers)?

---@class http.Connection
---@field stream cosocket.Stream
---@field input cosocket.Buffer
---@field output cosocket.Buffer
---@field origin http.PoolOrigin
---@field idle_since number
---@field keep_alive number? Seconds that it may be idle, once an answer has come.
---@field reused boolean It has carried an exchange before.
local Connection = {}
Connection.__index = Connection
Connection.__name = "http.Connection"

local connection = {}

---@param stream cosocket.Stream
---@param origin http.PoolOrigin
---@return http.Connection
function connection.new(stream, origin)
  trace.attach(stream, "http", "client")
  return setmetatable({
    stream = stream,
    input = cosocket.buffer(),
    output = cosocket.buffer(),
    origin = origin,
    idle_since = 0,
    reused = false,
  }, Connection)
end

--- Waits until bytes have moved, either way.
---@async
---@param deadline number
---@param idle number
---@return true? ok
---@return cosocket.Error? err
function Connection:turn(deadline, idle)
  local quiet = now() + idle
  return self.stream:turn(self.input, self.output, quiet < deadline and quiet or deadline)
end

--- Whether another exchange may begin: nothing has come that nobody asked for, and the other side has not closed.
---@async
---@return boolean
function Connection:is_fresh()
  if #self.input > 0 then return false end
  local _, err = self.stream:turn(self.input, self.output, 0)
  return err ~= nil and err.kind == "timeout" and #self.input == 0
end

--- Appends what comes next of the body, up to `OUTPUT_MAX` bytes in all.
---@async
---@param exchange http.Exchange
---@return boolean? more
---@return cosocket.Error? err
function Connection:load(exchange)
  local output, body = self.output, exchange.upload --[[@as http.Upload]]
  local chunked = exchange.length == CHUNKED
  while #output < OUTPUT_MAX do
    local piece, err = body:read()
    if err then return nil, err end
    if not piece then
      if chunked then
        local trailers = exchange.trailers
        if type(trailers) == "function" then trailers = trailers() end
        local ok, refused = codec.encode_last_chunk(output, trailers)
        if not ok then return nil, refused end
      end
      return false
    end
    if chunked and #piece > 0 then
      output:append(("%x\r\n"):format(#piece), piece, "\r\n")
    else
      output:append(piece)
    end
  end
  return true
end

--- Sends the request and waits for the head of the answer. `seen` is whether a byte of an answer has come, `unsent`
--- whether the request was left unfinished because the answer made it useless.
---@async
---@param exchange http.Exchange
---@return http.RawAnswer? answer
---@return cosocket.Error? err
---@return boolean? seen After an error.
---@return boolean? unsent
function Connection:exchange(exchange)
  local input, output, stream = self.input, self.output, self.stream
  local deadline, idle, method = exchange.deadline, exchange.idle, exchange.method
  local wire, sending, held = exchange.wire, nil, nil
  if wire then
    -- Nothing waits before it, so that it is taken whole; it leaves with the wait below.
    local ok, err = stream:try_write(wire)
    if not ok then return nil, err, false end
  else
    local ok, err = codec.encode_request(output, method, exchange.target, exchange.length, exchange.base, exchange.fields)
    if not ok then return nil, err, false end
    sending = exchange.upload
    --- When the body is sent although nobody has said 100.
    if sending and exchange.expect then held = now() + exchange.expect end
  end
  local interim, seen = 0, false
  while true do
    if sending and not held then
      local more, err = self:load(exchange)
      if more == nil then return nil, err, seen or #input > 0 end
      sending = more
    end
    local limit = now() + idle
    if deadline < limit then limit = deadline end
    if held and held < limit then limit = held end
    local queued = sending and #output or 0
    local ok, err = stream:turn(input, output, limit)
    -- A server may tell again and again how much of a long body has come, but not without taking more of it.
    if #output < queued then interim = 0 end
    local answer, refused = decode_answer(input, method, exchange.head_max, exchange.fields_max, exchange.body_max)
    while answer and answer.status < 200 and (answer.status ~= 101 or not exchange.upgrade) do
      interim = interim + 1
      if answer.status == 101 then
        return nil, cosocket.error("protocol", "http", "the server switches protocols, which nobody asked for"), true
      elseif interim > INFORMATIONAL_MAX then
        return nil, cosocket.error("limit", "http", ("more than %d interim answers"):format(INFORMATIONAL_MAX)), true
      end
      seen = true
      -- RFC 9110, 10.1.1: now the body is wanted.
      if answer.status == 100 then held = nil end
      if exchange.on_informational then exchange.on_informational(answer.status, codec.headers_of(answer.head)) end
      answer, refused = decode_answer(input, method, exchange.head_max, exchange.fields_max, exchange.body_max)
    end
    if answer then
      if wire or not sending and #output == 0 then return answer end
      -- RFC 9112, 9.5: an answer that says no ends the sending, and then the connection.
      if held or answer.status >= 300 then return answer, nil, true, true end
      ok, err = self:send_rest(exchange, sending)
      -- The server has answered, and ended before it had read everything: that is its answer.
      if not ok and err.kind == "closed" then return answer, nil, true, true end
      if not ok then return nil, err, true end
      return answer
    elseif refused then
      return nil, refused, true
    end
    if not ok then
      ---@cast err cosocket.Error
      if held and err.kind == "timeout" and now() >= held then
        held = nil
      else
        return nil, err, seen or #input > 0
      end
    end
  end
end

--- Sends what is left of a request whose answer has begun.
---@private
---@async
---@param exchange http.Exchange
---@param sending any Whether there is more of the body.
---@return true? ok
---@return cosocket.Error? err
function Connection:send_rest(exchange, sending)
  while sending or #self.output > 0 do
    if sending then
      local more, err = self:load(exchange)
      if more == nil then return nil, err end
      sending = more
    end
    local ok, err = self:turn(exchange.deadline, exchange.idle)
    if not ok then return nil, err end
    if #self.input > EARLY_MAX then
      local message = ("the server sent %d bytes of its answer without reading the request"):format(#self.input)
      return nil, cosocket.error("limit", "http", message)
    end
  end
  return true
end

function Connection:close()
  self.stream:close()
  -- The collector does not know how much memory they hold.
  self.input:clear()
  self.output:clear()
end

return connection
