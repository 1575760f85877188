--- What must not be shown: values of header fields, of parameters of URLs, and of members of JSON that are called like
--- secrets.
---
--- Each function takes `fill`, what stands in place of so many bytes: asterisks as many for a capture, in which lengths
--- must be right, and three for people, who need not know them either.

local secret = {}

---@alias net.trace.Fill fun(count: integer): string

--- As many asterisks as there were bytes.
---@type net.trace.Fill
function secret.same(count) return ("*"):rep(count) end

--- That there was something.
---@type net.trace.Fill
function secret.short(count) return count > 0 and "***" or "" end

--- Parts of names whose values are secret, in lower case without `-` and `_`.
local SENSITIVE = { "password", "passwd", "passphrase", "secret", "token", "apikey", "accesskey", "privatekey", "credential", "authorization" }

--- Names that begin like a secret's and are none.
local HARMLESS = { tokentype = true, passwordpolicy = true }

--- Whether the value of what is called so is secret.
---@param name string
---@return boolean
function secret.is_name(name)
  local plain = name:lower():gsub("[-_%s]", "")
  if HARMLESS[plain] then return false end
  for _, word in ipairs(SENSITIVE) do
    if plain:find(word, 1, true) then return true end
  end
  return plain == "pwd" or plain == "auth" or plain == "sessionid" or plain == "cookie"
end

--- Bytes of a name, and of a user and a password in an authority, that are looked at: text may be hostile, and long.
local NAME_MAX, AUTHORITY_MAX = 64, 1024

--- Passwords in authorities, and parameters of URLs and forms.
---@param value string
---@param fill net.trace.Fill
---@return string
function secret.url(value, fill)
  local parts, done = {}, 1
  local function mask(from, to)
    parts[#parts + 1] = value:sub(done, from - 1)
    parts[#parts + 1] = fill(to - from + 1)
    done = to + 1
  end
  local at = 1
  while true do
    local found = value:find("[=@:]", at)
    if not found then break end
    at = found + 1
    local mark = value:sub(found, found)
    if mark == ":" and value:sub(found, found + 2) == "://" then
      local user = value:sub(found + 3, found + 2 + AUTHORITY_MAX):match("^([^%s/?#@\"'<>]*)@")
      if user then
        -- What stands alone may be a token.
        local colon = user:find(":", 1, true) or 0
        mask(found + 3 + colon, found + 2 + #user)
        at = found + 3 + #user
      end
    elseif mark == "=" and value:find("^[%w%%._~-]", found - 1) then
      local before = value:sub(math.max(done, found - NAME_MAX - 1), found - 1)
      local edge, name = before:match("([^%w%%._~-]?)([%w%%._~-]+)$")
      local is_first = name and found - #name == done and done == 1
      if name and (is_first or edge ~= "" and edge:find("[?&;#%s]")) and secret.is_name(name) then
        local last = (value:find("[&;#%s\"'<>]", found + 1) or #value + 1) - 1
        mask(found + 1, last)
        at = last + 1
      end
    end
  end
  parts[#parts + 1] = value:sub(done)
  return table.concat(parts)
end

--- The end of a string of JSON that begins behind `from`.
---@param value string
---@param from integer
---@return integer last The last byte before the closing quotation mark, or of what there is.
local function string_end(value, from)
  local at = from
  while true do
    local found = value:find('[\\"]', at)
    if not found then return #value end
    if value:byte(found) == 0x22 then return found - 1 end
    at = found + 2
  end
end

--- The end of what begins at `from`, an object or a list of JSON.
---@param value string
---@param from integer
---@return integer last
local function nested_end(value, from)
  local depth, at = 0, from
  while true do
    local found = value:find('["%[%]{}]', at)
    if not found then return #value end
    local char = value:sub(found, found)
    if char == '"' then
      at = string_end(value, found + 1) + 2
    else
      depth = depth + ((char == "[" or char == "{") and 1 or -1)
      if depth <= 0 then return found end
      at = found + 1
    end
  end
end

---@param value string
---@param fill net.trace.Fill
---@return string
local function members(value, fill)
  local parts, done, at = {}, 1, 1
  while true do
    local first, last, name = value:find('"([%w%s._-]+)"%s*:%s*', at)
    if not first then break end
    at = last + 1
    if secret.is_name(name) then
      local char = value:sub(at, at)
      local from, to = at, at
      if char == '"' then
        from, to = at + 1, string_end(value, at + 1)
      elseif char == "[" or char == "{" then
        to = nested_end(value, at)
      else
        to = (value:find("[,}%]%s]", at) or #value + 1) - 1
      end
      parts[#parts + 1] = value:sub(done, from - 1)
      parts[#parts + 1] = fill(to - from + 1)
      done, at = to + 1, to + 1
    end
  end
  parts[#parts + 1] = value:sub(done)
  return table.concat(parts)
end

--- Whatever it is: JSON, a form, a URL.
---@param value string
---@param fill net.trace.Fill
---@return string
function secret.text(value, fill)
  if value:find('"%s*:') then value = members(value, fill) end
  if value:find("=", 1, true) or value:find("://", 1, true) then value = secret.url(value, fill) end
  return value
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

return secret
