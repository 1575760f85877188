--- Connections to one mail server, for many messages: opened when they are needed, kept, begun anew with RSET.

local connect = require("smtp.connect")
local cosocket = require("cosocket")
local envelopes = require("smtp.envelope")
local message = require("smtp.message")

local now = cosocket.now

---@class smtp.PoolOptions: smtp.Options
---@field connections? integer Connections at once. Default 2.
---@field idle_max? number Seconds a connection may be idle and still be used. Default 60: servers close theirs after some minutes.
---@field messages_max? integer Messages over one connection. Default 100: servers count, too.

local OPTIONS = { connections = "integer", idle_max = "number", messages_max = "integer" }

---@class smtp.Idle
---@field client smtp.Client
---@field since number
---@field messages integer

---@class smtp.Pool
---@field private target smtp.Target
---@field private options smtp.PoolOptions
---@field private idle smtp.Idle[] The last one used last.
---@field private permits cosocket.Semaphore
---@field private closed boolean
local Pool = {}
Pool.__index = Pool
Pool.__name = "smtp.Pool"

--- A connection that waits, if one of them is fit.
---@private
---@async
---@return smtp.Idle?
function Pool:waiting()
  while true do
    local one = table.remove(self.idle)
    if not one then return nil end
    local is_old = now() - one.since > (self.options.idle_max or 60)
    if one.client:is_ready() and not is_old then return one end
    one.client:__close()
  end
end

--- Sends one message. May be called by many tasks; those beyond `connections` wait.
---@async
---@param given smtp.Message
---@param options? smtp.SendOptions
---@return smtp.Result? result
---@return cosocket.Error? err As `client:send` and `smtp.connect`.
function Pool:send(given, options)
  options = envelopes.check(options)
  local dkim = options.dkim
  if dkim == nil then dkim = self.options.dkim end
  local composed, err = message.compose(given, { dkim = dkim or nil })
  if not composed then return nil, err end
  return self:deliver(composed, options)
end

--- Sends what has been composed before; for the outbox.
---@async
---@param composed smtp.Composed
---@param options smtp.SendOptions
---@return smtp.Result? result
---@return cosocket.Error? err
function Pool:deliver(composed, options)
  local permit <close>, why = self.permits:acquire()
  if not permit then return nil, why end
  if self.closed then return nil, cosocket.error("closed", "smtp.send", "this pool is closed", { retry = false }) end
  local one, err = self:waiting(), nil
  while true do
    local is_fresh = one == nil
    if not one then
      local opened
      opened, err = connect.open(self.target)
      if not opened then return nil, err end
      one = { client = opened, since = now(), messages = 0 }
    end
    local with = { reset = not is_fresh or options.reset }
    for name, value in pairs(options) do
      if name ~= "reset" then with[name] = value end
    end
    local result
    result, err = one.client:send_ready(composed, with)
    one.messages, one.since = one.messages + 1, now()
    if one.client:is_ready() and not self.closed and one.messages < (self.options.messages_max or 100) then
      table.insert(self.idle, one)
    else
      one.client:__close()
    end
    if result then return result end
    ---@cast err cosocket.Error
    -- The server had closed a connection that waited: nothing has been taken, and a new one is no second message.
    if is_fresh or err.kind == "refused" or err.in_doubt or composed.once or err.kind == "timeout" then
      return nil, err
    end
    one = nil
  end
end

--- Says QUIT on the connections that wait, and takes no more messages. Those on their way go on.
---@async
---@return true
function Pool:close()
  self.closed = true
  while true do
    local one = table.remove(self.idle)
    if not one then return true end
    one.client:close()
  end
end

function Pool:__close()
  self.closed = true
  for _, one in ipairs(self.idle) do one.client:__close() end
  self.idle = {}
end

local pool = {}

--- Makes a pool; nothing is connected yet.
---@param where string|fun(): cosocket.Stream?, cosocket.Error? `smtp://...`, `smtps://...`, or a function that connects.
---@param options? smtp.PoolOptions
---@return smtp.Pool
function pool.new(where, options)
  local target = connect.target("smtp.pool", where, options, OPTIONS)
  if type(target.dial) == "userdata" then error("smtp.pool: a stream is one connection; an address is wanted", 2) end
  local count = target.options.connections or 2
  if count < 1 then error("smtp.pool: connections must be 1 or more", 2) end
  return setmetatable({
    target = target,
    options = target.options,
    idle = {},
    permits = cosocket.semaphore(count),
    closed = false,
  }, Pool)
end

return pool
