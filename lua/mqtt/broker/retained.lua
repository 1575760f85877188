--- The messages a broker retains: the last one of each topic (3.3.1.3).

local topic_tree = require("mqtt.broker.topic_tree")

--- Topics whose messages are retained.
local RETAINED_MAX = 100000
--- Bytes of retained topics and payloads together.
local BYTES_MAX = 67108864
--- Levels a topic may have whose message is retained.
local LEVELS_MAX = 200

---@class mqtt.broker.Retained
---@field count integer
---@field private count_max integer
---@field private bytes integer
---@field private serial integer
---@field private topics mqtt.broker.TopicTree Of `{ message, serial }`.
local Retained = {}
Retained.__index = Retained

---@param message mqtt.broker.Message
---@return integer
local function size(message)
  return #message.topic + #message.payload
end

---@private
---@param node mqtt.broker.Node
function Retained:remove(node)
  self.count, self.bytes = self.count - 1, self.bytes - size(node.value.message)
  self.topics:clear(node)
end

--- Keeps the last message of a topic; an empty one takes it away [MQTT-3.3.1-5] to [MQTT-3.3.1-8].
---@param message mqtt.broker.Message
---@return boolean kept `false` when there is no more room.
function Retained:set(message)
  local node = self.topics:find(message.topic)
  if node and node.value then self:remove(node) end
  if message.payload == "" then return true end
  if
    self.count >= self.count_max
    or self.bytes + size(message) > BYTES_MAX
    or topic_tree.depth(message.topic) > LEVELS_MAX
  then
    return false
  end
  self.serial = self.serial + 1
  self.topics:make(message.topic).value = { message = message, serial = self.serial }
  self.count, self.bytes = self.count + 1, self.bytes + size(message)
  return true
end

---@param values {message: mqtt.broker.Message, serial: integer}[]
---@return mqtt.broker.Message[]
local function in_order(values)
  table.sort(values, function(a, b) return a.serial < b.serial end)
  local messages = {}
  for i, value in ipairs(values) do messages[i] = value.message end
  return messages
end

--- What a filter matches, oldest first. What has expired is gone [MQTT-3.3.2-5].
---@param filter string
---@param now number
---@return mqtt.broker.Message[]
function Retained:matching(filter, now)
  local live = {}
  for _, value in ipairs(self.topics:topics_of(filter)) do
    local message = value.message
    if message.expires_at and now >= message.expires_at then
      self:remove(assert(self.topics:find(message.topic)))
    else
      live[#live + 1] = value
    end
  end
  return in_order(live)
end

--- Everything, oldest first.
---@return mqtt.broker.Message[]
function Retained:all()
  return in_order(self.topics:all())
end

local retained = {}

---@param count_max integer? Default 100000.
---@return mqtt.broker.Retained
function retained.new(count_max)
  return setmetatable({
    count = 0,
    count_max = count_max or RETAINED_MAX,
    bytes = 0,
    serial = 0,
    topics = topic_tree.new(),
  }, Retained)
end

return retained
