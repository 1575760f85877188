--- SASL mechanisms of a client (RFC 4422): a first response if there is one, and an answer to each challenge. Bytes in,
--- bytes out; the session puts them in base64 and on lines (RFC 4954).
---
--- A mechanism never tells its password: not in its errors, and not to a server that has not proved, where the
--- mechanism lets it, that it knows the password too.

local base64 = require("base64")
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local json = require("json")

--- Rounds of SCRAM that are too few to protect the password, RFC 7677, 4.
local ITERATIONS_MIN = 4096
--- Rounds of SCRAM beyond which a server only wants us to be busy.
local ITERATIONS_MAX = 200000
--- Bytes of what a server may say in one challenge.
local CHALLENGE_MAX = 8192

---@class smtp.Credentials
---@field username string?
---@field password string?
---@field token string? OAuth 2.0 access token.
---@field authorize_as string? Whom to act for, if it is not the user.
---@field host string? For OAUTHBEARER.
---@field port integer?
---@field iterations_max integer? Default 200000.
---@field nonce string? For tests; otherwise random.

---@class smtp.Mechanism
---@field name string
---@field initial string? The initial response.
---@field respond fun(challenge: string): string?, cosocket.Error?
---@field finish fun(): true?, cosocket.Error? The server says that we are in: has it proved itself?
---@field reason string? What a server said why it refuses (OAuth).

local sasl = {}

---@param message string
---@return nil
---@return cosocket.Error
local function broken(message)
  return nil, cosocket.error("protocol", "smtp.auth", message)
end

---@return true
local function accept() return true end

---@param name string
---@param text string
local function without_nul(name, text)
  if text:find("%z") then error(("auth: a %s cannot hold NUL"):format(name), 0) end
  return text
end

-- RFC 4616
local function plain(credentials)
  local sent = false
  local mechanism = { name = "PLAIN", finish = accept }
  mechanism.initial = table.concat({
    without_nul("name", credentials.authorize_as or ""),
    without_nul("name", credentials.username),
    without_nul("password", credentials.password),
  }, "\0")
  function mechanism.respond()
    -- Asked for again: to the empty challenge of a server that was sent no initial response.
    if sent then return broken("the server asks for more than PLAIN has to say") end
    sent = true
    return mechanism.initial
  end
  return mechanism
end

-- No standard; draft-murchison-sasl-login
local function login(credentials)
  local answers, at = { credentials.username, credentials.password }, 0
  return {
    name = "LOGIN",
    finish = accept,
    respond = function()
      at = at + 1
      if not answers[at] then return broken("the server asks for more than a name and a password") end
      return answers[at]
    end,
  }
end

-- RFC 2195
local function cram_md5(credentials)
  local answered = false
  return {
    name = "CRAM-MD5",
    finish = function()
      if not answered then return broken("the server let us in without a challenge") end
      return true
    end,
    respond = function(challenge)
      if answered then return broken("CRAM-MD5 has one challenge") end
      answered = true
      return credentials.username .. " " .. hex.encode(crypto.hmac("md5", credentials.password, challenge))
    end,
  }
end

---@param one string
---@param other string
---@return string
local function xor(one, other)
  local bytes = {}
  for i = 1, #one do bytes[i] = string.char(one:byte(i) ~ other:byte(i)) end
  return table.concat(bytes)
end

--- RFC 5802, 5.1: a name has no comma and no equals sign.
---@param name string
---@return string
local function saslname(name)
  return (name:gsub("[=,]", { ["="] = "=3D", [","] = "=2C" }))
end

