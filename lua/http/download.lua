--- Bodies that become files: they go on where they broke off, are checked, and appear under their name when they are
--- whole. Until then they are `PATH.part`; `PATH.part.info` says what of, so that a later run can go on, too.

local request_options = require("http.options")
local codec = require("http.codec")
local cosocket = require("cosocket")
local crypto = require("crypto")
local date = require("http.date")
local hex = require("hex")
local json = require("json")
local transfer = require("http.transfer")

--- Bytes of a part that are hashed at once.
local PIECE = 65536
--- Bytes of the file that says what a part is of.
local INFO_MAX = 65536

---@class http.SaveOptions: http.TransferOptions `resume` is by Range and If-Range.
---@field checksum? string `"sha256:HEX"`; also `md5`, `sha1` and `sha512`. A file that differs is not kept.
---@field size_max? integer Bytes at most. Default: no limit.

---@class http.Saved
---@field path string
---@field size integer
---@field checksum string? As it was asked for, and found.
---@field attempts integer Requests that it took.
---@field resumed integer Bytes that had not to be sent again.
---@field response http.Response The last.

local SAVE_OPTIONS = transfer.options({ checksum = "string", size_max = "integer" })

local download = {}

--- One file on its way.
---@class http.Download
---@field private client http.Client
---@field private url string
---@field private path string
---@field private part string
---@field private options http.SaveOptions
---@field private request http.RequestOptions
---@field private file file*?
---@field private done integer
---@field private total integer?
---@field private validator string? An entity tag or a date for If-Range.
---@field private digest crypto.Digest?
---@field private algorithm string?
---@field private wanted string?
---@field private resumed integer
---@field private progress http.Progress
local Download = {}
Download.__index = Download

-- The part --------------------------------------------------------------------

---@param why any
---@param code any
---@return nil
---@return cosocket.Error err
local function no_file(why, code)
  return nil, cosocket.error("io", "http.save", tostring(why), { code = code })
end

--- Forgets what came so far.
---@private
---@return true? ok
---@return cosocket.Error? err
function Download:restart()
  if self.file then self.file:close() end
  local file, why, code = io.open(self.part, "wb")
  self.file = file
  if not file then return no_file(why, code) end
  self.done, self.total, self.validator, self.resumed = 0, nil, nil, 0
  self.digest = self.algorithm and crypto.new_digest(self.algorithm) or nil
  os.remove(self.part .. ".info")
  return true
end

--- Takes up the part of an earlier run, if it can be told what it is of.
---@private
---@return boolean resumed
function Download:take_up()
  if self.options.resume == false then return false end
  local info = io.open(self.part .. ".info", "rb")
  if not info then return false end
  local said = json.decode(info:read(INFO_MAX) or "")
  info:close()
  if type(said) ~= "table" or said.url ~= self.url or type(said.validator) ~= "string" then return false end
  local file = io.open(self.part, "r+b")
  if not file then return false end
  local digest = self.algorithm and crypto.new_digest(self.algorithm) or nil
  local done = 0
  while true do
    local piece, why = file:read(PIECE)
    if not piece then
      if why then
        file:close()
        return false
      end
      break
    end
    done = done + #piece
    if digest then digest:update(piece) end
  end
  -- From reading to writing.
  file:seek("end")
  self.file, self.done, self.digest, self.validator = file, done, digest, said.validator
  self.total = math.type(said.total) == "integer" and said.total or nil
  self.resumed = done
  return true
end

--- Notes what the part is of.
---@private
function Download:note()
  if self.options.resume == false or not self.validator then return end
  local file = io.open(self.part .. ".info", "wb")
  if not file then return end
  file:write((assert(json.encode({ url = self.url, validator = self.validator, total = self.total }))))
  file:close()
end

-- One attempt -----------------------------------------------------------------

--- What a later request can be made conditional on (RFC 9110, 13.1.5): a strong entity tag, else a date that is as good
--- as one, because the file had not changed for a second when it was sent (8.8.2.2).
---@param headers http.Headers
---@return string?
local function validator_of(headers)
  local tag = headers.ETag
  if tag and not tag:find("^W/") then return tag end
  local modified = headers["Last-Modified"]
  local at, sent = date.parse(modified or ""), date.parse(headers.Date or "")
  return at and sent and sent > at and modified or nil
end

