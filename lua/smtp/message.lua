--- Messages (RFC 5322): from a table of fields to header fields and pieces of a body, and to an envelope.

local address = require("smtp.address")
local codec = require("smtp.codec")
local cosocket = require("cosocket")
local crypto = require("crypto")
local dkim = require("smtp.dkim")
local fault = require("smtp.fault")
local hex = require("hex")
local part = require("smtp.part")
local ready = require("smtp.ready")
local source = require("smtp.source")

local broken = fault.broken

---@alias smtp.Mailboxes string|{name?: string, address: string}|(string|{name?: string, address: string})[]

---@class smtp.Message
---@field from? smtp.Mailboxes
---@field sender? string|{name?: string, address: string} Who sends it for `from`; also the return path.
---@field to? smtp.Mailboxes
---@field cc? smtp.Mailboxes
---@field bcc? smtp.Mailboxes Get it, and are in no header.
---@field reply_to? smtp.Mailboxes
---@field subject? string
---@field date? number Seconds since 1970. Default: now.
---@field message_id? string Without brackets. Default: a random one.
---@field in_reply_to? string|string[] Message identifiers, without brackets.
---@field references? string|string[] Default: `in_reply_to`.
---@field text? string|smtp.Content
---@field html? string|smtp.Content
---@field alternatives? smtp.Content[] More forms of the text, each with its `type`, the best last.
---@field calendar? string|smtp.Content An invitation (RFC 6047); `method` is "REQUEST" unless it says otherwise.
---@field inline? smtp.Content[] What `html` shows by `cid:`.
---@field attachments? (string|smtp.Content)[] Files; a string is a path.
---@field headers? table<string, string>|{[1]: string, [2]: string}[] More header fields.
---@field priority? "high"|"normal"|"low"
---@field utf8? boolean Headers in UTF-8 (RFC 6532), for servers with SMTPUTF8. Default: when an address needs it.
---@field eml? string Instead of everything else: the path of a message that is ready.
---@field raw? string The same, as text.

local MAILBOXES = "string|table"
local FIELDS = {
  from = MAILBOXES,
  sender = MAILBOXES,
  to = MAILBOXES,
  cc = MAILBOXES,
  bcc = MAILBOXES,
  reply_to = MAILBOXES,
  subject = "string",
  date = "number",
  message_id = "string",
  in_reply_to = MAILBOXES,
  references = MAILBOXES,
  text = MAILBOXES,
  html = MAILBOXES,
  alternatives = "table",
  calendar = MAILBOXES,
  inline = "table",
  attachments = "table",
  headers = "table",
  priority = "string",
  utf8 = "boolean",
  eml = "string",
  raw = "string",
}

--- Header fields that a message's own fields make.
local OWN = {
  ["from"] = "from",
  ["sender"] = "sender",
  ["to"] = "to",
  ["cc"] = "cc",
  ["bcc"] = "bcc",
  ["reply-to"] = "reply_to",
  ["subject"] = "subject",
  ["date"] = "date",
  ["message-id"] = "message_id",
  ["in-reply-to"] = "in_reply_to",
  ["references"] = "references",
  ["mime-version"] = "text",
  ["content-type"] = "text",
  ["content-transfer-encoding"] = "text",
  ["content-disposition"] = "attachments",
  ["content-id"] = "inline",
  ["dkim-signature"] = "dkim",
}

local PRIORITIES = {
  -- RFC 2156, 5.3.6; X-Priority is what mail programs show.
  high = "X-Priority: 1\r\nImportance: high\r\nPriority: urgent\r\n",
  normal = "",
  low = "X-Priority: 5\r\nImportance: low\r\nPriority: non-urgent\r\n",
}

---@class smtp.Composed
---@field sender smtp.Address?
---@field recipients smtp.Address[]
---@field message_id string?
---@field size integer? Bytes of the whole message.
---@field eight_bit boolean
---@field smtputf8 boolean
---@field once string? What can be read only once.
---@field envelope smtp.Envelope? When it is known already.
---@field private pieces smtp.Piece[]
local Composed = {}
Composed.__index = Composed

