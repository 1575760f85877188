--- One side of a connection, as scripts have it: calls, is called, and streams. On a server a peer lives as long as its
--- connection; a client's outlives connections, if it connects again.
---
--- Three kinds of tasks belong to a connection and end with it: one that receives, one that sends, and one for each call
--- that runs here. Calls of ours are made in the tasks of those who make them.

local close_code = require("websocket.close_code")
local cosocket = require("cosocket")
local handler = require("wsrpc.handler")
local json = require("json")
local log = require("log").new("wsrpc")
local message = require("wsrpc.message")
local method = require("wsrpc.method")
local session = require("wsrpc.session")
local stream = require("wsrpc.stream")

local now = cosocket.now

--- Bytes that may wait to be sent to the other side: then it is too slow, and cut off.
local QUEUE_MAX = 4194304
--- Bytes that may wait before tasks that send wait, too.
local QUEUE_HIGH = 262144
--- Seconds that the other side may take to read what waits.
local SEND_TIMEOUT = 30
--- Messages that are sent in one go.
local BURST = 64
--- Seconds that a call waits for its answer.
local CALL_TIMEOUT = 30
--- Seconds that a method may take.
local HANDLER_TIMEOUT = 60
--- Seconds that closing waits until what is queued has been sent.
local LINGER = 2

--- Ends a connection's tasks.
local OVER = setmetatable({}, { __tostring = function() return "the connection is over" end })

---@class wsrpc.PeerOptions: wsrpc.Limits
---@field queue_max? integer Bytes that may wait for the other side to read; with more it is cut off with code 1008. Default 4194304.
---@field send_timeout? number Seconds it may take to read what waits; else it is cut off, too. Default 30.
---@field call_timeout? number Seconds that a call of ours waits for its answer. Default 30.
---@field handler_timeout? number Seconds that a method may take before its waits end with `timeout`; 0 is no limit. Default 60.
---@field on_connect? fun(peer: wsrpc.Peer) Runs in a task of its own when a connection is open.
---@field on_disconnect? fun(peer: wsrpc.Peer, err: cosocket.Error) Called when it is over.
---@field title? string What `rpc.discover` calls the service. Default "moonwire".
---@field version? string The service's version there. Default "0".
---@field discover? boolean Whether `rpc.discover` is answered. Default `true`.

---@class wsrpc.Peer
---@field identity any What `authorize` answered, on a server.
---@field request http.ServerRequest? With which it came, on a server.
---@field data table For the script: nothing here looks at it.
---@field err cosocket.Error? Why the last connection ended.
---@field package config wsrpc.Config
---@field handler_timeout number
---@field running table<wsrpc.InboundCall|wsrpc.Publication, cosocket.Task|wsrpc.Publishing>
---@field package options wsrpc.PeerOptions
---@field package methods table<string, wsrpc.Method> Shared by the peers of a server.
---@field package own table<string, wsrpc.Method>?
---@field package session wsrpc.Session?
---@field package connection websocket.Connection?
---@field package closed boolean For good.
---@field package opened cosocket.Event
---@field package ended cosocket.Event
---@field package wake cosocket.Event There is something to send.
---@field package room cosocket.Event Not too much waits to be sent.
---@field package cut cosocket.Error? Why we ended the connection.
---@field package streams table<wsrpc.Stream, true>
---@field package groups table<wsrpc.Group, true>?
local Peer = {}
Peer.__index = Peer
Peer.__name = "wsrpc.Peer"

-- What the other side may call --------------------------------------------------

--- Lets the other side call `fn`; `nil` takes it back. Goes before what was registered for all.
---@param name string
---@param fn (fun(...): ...)|wsrpc.Definition|nil
---@return wsrpc.Peer self
function Peer:on(name, fn)
  self.own = self.own or {}
  self.own[name] = fn and method.new("peer:on", name, fn, 2) or nil
  return self
end

--- The method of a name, if there is one.
---@param name string
---@return wsrpc.Method?
function Peer:method(name)
  if name == "rpc.discover" then return self.options.discover ~= false and self:discovery() or nil end
  return self.own and self.own[name] or self.methods[name]
end

---@private
---@return wsrpc.Method
function Peer:discovery()
  return {
    fn = function()
      local options = self.options
      return method.discover(options.title or "moonwire", options.version or "0", self.own or {}, self.methods)
    end,
    definition = {},
    stream = false,
    with_peer = false,
    params = {},
    positions = {},
    task = "rpc rpc.discover",
  }