--- Fits an answer to what is there. `false` means that the next attempt begins anew.
---@private
---@param answer http.Response
---@return boolean? ready
---@return cosocket.Error? err
function Download:accept(answer)
  local status, headers = answer.status, answer.headers
  if status == 206 and self.done > 0 then
    local first, _, total = (headers["Content-Range"] or ""):match("^bytes (%d+)%-(%d+)/(%S+)$")
    -- RFC 9110, 15.3.7: what else a server sends cannot be put together with the part.
    local other = self.validator and self.validator:find('^"') and headers.ETag and headers.ETag ~= self.validator
    if other or tonumber(first) ~= self.done or (self.total and tonumber(total) and tonumber(total) ~= self.total) then
      local ok, err = self:restart()
      return ok and false, err
    end
    self.total = self.total or math.tointeger(tonumber(total))
    return true
  elseif status == 416 and self.done > 0 then
    -- Perhaps there is nothing more to come.
    local total = tonumber((headers["Content-Range"] or ""):match("^bytes %*/(%d+)$"))
    if total == self.done and (self.total or total) == total then
      self.total = total
      return true
    end
    local ok, err = self:restart()
    return ok and false, err
  elseif status == 200 then
    if self.done > 0 or not self.file then
      local ok, err = self:restart()
      if not ok then return nil, err end
    end
    self.total = not answer.decode and answer.length >= 0 and answer.length or nil
    self.validator = not answer.decode and validator_of(headers) or nil
    self:note()
    return true
  end
  local _, err = answer:check()
  err = err or cosocket.error("protocol", "http.save", ("status %d is no answer to this request"):format(status), { code = status })
  return nil, err
end

--- Writes a body to the part.
---@private
---@async
---@param answer http.Response
---@return true? ok
---@return cosocket.Error? err
function Download:write(answer)
  local file, size_max = self.file --[[@as file*]], self.options.size_max or math.huge
  if answer.status == 416 then
    answer:close()
    return true
  end
  if (self.total or 0) > size_max then
    answer:close()
    local message = ("the file has %d bytes, more than %d (size_max)"):format(self.total, size_max)
    return nil, cosocket.error("limit", "http.save", message)
  end
  while true do
    local piece, err = answer:read()
    if not piece then
      -- What came must be there when a later run takes it up.
      local ok, why, code = file:flush()
      if not ok then return no_file(why, code) end
      if err then return nil, err end
      return true
    end
    local ok, why = self:keep(piece)
    if not ok then
      answer:close()
      return nil, why
    end
  end
end

