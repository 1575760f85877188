--- Mail addresses (RFC 5321, 4.1.2; RFC 5322, 3.4; RFC 6531, 3.3): taken apart and checked.
---
--- A local part keeps its letters; a domain has two forms, the one that was written and the one of the DNS. Groups and
--- routes are refused: they cannot be delivered to.

local codec = require("smtp.codec")
local cosocket = require("cosocket")

--- Bytes of a local part, RFC 5321, 4.5.3.1.1.
local LOCAL_PART_MAX = 64
--- Bytes of an address: a path has 256, two of them its brackets, RFC 5321, 4.5.3.1.3.
local ADDRESS_MAX = 254
--- Bytes of a text that is parsed.
local TEXT_MAX = 1024 * 1024

--- Letters of an atom, RFC 5322, 3.2.3, and whatever is not ASCII, RFC 6531, 3.3.
local ATOM = "^[%w!#$%%&'*+/=?^_`{|}~\x80-\xff-]+"

---@class smtp.Address
---@field name string? The display name, as people read it.
---@field local_part string Without quotes.
---@field domain string As it was written.
---@field address string `local_part@domain`, quoted where it has to be, the domain as it was written.
---@field ascii string? The same with the domain of the DNS; `nil` when the local part is not ASCII.
---@field smtputf8 boolean Only a server with SMTPUTF8 can take it.

local address = {}

---@param text string
---@param message string
---@return nil
---@return cosocket.Error
local function refuse(text, message)
  local shown = #text > 100 and text:sub(1, 100) .. "..." or text
  return nil, cosocket.error("protocol", "smtp.address", ("%q: %s"):format(shown, message))
end

--- The position behind spaces and comments, RFC 5322, 3.2.2; `nil` in a comment that does not end.
---@param text string
---@param at integer
---@return integer?
local function skip(text, at)
  while true do
    at = text:match("^[ \t]*()", at)
    if text:byte(at) ~= 0x28 then return at end
    local depth = 0
    repeat
      local letter = text:sub(at, at)
      if letter == "" then return nil end
      if letter == "(" then
        depth = depth + 1
      elseif letter == ")" then
        depth = depth - 1
      elseif letter == "\\" then
        at = at + 1
      end
      at = at + 1
    until depth == 0
  end
end

