--- What must not be shown, found in text that comes piece by piece: members of JSON, parameters of URLs and forms that are
--- called like secrets, and passwords before the host of a URL.
---
--- A mask keeps no bytes back. What it remembers from one piece to the next is what a name, or a value that is under way,
--- began with: some hundred bytes, however long the text is. Where a piece ends within what may be a password before a
--- host, the `@` that would tell may come in the next: what is there of it is masked.

local mask = {}

---@alias net.trace.Fill fun(count: integer): string

--- As many asterisks as there were bytes: for captures, in which lengths must be right.
---@type net.trace.Fill
function mask.same(count) return ("*"):rep(count) end

--- That there was something: for people, who need not know the length either.
---@type net.trace.Fill
function mask.short(count) return count > 0 and "***" or "" end

-- Names ---------------------------------------------------------------------------

--- Parts of names whose values are secret, in lower case without `-` and `_`.
local SENSITIVE = { "password", "passwd", "passphrase", "secret", "token", "apikey", "accesskey", "privatekey", "credential", "authorization" }

--- Names that begin like a secret's and are none.
local HARMLESS = { tokentype = true, passwordpolicy = true }

--- Whether the value of what is called so is secret.
---@param name string
---@return boolean
function mask.is_name(name)
  local plain = name:lower():gsub("[-_%s]", "")
  if HARMLESS[plain] then return false end
  for _, word in ipairs(SENSITIVE) do
    if plain:find(word, 1, true) then return true end
  end
  return plain == "pwd" or plain == "auth" or plain == "sessionid" or plain == "cookie"
end

--- Bytes of a name, and of a user and a password in an authority, that are looked at: text may be hostile, and long.
local NAME_MAX, AUTHORITY_MAX = 64, 1024