end

-- Sending -----------------------------------------------------------------------

--- Starts what is queued on its way; cuts a peer off for whom too much waits.
function Peer:flush()
  local current = self.session
  if not current or current.first > current.last then return end
  self.wake:set()
  if current.output_bytes > (self.options.queue_max or QUEUE_MAX) then
    self:cut_off(close_code.policy_violation, "too slow: too much waits to be read")
  end
end

--- Waits while much waits to be sent.
---@async
---@return true? ok
---@return cosocket.Error? err
function Peer:wait_for_room()
  local current = self.session
  while current and current == self.session and current.output_bytes > QUEUE_HIGH do
    self.room:clear()
    local ok, err = self.room:wait()
    if not ok then return nil, err end
  end
  return true
end

--- Queues a text that somebody else has made.
---@param text string
---@return boolean queued
function Peer:post(text)
  local current = self.session
  if not current or self.cut then return false end
  current:post(text)
  self:flush()
  return true
end

--- Ends the connection because of what the other side does.
---@param number integer
---@param reason string
function Peer:cut_off(number, reason)
  if self.cut or not self.connection then return end
  self.cut = cosocket.error("limit", "wsrpc", ("the other side was cut off: %s"):format(reason), {
    code = number,
    reason = reason,
  })
  log.warn("a peer is cut off", { peer = self:address(), reason = reason })
  self.connection:start_close(number, reason)
end

--- Sends what is queued: a task.
---@async
---@param self wsrpc.Peer
---@param connection websocket.Connection
---@param current wsrpc.Session
local function send_all(self, connection, current)
  local seconds = self.options.send_timeout or SEND_TIMEOUT
  local function burst()
    for _ = 1, BURST do
      local text = current:take()
      if not text then return true end
      local ok, err = connection:send(text)
      if not ok then return nil, err end
    end
    return true
  end
  while true do
    if current.first > current.last then
      self.wake:clear()
      self.room:set()
      self.wake:wait()
    end
    local ok, err = cosocket.deadline(seconds, burst)
    if not ok then
      ---@cast err cosocket.Error
      if err.kind == "timeout" then
        self:cut_off(close_code.policy_violation, "too slow: what was sent is not read")
      end
      -- The task that receives hears of the end.
      return
    end
    if current.output_bytes <= QUEUE_HIGH then self.room:set() end
  end
end

-- Receiving ---------------------------------------------------------------------

--- An error object of the other side, as this side's errors are.
---@param op string
---@param wrong wsrpc.Fault|cosocket.Error
---@return cosocket.Error
local function refusal(op, wrong)
  if cosocket.is_error(wrong) then return wrong --[[@as cosocket.Error]] end
  return cosocket.error("refused", op, wrong.message, { code = wrong.code, data = wrong.data })
end

---@type table<string, fun(self: wsrpc.Peer, session: wsrpc.Session, event: wsrpc.Event)>
local ON = {
  call = function(self, current, event) handler.call(self, current, event.call --[[@as wsrpc.InboundCall]]) end,
  cancel = function(self, _, event) handler.cancel(self, event.call --[[@as wsrpc.InboundCall]]) end,
  subscribe = function(self, current, event)
    handler.subscribe(self, current, event.publication --[[@as wsrpc.Publication]])
  end,
  unsubscribe = function(self, _, event) handler.cancel(self, event.publication --[[@as wsrpc.Publication]]) end,
  credit = function(self, _, event)
    local state = self.running[event.publication] --[[@as wsrpc.Publishing?]]
    if state then state.credit:set() end
  end,
  answer = function(self, _, event)
    local owner = event.owner
    if getmetatable(owner) == stream.class then
      -- The answer to a subscription.
      ---@cast owner wsrpc.Stream
      owner.confirmed = owner.confirmed or not event.error
      if event.error then
        self.streams[owner] = nil
        owner:finish(refusal("wsrpc.stream", event.error))
      else
        owner.ready:set()
      end
      return
    end
    owner.done, owner.value = true, event.value
    if event.error then owner.err = refusal("wsrpc.call", event.error) end
    owner.event:set()
  end,
  next = function(_, _, event) event.owner:push(event.value) end,
  ["end"] = function(self, _, event)
    self.streams[event.owner] = nil
    event.owner.confirmed = true
    event.owner:finish(event.error and refusal("wsrpc.stream", event.error))
  end,
  stray = function(self, _, event)
    log.warn("the other side complains", { peer = self:address(), error = tostring(event.error.message) })
  end,
}

