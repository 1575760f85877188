--- test.show: any value as text, the same text for equal values.

--- Longest table that is shown on one line.
local LINE_MAX = 72
--- Bytes of one string that are shown.
local STRING_MAX = 1000

local show = {}

local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\", ['"'] = '\\"' }

---@param text string
---@return string
function show.quote(text)
  local shown = text:gsub('[%c\\"]', function(char)
    return ESCAPES[char] or ("\\x%02x"):format(char:byte())
  end)
  if not utf8.len(shown) then
    shown = shown:gsub("[\x80-\xff]", function(char) return ("\\x%02x"):format(char:byte()) end)
  end
  return '"' .. shown .. '"'
end

---@param value any
---@return string
function show.plain(value)
  if type(value) == "string" then
    if #value <= STRING_MAX then return show.quote(value) end
    return ("%s .. (%d bytes)"):format(show.quote(value:sub(1, STRING_MAX)), #value)
  elseif math.type(value) == "float" and value == value and math.abs(value) ~= math.huge then
    local short = ("%.14g"):format(value)
    local exact = tonumber(short) == value and short or ("%.17g"):format(value)
    return exact:find("[.e]") and exact or exact .. ".0"
  end
  return tostring(value)
end

local RANKS = { number = 1, string = 2, boolean = 3 }

---@param one any
---@param other any
---@return boolean
local function key_precedes(one, other)
  local one_rank, other_rank = RANKS[type(one)] or 4, RANKS[type(other)] or 4
  if one_rank ~= other_rank then return one_rank < other_rank end
  if one_rank <= 2 then return one < other end
  return tostring(one) < tostring(other)
end

---@param of table
---@return any[]
function show.sorted_keys(of)
  local keys = {}
  for key in next, of do keys[#keys + 1] = key end
  table.sort(keys, key_precedes)
  return keys
end

---@param key any
---@return string
function show.key(key)
  if type(key) == "string" and key:find("^[%a_][%w_]*$") then return key end
  return ("[%s]"):format(show.plain(key))
end

---@param value any
---@param indent string
---@param open table<table, true> Tables being shown around this one.
---@return string[]
local function show_lines(value, indent, open)
  if type(value) ~= "table" then return { show.plain(value) } end
  if open[value] then return { "<itself>" } end
  open[value] = true
  local items, flat, length = {}, true, 0
  local list_end = rawlen(value)
  for _, key in ipairs(show.sorted_keys(value)) do
    local is_item = math.type(key) == "integer" and key >= 1 and key <= list_end
    local lines = show_lines(rawget(value, key), indent .. "  ", open)
    if not is_item then lines[1] = ("%s = %s"):format(show.key(key), lines[1]) end
    flat = flat and #lines == 1
    length = length + #lines[1] + 2
    items[#items + 1] = lines
  end
  open[value] = nil
  if #items == 0 then return { "{}" } end
  if flat and #indent + length <= LINE_MAX then
    local firsts = {}
    for i, lines in ipairs(items) do firsts[i] = lines[1] end
    return { ("{ %s }"):format(table.concat(firsts, ", ")) }
  end
  local all = { "{" }
  for _, lines in ipairs(items) do
    for i, line in ipairs(lines) do
      all[#all + 1] = (i == 1 and indent .. "  " or "") .. line .. (i == #lines and "," or "")
    end
  end
  all[#all + 1] = indent .. "}"
  return all
end

--- The lines of `value` as text.
---@param value any
---@return string[]
function show.lines(value)
  return show_lines(value, "", {})
end

--- `value` as text.
---@param value any
---@return string
function show.value(value)
  return table.concat(show.lines(value), "\n")
end

return show
