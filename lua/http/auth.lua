--- Credentials: Basic (RFC 7617), Bearer (RFC 6750) and Digest (RFC 7616), for servers and for proxies.

local base64 = require("base64")
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local url = require("url")

--- Challenges of one response that are looked at.
local CHALLENGES_MAX = 16

--- Best first. `hash` is a function of `crypto`.
local ALGORITHMS = {
  { name = "SHA-512-256-sess", hash = "sha512_256", session = true },
  { name = "SHA-512-256", hash = "sha512_256" },
  { name = "SHA-256-sess", hash = "sha256", session = true },
  { name = "SHA-256", hash = "sha256" },
  { name = "MD5-sess", hash = "md5", session = true },
  { name = "MD5", hash = "md5" },
}

---@class http.AuthOptions
---@field username? string
---@field password? string
---@field bearer? string A token (RFC 6750); instead of the two above.
---@field scheme? "basic"|"digest"|"any" `basic` (the default) is sent unasked; `digest` waits for a challenge and never sends the password; `any` waits and takes the best that is offered.

--- One part of a `WWW-Authenticate` field.
---@class http.Challenge
---@field scheme string In small letters.
---@field parameters table<string, string> By name in small letters.
---@field token string? What some schemes have instead.

---@class http.Auth
---@field private options http.AuthOptions
---@field private digest table? The challenge that was accepted, and what was counted since.
---@field private refused boolean? What was sent was not taken.
---@field private basic boolean?
local Auth = {}
Auth.__index = Auth
Auth.__name = "http.Auth"

local auth = {}

