--- Files of a folder, for `server:static`: types, validators, ranges, and no way out of the folder.

local condition = require("http.server.condition")
local cosocket = require("cosocket")
local date = require("http.date")
local files = require("http.file")
local log = require("log").new("http.server")
local media_type = require("http.media_type")

--- Bytes read at once: the disk blocks everybody for so long.
local PIECE = 65536

---@class http.StaticOptions
---@field index? string The file that stands for a folder. Default "index.html"; an empty text is none.
---@field max_age? number Seconds a client may keep a file without asking. Default: it asks each time.
---@field precompressed? boolean Sends `x.br`, `x.zst` or `x.gz` in place of `x` to those who understand it. Default `false`.
---@field hidden? boolean Serves files and folders whose names begin with a dot, too. Default: `.well-known` only.
---@field headers? table<string, string> More fields of each response.

local OPTIONS = {
  index = "string",
  max_age = "number",
  precompressed = "boolean",
  hidden = "boolean",
  headers = "table",
}

--- Endings of files that are compressed already, best first.
local CODINGS = { { name = "br", ending = ".br" }, { name = "zstd", ending = ".zst" }, { name = "gzip", ending = ".gz" } }

local static = {}

--- Whether a decoded path names something below the folder, plainly. The system would refuse the rest, too: but here it
--- is not even asked.
---@param path string
---@param hidden boolean?
---@return boolean
local function is_plain(path, hidden)
  if path:find("[%z\\]") or path:find("//", 1, true) or path:sub(1, 1) == "/" then return false end
  for segment in path:gmatch("[^/]+") do
    if segment == "." or segment == ".." then return false end
    if segment:sub(1, 1) == "." and not hidden and segment ~= ".well-known" then return false end
  end
  return true
end

--- Writes bytes `first` to `last` of a file.
---@async
---@param file http.File
---@param first integer
---@param last integer
---@param write http.Write
---@return true? ok
---@return cosocket.Error? err
local function copy(file, first, last, write)
  while first <= last do
    local piece, err = file:read(first, math.min(PIECE, last - first + 1))
    if not piece then return nil, err end
    if piece == "" then return nil, cosocket.error("io", "http.static", "the file has become shorter") end
    local ok, why = write(piece)
    if not ok then return nil, why end
    first = first + #piece
  end
  return true
end

--- The parts of a multipart/byteranges body (14.6): the text before each range, and the length of all.
---@param ranges http.Range[]
---@param size integer
---@param boundary string
---@param media string
---@return string[] texts One more than ranges: the last closes.
---@return integer length
local function parts(ranges, size, boundary, media)
  local texts, length = {}, 0
  for i, range in ipairs(ranges) do
    local text = ("%s--%s\r\nContent-Type: %s\r\nContent-Range: bytes %d-%d/%d\r\n\r\n"):format(
      i > 1 and "\r\n" or "", boundary, media, range.first, range.last, size)
    texts[i] = text
    length = length + #text + range.last - range.first + 1
  end
  local close = ("\r\n--%s--\r\n"):format(boundary)
  texts[#texts + 1] = close
  return texts, length + #close
end

--- Sends an open file, or what the request wants of it.
---@async
---@param request http.ServerRequest
---@param response http.ServerResponse
---@param file http.File
---@param headers table<string, string>
---@param media string
local function send(request, response, file, headers, media)
  local size, modified = file:size(), file:modified()
  local validators = {
    -- Two changes within a nanosecond would look like one.
    etag = ('"%x-%x%s"'):format(modified, size, headers["Content-Encoding"] and "-" .. headers["Content-Encoding"] or ""),
    modified = modified // 1000000000,
  }
  headers["ETag"] = validators.etag
  headers["Last-Modified"] = date.format(validators.modified)
  headers["Accept-Ranges"] = "bytes"
  local status = condition.check(request.method, request.headers, validators)
  if status == 304 then return response:send({ status = 304, headers = headers }) end
  if status then return response:error(status) end
  local ranges = condition.ranges(request.method, request.headers, validators, size)
  if not ranges then
    headers["Content-Type"] = media
    return response:send({
      status = 200,
      headers = headers,
      length = size,
      body = function(write) return nil, select(2, copy(file, 0, size - 1, write)) end,
    })
  end
  if not ranges[1] then
    return response:error(416, nil, { ["Content-Range"] = ("bytes */%d"):format(size) })
  end
  if not ranges[2] then
    local range = ranges[1]
    headers["Content-Type"] = media
    headers["Content-Range"] = ("bytes %d-%d/%d"):format(range.first, range.last, size)
    return response:send({
      status = 206,
      headers = headers,
      length = range.last - range.first + 1,
      body = function(write) return nil, select(2, copy(file, range.first, range.last, write)) end,
    })
  end
  local boundary = ("moonwire-%x-%x"):format(modified, math.random(0))
  local texts, length = parts(ranges, size, boundary, media)
  headers["Content-Type"] = "multipart/byteranges; boundary=" .. boundary
  return response:send({
    status = 206,
    headers = headers,
    length = length,
    body = function(write)
      for i, range in ipairs(ranges) do
        local ok, err = write(texts[i])
        if ok then ok, err = copy(file, range.first, range.last, write) end
        if not ok then return nil, err end
      end
      write(texts[#texts])
    end,
  })
end

--- Opens the file, or one that is compressed already.
---@param folder string
---@param path string
---@param request http.ServerRequest
---@param options http.StaticOptions
---@return http.File? file
---@return string|cosocket.Error coding Empty: none.
local function open(folder, path, request, options)
  if options.precompressed then
    for _, coding in ipairs(CODINGS) do
      if condition.accepts_coding(request.headers, coding.name) > 0 then
        local file = files.open(folder, path .. coding.ending)
        if file then return file, coding.name end
      end
    end
  end
  local file, err = files.open(folder, path)
  if not file then return nil, err --[[@as cosocket.Error]] end
  return file, ""
end

--- A handler for `/prefix/*file`; raises for wrong options.
---@param folder string
---@param options? http.StaticOptions
---@return http.Handler
function static.handler(folder, options)
  if type(folder) ~= "string" then error(("static: the folder must be a string, not a %s"):format(type(folder)), 3) end
  options = cosocket.check_options("http.server:static", options, OPTIONS, 3)
  local index = options.index or "index.html"
  -- It may come later, with a card that is put in; but mostly it was meant to be somewhere else.
  local there, why = io.open(folder)
  if there then there:close() else log.warn(("static: files are not there (yet): %s"):format(why)) end
  return function(request, response)
    local path = request.params.file
    if not is_plain(path, options.hidden) then return response:error(404) end
    local wants_folder = path == "" or path:sub(-1) == "/"
    if wants_folder then
      if index == "" then return response:error(404) end
      path = path .. index
    end
    local file, coding = open(folder, path, request, options)
    if not file then
      local code = coding --[[@as cosocket.Error]].code
      if code == "EISDIR" and index ~= "" then
        local query = request.query_string and "?" .. request.query_string or ""
        -- A path that begins with two slashes would be another host.
        return response:redirect((request.path:gsub("^/+", "/")) .. "/" .. query, 301)
      end
      return response:error(404)
    end
    local opened <close> = file
    local headers = {}
    for name, value in pairs(options.headers or {}) do headers[name] = value end
    headers["Cache-Control"] = options.max_age and ("max-age=%d"):format(options.max_age // 1) or "no-cache"
    if options.precompressed then headers["Vary"] = "Accept-Encoding" end
    if coding ~= "" then headers["Content-Encoding"] = coding --[[@as string]] end
    return send(request, response, opened, headers, media_type.of(path))
  end
end

return static
