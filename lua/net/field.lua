--- Values of header fields, taken apart in time that grows with their length, and no faster.
---
--- A pattern such as `^%s*(.-)%s*$` looks at a run of spaces anew from each of its bytes, and `^%s*([^=]-)%s*=` does that
--- again for each: a field of 60,000 spaces, which anybody can send, would keep the loop for hours.

local field = {}

--- Without the white space at both ends.
---@param text string
---@return string
function field.trim(text)
  local first = text:find("%S")
  return first and text:match(".*%S", first) or ""
end
local trim = field.trim

--- The members of a comma-separated list (RFC 9110, 5.6.1), without empty ones. No quoted string may have a comma.
---@param value string?
---@return string[]
function field.members(value)
  local list = {}
  for member in (value or ""):gmatch("[^,]+") do
    local text = trim(member)
    if text ~= "" then list[#list + 1] = text end
  end
  return list
end

--- What stands before and behind the first `=`, each trimmed.
---@param text string
---@return string? name `nil`: there is no `=`.
---@return string value
function field.pair(text)
  local at = text:find("=", 1, true)
  if not at then return nil, "" end
  return trim(text:sub(1, at - 1)), trim(text:sub(at + 1))
end

return field
