--- A message that is ready (an .eml file): sent as it is, but for Bcc, which nobody is to see. Its header fields say
--- who gets it.

local address = require("smtp.address")
local fault = require("smtp.fault")
local source = require("smtp.source")

local broken = fault.broken

--- Bytes of the header fields of a message that is ready.
local HEADERS_MAX = 256 * 1024
--- Bytes of a line, RFC 5321, 4.5.3.1.6.
local LINE_MAX = 998

--- Who stands in these fields gets the message.
local RECIPIENTS = { to = true, cc = true, bcc = true }

local ready = {}

--- Reads the header fields: as they are, and how many bytes they take with the empty line.
---@async
---@param what string
---@param from smtp.Source
---@return string? headers With CRLF.
---@return integer|cosocket.Error length
local function read_headers(what, from)
  local next, file = from.open()
  if not next then return nil, file end
  local closer <close> = file
  local text = ""
  while true do
    local first, behind = text:match("^()\r?\n()")
    if not first then first, behind = text:match("\n()\r?\n()") end
    if first then return text:sub(1, first - 1), behind - 1 end
    if #text > HEADERS_MAX then return broken(what, ("header fields of more than %d bytes"):format(HEADERS_MAX)) end
    local piece, err = next()
    if err then return nil, err end
    -- A message of header fields only.
    if not piece then return text:find("\n$") and text or text .. "\n", #text end
    text = text .. piece
  end
end

--- The text of a field, unfolded.
---@param field string
---@return string
local function value_of(field)
  return (field:match("^[^:]*:(.*)$"):gsub("\r?\n[ \t]", " "):gsub("\r?\n$", ""):match("^%s*(.-)%s*$"))
end

--- Reads a message that is ready.
---@async
---@param given {eml?: string, raw?: string}
---@return table? composed
---@return string|cosocket.Error headers
function ready.compose(given)
  local what = given.eml and "eml" or "raw"
  local from, err
  if given.eml then
    from, err = source.file(what, given.eml)
    if not from then return nil, err end
  else
    from = source.text(what, given.raw)
  end
  local text, length = read_headers(what, from)
  if not text then return nil, length end
  ---@cast length integer
  local fields, people, sender = {}, {}, {}
  for line in text:gmatch("[^\n]*\n") do
    if line:find("^[ \t]") and #fields > 0 then
      fields[#fields] = fields[#fields] .. line
    elseif line:find("^[%w!-9;-~]+[ \t]*:") then
      fields[#fields + 1] = line
    elseif #fields > 0 or not line:find("^From ") then
      -- The line of a mailbox file ("From ...") is not of the message.
      return broken(what, ("%q is not a header field"):format(line:sub(1, 60)))
    end
  end
  local kept, identifier = {}, nil
  for _, field in ipairs(fields) do
    local name = field:match("^[^:%s]+"):lower()
    if RECIPIENTS[name] or name == "from" or name == "sender" then
      local value = value_of(field)
      if value ~= "" then
        local list
        list, err = address.list(value)
        if not list then return broken(what .. ": " .. name, (err --[[@as cosocket.Error]]).message) end
        if RECIPIENTS[name] then
          table.move(list, 1, #list, #people + 1, people)
        else
          sender[name] = list[1]
        end
      end
    elseif name == "message-id" then
      identifier = value_of(field):match("<(.-)>")
    end
    if name ~= "bcc" and name ~= "resent-bcc" then kept[#kept + 1] = field end
  end
  local headers = table.concat(kept):gsub("\r?\n", "\r\n")
  local scan
  scan, err = source.scan(from, length)
  if not scan then return nil, err end
  local longest = scan.line_max
  if #headers > LINE_MAX then
    for line in headers:gmatch("[^\r\n]+") do longest = math.max(longest, #line) end
  end
  if longest > LINE_MAX then
    return broken(what, ("a line of %d bytes; SMTP carries at most %d"):format(longest, LINE_MAX))
  elseif scan.nul or headers:find("\0", 1, true) then
    return broken(what, "NUL is in it, which SMTP does not carry")
  end
  local smtputf8 = headers:find("[\x80-\xff]") ~= nil
  for _, one in ipairs(people) do smtputf8 = smtputf8 or one.smtputf8 end
  return {
    sender = sender.sender or sender.from,
    recipients = people,
    message_id = identifier,
    eight_bit = scan.eight_bit,
    smtputf8 = smtputf8,
    pieces = { "", { source = from, encoding = "lines", skip = length } },
    body_size = scan.size,
  },
    headers
end

return ready