--- Receives until the connection is over: why.
---@async
---@param self wsrpc.Peer
---@param connection websocket.Connection
---@param current wsrpc.Session
---@return cosocket.Error
local function receive_all(self, connection, current)
  while true do
    local text, kind = connection:receive()
    if not text then return kind --[[@as cosocket.Error]] end
    if kind == "binary" then
      connection:start_close(close_code.unsupported_data, "JSON-RPC is text")
    else
      local events, err = current:receive(text, now())
      if not events then
        ---@cast err cosocket.Error
        self:cut_off(err.code --[[@as integer]], err.message)
      else
        for i = 1, #events do
          local event = events[i]
          ON[event.kind](self, current, event)
        end
        self:flush()
      end
    end
  end
end

-- A connection ------------------------------------------------------------------

--- Tells those who wait that the connection is over.
---@param self wsrpc.Peer
---@param current wsrpc.Session
---@param err cosocket.Error
---@param again boolean Whether there will be another.
local function disconnected(self, current, err, again)
  self.err = err
  self.session, self.connection, self.running = nil, nil, {}
  self.opened:clear()
  self.room:set()
  self.wake:set()
  for _, owner in ipairs(current:finish()) do
    if getmetatable(owner) == stream.class then
      ---@cast owner wsrpc.Stream
      owner.feed = nil
    else
      owner.done, owner.err = true, err
      owner.event:set()
    end
  end
  for one in pairs(self.streams) do
    if not (again and one.resubscribe and one.confirmed) then
      self.streams[one] = nil
      one:finish(err)
    end
  end
  for group in pairs(self.groups or {}) do group:remove(self) end
end

--- Asks for a stream's values.
---@param self wsrpc.Peer
---@param one wsrpc.Stream
---@return true? ok
---@return cosocket.Error? err
local function attach(self, one)
  local current = self.session --[[@as wsrpc.Session]]
  -- What still waits here counts.
  local credit = math.max(1, one.window - one:waiting())
  local feed, err = current:subscribe(one.name, one.params, credit, one)
  if not feed then return nil, err end
  one.feed, one.taken = feed, 0
  return true
end

--- Speaks on a connection until it is over.
---@async
---@param connection websocket.Connection
---@param again boolean Whether another will follow when this one is lost.
---@param everyone? wsrpc.Group To be in while it is open.
---@return cosocket.Error err
function Peer:run(connection, again, everyone)
  local current, why = session.new(self.config), nil
  self.session, self.connection, self.cut, self.err = current, connection, nil, nil
  local guard <close> = setmetatable({}, {
    __close = function()
      if not connection.err then connection:close(close_code.going_away) end
      why = self.cut or why or connection.err or cosocket.error("cancelled", "wsrpc", "the task was cancelled")
      self.cut = nil
      disconnected(self, current, why, again and not self.closed)
    end,
  })
  local _, raised = pcall(cosocket.group, function()
    cosocket.spawn("wsrpc sender", send_all, self, connection, current)
    for one in pairs(self.streams) do
      local attached, err = attach(self, one)
      if not attached then
        self.streams[one] = nil
        one:finish(err)
      end
    end
    self.opened:set()
    if everyone then everyone:add(self) end
    self:flush()
    if self.options.on_connect then cosocket.spawn("wsrpc on_connect", self.options.on_connect, self) end
    why = receive_all(self, connection, current)
    error(OVER, 0)
  end)
  if raised ~= OVER then
    if cosocket.is_error(raised, "cancelled") then error(raised, 0) end
    log.error("a task of a connection failed", { peer = self:address(), error = tostring(raised) })
    connection:close(close_code.internal_error)
  end
  return self.cut or why or connection.err or cosocket.error("closed", "wsrpc", "the connection is over")
end

--- The session, once a connection is open.
---@async
---@param self wsrpc.Peer
---@return wsrpc.Session? session
---@return cosocket.Error? err
local function present(self)
  while true do
    local current = self.session
    if current and not self.cut then return current end
    if self.closed then return nil, self.err or cosocket.error("closed", "wsrpc", "the connection has been closed") end
    if self.cut then return nil, self.cut end
    local ok, err = self.opened:wait()
    if not ok then return nil, err end
  end
