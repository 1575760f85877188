--- JSON-RPC 2.0 in both directions: one side of a connection, without socket, clock or tasks. Whole texts go in, events
--- and texts come out. Both sides are the same: each may call, and each may be called.
---
--- Besides the specification there are, as notifications that nobody answers:
---
--- | message | says |
--- |---|---|
--- | `$/cancelRequest {id}` | The caller does not want the answer any more; it gets error -32800 all the same. |
--- | `rpc.next {subscription, value}` | The next value of a stream. |
--- | `rpc.end {subscription, error?}` | The publisher has no more; `error` says when that is not the clean end. |
--- | `rpc.credit {subscription, credit}` | The subscriber takes so many values more. |
--- | `rpc.unsubscribe {subscription}` | The subscriber wants no more. |
---
--- A stream begins with the request `rpc.subscribe {subscription, name, params?, credit}`. The subscriber chooses
--- `subscription`, a number or string of its own; the result `true` means that values will come, at most `credit` of them
--- until `rpc.credit` allows more. So a slow subscriber holds the publisher back, and neither memory grows.

local cosocket = require("cosocket")
local json = require("json")
local message = require("wsrpc.message")

local code, fault = message.code, message.fault
local decode, is_array, null = json.decode, json.is_array, json.null

--- Bytes of a message, in either direction.
local MESSAGE_MAX = 1048576
--- How deep arrays and objects nest in a message.
local DEPTH_MAX = 64
--- Calls of the other side that run here at a time, notifications included.
local CALLS_MAX = 256
--- Calls of ours that wait for their answer.
local PENDING_MAX = 1024
--- Streams, of each direction.
local SUBSCRIPTIONS_MAX = 100
--- Requests in a batch.
local BATCH_MAX = 100
--- Messages of the other side in a second, each of a batch counted, and how many may come at once.
local RATE = 100000
--- Bytes of an id that is a string.
local ID_MAX = 256
--- Values that a subscriber may ask for at once.
local CREDIT_MAX = 1000000

---@class wsrpc.Limits
---@field message_max? integer Bytes of a message; a longer one closes the connection with code 1009. Default 1048576.
---@field depth_max? integer How deep arrays and objects nest, at most 256. Default 64.
---@field calls_max? integer Calls of the other side that run at a time; more get error -32002, and notifications are dropped. Default 256.
---@field pending_max? integer Calls of ours that wait for their answer; more fail with `limit`. Default 1024.
---@field subscriptions_max? integer Streams of each direction. Default 100.
---@field batch_max? integer Requests in a batch. Default 100.
---@field rate? number Messages of the other side in a second, as many of them at once; more get error -32003, and twice as many close the connection. Default 100000.

local session = {}

--- The names of the limits, for those who check options.
session.limits = {
  message_max = "integer",
  depth_max = "integer",
  calls_max = "integer",
  pending_max = "integer",
  subscriptions_max = "integer",
  batch_max = "integer",
  rate = "number",
}

--- What sessions with the same limits share.
---@class wsrpc.Config: wsrpc.Limits
---@field decoding json.DecodeOptions
---@field encoding json.EncodeOptions

---@param limits? wsrpc.Limits
---@return wsrpc.Config
function session.config(limits)
  limits = limits or {}
  local message_max, depth_max = limits.message_max or MESSAGE_MAX, limits.depth_max or DEPTH_MAX
  return {
    message_max = message_max,
    depth_max = depth_max,
    calls_max = limits.calls_max or CALLS_MAX,
    pending_max = limits.pending_max or PENDING_MAX,
    subscriptions_max = limits.subscriptions_max or SUBSCRIPTIONS_MAX,
    batch_max = limits.batch_max or BATCH_MAX,
    rate = limits.rate or RATE,
    decoding = { depth_max = depth_max, size_max = message_max },
    encoding = { depth_max = depth_max, size_max = message_max, sort_keys = false },
  }
end

--- A batch of the other side, until all of it is answered.
---@class wsrpc.Batch
---@field waiting integer Answers that are due.
---@field bytes integer
---@field texts string[]
---@field open boolean Not all of it has been looked at.

--- A call of the other side. Whoever runs it ends it with `answer` or `fail`, notifications too.
---@class wsrpc.InboundCall
---@field id string|number|lightuserdata|nil `nil` is a notification.
---@field method string
---@field params table?
---@field package batch wsrpc.Batch?
---@field package over boolean?

