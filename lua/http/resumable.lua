--- Files that go to a server and go on where they broke off: after failures, and in a later run of the program. The
--- server speaks tus 1.0.0 (`http.resumable.tus`), or the draft of the IETF (`http.resumable.ietf`); where the upload is, a
--- small file beside the source remembers.

local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local settings_of = require("http.resumable.options")
local sources = require("http.resumable.source")
local states = require("http.resumable.state")
local targets = require("http.target")
local transfer = require("http.transfer")
local tus = require("http.resumable.tus")
local ways = require("http.resumable.way")

--- Bytes of one request when its checksum is sent: it is read twice, and what comes damaged is sent again.
local CHUNK_SIZE = 8 * 1024 * 1024
--- Times that an upload is begun anew because the server has lost it.
local RENEWALS_MAX = 3
--- Seconds for telling the server that it can drop an upload.
local TERMINATE_TIMEOUT = 10

--- Seconds by which an upload has to last longer before that is written down.
local EXPIRY_STEP = 3600

local OP = "http.upload"

---@class http.Uploaded
---@field url string Of the upload.
---@field size integer
---@field checksum string? `"sha256:HEX"` of what was sent, when `checksum` asked for it.
---@field attempts integer Requests that it took.
---@field resumed integer Bytes that had not to be sent again.
---@field response http.Response The last.

local resumable = {}

--- One file on its way.
---@class http.Resumable
---@field private way http.UploadWay
---@field private key string Digest of the URL that makes uploads.
---@field private options http.UploadOptions
---@field private source http.Source
---@field private fingerprint string
---@field private protocol table What is said, and what answers mean.
---@field private metadata any As the protocol has it.
---@field private state string?
---@field private url string? Of the upload, once there is one.
---@field private offset integer? What the server has, while that is known.
---@field private confirmed integer The most the server has ever said to have of this upload.
---@field private resumed integer
---@field private complete boolean? The server has all of it, and knows that.
---@field private append_max integer? Bytes of one request, as the server limits them.
---@field private append_min integer?
---@field private expires integer? Seconds since 1970.
---@field private renewals integer How often it may be begun anew.
---@field private able true? The server verifies checksums.
---@field private algorithm crypto.Algorithm?
---@field private wanted string?
---@field private progress http.Progress
local Resumable = {}
Resumable.__index = Resumable

--- A URL without name and password.
---@param href string
---@return string
local function without_login(href)
  return (href:gsub("^(%w+://)[^/@]*@", "%1"))
end

--- Takes what an answer told.
---@private
---@param fact http.UploadFact
function Resumable:learn(fact)
  self.offset, self.complete = fact.offset, fact.complete
  self.append_max, self.append_min = fact.append_max or self.append_max, fact.append_min or self.append_min
  if fact.max_age then fact.expires = os.time() + fact.max_age end
  -- That it lasts longer now is worth to be known, but not to be written for each chunk; and nothing fails without.
  if fact.expires and math.abs(fact.expires - (self.expires or 0)) >= EXPIRY_STEP then
    self.expires = fact.expires
    if not fact.complete then self:remember() end
  end
end

-- What is remembered ------------------------------------------------------------

---@private
---@return true? ok
---@return cosocket.Error? err
function Resumable:remember()
  if not self.state or not self.url then return true end
  return states.save(self.state, { target = self.key, source = self.fingerprint, upload = self.url, expires = self.expires })
end

--- Nothing is to be found again any more.
---@private
function Resumable:forget()
  if self.state then states.remove(self.state) end
end

--- Takes up the upload of an earlier run, if it was of this source, and to this URL; or the one that is there already.
---@private
function Resumable:take_up()
  if self.options.created then
    self.url = without_login(self.way.target.href)
    return
  end
  if not self.state or self.options.resume == false then return end
  local said = states.load(self.state)
  if not said or said.target ~= self.key or said.source ~= self.fingerprint then return end
  if said.expires and said.expires <= os.time() then return end
  self.url, self.expires = said.upload, said.expires
end

--- Opens the source.
---@package
---@param given string|file*
---@return true? ok
---@return cosocket.Error? err
function Resumable:open(given)
  local source, err = sources.open(given)
  if not source then return nil, err end
  self.source = source
  self.fingerprint, err = source:fingerprint()
  if not self.fingerprint then return nil, err end
  if self.algorithm then source:hash(self.algorithm, self.wanted) end
  return true
end

-- The steps -------------------------------------------------------------------

--- Asks whether the server can do what is asked of it.
---@private
---@async
---@return true? ok
---@return cosocket.Error? err
function Resumable:enquire()
  local answer, err = self.way:send("OPTIONS", nil, tus.question())
  if not answer then return nil, err end
  self.able, err = tus.verifies(answer, self.options.chunk_checksum)
  return self.able, err
end

