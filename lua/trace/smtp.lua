--- SMTP: commands and replies as they are, logins masked, messages by their size.

local mask = require("net.trace.mask")
local secret = require("net.trace.secret")
local text = require("net.trace.text")

--- Bytes of a line.
local LINE_MAX = 16384
--- Commands whose answers are waited for.
local COMMANDS_MAX = 10000

local smtp = { port = 25, alone = true }

---@class net.trace.SmtpCommand
---@field name string
---@field code integer? Of the last reply.
---@field replies integer
---@field over boolean

---@param line string
---@return string
local function plain(line) return (line:gsub("\r?\n$", "")) end

--- Takes what is left of a line that is longer than one may be.
---@param lane net.trace.Lane
---@param line string
---@return boolean whole
local function pass_rest(lane, line) return line:sub(-1) == "\n" or lane:pass_line() end

--- A line that is a secret.
---@param lane net.trace.Lane
---@param line string
---@return boolean whole
local function take_secret(lane, line)
  local words = plain(line)
  lane:take(#line, secret.same(#words) .. line:sub(#words + 1))
  lane:say("***")
  return pass_rest(lane, line)
end

--- The lines that follow AUTH (RFC 4954, 4): one for each 334.
---@param lane net.trace.Lane
---@param command net.trace.SmtpCommand
---@return boolean goes_on
local function pass_login(lane, command)
  local answered = 0
  while true do
    if not lane:wait(function() return command.over or command.replies > answered end) then return false end
    if command.over then return true end
    answered = answered + 1
    local line = lane:line(LINE_MAX)
    if not line then return false end
    if not take_secret(lane, line) then return false end
  end
end

--- A message up to the line with a dot (RFC 5321, 4.5.2).
---@param lane net.trace.Lane
---@return boolean whole
local function pass_message(lane)
  local size, lines, ending, masking = 0, 0, nil, mask.new()
  local function pass(count)
    local _, breaks = lane:take(count, masking:feed(lane:peek(count))):gsub("\n", "")
    size, lines = size + count, lines + breaks
  end
  if not lane:need(3) then return false end
  if lane:peek(3) == ".\r\n" then
    lane:take(3)
  else
    repeat
      ending = lane:find("\r\n.\r\n")
      if ending then
        pass(ending + 2)
        lane:take(3)
      else
        -- The dot may come in the next piece.
        local sure = lane:count() - 4
        if sure > 0 then pass(sure) end
        if not lane:need(lane:count() + 1) then
          lane:say(("message, unfinished, %s"):format(text.size(size)))
          return false
        end
      end
    until ending
  end
  lane:say(("message %s, %d lines"):format(text.size(size), lines))
  return true
end

---@param lane net.trace.Lane
local function follow_client(lane)
  local commands = lane.state.commands
  -- Of a message that comes in chunks (RFC 3030): what begins in one may end in another.
  local masking = mask.new()
  while true do
    local line = lane:line(LINE_MAX)
    if not line then return end
    local words = plain(line)
    local name = words:match("^%s*(%a*)"):upper()
    ---@type net.trace.SmtpCommand
    local command = { name = name, replies = 0, over = false }
    if #commands >= COMMANDS_MAX then table.remove(commands, 1) end
    commands[#commands + 1] = command
    if name == "AUTH" then
      -- The mechanism may be known, and what follows it not.
      local _, last = words:find("^%s*%a+%s+")
      _, last = words:find("^[%w_-]+%s*", (last or #words) + 1)
      if not last then
        _, last = words:find("^%s*%a+%s*")
      elseif last < #words and not words:sub(last, last):find("%s") then
        -- No mechanism is called so.
        _, last = words:find("^%s*%a+%s+")
      end
      local front, initial = words:sub(1, last), words:sub(last + 1)
      lane:take(#line, front .. secret.same(#initial) .. line:sub(#words + 1))
      lane:say(front .. secret.short(#initial))
      if not pass_rest(lane, line) or not pass_login(lane, command) then return end
    else
      lane:take(#line, secret.text(line, secret.same))
      lane:say(secret.text(words, secret.short))
      if not pass_rest(lane, line) then return end
    end
    if name == "DATA" then
      if not lane:wait(function() return command.code end) then return end
      if command.code == 354 then
        -- Its answer is another one.
        commands[#commands + 1] = { name = "message", replies = 0, over = false }
        if not pass_message(lane) then return end
      end
    elseif name == "BDAT" then
      local size = math.tointeger(words:match("^%s*%a+%s+(%d+)")) or 0
      local _, passed = lane:pass(size, masking)
      lane:say(("chunk of a message %s"):format(text.size(passed)))
      if passed < size then return end
      if words:upper():find("%sLAST%s*$") then masking = mask.new() end
    end
  end
end

---@param lane net.trace.Lane
local function follow_server(lane)
  local commands = lane.state.commands
  local is_greeting = true
  while true do
    local line = lane:line(LINE_MAX)
    if not line then return end
    local words = plain(line)
    local code, mark = words:match("^(%d%d%d)([ -]?)")
    code = math.tointeger(code)
    local command = commands[1]
    if code == 334 then
      lane:take(#line, words:sub(1, 4) .. secret.same(#words - #words:sub(1, 4)) .. line:sub(#words + 1))
      lane:say(words:sub(1, 4) .. secret.short(#words - #words:sub(1, 4)))
    else
      lane:take(#line)
      lane:say(words)
    end
    if not pass_rest(lane, line) then return end
    if code and mark ~= "-" then
      if is_greeting then
        is_greeting = false
      elseif command then
        command.code, command.replies = code, command.replies + 1
        if code ~= 334 then
          command.over = true
          table.remove(commands, 1)
        end
      end
    end
  end
end

---@param lane net.trace.Lane
function smtp.follow(lane)
  lane.state.commands = lane.state.commands or {}
  if lane.is_client then return follow_client(lane) end
  return follow_server(lane)
end

return smtp
