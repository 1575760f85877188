--- What `mqtt.connect` answers: a session and whatever connections it takes. One task owns the connection and turns the
--- loop (`mqtt.connection`); every other task tells the session what it wants, wakes the owner when that is needed,
--- and waits for its own answer.

local asking = require("mqtt.client.asking")
local backoffs = require("mqtt.backoff")
local connection = require("mqtt.connection")
local cosocket = require("cosocket")
local deliveries = require("mqtt.delivery")
local gates = require("mqtt.gate")
local opening = require("mqtt.opening")
local publishing = require("mqtt.client.publishing")
local sessions = require("mqtt.session")
local subscribing = require("mqtt.client.subscribing")
local tickets = require("mqtt.ticket")

local now = cosocket.now

--- Bytes of received messages that may wait to be taken.
local RECEIVE_QUEUE_MAX = 1048576
--- Bytes that may wait to leave before a publishing task waits, too.
local OUTPUT_MAX = 65536
--- Bytes that are gathered before they are sent although their task has not parked.
local CORKED_MAX = 16384

---@class mqtt.Status
---@field state "connecting"|"connected"|"waiting"|"closing"|"closed" `waiting` is for the next attempt to connect.
---@field version 5|"3.1.1"
---@field client_id string
---@field address string? Of the server that is connected to, or is tried next.
---@field keep_alive integer
---@field connections integer How many there have been.
---@field next_attempt number? Seconds until the next attempt to connect.
---@field in_flight integer QoS 1 and 2 messages sent and not acknowledged to the end.
---@field waiting integer Messages that wait to be sent.
---@field waiting_bytes integer
---@field receiving integer QoS 1 and 2 messages received and not acknowledged to the end.
---@field received_bytes integer What was received and not yet taken.
---@field dropped integer Received messages that nobody took.
---@field dropped_outgoing integer Messages that `queue_policy` dropped.
---@field session_present boolean Whether the server remembered us when it was connected to last.
---@field server mqtt.Properties What the server said of itself in CONNACK.
---@field error cosocket.Error? Why there is no connection.

---@class mqtt.Client
---@field package session mqtt.Session
---@field package driven mqtt.Session|mqtt.Gate What the loop drives.
---@field package gate mqtt.Gate?
---@field package journal mqtt.Journal?
---@field package options mqtt.Options
---@field package servers mqtt.Address[]
---@field package next_server integer
---@field package versions mqtt.codec.Version[] Those to try.
---@field package clean boolean
---@field package fresh boolean? The store knows nothing, and what the server may know is not ours.
---@field package stream cosocket.Stream?
---@field package congested boolean So much waits to leave that who publishes more is to wait.
---@field package opening cosocket.Stream? One on which CONNECT is not answered yet.
---@field package input cosocket.Buffer?
---@field package delivery mqtt.Delivery? Made when something is to be received.
---@field package subscriptions mqtt.Subscriptions?
---@field package requests mqtt.Ticket[]? SUBSCRIBE and UNSUBSCRIBE that are to be sent on the next connection.
---@field package reconnects mqtt.ReconnectOptions|boolean Whether and how it connects again.
---@field package backoff mqtt.Backoff?
---@field package connections integer
---@field package connected_at number
---@field package next_attempt number?
---@field package changed cosocket.Event? Set when there is a connection, or none will be; made by who waits for that.
---@field package nudge cosocket.Event Ends the wait for the next attempt.
---@field package last_error cosocket.Error?
---@field package err cosocket.Error? Why it is closed.
---@field package ended cosocket.Event Set when the owner has let go of everything.
---@field package goodbye boolean Asked to close.
---@field package away boolean? The owner waits for the script, and not for the connection.
---@field package goodbye_reason integer?
---@field private last_identifier integer
---@field private requester mqtt.Requester?
---@field private authenticated cosocket.Event?
local Client = { congested = false, next_server = 1, connections = 0, connected_at = 0, last_identifier = 0, goodbye = false }
Client.__index = Client
Client.__name = "mqtt.Client"

for _, room in ipairs({ asking, publishing, subscribing }) do
  for name, method in pairs(room) do Client[name] = method end
end

-- Stopping --------------------------------------------------------------------

--- The clients that are not closed, and what takes back their common place among those who are told of a stop.
local alive, forget_stop = {}, nil ---@type table<mqtt.Client, true>, fun()?

--- Says goodbye for every client when the program stops.
---@async
local function stop()
  cosocket.group(function()
    for client in pairs(alive) do cosocket.spawn("mqtt goodbye", client.close, client) end
  end)
end

---@param client mqtt.Client
local function remember(client)
  if not forget_stop then forget_stop = cosocket.on_stop(stop) end
  alive[client] = true
end

---@param client mqtt.Client
local function forget(client)
  alive[client] = nil
  if next(alive) or not forget_stop then return end
  forget_stop()
  forget_stop = nil
