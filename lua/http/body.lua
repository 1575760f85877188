--- A body that arrives: taken off a stream piece by piece, whatever says where it ends (RFC 9112, 6.3).
---
--- Nothing of the next message is lost: what arrived with the body and is not of it stays in `input`. A reader that has
--- not `ended` leaves a connection that nobody can use again.

local codec = require("http.codec")
local cosocket = require("cosocket")

local min = math.min
local deadline = cosocket.deadline

--- Most bytes `read_all` takes, unless told otherwise.
local ALL_MAX = 16777216
--- Bytes left of a chunk from which on they are read without going through `input`.
local DIRECT_MIN = 16384

---@class http.BodyOptions
---@field size_max? integer Bytes of the whole body; more are a `limit` error. Default: no limit.
---@field timeout? number Seconds that one wait for more bytes may take. Default: no limit but deadlines around.
---@field on_wait? fun(): true?, cosocket.Error? Called once, before the first wait for bytes that are not here yet.
---@field trailers_size_max? integer Bytes of trailers. Default 8192.
---@field trailers_max? integer Lines of trailers. Default 64.

---@class http.Reader
---@field length http.Length What the head said.
---@field received integer Bytes handed out.
---@field ended boolean The whole body has been handed out.
---@field trailers http.Headers? After the end of a chunked body.
---@field err cosocket.Error? Why no more can be had.
---@field private stream cosocket.Stream
---@field private input cosocket.Buffer
---@field private decoder http.Chunked?
---@field private size_max integer
---@field private timeout number?
---@field private on_wait (fun(): true?, cosocket.Error?)?
local Reader = {}
Reader.__index = Reader
Reader.__name = "http.Reader"

local body = {}

--- Waits with `fn`, a method of the stream.
---@async
---@param reader http.Reader
---@param fn fun(stream: cosocket.Stream, input: cosocket.Buffer?): any, cosocket.Error?
---@param input? cosocket.Buffer
---@return any value
---@return cosocket.Error? err
local function wait(reader, fn, input)
  local on_wait = reader.on_wait
  if on_wait then
    reader.on_wait = nil
    local ok, err = on_wait()
    if not ok then return nil, err end
  end
  if reader.timeout then return deadline(reader.timeout, fn, reader.stream, input) end
  return fn(reader.stream, input)
end

