--- The envelope of a message (RFC 5321, 2.3.1): who gets it, who hears when it does not arrive, and what options of a call
--- say about that.

local address = require("smtp.address")
local cosocket = require("cosocket")
local dkim = require("smtp.dkim")
local fault = require("smtp.fault")

local broken = fault.broken

---@class smtp.SendOptions
---@field sender? string The return path, if it is not the message's `sender` or `from`; empty for none.
---@field recipients? (string|{address: string, notify?: string, orcpt?: string})[] Who gets it, if not `to`, `cc` and `bcc`.
---@field notify? string "NEVER", or of "SUCCESS", "FAILURE" and "DELAY" with commas: which reports are wanted (RFC 3461).
---@field ret? "FULL"|"HDRS" What a report returns.
---@field envid? string Comes back in a report.
---@field dkim? smtp.Dkim|smtp.Dkim[]|false Signs this message; `false` does not.
---@field reset? boolean Begin with RSET. Default `false`.

local SEND_OPTIONS = {
  sender = "string",
  recipients = "table",
  notify = "string",
  ret = "string",
  envid = "string",
  dkim = "table|boolean",
  reset = "boolean",
}
local RECIPIENT = { address = "string", notify = "string", orcpt = "string" }

local envelope = {}

---@param text string?
---@return boolean
local function is_notify(text)
  if text == nil or text == "NEVER" then return true end
  for word in (text .. ","):gmatch("([^,]*),") do
    if word ~= "SUCCESS" and word ~= "FAILURE" and word ~= "DELAY" then return false end
  end
  return true
end

--- Checks the options of a call; mistakes blame whoever called the function that calls this.
---@param options smtp.SendOptions?
---@return smtp.SendOptions
function envelope.check(options)
  options = cosocket.check_options("smtp.send", options, SEND_OPTIONS, 3)
  local function wrong(text) error("smtp.send: " .. text, 4) end
  local words = 'notify must be "NEVER", or of "SUCCESS", "FAILURE" and "DELAY" with commas'
  if not is_notify(options.notify) then wrong(words) end
  if options.ret and options.ret ~= "FULL" and options.ret ~= "HDRS" then wrong('ret must be "FULL" or "HDRS"') end
  if options.envid and not options.envid:find("^[ -~]+$") then wrong("envid must be printable ASCII") end
  for _, one in ipairs(options.recipients or {}) do
    if type(one) == "table" then
      cosocket.check_options("smtp.send", one, RECIPIENT, 3)
      if not is_notify(one.notify) then wrong(words) end
      if one.orcpt and not one.orcpt:find("^[ -~]+$") then wrong("orcpt must be printable ASCII") end
    end
  end
  if options.dkim == true then wrong("dkim must be a signer, a list of them, or false") end
  if options.dkim then dkim.check("smtp.send", options.dkim, 4) end
  return options
end

--- Who gets a message, and who hears when it does not arrive. Who stands in several fields gets it once.
---@param composed smtp.Composed
---@param options smtp.SendOptions
---@return smtp.Envelope? envelope
---@return cosocket.Error? err `protocol`
function envelope.of(composed, options)
  local sender, needs_utf8 = composed.sender, composed.smtputf8
  local err
  if options.sender == "" or options.sender == "<>" then
    sender = { address = "", ascii = "", smtputf8 = false }
  elseif options.sender then
    sender, err = address.parse(options.sender)
    if not sender then return broken("sender", err.message, err) end
  end
  if not sender then return broken("sender", "the message has no From, and no sender is given") end
  needs_utf8 = needs_utf8 or sender.smtputf8
  local list, seen = {}, {}
  local function add(one, notify, orcpt)
    -- Domains are the same in whatever letters; local parts are not.
    local key = (one.ascii or one.address):gsub("@[^@]*$", string.lower)
    if seen[key] then return end
    seen[key] = true
    needs_utf8 = needs_utf8 or one.smtputf8
    list[#list + 1] = { address = one.address, ascii = one.ascii, notify = notify or options.notify, orcpt = orcpt }
  end
  if options.recipients then
    for _, given in ipairs(options.recipients) do
      local one
      one, err = address.parse(type(given) == "table" and given.address or given)
      if not one then return broken("recipients", err.message, err) end
      add(one, type(given) == "table" and given.notify or nil, type(given) == "table" and given.orcpt or nil)
    end
  else
    for _, one in ipairs(composed.recipients) do add(one) end
  end
  if #list == 0 then return broken("to", "the message is for nobody: to, cc, bcc, or the option recipients") end
  return {
    sender = sender.address,
    sender_ascii = sender.ascii,
    recipients = list,
    size = composed.size,
    eight_bit = composed.eight_bit,
    smtputf8 = needs_utf8,
    ret = options.ret,
    envid = options.envid,
  }
end

return envelope
