--- Calling the other side: methods of `wsrpc.Peer`.

local cosocket = require("cosocket")
local failure = require("wsrpc.failure")

local now = cosocket.now

---@class wsrpc.Peer
local Peer = {}

--- Somebody who waits for answers.
---@class wsrpc.Waiter
---@field id integer?
---@field peer wsrpc.Peer?
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

---@async
---@param self wsrpc.Peer
---@param name string
---@param params table?
---@return any result
---@return cosocket.Error? err
local function call(self, name, params)
  local current, err = self:present()
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
  failure.check("peer:call", name, params, 2)
  local seconds, began = timeout or self.call_timeout, now()
  local result, err = cosocket.deadline(seconds, call, self, name, params)
  if result ~= nil then return result end
  ---@cast err cosocket.Error
  if err.kind == "protocol" and err.op ~= "wsrpc.call" then return failure.unsent("peer:call", err, 2) end
  return nil, failure.why_not(name, seconds, began, err)
end

--- Tells the other side something; no answer comes. Waits for a connection, and while much waits to be sent.
---@async
---@param name string
---@param params? table
---@return true? ok It is on its way.
---@return cosocket.Error? err
function Peer:notify(name, params)
  failure.check("peer:notify", name, params, 2)
  local current, err = self:present()
  if not current then return nil, err end
  local ok, why = current:notify(name, params)
  if not ok then return failure.unsent("peer:notify", why --[[@as cosocket.Error]], 2) end
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
  local current, err = self:present()
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
    failure.check("peer:batch", one[1], one[2], 2)
    local owner = not one.notify and {} or nil
    entries[i] = { method = one[1], params = one[2], owner = owner }
    if owner then owners[#owners + 1] = owner end
  end
  local seconds, began = timeout or self.call_timeout, now()
  local ok, err = cosocket.deadline(seconds, batch, self, entries, cosocket.event())
  if not ok then
    ---@cast err cosocket.Error
    if err.kind == "protocol" then return failure.unsent("peer:batch", err, 2) end
    return nil, failure.why_not("the batch", seconds, began, err)
  end
  local answers = {}
  for i, owner in ipairs(owners) do answers[i] = { result = owner.value, error = owner.err } end
  return answers
end

return Peer
