--- The answer to a request: its head, and its body piece by piece or whole.

local bodies = require("http.body")
local codec = require("http.codec")
local compress = require("compress")
local cosocket = require("cosocket")
local json = require("json")

local now = cosocket.now

local MORE <const> = codec.MORE

--- Bytes of one piece that was decoded.
local PIECE_MAX = 65536
--- How many content codings may lie over one another.
local CODINGS_MAX = 3

---@class http.Response: http.RawAnswer
---@field status integer
---@field reason string As the server sent it; often empty.
---@field ok boolean Whether the status is from 200 to 299.
---@field version "1.1"|"1.0"
---@field headers http.Headers
---@field url string Of what answered, after redirects.
---@field method string Of what answered.
---@field body string? The whole body; not with `stream`.
---@field trailers http.Headers? Once the body has ended, when it was chunked.
---@field redirects string[]? The URLs that redirected here, first to last.
---@field package call http.Call What was asked.
---@field private connection http.Connection? While the body is read.
---@field private keep boolean? The connection may carry another exchange.
---@field private reader http.Reader?
---@field private decode (fun(): string?, cosocket.Error?)?
---@field private decoders compress.Decoder[]?
---@field private err cosocket.Error?
local Response = {}
Response.__name = "http.Response"

--- Fields that few scripts ask for are made when they are asked for.
---@type table<string, fun(answer: http.Response): any>
local LAZY = {
  headers = function(self) return codec.headers_of(self.head) end,
  version = function(self) return self.head:find("^HTTP/1%.0") and "1.0" or "1.1" end,
}

function Response.__index(self, name)
  local method = Response[name]
  if method ~= nil then return method end
  local make = LAZY[name]
  if not make then return nil end
  local value = make(self)
  rawset(self, name, value)
  return value
end

local response = {}

