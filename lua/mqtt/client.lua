--- What `mqtt.connect` answers: a session and whatever connections it takes. One task owns the connection and turns the
--- loop (`mqtt.connection`); every other task tells the session what it wants, wakes the owner when that is needed,
--- and waits for its own answer.

local backoffs = require("mqtt.backoff")
local codec = require("mqtt.codec")
local connection = require("mqtt.connection")
local cosocket = require("cosocket")
local deliveries = require("mqtt.delivery")
local gates = require("mqtt.gate")
local log = require("log").new("mqtt")
local publication = require("mqtt.publication")
local requests = require("mqtt.request")
local sessions = require("mqtt.session")
local subscriptions = require("mqtt.subscriptions")
local tickets = require("mqtt.ticket")

local now = cosocket.now

--- Bytes of received messages that may wait to be taken.
local RECEIVE_QUEUE_MAX = 1048576
--- Bytes that may wait to leave before a publishing task waits too.
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
local Client = { next_server = 1, connections = 0, connected_at = 0, last_identifier = 0, goodbye = false }
Client.__index = Client
Client.__name = "mqtt.Client"

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

-- Publishing ------------------------------------------------------------------

---@class mqtt.PublishOptions
---@field qos? mqtt.Qos Default 0.
---@field retain? boolean Default `false`.
---@field expiry? number Seconds after which nobody needs the message any more; MQTT 5, as all below.
---@field content_type? string
---@field response_topic? string
---@field correlation? string
---@field utf8? boolean The payload is text.
---@field user? [string, string][]|table<string, string> User properties.

--- Gives the session a message. Answers `true` when it is sent and forgotten (QoS 0).
---@param self mqtt.Client
---@param op string
---@param topic string
---@param payload string?
---@param options mqtt.PublishOptions?
---@return true|mqtt.Ticket|nil sent
---@return cosocket.Error? err
local function give(self, op, topic, payload, options)
  local qos, retain, properties, expiry = 0, false, nil, nil
  if type(topic) ~= "string" then error(("%s: the topic must be a string, not a %s"):format(op, type(topic)), 3) end
  if payload ~= nil and type(payload) ~= "string" then
    error(("%s: the payload must be a string, not a %s"):format(op, type(payload)), 3)
  end
  if options then
    qos, retain, properties = publication.check(op, options, 4)
    expiry = options.expiry
  end
  if self.err or self.goodbye then
    return nil, self.err or cosocket.error("closed", "mqtt.publish", "this client is closed")
  end
  local sent, err = self.session:publish(topic, payload, qos, retain, properties, now(), expiry)
  if not sent then
    ---@cast err cosocket.Error
    if err.kind == "protocol" and not codec.valid_topic(topic) then
      error(("%s: %q is not a topic to publish to"):format(op, topic), 3)
    end
    return nil, err
  end
  if sent ~= true and qos > 0 and self.gate then self.gate:note(sent) end
  return sent
end

--- Waits while more is about to leave than should.
---@private
---@async
---@return true? ok
---@return cosocket.Error? err
function Client:wait_for_room()
  while self.stream and #self.session.output > OUTPUT_MAX do
    local stream = self.stream
    local ok, err = self:hold(stream.flush, stream)
    if not ok and self.stream == stream then
      -- The owner hears of it too; what is queued goes out on the next connection.
      if self.err or not self.reconnects then return nil, self.err or err end
      return true
    end
    self:flush()
  end
  return true
end

--- Publishes. Returns when the server has acknowledged the message (QoS 1 and 2), however many connections that takes,
--- or when it is on its way (QoS 0). Without a connection messages wait, as far as `queue_max` allows. A deadline ends
--- the wait and not the message.
---@async
---@param topic string
---@param payload? string
---@param options? mqtt.PublishOptions
---@return integer? reason_code 0, or 0x10 when the server knows that nobody has subscribed.
---@return cosocket.Error? err `closed`, `refused` with `code`, `limit`, `protocol`, `timeout` when it expired unsent, `io` when it could not be stored
function Client:publish(topic, payload, options)
  if #self.session.output > OUTPUT_MAX then
    local ok, err = self:wait_for_room()
    if not ok then return nil, err end
  end
  local sent, err = give(self, "publish", topic, payload, options)
  if sent == true then
    self:flush()
    return 0
  elseif not sent then
    return nil, err
  end
  if sent.qos == 0 then
    -- It waits for a connection, and nobody waits for it.
    self:flush()
    return 0
  end
  self:flush()
  sent.client = self
  return sent:wait()
