--- Peers that are told the same: a text is made once and sent to each.

local json = require("json")
local message = require("wsrpc.message")

--- What is too long for one is not sent to it.
local ENCODING = { encode = json.encode, message_max = math.huge }

---@class wsrpc.Group
---@field private peers table<wsrpc.Peer, true>
---@field private size integer
local Group = {}
Group.__index = Group
Group.__name = "wsrpc.Group"

--- Adds a peer; it leaves by itself when its connection ends.
---@param peer wsrpc.Peer
---@return wsrpc.Group self
function Group:add(peer)
  if not self.peers[peer] and peer:is_open() then
    self.peers[peer] = true
    self.size = self.size + 1
    peer:joined(self)
  end
  return self
end

---@param peer wsrpc.Peer
---@return wsrpc.Group self
function Group:remove(peer)
  if self.peers[peer] then
    self.peers[peer] = nil
    self.size = self.size - 1
    peer:left(self)
  end
  return self
end

---@param peer wsrpc.Peer
---@return boolean
function Group:has(peer)
  return self.peers[peer] == true
end

---@return integer
function Group:count()
  return self.size
end

--- A list of those in it.
---@return wsrpc.Peer[]
function Group:list()
  local list = {}
  for peer in pairs(self.peers) do list[#list + 1] = peer end
  return list
end

--- Notifies all. It waits for nobody: a peer for whom more than `queue_max` bytes wait is cut off.
---@param method string
---@param params? table
---@return integer count How many were told.
function Group:notify(method, params)
  if type(method) ~= "string" then error("notify: the method must be a string", 2) end
  local text, err = message.request(nil, method, params, ENCODING)
  if not text then error(("notify: %s"):format((err --[[@as cosocket.Error]]).message), 2) end
  local count = 0
  for _, peer in ipairs(self:list()) do
    if peer:post(text) then count = count + 1 end
  end
  return count
end

local group = {}

---@return wsrpc.Group
function group.new()
  return setmetatable({ peers = {}, size = 0 }, Group)
end

return group