--- The connection is not needed any more.
---@param self http.Response
---@param keep boolean
local function let_go(self, keep)
  local connection = self.connection
  if not connection then return end
  self.connection = nil
  self.call.pool:release(connection, keep and #connection.input == 0)
end

--- What decodes is let go before the body has ended: that is memory of which the collector knows nothing.
---@param self http.Response
local function stop_decoding(self)
  for _, decoder in ipairs(self.decoders or {}) do decoder:close() end
end

---@param self http.Response
---@param err cosocket.Error
---@return nil
---@return cosocket.Error err
local function fail(self, err)
  self.err = err
  stop_decoding(self)
  let_go(self, false)
  return nil, err
end

--- The body did not come to its end. A message that timed out leaves a connection that nobody can use.
---@param self http.Response
---@param err cosocket.Error
---@param received integer
---@return nil
---@return cosocket.Error err
local function cut(self, err, received)
  if err.kind == "timeout" then
    local of = self.length >= 0 and (" of %d"):format(self.length) or ""
    local message = ("no more of the body came in time, after %d%s bytes"):format(received, of)
    err = cosocket.error("timeout", "http", message, { cause = err, received = received })
  end
  return fail(self, err)
end

--- The next bytes of the body, out of whatever carried them.
---@async
---@param self http.Response
---@return string? piece
---@return cosocket.Error? err
local function read_raw(self)
  local connection = self.connection
  if not connection then return nil, self.err end
  local reader = self.reader
  if not reader then
    reader = bodies.reader(connection.stream, connection.input, self.length)
    self.reader = reader
  end
  local left, idle = self.call.deadline - now(), self.call.idle
  reader.timeout = left < idle and left or idle
  local piece, err = reader:read()
  if err then return cut(self, err, reader.received) end
  if reader.ended then
    self.trailers = reader.trailers
    let_go(self, self.keep)
  end
  return piece
end

--- Undoes one coding over what `source` reads.
---@param self http.Response
---@param coding compress.Coding
---@param limits compress.DecoderOptions
---@param source fun(): string?, cosocket.Error?
---@return fun(): string?, cosocket.Error?
local function decoding(self, coding, limits, source)
  local decoder = compress.decoder(coding, limits)
  self.decoders = self.decoders or {}
  table.insert(self.decoders, decoder)
  local encoded, decoded = cosocket.buffer(), cosocket.buffer()
  local drained, began, ended = true, false, false
  return function()
    while not ended do
      if drained and #encoded == 0 then
        local piece, err = source()
        if piece then
          began = began or #piece > 0
          encoded:append(piece)
        elseif err then
          return nil, err
        else
          ended = true
          -- A body without bytes is not encoded either, whatever the field says.
          local whole, broken = not began, nil
          if began then whole, broken = decoder:finish() end
          if not whole then return fail(self, broken --[[@as cosocket.Error]]) end
          return nil
        end
      end
      local done, err = decoder:decode(encoded, decoded, PIECE_MAX)
      if done == nil then return fail(self, err --[[@as cosocket.Error]]) end
      drained = done
      if #decoded > 0 then return decoded:take() end
    end
    return nil, self.err
  end
end

local CODINGS = { gzip = "gzip", ["x-gzip"] = "gzip", deflate = "deflate", br = "br", zstd = "zstd" }

--- Prepares to undo the content codings that the head names. One that is not known is left to the caller, with those
--- below it.
---@param self http.Response
---@return true? ok
---@return cosocket.Error? err
function response.decode(self)
  local names, limits = {}, { ratio_max = self.call.settings.ratio_max }
  for name in self.headers["Content-Encoding"]:gmatch("[^,%s]+") do table.insert(names, 1, name:lower()) end
  if #names > CODINGS_MAX then
    return fail(self, cosocket.error("limit", "http", ("%d content codings are more than %d"):format(#names, CODINGS_MAX)))
  end
  local source = function() return read_raw(self) end
  local any = false
  for _, name in ipairs(names) do
    local coding = CODINGS[name]
    if coding then
      source, any = decoding(self, coding, limits, source), true
    elseif name ~= "identity" then
      break
    end
  end
  if any then self.decode = source end
  return true
end

--- Makes a response of an answer to a call. Whoever has read the body has no more to do with the connection.
---@param answer http.RawAnswer
---@param call http.Call
---@param url string
---@param connection http.Connection
---@param keep boolean
---@return http.Response
function response.new(answer, call, url, connection, keep)
  local self = setmetatable(answer, Response) --[[@as http.Response]]
  self.url, self.method, self.call = url, call.method, call
  local pool = call.pool
  if keep and not connection.keep_alive then pool:note_keep_alive(connection, self.headers["Keep-Alive"]) end
  if answer.body then
    pool:release(connection, keep and answer.flags & MORE == 0)
  else
    self.connection, self.keep = connection, keep
  end
  return self
end

--- Reads the whole body into `body`.
---@async
---@param self http.Response
---@param body_max integer
---@return true? ok
---@return cosocket.Error? err
function response.collect(self, body_max)
  if self.body then return true end
  local length = self.length
  if length > body_max then
    local message = ("the body has %d bytes, more than %d (body_max)"):format(length, body_max)
    return fail(self, cosocket.error("limit", "http", message))
  end
  if length >= 0 and not self.decode and not self.reader then
    -- What most answers are: a body of known length, most of which came with the head.
    local connection, call = self.connection --[[@as http.Connection]], self.call
    local input = connection.input
    while #input < length do
      local ok, err = connection:turn(call.deadline, call.idle)
      if not ok then
        ---@cast err cosocket.Error
        if err.kind == "closed" then
          local message = ("the connection ended after %d of %d bytes of the body"):format(#input, length)
          err = cosocket.error("closed", "http", message, { cause = err, code = err.code, received = #input })
        end
        return cut(self, err, #input)
      end
    end
    self.body = input:take(length)
    let_go(self, self.keep)
    return true
  end
  local pieces, size = {}, 0
  while true do
    local piece, err = self:read()
    if not piece then
      if err then return nil, err end
      break
    end
    size = size + #piece
    if size > body_max then
      return fail(self, cosocket.error("limit", "http", ("the body is larger than %d bytes (body_max)"):format(body_max)))
    end
    pieces[#pieces + 1] = piece
  end
  self.body = #pieces == 1 and pieces[1] or table.concat(pieces)
  return true
end

--- The next piece of the body, decoded, as it comes: for `stream`.
---@async
---@return string? piece `nil` without an error: the body has ended.
---@return cosocket.Error? err `closed`: it was cut; `timeout`, `protocol`, `limit`
function Response:read()
  local decode = self.decode
  if decode then return decode() end
  return read_raw(self)
end

--- `for piece in response:chunks() do`. What ends the body too early is raised.
---@async
---@return fun(): string?
function Response:chunks()
  return bodies.pieces(self)
end

--- What is left of the body, in one string.
---@async
---@param max? integer Bytes at most. Default: the request's `body_max`.
---@return string? body
---@return cosocket.Error? err `limit`, and those of `read`
function Response:read_all(max)
  local ok, err = response.collect(self, max or self.call.settings.body_max)
  if not ok then return nil, err end
  return self.body
end

--- The body as JSON.
---@async
---@param options? json.DecodeOptions
---@return any value
---@return cosocket.Error? err `protocol` when it is not JSON, `limit`, and those of `read`
function Response:json(options)
  local text, err = self:read_all()
  if not text then return nil, err end
  return json.decode(text, options)
end

--- The response, if its status is from 200 to 299: `assert(http.get(url)):check()`.
---@return http.Response? response
---@return cosocket.Error? err `refused`, with `code`, the status, and `response`
function Response:check()
  if self.ok then return self end
  local said = self.reason ~= "" and (" " .. self.reason) or ""
  local message = ("%s %s answered %d%s"):format(self.method, self.url, self.status, said)
  return nil, cosocket.error("refused", "http", message, { code = self.status, reason = self.reason, response = self })
end

--- Writes the body to a file, which appears when it is whole; with `stream`, of any size. A GET that breaks off goes
--- on where it was.
---@async
---@param path string
---@param options? http.SaveOptions
---@return http.Saved? saved
---@return cosocket.Error? err `refused` with `code` for a status that is not 2xx, `protocol` for a wrong checksum, `limit`, `io`, and what a request fails with
function Response:save(path, options)
  return require("http.download").save_response(self, path, options)
end

--- Ends it here. A connection whose body was not read to its end is closed.
function Response:close()
  if not self.err then self.err = cosocket.error("closed", "http", "the response was closed") end
  stop_decoding(self)
  let_go(self, false)
end

Response.__close = Response.close

function Response:__tostring()
  return ("http.Response (%d %s)"):format(self.status, self.url)
end

return response