--- Appends to the part.
---@private
---@param piece string
---@return true? ok
---@return cosocket.Error? err
function Download:keep(piece)
  local done, size_max = self.done + #piece, self.options.size_max
  if size_max and done > size_max then
    return nil, cosocket.error("limit", "http.save", ("the file is larger than %d bytes (size_max)"):format(size_max))
  end
  local ok, why, code = self.file:write(piece)
  if not ok then return no_file(why, code) end
  if self.digest then self.digest:update(piece) end
  self.done = done
  self.progress:tell(#piece, done, self.total)
  return true
end

--- Asks for what is missing.
---@private
---@async
---@return http.Response? answer
---@return cosocket.Error? err
function Download:ask()
  local request = {}
  for name, value in pairs(self.request) do request[name] = value end
  request.stream, request.decompress = true, false
  local headers = codec.headers(self.request.headers)
  if self.done > 0 then
    headers:set("Range", ("bytes=%d-"):format(self.done))
    if self.validator then headers:set("If-Range", self.validator) end
  end
  headers:set("Accept-Encoding", "identity")
  request.headers = headers
  return self.client:get(self.url, request)
end

--- Whether what is there can be gone on with: it must be known to be of the same file, or be checked in the end.
---@private
---@return boolean
function Download:can_resume()
  return self.options.resume ~= false and self.done > 0 and (self.validator ~= nil or self.wanted ~= nil)
end

--- The part becomes the file, if it is the right one.
---@private
---@return true? ok
---@return cosocket.Error? err
function Download:finish()
  local ok, why, code = self.file:close()
  self.file = nil
  if not ok then return no_file(why, code) end
  if self.total and self.done ~= self.total then
    return nil, cosocket.error("closed", "http.save", ("%d of %d bytes came"):format(self.done, self.total))
  end
  if self.wanted then
    local found = hex.encode(self.digest:finish())
    if found ~= self.wanted then
      os.remove(self.part)
      os.remove(self.part .. ".info")
      local message = ("the file's %s is %s, not %s: it is not kept"):format(self.algorithm, found, self.wanted)
      return nil, cosocket.error("protocol", "http.save", message, { code = "checksum" })
    end
  end
  ok, why, code = os.rename(self.part, self.path)
  if not ok then return no_file(why, code) end
  os.remove(self.part .. ".info")
  return true
end

---@private
---@async
---@param answer http.Response?
---@return http.Saved? saved
---@return cosocket.Error? err
function Download:run(answer)
  local options = self.options
  local patience = transfer.patience(options)
  local attempts, failure = 0, nil
  self:take_up()
  if answer and self.done > 0 then
    -- Whoever asked has asked for all of it.
    answer:close()
    answer = nil
  end
  while true do
    local before = self.done
    local err
    attempts = attempts + 1
    if not answer then
      answer, err = self:ask()
    end
    if answer then
      local ready
      ready, err = self:accept(answer)
      if ready then
        local ok
        ok, err = self:write(answer)
        if ok and (not self.total or self.done == self.total) then
          self.progress:tell(0, self.done, self.total, true)
          ok, err = self:finish()
          if not ok then return nil, err end
          return {
            path = self.path,
            size = self.done,
            checksum = options.checksum,
            attempts = attempts,
            resumed = self.resumed,
            response = answer,
          }
        end
      end
      answer:close()
    end
    if err then
      failure = err
      if err.op == "http.save" or not transfer.passes(err) then return nil, err end
    end
    if self.done > before then patience:reward() end
    if not patience:try() then
      return nil, failure or cosocket.error("protocol", "http.save", "the server sends parts that do not fit together")
    end
    if self:can_resume() then
      self.resumed = math.max(self.resumed, self.done)
    elseif self.done > 0 then
      local ok, why = self:restart()
      if not ok then return nil, why end
    end
    answer = nil
    local ok, why = patience:wait(err)
    if not ok then return nil, failure or why end
  end
end

---@param op string
---@param client http.Client
---@param url string
---@param path string
---@param given table?
---@param level integer
---@return http.Download
local function new(op, client, url, path, given, level)
  if type(path) ~= "string" or path == "" then error(("%s: the path must be a string"):format(op), level + 1) end
  local options, request = request_options.split(op, given, SAVE_OPTIONS, level + 1)
  local algorithm, wanted
  if options.checksum then
    algorithm, wanted = transfer.checksum(op, options.checksum, level + 1)
  end
  return setmetatable({
    client = client,
    url = url,
    path = path,
    part = path .. ".part",
    options = options,
    request = request,
    done = 0,
    algorithm = algorithm,
    wanted = wanted,
    resumed = 0,
    progress = transfer.progress(options),
  }, Download)
end

--- Runs a download; whatever ends it, its file is closed.
---@async
---@param made http.Download
---@param answer http.Response?
---@return http.Saved? saved
---@return cosocket.Error? err
local function run(made, answer)
  local _ <close> = setmetatable({}, {
    __close = function()
      if made.file then made.file:close() end
    end,
  })
  return made:run(answer)
end

--- `Client:save`, and `http.save`.
---@async
---@param client http.Client
---@param url string
---@param path string
---@param options? http.SaveOptions|http.RequestOptions
---@return http.Saved? saved
---@return cosocket.Error? err
function download.save(client, url, path, options)
  return run(new("http.save", client, url, path, options, 2))
end

--- `Response:save`.
---@async
---@param answer http.Response
---@param path string
---@param options? http.SaveOptions
---@return http.Saved? saved
---@return cosocket.Error? err
function download.save_response(answer, path, options)
  local call, redirects = answer.call, answer.redirects
  -- What is missing is asked for where all of it was asked for, with what was said there: redirects lead on from there,
  -- and leave behind what is not for where they lead.
  local made = new("http.save", call.client, redirects and redirects[1] or answer.url, path, options, 2)
  for name, value in pairs(call.given or {}) do made.request[name] = value end
  -- The URL has it by now.
  made.request.query = nil
  if made.request.auth == nil then made.request.auth = call.credentials end
  if answer.body then
    -- It has come already.
    made.options.resume, made.options.attempts = false, 1
    local ok, err = made:restart()
    if ok then
      ok, err = made:keep(answer.body)
    end
    if ok then
      ok, err = made:finish()
    end
    if made.file then made.file:close() end
    if not ok then return nil, err end
    return { path = path, size = made.done, checksum = made.options.checksum, attempts = 1, resumed = 0, response = answer }
  end
  -- What is not GET is not asked for twice.
  if (call.first_method or answer.method) ~= "GET" then
    made.options.resume, made.options.attempts = false, 1
  end
  return run(made, answer)
end

return download
