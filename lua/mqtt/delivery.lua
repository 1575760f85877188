--- Brings received messages to those who take them, handlers and loops, and says when reading shall stop: a slow
--- taker holds the server back and is not drowned.

local cosocket = require("cosocket")
local inboxes = require("mqtt.inbox")
local log = require("log").new("mqtt")

local running = coroutine.running

local delivery = {}

---@class mqtt.Delivery
---@field inbox mqtt.Inbox
---@field holding boolean Nothing is read until `room` is set.
---@field room cosocket.Event
---@field private over boolean No more will come.
---@field private closed boolean What waits is not wanted any more either.
---@field private client mqtt.Client
---@field private acknowledge fun(message: mqtt.Publish, reason_code: integer?)
---@field private by_hand table<mqtt.Publish, true> Messages that a handler is to acknowledge.
---@field private takers table<thread, mqtt.Route> Coroutines that take messages.
local Delivery = {}
Delivery.__index = Delivery

-- Room ------------------------------------------------------------------------

--- Nothing will be read until `room` is set.
function Delivery:hold()
  self.room:clear()
  self.holding = true
end

--- Lets the owner read on, when so much has been taken that it may.
---@private
function Delivery:make_room()
  if self.holding and self.inbox:has_room() then
    self.holding = false
    self:go_on()
  end
end

--- Ends the wait for room.
function Delivery:go_on()
  self.room:set()
  local stream = self.client.stream
  if stream then stream:wake() end
end

--- Waits with `wait(object)` for something that may come after what was received and is not taken yet: when it
--- is a taker of messages that waits, reading must go on.
---@async
---@generic T
---@param wait fun(object: T): true?, cosocket.Error?
---@param object T
---@return true? ok
---@return cosocket.Error? err
function Delivery:wait(wait, object)
  local route = self.takers[running()]
  if not route then return wait(object) end
  route.asking = route.asking + 1
  self:make_room()
  local ok, err = wait(object)
  route.asking = route.asking - 1
  return ok, err
end

-- Done with messages ----------------------------------------------------------

--- Acknowledges a message, once everybody who got it is done with it.
---@private
---@param message mqtt.Publish
---@param reason_code? integer
function Delivery:finish(message, reason_code)
  if message.qos > 0 and self.inbox:finish(message) then self.acknowledge(message, reason_code) end
end

--- A handler that acknowledges by hand is done with a message.
---@param message mqtt.Publish
---@param reason_code? integer
function Delivery:acknowledge_by_hand(message, reason_code)
  if not self.by_hand[message] then return end
  self.by_hand[message] = nil
  self:finish(message, reason_code)
end

---@private
---@param messages mqtt.Publish[]
function Delivery:finish_all(messages)
  for _, message in ipairs(messages) do self:finish(message) end
  self:make_room()
end

--- Forgets a taker; what waited for it is acknowledged.
---@param route mqtt.Route
function Delivery:drop(route)
  self:finish_all(self.inbox:remove(route))
end

--- Forgets the handlers of a filter.
---@param filter string
---@param kept? mqtt.Route But for this one.
function Delivery:drop_handlers(filter, kept)
  self:finish_all(self.inbox:remove_handlers(filter, kept))
end

-- Handlers --------------------------------------------------------------------

--- What went wrong in a script's function and where; a cancellation goes through as it is.
---@param err any
---@return cosocket.Error|{message: string, traceback: string}
local function failure(err)
  if cosocket.is_error(err, "cancelled") then return err end
  return { message = tostring(err), traceback = debug.traceback("", 2) }
end

--- Runs a function of the script's. An error in it is told, and the client lives on.
---@async
---@param what string How it is called where it is told.
---@param topic string? Of the message it is about.
---@param fn function
---@param ... any
function delivery.attempt(what, topic, fn, ...)
  local ok, err = xpcall(fn, failure, ...)
  if ok then return end
  if cosocket.is_error(err) then error(err, 0) end
  log.error(("%s failed: %s"):format(what, err.message), { topic = topic, traceback = err.traceback })