--- Bytes that one request may have, from `offset` on.
---@private
---@param offset integer
---@return integer
function Resumable:chunk(offset)
  local most = self.options.chunk_size or (self.options.chunk_checksum and CHUNK_SIZE) or math.maxinteger
  most = math.max(most, self.append_min or 1)
  if self.append_max then most = math.max(math.min(most, self.append_max), 1) end
  return math.min(most, self.source.size - offset)
end

--- A body, and the field with its checksum if that is wanted.
---@private
---@async
---@param offset integer
---@param length integer
---@param fields table<string, string> Changed.
---@return http.Upload? body
---@return cosocket.Error? err
function Resumable:body(offset, length, fields)
  local source = self.source
  local ok, err = source:unchanged()
  if ok then
    ok, err = source:catch_up(offset)
  end
  local algorithm = self.options.chunk_checksum
  if ok and algorithm then
    local digest
    digest, err = source:digest_of(algorithm, offset, offset + length)
    if digest then fields["Upload-Checksum"] = tus.checksum(algorithm, digest) end
    ok = digest ~= nil or nil
  end
  -- What completes an upload without a byte holds nothing back that could be looked at first.
  if ok and offset == source.size then
    ok, err = source:verify()
  end
  if not ok then return nil, err end
  return source:body(offset, offset + length, function(bytes, at) self.progress:tell(bytes, at, source.size) end)
end

--- Makes the upload (extension Creation).
---@private
---@async
---@return true? ok
---@return cosocket.Error? err
---@return string? what
function Resumable:create()
  local source, length, body, err = self.source, nil, nil, nil
  if self.options.creation_with_upload and source.size > 0 then length = self:chunk(0) end
  local fields = self.protocol.creation(source.size, self.metadata, length)
  if length then
    body, err = self:body(0, length, fields)
    if not body then return nil, err end
  end
  local answer
  answer, err = self.way:send("POST", nil, fields, body)
  if not answer then return nil, err end
  local fact
  fact, err = self.protocol.created(answer, source.size, length)
  if not fact then return nil, err end
  local to
  to, err = targets.of(fact.url, targets.of(answer.url).url)
  if not to then
    return nil, cosocket.error("protocol", OP, "the server's Location leads nowhere: " .. tostring(err))
  elseif self.way.target.secure and not to.secure then
    local message = ("%s sends the upload to %s, which is not encrypted: a server behind a proxy has to be told so"):format(self.way.target.origin, to.origin)
    return nil, cosocket.error("protocol", OP, message)
  end
  -- A name and password there would be the server's own idea, and are not to be remembered.
  self.url = without_login(to.href)
  self.offset, self.complete, self.confirmed = fact.offset, fact.complete, -1
  self.append_max, self.append_min = fact.append_max, fact.append_min
  self.expires = fact.max_age and os.time() + fact.max_age or fact.expires
  if self.complete then return true end
  local ok
  ok, err = self:remember()
  -- Beside a source that cannot be written to, it is enough to live without; where one asked for it, it is not.
  if not ok and self.options.state then return nil, err end
  return true
end

--- Asks how much the server has.
---@private
---@async
---@return true? ok
---@return cosocket.Error? err
---@return string? what
function Resumable:ask()
  local answer, err = self.way:send("HEAD", self.url --[[@as string]], self.protocol.question())
  if not answer then return nil, err end
  local fact, why, what = self.protocol.asked(answer, self.source.size)
  if not fact then return nil, why, what end
  self.resumed = math.max(self.resumed, fact.offset)
  self:learn(fact)
  return true
end

--- Sends what is missing, or a chunk of it.
---@private
---@async
---@return true? ok
---@return cosocket.Error? err
---@return string? what
function Resumable:append()
  local offset = self.offset --[[@as integer]]
  local length = self:chunk(offset)
  local fields = self.protocol.append(offset, length, self.source.size)
  local body, err = self:body(offset, length, fields)
  if not body then return nil, err end
  local answer
  answer, err = self.way:send("PATCH", self.url --[[@as string]], fields, body)
  if not answer then return nil, err end
  local fact, why, what = self.protocol.appended(answer, offset, length, self.source.size)
  if not fact then return nil, why, what end
  self:learn(fact)
  return true
end

--- Tells the server that nobody will go on with the upload (extension Termination).
---@private
---@async
---@return true? ok
---@return cosocket.Error? err
function Resumable:terminate()
  local answer, err = self.way:send("DELETE", self.url --[[@as string]], self.protocol.question())
  if not answer then return nil, err end
  if answer.status == 404 or answer.status == 410 then return true end
  local ok, why = answer:check()
  return ok and true, why
end

--- The server has all of it.
---@private
---@async
---@return http.Uploaded? uploaded
---@return cosocket.Error? err
function Resumable:finish()
  local source = self.source
  local ok, err = source:catch_up(source.size)
  if ok then
    ok, err = source:verify()
  end
  if not ok then
    -- An earlier run has sent all of it without looking: this one must not find that again.
    self:forget()
    return nil, err
  end
  self.progress:tell(0, source.size, source.size, true)
  if self.state then states.remove(self.state) end
  return {
    url = self.url,
    size = source.size,
    checksum = source:checksum(),
    attempts = self.way.requests,
    resumed = self.resumed,
    response = self.way.answer,
  }
