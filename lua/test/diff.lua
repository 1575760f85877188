--- test.diff: where two values differ, and what to say about it.

local show = require("test.show")

--- Bytes of each of two strings that are shown.
local STRING_MAX = 500
--- Bytes shown before the first difference of two strings that are too long to show.
local BEFORE_MAX = 40
--- Bytes of a text up to which its lines are compared.
local TEXT_MAX = 4000
--- Unchanged lines shown around a change.
local CONTEXT_LINES = 3
--- Pairs of lines compared at most; beyond that all lines count as changed.
local PAIRS_MAX = 1000000

local diff = {}

--- Where two values differ first: the way there (`.headers[2]`) and what is there.
---@param actual any
---@param expected any
---@param way string
---@param pairs_seen table<table, table>
---@return string? way `nil` when they do not differ
---@return any actual
---@return any expected
local function difference(actual, expected, way, pairs_seen)
  if rawequal(actual, expected) or actual == expected then return nil end
  if actual ~= actual and expected ~= expected then return nil end -- two times "not a number"
  if type(actual) ~= "table" or type(expected) ~= "table" then return way, actual, expected end
  if pairs_seen[actual] == expected then return nil end
  pairs_seen[actual] = expected
  local keys = {}
  for key in next, actual do keys[key] = true end
  for key in next, expected do keys[key] = true end
  for _, key in ipairs(show.sorted_keys(keys)) do
    local shown = show.key(key)
    local step = shown:sub(1, 1) == "[" and shown or "." .. shown
    local found, one, other = difference(rawget(actual, key), rawget(expected, key), way .. step, pairs_seen)
    if found then return found, one, other end
  end
  return nil
end

--- The length of the longest common run of lines from each pair of positions on.
---@param old string[]
---@param new string[]
---@return integer[][]
local function common_lengths(old, new)
  local lengths = { [#old + 1] = {} }
  for j = 1, #new + 1 do lengths[#old + 1][j] = 0 end
  for i = #old, 1, -1 do
    local row, below = { [#new + 1] = 0 }, lengths[i + 1]
    for j = #new, 1, -1 do
      row[j] = old[i] == new[j] and below[j + 1] + 1 or math.max(below[j], row[j + 1])
    end
    lengths[i] = row
  end
  return lengths
end

--- Marks lines: `-` only in `old`, `+` only in `new`, blank in both.
---@param old string[]
---@param new string[]
---@return string[]
local function mark_lines(old, new)
  local marked = {}
  local function mark(sign, line) marked[#marked + 1] = sign .. " " .. line end
  local lengths = #old * #new <= PAIRS_MAX and common_lengths(old, new) or nil
  local i, j = 1, 1
  while i <= #old or j <= #new do
    if lengths and i <= #old and j <= #new and old[i] == new[j] then
      mark(" ", old[i])
      i, j = i + 1, j + 1
    elseif i <= #old and (j > #new or not lengths or lengths[i + 1][j] >= lengths[i][j + 1]) then
      mark("-", old[i])
      i = i + 1
    else
      mark("+", new[j])
      j = j + 1
    end
  end
  return marked
end

--- A diff of two lists of lines, without what is far from any change.
---@param old string[]
---@param new string[]
---@return string
local function mark_changes(old, new)
  local marked = mark_lines(old, new)
  local near = {}
  for at, line in ipairs(marked) do
    if line:sub(1, 1) ~= " " then
      for i = at - CONTEXT_LINES, at + CONTEXT_LINES do near[i] = true end
    end
  end
  local shown = {}
  for at, line in ipairs(marked) do
    if near[at] then
      shown[#shown + 1] = "  " .. line
    elseif near[at - 1] or at == 1 then
      shown[#shown + 1] = "    ..."
    end
  end
  return table.concat(shown, "\n")
end

--- The lines of a text, each shown as a string of its own.
---@param text string
---@return string[]
local function text_lines(text)
  local lines = {}
  for line in text:gmatch("[^\n]*\n?") do
    if line ~= "" then lines[#lines + 1] = show.quote(line) end
  end
  return lines
end

--- What to say about two strings that differ.
---@param actual string
---@param expected string
---@return string
function diff.strings(actual, expected)
  local at = 1
  while at <= #actual and actual:byte(at) == expected:byte(at) do at = at + 1 end
  if #actual <= TEXT_MAX and #expected <= TEXT_MAX and expected:find("\n.") then
    return ("  first difference at byte %d\n%s"):format(at, mark_changes(text_lines(expected), text_lines(actual)))
  end
  local from = math.max(#actual, #expected) > STRING_MAX and math.max(1, at - BEFORE_MAX) or 1
  local function part(text)
    local shown = show.quote(text:sub(from, from + STRING_MAX - 1))
    if from > 1 or #text > from + STRING_MAX - 1 then
      return ("%s (from byte %d of %d)"):format(shown, from, #text)
    end
    return shown
  end
  return ("  expected %s\n  actual   %s\n  first difference at byte %d"):format(part(expected), part(actual), at)
end

--- What to say about two values that differ.
---@param actual any
---@param expected any
---@return string? text `nil` when they do not differ
function diff.values(actual, expected)
  local way, one, other = difference(actual, expected, "", {})
  if not way then return nil end
  local text = way == "" and "" or (" at %s"):format(way)
  if type(one) == "string" and type(other) == "string" then
    text = text .. "\n" .. diff.strings(one, other)
  elseif type(one) ~= "table" or type(other) ~= "table" then
    local function brief(value)
      local shown = show.lines(value)
      return #shown == 1 and shown[1] or ("%s ... %s (a table)"):format(shown[1], shown[#shown])
    end
    text = ("%s\n  expected %s\n  actual   %s"):format(text, brief(other), brief(one))
  end
  if type(actual) == "table" or type(expected) == "table" then
    local old, new = show.lines(expected), show.lines(actual)
    if #old > 1 or #new > 1 or way ~= "" then text = text .. "\n" .. mark_changes(old, new) end
  end
  return text
end

return diff
