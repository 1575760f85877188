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

local calling = require("wsrpc.session.calling")
local cosocket = require("cosocket")
local json = require("json")
local limit = require("wsrpc.limit")
local message = require("wsrpc.message")
local streaming = require("wsrpc.session.streaming")

local code, fault = message.code, message.fault
local is_array, null = message.is_array, json.null

local session = {}

session.config = limit.config
session.limits = limit.options

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

for _, methods in ipairs({ calling, streaming.methods }) do
  for name, method in pairs(methods) do Session[name] = method end
end

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

--- Tells without being answered.
---@param method string
---@param params table|nil
---@return true? ok
---@return cosocket.Error? err
function Session:notify(method, params)
  local text, err = message.request(nil, method, params, self.config)
  if not text then return nil, err end
  self:post(text)
  return true
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

-- Receiving -------------------------------------------------------------------

--- Whether one more call of the other side would be refused.
---@return boolean
function Session:is_full()
  return self.call_count >= self.config.calls_max
end

---@param id any
---@return boolean
local function valid_id(id)
  local kind = type(id)
  return kind == "number" or kind == "string" and #id <= limit.id_max or id == null
end

--- Notifications that belong to this layer.
---@type table<string, fun(self: wsrpc.Session, params: table, events: wsrpc.Event[])>
local CONTROL = { ["$/cancelRequest"] = Session.take_cancel }
for name, take in pairs(streaming.notifications) do CONTROL[name] = take end

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
    self:take_response(value, events)
    return true
  end
  local id, params, wrong
  local allowed = limit.within_rate(self, now)
  if allowed == nil then return nil end
  if not is_object then
    wrong = code.invalid_request
  else
    id, params = value.id, value.params
    -- 4.2 wants a structure or nothing; clients such as jsonrpsee write null for nothing.
    if params == null then params = nil end
    if id ~= nil and not valid_id(id) then
      id, wrong = nil, code.invalid_request
    elseif value.jsonrpc ~= "2.0" or type(value.method) ~= "string" or params ~= nil and type(params) ~= "table" then
      wrong = code.invalid_request
    elseif id ~= nil and self.calls[id] then
      -- 4: the answers could not be told apart
      return self:respond(batch, id, message.failure(
        id,
        fault(code.invalid_request, "a call with this id is running"),
        config
      ) --[[@as string]]) or true
    end
  end
  if wrong then
    -- 5: the id is Null when it could not be told
    id = id == nil and null or id
    self:respond(batch, id, message.failure(id, fault(wrong), config) --[[@as string]])
    return true
  end
  local method = value.method
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
    self:respond(batch, id, message.failure(id, why, config) --[[@as string]])
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
    streaming.take_subscribe(self, call, events)
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
  local value, err = config.decode(text)
  local ok = true
  if err then
    if limit.within_rate(self, now) == nil then
      ok = nil
    else
      -- 4.2 of RFC 8259 calls it no JSON; deep nesting is refused by the parser, too.
      local why = err.kind == "limit" and "nested too deep, or too long" or nil
      self:post(message.failure(null, fault(code.parse_error, why), config) --[[@as string]])
    end
  elseif is_array(value) then
    local count = #value
    if count == 0 or count > config.batch_max then
      local why = count > 0 and ("a batch may have %d requests"):format(config.batch_max) or nil
      ok = limit.within_rate(self, now) ~= nil
      self:post(message.failure(null, fault(code.invalid_request, why), config) --[[@as string]])
    else
      local batch = { waiting = 0, bytes = 1, texts = {}, open = true }
      for _, entry in ipairs(value) do
        ok = take(self, entry, batch, now, events)
        if not ok then break end
      end
      self:close_batch(batch)
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
