--- The file by which an upload is found again after a restart: where it is, what of, and until when. It is written once
--- per upload, and has no credentials; but who knows the URL of an upload can often go on with it.

local cosocket = require("cosocket")
local json = require("json")

--- Bytes of the file.
local SIZE_MAX = 65536

---@class http.UploadState
---@field target string Digest of the URL that made the upload.
---@field source string Fingerprint of what is sent.
---@field upload string URL of the upload.
---@field expires integer? Seconds since 1970.

local state = {}

--- What a file says; `nil` for one that is not there, or is no such file.
---@param path string
---@return http.UploadState?
function state.load(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read(SIZE_MAX + 1)
  file:close()
  local said = text and #text <= SIZE_MAX and json.decode(text)
  if type(said) ~= "table" or type(said.target) ~= "string" or type(said.source) ~= "string" or type(said.upload) ~= "string" then
    return nil
  end
  if math.type(said.expires) ~= "integer" then said.expires = nil end
  return said
end

--- Writes one. It appears whole, or not at all.
---@param path string
---@param what http.UploadState
---@return true? ok
---@return cosocket.Error? err `io`
function state.save(path, what)
  local part = path .. ".new"
  local file, why, code = io.open(part, "wb")
  local ok = file ~= nil
  if file then
    ok, why, code = file:write((assert(json.encode(what))))
    local closed, reason, number = file:close()
    if ok and not closed then
      ok, why, code = nil, reason, number
    end
  end
  if ok then
    ok, why, code = os.rename(part, path)
  end
  if ok then return true end
  os.remove(part)
  return nil, cosocket.error("io", "http.upload", ("the state of the upload: %s"):format(tostring(why)), { code = code })
end

---@param path string
function state.remove(path)
  os.remove(path)
end

return state
