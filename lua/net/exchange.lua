--- A connection on which many tasks ask, and each waits for its own answer: one task owns the stream and turns the loop
--- (`net.drive`); the others tell the session what they want, and wait. For clients that may have several requests on
--- their way, or to whom the server may speak unasked.
---
---     local link = exchange.start(stream, session, { name = "echo", in_flight_max = 16 })
---     local answer, err = link:ask(3, session.say, "hello")   -- session:say("hello")
---
--- A command of the session that is asked with answers a table, the request; or `nil, err`. Once there is an answer, the
--- session puts it into the request, as `answer` or as `err`, and `receive` returns that request as an event. Every other
--- event goes to `on_event`. `session:abandon(request)`, if there is one, is told when nobody waits any more: the time was
--- up, or the task was cancelled.

local cosocket = require("cosocket")
local drive = require("net.drive")

local now = cosocket.now

--- Requests on their way at once.
local IN_FLIGHT_MAX = 1
--- What the clock may lack to a time that is up.
local TICK = 1e-6

---@class net.Request
---@field answer any What the server answered; not `nil`.
---@field err cosocket.Error? Or why it did not.

---@class net.ExchangeOptions
---@field name? string What the task, and its errors, are called. Default "exchange".
---@field in_flight_max? integer Requests that may be on their way at once; the others wait for their turn. Default 1.
---@field on_event? fun(event: any) Takes events that are no answers. It waits for nothing: while it did, nothing would be read.

local OPTIONS = { name = "string", in_flight_max = "integer", on_event = "function" }

---@class net.Exchange
---@field err cosocket.Error? Why it is over.
---@field private stream cosocket.Stream
---@field private session net.Session<any>
---@field private name string
---@field private on_event? fun(event: any)
---@field private permits cosocket.Semaphore
---@field private waiting table<net.Request, cosocket.Event>
local Exchange = {}
Exchange.__index = Exchange
Exchange.__name = "net.Exchange"

--- Nothing is asked or answered any more.
---@private
---@param err cosocket.Error
function Exchange:lose(err)
  if self.err then return end
  self.err = err
  self.stream:close()
  for _, event in pairs(self.waiting) do event:set() end
end

--- Hands an event to whom it is for.
---@param self net.Exchange
---@param event any
---@return boolean stop
local function take(self, event)
  local asked = self.waiting[event]
  if asked then
    asked:set()
  elseif self.on_event then
    self.on_event(event)
  end
  return false
end

--- The task that owns the connection.
---@async
---@param self net.Exchange
local function own(self)
  -- Also when the task is cancelled, or `on_event` raises.
  local guard <close> = setmetatable({}, { __close = function() self:close() end })
  local _, err = drive.serve(self.stream, self.session, cosocket.buffer(), take, self)
  self:lose(err --[[@as cosocket.Error]])
end

--- Somebody who waits for an answer.
---@class net.Waiter
---@field exchange net.Exchange
---@field request net.Request
local Waiter = {}

function Waiter:__close()
  local exchange, request = self.exchange, self.request
  exchange.waiting[request] = nil
  local session = exchange.session
  if request.answer == nil and not request.err and not exchange.err and session.abandon then session:abandon(request) end
end

---@async
---@param self net.Exchange
---@param command fun(session: any, ...): net.Request?, cosocket.Error?
---@param ... any
---@return any answer
---@return cosocket.Error? err
local function ask(self, command, ...)
  local permit <close>, full = self.permits:acquire()
  if not permit then return nil, full end
  if self.err then return nil, self.err end
  local request, err = command(self.session, ...)
  if not request then return nil, err end
  local event = cosocket.event()
  self.waiting[request] = event
  local waiter <close> = setmetatable({ exchange = self, request = request }, Waiter)
  -- What others ask until the owner runs leaves together with it.
  self.stream:wake()
  local ok, late = event:wait()
  if request.answer ~= nil then return request.answer end
  if request.err then return nil, request.err end
  if not ok then return nil, late end
  return nil, self.err
end

--- Asks with `command(session, ...)`, and waits for the answer.
---@async
---@param seconds number For the answer, and for the request's turn.
---@param command fun(session: any, ...): net.Request?, cosocket.Error?
---@param ... any
---@return any answer
---@return cosocket.Error? err `timeout`, and the connection lives on; why the connection ended; what `command` and the session say
function Exchange:ask(seconds, command, ...)
  if self.err then return nil, self.err end
  local began = now()
  local answer, err = cosocket.deadline(seconds, ask, self, command, ...)
  if answer ~= nil then return answer end
  ---@cast err cosocket.Error
  if err.kind == "timeout" and not self.err and now() - began >= seconds - TICK then
    err = cosocket.error("timeout", self.name, ("no answer within %g s"):format(seconds), { cause = err })
  end
  return nil, err
end

--- Sends what the session has queued, although nobody asked: call it after a command that gets no answer.
function Exchange:flush() self.stream:wake() end

--- Closes. What is queued is sent first if the system takes it; whoever waits for an answer gets `closed`.
---@return true
function Exchange:close()
  if self.err then return true end
  if #self.session.output > 0 then self.stream:try_flush(self.session.output) end
  self:lose(cosocket.error("closed", self.name, "this connection is closed"))
  return true
end

Exchange.__close = Exchange.close

local exchange = {}

--- Begins: starts the task that owns the stream, in the group of the caller. `close` ends it.
---@param stream cosocket.Stream
---@param session net.Session<any>
---@param options? net.ExchangeOptions
---@return net.Exchange
function exchange.start(stream, session, options)
  options = cosocket.check_options("exchange.start", options, OPTIONS)
  local self = setmetatable({
    stream = stream,
    session = session,
    name = options.name or "exchange",
    on_event = options.on_event,
    permits = cosocket.semaphore(options.in_flight_max or IN_FLIGHT_MAX),
    waiting = {},
  }, Exchange)
  cosocket.spawn(self.name, own, self)
  return self
end

return exchange
