--- Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload-12, interop version 8): what requests say, and what
--- answers mean, in the shape of `http.resumable.tus`. The upload is made by a request without content ("careful upload
--- creation"), so that no interim answer is needed to find it again.

local cosocket = require("cosocket")
local url = require("url")

--- "Draft Version Identification": servers of other drafts are not understood.
local VERSION = "8"
--- Digits of an integer (RFC 9651, 3.3.1).
local DIGITS_MAX = 15
--- Bytes of a server's own words in our messages.
local WORDS_MAX = 200

local OP = "http.upload"

local ietf = {}

--- Statuses that pass besides those of every transfer: none.
ietf.PASSING = {}

---@param more? table<string, string>
---@return table<string, string>
local function fields_of(more)
  more = more or {}
  more["Upload-Draft-Interop-Version"] = VERSION
  return more
end

---@param is_last boolean
---@return string
local function completeness(is_last)
  return is_last and "?1" or "?0"
end

-- Requests --------------------------------------------------------------------

--- The fields that say what is sent (4.4.1): its media type, and its name. Nothing else can be told.
---@param metadata table<string, string>
---@return table<string, string>? fields
---@return string? wrong What is wrong with it.
function ietf.metadata(metadata)
  local fields = {}
  for name, value in pairs(metadata) do
    if type(value) ~= "string" then return nil, ("%s must be a string, not a %s"):format(name, type(value)) end
    if name == "filetype" then
      if value:find("[%c\x7F-\xFF]") then return nil, "filetype is no media type" end
      fields["Content-Type"] = value
    elseif name == "filename" then
      local plain = value:gsub("[%c\x7F-\xFF]", "_"):gsub("[\\\"]", "\\%0")
      fields["Content-Disposition"] = ("inline; filename=\"%s\"; filename*=UTF-8''%s"):format(plain, url.encode(value))
    else
      return nil, ("%q cannot be told by this protocol, but filename and filetype"):format(tostring(name))
    end
  end
  return fields
end

--- The fields of the POST that makes an upload; with `length`, so many bytes come with it.
---@param total integer
---@param metadata table<string, string>?
---@param length integer?
---@return table<string, string>
function ietf.creation(total, metadata, length)
  local fields = fields_of({ ["Upload-Complete"] = completeness((length or 0) == total), ["Upload-Length"] = ("%d"):format(total) })
  for name, value in pairs(metadata or {}) do fields[name] = value end
  return fields
end

--- The fields of HEAD and DELETE.
---@return table<string, string>
function ietf.question()
  return fields_of()
end

--- The fields of a PATCH.
---@param offset integer
---@param length integer
---@param total integer
---@return table<string, string>
function ietf.append(offset, length, total)
  return fields_of({
    ["Upload-Offset"] = ("%d"):format(offset),
    ["Upload-Complete"] = completeness(offset + length == total),
    ["Content-Type"] = "application/partial-upload",
  })
end

-- Fields of answers ---------------------------------------------------------------

--- A structured integer that is not negative; parameters are not looked at. Other values are ignored, as 4.3 asks.
---@param text string?
---@return integer?
local function integer_of(text)
  local digits = text and (text:match("^ *(%d+) *$") or text:match("^ *(%d+) *;"))
  return digits and #digits <= DIGITS_MAX and math.tointeger(tonumber(digits)) or nil
end

--- A structured boolean.
---@param text string?
---@return boolean?
local function boolean_of(text)
  local digit = text and (text:match("^ *%?([01]) *$") or text:match("^ *%?([01]) *;"))
  if digit then return digit == "1" end
  return nil
end

--- Items of a dictionary (RFC 9651, 3.3) as they may stand behind `=`: how each begins, and all of it.
local ITEMS = {
  '^"[^"\\\x80-\xFF%c]*"()', -- without escapes, which no limit has
  "^:[%w+/=]*:()",
  "^%?[01]()",
  "^@?%-?%d+%.?%d*()",
  "^[%a*][%w!#$%%&'*+.^_`|~:/-]*()",
  "^%([^()\"]*%)()",
}

--- The end of an item and its parameters.
---@param text string
---@param at integer
---@return integer?
local function skip_item(text, at)
  for _, pattern in ipairs(ITEMS) do
    local after = text:match(pattern, at)
    if after then return after end
  end
  return nil
end

--- The integers of a dictionary that are known; `nil` when it is none, or a known one is something else (4.3.4).
---@param text string
---@return table<string, integer>?
function ietf.limits(text)
  local limits, at = {}, text:match("^ *()")
  local known = { ["max-size"] = true, ["max-append-size"] = true, ["min-append-size"] = true, ["max-age"] = true }
  if at > #text then return limits end
  while true do
    local name, after = text:match("^([%l*][%l%d_.*-]*)()", at)
    if not name then return nil end
    local value
    if text:sub(after, after) == "=" then
      local last = skip_item(text, after + 1)
      if not last then return nil end
      value, after = text:sub(after + 1, last - 1), last
    end
    -- Parameters.
    while text:find("^ *;", after) do
      local next_at = text:match("^ *; *[%l*][%l%d_.*-]*()", after)
      if not next_at then return nil end
      if text:sub(next_at, next_at) == "=" then next_at = skip_item(text, next_at + 1) end
      if not next_at then return nil end
      after = next_at
    end
    if known[name] then
      local number = integer_of(value)
      if not number then return nil end
      limits[name] = number
    end
    at = text:match("^[ \t]*()", after)
    if at > #text then return limits end
    at = text:match("^,[ \t]*()", at)
    -- Nothing may follow the last comma.
    if not at or at > #text then return nil end
  end
end

-- Answers ---------------------------------------------------------------------

---@param answer http.Response
---@param text string
---@return nil
---@return cosocket.Error err
local function strange(answer, text)
  local message = ("%s %s: %s"):format(answer.method, answer.url, text)
  return nil, cosocket.error("protocol", OP, message, { code = answer.status, response = answer })
end

---@param answer http.Response
---@param text string
---@return nil
---@return cosocket.Error err
local function too_large(answer, text)
  return nil, cosocket.error("limit", OP, ("%s %s"):format(answer.url, text), { code = 413, response = answer })
end

--- What limits an answer tells, if it does.
---@param answer http.Response
---@param fact http.UploadFact Changed.
---@param total integer
---@return http.UploadFact? fact
---@return cosocket.Error? err
local function with_limits(answer, fact, total)
  local field = answer.headers["Upload-Limit"]
  local limits = field and ietf.limits(field)
  if not limits then return fact end
  local most = limits["max-size"]
  if most and total > most then return too_large(answer, ("takes no upload of %d bytes, but of %d at most"):format(total, most)) end
  fact.append_max, fact.append_min, fact.max_age = limits["max-append-size"], limits["min-append-size"], limits["max-age"]
  return fact
end

--- Judges the answer to the POST.
---@param answer http.Response
---@param total integer
---@param length integer? Bytes that came with it.
---@return http.UploadFact? fact
---@return cosocket.Error? err
function ietf.created(answer, total, length)
  if answer.status == 413 then return too_large(answer, ("takes no upload of %d bytes"):format(total)) end
  local _, err = answer:check()
  if err then return nil, err end
  local location = answer.headers.Location
  -- "The request content contained the entire representation data": the answer is that of the resource itself.
  if (length or 0) == total then return { url = location or answer.url, offset = total, complete = true } end
  if not location then return strange(answer, "the server knows no resumable uploads: a Location is wanted; is it the right URL?") end
  return with_limits(answer, { url = location, offset = length or 0 }, total)
end

--- Judges the answer to HEAD.
---@param answer http.Response
---@param total integer
---@return http.UploadFact? fact
---@return cosocket.Error? err
---@return "anew"? what
function ietf.asked(answer, total)
  local status, headers = answer.status, answer.headers
  local _, err = answer:check()
  if err then return nil, err, (status == 404 or status == 410) and "anew" or nil end
  local offset, complete, length = integer_of(headers["Upload-Offset"]), boolean_of(headers["Upload-Complete"]), integer_of(headers["Upload-Length"])
  if not offset or complete == nil then
    return strange(answer, "this is no resumable upload: Upload-Offset and Upload-Complete are wanted")
  elseif offset > total or (length and length ~= total) or (complete and offset < total) then
    local _, other = strange(answer, "the server has an upload of another length there")
    return nil, other, "anew"
  end
  return with_limits(answer, { offset = offset, complete = complete }, total)
end

--- Judges the answer to a PATCH.
---@param answer http.Response
---@param offset integer Where it began.
---@param length integer Bytes that it had.
---@param total integer
---@return http.UploadFact? fact
---@return cosocket.Error? err
---@return "anew"|"ask"|nil what
function ietf.appended(answer, offset, length, total)
  local status, headers = answer.status, answer.headers
  local _, err = answer:check()
  if boolean_of(headers["Upload-Complete"]) then
    if not err then return { offset = total, complete = true } end
    -- All has come; it is what the server made of it that failed, and to send it again is no help.
    return nil, cosocket.error("refused", OP, err.message, { code = status, reason = answer.reason, response = answer })
  elseif status == 413 then
    local limits = ietf.limits(headers["Upload-Limit"] or "")
    local message = ("takes no request of %d bytes: set `chunk_size` below that"):format(length)
    local _, large = too_large(answer, message)
    -- HEAD tells the limit again, and then the next chunk keeps to it.
    return nil, large, limits and (limits["max-append-size"] or length) < length and "ask" or nil
  elseif err then
    return nil, err, (status == 404 or status == 410) and "anew" or status == 409 and "ask" or nil
  end
  local now = integer_of(headers["Upload-Offset"]) or offset + length
  if offset + length == total or now <= offset or now > offset + length then
    local said = tostring(headers["Upload-Offset"] or headers["Upload-Complete"] or "nothing"):sub(1, WORDS_MAX)
    local _, other = strange(answer, ("%d bytes from %d on were sent, and the server says %s of them"):format(length, offset, said))
    return nil, other, "ask"
  end
  return with_limits(answer, { offset = now }, total)
end

return ietf
