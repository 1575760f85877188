--- Dates of HTTP: read in any form that servers use, written in the one form that is right (RFC 9110, 5.6.7).

local date = {}

local MONTHS = {}
for i, name in ipairs({ "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec" }) do
  MONTHS[name] = i
end

--- Days from 1970-01-01 to a date of the Gregorian calendar.
---@param year integer
---@param month integer
---@param day integer
---@return integer
local function days(year, month, day)
  -- Years begin in March here, so that the leap day is the last.
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469
end

--- Seconds since 1970 of a date: by the algorithm for cookies (RFC 6265, 5.1.1), which reads all three forms of RFC 9110
--- and what else is sent.
---@param text string
---@return integer? seconds
function date.parse(text)
  local hour, minute, second, day, month, year
  for word in text:gmatch("[^\t\x20-\x2F\x3B-\x40\x5B-\x60\x7B-\x7E]+") do
    local h, m, s = word:match("^(%d%d?):(%d%d?):(%d%d?)%f[^%d]")
    if not hour and h then
      hour, minute, second = tonumber(h), tonumber(m), tonumber(s)
    elseif not day and word:match("^%d%d?%f[^%d]") then
      day = tonumber(word:match("^%d+"))
    elseif not month and MONTHS[word:sub(1, 3):lower()] then
      month = MONTHS[word:sub(1, 3):lower()]
    elseif not year and word:match("^%d%d%d?%d?%f[^%d]") then
      year = tonumber(word:match("^%d+"))
    end
  end
  if not (hour and day and month and year) then return nil end
  if year >= 70 and year <= 99 then year = year + 1900 elseif year <= 69 then year = year + 2000 end
  if year < 1601 or day < 1 or day > 31 or hour > 23 or minute > 59 or second > 60 then return nil end
  local at = days(year, month, day)
  -- Such as the 31st of April.
  if os.date("!%d", at * 86400) ~= ("%02d"):format(day) then return nil end
  return at * 86400 + hour * 3600 + minute * 60 + second
end

--- `Sun, 06 Nov 1994 08:49:37 GMT`
---@param seconds integer
---@return string
function date.format(seconds)
  local t = os.date("!*t", seconds)
  local day = ({ "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" })[t.wday]
  local month = ({ "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" })[t.month]
  return ("%s, %02d %s %04d %02d:%02d:%02d GMT"):format(day, t.day, month, t.year, t.hour, t.min, t.sec)
end

--- How many seconds a `Retry-After` field asks to wait (RFC 9110, 10.2.3).
---@param field string
---@param at? integer Seconds since 1970. Default: now.
---@return integer? seconds Not negative; `nil` when it is neither a number nor a date.
function date.retry_after(field, at)
  local seconds = field:match("^%s*(%d+)%s*$")
  -- More than a number can hold is very long.
  if seconds then return math.tointeger(math.min(tonumber(seconds), 1 << 31)) end
  local when = date.parse(field)
  return when and math.max(0, when - (at or os.time())) or nil
end

return date
