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

--- A line without its enhanced status code (RFC 2034, 4), and that code. It begins as the reply's own code does.
---@param line string
---@param first integer
---@return string
---@return string?
local function without_status(line, first)
  if line:byte() ~= first then return line end
  local status, rest = line:match("^([245]%.%d%d?%d?%.%d%d?%d?)%f[%s%z]%s*(.*)$")
  return rest or line, status
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
    local first, second, third, separator = line:byte(1, 4)
    -- A digit from 2 to 5, one from 0 to 5, any digit (section 4.2); then a space, a hyphen, or nothing.
    local is_code = third and first >= 0x32 and first <= 0x35 and second >= 0x30 and second <= 0x35
      and third >= 0x30 and third <= 0x39
    if not is_code or separator and separator ~= 0x20 and separator ~= 0x2d then
      return broken(("%q is not a line of an SMTP server"):format(line:sub(1, 80)))
    end
    local code = line:sub(1, 3)
    if self.code and code ~= self.code then
      return broken(("a reply of %s goes on with %s"):format(self.code, code))
    end
    self.code = code
    local text = line:sub(5)
    if text:find("%c") then text = text:gsub("%c", "?") end
    local lines = self.lines
    lines[#lines + 1] = text
    if separator ~= 0x2d then
      self.code, self.lines = nil, {}
      local status
      if #lines == 1 then
        text, status = without_status(text, first)
      else
        local words, found = {}, nil
        for at, one in ipairs(lines) do
          words[at], found = without_status(one, first)
          status = status or found
        end
        text = table.concat(words, " ")
      end
      return { code = math.tointeger(tonumber(code)), status = status, lines = lines, text = text }
    elseif #lines >= self.lines_max then
      return nil, cosocket.error("limit", "smtp", ("a reply of more than %d lines (lines_max)"):format(self.lines_max))
    end
  end
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
