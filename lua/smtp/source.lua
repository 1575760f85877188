--- Where the bytes of a part come from: a text, a file, or something that is read once. And a reader that makes a
--- message of such sources piece by piece, so that no attachment is ever whole in memory.

local codec = require("smtp.codec")
local cosocket = require("cosocket")

--- Bytes that are read at once: whole lines of base64.
local PIECE = 57 * 256

---@class smtp.Source
---@field what string How errors name it: `attachments[1]`.
---@field size integer? Bytes; `nil` when that is known at the end only.
---@field once boolean It can be read only once.
---@field open fun(): (fun(): string?, cosocket.Error?)?, any A function that answers pieces; and what is to be closed.

local source = {}

---@param what string
---@param message string
---@param fields? table
---@return nil
---@return cosocket.Error
local function failed(what, message, fields)
  return nil, cosocket.error("io", "smtp.message", ("%s: %s"):format(what, message), fields)
end

--- A text in memory.
---@param what string
---@param text string
---@return smtp.Source
function source.text(what, text)
  return {
    what = what,
    size = #text,
    once = false,
    open = function()
      local at = 1
      return function()
        if at > #text then return nil end
        local piece = text:sub(at, at + PIECE - 1)
        at = at + PIECE
        return piece
      end
    end,
  }
end

--- A file. It must be there now, and keep its size until the message has been sent.
---@param what string
---@param path string
---@return smtp.Source? source
---@return cosocket.Error? err `io`
function source.file(what, path)
  local file, why, code = io.open(path, "rb")
  if not file then return failed(what, why, { code = code }) end
  -- A folder can be opened and not read; a pipe has no end to seek.
  local _, trouble, number = file:read(0)
  local size = file:seek("end")
  file:close()
  if trouble or not size then
    return failed(what, ("%s: %s"):format(path, trouble or "not a file with a size"), { code = number })
  end
  return {
    what = what,
    size = size,
    once = false,
    open = function()
      local again, reason, no = io.open(path, "rb")
      if not again then return failed(what, reason, { code = no }) end
      local left = size
      return function()
        if left == 0 then return nil end
        local piece, trouble = again:read(math.min(PIECE, left))
        if not piece then return failed(what, trouble or path .. ": the file became shorter while it was sent") end
        left = left - #piece
        return piece
      end,
        again
    end,
  }
end

--- Something that is read once: a function that answers pieces and `nil` at the end, or anything with `read`.
---@param what string
---@param stream function|cosocket.Stream|file*
---@return smtp.Source
function source.stream(what, stream)
  local opened = false
  return {
    what = what,
    once = true,
    open = function()
      if opened then return failed(what, "a stream can be read only once; give a path or content instead") end
      opened = true
      local read = stream
      if io.type(stream) then
        read = function() return stream:read(PIECE) end
      elseif type(stream) ~= "function" then
        read = function()
          local piece, err = stream:read()
          if not piece and cosocket.is_error(err, "closed") then return nil end
          return piece, err
        end
      end
      return function()
        local piece, err = read()
        if piece == nil and err ~= nil then
          if type(err) == "table" then return nil, err end
          return failed(what, tostring(err))
        elseif piece ~= nil and type(piece) ~= "string" then
          return failed(what, ("the stream answered a %s, not a string"):format(type(piece)))
        end
        return piece
      end
    end,
  }
end

--- One piece of a message: bytes as they are, or a source and how it is encoded. `lines` makes CRLF of line ends,
--- `skip` leaves out so many bytes at the source's beginning.
---@alias smtp.Piece string|{source: smtp.Source, encoding: "base64"|"lines", skip: integer?}

---@class smtp.Reader
---@field private pieces smtp.Piece[]
---@field private at integer
---@field private next (fun(): string?, cosocket.Error?)? Of the open source.
---@field private file any
---@field private raw cosocket.Buffer Read and not yet encoded.
---@field private place integer
---@field private skip integer
local Reader = {}
Reader.__index = Reader

--- Appends the next bytes of the message to `out`.
---@async
---@param out cosocket.Buffer
---@return true? more `nil` without an error at the end
---@return cosocket.Error? err
function Reader:read(out)
  local piece = self.pieces[self.at]
  if piece == nil then return nil end
  if type(piece) == "string" then
    out:append(piece)
    self.at = self.at + 1
    return true
  end
  if not self.next then
    local next, file = piece.source.open()
    if not next then return nil, file end
    self.next, self.file, self.place, self.skip = next, file, 0, piece.skip or 0
  end
  local bytes, err = self.next()
  if err then return nil, err end
  if bytes and self.skip > 0 then
    local skipped = math.min(self.skip, #bytes)
    self.skip = self.skip - skipped
    bytes = bytes:sub(skipped + 1)
  end
  if piece.encoding == "base64" then
    if bytes then self.raw:append(bytes) end
    codec.base64_lines(out, self.raw, bytes == nil)
  elseif bytes then
    self.place = codec.lines(out, bytes, self.place, false)
  elseif self.place == 1 then
    out:append("\r\n")
  end
  if not bytes then self:leave() end
  return true
end

--- Ends the open source.
---@private
function Reader:leave()
  if self.file then self.file:close() end
  self.next, self.file = nil, nil
  self.at = self.at + 1
end

function Reader:__close()
  if self.file then self.file:close() end
  self.next, self.file = nil, nil
end

---@param pieces smtp.Piece[]
---@return smtp.Reader
function source.reader(pieces)
  return setmetatable({ pieces = pieces, at = 1, raw = cosocket.buffer(), place = 0, skip = 0 }, Reader)
end

--- Looks through a source whose text is sent as lines, without what `skip` leaves out.
---@async
---@param from smtp.Source
---@param skip? integer
---@return smtp.codec.Scan? scan
---@return cosocket.Error? err
function source.scan(from, skip)
  local scanner = codec.scanner()
  local next, file = from.open()
  if not next then return nil, file end
  local closer <close> = file
  skip = skip or 0
  while true do
    local bytes, err = next()
    if err then return nil, err end
    if not bytes then return scanner:finish() end
    local skipped = math.min(skip, #bytes)
    skip = skip - skipped
    scanner:update(skipped > 0 and bytes:sub(skipped + 1) or bytes)
  end
end

return source
