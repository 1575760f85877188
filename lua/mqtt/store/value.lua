--- mqtt.store.value: a table of properties as bytes, and back. Strings keep any bytes, lists their order.

--- How deep tables nest: pairs in the list of user properties in the table of properties.
local DEPTH_MAX = 4

--- Appends a value as a letter and bytes: numbers little-endian, strings behind their length, tables as pairs.
local function append(value, parts, depth)
  local kind = math.type(value) or type(value)
  if kind == "string" then
    parts[#parts + 1] = string.pack("<c1s4", "s", value)
  elseif kind == "integer" then
    parts[#parts + 1] = string.pack("<c1i8", "i", value)
  elseif kind == "float" then
    parts[#parts + 1] = string.pack("<c1d", "d", value)
  elseif kind == "boolean" then
    parts[#parts + 1] = value and "T" or "F"
  elseif kind == "table" and depth < DEPTH_MAX then
    local count = 0
    for _ in pairs(value) do count = count + 1 end
    parts[#parts + 1] = string.pack("<c1I4", "t", count)
    for key, item in pairs(value) do
      append(key, parts, depth + 1)
      append(item, parts, depth + 1)
    end
  else
    error(("properties cannot hold a %s here"):format(kind), 0)
  end
end

--- The value at `at`, and where the next begins; raises when the bytes are none.
local function take(bytes, at, depth)
  local kind = bytes:sub(at, at)
  if kind == "s" then return string.unpack("<s4", bytes, at + 1) end
  if kind == "i" then return string.unpack("<i8", bytes, at + 1) end
  if kind == "d" then return string.unpack("<d", bytes, at + 1) end
  if kind == "T" or kind == "F" then return kind == "T", at + 1 end
  if kind ~= "t" or depth >= DEPTH_MAX then error("no value") end
  local value, count = {}, nil
  count, at = string.unpack("<I4", bytes, at + 1)
  for _ = 1, count do
    local key, item
    key, at = take(bytes, at, depth + 1)
    item, at = take(bytes, at, depth + 1)
    value[key] = item
  end
  return value, at
end

local values = {}

--- The bytes of `value`: a string, a number, a boolean, or a table of them.
---@param value any
---@return string
function values.pack(value)
  local parts = {}
  append(value, parts, 0)
  return table.concat(parts)
end

--- The value that `bytes` are, all of them; `nil` when they are none.
---@param bytes string
---@return any value
function values.unpack(bytes)
  local ok, value, after = pcall(take, bytes, 1, 0)
  if ok and after == #bytes + 1 then return value end
  return nil
end

return values
