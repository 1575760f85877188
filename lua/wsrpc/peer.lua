--- One side of a connection, as scripts have it: calls, is called, and streams. On a server a peer lives as long as its
--- connection; a client's outlives connections, if it connects again.
---
--- Three kinds of tasks belong to a connection and end with it: one that receives, one that sends, and one for each call
--- that runs here. Calls of ours are made in the tasks of those who make them.

local calling = require("wsrpc.peer.calling")
local close_code = require("websocket.close_code")
local cosocket = require("cosocket")
local failure = require("wsrpc.failure")
local handler = require("wsrpc.handler")
local log = require("log").new("wsrpc")
local method = require("wsrpc.method")
local session = require("wsrpc.session")
local stream = require("wsrpc.stream")
local streaming = require("wsrpc.peer.streaming")

local now = cosocket.now

--- Bytes that may wait to be sent to the other side: then it is too slow, and cut off.
local QUEUE_MAX = 4194304
--- Bytes that may wait before tasks that send wait, too.
local QUEUE_HIGH = 262144
--- Seconds that the other side may leave what waits alone.
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
---@field send_timeout? number Seconds in which nothing of what waits may arrive; then it is cut off, too. Default 30.
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
---@field package call_timeout number
---@field handler_timeout number
---@field running table<wsrpc.InboundCall|wsrpc.Publication, cosocket.Task|wsrpc.Publishing|true>
---@field due wsrpc.Due? Calls that wait for a task.
---@field package options wsrpc.PeerOptions
---@field package methods table<string, wsrpc.Method> Shared by the peers of a server.
---@field package own table<string, wsrpc.Method>?
---@field package session wsrpc.Session?
---@field package connection websocket.Connection?
---@field package closed boolean For good.
---@field package opened cosocket.Event
---@field package ended cosocket.Event
---@field package idle boolean? The task that sends has nothing to do.
---@field package wake cosocket.Event There is something to send.
---@field package room cosocket.Event Not too much waits to be sent.
---@field package cut cosocket.Error? Why we ended the connection.
---@field package streams table<wsrpc.Stream, true>
---@field package groups table<wsrpc.Group, true>?
local Peer = {}
Peer.__index = Peer
Peer.__name = "wsrpc.Peer"

for _, methods in ipairs({ calling, streaming }) do
  for name, method in pairs(methods) do Peer[name] = method end
end

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

--- Starts what is queued on its way; cuts a peer off for whom too much waits. What can go at once needs no other task.
function Peer:flush()
  local current = self.session
  if not current or current.first > current.last then return end
  if self.idle then
    local connection = self.connection --[[@as websocket.Connection]]
    repeat
      local sent, err = connection:try_send(current.output[current.first])
      if sent or err then current:take() end
    until not sent or current.first > current.last
    if current.first > current.last and not connection:is_busy() then return end
  end
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
      if connection:is_busy() then
        local ok, err = connection:flush()
        if not ok then return nil, err end
      end
      local text = current.output[current.first]
      if not text then return true end
      -- What is under way when time is over stays so: a message is queued as a whole, or not at all.
      local sent, err = connection:try_send(text)
      if err then return nil, err end
      if sent then current:take() end
    end
    return true
  end
  while true do
    if current.first > current.last and not connection:is_busy() then
      self.wake:clear()
      self.room:set()
      self.idle = true
      self.wake:wait()
      self.idle = false
    end
    local before = connection:progress()
    local ok, err = cosocket.deadline(seconds, burst)
    if not ok and err.kind == "timeout" then
      -- Who takes what is sent, over a slow line or slowly, is not cut off for that.
      local after = connection:progress()
      ok = before and after and after > before
    end
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
        owner:finish(failure.refusal("wsrpc.stream", event.error))
      else
        owner.ready:set()
      end
      return
    end
    owner.done, owner.value = true, event.value
    if event.error then owner.err = failure.refusal("wsrpc.call", event.error) end
    owner.event:set()
  end,
  next = function(_, _, event) event.owner:push(event.value) end,
  ["end"] = function(self, _, event)
    self.streams[event.owner] = nil
    event.owner.confirmed = true
    event.owner:finish(event.error and failure.refusal("wsrpc.stream", event.error))
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
        -- Many may have come at once: those that need not wait shall end before more are refused.
        if current:is_full() then cosocket.sleep(0) end
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
  self.session, self.connection, self.running, self.due = nil, nil, {}, nil
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

--- Speaks on a connection until it is over.
---@async
---@param connection websocket.Connection
---@param again boolean Whether another will follow when this one is lost.
---@param everyone? wsrpc.Group To be in while it is open.
---@return cosocket.Error err
function Peer:run(connection, again, everyone)
  local current, why = session.new(self.config), nil
  self.session, self.connection, self.cut, self.err, self.idle = current, connection, nil, nil, false
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
      local attached, err = self:attach(one)
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
---@return wsrpc.Session? session
---@return cosocket.Error? err
function Peer:present()
  while true do
    local current = self.session
    if current and not self.cut then return current end
    if self.closed then return nil, self.err or cosocket.error("closed", "wsrpc", "the connection has been closed") end
    if self.cut then return nil, self.cut end
    local ok, err = self.opened:wait()
    if not ok then return nil, err end
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

--- Ends the connection without waiting for what is leaving, or for an answer to our Close.
---@async
---@package
function Peer:abandon()
  local connection = self.connection
  if connection then cosocket.deadline(0, connection.close, connection) end
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
  local current, err = self:present()
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
    call_timeout = options.call_timeout or CALL_TIMEOUT,
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

return peer
