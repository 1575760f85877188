--- test.tus_peer: a server for uploads by tus 1.0.0, at the other end of a pair of streams. It takes what comes piece by
--- piece, and loses connections and uploads when a test says so.

local base64 = require("base64")
local cosocket = require("cosocket")
local crypto = require("crypto")
local peer = require("test.http_peer")

local tus_peer = {}

--- What is sent, unless a test has something else.
tus_peer.TEXT = crypto.sha256("log"):rep(9000) .. "the end"

---@class test.TusUpload
---@field length integer
---@field data string
---@field metadata string?

---@class test.TusRequest
---@field number integer
---@field method string
---@field target string
---@field headers http.Headers
---@field received integer Bytes of its body that came.

---@class test.TusPeer: test.HttpPeer
---@field requests test.TusRequest[]
---@field uploads table<string, test.TusUpload> By their paths.
---@field deleted string[] Paths of those that were ended.

---@class test.TusOptions
---@field cut? table<integer, integer> After how many bytes of its body the connection of the i-th PATCH ends.
---@field take? fun(length: integer): integer How many bytes of a PATCH are kept, and the others read in vain.
---@field answer? fun(request: test.TusRequest, server: test.TusPeer): string? What is answered instead, before the body is read; `"close"` ends the connection.
---@field on_piece? fun(upload: test.TusUpload)
---@field location? fun(path: string): string
---@field fields? fun(request: test.TusRequest): string Lines for every good answer.
---@field slow? boolean Answer byte by byte.
---@field ignores_creation_body? boolean

---@param status string
---@param fields? string
---@return string
function tus_peer.answer(status, fields)
  local length = status:find("^204") and "" or "Content-Length: 0\r\n"
  return ("HTTP/1.1 %s\r\nTus-Resumable: 1.0.0\r\n%s%s\r\n"):format(status, fields or "", length)
end

local answer = tus_peer.answer

---@param options? test.TusOptions
---@return test.TusPeer
function tus_peer.serve(options)
  options = options or {}
  local server, made = nil, 0

  --- Takes a body into an upload; whether it came whole.
  local function take(request, upload, reader, length)
    local keep = options.take and options.take(length) or length
    local cut = request.method == "PATCH" and options.cut and options.cut[server.counts.PATCH]
    local whole = {}
    while true do
      local piece, err = reader:read()
      if err then return false end
      if not piece then break end
      if cut then piece = piece:sub(1, cut - request.received) end
      request.received = request.received + #piece
      upload.data = upload.data .. piece:sub(1, math.max(keep, 0))
      keep = keep - #piece
      whole[#whole + 1] = piece
      if options.on_piece then options.on_piece(upload) end
      if cut and request.received >= cut then return false end
    end
    local wanted = request.headers["Upload-Checksum"]
    if wanted then
      local algorithm, sum = wanted:match("^(%S+) (%S+)$")
      if base64.encode(crypto[algorithm](table.concat(whole))) ~= sum then
        upload.data = upload.data:sub(1, #upload.data - request.received)
        return true, answer("460 Checksum Mismatch")
      end
    end
    return true
  end

  local function respond(request, reader)
    local length = request.length
    local fields = options.fields and options.fields(request) or ""
    if request.method == "OPTIONS" then
      return answer("204 No Content", "Tus-Extension: creation,checksum,termination\r\nTus-Checksum-Algorithm: md5,sha1,sha256,sha512\r\n")
    elseif request.method == "POST" then
      made = made + 1
      local path = ("/files/%d"):format(made)
      local upload = { length = tonumber(request.headers["Upload-Length"]), data = "", metadata = request.headers["Upload-Metadata"] }
      server.uploads[path] = upload
      if length > 0 then
        local ok, refusal = take(request, options.ignores_creation_body and { data = "" } or upload, reader, length)
        if not ok or refusal then return refusal end
        if not options.ignores_creation_body then fields = fields .. ("Upload-Offset: %d\r\n"):format(#upload.data) end
      end
      local location = options.location and options.location(path) or path
      return answer("201 Created", ("Location: %s\r\n%s"):format(location, fields))
    end
    local path = request.target:match("^[^?]*")
    local upload = server.uploads[path]
    if not upload then return answer("404 Not Found") end
    if request.method == "HEAD" then
      return answer("200 OK", ("Upload-Offset: %d\r\nUpload-Length: %d\r\nCache-Control: no-store\r\n%s"):format(#upload.data, upload.length, fields))
    elseif request.method == "DELETE" then
      server.uploads[path] = nil
      table.insert(server.deleted, path)
      return answer("204 No Content")
    end
    if tonumber(request.headers["Upload-Offset"]) ~= #upload.data then return answer("409 Conflict") end
    if request.headers["Content-Type"] ~= "application/offset+octet-stream" then return answer("415 Type") end
    local ok, refusal = take(request, upload, reader, length)
    if not ok then return nil end
    return refusal or answer("204 No Content", ("Upload-Offset: %d\r\n%s"):format(#upload.data, fields))
  end

  server = peer.respond(function(request, reader)
    request.received = 0
    local bytes = options.answer and options.answer(request, server)
    if bytes == "close" then return nil end
    bytes = bytes or respond(request, reader)
    -- What nobody wanted of a body.
    if bytes then reader:read_all() end
    if bytes and request.method == "HEAD" then bytes = bytes:gsub("\r\n\r\n.*$", "\r\n\r\n") end
    if not bytes or not options.slow then return bytes end
    for i = 1, #bytes do
      if not request.stream:write(bytes:sub(i, i)) or not request.stream:flush() then return nil end
      cosocket.sleep(0.001)
    end
    return false
  end) --[[@as test.TusPeer]]
  server.uploads, server.deleted = {}, {}
  return server
end

-- What tests have in common ------------------------------------------------------

---@param path string
---@param text string
function tus_peer.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

---@param path string
---@return string? text `nil` when there is no file.
function tus_peer.content(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

--- A file with the text, and something that removes what was left there.
---@param text? string
---@return string path
---@return table clean
function tus_peer.source_of(text)
  local path = os.tmpname()
  tus_peer.write(path, text or tus_peer.TEXT)
  return path, setmetatable({}, { __close = function()
    for _, ending in ipairs({ "", ".upload", ".upload.new", ".state" }) do os.remove(path .. ending) end
  end })
end

--- The methods of all requests, such as "POST PATCH".
---@param server test.TusPeer
---@return string
function tus_peer.methods(server)
  local all = {}
  for i, request in ipairs(server.requests) do all[i] = request.method end
  return table.concat(all, " ")
end

--- Fails unless the server has the text, in its only upload or the one that is named.
---@param server test.TusPeer
---@param text? string
---@param path? string
function tus_peer.arrived(server, text, path)
  local upload = server.uploads[path or "/files/1"]
  if not upload or upload.data ~= (text or tus_peer.TEXT) then error("the server has something else", 2) end
end

return tus_peer
