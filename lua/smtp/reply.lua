--- A server's replies (RFC 5321, 4.2): taken off a buffer when they are whole, within limits, and as errors.

local cosocket = require("cosocket")

--- Bytes of one line. RFC 5321, 4.5.3.1.5 has 512; greetings and certificates' names made some servers forget it.
local LINE_MAX = 4096
--- Lines of one reply.
local LINES_MAX = 256
--- Bytes of a server's words in an error.
local TEXT_SHOWN = 500

---@class smtp.Reply
---@field code integer
---@field status string? Enhanced status code (RFC 2034), such as "5.1.1".
---@field lines string[] Without codes; control characters are question marks.
---@field text string The lines in one, without the enhanced status.

---@class smtp.ReplyParser
---@field line_max integer
---@field lines_max integer
---@field private code string?
---@field private lines string[]
local Parser = {}
Parser.__index = Parser

local reply = {}

---@param message string
---@return nil
---@return cosocket.Error
local function broken(message)
  return nil, cosocket.error("protocol", "smtp", message)
end

--- Takes the lines of a reply; answers it when it is whole.
---@param input cosocket.Buffer
---@return smtp.Reply? reply
---@return cosocket.Error? err `protocol`, `limit`
function Parser:next(input)
  while true do
    local line = input:line()
    if not line then
      if #input > self.line_max then
        return nil, cosocket.error("limit", "smtp", ("the server sent a line of more than %d bytes (line_max)"):format(self.line_max))
      end
      return nil
    elseif #line > self.line_max then
      return nil, cosocket.error("limit", "smtp", ("the server sent a line of %d bytes, more than %d (line_max)"):format(#line, self.line_max))
    end
    local code, separator, text = line:match("^([2-5][0-5]%d)([ -]?)(.*)$")
    if not code or separator == "" and text ~= "" then
      return broken(("%q is not a line of an SMTP server"):format(line:sub(1, 80)))
    elseif self.code and code ~= self.code then
      return broken(("a reply of %s goes on with %s"):format(self.code, code))
    end
    self.code = code
    local lines = self.lines
    lines[#lines + 1] = text:gsub("%c", "?")
    if separator ~= "-" then
      self.code, self.lines = nil, {}
      local words, status = {}, nil
      for i, one in ipairs(lines) do
        local enhanced, rest = one:match("^([245]%.%d%d?%d?%.%d%d?%d?)%f[%s%z]%s*(.*)$")
        if enhanced and enhanced:byte() == code:byte() then
          status, one = status or enhanced, rest
        end
        words[i] = one
      end
      return { code = math.tointeger(tonumber(code)), status = status, lines = lines, text = table.concat(words, " ") }
    elseif #lines >= self.lines_max then
      return nil, cosocket.error("limit", "smtp", ("a reply of more than %d lines (lines_max)"):format(self.lines_max))
    end
  end
end

--- Whether the beginning of a reply has come.
---@return boolean
function Parser:is_within()
  return self.code ~= nil
end

---@param line_max? integer
---@param lines_max? integer
---@return smtp.ReplyParser
function reply.parser(line_max, lines_max)
  return setmetatable({ line_max = line_max or LINE_MAX, lines_max = lines_max or LINES_MAX, lines = {} }, Parser)
end

--- The words of a reply as errors show them: `550 5.1.1 no such user`.
---@param answer smtp.Reply
---@return string
function reply.words(answer)
  local text = answer.text
  if #text > TEXT_SHOWN then text = text:sub(1, TEXT_SHOWN) .. "..." end
  if not utf8.len(text) then text = text:gsub("[\x80-\xff]", "?") end
  local parts = { tostring(answer.code) }
  if answer.status then parts[#parts + 1] = answer.status end
  if text ~= "" then parts[#parts + 1] = text end
  return table.concat(parts, " ")
end

--- The error of a refusal.
---@param op string
---@param what string
---@param answer smtp.Reply
---@param fields? table
---@return cosocket.Error
function reply.refusal(op, what, answer, fields)
  fields = fields or {}
  fields.code, fields.status, fields.reason = answer.code, answer.status, answer.text
  -- RFC 5321, 4.2.1: 4yz is for now.
  fields.retry = answer.code // 100 == 4
  return cosocket.error("refused", op, ("the server refused %s: %s"):format(what, reply.words(answer)), fields)
end

return reply