end

-- Calling -----------------------------------------------------------------------

---@param op string
---@param name any
---@param params any
---@param level integer
local function check(op, name, params, level)
  if type(name) ~= "string" then error(("%s: the method must be a string, not a %s"):format(op, type(name)), level + 1) end
  if params ~= nil and type(params) ~= "table" then
    error(("%s: params must be a table (a list or by name), not a %s"):format(op, type(params)), level + 1)
  end
end

--- Raises what is the caller's mistake.
---@param op string
---@param err cosocket.Error
---@param level integer
---@return nil
---@return cosocket.Error
local function unsent(op, err, level)
  if err.kind == "protocol" then error(("%s: %s"):format(op, err.message), level + 1) end
  return nil, err
end

--- Somebody who waits for answers.
---@class wsrpc.Waiter
---@field id integer?
---@field session wsrpc.Session?
---@field done boolean?
---@field value any
---@field err cosocket.Error?
---@field event cosocket.Event
local Waiter = {}

--- Whoever waits no more has given the call up: a deadline, a cancelled task.
function Waiter:__close()
  if not self.done and self.id then
    self.session:cancel(self.id)
    self.peer:flush()
  end
end

--- The protocol's errors in their place; the deadline of a call in words.
---@param name string
---@param seconds number
---@param began number
---@param err cosocket.Error
---@return cosocket.Error
local function why_not(name, seconds, began, err)
  if err.kind == "timeout" and now() - began >= seconds then
    return cosocket.error("timeout", "wsrpc.call", ("%s was not answered within %g s"):format(name, seconds))
  end
  return err
end

---@async
---@param self wsrpc.Peer
---@param name string
---@param params table?
---@return any result
---@return cosocket.Error? err
local function call(self, name, params)
  local current, err = present(self)
  if not current then return nil, err end
  local waiter <close> = setmetatable({ event = cosocket.event(), peer = self, session = current }, Waiter)
  local id
  id, err = current:request(name, params, waiter)
  if not id then return nil, err end
  waiter.id = id
  self:flush()
  local ok, why = waiter.event:wait()
  if not ok and not waiter.done then return nil, why end
  if waiter.err then return nil, waiter.err end
  return waiter.value
end

--- Calls a method of the other side, and waits for the answer; while there is no connection, for one, too. When the time
--- is up, or the task is cancelled, the other side is told (`$/cancelRequest`).
---@async
---@param name string
---@param params? table A list, or params by name.
---@param timeout? number Seconds. Default: the option `call_timeout`.
---@return any result `json.null` for null.
---@return cosocket.Error? err `refused` with `code`, `message` and `data` of the error object; `timeout`, `closed`, `limit`, `protocol`
function Peer:call(name, params, timeout)
  check("peer:call", name, params, 2)
  local seconds, began = timeout or self.options.call_timeout or CALL_TIMEOUT, now()
  local result, err = cosocket.deadline(seconds, call, self, name, params)
  if result ~= nil then return result end
  ---@cast err cosocket.Error
  if err.kind == "protocol" and err.op ~= "wsrpc.call" then return unsent("peer:call", err, 2) end
  return nil, why_not(name, seconds, began, err)
end

--- Tells the other side something; no answer comes. Waits for a connection, and while much waits to be sent.
---@async
---@param name string
---@param params? table
---@return true? ok It is on its way.
---@return cosocket.Error? err
function Peer:notify(name, params)
  check("peer:notify", name, params, 2)
  local current, err = present(self)
  if not current then return nil, err end
  local ok, why = current:notify(name, params)
  if not ok then return unsent("peer:notify", why --[[@as cosocket.Error]], 2) end
  self:flush()
  return self:wait_for_room()
end

---@class wsrpc.BatchRequest
---@field [1] string The method.
---@field [2] table? Its params.
---@field notify boolean? Whether it is a notification.

---@class wsrpc.BatchAnswer
---@field result any
---@field error cosocket.Error?

