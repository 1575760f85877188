-- Tasks: groups, deadlines, an orderly stop. Answers the function that runs when a stop is asked for.

local native, cosocket, ours = ...

local error, ipairs, setmetatable, type, xpcall = error, ipairs, setmetatable, type, xpcall
local blame, mistake, now = ours.blame, ours.mistake, native.now

cosocket.spawn = native.spawn
cosocket.spawn_then = native.spawn_then
cosocket.aside = native.aside
cosocket.sleep = native.sleep
cosocket.now = now
cosocket.time = native.time
cosocket.tasks = native.tasks

function cosocket.stop(status)
  return blame(1, native.stop(status))
end

local Scope = {}

function Scope.__close(scope, err)
  local token = scope.token
  if err ~= nil or not coroutine.isyieldable() then native.group_cancel(token) end
  if coroutine.isyieldable() then native.group_wait(token) end
  local failed = native.group_leave(token)
  if not failed then
    -- Children that were cut short with this task have not done their work.
    if err == nil then native.check() end
    return
  end
  -- The body's own error comes first, unless it is only the echo of the child's.
  if err == nil or cosocket.is_error(err, "cancelled") then native.raise_failure(failed, scope.place) end
  native.release(failed)
end

function cosocket.group(fn, ...)
  if type(fn) ~= "function" then mistake("group", "group wants a function", 2) end
  -- Where it stands must be known before: when a child's error is raised here, the calls are gone.
  local caller = debug.getinfo(2, "Sl")
  local place = caller and ("%s:%d"):format(caller.short_src, caller.currentline)
  local scope <close> = setmetatable({ token = native.group_enter(), place = place }, Scope)
  return fn(...)
end

local function note(err)
  if not cosocket.is_error(err, "timeout") then native.note(err, debug.traceback("", 2)) end
  return err
end

local function after_deadline(previous, at, ok, ...)
  native.set_deadline(previous, true)
  local first, second = ...
  local passed = now() >= at
  if ok then
    -- Work that was cut short and has nothing to say for itself has timed out.
    if first == nil and second == nil and passed then
      return nil, cosocket.error("timeout", "deadline", "the deadline has passed")
    end
    return ...
  end
  if passed and cosocket.is_error(first, "timeout") then return nil, first end
  error(first, 0)
end

function cosocket.deadline(seconds, fn, ...)
  if type(seconds) ~= "number" or seconds ~= seconds then mistake("deadline", "deadline wants a number of seconds", 2) end
  if type(fn) ~= "function" then mistake("deadline", "deadline wants a function after the seconds", 2) end
  local at = now() + seconds
  return after_deadline(native.set_deadline(at, false), at, xpcall(fn, note, ...))
end

local stop_handlers = {}

function cosocket.on_stop(fn)
  if type(fn) ~= "function" then mistake("on_stop", "on_stop wants a function", 2) end
  local entry = { fn = fn }
  stop_handlers[#stop_handlers + 1] = entry
  return function()
    for i, other in ipairs(stop_handlers) do
      if other == entry then table.remove(stop_handlers, i) break end
    end
  end
end

--- Says goodbye, then ends every other task. Runs in a task of its own when a stop is asked for.
local function stop()
  local handlers = stop_handlers
  stop_handlers = {}
  local tasks = {}
  for i, entry in ipairs(handlers) do tasks[i] = native.spawn("on_stop", entry.fn) end
  -- Not joined: what one of them raises is reported.
  for _, task in ipairs(tasks) do pcall(cosocket.select, task) end
  native.cancel_others()
end

return stop
