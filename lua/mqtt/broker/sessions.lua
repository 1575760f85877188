--- The sessions of a broker, those of clients that are away among them: when they end, and when wills are published.

local cosocket = require("cosocket")
local session = require("mqtt.broker.session")

local now = cosocket.now

--- Sessions at a time, of clients that are connected or away.
local SESSIONS_MAX = 100000

---@class mqtt.broker.Sessions
---@field count integer
---@field private options mqtt.BrokerOptions
---@field private by_id table<string, mqtt.broker.Session>
---@field private serial integer
---@field private assigned integer
---@field private closed boolean
---@field private subscriptions mqtt.broker.Subscriptions
---@field private publish fun(message: mqtt.broker.Message, from: string)
local Sessions = {}
Sessions.__index = Sessions

---@param client_id string
---@return mqtt.broker.Session?
function Sessions:find(client_id)
  return self.by_id[client_id]
end

--- All, in the order in which they began.
---@return mqtt.broker.Session[]
function Sessions:all()
  local list = {}
  for _, one in pairs(self.by_id) do list[#list + 1] = one end
  table.sort(list, function(a, b) return a.serial < b.serial end)
  return list
end

--- An identifier for a client that has none [MQTT-3.1.3-6].
---@return string
function Sessions:assign()
  local client_id
  repeat
    self.assigned = self.assigned + 1
    client_id = ("auto-%d"):format(self.assigned)
  until not self.by_id[client_id]
  return client_id
end

--- A new session; `nil` when there is no room for one more.
---@param client_id string
---@return mqtt.broker.Session?
function Sessions:start(client_id)
  if self.count >= (self.options.sessions_max or SESSIONS_MAX) then return nil end
  self.serial = self.serial + 1
  local one = session.new(client_id, self.serial, self.options)
  self.by_id[client_id], self.count = one, self.count + 1
  return one
end

--- Publishes the will of a client that did not take it back.
---@private
---@param one mqtt.broker.Session
function Sessions:publish_will(one)
  local will = one.will
  one.will, one.will_at = nil, nil
  if will and not self.closed then self.publish(session.message(will), one.client_id) end
end

--- Gives messages that a member of shared subscriptions cannot take any more to others; what nobody takes is put
--- back, unless the session has ended.
---@private
---@param one mqtt.broker.Session
---@param ended boolean
function Sessions:hand_over(one, ended)
  for _, left in ipairs(one:take_shared(ended)) do
    local message = left --[[@as mqtt.broker.Message]]
    local delivery = self.subscriptions:hand_over(left.share, message)
    if delivery then
      local qos = math.min(left.qos, delivery.qos)
      delivery.session:deliver(message, qos, left.retain, delivery.identifiers, left.share)
    elseif not ended then
      one.outgoing:publish(left, now())
    end
  end
end

--- A session is over (4.1): with it end its subscriptions, and every delay of its will [MQTT-3.1.3-9].
---@param one mqtt.broker.Session
function Sessions:finish(one)
  if self.by_id[one.client_id] ~= one then return end
  self.by_id[one.client_id], self.count = nil, self.count - 1
  if one.away then one.away:set() end
  for filter in pairs(one.subscriptions) do self.subscriptions:remove(one, filter) end
  self:publish_will(one)
  self:hand_over(one, true)
end

--- Waits for what is due while a client is away: its will, and the end of its session. A task.
---@async
---@param sessions mqtt.broker.Sessions
---@param one mqtt.broker.Session
---@param away cosocket.Event
local function keep(sessions, one, away)
  while not away:is_set() do
    local at = now()
    if one.expires_at <= at then return sessions:finish(one) end
    if one.will_at and one.will_at <= at then sessions:publish_will(one) end
    local due = math.min(one.expires_at, one.will_at or math.huge)
    if due == math.huge then return end
    local _, err = cosocket.select(away, due - at)
    if type(err) == "table" then return end
  end
end

--- Lets time pass for the session of a client that is away.
---@private
---@param one mqtt.broker.Session
function Sessions:watch(one)
  one.away = cosocket.event()
  if one.expires_at < math.huge or one.will_at then
    cosocket.spawn(("mqtt broker session %s"):format(one.client_id), keep, self, one, one.away)
  end
end

--- The connection of a session has ended.
---@param one mqtt.broker.Session
function Sessions:leave(one)
  one:detach()
  -- What is to be remembered is the state before.
  if self.closed then return end
  if one.expiry == 0 then return self:finish(one) end
  local at, will = now(), one.will
  local delay = will and will.properties and will.properties.will_delay_interval or 0
  one.expires_at = at + one.expiry
  if will and delay > 0 then
    -- The session may end before [MQTT-3.1.3-9]; `keep` sees to that.
    one.will_at = at + delay
  else
    self:publish_will(one)
  end
  self:watch(one)
  self:hand_over(one, false)
end

--- Everything that is remembered, as if every connection was lost now.
---@return mqtt.broker.SavedSession[]
function Sessions:save()
  local saved = {}
  for _, one in ipairs(self:all()) do
    if one.expiry > 0 then saved[#saved + 1] = one:save() end
  end
  return saved
end

--- Goes on with what was saved. For a broker that has no sessions yet.
---@param saved mqtt.broker.SavedSession[]
function Sessions:restore(saved)
  for _, entry in ipairs(saved) do
    local one = self:start(entry.client_id)
    if not one then return end
    one:restore(entry)
    for _, subscription in ipairs(entry.subscriptions) do
      one.subscriptions[subscription.filter] = subscription
      one.subscription_count = one.subscription_count + 1
      self.subscriptions:set(one, subscription)
    end
    self:watch(one)
  end
end

--- Nothing ends and nothing is published any more.
function Sessions:close()
  self.closed = true
  for _, one in pairs(self.by_id) do
    if one.away then one.away:set() end
  end
end

local sessions = {}

---@param options mqtt.BrokerOptions
---@param subscriptions mqtt.broker.Subscriptions
---@param publish fun(message: mqtt.broker.Message, from: string) Takes wills.
---@return mqtt.broker.Sessions
function sessions.new(options, subscriptions, publish)
  return setmetatable({
    options = options,
    subscriptions = subscriptions,
    publish = publish,
    by_id = {},
    count = 0,
    serial = 0,
    assigned = 0,
    closed = false,
  }, Sessions)
end

return sessions
