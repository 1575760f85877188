--- Bodies of requests: whatever a script hands in, as pieces that are asked for one by one.

local compress = require("compress")
local cosocket = require("cosocket")

--- Bytes of a file or a long string that are sent at once.
local PIECE = 65536

--- A body: `read` answers the next piece, `nil` at the end, or `nil` and an error. It may park.
---@class http.Upload
---@field read fun(self: http.Upload): string?, cosocket.Error?
---@field length integer? In bytes, when it is known.
---@field type string? The media type, where the body knows it.
---@field rewind (fun(self: http.Upload): boolean)? Begins again; `false` when that is impossible.
---@field close fun(self: http.Upload)?
---@field private text string?
---@field private at integer?

local upload = {}

local Text = {}
Text.__index = Text
Text.__name = "http.Upload"

function Text:read()
  local text, at = self.text, self.at
  if at > #text then return nil end
  self.at = at + PIECE
  if at == 1 and #text <= PIECE then return text end
  return text:sub(at, at + PIECE - 1)
end

function Text:rewind()
  self.at = 1
  return true
end

---@param text string
---@return http.Upload
function upload.of_text(text)
  return setmetatable({ text = text, at = 1, length = #text }, Text)
end

local File = {}
File.__index = File
File.__name = "http.Upload"

function File:read()
  local left = self.left
  if left == 0 then return nil end
  local piece, why, code = self.file:read(left and math.min(left, PIECE) or PIECE)
  if piece then
    if left then self.left = left - #piece end
    return piece
  end
  if why then return nil, cosocket.error("io", "http.file", ("cannot read the body: %s"):format(why), { code = code }) end
  if left then
    local message = ("the file is %d bytes shorter than it was when the request began"):format(left)
    return nil, cosocket.error("io", "http.file", message)
  end
  return nil
end

function File:rewind()
  if not self.start or not self.file:seek("set", self.start) then return false end
  self.left = self.length
  return true
end

function File:close()
  if self.owned then self.file:close() end
end

--- A body of an open file, from where it stands to its end. The file stays open.
---@param file file*
---@param owned? boolean Close it with the body.
---@return http.Upload
function upload.of_file(file, owned)
  -- Pipes and devices have no position, and their length is not known.
  local start = file:seek("cur")
  local last = start and file:seek("end")
  if last and last >= start and file:seek("set", start) then
    return setmetatable({ file = file, start = start, length = last - start, left = last - start, owned = owned }, File)
  end
  return setmetatable({ file = file, owned = owned }, File)
end

--- Media types by a file name's ending, for what devices send.
local TYPES = {
  bin = "application/octet-stream",
  csv = "text/csv",
  gif = "image/gif",
  gz = "application/gzip",
  html = "text/html",
  jpeg = "image/jpeg",
  jpg = "image/jpeg",
  json = "application/json",
  log = "text/plain",
  pdf = "application/pdf",
  png = "image/png",
  svg = "image/svg+xml",
  tar = "application/x-tar",
  txt = "text/plain",
  webp = "image/webp",
  xml = "application/xml",
  zip = "application/zip",
}

--- The media type that a file's name tells.
---@param name string
---@return string
function upload.type_of(name)
  local ending = name:match("%.(%w+)$")
  return ending and TYPES[ending:lower()] or "application/octet-stream"
end

--- A body that is a file, read piece by piece as it is sent.
---@param path string
---@return http.Upload? body
---@return cosocket.Error? err `io`
function upload.open(path)
  local file, why, code = io.open(path, "rb")
  if not file then return nil, cosocket.error("io", "http.file", tostring(why), { code = code }) end
  -- A folder can be opened, and then not read.
  local readable, reason, number = file:read(0)
  if not readable and reason then
    file:close()
    return nil, cosocket.error("io", "http.file", ("%s: %s"):format(path, reason), { code = number })
  end
  local made = upload.of_file(file, true)
  made.type = upload.type_of(path)
  return made
end

local Pieces = {}
Pieces.__index = Pieces
Pieces.__name = "http.Upload"

function Pieces:read()
  local piece, err = self.source()
  if piece == nil then
    if err == nil then return nil end
    if cosocket.is_error(err) then return nil, err end
    return nil, cosocket.error("io", "http", ("the body's function gave up: %s"):format(tostring(err)))
  end
  if type(piece) ~= "string" then
    error(("http: the body's function must answer strings, not a %s"):format(type(piece)), 0)
  end
  return piece
end

local Gzip = {}
Gzip.__index = Gzip
Gzip.__name = "http.Upload"

function Gzip:read()
  local output = self.output
  while #output == 0 and not self.finished do
    local piece, err = self.inner:read()
    if err then return nil, err end
    local ok, why
    if piece then
      ok, why = self.encoder:encode(piece, output)
    else
      self.finished = true
      ok, why = self.encoder:finish(output)
    end
    if not ok then return nil, why end
  end
  if #output > 0 then return output:take() end
end

function Gzip:rewind()
  if not self.inner.rewind or not self.inner:rewind() then return false end
  self.output:clear()
  self.encoder, self.finished = compress.encoder("gzip"), false
  return true
end

function Gzip:close()
  if self.inner.close then self.inner:close() end
end

--- The same body compressed while it is sent. How long it will be is not known.
---@param inner http.Upload
---@return http.Upload
function upload.gzip(inner)
  return setmetatable({
    inner = inner,
    type = inner.type,
    output = cosocket.buffer(),
    encoder = compress.encoder("gzip"),
    finished = false,
  }, Gzip)
end

local Sized = {}
Sized.__index = Sized
Sized.__name = "http.Upload"

function Sized:read()
  local piece, err = self.inner:read()
  if err then return nil, err end
  local left = self.left - (piece and #piece or 0)
  if left < 0 or (not piece and left > 0) then
    local what = left < 0 and "longer" or "shorter"
    return nil, cosocket.error("io", "http", ("the body is %s than the %d bytes of `length`"):format(what, self.length))
  end
  self.left = left
  return piece
end

function Sized:rewind()
  self.left = self.length
  return self.inner.rewind ~= nil and self.inner:rewind()
end

function Sized:close()
  if self.inner.close then self.inner:close() end
end

--- The same body, whose length is told beforehand.
---@param inner http.Upload
---@param length integer
---@return http.Upload
function upload.sized(inner, length)
  return setmetatable({ inner = inner, type = inner.type, length = length, left = length }, Sized)
end

--- What a script may call a body: a string, a buffer, an open file, a function that answers piece after piece, or
--- one of those this module makes.
---@param value any
---@return http.Upload? body `nil` when it is none of them
function upload.of(value)
  local kind = type(value)
  if kind == "string" then return upload.of_text(value) end
  if kind == "function" then return setmetatable({ source = value }, Pieces) end
  if io.type(value) == "file" then return upload.of_file(value) end
  if kind == "table" then
    if type(value.read) == "function" then return value end
    local metatable = getmetatable(value)
    if type(metatable) == "table" and metatable.__call then return setmetatable({ source = value }, Pieces) end
    return nil
  end
  if kind == "userdata" and io.type(value) == nil and type(value.take) == "function" and type(value.peek) == "function" then
    return upload.of_text(value:peek())
  end
  return nil
end

return upload