--- Takes the values of `WWW-Authenticate` fields apart (RFC 9110, 11.6.1).
---@param values string[]
---@return http.Challenge[]
function auth.parse(values)
  local challenges = {}
  for _, text in ipairs(values) do
    local at, current = 1, nil ---@type integer, http.Challenge?
    while at <= #text and #challenges <= CHALLENGES_MAX do
      at = text:find("[^%s,]", at)
      if not at then break end
      -- A parameter, or else the name of the next scheme.
      local name, stop = text:match("^([%w!#$%%&'*+.^_`|~-]+)%s*=%s*()", at)
      local quoted = stop and text:sub(stop, stop) == '"'
      -- `=` also pads a token, which then ends or goes on with `=`.
      if name and current and (quoted or text:match("^[%w!#$%%&'*+.^_`|~-]", stop)) then
        local value
        if quoted then
          local parts, from = {}, stop + 1
          while true do
            local piece, mark, after = text:match('^([^"\\]*)(["\\])()', from)
            if not piece then return challenges end
            parts[#parts + 1] = piece
            from = after
            if mark == '"' then break end
            parts[#parts + 1] = text:sub(after, after)
            from = after + 1
          end
          value, at = table.concat(parts), from
        else
          value, at = text:match("^([^%s,]+)()", stop)
        end
        local key = name:lower()
        if not current.parameters[key] then current.parameters[key] = value end
      else
        local scheme, after = text:match("^([%w!#$%%&'*+.^_`|~-]+)()", at)
        if not scheme then break end
        if current and not text:sub(1, at - 1):find(",%s*$") and not current.token and next(current.parameters) == nil then
          -- Behind a scheme, without a comma: its token.
          current.token, at = text:match("^([^%s,]+)()", at)
        else
          current = { scheme = scheme:lower(), parameters = {} }
          challenges[#challenges + 1] = current
          at = after
        end
      end
    end
  end
  return challenges
end

---@param options http.AuthOptions
---@param unasked? boolean Basic is sent unasked even by the scheme `any`.
---@return http.Auth
function auth.new(options, unasked)
  return setmetatable({ options = options, basic = unasked or (options.scheme or "basic") == "basic" }, Auth)
end

--- Whether both say the same, so that what was learnt with one serves the other.
---@param options http.AuthOptions
---@return boolean
function Auth:is_for(options)
  local mine = self.options
  return mine == options
    or mine.username == options.username
      and mine.password == options.password
      and mine.bearer == options.bearer
      and mine.scheme == options.scheme
end

---@param text string
---@return string
local function quote(text)
  return '"' .. text:gsub('[\\"]', "\\%0") .. '"'
end

---@private
---@param method string
---@param target string
---@param body? string
---@return string? header `nil` when the body has to be known and is not.
function Auth:answer_digest(method, target, body)
  local state, options = self.digest, self.options
  local algorithm, realm, nonce = state.algorithm, state.realm, state.nonce
  local function hash(...)
    return hex.encode(crypto[algorithm.hash](table.concat({ ... }, ":")))
  end
  local username, password = options.username or "", options.password or ""
  state.count = state.count + 1
  local cnonce, count = state.cnonce, ("%08x"):format(state.count)
  -- RFC 7616, 3.4.2
  local a1 = hash(username, realm, password)
  if algorithm.session then a1 = hash(a1, nonce, cnonce) end
  -- RFC 7616, 3.4.3
  local a2
  if state.qop == "auth-int" then
    if not body then return nil end
    a2 = hash(method, target, hash(body))
  else
    a2 = hash(method, target)
  end
  local response = state.qop and hash(a1, nonce, count, cnonce, state.qop, a2) or hash(a1, nonce, a2)
  local parts = {}
  local function add(name, value) parts[#parts + 1] = name .. "=" .. value end
  if state.userhash then
    add("username", quote(hash(username, realm)))
  elseif username:find("[^\32-\126]") then
    add("username*", "UTF-8''" .. url.encode(username))
  else
    add("username", quote(username))
  end
  add("realm", quote(realm))
  add("nonce", quote(nonce))
  add("uri", quote(target))
  add("response", quote(response))
  if state.named then add("algorithm", algorithm.name) end
  if state.opaque then add("opaque", quote(state.opaque)) end
  if state.qop then
    add("qop", state.qop)
    add("nc", count)
    add("cnonce", quote(cnonce))
  end
  if state.userhash then add("userhash", "true") end
  return "Digest " .. table.concat(parts, ", ")
end

--- The value of `Authorization` for a request, if there is anything to say yet.
---@param method string
---@param target string As in the request line.
---@param body? string For `qop=auth-int`.
---@return string?
function Auth:header(method, target, body)
  local options = self.options
  if options.bearer then return "Bearer " .. options.bearer end
  if self.digest then return self:answer_digest(method, target, body) end
  -- A user's name cannot have a colon (RFC 7617, 2); the client has checked that.
  if self.basic then return "Basic " .. base64.encode((options.username or "") .. ":" .. (options.password or "")) end
end

---@param challenge http.Challenge
---@param has_body boolean Whether a body is known, as `auth-int` needs.
---@return table? state
local function accept_digest(challenge, has_body)
  local given = challenge.parameters
  if not given.nonce or not given.realm then return nil end
  local wanted, algorithm = (given.algorithm or "MD5"):lower(), nil
  for rank, known in ipairs(ALGORITHMS) do
    if known.name:lower() == wanted then algorithm = { rank = rank, name = known.name, hash = known.hash, session = known.session } end
  end
  if not algorithm then return nil end
  local qop
  if given.qop then
    local offered = {}
    for word in given.qop:lower():gmatch("[^%s,]+") do offered[word] = true end
    qop = offered.auth and "auth" or offered["auth-int"] and has_body and "auth-int" or nil
    if not qop then return nil end
  elseif algorithm.session then
    -- Without qop there is no cnonce, which a session needs.
    return nil
  end
  local random = crypto.random_bytes(16)
  if not random then return nil end
  return {
    algorithm = algorithm,
    named = given.algorithm ~= nil,
    realm = given.realm,
    nonce = given.nonce,
    opaque = given.opaque,
    qop = qop,
    userhash = (given.userhash or ""):lower() == "true",
    stale = (given.stale or ""):lower() == "true",
    cnonce = hex.encode(random),
    count = 0,
  }
end

--- Takes the challenges of a 401 or 407.
---@param challenges http.Challenge[]
---@param has_body boolean
---@return boolean again Whether the request is worth sending again, with another `header`.
function Auth:challenge(challenges, has_body)
  local scheme = self.options.scheme or "basic"
  if self.options.bearer or scheme == "basic" then return false end
  local best, basic
  for _, challenge in ipairs(challenges) do
    if challenge.scheme == "digest" then
      local state = accept_digest(challenge, has_body)
      if state and (not best or state.algorithm.rank < best.algorithm.rank) then best = state end
    elseif challenge.scheme == "basic" then
      basic = true
    end
  end
  if best then
    local before = self.digest
    self.digest = best
    -- RFC 7616, 3.3: refused with a nonce that is not stale, user or password is wrong.
    return not before or best.stale or before.realm ~= best.realm or not before.tried
  end
  self.digest = nil
  if basic and scheme == "any" and not self.basic then
    self.basic = true
    return true
  end
  return false
end

--- Takes the fields of a challenge; forgets what was refused.
---@param fields string[] The values of `WWW-Authenticate` or `Proxy-Authenticate`.
---@param has_body boolean
---@return boolean again As `challenge`.
function Auth:challenged(fields, has_body)
  local again = self:challenge(auth.parse(fields), has_body)
  if not again then self:forget() end
  return again
end

--- Remembers that what `header` said went out: a challenge to it is a refusal.
function Auth:sent()
  if self.digest then self.digest.tried = true end
end

--- Forgets a refusal, so that the next request asks anew.
function Auth:forget()
  self.digest = nil
  if self.options.scheme == "any" then self.basic = false end
end

--- Takes the next nonce from `Authentication-Info` or `Proxy-Authentication-Info` (RFC 7616, 3.5).
---@param field string?
function Auth:info(field)
  local state = self.digest
  local nonce = state and field and field:match('nextnonce="([^"]+)"')
  if nonce then state.nonce, state.count = nonce, 0 end
end

--- Checks what a script gave as `auth`.
---@param op string
---@param options http.AuthOptions
---@param level integer
---@param name? string Of the option. Default "auth".
function auth.check(op, options, level, name)
  name = name or "auth"
  cosocket.check_options(op, options, { username = "string", password = "string", bearer = "string", scheme = "string" }, level)
  local scheme = options.scheme
  if scheme and scheme ~= "basic" and scheme ~= "digest" and scheme ~= "any" then
    error(("%s: %s.scheme must be \"basic\", \"digest\" or \"any\", not %q"):format(op, name, scheme), level)
  end
  if not options.bearer and not options.username then
    error(("%s: %s needs `username` and `password`, or `bearer`"):format(op, name), level)
  end
  if options.bearer and not options.bearer:find("^[%w%-._~+/]+=*$") then
    error(("%s: %s.bearer must be a token, without spaces or line ends"):format(op, name), level)
  end
  if options.username and scheme ~= "digest" and options.username:find(":", 1, true) then
    error(("%s: with Basic, %s.username must not have a colon"):format(op, name), level)
  end
end

return auth
