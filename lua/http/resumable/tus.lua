--- tus 1.0.0 (tus.io/protocols/resumable-upload): what requests say, and what answers mean. No socket, no clock, no file.
---
--- Answers are judged in three values: what they told, or `nil`, an error, and what is to be done: `"anew"`, because the
--- upload is gone, `"ask"`, because nobody knows how much has come; nothing, when the error itself has to tell.

local base64 = require("base64")
local cosocket = require("cosocket")
local date = require("http.date")

local VERSION = "1.0.0"
--- Digits of an offset: more than any file has, and no more than an integer holds.
local DIGITS_MAX = 18
--- Bytes of a server's own words in our messages.
local WORDS_MAX = 200

local OP = "http.upload"

--- What an answer told.
---@class http.UploadFact
---@field url string? Of the upload, as the server wrote it.
---@field offset integer? Bytes that the server has.
---@field complete boolean? Nothing more is to be said.
---@field expires integer? Seconds since 1970.
---@field max_age integer? Seconds that the upload lasts.
---@field append_max integer? Bytes of one request.
---@field append_min integer? Bytes of one request that is not the last.

local tus = {}

--- Statuses that pass besides those of every transfer: 423 while a request that broke off still holds the upload, 460
--- when a chunk came damaged, and was dropped (extension Checksum).
tus.PASSING = { [423] = true, [460] = true }

--- Algorithms of the extension Checksum that we know.
tus.ALGORITHMS = { md5 = true, sha1 = true, sha256 = true, sha512 = true }

--- Fields that every request has.
---@param more? table<string, string>
---@return table<string, string>
local function fields_of(more)
  more = more or {}
  more["Tus-Resumable"] = VERSION
  return more
end

-- Requests --------------------------------------------------------------------

