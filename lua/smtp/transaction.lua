--- One message on its way (RFC 5321, 3.3): the lines that announce it, and what became of each recipient.

local cosocket = require("cosocket")
local reply = require("smtp.reply")

--- Bytes of a recipient's or a sender's line; extensions make the 512 of RFC 5321, 4.5.3.1.4 longer.
local LINE_MAX = 2048

---@class smtp.Recipient
---@field address string As it is written, the domain too.
---@field ascii string? With the domain of the DNS.
---@field notify string? "NEVER", or of "SUCCESS", "FAILURE", "DELAY" with commas (RFC 3461, 4.1).
---@field orcpt string? The original recipient (RFC 3461, 4.2).

---@class smtp.Envelope
---@field sender string The return path; empty for none.
---@field sender_ascii string? The same with the domain of the DNS.
---@field recipients smtp.Recipient[]
---@field size integer? Bytes, as RFC 1870, 3 counts them.
---@field eight_bit boolean? The message has bytes beyond 127.
---@field smtputf8 boolean? Its headers or addresses are UTF-8.
---@field ret "FULL"|"HDRS"|nil What a report returns (RFC 3461, 4.3).
---@field envid string? (RFC 3461, 4.4)
---@field quit boolean? Nothing comes behind this message: QUIT may go with it.

---@class smtp.Refused
---@field address string
---@field code integer
---@field status string?
---@field text string
---@field retry boolean It may go well later.

---@class smtp.Result
---@field accepted string[]
---@field refused smtp.Refused[]
---@field code integer The server's last reply.
---@field status string?
---@field text string Its words, often with the name of the message in its queue.

---@class smtp.Transaction
---@field envelope smtp.Envelope
---@field extensions table<string, string>
---@field accepted string[]
---@field refused smtp.Refused[]
---@field failure cosocket.Error? Why it comes to nothing.
---@field ended boolean Everything of the message has been sent.
---@field private at integer Recipients whose reply has come.
local Transaction = {}
Transaction.__index = Transaction

local transaction = {}

--- RFC 3461, 4: printable ASCII, but for + and =.
---@param text string
---@return string
local function xtext(text)
  return (text:gsub("[^!-*,-<>-~]", function(byte) return ("+%02X"):format(byte:byte()) end))
end

---@param message string
---@param code integer
---@param status string
---@return nil
---@return cosocket.Error
local function refuse(message, code, status)
  return nil, cosocket.error("refused", "smtp.send", message, { code = code, status = status, reason = message, retry = false })
end

--- Begins; what the server cannot take is refused here, with the code it would have used.
---@param envelope smtp.Envelope
---@param extensions table<string, string>
---@return smtp.Transaction?
---@return cosocket.Error?
function transaction.new(envelope, extensions)
  local size_max = tonumber(extensions.SIZE)
  if envelope.size and size_max and size_max > 0 and envelope.size > size_max then
    local message = ("the message has %d bytes, and the server takes at most %d"):format(envelope.size, size_max)
    return refuse(message, 552, "5.3.4")
  elseif envelope.smtputf8 and not extensions.SMTPUTF8 then
    return refuse("an address or header is not ASCII, and the server does not know SMTPUTF8", 553, "5.6.7")
  elseif envelope.eight_bit and not extensions["8BITMIME"] then
    return refuse("the message has 8-bit lines, and the server does not know 8BITMIME", 554, "5.6.3")
  elseif not extensions.DSN then
    -- RFC 3461, 4: to a server without it, none of its parameters may be sent.
    local wanted = envelope.ret or envelope.envid
    for _, recipient in ipairs(envelope.recipients) do wanted = wanted or recipient.notify or recipient.orcpt end
    if wanted then return refuse("reports are asked for, and the server does not know DSN", 555, "5.5.4") end
  end
  return setmetatable({
    envelope = envelope,
    extensions = extensions,
    accepted = {},
    refused = {},
    ended = false,
    at = 0,
  }, Transaction)
end

--- The path of an address as this transaction writes it.
---@private
---@param address string
---@param ascii string?
---@return string
function Transaction:path(address, ascii)
  return "<" .. (not self.envelope.smtputf8 and ascii or address) .. ">"
end

---@param line string
---@return string
local function checked(line)
  -- Addresses and parameters have been checked where they came from; nothing may ever end a command early.
  if line:find("[\r\n%z]") or #line > LINE_MAX then error("a command that is no line", 0) end
  return line .. "\r\n"
end

---@return string
function Transaction:mail()
  local envelope, extensions = self.envelope, self.extensions
  local parts = { "MAIL FROM:" .. self:path(envelope.sender, envelope.sender_ascii) }
  if envelope.size and extensions.SIZE then parts[#parts + 1] = ("SIZE=%d"):format(envelope.size) end
  if envelope.eight_bit or envelope.smtputf8 and extensions["8BITMIME"] then parts[#parts + 1] = "BODY=8BITMIME" end
  if envelope.smtputf8 then parts[#parts + 1] = "SMTPUTF8" end
  if envelope.ret then parts[#parts + 1] = "RET=" .. envelope.ret end
  if envelope.envid then parts[#parts + 1] = "ENVID=" .. xtext(envelope.envid) end
  return checked(table.concat(parts, " "))
end

---@param index integer
---@return string
function Transaction:rcpt(index)
  local recipient = self.envelope.recipients[index]
  local parts = { "RCPT TO:" .. self:path(recipient.address, recipient.ascii) }
  if recipient.notify then parts[#parts + 1] = "NOTIFY=" .. recipient.notify end
  if recipient.orcpt then parts[#parts + 1] = "ORCPT=rfc822;" .. xtext(recipient.orcpt) end
  return checked(table.concat(parts, " "))
end

---@param answer smtp.Reply
function Transaction:on_mail(answer)
  if answer.code // 100 ~= 2 then
    self.failure = reply.refusal("smtp.send", "the sender", answer)
  end
end

--- The next recipient's reply.
---@param answer smtp.Reply
function Transaction:on_rcpt(answer)
  self.at = self.at + 1
  local address = self.envelope.recipients[self.at].address
  if answer.code // 100 == 2 then
    self.accepted[#self.accepted + 1] = address
  else
    self.refused[#self.refused + 1] = {
      address = address,
      code = answer.code,
      status = answer.status,
      text = answer.text,
      retry = answer.code // 100 == 4,
    }
  end
  if self.at == #self.envelope.recipients and #self.accepted == 0 and not self.failure then
    local first = self.refused[1]
    local what = #self.refused == 1 and ("the recipient %s"):format(first.address)
      or ("all %d recipients, first %s"):format(#self.refused, first.address)
    -- It is worth another try as long as it is for one of them.
    local retry = false
    for _, refused in ipairs(self.refused) do retry = retry or refused.retry end
    self.failure = reply.refusal("smtp.send", what, first --[[@as smtp.Reply]], { refused = self.refused })
    self.failure.retry = retry
  end
end

--- DATA, a chunk, or the whole message was refused.
---@param what string
---@param answer smtp.Reply
function Transaction:on_refusal(what, answer)
  self.failure = self.failure or reply.refusal("smtp.send", what, answer, { refused = self.refused })
end

--- The server has taken the message.
---@param answer smtp.Reply
---@return smtp.Result
function Transaction:result(answer)
  return {
    accepted = self.accepted,
    refused = self.refused,
    code = answer.code,
    status = answer.status,
    text = answer.text,
  }
end

return transaction