--- No more can be had. A deadline that passes takes nothing away: the next read goes on where this one stood.
---@param reader http.Reader
---@param err cosocket.Error
---@return nil
---@return cosocket.Error err
local function fail(reader, err)
  if err.kind == "timeout" then return nil, err end
  if err.kind == "closed" then
    local received, length = reader.received, reader.length
    local text = length >= 0
        and ("the connection ended after %d of %d bytes of the body"):format(received + #reader.input, length)
      or ("the connection ended in the middle of the body, after %d bytes"):format(received)
    err = cosocket.error("closed", "http.read_body", text, { cause = err, code = err.code, received = received })
  end
  reader.err = err
  return nil, err
end

---@param reader http.Reader
---@param size_max integer
---@return nil
---@return cosocket.Error err
local function too_large(reader, size_max)
  return fail(reader, cosocket.error("limit", "http.read_body", ("the body is larger than %d bytes"):format(size_max)))
end

--- Counts a piece on its way out.
---@param reader http.Reader
---@param piece string
---@return string? piece
---@return cosocket.Error? err
local function count(reader, piece)
  local received = reader.received + #piece
  if received > reader.size_max then return too_large(reader, reader.size_max) end
  reader.received = received
  return piece
end

---@async
---@param reader http.Reader
---@return string? piece
---@return cosocket.Error? err
local function read_fixed(reader)
  local input, left = reader.input, reader.length - reader.received
  local piece
  if #input > 0 then
    piece = input:take(min(#input, left)) --[[@as string]]
  else
    local err
    piece, err = wait(reader, reader.stream.read)
    if not piece then return fail(reader, err --[[@as cosocket.Error]]) end
    if #piece > left then
      input:append(piece:sub(left + 1))
      piece = piece:sub(1, left)
    end
  end
  reader.received = reader.received + #piece
  reader.ended = #piece == left
  return piece
end

---@async
---@param reader http.Reader
---@return string? piece
---@return cosocket.Error? err
local function read_chunked(reader)
  local input, stream = reader.input, reader.stream
  local decoder = reader.decoder --[[@as http.Chunked]]
  while true do
    local left = decoder:left()
    if left >= DIRECT_MIN and #input == 0 then
      local piece, err = wait(reader, stream.read)
      if not piece then return fail(reader, err --[[@as cosocket.Error]]) end
      if #piece <= left then
        decoder:pass(#piece)
        return count(reader, piece)
      end
      input:append(piece)
    end
    local piece, more = decoder:decode(input)
    if piece then return count(reader, piece) end
    if piece == false then
      reader.ended, reader.trailers = true, more --[[@as http.Headers]]
      return nil
    end
    if more then return fail(reader, more --[[@as cosocket.Error]]) end
    local filled, err = wait(reader, stream.fill, input)
    if not filled then return fail(reader, err --[[@as cosocket.Error]]) end
  end
end

---@async
---@param reader http.Reader
---@return string? piece
---@return cosocket.Error? err
local function read_until_close(reader)
  local input, stream = reader.input, reader.stream
  if #input > 0 then return count(reader, input:take() --[[@as string]]) end
  local piece, err = wait(reader, stream.read)
  if piece then return count(reader, piece) end
  ---@cast err cosocket.Error
  if err.kind == "closed" then
    -- A reset, or TLS without its goodbye, is no end of a body (RFC 9112, 8). `read_all` knows the difference.
    local rest, why = stream:read_all(1)
    if rest then
      reader.ended = true
      return nil
    end
    err = why or err
  end
  return fail(reader, err)
end

--- The next piece of the body.
---@async
---@return string? piece Never empty; `nil` without an error at the end.
---@return cosocket.Error? err `closed` when the connection ended too early, `protocol`, `limit`, `timeout`; all but `timeout` stay.
function Reader:read()
  if self.ended then return nil end
  if self.err then return nil, self.err end
  local length = self.length
  if length >= 0 then return read_fixed(self) end
  if length == codec.CHUNKED then return read_chunked(self) end
  return read_until_close(self)
end

--- For a `for` loop over the pieces of whatever has a method `read`: an error is raised.
---@async
---@param from {read: fun(self): string?, cosocket.Error?}
---@return fun(): string?
function body.pieces(from)
  return function()
    local piece, err = from:read()
    if err then error(err, 0) end
    return piece
  end
end

--- `for piece in reader:pieces() do`: an error is raised.
---@type fun(self: http.Reader): fun(): string?
Reader.pieces = body.pieces

--- The rest of the body in one piece.
---@async
---@param max? integer Most bytes. Default 16777216.
---@return string? rest Empty at the end.
---@return cosocket.Error? err As of `read`; `limit` when there are more than `max`.
function Reader:read_all(max)
  max = max or ALL_MAX
  if self.ended then return "" end
  if self.err then return nil, self.err end
  if self.length >= 0 then
    local input, left = self.input, self.length - self.received
    if left > max then return too_large(self, max) end
    while #input < left do
      local filled, err = wait(self, self.stream.fill, input)
      if not filled then return fail(self, err --[[@as cosocket.Error]]) end
    end
    self.received, self.ended = self.length, true
    return input:take(left)
  end
  local pieces, size = {}, 0
  while true do
    local piece, err = self:read()
    if err then return nil, err end
    if not piece then return table.concat(pieces) end
    size = size + #piece
    if size > max then return too_large(self, max) end
    pieces[#pieces + 1] = piece
  end
end

--- Takes the rest and drops it, so that the connection can be used again. Gives up when there are more than `max`
--- bytes, or when it would have to call `on_wait`.
---@async
---@param max integer
---@return true? ended
---@return cosocket.Error? err
function Reader:discard(max)
  local length = self.length
  while not self.ended do
    local left = length >= 0 and length - self.received or 0
    if left > max or max < 0 or (self.on_wait and #self.input == 0) then
      return nil, cosocket.error("limit", "http.discard_body", ("more than %d bytes are left of the body"):format(max))
    end
    local piece, err = self:read()
    if err then return nil, err end
    max = max - (piece and #piece or 0)
  end
  return true
end

--- A reader of the body whose head has just been taken off `input`.
---@param stream cosocket.Stream
---@param input cosocket.Buffer What has arrived after the head.
---@param length http.Length From `codec.decode_request` or `decode_response`.
---@param options? http.BodyOptions Unchecked: it is not a script's.
---@return http.Reader
function body.reader(stream, input, length, options)
  options = options or {}
  ---@type http.Reader
  local reader = setmetatable({
    stream = stream,
    input = input,
    length = length,
    received = 0,
    -- What follows a tunnel's head is no body.
    ended = length == 0 or length == codec.TUNNEL,
    size_max = options.size_max or math.maxinteger,
    timeout = options.timeout,
    on_wait = options.on_wait,
  }, Reader)
  if length == codec.CHUNKED then
    reader.decoder = codec.chunked(options.trailers_size_max, options.trailers_max)
  end
  if length > reader.size_max then too_large(reader, reader.size_max) end
  return reader
end

return body