--- A stream that the other side has subscribed to.
---@class wsrpc.Publication
---@field id string|integer The subscriber's name for it.
---@field name string
---@field params table?
---@field credit integer Values that it takes now.
---@field call wsrpc.InboundCall The request that began it.
---@field over boolean?

--- A stream of the other side that we have subscribed to.
---@class wsrpc.Feed
---@field id integer
---@field owner any
---@field package credit integer Values that may still come.
---@field over boolean?

---@class wsrpc.Event
---@field kind "call"|"cancel"|"subscribe"|"credit"|"unsubscribe"|"answer"|"next"|"end"|"stray"
---@field call wsrpc.InboundCall? Of `call` and `cancel`.
---@field publication wsrpc.Publication? Of `subscribe`, `credit` and `unsubscribe`.
---@field owner any Of `answer`, `next` and `end`: what was given with our call or subscription.
---@field value any The result or the value, `json.null` for null.
---@field error wsrpc.Fault|cosocket.Error|nil What the other side said, or how it broke the protocol.

---@class wsrpc.Session
---@field output string[] Texts to send, from `first` to `last`.
---@field first integer
---@field last integer
---@field output_bytes integer Length of those texts.
---@field config wsrpc.Config
---@field private calls table<any, wsrpc.InboundCall> By id.
---@field private call_count integer
---@field private pending table<integer, any> Whose the call is, by id.
---@field private pending_count integer
---@field private publications table<any, wsrpc.Publication>
---@field private publication_count integer
---@field private feeds table<integer, wsrpc.Feed>
---@field private feed_count integer
---@field private last_id integer
---@field private tokens number
---@field private counted number? When tokens were counted last.
---@field private excess integer
local Session = {}
Session.__index = Session
Session.__name = "wsrpc.Session"

---@param config? wsrpc.Config
---@return wsrpc.Session
function session.new(config)
  config = config or session.config()
  return setmetatable({
    output = {},
    first = 1,
    last = 0,
    output_bytes = 0,
    config = config,
    calls = {},
    call_count = 0,
    pending = {},
    pending_count = 0,
    publications = {},
    publication_count = 0,
    feeds = {},
    feed_count = 0,
    last_id = 0,
    tokens = config.rate,
    excess = 0,
  }, Session)
end

-- Sending ---------------------------------------------------------------------

--- Queues a text.
---@param text string
function Session:post(text)
  local last = self.last + 1
  self.last = last
  self.output[last] = text
  self.output_bytes = self.output_bytes + #text
end

--- Takes the next text to send.
---@return string?
function Session:take()
  local first = self.first
  local text = self.output[first]
  if not text then return nil end
  self.output[first] = nil
  self.output_bytes = self.output_bytes - #text
  if first == self.last then
    self.first, self.last = 1, 0
  else
    self.first = first + 1
  end
  return text
end

---@param what string
---@param count integer
---@param option string
---@return nil
---@return cosocket.Error
local function full(what, count, option)
  local text = ("%d %s already; %s allows no more"):format(count, what, option)
  return nil, cosocket.error("limit", "wsrpc", text)
end

--- Calls. The answer is an event with `owner`.
---@param method string
---@param params table|nil
---@param owner any
---@return integer? id
---@return cosocket.Error? err `limit` when too many wait, or the message is too long; `protocol` for what has no JSON form
function Session:request(method, params, owner)
  local config = self.config
  if self.pending_count >= config.pending_max then return full("calls wait", self.pending_count, "pending_max") end
  local id = self.last_id + 1
  local text, err = message.request(id, method, params, config.encoding)
  if not text then return nil, err end
  self.last_id = id
  self.pending[id] = owner
  self.pending_count = self.pending_count + 1
  self:post(text)
  return id
end

--- Tells without being answered.
---@param method string
---@param params table|nil
---@return true? ok
---@return cosocket.Error? err
function Session:notify(method, params)
  local text, err = message.request(nil, method, params, self.config.encoding)
  if not text then return nil, err end
  self:post(text)
  return true
end

---@class wsrpc.BatchEntry
---@field method string
---@field params table?
---@field owner any `nil` is a notification.