end

--- Publishes without waiting for the server. The ticket tells later how it went: `ticket:wait()`, `ticket:is_done()`.
--- With a store, a message of QoS 1 or 2 is on disk when this returns: it will be delivered, whatever happens to the
--- process.
---@async
---@param topic string
---@param payload? string
---@param options? mqtt.PublishOptions
---@return mqtt.Ticket? ticket
---@return cosocket.Error? err `closed`, `refused` with `code`, `limit`, `protocol`, `io` when it could not be stored
function Client:publish_nowait(topic, payload, options)
  if #self.session.output > OUTPUT_MAX then
    local ok, err = self:wait_for_room()
    if not ok then return nil, err end
  end
  local sent, err = give(self, "publish_nowait", topic, payload, options)
  if not sent then return nil, err end
  self:flush()
  if sent == true then
    sent = tickets.new({ type = "publish", qos = 0, answer = { type = "puback", packet_id = 0, reason_code = 0 } })
  elseif self.gate and sent.qos > 0 then
    local ok
    ok, err = self.gate:wait_stored(sent)
    if not ok then return nil, err end
  end
  sent.client = self
  return sent
end

-- Subscribing -----------------------------------------------------------------

---@class mqtt.SubscribeOptions
---@field qos? mqtt.Qos At most at this quality of service. Default 0.
---@field no_local? boolean Not what this client publishes itself; MQTT 5, as all below.
---@field retain_as_published? boolean Messages keep RETAIN as it was published.
---@field retain_handling? 0|1|2 Retained messages: 0 send them, 1 only to a new subscription, 2 do not. Default 0.
---@field identifier? integer Comes with each message of this subscription. Default: one is chosen when there is a handler.
---@field user? [string, string][]|table<string, string> User properties.
---@field concurrency? integer Messages that the handler is given at a time. Default 1: one after another, in order.
---@field manual_acknowledge? boolean The handler's messages are acknowledged by `client:acknowledge` alone. Default `false`.

local SUBSCRIBE_OPTIONS = {
  qos = "integer",
  no_local = "boolean",
  retain_as_published = "boolean",
  retain_handling = "integer",
  identifier = "integer",
  user = "table",
  concurrency = "integer",
  manual_acknowledge = "boolean",
}

--- The filters of a call as a list; raises for what is none.
---@param op string
---@param filters string|string[]
---@return string[]
local function filter_list(op, filters)
  local list = type(filters) == "string" and { filters } or filters
  if type(list) ~= "table" or #list == 0 then error(op .. ": a topic filter or a list of them is wanted", 3) end
  for _, filter in ipairs(list) do
    if type(filter) ~= "string" or not codec.valid_filter(filter) then
      error(("%s: %q is not a topic filter"):format(op, tostring(filter)), 3)
    end
  end
  return list
end

--- Raises for options of `subscribe` that cannot be.
---@param options mqtt.SubscribeOptions
---@param handler any
local function check_subscribe(options, handler)
  if handler ~= nil and type(handler) ~= "function" then
    error(("subscribe: the handler must be a function, not a %s"):format(type(handler)), 3)
  end
  if (options.qos or 0) > 2 then error("subscribe: qos must be 0, 1 or 2", 3) end
  if (options.retain_handling or 0) > 2 then error("subscribe: retain_handling must be 0, 1 or 2", 3) end
  if (options.concurrency or 1) < 1 then error("subscribe: concurrency must be at least 1", 3) end
  if options.identifier and (options.identifier < 1 or options.identifier > 268435455) then
    error("subscribe: identifier must be from 1 to 268435455", 3)
  end
  if (options.concurrency or options.manual_acknowledge) and not handler then
    error("subscribe: concurrency and manual_acknowledge are for a handler, and there is none", 3)
  end
end

--- The Subscription Identifier of a new subscription: messages come with it, and go to its handler (3.8.2.1.2).
---@param client mqtt.Client
---@param wanted integer?
---@param handler function?
---@return integer?
local function identifier_of(client, wanted, handler)
  local session = client.session
  local connack = session.connack
  if wanted or not handler or session.version ~= 5 or not connack then return wanted end
  if connack.properties and connack.properties.subscription_identifier_available == false then return nil end
  client.last_identifier = client.last_identifier + 1
  return client.last_identifier
