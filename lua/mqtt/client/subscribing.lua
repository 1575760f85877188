--- Subscribing and receiving, as a client does it: methods of `mqtt.Client`.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local publication = require("mqtt.publication")
local subscriptions = require("mqtt.subscriptions")
local tickets = require("mqtt.ticket")

---@class mqtt.Client
local Client = {}

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
  cosocket.check_self(self, "client", "subscribe")
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

return Client
