--- multipart/form-data (RFC 7578) as a body to send. Files are read while they are sent, and the length is told
--- beforehand when all parts have one.

local codec = require("http.codec")
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local options = require("http.options")
local uploads = require("http.upload")

--- One field of a form. Exactly one of `value`, `file` and `body` says what it holds.
---@class http.Part
---@field name string
---@field value? string|number|boolean
---@field file? string Path of a file, which is sent with its name and type.
---@field body? string|cosocket.Buffer|file*|http.Upload|fun(): string?, any As of a request.
---@field length? integer Bytes a function will answer in all.
---@field filename? string Default: the last part of `file`.
---@field type? string Default: by the name of a file; none for values.
---@field headers? http.Fields Further fields of the part.

local PART = {
  name = "string",
  value = "string|number|boolean",
  file = "string",
  body = "string|userdata|table|function",
  length = "integer",
  filename = "string",
  type = "string",
  headers = "table|userdata",
}

local multipart = {}

local Multipart = {}
Multipart.__index = Multipart
Multipart.__name = "http.Upload"

--- As browsers do (the HTML standard, 4.10.21.8): nothing in a name can end it.
---@param text string
---@return string
local function quote(text)
  return '"' .. text:gsub('[\r\n"]', { ["\r"] = "%0D", ["\n"] = "%0A", ['"'] = "%22" }) .. '"'
end

---@param part http.Part
---@param level integer
---@return http.Upload? content
---@return cosocket.Error? err
local function content_of(part, level)
  local count = (part.value ~= nil and 1 or 0) + (part.file and 1 or 0) + (part.body ~= nil and 1 or 0)
  if count ~= 1 then
    error(("http: the part %q of the form needs one of `value`, `file` and `body`"):format(part.name), level)
  end
  if part.file then return uploads.open(part.file) end
  local content = uploads.of(part.value ~= nil and tostring(part.value) or part.body)
  if not content then error(("http: the body of the part %q is none"):format(part.name), level) end
  return part.length and uploads.sized(content, part.length) or content
end

--- Makes the body of a form: of parts in their order, or of named values (or parts) sorted by name.
---@param parts http.Part[]|table<string, string|number|boolean|http.Part>
---@param level integer
---@return http.Upload? upload
---@return cosocket.Error? err `io`: a file cannot be read.
function multipart.new(parts, level)
  local list = {} ---@type http.Part[]
  if #parts > 0 then
    list = parts
  else
    for name, value in pairs(parts) do
      local part = { name = name, value = value }
      if type(value) == "table" then
        part = {}
        for key, given in pairs(value) do part[key] = given end
        part.name = part.name or name
      end
      list[#list + 1] = part
    end
    table.sort(list, function(one, other) return tostring(one.name) < tostring(other.name) end)
  end
  local random, failure = crypto.random_bytes(16)
  if not random then return nil, failure end
  local boundary = "moonwire-" .. hex.encode(random)
  -- Heads and contents by turns, and the end.
  local pieces, length = {}, 0 ---@type http.Upload[], integer?
  local made = setmetatable({ pieces = pieces, at = 1, type = "multipart/form-data; boundary=" .. boundary }, Multipart)
  local function put(piece)
    pieces[#pieces + 1] = piece
    length = length and piece.length and length + piece.length
  end
  for at, part in ipairs(list) do
    cosocket.check_options("http: a part of the form", part, PART, level)
    if type(part.name) ~= "string" then error(("http: part %d of the form has no name"):format(at), level) end
    local content, err = content_of(part, level + 1)
    if not content then
      made:close()
      return nil, err
    end
    local filename = part.filename or (part.file and part.file:match("[^/]*$"))
    local disposition = "form-data; name=" .. quote(part.name)
    if filename then disposition = disposition .. "; filename=" .. quote(filename) end
    local fields = codec.headers({ { "Content-Disposition", disposition } })
    local kind = part.type or (filename and (content.type or uploads.type_of(filename)))
    local own = kind and { { "Content-Type", kind } } or {}
    for name, value in pairs(options.headers("http: a part of the form", own, level + 1)) do fields:add(name, value) end
    if part.headers then
      local more = options.headers("http: a part of the form", part.headers, level + 1)
      for name, value in pairs(more) do fields:add(name, value) end
    end
    local lines = { "--" .. boundary }
    for name, value in pairs(fields) do lines[#lines + 1] = name .. ": " .. value end
    put(uploads.of_text(table.concat(lines, "\r\n") .. "\r\n\r\n"))
    put(content)
    put(uploads.of_text("\r\n"))
  end
  put(uploads.of_text("--" .. boundary .. "--\r\n"))
  made.length = length
  return made
end

function Multipart:read()
  while true do
    local piece = self.pieces[self.at]
    if not piece then return nil end
    local bytes, err = piece:read()
    if bytes or err then return bytes, err end
    self.at = self.at + 1
  end
end

function Multipart:rewind()
  for _, piece in ipairs(self.pieces) do
    if not piece.rewind or not piece:rewind() then return false end
  end
  self.at = 1
  return true
end

function Multipart:close()
  for _, piece in ipairs(self.pieces) do
    if piece.close then piece:close() end
  end
end

return multipart
