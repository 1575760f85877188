--- SOCKS5 (RFC 1928), as far as a proxy is asked for a way; what follows is said by whoever asked.

local secret = require("net.trace.secret")

local socks5 = { port = 1080, alone = true }

--- An address and its port (RFC 1928, 5), which begin at `offset`.
---@param lane net.trace.Lane
---@param offset integer
---@return string? words
---@return integer size
local function address(lane, offset)
  if not lane:need(offset + 2) then return nil, 0 end
  local kind, first = lane:peek(2, offset):byte(1, 2)
  local size = kind == 1 and 4 or kind == 4 and 16 or kind == 3 and 1 + first or nil
  if not size or not lane:need(offset + 1 + size + 2) then return nil, 0 end
  local host, port = lane:peek(size, offset + 1), string.unpack(">I2", lane:peek(2, offset + 1 + size))
  if kind == 1 then
    host = ("%d.%d.%d.%d"):format(host:byte(1, 4))
  elseif kind == 4 then
    host = ("[%x:%x:%x:%x:%x:%x:%x:%x]"):format(string.unpack(">I2I2I2I2I2I2I2I2", host))
  else
    host = host:sub(2)
  end
  return ("%s:%d"):format(host, port), offset + 1 + size + 2
end

---@param lane net.trace.Lane
local function follow_client(lane)
  if not lane:need(2) or not lane:need(2 + lane:peek(1, 1):byte()) then return end
  local count = lane:peek(1, 1):byte()
  lane:take(2 + count)
  lane:say(("hello, %d methods"):format(count))
  if not lane:wait(function() return lane.state.method end) then return end
  if lane.state.method == 2 then
    -- RFC 1929, 2.
    if not lane:need(2) then return end
    local name = lane:peek(1, 1):byte()
    if not lane:need(3 + name) then return end
    local size = lane:peek(1, 2 + name):byte()
    if not lane:need(3 + name + size) then return end
    local user = lane:peek(name, 2)
    lane:take(3 + name + size, lane:peek(3 + name) .. secret.same(size))
    lane:say(("login username=%s password=***"):format(lane:quote(user)))
  elseif lane.state.method ~= 0 then
    return
  end
  if not lane:need(4) then return end
  local words, size = address(lane, 3)
  if not words then return end
  local command = lane:peek(1, 1):byte()
  lane:take(size)
  lane:say(("%s %s"):format(command == 1 and "connect" or ("command %d"):format(command), words))
end

---@param lane net.trace.Lane
local function follow_server(lane)
  if not lane:need(2) then return end
  local method = lane:take(2):byte(2)
  lane:say(("method %d"):format(method))
  lane.state.method = method
  if method == 2 then
    if not lane:need(2) then return end
    local status = lane:take(2):byte(2)
    lane:say(status == 0 and "login accepted" or ("login refused, %d"):format(status))
  end
  local words, size = address(lane, 3)
  if not words then return end
  local code = lane:peek(1, 1):byte()
  lane:take(size)
  lane:say(("reply %d %s"):format(code, words))
end

---@param lane net.trace.Lane
function socks5.follow(lane)
  if lane.is_client then return follow_client(lane) end
  return follow_server(lane)
end

return socks5
