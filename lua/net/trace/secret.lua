--- What must not be shown of a text that is whole, and of header fields. `net.trace.mask` says what looks like a secret, and
--- finds it in text that comes piece by piece.

local mask = require("net.trace.mask")

local secret = { same = mask.same, short = mask.short, is_name = mask.is_name }

--- Passwords in authorities, and parameters of URLs and forms.
---@param value string
---@param fill net.trace.Fill
---@return string
function secret.url(value, fill)
  if not value:find("[=:]") then return value end
  return mask.new(fill):parameters_of(value, true)
end

--- Whatever it is: JSON, a form, a URL.
---@param value string
---@param fill net.trace.Fill
---@return string
function secret.text(value, fill)
  if not value:find("[=:]") then return value end
  return mask.new(fill):feed(value, true)
end

-- Header fields -----------------------------------------------------------------

--- `Basic dXNlcjpwYXNz`: the scheme may be known.
local function credentials(value, fill)
  local scheme, blank, rest = value:match("^(%a[%w_-]*)(%s+)(.+)$")
  if not scheme then return fill(#value) end
  return scheme .. blank .. fill(#rest)
end

--- `name=value; name=value`
local function cookies(value, fill)
  if not value:find("=", 1, true) then return fill(#value) end
  return (value:gsub("([^;]+)", function(pair)
    local name, given = pair:match("^([^=]*=)(.*)$")
    return name and name .. fill(#given) or fill(#pair)
  end))
end

--- `name=value; Path=/; HttpOnly`
local function set_cookie(value, fill)
  local name, given, rest = value:match("^([^=;]*=)([^;]*)(.*)$")
  return name and name .. fill(#given) .. rest or fill(#value)
end

--- A page's token is a subprotocol that begins so.
local function subprotocols(value, fill)
  return (value:gsub("([Bb][Ee][Aa][Rr][Ee][Rr]%.)([^,%s]+)", function(mark, token) return mark .. fill(#token) end))
end

local FIELDS = {
  ["authorization"] = credentials,
  ["proxy-authorization"] = credentials,
  ["cookie"] = cookies,
  ["set-cookie"] = set_cookie,
  ["sec-websocket-protocol"] = subprotocols,
}

--- Bytes of the name of a field.
local FIELD_NAME_MAX = 256

--- A field line without its end. `last` is the name of the field before, of which a folded line is more.
---@param line string
---@param fill net.trace.Fill
---@param last? string
---@return string line
---@return string? name In lower case.
function secret.field(line, fill, last)
  local blank, folded = line:match("^([ \t]+)(.*)$")
  if blank and last then
    if FIELDS[last] or secret.is_name(last) then return blank .. fill(#folded), last end
    return secret.text(line, fill), last
  end
  local colon = line:find(":", 1, true)
  if not colon or colon > FIELD_NAME_MAX then return secret.text(line, fill), nil end
  local name, gap = line:sub(1, colon - 1), line:match("^:[ \t]*", colon)
  local value = line:sub(colon + #gap)
  local key = name:lower():match("^%s*(.-)%s*$")
  local field = FIELDS[key]
  if field then return name .. gap .. field(value, fill), key end
  if secret.is_name(key) then return name .. gap .. fill(#value), key end
  return name .. gap .. secret.text(value, fill), key
end

-- What nobody understands ---------------------------------------------------------------

--- Bytes of a line that are remembered.
local LINE_MAX = 1024

--- A line, or its beginning, without what looks like a secret.
---@param line string
---@param last string? As `secret.field` has it.
---@return string line
---@return string? name
---@return boolean is_secret What a longer line goes on with is not to be shown.
local function scrub(line, last)
  local auth, given = line:match("^(%s*[Aa][Uu][Tt][Hh]%s+%S+%s+)(.+)$")
  if auth then return auth .. secret.same(#given), nil, true end
  local safe, name = secret.field(line, secret.same, last)
  return safe, name, name ~= nil and (FIELDS[name] ~= nil or secret.is_name(name))
end

--- Text of an unknown kind that comes in pieces: header fields, commands, JSON, forms.
---@class net.trace.Scrubber
---@field private mask net.trace.Mask
---@field private line string? What has come of a line. `nil`: more than is remembered.
---@field private last string? The name of the field before.
---@field private name string? That of this one.
---@field private is_secret boolean What a long line goes on with.
local Scrubber = {}
Scrubber.__index = Scrubber
Scrubber.__name = "net.trace.Scrubber"

---@return net.trace.Scrubber
function secret.scrubber() return setmetatable({ mask = mask.new(), line = "", is_secret = false }, Scrubber) end

--- What has come of a line.
---@param bytes string
---@return string
---@private
function Scrubber:piece(bytes)
  if not self.line then return self.is_secret and secret.same(#bytes) or bytes end
  local line, from = self.line .. bytes, #self.line + 1
  local safe
  safe, self.name, self.is_secret = scrub(line, self.last)
  self.line = #line <= LINE_MAX and line or nil
  return safe:sub(from)
end

--- The next piece, without what looks like a secret.
---@param bytes string
---@return string
function Scrubber:feed(bytes)
  bytes = self.mask:feed(bytes)
  local parts, at = {}, 1
  while at <= #bytes do
    local ending = bytes:find("[\r\n]", at)
    local last = (ending or #bytes + 1) - 1
    if last >= at then parts[#parts + 1] = self:piece(bytes:sub(at, last)) end
    if not ending then break end
    local _, ends = bytes:find("^[\r\n]+", ending)
    parts[#parts + 1] = bytes:sub(ending, ends)
    if self.line ~= "" then self.last = self.name end
    self.line, self.name, at = "", nil, ends + 1
  end
  return table.concat(parts)
end

return secret