---@async
---@param self wsrpc.Peer
---@param entries wsrpc.BatchEntry[]
---@param event cosocket.Event
---@return true? ok
---@return cosocket.Error? err
local function batch(self, entries, event)
  local current, err = present(self)
  if not current then return nil, err end
  local waiters = {}
  local guard <close> = setmetatable({}, {
    __close = function()
      for _, waiter in ipairs(waiters) do Waiter.__close(waiter) end
    end,
  })
  for _, entry in ipairs(entries) do
    local owner = entry.owner
    if owner then
      owner.peer, owner.session, owner.event = self, current, event
      waiters[#waiters + 1] = owner
    end
  end
  local ids
  ids, err = current:batch(entries)
  if not ids then return nil, err end
  for i, id in ipairs(ids) do waiters[i].id = id end
  self:flush()
  for _, waiter in ipairs(waiters) do
    while not waiter.done do
      event:clear()
      local ok, why = event:wait()
      if not ok then return nil, why end
    end
  end
  return true
end

--- Makes several calls as one message: `peer:batch({ { "sum", { 1, 2 } }, { "log", { "x" }, notify = true } })`.
---@async
---@param requests wsrpc.BatchRequest[]
---@param timeout? number Seconds. Default: the option `call_timeout`.
---@return wsrpc.BatchAnswer[]? answers One for each call, in order; none for notifications.
---@return cosocket.Error? err
function Peer:batch(requests, timeout)
  if type(requests) ~= "table" or #requests == 0 then error("peer:batch: a list of requests is wanted", 2) end
  local entries, owners = {}, {}
  for i, one in ipairs(requests) do
    if type(one) ~= "table" then error(("peer:batch: request %d must be a table"):format(i), 2) end
    check("peer:batch", one[1], one[2], 2)
    local owner = not one.notify and {} or nil
    entries[i] = { method = one[1], params = one[2], owner = owner }
    if owner then owners[#owners + 1] = owner end
  end
  local seconds, began = timeout or self.options.call_timeout or CALL_TIMEOUT, now()
  local ok, err = cosocket.deadline(seconds, batch, self, entries, cosocket.event())
  if not ok then
    ---@cast err cosocket.Error
    if err.kind == "protocol" then return unsent("peer:batch", err, 2) end
    return nil, why_not("the batch", seconds, began, err)
  end
  local answers = {}
  for i, owner in ipairs(owners) do answers[i] = { result = owner.value, error = owner.err } end
  return answers
end

-- Streams -----------------------------------------------------------------------

---@async
---@param self wsrpc.Peer
---@param one wsrpc.Stream
---@return true? ok
---@return cosocket.Error? err
local function subscribe(self, one)
  local current, err = present(self)
  if not current then return nil, err end
  self.streams[one] = true
  local ok, why = attach(self, one)
  if not ok then return nil, why end
  self:flush()
  while not one.confirmed and not one.over do
    one.ready:clear()
    ok, why = one.ready:wait()
    if not ok then return nil, why end
  end
  if not one.confirmed then return nil, one.err end
  return true
end

---@async
---@param self wsrpc.Peer
---@param op string
---@param name string
---@param params table?
---@param options wsrpc.StreamOptions?
---@param level integer
---@return wsrpc.Stream? stream
---@return cosocket.Error? err
local function open_stream(self, op, name, params, options, level)
  check(op, name, params, level + 1)
  options = cosocket.check_options(op, options, stream.options, level + 1)
  if options.window and options.window < 1 then error(op .. ": window must be at least 1", level + 1) end
  local one = stream.new(self, name, params, options)
  local seconds, began = self.options.call_timeout or CALL_TIMEOUT, now()
  local ok, err = cosocket.deadline(seconds, subscribe, self, one)
  if ok then return one end
  ---@cast err cosocket.Error
  one:close()
  self.streams[one] = nil
  if err.kind == "protocol" and err.op ~= "wsrpc.call" then return unsent(op, err, level + 1) end
  return nil, why_not(name, seconds, began, err)
end

--- Subscribes to a stream of the other side: `stream:next()` waits for values, `stream:close()` ends it.
---@async
---@param name string
---@param params? table
---@param options? wsrpc.StreamOptions
---@return wsrpc.Stream? stream
---@return cosocket.Error? err As of `call`.
function Peer:subscribe(name, params, options)
  return open_stream(self, "peer:subscribe", name, params, options, 2)
end

--- `for reading in peer:stream("temperature", { sensor = 1 }) do`: the values of a stream. The loop ends when the other
--- side ends the stream; leaving it ends it over there. What is not the clean end is raised.
---@async
---@param name string
---@param params? table
---@param options? wsrpc.StreamOptions
---@return fun(): any
---@return nil
---@return nil
---@return wsrpc.Stream
function Peer:stream(name, params, options)
  local one, why = open_stream(self, "peer:stream", name, params, options, 2)
  if not one then error(why, 0) end
  return function()
    local value, err = one:next()
    if err then error(err, 0) end
    return value
  end, nil, nil, one
end

--- Lets more values of a stream come.
---@package
---@param feed wsrpc.Feed
---@param count integer
function Peer:grant(feed, count)
  if not self.session then return end
  self.session:grant(feed, count)
  self:flush()
end

--- Ends a stream of ours.
---@package
---@param one wsrpc.Stream
function Peer:unsubscribe(one)
  self.streams[one] = nil
  local feed = one.feed
  one.feed = nil
  if feed and self.session then
    self.session:unsubscribe(feed)
    self:flush()
  end
end

-- The end -----------------------------------------------------------------------

--- Closes for good: what is queued is sent, calls that wait fail, tasks that run for the other side are cancelled.
---@async
---@param code? integer As in WebSocket: 1000 (default), 3000 to 4999 for what is the application's own.
---@param reason? string At most 123 bytes.
---@return true
function Peer:close(code, reason)
  local connection, current = self.connection, self.session
  if not self.closed then
    if connection and current and coroutine.isyieldable() then
      cosocket.deadline(LINGER, function()
        while current.first <= current.last and self.session == current do
          self.room:clear()
          if not self.room:wait() then return end
        end
      end)
    end
    self:start_close(code, reason)
  end
  if coroutine.isyieldable() then self.ended:wait() end
  return true
end

function Peer:__close()
  self:close()
end

--- Starts to close without waiting for the end.
---@param code? integer
---@param reason? string
function Peer:start_close(code, reason)
  self.closed = true
  self.opened:set()
  if self.connection then self.connection:start_close(code, reason) end
end

--- Waits before the next connection, or until this peer is closed.
---@async
---@param seconds number
function Peer:pause(seconds)
  cosocket.select(self.opened, seconds)
end

--- Waits until a connection is open.
---@async
---@return true? ok
---@return cosocket.Error? err
function Peer:wait_open()
  local current, err = present(self)
  return current and true, err
end

--- Whether it was closed for good.
---@return boolean
function Peer:is_closed()
  return self.closed
end

--- Whether a connection is open.
---@return boolean
function Peer:is_open()
  return self.session ~= nil and not self.cut and not self.closed
end

--- Where the other side is.
---@return string?
function Peer:address()
  return self.connection and self.connection:peer_address()
end

--- Waits until this peer is closed for good.
---@async
---@return true? ok
---@return cosocket.Error? err A deadline of the caller's.
function Peer:wait_closed()
  return self.ended:wait()
end

--- It is in a group.
---@package
---@param group wsrpc.Group
function Peer:joined(group)
  self.groups = self.groups or {}
  self.groups[group] = true
end

---@package
---@param group wsrpc.Group
function Peer:left(group)
  if self.groups then self.groups[group] = nil end
end

--- No connection will follow.
function Peer:finish()
  self.closed = true
  for one in pairs(self.streams) do
    self.streams[one] = nil
    one:finish(self.err)
  end
  self.opened:set()
  self.ended:set()
end

local peer = {}

--- Types of the options that both roles have.
peer.options = {
  queue_max = "integer",
  send_timeout = "number",
  call_timeout = "number",
  handler_timeout = "number",
  on_connect = "function",
  on_disconnect = "function",
  title = "string",
  version = "string",
  discover = "boolean",
}
for name, kind in pairs(session.limits) do peer.options[name] = kind end

---@param methods table<string, wsrpc.Method>
---@param options wsrpc.PeerOptions
---@param config wsrpc.Config
---@return wsrpc.Peer
function peer.new(methods, options, config)
  return setmetatable({
    data = {},
    config = config,
    options = options,
    methods = methods,
    handler_timeout = options.handler_timeout or HANDLER_TIMEOUT,
    running = {},
    streams = {},
    closed = false,
    opened = cosocket.event(),
    ended = cosocket.event(),
    wake = cosocket.event(),
    room = cosocket.event(),
  }, Peer)
end

peer.code = message.code
peer.null = json.null

return peer
