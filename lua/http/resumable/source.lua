--- A file that is sent in parts: it is read piece by piece, hashed on its way, and has to stay what it was.

local cosocket = require("cosocket")
local crypto = require("crypto")
local files = require("http.file")
local hex = require("hex")

--- Bytes that are read at once.
local PIECE = 65536
--- Bytes that are hashed before others get their turn.
local TURN = 1048576

local OP = "http.upload"

---@class http.Source
---@field size integer
---@field private file file*
---@field private owned boolean Close it with the source.
---@field private path string?
---@field private start integer Where in the file it begins.
---@field private modified integer? Nanoseconds since 1970, where that can be known.
---@field private algorithm crypto.Algorithm?
---@field private wanted string? Hex.
---@field private digest crypto.Digest?
---@field private hashed integer So many bytes from the beginning are in the digest.
---@field private sum string? Hex, once all of it is hashed.
local Source = {}
Source.__index = Source

local source = {}

---@param why any
---@param code any
---@return nil
---@return cosocket.Error err
local function no_file(why, code)
  return nil, cosocket.error("io", OP, tostring(why), { code = code })
end

---@param text string
---@return nil
---@return cosocket.Error err
local function changed(text)
  return nil, cosocket.error("io", OP, text .. ": upload a copy, or a file that nobody writes to any more", { code = "changed" })
end

--- Size and last change of what is at a path, if it is a regular file (and no link that leads elsewhere).
---@param path string
---@return integer? size
---@return integer? modified
local function look_at(path)
  local folder, name = path:match("^(.*/)([^/]+)$")
  local found = files.open(folder or ".", name or path)
  if not found then return nil end
  local size, modified = found:size(), found:modified()
  found:close()
  return size, modified
end

--- Opens a file; of one that is open already, what is from its place to its end.
---@param given string|file*
---@return http.Source? source
---@return cosocket.Error? err `io`
function source.open(given)
  local path = type(given) == "string" and given or nil
  local file, why, code = given, nil, nil
  if path then
    file, why, code = io.open(path, "rb")
    if not file then return no_file(why, code) end
  end
  ---@cast file file*
  local start = file:seek("cur")
  local last = start and file:seek("end")
  -- A folder can be opened, and then not read; a pipe has no place to go back to.
  local readable, reason, number = file:seek("set", start or 0), nil, nil
  if readable then
    readable, reason, number = file:read(0)
    readable = readable or reason == nil
  end
  if not last or not readable then
    if path then file:close() end
    return no_file(("%s: %s"):format(path or "the file", reason or "it cannot be read from any place on"), number)
  end
  local made = setmetatable({ file = file, owned = path ~= nil, path = path, start = start, size = last - start, hashed = 0 }, Source)
  if path then
    local size, modified = look_at(path)
    if size == made.size then made.modified = modified end
  end
  return made
end

--- Hashes what is read; what has been hashed by `wanted` is never sent to its end when it is something else.
---@param algorithm crypto.Algorithm
---@param wanted string? Hex.
function Source:hash(algorithm, wanted)
  self.algorithm, self.wanted, self.digest = algorithm, wanted, crypto.new_digest(algorithm)
end

---@private
---@param at integer
---@param count integer
---@return string? piece
---@return cosocket.Error? err
function Source:piece(at, count)
  local ok, why, code = self.file:seek("set", self.start + at)
  if not ok then return no_file(why, code) end
  local piece
  piece, why, code = self.file:read(count)
  if piece and #piece == count then return piece end
  if why then return no_file(why, code) end
  return changed("the source has become shorter while it was sent")
end

--- What tells this source from others, and from itself at another time: its size, its last change, its first and last
--- bytes. (A device without a clock gives everything the same time.)
---@return string? fingerprint
---@return cosocket.Error? err
function Source:fingerprint()
  local digest = crypto.new_digest("sha256")
  digest:update(("%d %d\n"):format(self.size, self.modified or -1))
  local count = math.min(PIECE, self.size)
  for _, at in ipairs(count > 0 and { 0, self.size - count } or {}) do
    local piece, err = self:piece(at, count)
    if not piece then return nil, err end
    digest:update(piece)
  end
  return hex.encode(digest:finish())
end