--- SCRAM (RFC 5802, 7677) without channel binding. The server has to prove that it knows the password.
---@param name string
---@param algorithm "sha1"|"sha256"
local function scram(name, algorithm)
  return function(credentials)
    local nonce = credentials.nonce
    if not nonce then
      local bytes, err = crypto.random_bytes(24)
      if not bytes then return nil, err end
      nonce = base64.encode(bytes)
    end
    local header = "n," .. (credentials.authorize_as and "a=" .. saslname(credentials.authorize_as) or "") .. ","
    local first = "n=" .. saslname(without_nul("name", credentials.username)) .. ",r=" .. nonce
    local state, server_signature = "first", nil
    local mechanism = { name = name, initial = header .. first }

    local function server_first(challenge)
      local full, salt64, rounds = challenge:match("^r=([\33-\43\45-\126]+),s=([%w+/=]+),i=(%d+)")
      if not full then
        -- "m=" is an extension that a client must not pass over (5.1).
        return broken("the server's first SCRAM message is not one")
      end
      if full:sub(1, #nonce) ~= nonce or #full == #nonce then
        return broken("the server's nonce does not continue ours: somebody is between it and us, or it is broken")
      end
      local salt = base64.decode(salt64)
      if not salt then return broken("the salt is not base64") end
      local iterations = #rounds <= 9 and math.tointeger(tonumber(rounds)) or math.huge
      local most = credentials.iterations_max or ITERATIONS_MAX
      if iterations > most then
        local message = ("the server asks for more than %d rounds (iterations_max)"):format(most)
        return nil, cosocket.error("limit", "smtp.auth", message)
      elseif iterations < ITERATIONS_MIN then
        return broken(("the server asks for fewer than %d rounds, which would give the password away"):format(ITERATIONS_MIN))
      end
      local salted, err = crypto.pbkdf2(algorithm, credentials.password, salt, iterations)
      if not salted then return nil, err end
      local client_key = crypto.hmac(algorithm, salted, "Client Key")
      local without_proof = "c=" .. base64.encode(header) .. ",r=" .. full
      local auth_message = first .. "," .. challenge .. "," .. without_proof
      local signature = crypto.hmac(algorithm, crypto[algorithm](client_key), auth_message)
      local server_key = crypto.hmac(algorithm, salted, "Server Key")
      server_signature = crypto.hmac(algorithm, server_key, auth_message)
      state = "final"
      return without_proof .. ",p=" .. base64.encode(xor(client_key, signature))
    end

    local function server_final(challenge)
      local why = challenge:match("^e=([^,]+)")
      if why then
        return nil, cosocket.error("refused", "smtp.auth", ("the server refused the proof: %q"):format(why))
      end
      local given = challenge:match("^v=([%w+/=]+)")
      local verifier = given and base64.decode(given)
      if not verifier or not crypto.equal(verifier, server_signature) then
        return broken("the server does not know the password: its signature is wrong")
      end
      state = "done"
      return ""
    end

    function mechanism.respond(challenge)
      if state == "first" then
        -- A server that was sent no initial response asks for it.
        if challenge == "" then return mechanism.initial end
        return server_first(challenge)
      elseif state == "final" then
        return server_final(challenge)
      end
      return broken("the server asks for more than SCRAM has to say")
    end

    function mechanism.finish()
      if state ~= "done" then return broken("the server let us in without proving that it knows the password") end
      return true
    end

    return mechanism
  end
end

--- What a server that takes no token says about it, a small JSON object.
---@param challenge string
---@return string
local function oauth_reason(challenge)
  local told = json.decode(challenge)
  if type(told) == "table" and type(told.status) == "string" then return told.status:gsub("[%c]", "?"):sub(1, 200) end
  return "no reason given"
end

---@param name string
---@param initial string
---@param on_failure string What acknowledges a failure.
local function bearer(name, initial, on_failure)
  local sent = false
  local mechanism = { name = name, initial = initial, finish = accept }
  function mechanism.respond(challenge)
    if challenge == "" and not sent then
      sent = true
      return initial
    end
    if mechanism.reason then return broken("the server asks for more than a token") end
    mechanism.reason = oauth_reason(challenge)
    return on_failure
  end
  return mechanism
end

-- No standard; Google's and Microsoft's documentation
local function xoauth2(credentials)
  return bearer("XOAUTH2", ("user=%s\1auth=Bearer %s\1\1"):format(credentials.username, credentials.token), "")
end

-- RFC 7628
local function oauthbearer(credentials)
  local parts = {
    ("n,a=%s,"):format(saslname(credentials.username or "")),
    credentials.host and "host=" .. credentials.host or nil,
  }
  if credentials.port then parts[#parts + 1] = "port=" .. credentials.port end
  parts[#parts + 1] = "auth=Bearer " .. credentials.token
  return bearer("OAUTHBEARER", table.concat(parts, "\1") .. "\1\1", "\1")
end

---@class smtp.MechanismKind
---@field name string
---@field secret "password"|"token"
---@field make fun(credentials: smtp.Credentials): smtp.Mechanism?, cosocket.Error?

--- Every mechanism, best first.
---@type smtp.MechanismKind[]
local KINDS = {
  { name = "OAUTHBEARER", secret = "token", make = oauthbearer },
  { name = "XOAUTH2", secret = "token", make = xoauth2 },
  { name = "SCRAM-SHA-256", secret = "password", make = scram("SCRAM-SHA-256", "sha256") },
  { name = "SCRAM-SHA-1", secret = "password", make = scram("SCRAM-SHA-1", "sha1") },
  { name = "CRAM-MD5", secret = "password", make = cram_md5 },
  { name = "PLAIN", secret = "password", make = plain },
  { name = "LOGIN", secret = "password", make = login },
}

sasl.CHALLENGE_MAX = CHALLENGE_MAX

--- The names of all mechanisms, best first.
---@type string[]
sasl.names = {}
for i, kind in ipairs(KINDS) do sasl.names[i] = kind.name end

--- Whether there is a mechanism of this name.
---@param name string
---@return boolean
function sasl.is_known(name)
  for _, kind in ipairs(KINDS) do
    if kind.name == name then return true end
  end
  return false
end

--- The mechanisms that the server offers, the credentials serve, and `allowed` lists (its order counts), best first.
---@param offered table<string, true>
---@param credentials smtp.Credentials
---@param allowed? string[]
---@return string[]
function sasl.suitable(offered, credentials, allowed)
  local fits, list = {}, {}
  for _, kind in ipairs(KINDS) do
    -- Only OAUTHBEARER can do without a name: the token has it.
    local named = credentials.username ~= nil or kind.name == "OAUTHBEARER"
    fits[kind.name] = offered[kind.name] and named and credentials[kind.secret] ~= nil
  end
  for _, name in ipairs(allowed or sasl.names) do
    if fits[name] then list[#list + 1] = name end
  end
  return list
end

--- Begins an exchange.
---@param name string
---@param credentials smtp.Credentials
---@return smtp.Mechanism? mechanism
---@return cosocket.Error? err
function sasl.new(name, credentials)
  for _, kind in ipairs(KINDS) do
    if kind.name == name then return kind.make(credentials) end
  end
  error(("auth: %q is not a mechanism; known: %s"):format(tostring(name), table.concat(sasl.names, ", ")), 2)
end

return sasl