--- A quoted string at `at`: what it says, and the position behind it.
---@param text string
---@param at integer
---@return string?
---@return integer
local function quoted_string(text, at)
  local parts, from = {}, at + 1
  while true do
    local stop = text:find('["\\]', from)
    if not stop then return nil, at end
    parts[#parts + 1] = text:sub(from, stop - 1)
    if text:sub(stop, stop) == '"' then return table.concat(parts), stop + 1 end
    if stop == #text then return nil, at end
    parts[#parts + 1] = text:sub(stop + 1, stop + 1)
    from = stop + 2
  end
end

--- A local part as it is written in an address.
---@param text string
---@return string
local function written(text)
  local rest, at = text, 1
  repeat
    local stop = select(2, rest:find(ATOM, at))
    if not stop then return '"' .. text:gsub('["\\]', "\\%0") .. '"' end
    if stop == #rest then return text end
    at = rest:sub(stop + 1, stop + 1) == "." and stop + 2 or #rest + 1
  until false
end

--- A domain at `at`: as it is written, and the position behind it.
---@param text string
---@param at integer
---@return string?
---@return integer
local function domain_at(text, at)
  if text:byte(at) == 0x5b then
    local literal, behind = text:match("^(%[[%w:.-]+%])()", at)
    return literal, behind or at
  end
  local name, behind = text:match("^([%w.\x80-\xff-]+)()", at)
  return name, behind or at
end

--- Puts the parts of an address together, and checks them.
---@param text string What was given, for the error.
---@param name string?
---@param local_part string
---@param domain string
---@return smtp.Address?
---@return cosocket.Error?
local function make(text, name, local_part, domain)
  if not utf8.len(text) then return refuse(text, "not UTF-8") end
  if local_part == "" then return refuse(text, "nothing before the @") end
  if #local_part > LOCAL_PART_MAX then
    return refuse(text, ("more than %d bytes before the @"):format(LOCAL_PART_MAX))
  end
  local ascii = domain
  if domain:byte() == 0x5b then
    local inside = domain:sub(2, -2)
    local is_v4 = inside:find("^%d+%.%d+%.%d+%.%d+$")
    if not is_v4 and not inside:find("^[Ii][Pp][Vv]6:[%x:.]+$") then
      return refuse(text, "an address in brackets is [192.0.2.1] or [IPv6:2001:db8::1]")
    end
  else
    local err
    ascii, err = codec.domain_to_ascii(domain)
    if not ascii then return refuse(text, (err --[[@as cosocket.Error]]).message) end
  end
  local spelt = written(local_part)
  local is_ascii = not local_part:find("[\x80-\xff]")
  if #spelt + 1 + math.max(#ascii, #domain) > ADDRESS_MAX then
    return refuse(text, ("an address has at most %d bytes"):format(ADDRESS_MAX))
  end
  return {
    name = name ~= "" and name or nil,
    local_part = local_part,
    domain = domain,
    address = spelt .. "@" .. domain,
    ascii = is_ascii and spelt .. "@" .. ascii or nil,
    smtputf8 = not is_ascii,
  }
end

--- A local part at `at`: what it says, and the position behind it.
---@param text string
---@param at integer
---@return string?
---@return integer
local function local_part_at(text, at)
  if text:byte(at) == 0x22 then return quoted_string(text, at) end
  local from = at
  while true do
    local stop = select(2, text:find(ATOM, at))
    if not stop then return nil, from end
    at = stop + 1
    if text:byte(at) ~= 0x2e then return text:sub(from, stop), at end
    at = at + 1
  end
end

--- One mailbox from `at` on.
---@param text string
---@param at integer
---@return smtp.Address?
---@return integer|cosocket.Error behind
local function mailbox(text, at)
  local start = skip(text, at)
  if not start then return refuse(text, "a comment does not end") end
  -- A bare address?
  local local_part, behind = local_part_at(text, start)
  if local_part and text:byte(behind) == 0x40 then
    local domain
    domain, behind = domain_at(text, behind + 1)
    if not domain then return refuse(text, "no domain behind the @") end
    local made, err = make(text, nil, local_part, domain)
    return made, err or behind
  end
  -- A display name, and an address in angle brackets.
  local words, position = {}, start
  while true do
    local letter = text:sub(position, position)
    if letter == "<" then break end
    if letter == "" then return refuse(text, "no address: name@domain, or Name <name@domain>") end
    if letter == ":" then return refuse(text, "groups cannot be delivered to; give each address") end
    if letter == '"' then
      local word, after = quoted_string(text, position)
      if not word then return refuse(text, "a quoted name does not end") end
      words[#words + 1] = word
      position = after
    else
      -- Dots in names are obsolete, and everywhere (RFC 5322, 4.1).
      local word = text:match("^[%w!#$%%&'*+/=?^_`{|}~.\x80-\xff-]+", position)
      if not word then return refuse(text, ("%q cannot be in a name that is not quoted"):format(letter)) end
      words[#words + 1] = word
      position = position + #word
    end
    position = skip(text, position) or math.huge
    if position == math.huge then return refuse(text, "a comment does not end") end
  end
  local inside = skip(text, position + 1)
  if not inside then return refuse(text, "a comment does not end") end
  if text:byte(inside) == 0x40 then return refuse(text, "routes are no longer delivered along (RFC 5321, F.2)") end
  local_part, behind = local_part_at(text, inside)
  if not local_part then return refuse(text, "no address in the angle brackets") end
  if text:byte(behind) ~= 0x40 then return refuse(text, "no @ in the angle brackets") end
  local domain
  domain, behind = domain_at(text, behind + 1)
  if not domain then return refuse(text, "no domain behind the @") end
  behind = skip(text, behind) or #text + 1
  if text:byte(behind) ~= 0x3e then return refuse(text, "the angle bracket is not closed") end
  local made, err = make(text, table.concat(words, " "), local_part, domain)
  return made, err or behind + 1
end

---@param text string
---@return true?
---@return cosocket.Error?
local function plain(text)
  if #text > TEXT_MAX then return refuse(text, ("more than %d bytes"):format(TEXT_MAX)) end
  if text:find("[\r\n%z]") then return refuse(text, "CR, LF or NUL cannot be in an address") end
  if text:find("[\1-\8\11\12\14-\31\127]") then return refuse(text, "a control character cannot be in an address") end
  return true
end

--- A list of mailboxes in one text, separated by commas.
---@param text string
---@return smtp.Address[]? list
---@return cosocket.Error? err `protocol`
local function parse_list(text)
  -- Most addresses are nothing but an address.
  local simple, domain = text:match("^([%w_+-]+)@([%w.-]+)$")
  if simple then
    local made, why = make(text, nil, simple, domain)
    return made and { made }, why
  end
  local ok, err = plain(text)
  if not ok then return nil, err end
  local list, at = {}, 1
  while true do
    local made, behind = mailbox(text, at)
    if not made then return nil, behind --[[@as cosocket.Error]] end
    list[#list + 1] = made
    at = skip(text, behind --[[@as integer]]) or #text + 1
    if at > #text then return list end
    if text:byte(at) ~= 0x2c then return refuse(text, ("%q behind an address"):format(text:sub(at, at))) end
    at = at + 1
  end
end

--- Takes one address apart: `"jo@example.org"`, `"Jo Doe <jo@example.org>"`, or `{ name =, address = }`.
---@param given string|{name?: string, address: string}
---@return smtp.Address? address
---@return cosocket.Error? err `protocol`
function address.parse(given)
  if type(given) == "table" then
    local text, name = given.address, given.name
    if type(text) ~= "string" then
      error(("address: the field address must be a string, not a %s"):format(type(text)), 2)
    end
    if name ~= nil and type(name) ~= "string" then
      error(("address: the field name must be a string, not a %s"):format(type(name)), 2)
    end
    local list, err = parse_list(text)
    if not list then return nil, err end
    if #list > 1 then return refuse(text, "one address was expected") end
    if name then
      local ok
      ok, err = plain(name)
      if not ok then return nil, err end
      if not utf8.len(name) then return refuse(name, "not UTF-8") end
      list[1].name = name ~= "" and name or nil
    end
    return list[1]
  elseif type(given) ~= "string" then
    error(("address: a string or a table is wanted, not a %s"):format(type(given)), 2)
  end
  local list, err = parse_list(given)
  if not list then return nil, err end
  if #list > 1 then return refuse(given, "one address was expected") end
  return list[1]
end

--- Takes addresses apart: a text with commas, one address as a table, or a list of either.
---@param given string|{name?: string, address: string}|(string|{name?: string, address: string})[]
---@return smtp.Address[]? list
---@return cosocket.Error? err `protocol`
function address.list(given)
  if type(given) == "string" then return parse_list(given) end
  if type(given) == "table" and given.address ~= nil then given = { given } end
  if type(given) ~= "table" then
    error(("address: a string or a list is wanted, not a %s"):format(type(given)), 2)
  end
  local list = {}
  for _, one in ipairs(given) do
    local more, err
    if type(one) == "string" then
      more, err = parse_list(one)
    else
      local made
      made, err = address.parse(one)
      more = made and { made }
    end
    if not more then return nil, err end
    table.move(more, 1, #more, #list + 1, list)
  end
  return list
end

return address
