--- A session on a socket: what `mqtt.connect` answers. One task owns the socket and turns the loop; every other
--- task tells the session what it wants, wakes the owner when that is needed, and waits for its own answer.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local deliveries = require("mqtt.delivery")
local drive = require("net.drive")
local publication = require("mqtt.publication")

local now = cosocket.now

--- Bytes that may wait to leave before a publishing task waits too.
local OUTPUT_MAX = 65536
--- Seconds what was published before `close` may take to leave.
local GOODBYE = 5
--- Seconds the server may take to close after our DISCONNECT.
local LINGER = 1

---@class mqtt.Status
---@field state "connected"|"closing"|"closed"
---@field version 5|"3.1.1"
---@field client_id string
---@field keep_alive integer
---@field in_flight integer QoS 1 messages sent and not acknowledged.
---@field waiting integer QoS 1 messages that wait because the server takes no more at once.
---@field received_bytes integer What was received and not yet taken.
---@field dropped integer Received messages that nobody took.
---@field session_present boolean
---@field server mqtt.Properties What the server said of itself in CONNACK.
---@field error cosocket.Error? Why the connection is closed.

---@class mqtt.Client
---@field private stream cosocket.Stream
---@field private session mqtt.Session
---@field private input cosocket.Buffer
---@field private delivery mqtt.Delivery
---@field private err cosocket.Error? Why it is closed.
---@field private ended cosocket.Event Set when the owner has let go of the socket.
---@field private goodbye boolean Asked to close.
---@field private forget_stop fun()
local Client = {}
Client.__index = Client
Client.__name = "mqtt.Client"

-- Waiting ---------------------------------------------------------------------

--- Starts what the session queued on its way.
---@private
function Client:flush()
  local output = self.session.output
  if #output == 0 then return end
  self.stream:try_flush(output)
  if #output > 0 then self.stream:wake() end
end

--- Waits for the answer to `ticket`.
---@private
---@async
---@param ticket mqtt.Ticket
---@return mqtt.Ack|mqtt.Acks|nil answer
---@return cosocket.Error? err
function Client:await(ticket)
  self:flush()
  if not ticket.answer and not ticket.err then
    local event = cosocket.event()
    ticket.event = event
    local ok, err = self.delivery:wait(event.wait, event)
    if not ok then return nil, err end
  end
  return ticket.answer, ticket.err
end

---@param op string
---@param what string
---@param code integer
---@param answer mqtt.Ack|mqtt.Acks
---@param fields? table
---@return nil
---@return cosocket.Error err
local function refused(op, what, code, answer, fields)
  local words = codec.reason(code) or ("reason code 0x%02X"):format(code)
  local reason = answer.properties and answer.properties.reason_string
  fields = fields or {}
  fields.code, fields.reason = code, reason
  local message = ("the server refused %s: %s%s"):format(what, words, reason and (" (%s)"):format(reason) or "")
  return nil, cosocket.error("refused", op, message, fields)
end

-- Commands --------------------------------------------------------------------

---@class mqtt.PublishOptions
---@field qos? 0|1 Default 0.
---@field retain? boolean Default `false`.
---@field expiry? number Seconds after which nobody needs the message any more; MQTT 5, as all below.
---@field content_type? string
---@field response_topic? string
---@field correlation? string
---@field utf8? boolean The payload is text.
---@field user? [string, string][]|table<string, string> User properties.

--- Publishes. Returns when the server has acknowledged the message (QoS 1), or when it is on its way (QoS 0).
---@async
---@param topic string
---@param payload? string
---@param options? mqtt.PublishOptions
---@return integer? reason_code 0, or 0x10 when the server knows that nobody has subscribed.
---@return cosocket.Error? err `closed`, `refused` with `code`, `limit`, `protocol`
function Client:publish(topic, payload, options)
  local qos, retain, properties = 0, false, nil
  if type(topic) ~= "string" then error(("publish: the topic must be a string, not a %s"):format(type(topic)), 2) end
  if payload ~= nil and type(payload) ~= "string" then
    error(("publish: the payload must be a string, not a %s"):format(type(payload)), 2)
  end
  if options then qos, retain, properties = publication.check("publish", options) end
  local session, stream = self.session, self.stream
  while #session.output > OUTPUT_MAX do
    local ok, err = self.delivery:wait(stream.flush, stream)
    if not ok then return nil, self.err or err end
    stream:try_flush(session.output)
  end
  local sent, err = session:publish(topic, payload, qos, retain, properties, now())
  if sent == true then
    self:flush()
    return 0
  elseif not sent then
    ---@cast err cosocket.Error
    if err.kind == "protocol" and not codec.valid_topic(topic) then
      error(("publish: %q is not a topic to publish to"):format(topic), 2)
    end
    return nil, err.kind == "closed" and self.err or err
  end
  local answer, failure = self:await(sent)
  if not answer then return nil, failure end
  if answer.reason_code >= 0x80 then return refused("mqtt.publish", "the message", answer.reason_code, answer) end
  return answer.reason_code