--- Whether it is still what it was.
---@return true? ok
---@return cosocket.Error? err `io`, with the code `"changed"`
function Source:unchanged()
  local last, why, code = self.file:seek("end")
  if not last then return no_file(why, code) end
  local size, modified = last - self.start, self.modified
  if self.modified then
    -- What is at the path now may be another file.
    size, modified = look_at(self.path --[[@as string]])
  end
  if size ~= self.size then return changed(("the source has changed while it was sent: it had %d bytes"):format(self.size)) end
  if modified ~= self.modified then return changed("the source has been written to while it was sent") end
  return true
end

--- Takes a piece into the digest, but for what is in it already.
---@private
---@param at integer
---@param piece string
function Source:digest_piece(at, piece)
  local digest = self.digest
  if not digest or at > self.hashed or at + #piece <= self.hashed then return end
  digest:update(at == self.hashed and piece or piece:sub(self.hashed - at + 1))
  self.hashed = at + #piece
end

--- Calls `fn` with every piece of a range, and lets others have their turns.
---@private
---@async
---@param from integer
---@param to integer
---@param fn fun(at: integer, piece: string)
---@return true? ok
---@return cosocket.Error? err
function Source:each(from, to, fn)
  local turn = TURN
  while from < to do
    local piece, err = self:piece(from, math.min(PIECE, to - from))
    if not piece then return nil, err end
    fn(from, piece)
    from, turn = from + #piece, turn - #piece
    if turn <= 0 then
      turn = TURN
      local ok, why = cosocket.sleep(0)
      if not ok then return nil, why end
    end
  end
  return true
end

--- Hashes what is before `offset`, which an earlier run has sent.
---@async
---@param offset integer
---@return true? ok
---@return cosocket.Error? err
function Source:catch_up(offset)
  if not self.digest or self.hashed >= offset then return true end
  return self:each(self.hashed, offset, function(at, piece) self:digest_piece(at, piece) end)
end

--- The digest of a range.
---@async
---@param algorithm crypto.Algorithm
---@param from integer
---@param to integer
---@return string? digest Raw.
---@return cosocket.Error? err
function Source:digest_of(algorithm, from, to)
  local digest = crypto.new_digest(algorithm)
  local ok, err = self:each(from, to, function(_, piece) digest:update(piece) end)
  if not ok then return nil, err end
  return digest:finish()
end

--- Whether all of it, which has been hashed, is what it should be.
---@return true? ok
---@return cosocket.Error? err `protocol`, with the code `"checksum"`
function Source:verify()
  if not self.digest then return true end
  self.sum = self.sum or hex.encode(self.digest:finish())
  if self.wanted and self.sum ~= self.wanted then
    local message = ("the source's %s is %s, not %s"):format(self.algorithm, self.sum, self.wanted)
    return nil, cosocket.error("protocol", OP, message, { code = "checksum" })
  end
  return true
end

--- `"sha256:HEX"` of all of it, once it is known.
---@return string?
function Source:checksum()
  return self.sum and ("%s:%s"):format(self.algorithm, self.sum)
end

local Range = {}
Range.__index = Range
Range.__name = "http.Upload"

--- The last piece of the source is handed out only when the source is what it should be: so no server ever has all of
--- what should not be there.
function Range:read()
  local from = self.source --[[@as http.Source]]
  local at = self.at
  if at >= self.to then return nil end
  local piece, err = from:piece(at, math.min(PIECE, self.to - at))
  if not piece then return nil, err end
  from:digest_piece(at, piece)
  self.at = at + #piece
  if self.at == from.size then
    local ok, why = from:unchanged()
    if ok then
      ok, why = from:verify()
    end
    if not ok then return nil, why end
  end
  self.on_piece(#piece, self.at)
  return piece
end

function Range:rewind()
  self.at = self.from
  return true
end

--- A body of a range of it.
---@param from integer
---@param to integer
---@param on_piece fun(bytes: integer, at: integer) Called for every piece that goes, with where it ends.
---@return http.Upload
function Source:body(from, to, on_piece)
  return setmetatable({ source = self, from = from, at = from, to = to, length = to - from, on_piece = on_piece }, Range)
end

function Source:close()
  if self.owned then self.file:close() end
end

Source.__close = Source.close

return source
