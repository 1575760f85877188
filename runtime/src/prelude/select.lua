-- Waiting for the first of several things.

local native, cosocket, ours = ...

local error, getmetatable, pairs, select, setmetatable, type = error, getmetatable, pairs, select, setmetatable, type
local mistake, Queue, Event = ours.mistake, ours.Queue, ours.Event
local park, current, now = native.park, native.current, native.now

--- How to look at, watch and stop watching each kind of thing.
local CASES = {
  queue = {
    ready = function(queue) return #queue > 0 or queue.closed end,
    watch = function(queue, me) queue.watchers[me] = true end,
    unwatch = function(queue, me) queue.watchers[me] = nil end,
  },
  event = {
    ready = function(event) return event.value end,
    watch = function(event, me)
      event.watchers = event.watchers or {}
      event.watchers[me] = true
    end,
    unwatch = function(event, me) event.watchers[me] = nil end,
  },
  socket = { ready = native.is_readable, watch = native.watch_socket, unwatch = native.unwatch_socket },
  task = { ready = native.has_ended, watch = native.watch_task, unwatch = native.unwatch_task },
}

local function case_of(value)
  local metatable = getmetatable(value)
  if metatable == Queue then return CASES.queue end
  if metatable == Event then return CASES.event end
  return CASES[native.kind(value)]
end

--- The watching of one `select`: taken back whichever way it ends.
local Watch = {}

function Watch.__close(watch)
  for value, case in pairs(watch.cases) do case.unwatch(value, watch.me) end
end

local function first_ready(values, count, started)
  for i = 1, count do
    local value = values[i]
    if type(value) == "number" then
      if now() >= started + value then return value, i end
    elseif case_of(value).ready(value) then
      return value, i
    end
  end
end

function cosocket.select(...)
  local values, count = { ... }, select("#", ...)
  local started, soonest = now(), nil
  if count == 0 then mistake("select", "select wants something to wait for", 2) end
  for i = 1, count do
    local value = values[i]
    if type(value) == "number" then
      if value ~= value then mistake("select", ("argument #%d is not a number of seconds"):format(i), 2) end
      if not soonest or value < soonest then soonest = value end
    elseif not case_of(value) then
      mistake("select", ("argument #%d: a %s cannot be waited for"):format(i, type(value)), 2)
    end
  end
  while true do
    local value, index = first_ready(values, count, started)
    if index then return value, index end
    local ok, err
    do
      local watch <close> = setmetatable({ cases = {}, me = current() }, Watch)
      for i = 1, count do
        local case = type(values[i]) ~= "number" and case_of(values[i])
        if case then
          local watched, why = case.watch(values[i], watch.me)
          if why then return nil, why end
          watch.cases[values[i]] = case
        end
      end
      ok, err = park("select", soonest and started + soonest)
    end
    if not ok then
      if err.kind == "cancelled" then error(err, 0) end
      value, index = first_ready(values, count, started)
      if index then return value, index end
      return nil, err
    end
  end
end
