-- Queues, semaphores, events: what tasks wait for that is not a socket.

local native, cosocket, ours = ...

local error, getmetatable, next, pairs, setmetatable = error, getmetatable, next, pairs, setmetatable
local mistake, park, wake, current = ours.mistake, native.park, native.wake, native.current

--- Those who wait, in order. One that gave up leaves a hole.
local Line = { first = 1, last = 0 }
Line.__index = Line

local function new_line()
  return setmetatable({}, Line)
end

--- Waits in line. Answers the place, whose `done` says whether it was served, and how the wait ended.
function Line:wait(op, place)
  local last = self.last + 1
  place.task, place.done = current(), false
  self.last = last
  self[last] = place
  local ok, err = park(op)
  -- Meanwhile the line may have been emptied, and somebody else stand in this place.
  if self[last] == place then self[last] = nil end
  return ok, err
end

--- Takes the first who still waits, wakes it and answers its place.
function Line:serve()
  while self.first <= self.last do
    local place = self[self.first]
    self[self.first] = nil
    self.first = self.first + 1
    if place then
      place.done = true
      if wake(place.task) then return place end
      place.done = false
    end
  end
  self.first, self.last = 1, 0
end

function Line:serve_all()
  while self:serve() do end
end

function Line:is_empty()
  while self.first <= self.last do
    if self[self.first] then return false end
    self.first = self.first + 1
  end
  return true
end

--- A wait that ended without being served: raises a cancellation, answers the rest.
local function unserved(err)
  if err and err.kind == "cancelled" then error(err, 0) end
  return nil, err
end

--- Tells those who watch an object through `select` that something has changed.
local function tell(watchers)
  for task in pairs(watchers) do wake(task) end
end

--- Raises when a method is called on something else.
local function check_self(metatable, self, method)
  if getmetatable(self) == metatable then return end
  local kind = metatable.__name:match("%a+$"):lower()
  mistake(("%s:%s"):format(kind, method), ("call this with a colon, on a %s: %s:%s()"):format(kind, kind, method), 3)
end

local Queue = { __name = "cosocket.Queue" }
Queue.__index = Queue

function cosocket.queue(capacity)
  if capacity == nil then capacity = 128 end
  if math.type(capacity) ~= "integer" or capacity < 1 then
    mistake("queue", "queue wants a capacity of 1 or more", 2)
  end
  return setmetatable({
    capacity = capacity, first = 1, last = 0, items = {}, closed = false,
    getters = new_line(), putters = new_line(), watchers = {},
  }, Queue)
end

function Queue:__len()
  return self.last - self.first + 1
end

local function queue_closed(op)
  return nil, cosocket.error("closed", op, "the queue is closed")
end

local function append(queue, value)
  queue.last = queue.last + 1
  queue.items[queue.last] = value
  if next(queue.watchers) then tell(queue.watchers) end
end

function Queue:try_put(value)
  check_self(Queue, self, "try_put")
  if value == nil then mistake("queue:put", "nil cannot be put into a queue", 2) end
  if self.closed then return queue_closed("queue:put") end
  local place = #self == 0 and self.getters:serve()
  if place then
    place.value = value
    return true
  end
  if #self >= self.capacity then
    return nil, cosocket.error("limit", "queue:put", ("the queue is full; its capacity is %d"):format(self.capacity))
  end
  append(self, value)
  return true
end

function Queue:put(value)
  check_self(Queue, self, "put")
  if value == nil then mistake("queue:put", "nil cannot be put into a queue", 2) end
  if self.closed or #self < self.capacity then return self:try_put(value) end
  local place = { value = value }
  local _, err = self.putters:wait("queue:put", place)
  if place.done and place.taken then return true end
  if self.closed then return queue_closed("queue:put") end
  return unserved(err)
end

function Queue:try_get()
  check_self(Queue, self, "try_get")
  if #self == 0 then
    if self.closed then return queue_closed("queue:get") end
    return nil
  end
  local value = self.items[self.first]
  self.items[self.first] = nil
  self.first = self.first + 1
  if self.first > self.last then self.first, self.last = 1, 0 end
  if not self.closed then
    local place = self.putters:serve()
    if place then
      place.taken = true
      append(self, place.value)
    end
  end
  return value
end

function Queue:get()
  check_self(Queue, self, "get")
  if #self > 0 or self.closed then return self:try_get() end
  local place = {}
  local _, err = self.getters:wait("queue:get", place)
  if place.done and place.value ~= nil then return place.value end
  if self.closed then return queue_closed("queue:get") end
  return unserved(err)
end

function Queue:close()
  check_self(Queue, self, "close")
  if self.closed then return end
  self.closed = true
  self.getters:serve_all()
  self.putters:serve_all()
  tell(self.watchers)
end

Queue.__close = Queue.close

--- `for value in queue do`: until it is closed; a deadline that passes raises.
function Queue:__call()
  local value, err = self:get()
  if value == nil and err.kind ~= "closed" then error(err, 0) end
  return value
end

local Permit = { __name = "cosocket.Permit" }
Permit.__index = Permit

function Permit:release()
  check_self(Permit, self, "release")
  local semaphore = self.semaphore
  if not semaphore then return end
  self.semaphore = nil
  if not semaphore.waiters:serve() then semaphore.free = semaphore.free + 1 end
end

Permit.__close = Permit.release

local Semaphore = { __name = "cosocket.Semaphore" }
Semaphore.__index = Semaphore

function cosocket.semaphore(n)
  if math.type(n) ~= "integer" or n < 1 then mistake("semaphore", "semaphore wants a number of permits, 1 or more", 2) end
  return setmetatable({ free = n, waiters = new_line() }, Semaphore)
end

function Semaphore:try_acquire()
  check_self(Semaphore, self, "try_acquire")
  if self.free == 0 then return nil end
  self.free = self.free - 1
  return setmetatable({ semaphore = self }, Permit)
end

function Semaphore:acquire()
  check_self(Semaphore, self, "acquire")
  local permit = self:try_acquire()
  if permit then return permit end
  local place = {}
  local _, err = self.waiters:wait("semaphore:acquire", place)
  if place.done then return setmetatable({ semaphore = self }, Permit) end
  return unserved(err)
end

--- There are many events, and most are never waited for, or by one task: others stand in line behind the `waiter`.
local Event = { __name = "cosocket.Event", value = false }
Event.__index = Event

function cosocket.event()
  return setmetatable({}, Event)
end

function Event:set()
  check_self(Event, self, "set")
  if self.value then return end
  self.value = true
  local waiter = self.waiter
  -- One whose wait has ended otherwise finds itself here still.
  if waiter and wake(waiter) then self.waiter = nil end
  if self.line then self.line:serve_all() end
  if self.watchers then tell(self.watchers) end
end

function Event:clear()
  check_self(Event, self, "clear")
  self.value = false
end

function Event:is_set()
  check_self(Event, self, "is_set")
  return self.value
end

function Event:wait()
  check_self(Event, self, "wait")
  if self.value then return true end
  local line = self.line
  if not self.waiter and (not line or line:is_empty()) then
    local me = current()
    self.waiter = me
    local _, err = park("event:wait")
    if self.waiter ~= me then return true end
    self.waiter = nil
    return unserved(err)
  end
  line = line or new_line()
  self.line = line
  local place = {}
  local _, err = line:wait("event:wait", place)
  if place.done then return true end
  return unserved(err)
end

ours.Queue, ours.Event = Queue, Event
