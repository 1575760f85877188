--- Streams as messages, those we publish and those we subscribe to: methods of `wsrpc.Session`, and what it does with the
--- notifications that belong to them.

local cosocket = require("cosocket")
local limit = require("wsrpc.limit")
local message = require("wsrpc.message")

local code, fault = message.code, message.fault
local null = require("json").null

--- Values that a subscriber may ask for at once.
local CREDIT_MAX = 1000000

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
---@field credit integer Values that may still come.
---@field over boolean?

---@class wsrpc.Session
local Session = {}

-- The publisher ---------------------------------------------------------------

--- Sends a value to a subscriber.
---@param publication wsrpc.Publication
---@param value any
---@return boolean? sent `false` when the subscriber takes none now.
---@return cosocket.Error? err `closed` when it wants no more; what has no JSON form
function Session:emit(publication, value)
  if publication.over then return nil, cosocket.error("closed", "wsrpc.emit", "the subscriber has ended the stream") end
  if publication.credit <= 0 then return false end
  local text, err = message.value(publication.id, value, self.config)
  if not text then return nil, err end
  self:post(text)
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

--- A subscription's name, as the other side may choose it.
---@param id any
---@return boolean
local function valid_subscription(id)
  return math.type(id) == "integer" or type(id) == "string" and #id <= limit.id_max
end

--- A call that begins a stream.
---@param self wsrpc.Session
---@param call wsrpc.InboundCall
---@param events wsrpc.Event[]
local function take_subscribe(self, call, events)
  local params = call.params
  local id = params and params.subscription
  local credit = params and math.tointeger(params.credit)
  local inner = params and params.params
  if inner == null then inner = nil end
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

-- The subscriber --------------------------------------------------------------

--- Subscribes. The answer to the request, the values and the end are events with `owner`.
---@param name string
---@param params table|nil
---@param credit integer Values that may come before `grant`.
---@param owner any
---@return wsrpc.Feed? feed
---@return cosocket.Error? err
function Session:subscribe(name, params, credit, owner)
  if self.feed_count >= self.config.subscriptions_max then
    return limit.reached("subscriptions", self.feed_count, "subscriptions_max")
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

--- Ends a feed here: whether it had not ended yet.
---@param feed wsrpc.Feed
---@return boolean
function Session:drop_feed(feed)
  if feed.over then return false end
  feed.over = true
  self.feeds[feed.id] = nil
  self.feed_count = self.feed_count - 1
  return true
end

--- Wants no more of a stream. Nothing of it is an event any more.
---@param feed wsrpc.Feed
function Session:unsubscribe(feed)
  if not self:drop_feed(feed) then return end
  if self.pending[feed.id] ~= nil then
    self.pending[feed.id] = nil
    self.pending_count = self.pending_count - 1
  end
  self:notify("rpc.unsubscribe", { subscription = feed.id })
end

-- Notifications ---------------------------------------------------------------

--- What the other side says of streams, without being answered.
---@type table<string, fun(self: wsrpc.Session, params: table, events: wsrpc.Event[])>
local NOTIFICATIONS = {
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
    self:drop_feed(feed)
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

return { methods = Session, notifications = NOTIFICATIONS, take_subscribe = take_subscribe }