end

--- Runs a handler for all that waits for it, one message after another: a task.
---@async
---@param self mqtt.Delivery
---@param route mqtt.Route
local function work(self, route)
  local me, inbox, handler = running(), self.inbox, route.handler --[[@as function]]
  local what = ("the handler of %q"):format(route.filter)
  self.takers[me] = route
  local done <close> = setmetatable({}, {
    __close = function()
      route.workers, self.takers[me] = route.workers - 1, nil
    end,
  })
  while not self.closed do
    local message = inbox:take(route)
    if not message then return end
    if self.holding then self:make_room() end
    local by_hand = route.manual and message.qos > 0
    if by_hand then self.by_hand[message] = true end
    delivery.attempt(what, message.topic, handler, message, self.client)
    if message.qos > 0 and not by_hand then self:finish(message) end
  end
end

--- Gives a message to those who take it.
---@param message mqtt.Publish
function Delivery:deliver(message)
  local inbox = self.inbox
  local routes = inbox:deliver(message)
  if routes == true then return end
  if not routes then
    if inbox.dropped == 1 then
      log.warn("nobody takes messages, and receive_queue_max is reached: they are dropped", { topic = message.topic })
    end
    if message.qos > 0 then self.acknowledge(message) end
    return
  end
  for i = 1, #routes do
    local route = routes[i]
    local workers = route.workers
    if workers and workers < route.concurrency and route.first <= route.last then
      route.workers = workers + 1
      cosocket.spawn(route.name, work, self, route)
    end
  end
end

-- Loops -----------------------------------------------------------------------

--- The iterator of `client:messages(filter)`.
---@async
---@param filter string?
---@return fun(): mqtt.Publish?
function Delivery:messages(filter)
  local inbox = self.inbox
  local route = filter and inbox:add(filter) or inbox.rest
  if filter then inbox:claim_rest(route) end
  local current ---@type mqtt.Publish?
  local taker ---@type thread?
  --- The loop's body is done with a message.
  local function release()
    if current and current.qos > 0 then self:finish(current) end
    current = nil
  end
  --- Somebody runs the loop, or nobody does any more.
  local function set_taker(new)
    if taker then self.takers[taker] = nil end
    if new then self.takers[new] = route end
    taker, route.taken = new, new ~= nil
  end
  ---@async
  local function next_message()
    if current then release() end
    local me = running()
    if me ~= taker then set_taker(me) end
    while not self.closed do
      local message = inbox:take(route)
      if message then
        current = message
        if self.holding then self:make_room() end
        return message
      end
      if self.over then return nil end
      local arrived = route.arrived or cosocket.event()
      route.arrived = arrived
      arrived:clear()
      local ok, err = arrived:wait()
      if not ok then error(err, 0) end
    end
  end
  local guard = setmetatable({}, {
    __close = function()
      release()
      set_taker(nil)
      if filter then self:drop(route) end
    end,
  })
  return next_message, nil, nil, guard
end

--- No more will come: loops end when they have taken what is left, or at once when the client was `closed`.
---@param closed boolean
function Delivery:finish_up(closed)
  self.over, self.closed = true, closed
  self.holding = false
  self:go_on()
  for route in self.inbox:each() do
    if route.arrived then route.arrived:set() end
  end
end

---@param client mqtt.Client What handlers are given with a message.
---@param bytes_max integer Bytes that may wait.
---@param acknowledge fun(message: mqtt.Publish, reason_code: integer?) Called when everybody is done with a message of QoS 1 or 2.
---@return mqtt.Delivery
function delivery.new(client, bytes_max, acknowledge)
  return setmetatable({
    inbox = inboxes.new(bytes_max),
    holding = false,
    room = cosocket.event(),
    over = false,
    closed = false,
    client = client,
    acknowledge = acknowledge,
    takers = setmetatable({}, { __mode = "k" }),
    by_hand = setmetatable({}, { __mode = "k" }),
  }, Delivery)
end

return delivery