end

---@class mqtt.SubscribeOptions
---@field qos? 0|1 At most at this quality of service. Default 0.
---@field no_local? boolean Not what this client publishes itself; MQTT 5, as all below.
---@field retain_as_published? boolean Messages keep RETAIN as it was published.
---@field retain_handling? 0|1|2 Retained messages: 0 send them, 1 only to a new subscription, 2 do not. Default 0.
---@field identifier? integer Comes with each message of this subscription.
---@field user? [string, string][]|table<string, string> User properties.

local SUBSCRIBE_OPTIONS = {
  qos = "integer",
  no_local = "boolean",
  retain_as_published = "boolean",
  retain_handling = "integer",
  identifier = "integer",
  user = "table",
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

--- Subscribes. Returns when the server has agreed; messages go to `handler`, in a task of its own and one at a
--- time, or else to `messages`.
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
  if handler ~= nil and type(handler) ~= "function" then
    error(("subscribe: the handler must be a function, not a %s"):format(type(handler)), 2)
  end
  if (options.qos or 0) > 1 then error("subscribe: qos must be 0 or 1", 2) end
  if (options.retain_handling or 0) > 2 then error("subscribe: retain_handling must be 0, 1 or 2", 2) end
  local subscriptions, routes = {}, {}
  for i, filter in ipairs(list) do
    subscriptions[i] = {
      filter = filter,
      qos = options.qos,
      no_local = options.no_local,
      retain_as_published = options.retain_as_published,
      retain_handling = options.retain_handling,
    }
    -- The first messages may come before the answer (3.8.4).
    if handler then routes[i] = self.delivery.inbox:add(filter, handler) end
  end
  local properties
  if options.identifier or options.user then
    properties = {
      subscription_identifier = options.identifier,
      user_property = publication.user_properties("subscribe", options.user),
    }
  end
  local answer
  local ticket, err = self.session:subscribe(subscriptions, properties, now())
  if ticket then answer, err = self:await(ticket) end
  if not answer then
    for _, route in ipairs(routes) do self.delivery:drop(route) end
    ---@cast err cosocket.Error
    return nil, err.kind == "closed" and self.err or err
  end
  local codes, failed = answer.reason_codes, nil
  for i, code in ipairs(codes) do
    if code >= 0x80 then
      failed = failed or i
      if routes[i] then self.delivery:drop(routes[i]) end
    elseif routes[i] then
      -- The new subscription replaces the old one [MQTT-3.8.4-3], and its handler too.
      self.delivery:drop_handlers(list[i], routes[i])
    end
  end
  if failed then
    local what = ("the subscription to %q"):format(list[failed])
    return refused("mqtt.subscribe", what, codes[failed], answer, { codes = codes, filter = list[failed] })
  end
  return type(filters) == "string" and codes[1] or codes
end

--- Unsubscribes, and forgets the handlers of these filters.
---@async
---@param filters string|string[]
---@return true? ok Also when there was no such subscription.
---@return cosocket.Error? err
function Client:unsubscribe(filters)
  local list = filter_list("unsubscribe", filters)
  local answer
  local ticket, err = self.session:unsubscribe(list, nil, now())
  if ticket then answer, err = self:await(ticket) end
  if not answer then
    ---@cast err cosocket.Error
    return nil, err.kind == "closed" and self.err or err
  end
  local codes, failed = answer.reason_codes, nil
  for i, filter in ipairs(list) do
    if (codes[i] or 0) >= 0x80 then
      failed = failed or i
    else
      self.delivery:drop_handlers(filter)
    end
  end
  if failed then
    local what = ("to end the subscription to %q"):format(list[failed])
    return refused("mqtt.unsubscribe", what, codes[failed], answer, { codes = codes, filter = list[failed] })
  end
  return true
end

---@return mqtt.Status
function Client:status()
  local session = self.session
  local connack = session.connack
  return {
    state = self.err and "closed" or session.state == "connected" and "connected" or "closing",
    version = session.version == 5 and 5 or "3.1.1",
    client_id = session.client_id,
    keep_alive = session.keep_alive,
    in_flight = session.outgoing.in_flight,
    waiting = session.outgoing:waiting_count(),
    received_bytes = self.delivery.inbox.bytes,
    dropped = self.delivery.inbox.dropped,
    session_present = connack and connack.session_present or false,
    server = connack and connack.properties or {},
    error = self.err,
  }
end

--- Received messages, for a `for` loop: those that match `filter`, or all that no handler and no other loop
--- takes. It does not subscribe. A QoS 1 message is acknowledged when the next one is asked for. The loop ends
--- when the client is closed; when the connection was lost, after the last message that had come.
---@async
---@param filter? string
---@return fun(): mqtt.Publish?
function Client:messages(filter)
  if filter ~= nil then filter_list("messages", filter) end
  return self.delivery:messages(filter)
end

-- The owner -------------------------------------------------------------------

--- Tells everybody who waits that no answer will come.
---@private
---@param err cosocket.Error
function Client:lose(err)
  if self.err then return end
  self.err = err
  for _, ticket in ipairs(self.session:lost()) do
    ticket.err = err
    if ticket.event then ticket.event:set() end
  end
  self.delivery:finish_up(self.goodbye)
  self.forget_stop()
end

--- Sends what is left, and closes so that it arrives.
---@async
---@param client mqtt.Client
local function leave(client)
  local stream, input, output = client.stream, client.input, client.session.output
  local sent = cosocket.deadline(GOODBYE, function()
    while #output > 0 do
      input:clear()
      local ok = stream:turn(input, output)
      if not ok then return nil end
    end
    return stream:shutdown("write")
  end)
  -- A connection that is closed with unread bytes is reset, and the DISCONNECT may be lost with it: the server
  -- closes first.
  if not sent then return end
  cosocket.deadline(LINGER, function()
    repeat input:clear() until not stream:turn(input, output)
  end)
end

--- Why the connection ends, from the server's DISCONNECT.
---@param packet mqtt.Reason
---@return cosocket.Error
local function told(packet)
  local properties = packet.properties or {}
  local words = packet.reason_code ~= 0 and codec.reason(packet.reason_code) or "normal disconnection"
  local reason = properties.reason_string
  local message = ("the server ended the connection: %s%s"):format(words, reason and (" (%s)"):format(reason) or "")
  return cosocket.error("closed", "mqtt", message, {
    code = packet.reason_code,
    reason = reason,
    server_reference = properties.server_reference,
  })
end

--- Turns the loop until the connection ends. Answers why.
---@async
---@param client mqtt.Client
---@return cosocket.Error err
local function serve(client)
  local stream, session, input, delivery = client.stream, client.session, client.input, client.delivery
  local inbox = delivery.inbox
  local next_event = drive.next_event
  while not client.goodbye do
    if inbox.bytes >= inbox.bytes_max and inbox:is_full() then
      delivery:hold()
      session:pause(true, now())
      local ok, err = drive.hold(stream, session, delivery.room)
      session:pause(false, now())
      if not ok then return err --[[@as cosocket.Error]] end
    else
      local event, err = next_event(stream, session, input)
      if not event then return err --[[@as cosocket.Error]] end
      local type = event.type
      if type == "publish" then
        delivery:deliver(event)
      elseif type == "disconnect" then
        return told(event)
      else
        local ticket = event.ticket
        if ticket.event then ticket.event:set() end
      end
    end
  end
  return cosocket.error("closed", "mqtt", "this client is closed")
end

--- Why the connection ends, from what the stream said.
---@param err cosocket.Error
---@return cosocket.Error
local function lost(err)
  if err.op:find("^mqtt") then return err end
  local message = ("the connection is lost: %s"):format(err.message)
  return cosocket.error(err.kind, "mqtt", message, { code = err.code, cause = err })
end

--- The task that owns the socket.
---@async
---@param client mqtt.Client
local function own(client)
  local guard <close> = setmetatable({}, {
    -- However this task ends, cancelled too.
    __close = function()
      client:lose(cosocket.error("closed", "mqtt", "the task of this client was cancelled"))
      client.stream:close()
      client.ended:set()
    end,
  })
  local err = lost(serve(client))
  if client.goodbye then err = cosocket.error("closed", "mqtt", "this client is closed") end
  -- We had the last word, in `close` or in the session: it shall arrive.
  if client.goodbye or err.kind == "protocol" or err.kind == "limit" then leave(client) end
  client:lose(err)
end

--- Says goodbye with DISCONNECT and closes. Whoever still waits for an answer gets `closed`.
---@async
---@param reason_code? integer Default 0: the server forgets the will. 4: it publishes it (MQTT 5).
---@return true
function Client:close(reason_code)
  if not self.err and not self.goodbye then
    self.goodbye = true
    self.session:disconnect(reason_code)
    self.delivery.room:set()
    self:flush()
    self.stream:wake()
  end
  if coroutine.isyieldable() then
    self.ended:wait()
  else
    -- A task that is cancelled cannot wait: what is written is sent if the system takes it.
    self:lose(cosocket.error("closed", "mqtt", "this client is closed"))
    self.stream:close()
  end
  return true
end

function Client:__close()
  self:close()
end

local client = {}

--- A client on a stream and a session that are connected.
---@param stream cosocket.Stream
---@param session mqtt.Session
---@param input cosocket.Buffer
---@param receive_queue_max integer
---@return mqtt.Client
function client.new(stream, session, input, receive_queue_max)
  local self = setmetatable({ stream = stream, session = session, input = input, goodbye = false }, Client)
  self.ended = cosocket.event()
  self.delivery = deliveries.new(self, receive_queue_max, function(message)
    session:acknowledge(message, now())
    self:flush()
  end)
  self.forget_stop = cosocket.on_stop(function() self:close() end)
  cosocket.spawn(("mqtt %s"):format(session.client_id), own, self)
  return self
end

return client
