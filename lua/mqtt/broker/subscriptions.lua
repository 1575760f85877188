--- Who has subscribed to what: the topic filters of all sessions, and the groups of shared subscriptions (4.8.2).

local topic_tree = require("mqtt.broker.topic_tree")

--- Levels a topic filter may have.
local LEVELS_MAX = 200

---@class mqtt.broker.Subscription: mqtt.Subscription
---@field identifier integer?

--- Several sessions that share what one filter brings.
---@class mqtt.broker.Group
---@field package sessions mqtt.broker.Session[]
---@field package subscriptions table<mqtt.broker.Session, mqtt.broker.Subscription>
---@field package last integer Whose turn it was last.

--- What hangs on one filter of the tree.
---@class mqtt.broker.Entry
---@field sessions table<mqtt.broker.Session, mqtt.broker.Subscription>
---@field groups table<string, mqtt.broker.Group>

---@class mqtt.broker.Subscriptions
---@field private tree mqtt.broker.TopicTree
local Subscriptions = {}
Subscriptions.__index = Subscriptions

local subscriptions = {}

--- The parts of a shared subscription's filter; `nil` and the filter itself for an ordinary one.
---@param filter string
---@return string? group
---@return string filter
function subscriptions.parse(filter)
  local group, rest = filter:match("^%$share/([^/]+)/(.+)$")
  return group, rest or filter
end

--- Whether a filter has more levels than anybody needs.
---@param filter string
---@return boolean
function subscriptions.is_too_deep(filter)
  return topic_tree.depth(filter) > LEVELS_MAX
end

--- Adds a subscription, or replaces the one of this session with the same filter [MQTT-3.8.4-3].
---@param session mqtt.broker.Session
---@param subscription mqtt.broker.Subscription
function Subscriptions:set(session, subscription)
  local name, filter = subscriptions.parse(subscription.filter)
  local node = self.tree:make(filter)
  ---@type mqtt.broker.Entry
  local entry = node.value or { sessions = {}, groups = {} }
  node.value = entry
  if not name then
    entry.sessions[session] = subscription
    return
  end
  local group = entry.groups[name] or { sessions = {}, subscriptions = {}, last = 0 }
  entry.groups[name] = group
  if not group.subscriptions[session] then table.insert(group.sessions, session) end
  group.subscriptions[session] = subscription
end

---@param group mqtt.broker.Group
---@param session mqtt.broker.Session
local function leave(group, session)
  group.subscriptions[session] = nil
  for i, member in ipairs(group.sessions) do
    if member == session then
      table.remove(group.sessions, i)
      -- The turn stays with who has it.
      if i <= group.last then group.last = group.last - 1 end
      return
    end
  end
end

---@param session mqtt.broker.Session
---@param filter string As it was subscribed to.
function Subscriptions:remove(session, filter)
  local name, plain = subscriptions.parse(filter)
  local node = self.tree:find(plain)
  local entry = node and node.value
  if not entry then return end
  ---@cast node mqtt.broker.Node
  if name then
    local group = entry.groups[name]
    if group then
      leave(group, session)
      if #group.sessions == 0 then entry.groups[name] = nil end
    end
  else
    entry.sessions[session] = nil
  end
  if not next(entry.sessions) and not next(entry.groups) then self.tree:clear(node) end
end

--- Whose turn it is: the next one that is connected, or the next one when nobody is.
---@param group mqtt.broker.Group
---@return mqtt.broker.Session
local function choose(group)
  local sessions = group.sessions
  local count = #sessions
  for step = 1, count do
    local at = (group.last + step - 1) % count + 1
    if sessions[at].connection then
      group.last = at
      return sessions[at]
    end
  end
  group.last = group.last % count + 1
  return sessions[group.last]
end

--- What one session gets of a message.
---@class mqtt.broker.Delivery
---@field session mqtt.broker.Session
---@field qos mqtt.Qos
---@field retain boolean
---@field identifiers integer[]
---@field share string? The filter, when it is shared.

---@param entry mqtt.broker.Entry
---@param name string
---@param message mqtt.broker.Message
---@return mqtt.broker.Delivery
local function share_out(entry, name, message)
  local group = entry.groups[name]
  local session = choose(group)
  local subscription = group.subscriptions[session]
  return {
    session = session,
    qos = subscription.qos,
    retain = subscription.retain_as_published and message.retain or false,
    identifiers = { subscription.identifier },
    share = subscription.filter,
  }
end

--- Who gets a message. Each session gets one copy for all of its ordinary subscriptions that match, at the highest
--- quality of service of these [MQTT-3.3.4-2], and one for each shared subscription whose turn it has.
---@param message mqtt.broker.Message
---@param from string? The client that published it.
---@return mqtt.broker.Delivery[]
function Subscriptions:deliveries(message, from)
  local list, of = {}, {}
  ---@type mqtt.broker.Entry[]
  local entries = self.tree:filters_of(message.topic)
  for _, entry in ipairs(entries) do
    for session, subscription in pairs(entry.sessions) do
      -- [MQTT-3.8.3-3]
      if not (subscription.no_local and session.client_id == from) then
        local delivery = of[session]
        if not delivery then
          delivery = { session = session, qos = 0, retain = false, identifiers = {} }
          of[session] = delivery
          list[#list + 1] = delivery
        end
        delivery.qos = math.max(delivery.qos, subscription.qos)
        -- [MQTT-3.3.1-12], [MQTT-3.3.1-13]
        if subscription.retain_as_published and message.retain then delivery.retain = true end
        table.insert(delivery.identifiers, subscription.identifier)
      end
    end
    for name in pairs(entry.groups) do list[#list + 1] = share_out(entry, name, message) end
  end
  -- The same order every time.
  table.sort(list, function(a, b)
    if a.session ~= b.session then return a.session.serial < b.session.serial end
    return (a.share or "") < (b.share or "")
  end)
  for _, delivery in ipairs(list) do table.sort(delivery.identifiers) end
  return list
end

--- Whose turn it is to take a message that another member of a shared subscription left behind; `nil` when nobody
--- is connected.
---@param filter string
---@param message mqtt.broker.Message
---@return mqtt.broker.Delivery?
function Subscriptions:hand_over(filter, message)
  local name, plain = subscriptions.parse(filter)
  local node = self.tree:find(plain)
  local entry = node and node.value
  if not name or not entry or not entry.groups[name] then return nil end
  local delivery = share_out(entry, name, message)
  return delivery.session.connection and delivery or nil
end

---@return mqtt.broker.Subscriptions
function subscriptions.new()
  return setmetatable({ tree = topic_tree.new() }, Subscriptions)
end

return subscriptions
