-- What is easier said in Lua: groups, deadlines, queues, select, and a `require` that may wait.
-- Runs once per state; `native` is the table of primitives, and the answer is what `lua.rs` keeps.

local native, cosocket = ...

local error, ipairs, next, pairs, rawget, rawset, select, setmetatable, getmetatable, tostring, type, xpcall =
  error, ipairs, next, pairs, rawget, rawset, select, setmetatable, getmetatable, tostring, type, xpcall
local park, wake, current, now = native.park, native.wake, native.current, native.now

-- Errors ----------------------------------------------------------------------

local Error = native.error_metatable
Error.__name = "cosocket.Error"
Error.__index = nil

function Error.__tostring(err)
  local text = tostring(err.op) .. ": " .. tostring(err.message)
  if err.kind == "argument" then return tostring(err.message) end
  if err.code ~= nil then return ("%s (%s, %s)"):format(text, err.kind, err.code) end
  return ("%s (%s)"):format(text, err.kind)
end

local KINDS = {
  closed = true, refused = true, protocol = true, timeout = true, cancelled = true, limit = true,
  resolve = true, connect = true, tls = true, io = true, argument = true,
}

--- Raises a mistake of the caller, `level` calls above this one.
local function mistake(op, message, level)
  local where = ""
  local info = debug.getinfo(level + 1, "Sl")
  if info and info.currentline > 0 then where = ("%s:%d: "):format(info.short_src, info.currentline) end
  error(setmetatable({ kind = "argument", op = op, message = where .. message }, Error), 0)
end

function cosocket.error(kind, op, message, fields)
  if not KINDS[kind] then mistake("error", ("unknown kind %q"):format(tostring(kind)), 2) end
  if fields ~= nil and type(fields) ~= "table" then mistake("error", "the fields must be a table", 2) end
  local err = setmetatable({ kind = kind, op = op, message = message }, Error)
  if fields then
    for name, value in pairs(fields) do err[name] = value end
  end
  return err
end

function cosocket.is_error(value, kind)
  return getmetatable(value) == Error and (kind == nil or value.kind == kind)
end