end

--- Subscribes. Returns when the server has agreed; messages go to `handler`, in a task of its own, or else to
--- `messages`. Without a connection it waits for one. When the server forgets us, it is told again.
---@async
---@param filters string|string[]
---@param options? mqtt.SubscribeOptions
---@param handler? fun(message: mqtt.Publish, client: mqtt.Client)
---@return integer|integer[]|nil granted The quality of service; a list when `filters` is one.
---@return cosocket.Error? err `refused`: the server did not agree to one or more, `codes` has the answers.
---@overload fun(self: mqtt.Client, filters: string|string[], handler: fun(message: mqtt.Publish, client: mqtt.Client)): integer|integer[]|nil, cosocket.Error?
function Client:subscribe(filters, options, handler)
  if type(options) == "function" and handler == nil then options, handler = nil, options end
  local list = filter_list("subscribe", filters)
  options = cosocket.check_options("subscribe", options, SUBSCRIBE_OPTIONS)
  check_subscribe(options, handler)
  local identifier = identifier_of(self, options.identifier, handler)
  local properties
  if identifier or options.user then
    properties = {
      subscription_identifier = identifier,
      user_property = publication.user_properties("subscribe", options.user),
    }
  end
  local delivery, wanted, routes = self.delivery or self:make_delivery(), {}, {}
  for i, filter in ipairs(list) do
    wanted[i] = {
      filter = filter,
      qos = options.qos,
      no_local = options.no_local,
      retain_as_published = options.retain_as_published,
      retain_handling = options.retain_handling,
    }
    -- The first messages may come before the answer (3.8.4).
    if handler then
      routes[i] = delivery.inbox:add(filter, handler, {
        identifier = identifier,
        concurrency = options.concurrency,
        manual = options.manual_acknowledge,
      })
    end
  end
  local packet = { type = "subscribe", subscriptions = wanted, properties = properties }
  local ticket = tickets.new({ type = "subscribe", packet = packet })
  local answer, err
  if self.stream then
    local allowed
    allowed, err = self.session:allows(wanted, properties)
    if allowed then answer, err = self:ask(ticket) end
  else
    answer, err = self:ask(ticket)
  end
  if not answer then
    for _, route in ipairs(routes) do delivery:drop(route) end
    return nil, err
  end
  local codes, failed = answer.reason_codes, nil
  for i, code in ipairs(codes) do
    if code >= 0x80 then
      failed = failed or i
      if routes[i] then delivery:drop(routes[i]) end
    else
      self.subscriptions = self.subscriptions or subscriptions.new()
      self.subscriptions:add(wanted[i], properties)
      -- The new subscription replaces the old one [MQTT-3.8.4-3], and its handler too.
      if routes[i] then delivery:drop_handlers(list[i], routes[i]) end
    end
  end
  if failed then
    local what = ("the subscription to %q"):format(list[failed])
    return nil, ticket:refusal("mqtt.subscribe", what, codes[failed], { codes = codes, filter = list[failed] })
  end
  return type(filters) == "string" and codes[1] or codes
end

--- Unsubscribes, and forgets the handlers of these filters. Without a connection it waits for one.
---@async
---@param filters string|string[]
---@return true? ok Also when there was no such subscription.
---@return cosocket.Error? err
function Client:unsubscribe(filters)
  local list = filter_list("unsubscribe", filters)
  local ticket = tickets.new({ type = "unsubscribe", packet = { type = "unsubscribe", filters = list } })
  -- A server that has forgotten us is not told again.
  for _, filter in ipairs(list) do
    if self.subscriptions then self.subscriptions:remove(filter) end
  end
  local answer, err = self:ask(ticket)
  if not answer then return nil, err end
  local codes, failed = answer.reason_codes, nil
  for i, filter in ipairs(list) do
    if (codes[i] or 0) >= 0x80 then
      failed = failed or i
    elseif self.delivery then
      self.delivery:drop_handlers(filter)
    end
  end
  if failed then
    local what = ("to end the subscription to %q"):format(list[failed])
    return nil, ticket:refusal("mqtt.unsubscribe", what, codes[failed], { codes = codes, filter = list[failed] })
  end
  return true
