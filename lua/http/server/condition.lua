--- Conditional requests (RFC 9110, 13) and ranges (14), as numbers and texts: no file, no clock, no socket.

local date = require("http.date")
local field = require("net.field")

--- Ranges of one request; more are not worth the trouble, and the whole is sent.
local RANGES_MAX = 16

---@class http.Validators
---@field etag string? With its quotes, and `W/` if it is weak.
---@field modified integer? Seconds since 1970.

local condition = {}

--- Whether a list of entity tags has one (8.8.3.2). Weak ones never equal in the strong comparison.
---@param list string The value of If-Match or If-None-Match.
---@param etag string?
---@param strong boolean
---@return boolean
local function has_tag(list, etag, strong)
  if list:match("^%s*%*%s*$") then return true end
  if not etag then return false end
  local opaque = etag:gsub("^W/", "")
  local is_weak = etag ~= opaque
  for weak, tag in list:gmatch('(W?/?)("[^"]*")') do
    if tag == opaque and not (strong and (is_weak or weak ~= "")) then return true end
  end
  return false
end

--- What the preconditions of a request ask for (13.2.2).
---@param method string
---@param headers http.Headers
---@param validators http.Validators
---@return 304|412|nil status `nil`: go on.
function condition.check(method, headers, validators)
  local etag, modified = validators.etag, validators.modified
  local is_read = method == "GET" or method == "HEAD"
  local match = headers:get("if-match")
  if match then
    if not has_tag(match, etag, true) then return 412 end
  else
    local text = headers:get("if-unmodified-since")
    local since = text and modified and date.parse(text)
    if since and modified > since then return 412 end
  end
  local none = headers:get("if-none-match")
  if none then
    if has_tag(none, etag, false) then return is_read and 304 or 412 end
  elseif is_read then
    local text = headers:get("if-modified-since")
    local since = text and modified and date.parse(text)
    if since and modified <= since then return 304 end
  end
  return nil
end

--- Whether a Range may be heeded: without If-Range, or when that names what we have (13.1.5).
---@param headers http.Headers
---@param validators http.Validators
---@return boolean
local function may_range(headers, validators)
  local text = headers:get("if-range")
  if not text then return true end
  if text:find('"', 1, true) then
    return text:sub(1, 2) ~= "W/" and text == validators.etag
  end
  -- A date is as good as a strong tag only when it is exactly that one.
  return validators.modified ~= nil and date.parse(text) == validators.modified
end

---@class http.Range
---@field first integer Offset of the first byte.
---@field last integer Offset of the last one.

--- The ranges a GET asks for (14.2), in their order, of a thing of `size` bytes.
---@param method string
---@param headers http.Headers
---@param validators http.Validators
---@param size integer
---@return http.Range[]? ranges `nil`: all of it. Empty: none can be satisfied, 416.
function condition.ranges(method, headers, validators, size)
  local text = method == "GET" and headers:get("range")
  if not text or not may_range(headers, validators) then return nil end
  local set = text:match("^%s*[bB][yY][tT][eE][sS]=(.*)$")
  if not set then return nil end
  local ranges, count, total = {}, 0, 0
  for _, member in ipairs(field.members(set)) do
    count = count + 1
    local first, last = member:match("^(%d*)%s*%-%s*(%d*)$")
    if not first or (first == "" and last == "") or #first > 18 or #last > 18 or count > RANGES_MAX then return nil end
    local from, to = math.tointeger(tonumber(first)), math.tointeger(tonumber(last))
    if not from then
      from, to = math.max(0, size - to --[[@as integer]]), size - 1
      -- The last 0 bytes are none.
      if last:match("^0+$") then from = size end
    elseif to and to < from then
      return nil
    else
      to = math.min(to or size - 1, size - 1)
    end
    if from < size then
      ranges[#ranges + 1] = { first = from, last = to }
      total = total + to - from + 1
    end
  end
  if count == 0 then return nil end
  -- Whoever asks for more than there is, in overlapping ranges, wants us to work (14.2).
  if total > size and #ranges > 1 then return nil end
  return ranges
end

--- How much a client likes a content coding (12.5.3): 0 is not at all.
---@param headers http.Headers
---@param coding string
---@return number
function condition.accepts_coding(headers, coding)
  local text = headers:get("accept-encoding")
  if not text then return 0 end
  local any = 0
  for member in text:lower():gmatch("[^,]+") do
    local name, parameters = member:match("^%s*([^%s;]+)%s*(.*)$")
    if name == coding or name == "*" then
      local quality = tonumber(parameters:match(";%s*q%s*=%s*([%d.]+)") or "1") or 0
      if name == coding then return quality end
      any = quality
    end
  end
  return any
end

return condition