--- Puts `fill` in place of parts of a text.
---@param value string
---@param fill net.trace.Fill
---@param from integer Where the text begins: what is before was handed on already.
---@return fun(first: integer, last: integer) cover
---@return fun(): string finish
local function covering(value, fill, from)
  local parts, done = {}, from
  return function(first, last)
    if first < done then first = done end
    if last < first then return end
    parts[#parts + 1] = value:sub(done, first - 1)
    parts[#parts + 1] = fill(last - first + 1)
    done = last + 1
  end, function()
    if done == from then return value:sub(from) end
    parts[#parts + 1] = value:sub(done)
    return table.concat(parts)
  end
end

-- Members of JSON -------------------------------------------------------------------

--- The closing quotation mark of a string of JSON.
---@param value string
---@param from integer Behind the opening one.
---@return integer? quote
---@return integer? skip Bytes of the next piece that are escaped.
local function string_end(value, from)
  local at = from
  while true do
    local found = value:find('[\\"]', at)
    if not found then return nil, math.max(0, at - #value - 1) end
    if value:byte(found) == 0x22 then return found end
    at = found + 2
  end
end

--- A value that is secret, and has not ended.
---@class net.trace.mask.Value
---@field kind "any"|"string"|"nested"|"scalar" `any`: it has not begun.
---@field depth integer
---@field within_string boolean
---@field skip integer

--- Where an object or a list ends.
---@param open net.trace.mask.Value
---@param value string
---@param at integer
---@return integer? last
local function nested_end(open, value, at)
  while true do
    if open.within_string then
      local quote, skip = string_end(value, at)
      if not quote then
        open.skip = skip --[[@as integer]]
        return nil
      end
      open.within_string, at = false, quote + 1
    end
    local found = value:find('["%[%]{}]', at)
    if not found then return nil end
    local char = value:sub(found, found)
    if char == '"' then
      open.within_string = true
    else
      open.depth = open.depth + ((char == "[" or char == "{") and 1 or -1)
      if open.depth <= 0 then return found end
    end
    at = found + 1
  end
end

--- Covers what is here of a value.
---@param open net.trace.mask.Value
---@param value string
---@param at integer
---@param cover fun(first: integer, last: integer)
---@return integer? next Where what follows it begins; `nil`: it goes on in the next piece.
local function pass_value(open, value, at, cover)
  if open.kind == "any" then
    at = value:find("%S", at) or #value + 1
    local char = value:sub(at, at)
    if char == "" then return nil end
    open.kind = char == '"' and "string" or (char == "[" or char == "{") and "nested" or "scalar"
    if char == '"' then at = at + 1 end
  end
  local first, last, following = at, nil, nil ---@type integer, integer?, integer?
  at, open.skip = at + open.skip, 0
  if open.kind == "string" then
    local quote, skip = string_end(value, at)
    last, following = quote and quote - 1, quote
    open.skip = skip or 0
  elseif open.kind == "nested" then
    last = nested_end(open, value, at)
    following = last and last + 1
  else
    following = value:find("[,}%]%s]", at)
    last = following and following - 1
  end
  cover(first, last or #value)
  return following
end

--- What a member may begin with, at the end of a text: a name that is not whole, or one without its colon. Shortened, so
--- that it means the same.
---@param rest string
---@return string
local function beginning(rest)
  -- The last quotation mark opens a name, or closes one.
  local before, name = rest:match('^(.*)"([^"]*)$')
  if not before then return "" end
  if name:find("[^%w%s._-]") then return "" end
  local plain = name:gsub("[-_%s]", "")
  if #plain > NAME_MAX then plain = (mask.is_name(plain) and SENSITIVE[1] or "") .. plain:sub(-NAME_MAX) end
  if plain == "" and name ~= "" then plain = " " end
  if name:find("%S") then return '"' .. plain end
  local closed = before:match('"([%w%s._-]+)$')
  if not closed then return '"' .. plain end
  closed = closed:gsub("[-_%s]", "")
  if #closed > NAME_MAX then closed = (mask.is_name(closed) and SENSITIVE[1] or "") .. closed:sub(-NAME_MAX) end
  return ('"%s"%s'):format(closed == "" and " " or closed, plain)
end

---@class net.trace.mask.Members
---@field private kept string What was handed on, and a name may begin with.
---@field private open net.trace.mask.Value?
local Members = {}
Members.__index = Members

---@param bytes string
---@param fill net.trace.Fill
---@return string
function Members:feed(bytes, fill)
  local value, from = self.kept .. bytes, #self.kept + 1
  local cover, finish = covering(value, fill, from)
  local at = 1
  self.kept = ""
  while true do
    if not self.open then
      local first, last, name = value:find('"([%w%s._-]+)"%s*:', at)
      if not first then
        self.kept = beginning(value:sub(at))
        break
      end
      at = last + 1
      if mask.is_name(name) then self.open = { kind = "any", depth = 0, within_string = false, skip = 0 } end
    end
    if self.open then
      local following = pass_value(self.open, value, at, cover)
      if not following then break end
      self.open, at = nil, following
    end
  end
  return finish()
end

-- Passwords before hosts --------------------------------------------------------------

---@class net.trace.mask.Authorities
---@field private kept string
---@field private open {count: integer, named: boolean}? An authority that has not ended: its bytes, and whether a user's name has.
local Authorities = {}
Authorities.__index = Authorities

---@param bytes string
---@param fill net.trace.Fill
---@param is_last boolean?
---@return string
function Authorities:feed(bytes, fill, is_last)
  local value, from = self.kept .. bytes, #self.kept + 1
  local cover, finish = covering(value, fill, from)
  local at, open = 1, self.open
  self.kept = ""
  while true do
    if not open then
      local found = value:find("://", at, true)
      if not found then
        self.kept = value:sub(at):match(":/?$") or ""
        break
      end
      at, open = found + 3, { count = 0, named = false }
    end
    local ending = value:find("[%s/?#@\"'<>]", at)
    local count = (ending or #value + 1) - at
    if open.count + count > AUTHORITY_MAX then
      -- Nobody is called so.
      open = nil
    else
      local colon = not open.named and value:sub(at, at + count - 1):find(":", 1, true)
      -- What stands alone may be a token.
      local first = at + (colon or 0)
      if ending and value:byte(ending) == 0x40 then
        cover(first, ending - 1)
        at, open = ending, nil
      elseif ending or is_last then
        open = nil
      else
        cover(first, #value)
        open.count, open.named = open.count + count, open.named or colon ~= false and colon ~= nil
        break
      end
    end
  end
  self.open = open
  return finish()
end

-- Parameters ----------------------------------------------------------------------------

---@class net.trace.mask.Parameters
---@field private kept string
---@field private is_first boolean What is kept is what the text begins with.
---@field private open boolean A value has not ended.
local Parameters = {}
Parameters.__index = Parameters

---@param bytes string
---@param fill net.trace.Fill
---@return string
function Parameters:feed(bytes, fill)
  local value, from = self.kept .. bytes, #self.kept + 1
  local cover, finish = covering(value, fill, from)
  local at, done = from, 1
  while true do
    if self.open then
      local last = (value:find("[&;#%s%c\"'<>]", at) or #value + 1) - 1
      cover(at, last)
      at, done, self.is_first = last + 1, last + 1, false
      if last == #value then break end
      self.open = false
    end
    local found = value:find("=", at, true)
    if not found then break end
    at = found + 1
    local before = value:sub(math.max(done, found - NAME_MAX - 1), found - 1)
    local edge, name = before:match("([^%w%%._~-]?)([%w%%._~-]+)$")
    local is_first = name and self.is_first and found - #name == 1
    -- One that is longer than is looked at is none.
    if name and (is_first or edge ~= "") then self.open = mask.is_name(name) end
  end
  local begins = math.max(done, #value - NAME_MAX)
  self.kept, self.is_first = value:sub(begins), self.is_first and begins == 1
  return finish()
end

-- Together --------------------------------------------------------------------------------

---@class net.trace.Mask
---@field private fill net.trace.Fill
---@field private members net.trace.mask.Members
---@field private authorities net.trace.mask.Authorities
---@field private parameters net.trace.mask.Parameters
local Mask = {}
Mask.__index = Mask
Mask.__name = "net.trace.Mask"

--- A mask for one text.
---@param fill? net.trace.Fill Default: `mask.same`.
---@return net.trace.Mask
function mask.new(fill)
  return setmetatable({
    fill = fill or mask.same,
    members = setmetatable({ kept = "" }, Members),
    authorities = setmetatable({ kept = "" }, Authorities),
    parameters = setmetatable({ kept = "", is_first = true, open = false }, Parameters),
  }, Mask)
end

--- The next piece of the text, without what is secret.
---@param bytes string
---@param is_last? boolean Nothing follows.
---@return string
function Mask:feed(bytes, is_last)
  return self:parameters_of(self.members:feed(bytes, self.fill), is_last)
end

--- The next piece of a text that is no JSON.
---@param bytes string
---@param is_last? boolean
---@return string
function Mask:parameters_of(bytes, is_last)
  return self.parameters:feed(self.authorities:feed(bytes, self.fill, is_last), self.fill)
end

return mask
