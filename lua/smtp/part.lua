--- The parts of a message (RFC 2045, 2046): each a few header fields, and pieces that make its body.

local codec = require("smtp.codec")
local cosocket = require("cosocket")
local crypto = require("crypto")
local fault = require("smtp.fault")
local hex = require("hex")
local media_type = require("smtp.media_type")
local source = require("smtp.source")

local broken = fault.broken

--- Bytes of a line that need not be encoded, RFC 5322, 2.1.1.
local LINE_MAX = 998

---@class smtp.Part
---@field headers string Content-Type and the like, each with its CRLF.
---@field pieces smtp.Piece[]
---@field size integer? Bytes of the body.
---@field ends_line boolean Its body ends with a line end that is not its own.
---@field eight_bit boolean
---@field once string? What in it can be read only once.

local part = {}

---@class smtp.Content
---@field content? string
---@field path? string
---@field stream? function|cosocket.Stream|file*
---@field type? string
---@field name? string The file's name for people.
---@field cid? string
---@field charset? string
---@field method? string
---@field description? string

local CONTENT = {
  content = "string",
  path = "string",
  stream = "function|table|userdata",
  type = "string",
  name = "string",
  cid = "string",
  charset = "string",
  method = "string",
  description = "string",
}

--- Checks one content; a plain string is `key`. Mistakes blame the caller of `level`.
---@param op string
---@param what string
---@param given string|smtp.Content
---@param key "path"|"content"
---@param level integer
---@return smtp.Content
function part.check(op, what, given, key, level)
  if type(given) == "string" then return { [key] = given } end
  if type(given) ~= "table" then
    error(("%s: %s must be a string or a table, not a %s"):format(op, what, type(given)), level + 1)
  end
  cosocket.check_options(op, given, CONTENT, level + 1)
  local count = 0
  for _, name in ipairs({ "content", "path", "stream" }) do
    if given[name] ~= nil then count = count + 1 end
  end
  if count ~= 1 then error(("%s: %s needs one of content, path and stream"):format(op, what), level + 1) end
  return given
end

--- A media type in its two halves: nothing else may get into a header with it.
---@param what string
---@param text string
---@return string?
---@return cosocket.Error?
local function checked_type(what, text)
  if text:find("^[%w!#$&^_.+-]+/[%w!#$&^_.+-]+$") then return text:lower() end
  return broken(what, ("%q is not a media type"):format(text))
end

