--- Messages of HTTP/1.1 on a stream, for client and server alike. `http.codec` knows bytes; here they meet a socket.
---
--- A connection is a stream and two buffers: `input`, what has arrived and nobody has taken, and `output`, what is to be
--- sent with the next wait. One exchange, seen from a client:
---
---     codec.encode_request(output, "GET", "/", nil, { Host = "example.org" })
---     local status, reason, minor, headers, length, flags = message.final_response(stream, input, output, "GET")
---     local reader = body.reader(stream, input, length)
---     local text, err = reader:read_all()
---     -- The connection is fit for another exchange if all of this holds:
---     local reusable = reader.ended and flags & codec.KEEP_ALIVE ~= 0 and #input == 0
---
--- | room | knows |
--- |---|---|
--- | `http.codec` | heads, chunks, lengths: bytes only (native) |
--- | `http.message` | waiting for heads |
--- | `http.body` | bodies that arrive: `reader(stream, input, length, options)` |
--- | `http.payload` | bodies to send: strings, iterators, files |

local codec = require("http.codec")
local cosocket = require("cosocket")

--- Interim responses before the final one.
local INTERIM_MAX = 32

local message = {}

--- What a head may cost; each has a default in `http.codec`.
---@class http.HeadLimits
---@field head_max? integer Bytes of a head.
---@field headers_max? integer Field lines.
---@field start_line_max? integer Bytes of the first line.

---@type http.HeadLimits
local USUAL = {}

--- An error of the wait, told as what it means for a head.
---@param op string
---@param err cosocket.Error
---@param input cosocket.Buffer
---@return nil
---@return cosocket.Error
local function cut(op, err, input)
  if err.kind ~= "closed" or #input == 0 then return nil, err end
  return nil, cosocket.error("closed", op, "the connection ended in the middle of a head", { cause = err })
end

--- Waits for the head of the next request, while `output` leaves. Answers what `codec.decode_request` does.
---@async
---@param stream cosocket.Stream
---@param input cosocket.Buffer
---@param output cosocket.Buffer
---@param limits? http.HeadLimits
---@param deadline? number Absolute, on the scale of `cosocket.now()`.
---@return string? method
---@return string|cosocket.Error target `closed` before a head begins means that there is none; `timeout`, `protocol`, `limit`
---@return integer minor
---@return http.Headers headers
---@return http.Length length
---@return integer flags
function message.next_request(stream, input, output, limits, deadline)
  limits = limits or USUAL
  while true do
    local method, target, minor, headers, length, flags =
      codec.decode_request(input, limits.head_max, limits.headers_max, limits.start_line_max)
    if method or target then return method, target, minor, headers, length, flags end
    local ok, err = stream:turn(input, output, deadline)
    if not ok then return cut("http.next_request", err --[[@as cosocket.Error]], input) end
  end
end

--- Waits for the head of the next response, perhaps an interim one, while `output` leaves. Answers what
--- `codec.decode_response` does.
---@async
---@param stream cosocket.Stream
---@param input cosocket.Buffer
---@param output cosocket.Buffer
---@param method string Of the request.
---@param limits? http.HeadLimits
---@param deadline? number
---@return integer? status
---@return string|cosocket.Error reason `closed`: with an empty `input` nothing of an answer has come.
---@return integer minor
---@return http.Headers headers
---@return http.Length length
---@return integer flags
function message.next_response(stream, input, output, method, limits, deadline)
  limits = limits or USUAL
  while true do
    local status, reason, minor, headers, length, flags =
      codec.decode_response(input, method, limits.head_max, limits.headers_max, limits.start_line_max)
    if status or reason then return status, reason, minor, headers, length, flags end
    local ok, err = stream:turn(input, output, deadline)
    if not ok then return cut("http.next_response", err --[[@as cosocket.Error]], input) end
  end
end

--- As `next_response`, but passes over interim responses: all below 200 but 101 (RFC 9110, 15.2).
---@async
---@param stream cosocket.Stream
---@param input cosocket.Buffer
---@param output cosocket.Buffer
---@param method string
---@param limits? http.HeadLimits
---@param deadline? number
---@param on_interim? fun(status: integer, headers: http.Headers) Called for each, such as 100 and 103.
---@return integer? status
---@return string|cosocket.Error reason
---@return integer minor
---@return http.Headers headers
---@return http.Length length
---@return integer flags
function message.final_response(stream, input, output, method, limits, deadline, on_interim)
  for _ = 0, INTERIM_MAX do
    local status, reason, minor, headers, length, flags =
      message.next_response(stream, input, output, method, limits, deadline)
    if not status or status >= 200 or status == 101 then return status, reason, minor, headers, length, flags end
    if on_interim then on_interim(status, headers) end
  end
  local text = ("more than %d interim responses and no final one"):format(INTERIM_MAX)
  return nil, cosocket.error("limit", "http.final_response", text)
end

return message
