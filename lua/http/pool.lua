--- Connections that wait for their next exchange, by origin. Nothing runs here by itself: what is too old is closed
--- when somebody asks or brings something back.

local connection = require("http.connection")
local cosocket = require("cosocket")
local target = require("http.target")

local now = cosocket.now

--- Seconds after which the first who waits for a connection looks for ones that nobody will bring back: their tasks were
--- cancelled.
local LOOK_AGAIN = 0.1
--- Seconds in which nothing can have come: the loop has not looked.
local UNSEEN = 0.0005
--- Seconds before the other side's own limit at which a connection is old.
local MARGIN = 1

---@class http.PoolOrigin
---@field key string
---@field idle http.Connection[] The one used last is the last.
---@field busy table<http.Connection, true> Weak: a response that is forgotten gives its place back.
---@field opening integer
---@field waiting {event: cosocket.Event, connection: http.Connection?}[]

---@class http.Pool
---@field private origins table<string, http.PoolOrigin>
---@field private idle_count integer
---@field private connections_max integer Per origin.
---@field private idle_max integer In all.
---@field private keep_alive number
---@field private closed boolean
local Pool = {}
Pool.__index = Pool
Pool.__name = "http.Pool"

local pool = {}

---@param connections_max integer
---@param idle_max integer
---@param keep_alive number
---@return http.Pool
function pool.new(connections_max, idle_max, keep_alive)
  return setmetatable({
    origins = {},
    idle_count = 0,
    connections_max = connections_max,
    idle_max = idle_max,
    keep_alive = keep_alive,
    closed = false,
  }, Pool)
end

---@param key string
---@return http.PoolOrigin
local function new_origin(key)
  return { key = key, idle = {}, busy = setmetatable({}, { __mode = "k" }), opening = 0, waiting = {} }
end

--- How many connections an origin has in use. Those whose task was cancelled have been closed, and count no more.
---@param origin http.PoolOrigin
---@return integer
local function count_busy(origin)
  local count = origin.opening
  for used in pairs(origin.busy) do
    if used.stream:peer_address() then count = count + 1 else origin.busy[used] = nil end
  end
  return count
end

--- A connection that is idle and fit, or nothing.
---@async
---@param origin http.PoolOrigin
---@param sure boolean? Look even where hardly anything can have come.
---@return http.Connection?
function Pool:take_idle(origin, sure)
  local idle = origin.idle
  local count = #idle
  if count == 0 then return nil end
  local at = now()
  repeat
    local found = idle[count]
    idle[count] = nil
    self.idle_count = self.idle_count - 1
    local age = at - found.idle_since
    if age < found.keep_alive and (not sure and age < UNSEEN or found:is_fresh()) then
      origin.busy[found] = true
      return found
    end
    found:close()
    -- Others may have come and gone meanwhile.
    count = #idle
  until count == 0
end

--- A connection for a call: an idle one, a new one, or the next that is given back.
---@async
---@param route http.Route
---@param call http.Call
---@param to http.Target
---@param fresh? boolean Not one that has been used before.
---@param sure? boolean The request cannot be sent twice: look closely at what is idle.
---@return http.Connection? connection
---@return cosocket.Error? err
function Pool:acquire(route, call, to, fresh, sure)
  local key = route.key
  local origin = self.origins[key]
  if origin and not fresh then
    local found = self:take_idle(origin, sure)
    if found then return found end
  end
  if self.closed then return nil, cosocket.error("closed", "http", "the client is closed") end
  local deadline, timeout = call.deadline, call.settings.connect_timeout
  origin = self.origins[key]
  if not origin then
    origin = new_origin(key)
    self.origins[key] = origin
  end
  if count_busy(origin) + #origin.idle >= self.connections_max or origin.waiting[1] then
    if #origin.idle > 0 then
      -- A fresh one is wanted: it takes the place of one that is idle.
      table.remove(origin.idle, 1):close()
      self.idle_count = self.idle_count - 1
    else
      local ok, err = self:wait(origin, deadline)
      if not ok then return nil, err end
      if ok ~= true then
        ---@cast ok http.Connection
        if not fresh and ok:is_fresh() then return ok end
        origin.busy[ok] = nil
        ok:close()
      end
    end
  end
  origin.opening = origin.opening + 1
  self:sweep()
  -- Closed when the task is cancelled meanwhile, too.
  local opening <close> = setmetatable({}, {
    __close = function()
      origin.opening = origin.opening - 1
      if #origin.waiting > 0 then self:serve(origin) end
    end,
  })
  local stream, err = target.dial(to, route, math.max(0, math.min(timeout, deadline - now())))
  if not stream then return nil, err end
  if self.closed then
    stream:close()
    return nil, cosocket.error("closed", "http", "the client is closed")
  end
  local made = connection.new(stream, origin)
  origin.busy[made] = true
  return made