--- Edits between two words, to guess what a misspelt option was meant to be.
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      diagonal, row[j] = row[j], math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
    end
  end
  return row[#b]
end

local function nearest(name, known)
  local best, least
  for candidate in pairs(known) do
    local d = distance(name, candidate)
    if not least or d < least or (d == least and candidate < best) then best, least = candidate, d end
  end
  if least and least <= math.max(2, #name // 3) then return best end
end

--- Checks a table of options: unknown keys and wrong types raise, and blame the caller's caller.
---
--- `known` maps each option to its type: `"number"`, or several as `"boolean|table"`.
local function check_options(op, given, known, level)
  level = (level or 2) + 1
  if given == nil then return {} end
  if type(given) ~= "table" then
    mistake(op, ("the options must be a table, not a %s"):format(type(given)), level)
  end
  for name, value in pairs(given) do
    local wanted = known[name]
    if not wanted then
      local hint = type(name) == "string" and nearest(name, known)
      mistake(op, ("unknown option %q%s"):format(tostring(name), hint and ("; did you mean %q?"):format(hint) or ""), level)
    end
    local found = math.type(value) or type(value)
    local is_number = found == "integer" or found == "float"
    local fits = found == wanted or is_number and wanted == "number"
    if not fits then
      for one in wanted:gmatch("[^|]+") do
        fits = fits or one == found or is_number and one == "number"
      end
    end
    if not fits then
      mistake(op, ("option %q must be a %s, not a %s"):format(name, wanted:gsub("|", " or a "), found), level)
    end
    if type(value) == "number" and (value ~= value or value < 0) then
      mistake(op, ("option %q must not be negative"):format(name), level)
    end
  end
  return given
end
cosocket.check_options = check_options

--- Raises what native code found to be the caller's mistake; passes everything else on. `level` counts the
--- calls above this one: a function that answers with `return blame(...)` is none.
local function blame(level, value, err, ...)
  if value == nil and err ~= nil and getmetatable(err) == Error and err.kind == "argument" then
    mistake(err.op, err.message, level + 1)
  end
  return value, err, ...
end

-- Tasks -----------------------------------------------------------------------

cosocket.spawn = native.spawn
cosocket.sleep = native.sleep
cosocket.now = now
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

-- Queues, semaphores, events --------------------------------------------------

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

-- Select ----------------------------------------------------------------------

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

-- Sockets ---------------------------------------------------------------------

local TLS_OPTIONS = {
  ca = "string|table", certificate = "string", key = "string", server_name = "string", alpn = "table",
  pin_sha256 = "string|table", min_version = "string", insecure = "boolean",
}
local TLS_SERVER_OPTIONS = {
  certificate = "string", key = "string", certificates = "table", client_ca = "string|table",
  client_certificate = "string", alpn = "table", min_version = "string", handshake_timeout = "number",
}
local CERTIFICATE_OPTIONS = { certificate = "string", key = "string", names = "table" }
local CONNECT_OPTIONS = {
  tls = "boolean|table", timeout = "number", local_address = "string", nodelay = "boolean",
  keepalive = "boolean|number", queue_max = "integer",
}
local LISTEN_OPTIONS = {
  tls = "table", backlog = "integer", reuse_port = "boolean", mode = "integer", nodelay = "boolean",
  queue_max = "integer",
}
local UDP_OPTIONS = {
  bind = "string", connect = "string", broadcast = "boolean", reuse_address = "boolean", ttl = "integer",
  multicast_ttl = "integer", multicast_loop = "boolean",
}

local CONNECT_TIMEOUT = 30

--- Checks that an option is no more than what the system takes.
local function check_most(op, options, name, most)
  if options[name] and options[name] > most then
    mistake(op, ("option %q must not be more than %d"):format(name, most), 3)
  end
end

--- Checks the options of a TLS server, for the caller's caller.
local function check_server(op, tls)
  check_options(op, tls, TLS_SERVER_OPTIONS, 3)
  for _, entry in ipairs(tls.certificates or {}) do
    if type(entry) == "table" then check_options(op, entry, CERTIFICATE_OPTIONS, 3) end
  end
end

--- Sorts `(address, options)` and `(host, port, options)` out.
local function target_of(op, address, port, options)
  if type(address) ~= "string" then
    mistake(op, ("%s wants an address, not a %s"):format(op, type(address)), 3)
  end
  if type(port) == "number" then
    local target, err = blame(3, native.host_port(op, address, port))
    return target, err, options
  end
  if port ~= nil and type(port) ~= "table" then
    mistake(op, ("after the address %s wants options or a port, not a %s"):format(op, type(port)), 3)
  end
  local target, err = blame(3, native.parse(op, address))
  return target, err, port
end

--- Runs one step after the other and closes the stream when one fails.
local function secured(stream, side, tls, host)
  local ok, err = native.start_tls(stream, side, tls, host)
  if ok then ok, err = stream:handshake() end
  if not ok then
    stream:close()
    return nil, err
  end
  return stream
end

local function resolved(target)
  if target.numeric then return true end
  return native.resolve(target.host)
end

local function open(target, options)
  if target.path then
    local stream, err = native.connect_unix(target.path, options)
    if not stream or not options.tls then return stream, err end
    return secured(stream, "client", options.tls, target.host)
  end
  local ok, err = resolved(target)
  if not ok then return nil, err end
  local id, why = native.start_dial(target.host, target.port, options.local_address)
  if not id then return nil, why end
  local stream, failure = native.dial(id, options.queue_max)
  if not stream then return nil, failure end
  native.tune(stream, options)
  if not (target.tls or options.tls) or options.tls == false then return stream end
  return secured(stream, "client", options.tls, target.host)
end

local function connected(target, seconds, stream, err)
  if not stream and err.kind == "argument" then mistake("connect", err.message, 2) end
  if not stream and err.kind == "timeout" then
    local where = target.path or ("%s:%d"):format(target.host, target.port)
    err.message = ("no connection to %s within %g s (%s)"):format(where, seconds, err.op)
  end
  if not stream then err.op = "connect" end
  return stream, err
end

function cosocket.connect(address, port, options)
  local target, err, given = target_of("connect", address, port, options)
  options = check_options("connect", given, CONNECT_OPTIONS)
  if type(options.tls) == "table" then check_options("connect", options.tls, TLS_OPTIONS) end
  if not target then return nil, err end
  if target.tls and options.tls == false then
    mistake("connect", "a tls:// address contradicts tls = false", 2)
  end
  local seconds = options.timeout or CONNECT_TIMEOUT
  return connected(target, seconds, cosocket.deadline(seconds, open, target, options))
end

function cosocket.listen(address, port, options)
  local target, err, given = target_of("listen", address, port, options)
  options = check_options("listen", given, LISTEN_OPTIONS)
  check_most("listen", options, "backlog", 0x7fffffff)
  check_most("listen", options, "mode", 0xfff)
  if options.tls then check_server("listen", options.tls) end
  if not target then return nil, err end
  if target.tls and not options.tls then
    mistake("listen", "a tls:// address needs tls = {certificate = ..., key = ...}", 2)
  end
  if not target.path then
    local ok, why = resolved(target)
    if not ok then return nil, why end
  end
  return blame(1, native.listen(target, options))
end

function cosocket.udp(options)
  options = check_options("udp", options, UDP_OPTIONS)
  check_most("udp", options, "ttl", 255)
  check_most("udp", options, "multicast_ttl", 255)
  for _, name in ipairs({ "bind", "connect" }) do
    if options[name] then
      local target, err = blame(2, native.parse("udp", options[name]))
      if target and target.path then mistake("udp", name .. " wants address:port", 2) end
      local ok = target and true
      if target then ok, err = resolved(target) end
      if not ok then return nil, err end
    end
  end
  return blame(1, native.udp(options))
end

function cosocket.resolve(host)
  if type(host) ~= "string" then mistake("resolve", "resolve wants a name", 2) end
  local target, err = blame(2, native.host_port("resolve", host, 0))
  if not target then return nil, err end
  local ok, why = resolved(target)
  if not ok then return nil, why end
  return native.addresses(host)
end

cosocket.pair = native.pair

local Stream, Listener, Udp = native.stream_methods, native.listener_methods, native.udp_methods
local flush, handshake = Stream.flush, Stream.handshake

for _, methods in ipairs({ Stream, Listener, Udp }) do
  for _, name in ipairs({ "close", "local_address", "peer_address", "tls_info", "join", "leave" }) do
    local method = methods[name]
    if method then
      methods[name] = function(...) return blame(1, method(...)) end
    end
  end
end

function Stream:start_tls(options)
  if options ~= nil and type(options) ~= "table" then
    mistake("start_tls", ("the options must be a table, not a %s"):format(type(options)), 2)
  end
  local server = type(options) == "table" and options.server
  local given = {}
  for name, value in pairs(options or {}) do
    if name ~= "server" then given[name] = value end
  end
  if server then check_server("start_tls", given) else check_options("start_tls", given, TLS_OPTIONS) end
  local ok, err = flush(self)
  if not ok then return nil, err end
  ok, err = blame(2, native.start_tls(self, server and "server" or "client", given, nil))
  if not ok then return nil, err end
  return handshake(self)
end

function Stream:shutdown(direction)
  if direction ~= nil and direction ~= "write" then
    mistake("shutdown", "shutdown ends the direction \"write\"", 2)
  end
  local ok, err = flush(self)
  if not ok then return nil, err end
  return native.shutdown(self)
end

function Stream:set_option(name, value)
  return blame(1, native.set_option(self, name, value))
end

local send_to = Udp.send_to

function Udp:send_to(data, address)
  local ok, err = send_to(self, data, address)
  if ok or err.kind ~= "connect" then return ok, err end
  -- Not in numbers: a name.
  local target, why = blame(2, native.parse("send_to", address))
  if not target then return nil, why end
  if target.path then mistake("send_to", "send_to wants address:port", 2) end
  ok, why = resolved(target)
  if not ok then return nil, why end
  local list = native.addresses(target.host)
  if not list then return nil, err end
  -- A name may have addresses of a family that this socket does not speak.
  for _, ip in ipairs(list) do
    ok, err = send_to(self, data, native.join_address(ip, target.port))
    if ok or (err.code ~= "EAFNOSUPPORT" and err.code ~= "EINVAL") then break end
  end
  return ok, err
end

-- Work on threads ---------------------------------------------------------------

local may_wait, promise_wait, promise_take = native.may_wait, native.promise_wait, native.promise_take

--- Makes a function that parks of `begin`, which starts work on a thread and answers a ticket.
function native.blocking(place, begin)
  return function(...)
    local ok, err = may_wait(place)
    if not ok then return nil, err end
    local ticket, why = blame(2, begin(...))
    if not ticket then return nil, why end
    ok, err = promise_wait(place, ticket)
    if not ok then return nil, err end
    return blame(1, promise_take(ticket))
  end
end

-- Coroutines, require and friends ---------------------------------------------

local stock_status, stock_close = coroutine.status, coroutine.close

function coroutine.status(co)
  local status = stock_status(co)
  if status == "suspended" and native.is_busy(co) then return "normal" end
  return status
end

function coroutine.close(co)
  if native.is_busy(co) then
    error("cannot close a coroutine that waits for the network; cancel its task", 2)
  end
  return stock_close(co)
end

--- Modules that are being loaded: by which task, and an event for its end.
local loading = {}
--- Which module a task waits for, that another task loads.
local awaited = {}

--- Whether waiting for the load `other` would be waiting for oneself, through other tasks or not.
local function is_loop(other)
  while other do
    if other.task == current() then return true end
    other = loading[awaited[other.task]]
  end
  return false
end

--- Waits until another task has loaded a module, or failed to.
local function await(name, other)
  local me = current()
  if not me then error(("module '%s' is being loaded by a task, which this code is not"):format(name), 3) end
  local mark <close> = setmetatable({}, { __close = function() awaited[me] = nil end })
  awaited[me] = name
  assert(other.done:wait())
end

--- Finds the loader of a module, as `require` of the manual does.
local function search(name)
  local tried = {}
  for _, searcher in ipairs(package.searchers) do
    local loader, extra = searcher(name)
    if type(loader) == "function" then return loader, extra end
    if type(loader) == "string" then tried[#tried + 1] = "\n\t" .. loader:gsub("^\n\t", "") end
  end
  error(("module '%s' not found:%s"):format(name, table.concat(tried)), 3)
end

function require(name)
  if type(name) ~= "string" then mistake("require", "require wants the name of a module", 2) end
  local value = package.loaded[name]
  if value then return value end
  local other = loading[name]
  if other then
    if is_loop(other) then
      error(("module '%s' is required while it loads (a loop of requires)"):format(name), 2)
    end
    await(name, other)
    value = package.loaded[name]
    if value then return value end
    return require(name)
  end
  local mark <close> = setmetatable({ task = current(), done = cosocket.event() }, {
    __close = function(mark)
      loading[name] = nil
      mark.done:set()
    end,
  })
  loading[name] = mark
  local loader, extra = search(name)
  value = loader(name, extra)
  if value ~= nil then package.loaded[name] = value end
  if package.loaded[name] == nil then package.loaded[name] = true end
  return package.loaded[name], extra
end

local preload, by_path = package.searchers[1], package.searchers[2]
package.searchers = {
  preload,
  by_path,
  function(name)
    local source = native.embedded(name)
    if not source then return ("\n\tno embedded module '%s'"):format(name) end
    return assert(load(source, "@" .. name:gsub("%.", "/") .. ".lua")), ":embedded:"
  end,
}
package.cpath = ""

function dofile(path)
  return assert(loadfile(path))()
end

function os.exit(status)
  if status == nil or status == true then status = 0 end
  if status == false then status = 1 end
  return blame(1, native.exit(status))
end

return stop