--- A part of text, in the encoding that it needs.
---@param what string
---@param given smtp.Content
---@param kind string
---@param utf8_headers boolean
---@return smtp.Part?
---@return cosocket.Error?
function part.text(what, given, kind, utf8_headers)
  local text, err = given.content, nil
  if not text then
    local read = {}
    local from
    if given.path then
      from, err = source.file(what, given.path)
    else
      from = source.stream(what, given.stream)
    end
    if not from then return nil, err end
    local next, file = from.open()
    if not next then return nil, file end
    local closer <close> = file
    repeat
      local piece
      piece, err = next()
      if err then return nil, err end
      read[#read + 1] = piece
    until not piece
    text = table.concat(read)
  end
  kind, err = checked_type(what, given.type or kind)
  if not kind then return nil, err end
  local charset = given.charset or "utf-8"
  if charset:lower() == "utf-8" and not utf8.len(text) then
    return broken(what, "not UTF-8; say charset, or attach it")
  end
  local parameters = { { "charset", charset } }
  if given.method then parameters[2] = { "method", given.method } end
  local type_field
  type_field, err = codec.parameter_header("Content-Type", kind, parameters, utf8_headers)
  if not type_field then return nil, err end

  local scanner = codec.scanner()
  scanner:update(text)
  local scan = scanner:finish()
  local buffer, encoding = cosocket.buffer(), "7bit"
  local ends_line = false
  if not scan.eight_bit and not scan.nul and scan.line_max <= LINE_MAX then
    codec.lines(buffer, text, 0, false)
  else
    local quoted = codec.quoted_printable(text)
    local lines = cosocket.buffer()
    codec.lines(lines, text, 0, false)
    -- What people can read in it is worth some bytes.
    if #quoted <= codec.base64_size(#lines) * 1.25 then
      encoding = "quoted-printable"
      buffer:append(quoted)
    else
      encoding, ends_line = "base64", true
      codec.base64_lines(buffer, lines, true)
    end
  end
  local body = buffer:take() or ""
  return {
    headers = type_field .. "Content-Transfer-Encoding: " .. encoding .. "\r\n",
    pieces = { body },
    size = #body,
    ends_line = ends_line,
    eight_bit = false,
  }
end

--- The name of a file without its folders.
---@param path string?
---@return string?
local function basename(path)
  return path and path:match("([^/]+)/*$")
end

--- A file that goes along: base64, from wherever its bytes come.
---@param what string
---@param given smtp.Content
---@param disposition "attachment"|"inline"
---@param utf8_headers boolean
---@return smtp.Part?
---@return cosocket.Error?
function part.file(what, given, disposition, utf8_headers)
  local from, err
  if given.content then
    from = source.text(what, given.content)
  elseif given.path then
    from, err = source.file(what, given.path)
  else
    from = source.stream(what, given.stream)
  end
  if not from then return nil, err end
  local name = given.name or basename(given.path)
  local kind
  kind, err = checked_type(what, given.type or media_type.of(name))
  if not kind then return nil, err end
  if kind:find("^multipart/") then return broken(what, "a multipart is not a file") end

  local parameters = {}
  if given.charset then parameters[#parameters + 1] = { "charset", given.charset } end
  if given.method then parameters[#parameters + 1] = { "method", given.method } end
  if name then parameters[#parameters + 1] = { "name", name } end
  local fields = {}
  fields[1], err = codec.parameter_header("Content-Type", kind, parameters, utf8_headers)
  if not fields[1] then return nil, err end
  local names = name and { { "filename", name } } or {}
  fields[2], err = codec.parameter_header("Content-Disposition", disposition, names, utf8_headers)
  if not fields[2] then return nil, err end
  if given.cid then
    if not given.cid:find("^[%w!#$%%&'*+/=?^_`{|}~.@-]+$") then
      return broken(what, ("%q is not a content identifier"):format(given.cid))
    end
    fields[#fields + 1] = ("Content-ID: <%s>\r\n"):format(given.cid)
  end
  if given.description then
    local field
    field, err = codec.text_header("Content-Description", given.description, utf8_headers)
    if not field then return nil, err end
    fields[#fields + 1] = field
  end

  local encoding, scan = "base64", nil
  if kind == "message/rfc822" then
    -- RFC 2046, 5.2.1: a message in a message is not encoded.
    if from.once then return broken(what, "a message that is attached must come from a path or content") end
    scan, err = source.scan(from)
    if not scan then return nil, err end
    if scan.nul or scan.line_max > LINE_MAX then
      return broken(what, "the message has NUL or lines too long; give it another type, such as application/octet-stream")
    end
    encoding = scan.eight_bit and "8bit" or "7bit"
  end
  fields[#fields + 1] = "Content-Transfer-Encoding: " .. encoding .. "\r\n"
  local size
  if scan then
    size = scan.size
  elseif from.size then
    size = codec.base64_size(from.size)
  end
  return {
    headers = table.concat(fields),
    pieces = { { source = from, encoding = scan and "lines" or "base64" } },
    size = size,
    -- The line end before a boundary is the boundary's: text of its own keeps its last one.
    ends_line = scan == nil,
    eight_bit = scan ~= nil and scan.eight_bit,
    once = from.once and what or nil,
  }
end

--- Several parts in one (RFC 2046, 5.1).
---@param subtype "mixed"|"alternative"|"related"
---@param parts smtp.Part[]
---@return smtp.Part?
---@return cosocket.Error?
function part.multipart(subtype, parts)
  local random, err = crypto.random_bytes(15)
  if not random then return nil, err end
  -- "=_" is in no base64 and in no quoted-printable.
  local boundary = "=_" .. hex.encode(random)
  local pieces, size = {}, 0
  local eight_bit, once = false, nil
  local function add(piece)
    pieces[#pieces + 1] = piece
    size = size and size + #piece
  end
  for _, one in ipairs(parts) do
    add(("--%s\r\n%s\r\n"):format(boundary, one.headers))
    for _, piece in ipairs(one.pieces) do pieces[#pieces + 1] = piece end
    size = size and one.size and size + one.size
    if not one.ends_line then add("\r\n") end
    eight_bit, once = eight_bit or one.eight_bit, once or one.once
  end
  add(("--%s--\r\n"):format(boundary))
  -- RFC 2387, 3.1: a compound says what its root is.
  local root = subtype == "related" and '; type="text/html"' or ""
  local encoding = eight_bit and "Content-Transfer-Encoding: 8bit\r\n" or ""
  return {
    headers = ('Content-Type: multipart/%s%s;\r\n boundary="%s"\r\n%s'):format(subtype, root, boundary, encoding),
    pieces = pieces,
    size = size,
    ends_line = true,
    eight_bit = eight_bit,
    once = once,
  }
end

return part
