--- DKIM signatures (RFC 6376; RFC 8463 for Ed25519), relaxed canonicalisation of headers and body.

local base64 = require("base64")
local codec = require("smtp.codec")
local cosocket = require("cosocket")

--- Which fields are signed when they are there, RFC 6376, 5.4.1.
local FIELDS = {
  "from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references",
  "mime-version", "content-type", "content-transfer-encoding", "content-disposition",
  "list-unsubscribe", "list-unsubscribe-post",
}

---@class smtp.Dkim
---@field domain string Whose key it is: `d=`.
---@field selector string Where the DNS has it: `SELECTOR._domainkey.DOMAIN`.
---@field key string The private key: PEM text, or a file's path. RSA from 2048 bits on, or Ed25519.
---@field headers? string[] Which fields are signed, if they are there. Default: those a reader sees. From is always.

local OPTIONS = { domain = "string", selector = "string", key = "string", headers = "table" }

local dkim = {}

--- Keys that were read, by what was given for them.
---@type table<string, smtp.codec.DkimKey>
local keys = setmetatable({}, { __mode = "v" })

--- Checks what was given for `dkim`: one or a list of signers. Mistakes blame the caller of `level`.
---@param op string
---@param given smtp.Dkim|smtp.Dkim[]
---@param level integer
function dkim.check(op, given, level)
  for _, one in ipairs(given[1] ~= nil and given or { given }) do
    cosocket.check_options(op, one, OPTIONS, level)
    for _, name in ipairs({ "domain", "selector", "key" }) do
      if not one[name] then error(("%s: dkim needs %s"):format(op, name), level) end
    end
    if not one.domain:find("^[%w.-]+$") or not one.selector:find("^[%w._-]+$") then
      error(op .. ": dkim: domain and selector are names of the DNS", level)
    end
  end
end

---@param text string PEM or a path.
---@return smtp.codec.DkimKey?
---@return cosocket.Error?
local function key_of(text)
  local key = keys[text]
  if key then return key end
  local pem = text
  if not text:find("-----BEGIN", 1, true) then
    local file, why, code = io.open(text, "rb")
    if not file then
      return nil, cosocket.error("io", "smtp.dkim", ("the key cannot be read: %s"):format(why), { code = code })
    end
    pem = file:read(65536) or ""
    file:close()
  end
  local err
  key, err = codec.dkim_key(pem)
  keys[text] = key
  return key, err
end

--- The fields of a header block, in their order, each with its CRLF.
---@param headers string
---@return {name: string, text: string}[]
local function fields_of(headers)
  local fields = {}
  for line in headers:gmatch("[^\n]*\n") do
    local last = fields[#fields]
    if line:find("^[ \t]") and last then
      last.text = last.text .. line
    else
      local name = line:match("^([^:%s]+)[ \t]*:")
      if name then fields[#fields + 1] = { name = name:lower(), text = line } end
    end
  end
  return fields
end

--- Signs a message.
---@param headers string Its header fields as they are sent.
---@param body_hash string
---@param signer smtp.Dkim
---@param at integer Seconds since 1970.
---@return string? field The `DKIM-Signature` field, with its CRLF.
---@return cosocket.Error? err `io`, `protocol`
function dkim.sign(headers, body_hash, signer, at)
  local key, err = key_of(signer.key)
  if not key then return nil, err end
  local fields = fields_of(headers)
  local names, canonical, used = {}, {}, {}
  local wanted = { "from" }
  for _, name in ipairs(signer.headers or FIELDS) do
    if name:lower() ~= "from" then wanted[#wanted + 1] = name:lower() end
  end
  for _, name in ipairs(wanted) do
    -- Section 5.4.2: of several of one name, the last first.
    for i = #fields, 1, -1 do
      if fields[i].name == name and not used[i] then
        used[i] = true
        names[#names + 1] = name
        local text
        text, err = codec.relaxed_field(fields[i].text)
        if not text then return nil, err end
        canonical[#canonical + 1] = text .. "\r\n"
      end
    end
  end
  -- Section 8.15: one From more than there is, so that none can be added.
  names[#names + 1] = "from"
  local lines, line = {}, "\th="
  for i, name in ipairs(names) do
    local word = name .. (i < #names and ":" or ";")
    if #line + #word > 76 then
      lines[#lines + 1] = line .. "\r\n"
      line = "\t "
    end
    line = line .. word
  end
  lines[#lines + 1] = line .. "\r\n"
  local field = ("DKIM-Signature: v=1; a=%s; c=relaxed/relaxed; t=%d;\r\n\td=%s; s=%s;\r\n%s\tbh=%s;\r\n\tb="):format(
    key:algorithm(), at, signer.domain, signer.selector, table.concat(lines), base64.encode(body_hash)
  )
  local own
  own, err = codec.relaxed_field(field)
  if not own then return nil, err end
  local signature
  signature, err = key:sign(table.concat(canonical) .. own)
  if not signature then return nil, err end
  local folded = base64.encode(signature):gsub(("."):rep(70), "%0\r\n\t ")
  return field .. folded:gsub("\r\n\t $", "") .. "\r\n"
end

return dkim
