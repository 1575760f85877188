--- Calls as messages, ours and those of the other side: methods of `wsrpc.Session`.

local cosocket = require("cosocket")
local limit = require("wsrpc.limit")
local message = require("wsrpc.message")

local code, fault = message.code, message.fault
local null = require("json").null

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
---@field batch wsrpc.Batch?
---@field over boolean?
---@field runs wsrpc.Method? What runs it, with `arguments`.
---@field arguments table?
---@field argument_count integer?

---@class wsrpc.Session
local Session = {}

-- Calling ---------------------------------------------------------------------

--- Calls. The answer is an event with `owner`.
---@param method string
---@param params table|nil
---@param owner any
---@return integer? id
---@return cosocket.Error? err `limit` when too many wait, or the message is too long; `protocol` for what has no JSON form
function Session:request(method, params, owner)
  local config = self.config
  if self.pending_count >= config.pending_max then
    return limit.reached("calls wait", self.pending_count, "pending_max")
  end
  local id = self.last_id + 1
  local text, err = message.request(id, method, params, config)
  if not text then return nil, err end
  self.last_id = id
  self.pending[id] = owner
  self.pending_count = self.pending_count + 1
  self:post(text)
  return id
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
  if #entries > config.batch_max then return limit.reached("requests in the batch", #entries, "batch_max") end
  for i, entry in ipairs(entries) do
    local id
    if entry.owner ~= nil then
      id = self.last_id + #ids + 1
      ids[#ids + 1] = id
    end
    local text, err = message.request(id, entry.method, entry.params, config)
    if not text then return nil, err end
    texts[i] = text
    bytes = bytes + #text + 1
  end
  if self.pending_count + #ids > config.pending_max then
    return limit.reached("calls wait", self.pending_count, "pending_max")
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

--- What our own side reads of a response (5).
---@param value table
---@param events wsrpc.Event[]
function Session:take_response(value, events)
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
  if feed and event.error then self:drop_feed(feed) end
  events[#events + 1] = event
end

-- Answering -------------------------------------------------------------------

---@param self wsrpc.Session
---@param batch wsrpc.Batch
local function settle_batch(self, batch)
  if batch.waiting > 0 or batch.open then return end
  -- 6: nothing at all when there is nothing to answer
  if #batch.texts > 0 then self:post("[" .. table.concat(batch.texts, ",") .. "]") end
end

--- Sends what answers a call, or keeps it until the rest of its batch is answered.
---@param batch wsrpc.Batch?
---@param id string|number|lightuserdata
---@param text string
function Session:respond(batch, id, text)
  if not batch then return self:post(text) end
  if batch.bytes + #text + 1 > self.config.message_max then
    local short = fault(code.internal_error, "the answers to the batch are too long")
    text = message.failure(id, short, self.config) --[[@as string]]
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
  local text = message.failure(id, wrong, self.config)
  -- Data that has no JSON form, or is too long, stays here.
  text = text or message.failure(id, fault(wrong.code), self.config) --[[@as string]]
  local batch = call.batch
  self:respond(batch, id, text)
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
  local text, err = message.result(call.id, result, self.config)
  if not text then
    self:fail(call, fault(code.internal_error))
    return nil, err
  end
  conclude(self, call)
  local batch = call.batch
  self:respond(batch, call.id, text)
  if batch then
    batch.waiting = batch.waiting - 1
    settle_batch(self, batch)
  end
  return true
end

--- The other side does not want an answer any more.
---@param params table
---@param events wsrpc.Event[]
function Session:take_cancel(params, events)
  local call = params.id ~= nil and self.calls[params.id]
  if not call or call.over then return end
  self:fail(call, fault(code.cancelled))
  events[#events + 1] = { kind = "cancel", call = call }
end

--- The calls of a batch are all known: what waits for no more of them is sent.
---@param batch wsrpc.Batch
function Session:close_batch(batch)
  batch.open = false
  settle_batch(self, batch)
end

return Session
