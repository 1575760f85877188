--- A body to send: what it may be made of, how long it is, and how it gets onto the wire.
---
--- | given | sent with |
--- |---|---|
--- | a string or a buffer | its length |
--- | a file, from where it stands to its end | its length; it is closed when all is sent |
--- | a function | `length` if that is given, else chunked |
---
--- A function is called until it answers `nil`; each string it answers is sent. It is handed `write`, for those who have
--- rather pushed than pulled: `function(write) write("a") write("b") end`. `nil` and an error, from either, ends the
--- connection, because the other side must not take what it got for the whole.

local codec = require("http.codec")
local cosocket = require("cosocket")

--- Bytes of a file that are read at once: reading it blocks everybody for so long.
local FILE_PIECE = 65536

---@alias http.Write fun(piece: string|cosocket.Buffer): true?, cosocket.Error?
---@alias http.Source string|cosocket.Buffer|file*|fun(write: http.Write): (string|cosocket.Buffer)?, cosocket.Error?

---@class http.Payload
---@field length http.Length `codec.CHUNKED` when nobody knows before.
---@field bytes (string|cosocket.Buffer)? All of it, when it is at hand.
---@field replayable boolean Whether it can be sent a second time.
---@field trailers (http.Fields|fun(): http.Fields?)?
---@field private next (fun(write: http.Write): (string|cosocket.Buffer)?, cosocket.Error?)?
---@field private file file*?
local Payload = {}
Payload.__index = Payload
Payload.__name = "http.Payload"

local payload = {}

---@param value any
---@return boolean
local function is_buffer(value)
  return type(value) == "userdata" and getmetatable(value) == false and value.append_uint ~= nil
end

---@param op string
---@param text string
---@return nil
---@return cosocket.Error
local function mismatch(op, text)
  return nil, cosocket.error("protocol", op, text)
end

--- Makes a payload; raises for what cannot be one.
---@param op string The function the body was given to, for errors.
---@param source http.Source
---@param length? integer Bytes a function will make.
---@param trailers? http.Fields|fun(): http.Fields? Sent after the body, which is then chunked; a function is asked at the end.
---@return http.Payload
function payload.new(op, source, length, trailers)
  local made = setmetatable({ trailers = trailers, replayable = false }, Payload)
  local kind = type(source)
  if kind == "string" or is_buffer(source) then
    made.bytes, made.length, made.replayable = source, #source, true
  elseif io.type(source) == "file" then
    ---@cast source file*
    local at, size = source:seek("cur"), nil
    if at then size = source:seek("end") end
    if not at or not size or not source:seek("set", at) then
      -- A pipe has no end that could be known.
      size = nil
    end
    made.file = source
    made.length = size and size - at or codec.CHUNKED
    made.next = function()
      local piece, why, code = source:read(FILE_PIECE)
      if piece or not why then return piece end
      return nil, cosocket.error("io", op, why, { code = code })
    end
  elseif kind == "function" or (kind == "table" and getmetatable(source) and getmetatable(source).__call) then
    made.length, made.next = length or codec.CHUNKED, source --[[@as function]]
  else
    local what = io.type(source) == "closed file" and "closed file" or kind
    error(("%s: a body is a string, a buffer, a function or a file, not a %s"):format(op, what), 3)
  end
  if length and made.length ~= length then
    error(("%s: the body has %d bytes, not the %d that were told"):format(op, made.length, length), 3)
  end
  if trailers then made.length = codec.CHUNKED end
  return made
end

--- Sends the body; the head has been written.
---@async
---@param write fun(...: string|cosocket.Buffer): true?, cosocket.Error? Such as `stream:write`, with a deadline if wanted.
---@param framing? http.Length How the head announced it, if not by `length`: `UNTIL_CLOSE` for HTTP/1.0.
---@return true? ok
---@return cosocket.Error? err Of `write` or of the source. The connection can then not be used again.
function Payload:send(write, framing)
  framing = framing or self.length
  local is_chunked, sent, failure = framing == codec.CHUNKED, 0, nil
  local next = self.next

  ---@async
  ---@param piece string|cosocket.Buffer
  ---@return true? ok
  ---@return cosocket.Error? err
  local function put(piece)
    if failure then return nil, failure end
    if type(piece) ~= "string" and not is_buffer(piece) then
      error(("a piece of a body must be a string or a buffer, not a %s"):format(type(piece)), 2)
    end
    local size, ok = #piece, nil
    -- An empty chunk would be the last one.
    if size == 0 then return true end
    sent = sent + size
    if is_chunked then
      ok, failure = write(("%x\r\n"):format(size), piece, "\r\n")
    elseif framing >= 0 and sent > framing then
      ok, failure = mismatch("http.send_body", ("the body is longer than the %d bytes that were told"):format(framing))
    else
      ok, failure = write(piece)
    end
    return ok, failure
  end

  if next then
    while true do
      local piece, err = next(put)
      if piece == nil then
        failure = failure or err
        break
      end
      if not put(piece) then break end
    end
  else
    put(self.bytes)
  end
  self:close()
  if failure then return nil, failure end
  if is_chunked then
    local trailers, last = self.trailers, cosocket.buffer()
    if type(trailers) == "function" then trailers = trailers() end
    local ok, err = codec.encode_last_chunk(last, trailers --[[@as http.Fields?]])
    if not ok then return nil, err end
    return write(last)
  end
  if framing >= 0 and sent < framing then
    return mismatch("http.send_body", ("the body has %d bytes, not the %d that were told"):format(sent, framing))
  end
  return true
end

--- Lets go of a file that is not sent, or not to its end.
function Payload:close()
  local file = self.file
  if file and io.type(file) == "file" then file:close() end
end

return payload