--- Sends several calls and notifications as one message (6).
---@param entries wsrpc.BatchEntry[]
---@return integer[]? ids Of the calls, in their order.
---@return cosocket.Error? err
function Session:batch(entries)
  local config, texts, ids, bytes = self.config, {}, {}, 1
  if #entries > config.batch_max then return full("requests in the batch", #entries, "batch_max") end
  for i, entry in ipairs(entries) do
    local id
    if entry.owner ~= nil then
      id = self.last_id + #ids + 1
      ids[#ids + 1] = id
    end
    local text, err = message.request(id, entry.method, entry.params, config.encoding)
    if not text then return nil, err end
    texts[i] = text
    bytes = bytes + #text + 1
  end
  if self.pending_count + #ids > config.pending_max then
    return full("calls wait", self.pending_count, "pending_max")
  elseif bytes > config.message_max then
    return nil, cosocket.error("limit", "wsrpc", "the batch is longer than message_max")
  end
  local next_id = self.last_id
  for _, entry in ipairs(entries) do
    if entry.owner ~= nil then
      next_id = next_id + 1
      self.pending[next_id] = entry.owner
    end
  end
  self.last_id = next_id
  self.pending_count = self.pending_count + #ids
  self:post("[" .. table.concat(texts, ",") .. "]")
  return ids
end

--- Gives a call of ours up. Its answer will be passed over.
---@param id integer
function Session:cancel(id)
  if self.pending[id] == nil then return end
  self.pending[id] = nil
  self.pending_count = self.pending_count - 1
  self:notify("$/cancelRequest", { id = id })
end

--- The connection is over.
---@return any[] owners Of the calls and feeds that will hear no more.
function Session:finish()
  local owners = {}
  for _, owner in pairs(self.pending) do owners[#owners + 1] = owner end
  for _, feed in pairs(self.feeds) do
    feed.over = true
    owners[#owners + 1] = feed.owner
  end
  for _, publication in pairs(self.publications) do publication.over = true end
  self.pending, self.pending_count = {}, 0
  self.feeds, self.feed_count = {}, 0
  self.publications, self.publication_count = {}, 0
  return owners
end

-- Answering -------------------------------------------------------------------

---@param self wsrpc.Session
---@param batch wsrpc.Batch
local function settle_batch(self, batch)
  if batch.waiting > 0 or batch.open then return end
  -- 6: nothing at all when there is nothing to answer
  if #batch.texts > 0 then self:post("[" .. table.concat(batch.texts, ",") .. "]") end
end

---@param self wsrpc.Session
---@param batch wsrpc.Batch?
---@param id string|number|lightuserdata
---@param text string
local function respond(self, batch, id, text)
  if not batch then return self:post(text) end
  if batch.bytes + #text + 1 > self.config.message_max then
    local short = fault(code.internal_error, "the answers to the batch are too long")
    text = message.failure(id, short, self.config.encoding) --[[@as string]]
  end
  batch.bytes = batch.bytes + #text + 1
  table.insert(batch.texts, text)
end

--- Ends a call: whether its answer is still wanted.
---@param self wsrpc.Session
---@param call wsrpc.InboundCall
---@return boolean
local function conclude(self, call)
  if call.over then return false end
  call.over = true
  self.call_count = self.call_count - 1
  local id = call.id
  if id == nil then return false end
  if self.calls[id] == call then self.calls[id] = nil end
  return true
end

--- Answers a call with an error.
---@param call wsrpc.InboundCall
---@param wrong wsrpc.Fault
function Session:fail(call, wrong)
  if not conclude(self, call) then return end
  local id = call.id --[[@as string|number]]
  local text = message.failure(id, wrong, self.config.encoding)
  -- Data that has no JSON form, or is too long, stays here.
  text = text or message.failure(id, fault(wrong.code), self.config.encoding) --[[@as string]]
  local batch = call.batch
  respond(self, batch, id, text)
  if batch then
    batch.waiting = batch.waiting - 1
    settle_batch(self, batch)
  end
end

--- Answers a call. What has no JSON form or is too long is answered with -32603.
---@param call wsrpc.InboundCall
---@param result any
---@return true? ok
---@return cosocket.Error? err What is wrong with the result.
function Session:answer(call, result)
  if call.id == nil or call.over then
    conclude(self, call)
    return true
  end
  local text, err = message.result(call.id, result, self.config.encoding)
  if not text then
    self:fail(call, fault(code.internal_error))
    return nil, err
  end
  conclude(self, call)
  local batch = call.batch
  respond(self, batch, call.id, text)
  if batch then
    batch.waiting = batch.waiting - 1
    settle_batch(self, batch)
  end
  return true
end

-- Streams: the publisher ------------------------------------------------------

--- Sends a value to a subscriber.
---@param publication wsrpc.Publication
---@param value any
---@return boolean? sent `false` when the subscriber takes none now.
---@return cosocket.Error? err `closed` when it wants no more; what has no JSON form
function Session:emit(publication, value)
  if publication.over then return nil, cosocket.error("closed", "wsrpc.emit", "the subscriber has ended the stream") end
  if publication.credit <= 0 then return false end
  local ok, err = self:notify("rpc.next", { subscription = publication.id, value = value })
  if not ok then return nil, err end
  publication.credit = publication.credit - 1
  return true
end

---@param self wsrpc.Session
---@param publication wsrpc.Publication
local function drop_publication(self, publication)
  if publication.over then return false end
  publication.over = true
  self.publications[publication.id] = nil
  self.publication_count = self.publication_count - 1
  return true
end

--- Begins a stream that was asked for: values may follow.
---@param publication wsrpc.Publication
---@return boolean accepted `false` when the request was cancelled.
function Session:accept(publication)
  if publication.call.over then
    drop_publication(self, publication)
    return false
  end
  self:answer(publication.call, true)
  return true
end

--- Refuses a stream that was asked for.
---@param publication wsrpc.Publication
---@param wrong wsrpc.Fault
function Session:reject(publication, wrong)
  drop_publication(self, publication)
  self:fail(publication.call, wrong)
end

--- Ends a stream.
---@param publication wsrpc.Publication
---@param wrong? wsrpc.Fault When it is not the clean end.
function Session:end_stream(publication, wrong)
  if not drop_publication(self, publication) then return end
  local ok = self:notify("rpc.end", { subscription = publication.id, error = wrong })
  if not ok then
    ---@cast wrong wsrpc.Fault
    self:notify("rpc.end", { subscription = publication.id, error = fault(wrong.code) })
  end
end

-- Streams: the subscriber -----------------------------------------------------

--- Subscribes. The answer to the request, the values and the end are events with `owner`.
---@param name string
---@param params table|nil
---@param credit integer Values that may come before `grant`.
---@param owner any
---@return wsrpc.Feed? feed
---@return cosocket.Error? err
function Session:subscribe(name, params, credit, owner)
  if self.feed_count >= self.config.subscriptions_max then
    return full("subscriptions", self.feed_count, "subscriptions_max")
  end
  local id = self.last_id + 1
  local made, err = self:request("rpc.subscribe", {
    subscription = id,
    name = name,
    params = params,
    credit = credit,
  }, owner)
  if not made then return nil, err end
  local feed = { id = id, owner = owner, credit = credit }
  self.feeds[id] = feed
  self.feed_count = self.feed_count + 1
  return feed
end

--- Lets `count` values more come.
---@param feed wsrpc.Feed
---@param count integer
function Session:grant(feed, count)
  if feed.over then return end
  feed.credit = feed.credit + count
  self:notify("rpc.credit", { subscription = feed.id, credit = count })
end

---@param self wsrpc.Session
---@param feed wsrpc.Feed
---@return boolean
local function drop_feed(self, feed)
  if feed.over then return false end
  feed.over = true
  self.feeds[feed.id] = nil
  self.feed_count = self.feed_count - 1
  return true
end

--- Wants no more of a stream. Nothing of it is an event any more.
---@param feed wsrpc.Feed
function Session:unsubscribe(feed)
  if not drop_feed(self, feed) then return end
  if self.pending[feed.id] ~= nil then
    self.pending[feed.id] = nil
    self.pending_count = self.pending_count - 1
  end
  self:notify("rpc.unsubscribe", { subscription = feed.id })
end

-- Receiving -------------------------------------------------------------------

--- Whether one more message is within the rate; `nil` when that is the end.
---@param self wsrpc.Session
---@param now number
---@return boolean?
local function within_rate(self, now)
  local rate = self.config.rate
  local tokens = math.min(rate, self.tokens + (now - (self.counted or now)) * rate)
  self.counted = now
  if tokens >= 1 then
    self.tokens, self.excess = tokens - 1, 0
    return true
  end
  self.tokens = tokens
  self.excess = self.excess + 1
  if self.excess > rate then return nil end
  return false
end

---@param id any
---@return boolean
local function valid_id(id)
  local kind = type(id)
  return kind == "number" or kind == "string" and #id <= ID_MAX or id == null
end

--- A subscription's name, as the other side may choose it.
---@param id any
---@return boolean
local function valid_subscription(id)
  return math.type(id) == "integer" or type(id) == "string" and #id <= ID_MAX
end

--- What our own side reads of a response (5).
---@param self wsrpc.Session
---@param value table
---@param events wsrpc.Event[]
local function take_response(self, value, events)
  local id, result, wrong = value.id, value.result, value.error
  local owner = id ~= nil and self.pending[id]
  if owner == nil or owner == false then
    -- An answer to a call that was cancelled, or an error without an id: nobody waits for it.
    if wrong ~= nil and id == null then events[#events + 1] = { kind = "stray", error = wrong } end
    return
  end
  self.pending[id] = nil
  self.pending_count = self.pending_count - 1
  local event = { kind = "answer", owner = owner, value = result }
  if value.jsonrpc ~= "2.0" or (result ~= nil) == (wrong ~= nil) or wrong ~= nil and not message.is_fault(wrong) then
    event.value = nil
    event.error = cosocket.error("protocol", "wsrpc.call", "the answer is no JSON-RPC 2.0 response")
  elseif wrong ~= nil then
    event.error = fault(wrong.code, wrong.message, wrong.data)
  end
  local feed = self.feeds[id]
  if feed and event.error then drop_feed(self, feed) end
  events[#events + 1] = event
end

--- Notifications that belong to this layer.
---@type table<string, fun(self: wsrpc.Session, params: table, events: wsrpc.Event[])>
local CONTROL = {
  ["$/cancelRequest"] = function(self, params, events)
    local call = params.id ~= nil and self.calls[params.id]
    if not call or call.over then return end
    self:fail(call, fault(code.cancelled))
    events[#events + 1] = { kind = "cancel", call = call }
  end,
  ["rpc.next"] = function(self, params, events)
    local feed = params.subscription ~= nil and self.feeds[params.subscription]
    -- One that we have ended, whose values were on their way.
    if not feed or params.value == nil then return end
    feed.credit = feed.credit - 1
    if feed.credit < 0 then
      self:unsubscribe(feed)
      local err = cosocket.error("protocol", "wsrpc.stream", "the publisher sends more than it was allowed to")
      events[#events + 1] = { kind = "end", owner = feed.owner, error = err }
      return
    end
    events[#events + 1] = { kind = "next", owner = feed.owner, value = params.value }
  end,
  ["rpc.end"] = function(self, params, events)
    local feed = params.subscription ~= nil and self.feeds[params.subscription]
    if not feed then return end
    drop_feed(self, feed)
    local event = { kind = "end", owner = feed.owner }
    local wrong = params.error
    if message.is_fault(wrong) then
      event.error = fault(wrong.code, wrong.message, wrong.data)
    elseif wrong ~= nil and wrong ~= null then
      event.error = cosocket.error("protocol", "wsrpc.stream", "the stream ended with what is no error object")
    end
    events[#events + 1] = event
  end,
  ["rpc.credit"] = function(self, params, events)
    local publication = params.subscription ~= nil and self.publications[params.subscription]
    local count = math.tointeger(params.credit)
    if not publication or not count or count < 1 then return end
    publication.credit = math.min(CREDIT_MAX, publication.credit + math.min(count, CREDIT_MAX))
    events[#events + 1] = { kind = "credit", publication = publication }
  end,
  ["rpc.unsubscribe"] = function(self, params, events)
    local publication = params.subscription ~= nil and self.publications[params.subscription]
    if not publication then return end
    drop_publication(self, publication)
    events[#events + 1] = { kind = "unsubscribe", publication = publication }
  end,
}

--- A call that begins a stream.
---@param self wsrpc.Session
---@param call wsrpc.InboundCall
---@param events wsrpc.Event[]
local function take_subscribe(self, call, events)
  local params = call.params
  local id = params and params.subscription
  local credit = params and math.tointeger(params.credit)
  local inner = params and params.params
  if
    not params
    or not valid_subscription(id)
    or type(params.name) ~= "string"
    or not credit
    or credit < 1
    or inner ~= nil and type(inner) ~= "table"
    or self.publications[id]
  then
    return self:fail(call, fault(code.invalid_params))
  elseif self.publication_count >= self.config.subscriptions_max then
    return self:fail(call, fault(code.busy, "Too many subscriptions"))
  end
  local publication = {
    id = id,
    name = params.name,
    params = inner,
    credit = math.min(credit, CREDIT_MAX),
    call = call,
  }
  self.publications[id] = publication
  self.publication_count = self.publication_count + 1
  events[#events + 1] = { kind = "subscribe", publication = publication }
end

--- Takes one request, notification or response.
---@param self wsrpc.Session
---@param value any
---@param batch wsrpc.Batch?
---@param now number
---@param events wsrpc.Event[]
---@return true? ok `nil`: this is the end.
local function take(self, value, batch, now, events)
  local config = self.config
  local is_object = type(value) == "table" and not is_array(value)
  if is_object and value.method == nil and (value.result ~= nil or value.error ~= nil) then
    take_response(self, value, events)
    return true
  end
  local id, wrong
  local allowed = within_rate(self, now)
  if allowed == nil then return nil end
  if not is_object then
    wrong = code.invalid_request
  else
    id = value.id
    local params = value.params
    if id ~= nil and not valid_id(id) then
      id, wrong = nil, code.invalid_request
    elseif value.jsonrpc ~= "2.0" or type(value.method) ~= "string" or params ~= nil and type(params) ~= "table" then
      wrong = code.invalid_request
    elseif id ~= nil and self.calls[id] then
      -- 4: the answers could not be told apart
      return respond(self, batch, id, message.failure(
        id,
        fault(code.invalid_request, "a call with this id is running"),
        config.encoding
      ) --[[@as string]]) or true
    end
  end
  if wrong then
    -- 5: the id is Null when it could not be told
    id = id == nil and null or id
    respond(self, batch, id, message.failure(id, fault(wrong), config.encoding) --[[@as string]])
    return true
  end
  local method, params = value.method, value.params
  if id == nil then
    local control = CONTROL[method]
    if control then
      if params then control(self, params, events) end
      return true
    elseif not allowed or self.call_count >= config.calls_max then
      return true
    end
  elseif not allowed or self.call_count >= config.calls_max then
    local why = fault(allowed and code.busy or code.rate_exceeded)
    respond(self, batch, id, message.failure(id, why, config.encoding) --[[@as string]])
    return true
  end
  ---@type wsrpc.InboundCall
  local call = { id = id, method = method, params = params, batch = id ~= nil and batch or nil }
  self.call_count = self.call_count + 1
  if id ~= nil then
    if id ~= null then self.calls[id] = call end
    if batch then batch.waiting = batch.waiting + 1 end
  end
  if method == "rpc.subscribe" then
    take_subscribe(self, call, events)
  else
    events[#events + 1] = { kind = "call", call = call }
  end
  return true
end

--- Takes a message.
---@param text string
---@param now number
---@return wsrpc.Event[]? events What it means, in order.
---@return cosocket.Error? err The end; `code` is the one to close with.
function Session:receive(text, now)
  local config, events = self.config, {}
  local value, err = decode(text, config.decoding)
  local ok = true
  if err then
    if within_rate(self, now) == nil then
      ok = nil
    else
      -- 4.2 of RFC 8259 calls it no JSON; deep nesting is refused by the parser, too.
      local why = err.kind == "limit" and "nested too deep, or too long" or nil
      self:post(message.failure(null, fault(code.parse_error, why), config.encoding) --[[@as string]])
    end
  elseif is_array(value) then
    local count = #value
    if count == 0 or count > config.batch_max then
      local why = count > 0 and ("a batch may have %d requests"):format(config.batch_max) or nil
      ok = within_rate(self, now) ~= nil
      self:post(message.failure(null, fault(code.invalid_request, why), config.encoding) --[[@as string]])
    else
      local batch = { waiting = 0, bytes = 1, texts = {}, open = true }
      for _, entry in ipairs(value) do
        ok = take(self, entry, batch, now, events)
        if not ok then break end
      end
      batch.open = false
      settle_batch(self, batch)
    end
  else
    ok = take(self, value, nil, now, events)
  end
  if not ok then
    return nil, cosocket.error("limit", "wsrpc", "too many messages in too short a time", { code = 1008 })
  end
  return events
end

return session