end

--- Waits in line for a place, which may come with a connection in it.
---@private
---@async
---@param origin http.PoolOrigin
---@param deadline number
---@return http.Connection|true|nil place
---@return cosocket.Error? err
function Pool:wait(origin, deadline)
  local mine = { event = cosocket.event() } ---@type {event: cosocket.Event, connection: http.Connection?}
  table.insert(origin.waiting, mine)
  local place <close> = setmetatable({}, {
    __close = function()
      for i, other in ipairs(origin.waiting) do
        if other == mine then table.remove(origin.waiting, i) end
      end
      -- Given, but never taken: the task was cancelled.
      if mine.connection then self:release(mine.connection, true) end
      -- There may be places for others, too.
      self:serve(origin)
    end,
  })
  while true do
    local seconds = deadline - now()
    if seconds <= 0 then
      local message = ("all %d connections to the server are in use (connections_max)"):format(self.connections_max)
      return nil, cosocket.error("timeout", "http", message)
    end
    -- Who becomes the first is told.
    local _, err = cosocket.select(mine.event, origin.waiting[1] == mine and math.min(seconds, LOOK_AGAIN) or seconds)
    if type(err) == "table" then return nil, err end
    if self.closed then return nil, cosocket.error("closed", "http", "the client is closed") end
    local given = mine.connection
    if given then
      mine.connection = nil
      return given
    end
    if origin.waiting[1] == mine and count_busy(origin) + #origin.idle < self.connections_max then return true end
    mine.event:clear()
  end
end

--- Tells the first in line that there is a place.
---@private
---@param origin http.PoolOrigin
---@param given? http.Connection
function Pool:serve(origin, given)
  local first = origin.waiting[1]
  if not first then return end
  if given then
    table.remove(origin.waiting, 1)
    first.connection = given
  end
  first.event:set()
end

--- Takes a connection back. `keep`: another exchange may follow, and nothing of this one is left.
---@param used http.Connection
---@param keep boolean
function Pool:release(used, keep)
  local origin = used.origin
  if not keep or self.closed then
    origin.busy[used] = nil
    used:close()
    if origin.waiting[1] then self:serve(origin) end
    return
  end
  used.reused = true
  if origin.waiting[1] then return self:serve(origin, used) end
  origin.busy[used] = nil
  used.idle_since = now()
  local idle, count = origin.idle, self.idle_count + 1
  idle[#idle + 1] = used
  self.idle_count = count
  if count > self.idle_max then self:sweep(true) end
end

--- What is no longer the pool's: it was upgraded, say.
---@param used http.Connection
function Pool:give_up(used)
  used.origin.busy[used] = nil
  if #used.origin.waiting > 0 then self:serve(used.origin) end
end

--- Closes what has been idle for too long; and, with `one`, the one that has been for longest.
---@private
---@param one? boolean
function Pool:sweep(one)
  local at, oldest = now(), nil ---@type number, http.PoolOrigin?
  for key, origin in pairs(self.origins) do
    local idle = origin.idle
    while idle[1] and at - idle[1].idle_since >= self.keep_alive do
      table.remove(idle, 1):close()
      self.idle_count = self.idle_count - 1
    end
    if idle[1] and (not oldest or idle[1].idle_since < oldest.idle[1].idle_since) then oldest = origin end
    if not idle[1] and origin.opening == 0 and not next(origin.busy) and #origin.waiting == 0 then
      self.origins[key] = nil
    end
  end
  if one and oldest and self.idle_count > self.idle_max then
    table.remove(oldest.idle, 1):close()
    self.idle_count = self.idle_count - 1
  end
end

--- Remembers for how long the other side keeps an idle connection: `Keep-Alive: timeout=5, max=100`.
---@param used http.Connection
---@param field string?
function Pool:note_keep_alive(used, field)
  local seconds = field and tonumber(field:match("timeout=%s*\"?(%d+)"))
  used.keep_alive = math.min(self.keep_alive, seconds and math.max(0, seconds - MARGIN) or math.huge)
end

--- How many connections are open: in use, and idle.
---@return integer busy
---@return integer idle
function Pool:count()
  local busy = 0
  for _, origin in pairs(self.origins) do busy = busy + count_busy(origin) end
  return busy, self.idle_count
end

--- Closes what is idle; what is in use is closed when it comes back.
function Pool:close()
  self.closed = true
  for _, origin in pairs(self.origins) do
    for _, idle in ipairs(origin.idle) do idle:close() end
    origin.idle = {}
    for _, waiting in ipairs(origin.waiting) do waiting.event:set() end
  end
  self.idle_count = 0
end

return pool
