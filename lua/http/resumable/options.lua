--- What an upload may be told, checked.

local request_options = require("http.options")
local transfer = require("http.transfer")
local ietf = require("http.resumable.ietf")
local tus = require("http.resumable.tus")
local uploads = require("http.upload")

---@class http.UploadOptions: http.TransferOptions
---@field protocol? "tus"|"ietf" tus 1.0.0, or the draft of Resumable Uploads for HTTP (version 12), which may still change. Default `"tus"`.
---@field state? string Path of the file that remembers where the upload is. Default: the source's path and `.upload`; for an open file: none.
---@field chunk_size? integer Bytes of one request, for servers that limit them. Default: all in one; with `chunk_checksum` 8 MiB.
---@field checksum? string `"sha256"`: hash what is sent; `"sha256:HEX"`: and send it to its end only if it is that. Also `md5`, `sha1` and `sha512`.
---@field chunk_checksum? string Have the server verify each request's bytes: `"sha1"`, or `md5`, `sha256`, `sha512`. A server that cannot is refused. tus only.
---@field metadata? table<string, string>|false Told when the upload is made; `filename` and `filetype` are added where they are missing. `false`: nothing is told. `ietf` has no others.
---@field creation_with_upload? boolean Send the first bytes with the request that makes the upload: for small files. If that request breaks off, they are lost. Default `false`.
---@field created? boolean The URL is that of an upload that somebody has made already, such as the device's own server. Default `false`: uploads are made there.
---@field renewals_max? integer How often it is begun anew when the server has lost or dropped it. Default 3.

local UPLOAD_OPTIONS = transfer.options({
  protocol = "string",
  state = "string",
  chunk_size = "integer",
  checksum = "string",
  chunk_checksum = "string",
  metadata = "table|boolean",
  creation_with_upload = "boolean",
  created = "boolean",
  renewals_max = "integer",
})
--- Options of requests that say what is sent, which is the source.
local NOT_OURS = { "body", "length", "json", "form", "multipart", "trailers", "compress", "stream" }

local options = {}

---@class http.UploadSettings
---@field own http.UploadOptions
---@field request http.RequestOptions
---@field state string? Path of the state.
---@field protocol table
---@field metadata any As the protocol has it.
---@field algorithm crypto.Algorithm?
---@field wanted string? Hex.

--- Takes the arguments of an upload apart; raises for those that are wrong.
---@param op string
---@param address any
---@param source any
---@param given table?
---@param level integer As of `error`, from the caller.
---@return http.UploadSettings
function options.check(op, address, source, given, level)
  level = level + 1
  local path = type(source) == "string" and source ~= "" and source or nil
  if not path and io.type(source) ~= "file" then request_options.wrong(op, "the source must be a path or an open file", level) end
  if type(address) ~= "string" then request_options.wrong(op, ("the URL must be a string, not a %s"):format(type(address)), level) end
  local own, request = request_options.split(op, given, UPLOAD_OPTIONS, level)
  for _, name in ipairs(NOT_OURS) do
    if request[name] ~= nil then request_options.wrong(op, ("`%s` cannot be said of an upload: its source is sent"):format(name), level) end
  end
  local protocol = ({ tus = tus, ietf = ietf })[own.protocol or "tus"]
  if not protocol then request_options.wrong(op, "protocol must be tus or ietf", level) end
  if own.chunk_checksum and protocol ~= tus then request_options.wrong(op, "chunk_checksum is an extension of tus", level) end
  if own.chunk_size and own.chunk_size < 1 then request_options.wrong(op, "chunk_size must be 1 or more", level) end
  if own.chunk_checksum and not tus.ALGORITHMS[own.chunk_checksum] then
    request_options.wrong(op, "chunk_checksum must be sha1, md5, sha256 or sha512", level)
  end
  if own.created then
    -- What would be told when the upload is made.
    for _, name in ipairs({ "metadata", "creation_with_upload", "query" }) do
      if own[name] or request[name] then request_options.wrong(op, ("`%s` cannot be said of an upload that is `created`"):format(name), level) end
    end
  end
  if own.metadata == true then request_options.wrong(op, "metadata must be a table or false", level) end
  local metadata, algorithm, wanted
  if own.metadata ~= false then
    local all, name = {}, path and path:match("[^/]*$")
    if name and name ~= "" then all.filename, all.filetype = name, uploads.type_of(name) end
    for key, value in pairs(own.metadata or {}) do all[key] = value end
    local wrong
    metadata, wrong = protocol.metadata(all)
    if wrong then request_options.wrong(op, "metadata: " .. wrong, level) end
  end
  if own.checksum and tus.ALGORITHMS[own.checksum] then
    algorithm = own.checksum
  elseif own.checksum then
    algorithm, wanted = transfer.checksum(op, own.checksum, level)
  end
  return {
    own = own,
    request = request,
    protocol = protocol,
    -- An upload that somebody else has made is found again by its URL.
    state = not own.created and (own.state or path and path .. ".upload") or nil,
    metadata = metadata,
    algorithm = algorithm --[[@as crypto.Algorithm?]],
    wanted = wanted,
  }
end

return options
