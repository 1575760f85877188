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
---@field asking integer How many who take them wait for an answer of the server.
---@field arrived cosocket.Event? Set when a message comes, for who waits.
---@field name string? Of the tasks that run the handler.
---@field workers integer? How many tasks run the handler.
---@field concurrency integer? How many may.
---@field manual boolean? The handler acknowledges by hand.
---@field identifier integer? The Subscription Identifier its messages come with.
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
---@field private sole table<string, mqtt.Route> The only route of messages to a topic that come without properties.
---@field private by_identifier table<integer, table<string, mqtt.Route[]>>
---@field private topics integer
---@field private shares table<mqtt.Publish, integer> Messages of QoS 1 and 2 on more than one route.
local Inbox = {}
Inbox.__index = Inbox

---@param filter string?
---@param handler function?
---@param options {identifier?: integer, concurrency?: integer, manual?: boolean}?
---@return mqtt.Route
local function new_route(filter, handler, options)
  local route = { filter = filter, handler = handler, taken = handler ~= nil, asking = 0, first = 1, last = 0 }
  if handler then
    route.name, route.workers = ("mqtt handler of %s"):format(filter), 0
    route.concurrency = options and options.concurrency or 1
    route.manual = options and options.manual
    route.identifier = options and options.identifier
  end
  return route
end

---@private
function Inbox:forget_topics()
  self.by_topic, self.sole, self.by_identifier, self.topics = {}, {}, {}, 0
end

--- Adds a taker for `filter`.
---@param filter string
---@param handler? fun(message: mqtt.Publish, client: mqtt.Client)
---@param options? {identifier?: integer, concurrency?: integer, manual?: boolean}
---@return mqtt.Route
function Inbox:add(filter, handler, options)
  local route = new_route(filter, handler, options)
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

--- Who takes messages to `topic` that came by the subscriptions with `identifiers`. The server may send a copy for each
--- subscription (3.3.4): each goes to its own handler, and to those whose subscription has no identifier. A message
--- that none of these takes, as one that an older session left behind, goes to all whose filter matches.
---@private
---@param topic string
---@param identifiers integer[]?
---@return mqtt.Route[]
function Inbox:find_routes(topic, identifiers)
  local wanted = {}
  for _, identifier in ipairs(identifiers or {}) do wanted[identifier] = true end
  local found, all = {}, {}
  for _, route in ipairs(self.routes) do
    if matches(route.filter, topic) then
      all[#all + 1] = route
      if not route.identifier or wanted[route.identifier] then found[#found + 1] = route end
    end
  end
  if #found == 0 then found = all end
  if #found == 0 then found[1] = self.rest end
  return found
end

--- The same, as far as it is known from earlier messages.
---@private
---@param message mqtt.Publish
---@return mqtt.Route[]
function Inbox:routes_of(message)
  local topic, known = message.topic, self.by_topic
  local properties = message.properties
  local identifiers = properties and properties.subscription_identifier
  if identifiers then
    -- Several at once are rare, and not worth remembering.
    if identifiers[2] then return self:find_routes(topic, identifiers) end
    known = self.by_identifier[identifiers[1]]
    if not known then
      known = {}
      self.by_identifier[identifiers[1]] = known
    end
  end
  local routes = known[topic]
  if routes then return routes end
  if self.topics >= TOPICS_MAX then
    self:forget_topics()
    return self:routes_of(message)
  end
  routes = self:find_routes(topic, identifiers)
  known[topic], self.topics = routes, self.topics + 1
  if known == self.by_topic and not routes[2] then self.sole[topic] = routes[1] end
  return routes
end

--- Puts a message where it belongs. Answers `true`, or the routes that got it when one of them may need another worker,
--- or `nil` when it was dropped: there is no room and nobody who makes any.
---@param message mqtt.Publish
---@return mqtt.Route[]|true|nil routes
function Inbox:deliver(message)
  local topic, bytes = message.topic, self.bytes
  local route = self.sole[topic]
  if route and bytes < self.bytes_max and not message.properties then
    -- Nearly all messages: as below, in short.
    local last, arrived = route.last + 1, route.arrived
    route.last = last
    route[last] = message
    self.bytes = bytes + #topic + #message.payload + MESSAGE_COST
    if arrived and last == route.first then arrived:set() end
    return route.workers == route.concurrency or self.by_topic[topic]
  end
  local routes = self:routes_of(message)
  if self.bytes >= self.bytes_max then
    local taken = false
    for _, route in ipairs(routes) do taken = taken or (route.taken and (message.qos > 0 or route.asking == 0)) end
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
    if route.taken and route.asking == 0 and route.first <= route.last then return true end
  end
  local rest = self.rest
  return rest.taken and rest.asking == 0 and rest.first <= rest.last
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
    sole = {},
    by_identifier = {},
    topics = 0,
    shares = {},
  }, Inbox)
end

return inbox
