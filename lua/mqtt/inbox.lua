--- Messages that were received and not yet taken: who gets which, and how many bytes wait.
---
--- A route is one taker: a handler, or a loop over `messages`. What no route takes goes to the `rest`. When the
--- bytes waiting reach the limit, the owner stops reading; that must not be for ever, so it does not stop for
--- messages that nobody takes, nor for a taker that itself waits for an answer of the server.

local codec = require("mqtt.codec")

local matches = codec.matches

--- What a waiting message costs besides its topic and payload.
local MESSAGE_COST = 200
--- Topics whose routes are remembered.
local TOPICS_MAX = 1000

---@class mqtt.Route
---@field filter string? `nil`: what no other route takes.
---@field handler (fun(message: mqtt.Publish, client: mqtt.Client))?
---@field taken boolean Somebody takes its messages.
---@field asking boolean Who takes them waits for an answer of the server.
---@field arrived cosocket.Event? Set when a message comes, for who waits.
---@field worker cosocket.Task? The task that runs the handler.
---@field first integer
---@field last integer
---@field [integer] mqtt.Publish

---@class mqtt.Inbox
---@field bytes integer
---@field bytes_max integer
---@field dropped integer Messages nobody took in time.
---@field rest mqtt.Route
---@field private routes mqtt.Route[]
---@field private by_topic table<string, mqtt.Route[]>
---@field private topics integer
---@field private shares table<mqtt.Publish, integer> QoS 1 messages on more than one route.
local Inbox = {}
Inbox.__index = Inbox

---@param filter string?
---@param handler function?
---@return mqtt.Route
local function new_route(filter, handler)
  return { filter = filter, handler = handler, taken = handler ~= nil, asking = false, first = 1, last = 0 }
end

---@private
function Inbox:forget_topics()
  self.by_topic, self.topics = {}, 0
end

--- Adds a taker for `filter`.
---@param filter string
---@param handler? fun(message: mqtt.Publish, client: mqtt.Client)
---@return mqtt.Route
function Inbox:add(filter, handler)
  local route = new_route(filter, handler)
  self.routes[#self.routes + 1] = route
  self:forget_topics()
  return route
end

--- Removes a taker. Answers what waited for it.
---@param route mqtt.Route
---@return mqtt.Publish[]
function Inbox:remove(route)
  for i, other in ipairs(self.routes) do
    if other == route then
      table.remove(self.routes, i)
      break
    end
  end
  self:forget_topics()
  local left = {}
  while true do
    local message = self:take(route)
    if not message then return left end
    left[#left + 1] = message
  end
end

--- Removes the handlers of a filter. Answers what waited for them.
---@param filter string
---@param kept? mqtt.Route But for this one.
---@return mqtt.Publish[]
function Inbox:remove_handlers(filter, kept)
  local left = {}
  for i = #self.routes, 1, -1 do
    local route = self.routes[i]
    if route.handler and route.filter == filter and route ~= kept then
      local messages = self:remove(route)
      table.move(messages, 1, #messages, #left + 1, left)
    end
  end
  return left
end

--- Moves messages of the rest that `route` takes to it: they came before it did.
---@param route mqtt.Route
function Inbox:claim_rest(route)
  local rest, kept = self.rest, {}
  for i = rest.first, rest.last do
    local message = rest[i]
    rest[i] = nil
    if matches(route.filter, message.topic) then
      route.last = route.last + 1
      route[route.last] = message
    else
      kept[#kept + 1] = message
    end
  end
  rest.first, rest.last = 1, #kept
  table.move(kept, 1, #kept, 1, rest)
end

---@private
---@param topic string
---@return mqtt.Route[]
function Inbox:routes_of(topic)
  if self.topics >= TOPICS_MAX then self:forget_topics() end
  local found = {}
  for _, route in ipairs(self.routes) do
    if matches(route.filter, topic) then found[#found + 1] = route end
  end
  if #found == 0 then found[1] = self.rest end
  self.by_topic[topic], self.topics = found, self.topics + 1
  return found
end

--- Puts a message where it belongs. Answers the routes that got it, or `nil` when it was dropped: there is no
--- room and nobody who makes any.
---@param message mqtt.Publish
---@return mqtt.Route[]? routes
function Inbox:deliver(message)
  local routes = self.by_topic[message.topic] or self:routes_of(message.topic)
  if self.bytes >= self.bytes_max then
    local taken = false
    for _, route in ipairs(routes) do taken = taken or (route.taken and (message.qos > 0 or not route.asking)) end
    if not taken then
      self.dropped = self.dropped + 1
      return nil
    end
  end
  local count = #routes
  for i = 1, count do
    local route = routes[i]
    local last = route.last + 1
    route.last = last
    route[last] = message
    local arrived = route.arrived
    -- Only who has found nothing waits.
    if arrived and last == route.first then arrived:set() end
  end
  self.bytes = self.bytes + (#message.topic + #message.payload + MESSAGE_COST) * count
  if count > 1 and message.qos > 0 then self.shares[message] = count end
  return routes
end

--- Takes the oldest message of a route.
---@param route mqtt.Route
---@return mqtt.Publish? message
function Inbox:take(route)
  local first = route.first
  local message = route[first]
  if not message then return nil end
  route[first] = nil
  if first == route.last then
    route.first, route.last = 1, 0
  else
    route.first = first + 1
  end
  self.bytes = self.bytes - (#message.topic + #message.payload + MESSAGE_COST)
  return message
end

--- A taker is done with a message. Answers whether all are.
---@param message mqtt.Publish
---@return boolean
function Inbox:finish(message)
  local left = self.shares[message]
  if not left then return true end
  self.shares[message] = left > 2 and left - 1 or nil
  return false
end

--- Whether reading shall stop: there is no room, and somebody who will make some without our reading.
---@return boolean
function Inbox:is_full()
  if self.bytes < self.bytes_max then return false end
  for _, route in ipairs(self.routes) do
    if route.taken and not route.asking and route.first <= route.last then return true end
  end
  local rest = self.rest
  return rest.taken and not rest.asking and rest.first <= rest.last
end

--- Whether so much has been taken that reading is worth going on with.
---@return boolean
function Inbox:has_room()
  return self.bytes <= self.bytes_max // 2 or not self:is_full()
end

--- All routes that somebody may wait on.
---@return fun(): mqtt.Route?
function Inbox:each()
  local i = 0
  return function()
    i = i + 1
    if i == #self.routes + 1 then return self.rest end
    return self.routes[i]
  end
end

local inbox = {}

---@param bytes_max integer
---@return mqtt.Inbox
function inbox.new(bytes_max)
  return setmetatable({
    bytes = 0,
    bytes_max = bytes_max,
    dropped = 0,
    rest = new_route(),
    routes = {},
    by_topic = {},
    topics = 0,
    shares = {},
  }, Inbox)
end

return inbox