--- A reader of the message as it is sent, but for dots.
---@return smtp.Reader
function Composed:reader()
  return source.reader(self.pieces)
end

local message = {}

--- The error of a field, which names it.
---@param field string
---@param err cosocket.Error
---@return nil
---@return cosocket.Error
local function in_field(field, err)
  return nil, cosocket.error(err.kind, "smtp.message", ("%s: %s"):format(field, err.message), { field = field, cause = err })
end

--- Who stands in a field.
---@param given smtp.Message
---@param field string
---@return smtp.Address[]
---@return cosocket.Error?
local function mailboxes(given, field)
  local value = given[field]
  if value == nil then return {} end
  local list, err = address.list(value)
  if not list then
    in_field(field, err)
    return nil, select(2, in_field(field, err))
  end
  return list
end

--- Message identifiers in their brackets (RFC 5322, 3.6.4).
---@param field string
---@param given string|string[]
---@return string?
---@return cosocket.Error?
local function identifiers(field, given)
  local words = {}
  for _, one in ipairs(type(given) == "table" and given or { given }) do
    if type(one) ~= "string" then return broken(field, "a message identifier is a string") end
    for word in one:gmatch("%S+") do
      local bare = word:match("^<(.*)>$") or word
      if not bare:find("^[%w!#$%%&'*+/=?^_`{|}~.@:%[%]-]+$") then
        return broken(field, ("%q is not a message identifier"):format(word))
      end
      words[#words + 1] = "<" .. bare .. ">"
    end
    if one:find("[\r\n%z]") then return broken(field, "CR, LF or NUL cannot be in a header") end
  end
  return table.concat(words, "\r\n ")
end

--- The date as headers have it, RFC 5322, 3.3.
---@param at number
---@return string
local function date(at)
  return os.date("!%a, %d %b %Y %H:%M:%S +0000", math.floor(at)) --[[@as string]]
end

--- The fields a script gave by their names.
---@param given smtp.Message
---@param utf8_headers boolean
---@return string?
---@return cosocket.Error?
local function custom(given, utf8_headers)
  local pairs_of, fields = {}, {}
  local headers = given.headers or {}
  if #headers > 0 then
    pairs_of = headers
  else
    for name, value in pairs(headers) do pairs_of[#pairs_of + 1] = { name, value } end
    table.sort(pairs_of, function(one, other) return tostring(one[1]) < tostring(other[1]) end)
  end
  for i, pair in ipairs(pairs_of) do
    local name, value = pair[1], pair[2]
    if type(name) ~= "string" or type(value) ~= "string" and type(value) ~= "number" then
      return broken("headers", "a header is a name and a text")
    end
    local own = OWN[name:lower()]
    if own then return broken("headers", ("%s is made from the message's field %s"):format(name, own)) end
    local field, err = codec.text_header(name, tostring(value), utf8_headers)
    if not field then return in_field("headers", err --[[@as cosocket.Error]]) end
    fields[i] = field
  end
  return table.concat(fields)
end

--- The body: mixed(alternative(text, related(html, inline), more), attachments), without what is not needed.
---@param given smtp.Message
---@param utf8_headers boolean
---@return smtp.Part?
---@return cosocket.Error?
local function body(given, utf8_headers)
  local function list_of(name) return given[name] or {} end
  local forms = {}
  local function add(what, one, kind)
    local made, err = part.text(what, part.check("smtp.send", what, one, "content", 6), kind, utf8_headers)
    forms[#forms + 1] = made
    return made, err
  end
  local made, err
  local is_alone = not given.html and not given.calendar and #list_of("alternatives") == 0
  if given.text or is_alone and #list_of("attachments") == 0 then
    made, err = add("text", given.text or "", "text/plain")
    if not made then return nil, err end
  end
  if given.html then
    made, err = add("html", given.html, "text/html")
    if not made then return nil, err end
    local related = { made }
    for i, one in ipairs(list_of("inline")) do
      local what = ("inline[%d]"):format(i)
      one = part.check("smtp.send", what, one, "path", 5)
      if not one.cid then return broken(what, "it needs a cid, by which html shows it") end
      made, err = part.file(what, one, "inline", utf8_headers)
      if not made then return nil, err end
      related[#related + 1] = made
    end
    if #related > 1 then
      made, err = part.multipart("related", related)
      if not made then return nil, err end
      forms[#forms] = made
    end
  elseif #list_of("inline") > 0 then
    return broken("inline", "there is no html that could show it")
  end
  for i, one in ipairs(list_of("alternatives")) do
    local what = ("alternatives[%d]"):format(i)
    if type(one) ~= "table" or not one.type then return broken(what, "it needs a type") end
    made, err = add(what, one, "text/plain")
    if not made then return nil, err end
  end
  if given.calendar then
    local one = part.check("smtp.send", "calendar", given.calendar, "content", 5)
    local copy = { method = "REQUEST" }
    for name, value in pairs(one) do copy[name] = value end
    made, err = add("calendar", copy, "text/calendar")
    if not made then return nil, err end
  end
  local whole = forms[1]
  if #forms > 1 then
    whole, err = part.multipart("alternative", forms)
    if not whole then return nil, err end
  end
  if #list_of("attachments") == 0 then return whole end
  local mixed = { whole }
  for i, one in ipairs(given.attachments) do
    local what = ("attachments[%d]"):format(i)
    made, err = part.file(what, part.check("smtp.send", what, one, "path", 5), "attachment", utf8_headers)
    if not made then return nil, err end
    mixed[#mixed + 1] = made
  end
  return part.multipart("mixed", mixed)
end

--- The header fields but for those of the body.
---@param given smtp.Message
---@param people table<string, smtp.Address[]>
---@param utf8_headers boolean
---@return string?
---@return string|cosocket.Error message_id
local function head(given, people, utf8_headers)
  local fields = {}
  local function add(field, err)
    fields[#fields + 1] = field
    return field, err
  end
  local function persons(name, field)
    local list = people[field]
    if #list == 0 then return true end
    local shown = {}
    for i, one in ipairs(list) do
      shown[i] = { name = one.name, address = not utf8_headers and one.ascii or one.address }
    end
    return add(codec.address_header(name, shown, utf8_headers))
  end
  local ok, err = add("Date: " .. date(given.date or os.time()) .. "\r\n")
  for _, pair in ipairs({ { "From", "from" }, { "Sender", "sender" }, { "Reply-To", "reply_to" }, { "To", "to" }, { "Cc", "cc" } }) do
    ok, err = persons(pair[1], pair[2])
    if not ok then return in_field(pair[2], err) end
  end
  if given.subject then
    ok, err = add(codec.text_header("Subject", given.subject, utf8_headers))
    if not ok then return in_field("subject", err) end
  end
  local identifier = given.message_id
  if not identifier then
    local random
    random, err = crypto.random_bytes(16)
    if not random then return nil, err end
    local from = people.from[1]
    local domain = from.ascii and from.ascii:match("@([^@%[%]]*)$") or codec.domain_to_ascii(from.domain) or "localhost"
    identifier = hex.encode(random) .. "@" .. domain
  end
  local written
  written, err = identifiers("message_id", identifier)
  if not written then return nil, err end
  add("Message-ID: " .. written .. "\r\n")
  if given.in_reply_to then
    written, err = identifiers("in_reply_to", given.in_reply_to)
    if not written then return nil, err end
    add("In-Reply-To: " .. written .. "\r\n")
  end
  if given.references or given.in_reply_to then
    written, err = identifiers("references", given.references or given.in_reply_to)
    if not written then return nil, err end
    add("References: " .. written .. "\r\n")
  end
  add(PRIORITIES[given.priority or "normal"])
  ok, err = add(custom(given, utf8_headers))
  if not ok then return nil, err end
  add("MIME-Version: 1.0\r\n")
  return table.concat(fields), (identifier:gsub("^<(.*)>$", "%1"))
end

--- Checks what can only be a mistake in a script.
---@param given smtp.Message
---@param level integer
function message.check(given, level)
  if type(given) ~= "table" then
    error(("smtp.send: the message must be a table, not a %s"):format(type(given)), level + 1)
  end
  cosocket.check_options("smtp.send", given, FIELDS, level + 1)
  if given.eml or given.raw then
    for name in pairs(given) do
      if name ~= "eml" and name ~= "raw" or given.eml and given.raw then
        error("smtp.send: a message that is ready (eml, raw) has no other fields", level + 1)
      end
    end
  end
  for _, name in ipairs({ "text", "html", "calendar" }) do
    if given[name] then part.check("smtp.send", name, given[name], "content", level + 1) end
  end
  for _, name in ipairs({ "inline", "alternatives", "attachments" }) do
    for i, one in ipairs(given[name] or {}) do
      local key = name == "alternatives" and "content" or "path"
      part.check("smtp.send", ("%s[%d]"):format(name, i), one, key, level + 1)
    end
  end
  if given.priority and not PRIORITIES[given.priority] then
    error('smtp.send: priority must be "high", "normal" or "low"', level + 1)
  end
end

--- Composes a message.
---@async
---@param given smtp.Message
---@param options? {dkim?: smtp.Dkim|smtp.Dkim[]}
---@return smtp.Composed? composed
---@return cosocket.Error? err `protocol` with the `field` that is wrong, `io` for a file that cannot be read
function message.compose(given, options)
  message.check(given, 4)
  local signers = options and options.dkim
  local composed, headers, err
  if given.eml or given.raw then
    composed, headers = ready.compose(given)
    if not composed then return nil, headers --[[@as cosocket.Error]] end
  else
    local people = {}
    for _, field in ipairs({ "from", "sender", "reply_to", "to", "cc", "bcc" }) do
      people[field], err = mailboxes(given, field)
      if err then return nil, err end
    end
    if #people.from == 0 then return broken("from", "a message needs somebody it is from") end
    if #people.sender > 1 then return broken("sender", "there is one sender at most") end
    -- RFC 5322, 3.6.2
    if #people.from > 1 and #people.sender == 0 then people.sender = { people.from[1] } end
    local recipients, needs_utf8 = {}, false
    for _, field in ipairs({ "from", "sender", "reply_to", "to", "cc", "bcc" }) do
      for _, one in ipairs(people[field]) do
        needs_utf8 = needs_utf8 or one.smtputf8
        if field == "to" or field == "cc" or field == "bcc" then recipients[#recipients + 1] = one end
      end
    end
    local utf8_headers = given.utf8 or needs_utf8
    local fields, identifier = head(given, people, utf8_headers)
    if not fields then return nil, identifier --[[@as cosocket.Error]] end
    local whole
    whole, err = body(given, utf8_headers)
    if not whole then return nil, err end
    headers = fields .. whole.headers
    local pieces = { "" }
    table.move(whole.pieces, 1, #whole.pieces, 2, pieces)
    -- A message is lines: one that has no line end gets it.
    if not whole.ends_line then
      local last = pieces[#pieces]
      if last ~= "" and last:sub(-2) ~= "\r\n" then
        pieces[#pieces + 1] = "\r\n"
        whole.size = whole.size + 2
      end
    end
    composed = {
      sender = people.sender[1] or people.from[1],
      recipients = recipients,
      message_id = identifier,
      eight_bit = whole.eight_bit,
      smtputf8 = utf8_headers,
      once = whole.once,
      pieces = pieces,
      body_size = whole.size,
    }
  end
  ---@cast headers string
  local pieces = composed.pieces
  if signers then
    if composed.once then
      return broken(composed.once, "DKIM reads a message twice, and a stream can be read only once; give path or content")
    end
    local hash = codec.body_hash()
    local reader <close> = source.reader(pieces)
    local piece = cosocket.buffer()
    while true do
      local more, why = reader:read(piece)
      if why then return nil, why end
      if not more then break end
      hash:update(piece)
      piece:clear()
    end
    local digest = hash:finish()
    local signed = {}
    for i, signer in ipairs(signers.domain and { signers } or signers) do
      signed[i], err = dkim.sign(headers, digest, signer, os.time())
      if not signed[i] then return nil, err end
    end
    headers = table.concat(signed) .. headers
  end
  pieces[1] = headers .. "\r\n"
  composed.size = composed.body_size and composed.body_size + #pieces[1]
  return setmetatable(composed, Composed)
end

return message