end

--- One step towards the end.
---@private
---@async
---@return true? ok
---@return cosocket.Error? err
---@return string? what
function Resumable:step()
  if self.options.chunk_checksum and not self.able then return self:enquire() end
  if not self.url then return self:create() end
  if not self.offset then return self:ask() end
  return self:append()
end

---@private
---@async
---@return http.Uploaded? uploaded
---@return cosocket.Error? err
function Resumable:run()
  local patience, source, renewed = transfer.patience(self.options), self.source, 0
  -- Of nothing there is no last piece that could be held back.
  if source.size == 0 then
    local ok, err = source:verify()
    if not ok then return nil, err end
  end
  self:take_up()
  while not self.complete do
    local ok, err, what = self:step()
    if ok then
      if (self.offset or -1) > self.confirmed then
        self.confirmed = self.offset
        patience:reward()
      end
    else
      ---@cast err cosocket.Error
      local at_once = false
      if what == "anew" then
        renewed = renewed + 1
        if renewed > self.renewals or self.options.created then return nil, err end
        -- The state stays until there is another upload: perhaps it is only our credentials that have expired.
        self.url, self.expires, self.confirmed, self.resumed = nil, nil, -1, 0
        at_once = renewed == 1
      elseif what ~= "ask" and (err.op == OP or not transfer.passes(err, self.protocol.PASSING)) then
        -- What is there is of no use to anybody.
        if self.url and (err.code == "changed" or err.code == "checksum") then
          cosocket.deadline(TERMINATE_TIMEOUT, self.terminate, self)
          self:forget()
        end
        return nil, err
      end
      self.offset = nil
      if not at_once then
        if not patience:try() then return nil, err end
        local slept = patience:wait(err)
        if not slept then return nil, err end
      end
    end
  end
  return self:finish()
end

--- Ends the upload that an earlier run has left.
---@package
---@async
---@return boolean? abandoned
---@return cosocket.Error? err
function Resumable:abandon()
  if self.options.created then
    self.url = without_login(self.way.target.href)
  else
    local said = self.state and states.load(self.state)
    if not said or said.target ~= self.key then return false end
    self.url = said.upload
  end
  local ok, err = self:terminate()
  -- What the server will not end, ends by itself some day; what did not reach it can be said again.
  if ok or err.kind == "refused" and not transfer.passes(err, self.protocol.PASSING) then self:forget() end
  if not ok then return nil, err end
  return true
end

-- Making ----------------------------------------------------------------------

--- Takes together what both functions below are told.
---@param op string
---@param client http.Client
---@param address string
---@param given string|file*
---@param options table?
---@param level integer As of `error`, from the caller.
---@return http.Resumable? made
---@return cosocket.Error? err
local function new(op, client, address, given, options, level)
  local settings = settings_of.check(op, address, given, options, level + 1)
  local found, err = ways.new(op, client, address, settings.request)
  if not found then return nil, err end
  return setmetatable({
    way = found,
    -- The URL may have a password or a token in it, which is nobody's business.
    key = hex.encode(crypto.sha256((settings.own.protocol or "tus") .. " " .. found.target.href)),
    options = settings.own,
    protocol = settings.protocol,
    metadata = settings.metadata,
    state = settings.state,
    renewals = settings.own.renewals_max or RENEWALS_MAX,
    confirmed = -1,
    resumed = 0,
    progress = transfer.progress(settings.own),
    algorithm = settings.algorithm,
    wanted = settings.wanted,
  }, Resumable)
end

--- What has to be let go of whatever ends an upload.
---@param made http.Resumable
---@return table
local function holding(made)
  return setmetatable({}, {
    __close = function()
      if made.source then made.source:close() end
      made.way:close()
    end,
  })
end

--- `Client:upload`, and `http.upload`.
---@async
---@param client http.Client
---@param address string
---@param given string|file*
---@param options? http.UploadOptions|http.RequestOptions
---@return http.Uploaded? uploaded
---@return cosocket.Error? err
function resumable.upload(client, address, given, options)
  local made, err = new(OP, client, address, given, options, 2)
  if not made then return nil, err end
  local _ <close> = holding(made)
  local ok
  ok, err = made:open(given)
  if not ok then return nil, err end
  return made:run()
end

--- `Client:cancel_upload`, and `http.cancel_upload`.
---@async
---@param client http.Client
---@param address string
---@param given string
---@param options? http.UploadOptions|http.RequestOptions
---@return boolean? cancelled
---@return cosocket.Error? err
function resumable.cancel(client, address, given, options)
  local made, err = new("http.cancel_upload", client, address, given, options, 2)
  if not made then return nil, err end
  local _ <close> = holding(made)
  return made:abandon()
end

return resumable