--- The value of `Upload-Metadata` (extension Creation): names in their order, values as they are; `nil` for none.
---@param metadata table<string, string>
---@return string? value
---@return string? wrong What is wrong with it.
function tus.metadata(metadata)
  local pairs_of = {}
  for name, value in pairs(metadata) do
    if type(name) ~= "string" or not name:find("^[\x21-\x2B\x2D-\x7E]+$") then
      return nil, ("%q is no name: ASCII without spaces and commas is wanted"):format(tostring(name))
    elseif type(value) ~= "string" then
      return nil, ("%s must be a string, not a %s"):format(name, type(value))
    end
    pairs_of[#pairs_of + 1] = value == "" and name or ("%s %s"):format(name, base64.encode(value))
  end
  table.sort(pairs_of)
  return #pairs_of > 0 and table.concat(pairs_of, ",") or nil
end

--- The fields of the POST that makes an upload; with `length`, so many bytes come with it (extension Creation With
--- Upload).
---@param total integer
---@param metadata string?
---@param length integer?
---@return table<string, string>
function tus.creation(total, metadata, length)
  return fields_of({
    ["Upload-Length"] = ("%d"):format(total),
    ["Upload-Metadata"] = metadata,
    ["Content-Type"] = length and "application/offset+octet-stream" or nil,
  })
end

--- The fields of HEAD, DELETE, and OPTIONS.
---@return table<string, string>
function tus.question()
  return fields_of()
end

--- The fields of a PATCH.
---@param offset integer
---@return table<string, string>
function tus.append(offset)
  return fields_of({ ["Upload-Offset"] = ("%d"):format(offset), ["Content-Type"] = "application/offset+octet-stream" })
end

--- The value of `Upload-Checksum`.
---@param algorithm string
---@param digest string Raw.
---@return string
function tus.checksum(algorithm, digest)
  return ("%s %s"):format(algorithm, base64.encode(digest))
end

-- Answers ---------------------------------------------------------------------

---@param text string?
---@return integer? number Not negative.
local function number_of(text)
  if not text or not text:find("^%d+$") or #text > DIGITS_MAX then return nil end
  return math.tointeger(tonumber(text))
end

---@param answer http.Response
---@return integer? seconds
local function expiry_of(answer)
  local field = answer.headers["Upload-Expires"]
  return field and date.parse(field) or nil
end

---@param answer http.Response
---@param text string
---@return nil
---@return cosocket.Error err
local function strange(answer, text)
  local message = ("%s %s: %s"):format(answer.method, answer.url, text)
  return nil, cosocket.error("protocol", OP, message, { code = answer.status, response = answer })
end

--- What a status says that is the same for all requests.
---@param answer http.Response
---@return cosocket.Error? err
local function refusal_of(answer)
  if answer.status == 412 then
    local versions = (answer.headers["Tus-Version"] or "none"):sub(1, WORDS_MAX)
    local _, err = strange(answer, ("the server does not speak tus %s (its versions: %s)"):format(VERSION, versions))
    return err
  end
  local _, err = answer:check()
  return err
end

--- Judges the answer to the POST.
---@param answer http.Response
---@param total integer
---@param length integer? Bytes that came with it.
---@return http.UploadFact? fact Without `offset` when the server may have taken what came with it, and does not say so.
---@return cosocket.Error? err
function tus.created(answer, total, length)
  if answer.status == 413 then
    local most = number_of(answer.headers["Tus-Max-Size"])
    local message = ("%s takes no upload of %d bytes%s"):format(answer.url, total, most and (", but of %d at most"):format(most) or "")
    return nil, cosocket.error("limit", OP, message, { code = 413, response = answer })
  end
  local err = refusal_of(answer)
  if err then return nil, err end
  local location = answer.headers.Location
  if answer.status ~= 201 or not location then
    return strange(answer, "this is no answer of a tus server: 201 with a Location is wanted; is it the right URL?")
  end
  local offset = not length and 0 or number_of(answer.headers["Upload-Offset"])
  if offset and offset > (length or 0) then return strange(answer, "the server claims to have more than was sent") end
  return { url = location, offset = offset, complete = offset == total, expires = expiry_of(answer) }
end

--- Judges the answer to HEAD.
---@param answer http.Response
---@param total integer
---@return http.UploadFact? fact
---@return cosocket.Error? err
---@return "anew"? what
function tus.asked(answer, total)
  local status = answer.status
  local err = refusal_of(answer)
  -- "If the resource is not found" (Core Protocol, HEAD): also when it expired (extension Expiration).
  if err then return nil, err, (status == 404 or status == 410 or status == 403) and "anew" or nil end
  local offset, length = number_of(answer.headers["Upload-Offset"]), answer.headers["Upload-Length"]
  if not offset then
    -- Such as the page that asks to log in to a wireless network.
    return strange(answer, "this is no answer of a tus server: it has no Upload-Offset")
  elseif offset > total or (length and number_of(length) ~= total) then
    local _, other = strange(answer, "the server has an upload of another length there")
    return nil, other, "anew"
  end
  return { offset = offset, complete = offset == total, expires = expiry_of(answer) }
end

--- Judges the answer to a PATCH.
---@param answer http.Response
---@param offset integer Where it began.
---@param length integer Bytes that it had.
---@param total integer
---@return http.UploadFact? fact
---@return cosocket.Error? err
---@return "anew"|"ask"|nil what
function tus.appended(answer, offset, length, total)
  local status = answer.status
  if status == 413 then
    local message = ("%s takes no request of %d bytes: set `chunk_size` below that"):format(answer.url, length)
    return nil, cosocket.error("limit", OP, message, { code = 413, response = answer })
  end
  local err = refusal_of(answer)
  if err then return nil, err, (status == 404 or status == 410) and "anew" or status == 409 and "ask" or nil end
  local now = number_of(answer.headers["Upload-Offset"])
  if not now or now <= offset or now > offset + length then
    local said = tostring(answer.headers["Upload-Offset"] or "nothing"):sub(1, WORDS_MAX)
    local _, other = strange(answer, ("%d bytes from %d on were sent, and the server's Upload-Offset is %s"):format(length, offset, said))
    return nil, other, "ask"
  end
  return { offset = now, complete = now == total, expires = expiry_of(answer) }
end

--- Whether the server verifies checksums by this algorithm, by its answer to OPTIONS.
---@param answer http.Response
---@param algorithm string
---@return true? ok
---@return cosocket.Error? err
function tus.verifies(answer, algorithm)
  local err = refusal_of(answer)
  if err then return nil, err end
  local function has(field, wanted)
    for word in (answer.headers[field] or ""):gmatch("[^,%s]+") do
      if word:lower() == wanted then return true end
    end
    return false
  end
  if not has("Tus-Extension", "checksum") then
    return strange(answer, "the server verifies no checksums (extension `checksum`): leave `chunk_checksum` out")
  elseif not has("Tus-Checksum-Algorithm", algorithm) then
    local known = tostring(answer.headers["Tus-Checksum-Algorithm"]):sub(1, WORDS_MAX)
    return strange(answer, ("the server verifies no checksums by %s, but by: %s"):format(algorithm, known))
  end
  return true
end

return tus