end

-- Waiting ---------------------------------------------------------------------

--- Starts what the session queued on its way: the owner sends it, together with what others queue until it runs.
---@package
function Client:flush()
  local gate = self.gate
  if gate then gate:pump() end
  local stream, output = self.stream, self.driven.output
  if not stream then return end
  local bytes = #output
  if bytes == 0 then return end
  self.congested = bytes > OUTPUT_MAX
  -- It is not waited for where that is much, or where the owner waits for something else.
  if bytes >= CORKED_MAX or self.away then stream:try_flush(output) end
  stream:wake()
end

--- Waits with `wait(object)` for something of the server's; what is received meanwhile does not stop the reading.
---@package
---@async
---@generic T
---@param wait fun(object: T): true?, cosocket.Error?
---@param object T
---@return true? ok
---@return cosocket.Error? err
function Client:hold(wait, object)
  local delivery = self.delivery
  if delivery then return delivery:wait(wait, object) end
  return wait(object)
end

--- Waits for the packet that answers `ticket`.
---@private
---@async
---@param ticket mqtt.Ticket
---@return mqtt.Ack|mqtt.Acks|nil answer
---@return cosocket.Error? err
function Client:await(ticket)
  self:flush()
  ticket.client = self
  return ticket:await()
end

--- Sends a request, now or on the next connection, and waits for its answer.
---@private
---@async
---@param ticket mqtt.Ticket
---@return mqtt.Acks? answer
---@return cosocket.Error? err
function Client:ask(ticket)
  if self.err then return nil, self.err end
  if self.goodbye then return nil, cosocket.error("closed", "mqtt." .. ticket.type, "this client is closed") end
  if self.stream then
    local ok, err = self.session:ask(ticket, now())
    if not ok then return nil, err end
  else
    self:put_off(ticket)
  end
  return self:await(ticket) --[[@as mqtt.Acks?]]
end

--- Waits for something that comes with a message, or for the end of the client.
---@package
---@async
---@param event cosocket.Event
---@return true? ok
---@return cosocket.Error? err
function Client:wait_for(event)
  local function wait() return cosocket.select(event, self.ended) end
  local ready, err = self:hold(wait)
  if ready == nil then return nil, err end
  if event:is_set() then return true end
  return nil, self.err
end

--- Waits until there is a connection.
---@async
---@return true? ok
---@return cosocket.Error? err `closed`
function Client:wait_connected()
  while not self.stream do
    if self.err then return nil, self.err end
    self.changed = self.changed or cosocket.event()
    local ok, err = self.changed:wait()
    if not ok then return nil, err end
  end
  return true
end

--- Something is to be received.
---@package
---@return mqtt.Delivery
function Client:make_delivery()
  local delivery = deliveries.new(self, self.options.receive_queue_max or RECEIVE_QUEUE_MAX, function(message, reason_code)
    self.session:acknowledge(message, now(), reason_code)
    self:flush()
  end)
  self.delivery = delivery
  if self.err then delivery:finish_up(self.goodbye) end
  return delivery
end

--- The first connection was lost.
---@package
---@return mqtt.Backoff
function Client:make_backoff()
  local options = self.reconnects
  self.backoff = backoffs.new(type(options) == "table" and options or nil)
  return self.backoff
end

--- Wakes who waits for a connection.
---@package
function Client:tell_change()
  local changed = self.changed
  self.changed = nil
  if changed then changed:set() end
end

--- Keeps a request for the next connection.
---@package
---@param ticket mqtt.Ticket
function Client:put_off(ticket)
  self.requests = self.requests or {}
  table.insert(self.requests, ticket)
end

--- The server has answered `reauthenticate`.
---@package
function Client:reauthenticated()
  local event = self.authenticated
  self.authenticated = nil
  if event then event:set() end
end

-- State -----------------------------------------------------------------------

---@return mqtt.Status
function Client:status()
  local session, inbox = self.session, self.delivery and self.delivery.inbox
  local connack, window = session.connack, session.outgoing
  local server = self.servers[self.next_server]
  local state = "connecting"
  if self.err then
    state = "closed"
  elseif self.goodbye then
    state = "closing"
  elseif self.stream then
    state = "connected"
  elseif self.next_attempt then
    state = "waiting"
  end
  return {
    state = state,
    version = session.version == 5 and 5 or "3.1.1",
    client_id = session.client_id,
    address = server and server.text,
    keep_alive = session.keep_alive,
    connections = self.connections,
    next_attempt = self.next_attempt and math.max(0, self.next_attempt - now()),
    in_flight = window.in_flight,
    waiting = window:waiting_count(),
    waiting_bytes = window.backlog.bytes,
    receiving = session.incoming and session.incoming.count or 0,
    received_bytes = inbox and inbox.bytes or 0,
    dropped = inbox and inbox.dropped or 0,
    dropped_outgoing = window.backlog.dropped,
    session_present = connack and connack.session_present or false,
    server = connack and connack.properties or {},
    error = self.err or (not self.stream and self.last_error or nil),
  }
