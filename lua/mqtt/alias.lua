--- Topic aliases of MQTT 5 (3.3.2.3.4): numbers that stand for topic names on one connection.

local cosocket = require("cosocket")
local reason = require("mqtt.reason")

--- A topic this short is not worth an alias, which costs three bytes each time.
local TOPIC_MIN = 6
--- Topics whose use is remembered for each alias there is.
local SEEN_SHARE = 4

local alias = {}

--- Chooses aliases for what is sent: the second time a topic is used it gets one, and when there is none left, the
--- one that was not used for longest.
---@class mqtt.AliasSender
---@field private maximum integer
---@field private by_topic table<string, integer>
---@field private topics string[]
---@field private used integer[] When each alias was used last.
---@field private clock integer Counts uses.
---@field private seen table<string, true> Topics used once.
---@field private seen_count integer
local Sender = {}
Sender.__index = Sender

--- The alias of `topic` on the connection so far.
---@param topic string
---@return integer? alias To send with the topic's name left out when `known`.
---@return boolean? known Whether the other side knows it.
function Sender:find(topic)
  local found = self.by_topic[topic]
  if found then
    self.clock = self.clock + 1
    self.used[found] = self.clock
    return found, true
  end
  if #topic < TOPIC_MIN then return nil end
  if not self.seen[topic] then
    if self.seen_count >= SEEN_SHARE * self.maximum then self.seen, self.seen_count = {}, 0 end
    self.seen[topic], self.seen_count = true, self.seen_count + 1
    return nil
  end
  local count = #self.topics
  if count < self.maximum then return count + 1, false end
  local oldest = 1
  for i = 2, count do
    if self.used[i] < self.used[oldest] then oldest = i end
  end
  return oldest, false
end

--- A packet that gives `alias` to `topic` has been written.
---@param topic string
---@param number integer
function Sender:set(topic, number)
  local before = self.topics[number]
  if before then self.by_topic[before] = nil end
  self.clock = self.clock + 1
  self.topics[number], self.by_topic[topic], self.used[number] = topic, number, self.clock
  self.seen[topic] = nil
end

--- For a connection whose other side takes aliases up to `maximum`.
---@param maximum integer
---@return mqtt.AliasSender
function alias.sender(maximum)
  return setmetatable({
    maximum = maximum,
    by_topic = {},
    topics = {},
    used = {},
    clock = 0,
    seen = {},
    seen_count = 0,
  }, Sender)
end

--- Gives a received PUBLISH the topic that its alias stands for. `topics` is what was learned on this connection.
---@param topics string[]
---@param packet mqtt.Publish
---@param maximum integer The Topic Alias Maximum we announced.
---@return true? ok
---@return cosocket.Error? err
function alias.resolve(topics, packet, maximum)
  local number = packet.properties.topic_alias
  if number > maximum then
    -- [MQTT-3.1.2-26], [MQTT-3.2.2-17]
    local message = ("topic alias %d, and at most %d are taken"):format(number, maximum)
    return nil, cosocket.error("protocol", "mqtt", message, { code = reason.topic_alias_invalid })
  end
  if packet.topic ~= "" then
    topics[number] = packet.topic
    return true
  end
  local topic = topics[number]
  if not topic then
    -- 3.3.2.3.4
    local message = ("topic alias %d, which stands for nothing yet"):format(number)
    return nil, cosocket.error("protocol", "mqtt", message, { code = reason.protocol_error })
  end
  packet.topic = topic
  return true
end

return alias