end

-- Receiving -------------------------------------------------------------------

--- Received messages, for a `for` loop: those that match `filter`, or all that no handler and no other loop
--- takes. It does not subscribe. A QoS 1 or 2 message is acknowledged when the next one is asked for. The loop ends
--- when the client is closed; when it has given up, after the last message that had come.
---@async
---@param filter? string
---@return fun(): mqtt.Publish?
function Client:messages(filter)
  if filter ~= nil then filter_list("messages", filter) end
  return (self.delivery or self:make_delivery()):messages(filter)
end

--- Acknowledges a message of a subscription with `manual_acknowledge`. One whose connection is gone is sent again by
--- the server: then this does nothing.
---@param message mqtt.Publish
---@param reason_code? integer From 0x80 on the message is refused; MQTT 5. Default 0.
---@return true
function Client:acknowledge(message, reason_code)
  if type(message) ~= "table" or message.type ~= "publish" then error("acknowledge: a received message is wanted", 2) end
  local known = reason_code == nil
    or (math.type(reason_code) == "integer" and reason_code >= 0 and reason_code <= 255 and codec.reason(reason_code))
  if not known then
    error("acknowledge: reason_code must be a reason code of PUBACK", 2)
  end
  if self.delivery then self.delivery:acknowledge_by_hand(message, reason_code) end
  return true
end

-- Request and response --------------------------------------------------------

--- Publishes a request and waits for the response to it (MQTT 5, 4.10): who answers publishes to the message's
--- `response_topic` with its `correlation_data`, as `respond` does.
---@async
---@param topic string
---@param payload? string
---@param options? number|mqtt.RequestOptions Seconds to wait, or options.
---@return mqtt.Publish? response
---@return cosocket.Error? err `timeout`, `refused` also when the server knows that nobody has subscribed, `closed`
function Client:request(topic, payload, options)
  options = requests.check(options)
  if self.session.version ~= 5 then
    return nil, cosocket.error("refused", "mqtt.request", "requests need MQTT 5, and the server speaks 3.1.1")
  end
  self.requester = self.requester or requests.new(self, self.options.response_topic)
  return self.requester:request(topic, payload, options)
end

--- Answers a request.
---@async
---@param message mqtt.Publish The request.
---@param payload? string
---@param options? mqtt.PublishOptions Default: the QoS of the request.
---@return integer? reason_code
---@return cosocket.Error? err `protocol` when the message asks for no response; as `publish`
function Client:respond(message, payload, options)
  local properties = message.properties or {}
  if not properties.response_topic then
    return nil, cosocket.error("protocol", "mqtt.respond", "the message names no response topic: nobody waits")
  end
  local given = { qos = message.qos }
  for name, value in pairs(options or {}) do given[name] = value end
  given.correlation = properties.correlation_data
  return self:publish(properties.response_topic, payload, given)
end

-- Authentication --------------------------------------------------------------

--- Authenticates anew on the connection (MQTT 5, 4.12.1), with the `authentication` of the options.
---@async
---@return true? ok
---@return cosocket.Error? err
function Client:reauthenticate()
  local authentication = self.options.authentication
  if not authentication then error("reauthenticate: mqtt.connect was given no authentication", 2) end
  if not self.stream then return nil, cosocket.error("closed", "mqtt.authenticate", "there is no connection") end
  local data, err = connection.secret("authentication.data", authentication.data)
  if err then return nil, err end
  local ok
  ok, err = self.session:authenticate(data, now(), true)
  if not ok then return nil, err end
  local event = cosocket.event()
  self.authenticated = event
  self:flush()
  ok, err = self:hold(event.wait, event)
  if not ok then return nil, err end
  if self.authenticated then
    self.authenticated = nil
    return nil, self.last_error or cosocket.error("closed", "mqtt.authenticate", "the connection is lost")
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
  cosocket.spawn("mqtt " .. name, function()
    local ok, err = xpcall(callback, deliveries.failure, self, value)
    if ok then return end
    if cosocket.is_error(err) then error(err, 0) end
    log.error(("%s failed: %s"):format(name, err.message), { traceback = err.traceback })
  end)
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
    local ok, err = connection.open(self)
    if not ok then return nil, err end
  end
  cosocket.spawn(("mqtt %s"):format(self.session.client_id), connection.own, self)
  return self
end

return client