end

--- Tells the script of a change, in a task of its own.
---@package
---@param name "on_connected"|"on_disconnected"
---@param value any
function Client:announce(name, value)
  local callback = self.options[name]
  if not callback then return end
  cosocket.spawn("mqtt " .. name, deliveries.attempt, name, nil, callback, self, value)
end

--- Tells everybody who waits that no answer will come.
---@package
---@param err cosocket.Error
function Client:lose(err)
  if self.err then return end
  self.err = err
  self:tell_change()
  local waiting = self.session:disconnected()
  for _, ticket in ipairs(self.requests or {}) do waiting[#waiting + 1] = ticket end
  local messages = self.session:abandon()
  table.move(messages, 1, #messages, #waiting + 1, waiting)
  self.requests = nil
  for _, ticket in ipairs(waiting) do ticket:finish(nil, err) end
  if self.authenticated then self.authenticated:set() end
  if self.delivery then self.delivery:finish_up(self.goodbye) end
  forget(self)
  if self.gate then self.gate:close() end
end

--- Says goodbye with DISCONNECT and closes. What was published before gets a few seconds to be acknowledged; with a
--- store, what was not is sent by the next client that opens it. Whoever still waits for an answer gets `closed`.
---@async
---@param reason_code? integer Default 0: the server forgets the will. 4: it publishes it (MQTT 5).
---@return true
function Client:close(reason_code)
  if not self.err and not self.goodbye then
    self.goodbye, self.goodbye_reason = true, reason_code
    self.nudge:set()
    if self.delivery then self.delivery.room:set() end
    if self.stream then self.stream:wake() end
  end
  if coroutine.isyieldable() then
    self.ended:wait()
  elseif not self.ended:is_set() then
    -- A task that is cancelled cannot wait: what is written is sent if the system takes it.
    self.session:disconnect(reason_code)
    self.away = true
    self:flush()
    self:lose(cosocket.error("closed", "mqtt", "this client is closed"))
    if self.stream then self.stream:close() end
  end
  return true
end

function Client:__close()
  self:close()
end

--- Options that are the backlog's.
local LIMITS = { "queue_max", "queue_bytes_max", "queue_policy" }

local client = {}

---@class mqtt.ClientParts
---@field options mqtt.Options
---@field session_options mqtt.SessionOptions
---@field servers mqtt.Address[]
---@field versions mqtt.codec.Version[]
---@field clean boolean
---@field journal mqtt.Journal?
---@field reconnect mqtt.ReconnectOptions|boolean

--- A client that has no connection yet. `start` brings it to life.
---@param parts mqtt.ClientParts
---@return mqtt.Client
function client.new(parts)
  local session = sessions.new(parts.session_options)
  session.reports = false
  local window, journal = session.outgoing, parts.journal
  for _, name in ipairs(LIMITS) do window.backlog[name] = parts.options[name] end
  ---@type mqtt.Client
  local self = setmetatable({
    session = session,
    driven = session,
    options = parts.options,
    servers = parts.servers,
    versions = parts.versions,
    clean = parts.clean,
    reconnects = parts.reconnect,
    nudge = cosocket.event(),
    ended = cosocket.event(),
  }, Client)
  if journal then
    self.journal = journal
    window.journal = journal
    self.fresh = journal.client_id == nil and parts.options.clean_start == nil
    local received = session:make_incoming()
    received.journal = journal
    window.wall_offset = os.time() - now()
    local kept = journal:load()
    window:restore(kept.outgoing, tickets.new)
    received:restore(kept.received)
    self.gate = gates.new(session, journal, function()
      local stream = self.stream or self.opening
      if stream then stream:wake() end
    end)
    self.driven = self.gate
  end
  remember(self)
  return self
end

--- Brings a client to life: connects, unless that may wait, and starts its tasks.
---@async
---@param self mqtt.Client
---@param wait boolean Whether the first connection is waited for.
---@return mqtt.Client? client
---@return cosocket.Error? err
function client.start(self, wait)
  local gate, journal = self.gate, self.journal
  if gate and journal then
    cosocket.spawn("mqtt store", function()
      -- Cancelled, too: the file is let go.
      local guard <close> = setmetatable({}, { __close = function() journal:close() end })
      gate:run()
    end)
  end
  if wait then
    local guard <close> = setmetatable({}, {
      __close = function()
        if not self.stream then self:lose(cosocket.error("closed", "mqtt", "this client never connected")) end
      end,
    })
    local ok, err = opening.open(self)
    if not ok then return nil, err end
  end
  cosocket.spawn(("mqtt %s"):format(self.session.client_id), connection.own, self)
  return self
end

return client
