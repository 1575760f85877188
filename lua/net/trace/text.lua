--- Bytes of others as text that may be shown: nothing of it reaches the terminal as a command.

local text = {}

--- Bytes in a line of a dump.
local ROW = 16

local SHORT = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

---@param char string
---@return string
local function hex(char)
  return SHORT[char] or (char:gsub(".", function(byte) return ("\\x%02x"):format(byte:byte()) end))
end

--- Characters that a terminal obeys or that change the order of others: C1 controls, line and paragraph separators, marks of
--- direction.
local UNSEEN = {
  "\u{80}-\u{9f}", "\u{61c}", "\u{200b}-\u{200f}", "\u{2028}-\u{202e}", "\u{2060}-\u{206f}", "\u{feff}", "\u{fff9}-\u{fffb}",
}
local RANGES = {}
for i, range in ipairs(UNSEEN) do
  local first, last = utf8.codepoint(range), utf8.codepoint(range, utf8.offset(range, -1))
  RANGES[i] = { first, last }
end

---@param char string A character of UTF-8.
---@return string
local function visible(char)
  local code = utf8.codepoint(char)
  for _, range in ipairs(RANGES) do
    if code >= range[1] and code <= range[2] then return ("\\u{%x}"):format(code) end
  end
  return char
end

--- Makes control characters, and what is not UTF-8, visible.
---@param bytes string
---@return string
function text.escape(bytes)
  if not bytes:find("[%c\x7f-\xff]") then return bytes end
  bytes = bytes:gsub("[%c\x7f]", hex)
  if not bytes:find("[\x80-\xff]") then return bytes end
  local parts, at = {}, 1
  while at <= #bytes do
    local _, bad = utf8.len(bytes, at)
    local good = bytes:sub(at, (bad or #bytes + 1) - 1)
    parts[#parts + 1] = good:gsub("[\xc2-\xf4][\x80-\xbf]+", visible)
    if not bad then break end
    parts[#parts + 1] = hex(bytes:sub(bad, bad))
    at = bad + 1
  end
  return table.concat(parts)
end

--- The first bytes, with no character cut in two.
---@param bytes string
---@param limit integer
---@return string
function text.cut(bytes, limit)
  if #bytes <= limit then return bytes end
  local last = limit
  while last > 0 and last > limit - 4 and (bytes:byte(last + 1) or 0) & 0xC0 == 0x80 do last = last - 1 end
  if last <= 0 or (bytes:byte(last + 1) or 0) & 0xC0 == 0x80 then last = limit end
  return bytes:sub(1, last)
end

--- In quotation marks, of the kind that JSON does not have if it is JSON, and shortened.
---@param bytes string
---@param limit? integer
---@return string
function text.quote(bytes, limit)
  local shown = limit and text.cut(bytes, limit) or bytes
  local mark = shown:find('"', 1, true) and not shown:find("'", 1, true) and "'" or '"'
  local quoted = mark .. text.escape((shown:gsub("[\\" .. mark .. "]", "\\%0"))) .. mark
  return #shown < #bytes and quoted .. "..." or quoted
end

--- `1 byte`, `12 bytes`.
---@param count integer
---@return string
function text.size(count)
  return count == 1 and "1 byte" or ("%d bytes"):format(count)
end

--- Lines of bytes in hexadecimal, and beside them as ASCII.
---@param bytes string
---@param limit integer
---@return string[]
function text.dump(bytes, limit)
  local lines = {}
  for at = 1, math.min(#bytes, limit), ROW do
    local row = bytes:sub(at, math.min(at + ROW - 1, limit))
    local digits = row:gsub(".", function(byte) return ("%02x "):format(byte:byte()) end)
    lines[#lines + 1] = ("%04x  %-48s |%s|"):format(at - 1, digits, (row:gsub("[^\x20-\x7e]", ".")))
  end
  if #bytes > limit then lines[#lines + 1] = ("... %s more"):format(text.size(#bytes - math.max(limit, 0))) end
  return lines
end

return text
