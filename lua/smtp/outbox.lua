--- An outbox: messages that are kept in a file until a mail server has taken them, or for good said no.
---
---     local outbox = assert(smtp.outbox("/var/lib/device/outbox.db", "smtp://device:secret@mail.example", {
---       on_failed = function(entry, refused) log.error("not delivered", { to = refused[1].address }) end,
---     }))
---     assert(outbox:put({ from = "a@example.org", to = "b@example.org", subject = "hello", text = "..." }))
---
--- When `put` has answered, the message is on the disk, its attachments with it: it survives a killed process and, as
--- far as the disk does, a loss of power. It leaves the file when the server has taken it. Between these two moments lies
--- the only chance of a second copy, the one that SMTP itself has (RFC 5321, 4.2.5): the server has taken it, and its
--- answer, or our note of it, is lost. Both copies have the same Message-ID.
---
--- Rules: what the server refuses for now (4yz) is tried again after `retry_delay` seconds, then twice that, and so on up
--- to `retry_delay_max`; a server that cannot be reached or lets us not in is nobody's fault among the messages, and is
--- tried again by the same measure. What it refuses for good (5yz), and what is older than `give_up_after`, is given up:
--- `on_failed` hears of it, and it is gone.

local connect = require("smtp.connect")
local cosocket = require("cosocket")
local envelopes = require("smtp.envelope")
local log = require("log").new("smtp.outbox")
local message = require("smtp.message")
local pool = require("smtp.pool")
local store = require("smtp.store")

local now = cosocket.now

--- Bytes of a message that are kept in one row.
local PIECE = 256 * 1024
---@class smtp.OutboxOptions: smtp.PoolOptions
---@field retry_delay? number Seconds until the second attempt. Default 30.
---@field retry_delay_max? number Most seconds between attempts. Default 3600.
---@field give_up_after? number Seconds after which a message is given up. Default 432000, five days (RFC 5321, 4.5.4.1).
---@field messages_max? integer Messages over one connection, as in a pool. Default 100.
---@field waiting_max? integer Messages that are kept; one more is a `limit` error. Default 10000.
---@field bytes_max? integer Their bytes. Default 268435456.
---@field on_sent? fun(entry: smtp.Entry, result: smtp.Result) The server has taken it, for all or some.
---@field on_failed? fun(entry: smtp.Entry, refused: smtp.Refused[]) These recipients do not get it. Called again after a crash between it and its note.

local OPTIONS = {
  connections = "integer",
  idle_max = "number",
  messages_max = "integer",
  retry_delay = "number",
  retry_delay_max = "number",
  give_up_after = "number",
  waiting_max = "integer",
  bytes_max = "integer",
  on_sent = "function",
  on_failed = "function",
}

--- Options of the outbox itself, and none of a pool's.
local OWN = { "retry_delay", "retry_delay_max", "give_up_after", "waiting_max", "bytes_max", "on_sent", "on_failed" }

---@class smtp.Entry A message that waits.
---@field id integer
---@field message_id string?
---@field recipients string[] Who is still to get it.
---@field size integer
---@field attempts integer
---@field age number Seconds since it was put.

---@class smtp.Waiting
---@field id integer
---@field envelope smtp.Envelope
---@field message_id string?
---@field size integer
---@field attempts integer
---@field born number On the scale of `cosocket.now`.
---@field due number
---@field busy boolean

---@class smtp.Outbox
---@field private store smtp.Store
---@field private pool smtp.Pool
---@field private options smtp.OutboxOptions
---@field private waiting table<integer, smtp.Waiting>
---@field private ready integer[] What may be sent now, in the order it was put.
---@field private first integer
---@field private last integer
---@field private delayed table<integer, true>
---@field private count integer
---@field private bytes integer
---@field private pause_until number The server is not tried before.
---@field private pauses integer Attempts in a row that did not reach it.
---@field private change cosocket.Event
---@field private empty cosocket.Event
---@field private closed boolean
---@field private next_id integer
---@field private workers cosocket.Task[]
---@field last_error cosocket.Error? Why the last attempt went wrong.
local Outbox = {}
Outbox.__index = Outbox
Outbox.__name = "smtp.Outbox"

---@param one smtp.Waiting
---@return smtp.Entry
local function entry_of(one)
  local recipients = {}
  for i, recipient in ipairs(one.envelope.recipients) do recipients[i] = recipient.address end
  return {
    id = one.id,
    message_id = one.message_id,
    recipients = recipients,
    size = one.size,
    attempts = one.attempts,
    age = math.max(0, now() - one.born),
  }
end

--- Calls what the script gave; its mistakes do not stop the others' mail.
---@param name string
---@param fn function?
local function tell(name, fn, ...)
  if not fn then return end
  local ok, err = pcall(fn, ...)
  if not ok then log.error(name .. " raised", { error = tostring(err) }) end
end

-- Keeping ---------------------------------------------------------------------

---@private
---@param one smtp.Waiting
function Outbox:make_ready(one)
  self.delayed[one.id] = nil
  self.last = self.last + 1
  self.ready[self.last] = one.id
  self.change:set()
end

---@private
---@param one smtp.Waiting
function Outbox:add(one)
  self.waiting[one.id] = one
  self.count, self.bytes = self.count + 1, self.bytes + one.size
  self.empty:clear()
  if one.due <= now() then
    self:make_ready(one)
  else
    self.delayed[one.id] = true
    self.change:set()
  end
end

--- Puts a message; it is on the disk when this answers.
---@async
---@param given smtp.Message
---@param options? smtp.SendOptions
---@return integer? id
---@return cosocket.Error? err `protocol` for what is wrong in the message, `limit` when the outbox is full, `io`
function Outbox:put(given, options)
  options = envelopes.check(options)
  message.check(given, 2)
  if self.closed then return nil, cosocket.error("closed", "smtp.put", "this outbox is closed") end
  local limits = self.options
  if self.count >= (limits.waiting_max or 10000) then
    return nil, cosocket.error("limit", "smtp.put", ("%d messages wait already (waiting_max)"):format(self.count))
  end
  local dkim = options.dkim
  if dkim == nil then dkim = limits.dkim end
  local composed, err = message.compose(given, { dkim = dkim or nil })
  if not composed then return nil, err end
  local envelope
  envelope, err = envelopes.of(composed, options)
  if not envelope then return nil, err end

  local id = self.next_id
  self.next_id = id + 1
  local whole = false
  local guard <close> = setmetatable({}, {
    __close = function()
      -- Pieces without their message are forgotten with the next start, if not now.
      if not whole then cosocket.spawn("smtp outbox", self.store.remove, self.store, id) end
    end,
  })
  local reader <close> = composed:reader()
  local piece, position, size = cosocket.buffer(), 0, 0
  local more
  repeat
    more, err = reader:read(piece)
    if err then return nil, err end
    if #piece >= PIECE and more then
      position, size = position + 1, size + #piece
      if self.bytes + size > (limits.bytes_max or 256 * 1024 * 1024) then
        return nil, cosocket.error("limit", "smtp.put", ("%d bytes wait already (bytes_max)"):format(self.bytes))
      end
      local ok
      ok, err = self.store:add_piece(id, position, piece)
      if not ok then return nil, err end
      piece:clear()
    end
  until not more
  size = size + #piece
  if self.bytes + size > (limits.bytes_max or 256 * 1024 * 1024) then
    return nil, cosocket.error("limit", "smtp.put", ("%d bytes wait already (bytes_max)"):format(self.bytes))
  end
  envelope.size = size
  local at = os.time()
  local ok
  ok, err = self.store:add({
    id = id,
    envelope = envelope,
    message_id = composed.message_id,
    size = size,
    put_at = at,
    next_at = at,
    attempts = 0,
  }, position + 1, piece)
  if not ok then return nil, err end
  whole = true
  self:add({
    id = id,
    envelope = envelope,
    message_id = composed.message_id,
    size = size,
    attempts = 0,
    born = now(),
    due = now(),
    busy = false,
  })
  return id
end

--- A message is done with.
---@private
---@async
---@param one smtp.Waiting
---@return true? ok
---@return cosocket.Error? err
function Outbox:drop(one)
  local ok, err = self.store:remove(one.id)
  if not ok then return nil, err end
  if self.waiting[one.id] then
    self.waiting[one.id], self.delayed[one.id] = nil, nil
    self.count, self.bytes = self.count - 1, self.bytes - one.size
    if self.count == 0 then self.empty:set() end
  end
  return true
end

--- Takes a message out that is not on its way.
---@async
---@param id integer
---@return boolean? removed `false` when there is none of this number, or it is being sent.
---@return cosocket.Error? err
function Outbox:remove(id)
  local one = self.waiting[id]
  if not one or one.busy then return false end
  one.busy = true
  local ok, err = self:drop(one)
  if not ok then
    one.busy = false
    return nil, err
  end
  return true
end

-- Sending ---------------------------------------------------------------------

--- What is kept of a message, as the client sends it.
---@private
---@param one smtp.Waiting
---@return smtp.Composed
function Outbox:composed(one)
  return {
    envelope = one.envelope,
    message_id = one.message_id,
    size = one.size,
    reader = function() return self.store:reader(one.id) end,
  }
end

--- Seconds until the next attempt, a little apart from everybody else's.
---@private
---@param attempts integer
---@return number
function Outbox:delay(attempts)
  local first, most = self.options.retry_delay or 30, self.options.retry_delay_max or 3600
  return math.min(most, first * 2 ^ math.min(attempts - 1, 30)) * (0.9 + 0.2 * math.random())
end

--- What is left of a message after an attempt: nothing, or fewer recipients and a later time.
---@private
---@async
---@param one smtp.Waiting
---@param refused smtp.Refused[] What the server said of those it did not take.
---@return true? ok
---@return cosocket.Error? err
function Outbox:settle(one, refused)
  local is_old = now() - one.born >= (self.options.give_up_after or 432000)
  local later, failed = {}, {}
  for _, answer in ipairs(refused) do
    if answer.retry and not is_old then
      later[answer.address] = true
    else
      failed[#failed + 1] = answer
    end
  end
  local left = {}
  for _, recipient in ipairs(one.envelope.recipients) do
    if later[recipient.address] then left[#left + 1] = recipient end
  end
  if #failed > 0 then tell("on_failed", self.options.on_failed, entry_of(one), failed) end
  if #left == 0 then return self:drop(one) end
  one.envelope.recipients = left
  local delay = self:delay(one.attempts)
  one.due = now() + delay
  local ok, err = self.store:update(one.id, one.envelope, math.ceil(os.time() + delay), one.attempts)
  if not ok then return nil, err end
  self.delayed[one.id] = true
  self.change:set()
  return true
end

--- The server's answer to a whole message, for each recipient.
---@param one smtp.Waiting
---@param err cosocket.Error
---@return smtp.Refused[]
local function of_all(one, err)
  local list = {}
  for i, recipient in ipairs(one.envelope.recipients) do
    list[i] = {
      address = recipient.address,
      code = err.code,
      status = err.status,
      text = err.reason or err.message,
      retry = err.retry,
    }
  end
  return list
end

--- Tries to send one message.
---@private
---@async
---@param one smtp.Waiting
function Outbox:attempt(one)
  local result, err = self.pool:deliver(self:composed(one), {})
  local ok, trouble
  if result then
    self.pauses = 0
    one.attempts = one.attempts + 1
    tell("on_sent", self.options.on_sent, entry_of(one), result)
    ok, trouble = self:settle(one, result.refused)
  elseif err.kind == "refused" and err.op == "smtp.send" then
    self.pauses, self.last_error = 0, err
    one.attempts = one.attempts + 1
    ok, trouble = self:settle(one, err.refused and #err.refused == #one.envelope.recipients and err.refused or of_all(one, err))
  elseif self.closed then
    return
  else
    self.last_error = err
    -- It is the server, or the way to it.
    self.pauses = self.pauses + 1
    self.pause_until = now() + self:delay(self.pauses)
    log.warn("the server cannot be used", { error = tostring(err), again_in = math.ceil(self.pause_until - now()) })
    if now() - one.born >= (self.options.give_up_after or 432000) then
      one.attempts = one.attempts + 1
      ok, trouble = self:settle(one, of_all(one, { message = err.message, code = err.code or 0, retry = false }))
    else
      self:make_ready(one)
      return
    end
  end
  if not ok and not self.closed then
    log.error("the outbox cannot be written", { error = tostring(trouble) })
    -- It may have been sent. To try again at once would send it once more for every turn of the loop.
    one.due = now() + self:delay(one.attempts)
    self.delayed[one.id] = true
  end
end

--- Makes ready what is due. Answers how long nothing more is.
---@private
---@return number
function Outbox:look()
  local at, soonest = now(), math.huge
  for id in pairs(self.delayed) do
    local one = self.waiting[id]
    if one.due <= at then
      self:make_ready(one)
    else
      soonest = math.min(soonest, one.due - at)
    end
  end
  return soonest
end

--- The task that sends.
---@private
---@async
function Outbox:work()
  while not self.closed do
    local soonest = self:look()
    local wait = self.pause_until - now()
    local one
    if wait <= 0 then
      while not one and self.first <= self.last do
        local id = self.ready[self.first]
        self.ready[self.first] = nil
        self.first = self.first + 1
        one = self.waiting[id]
        if one and one.busy then one = nil end
      end
      wait = soonest
    end
    if one then
      one.busy = true
      self:attempt(one)
      one.busy = false
    else
      self.change:clear()
      if wait < math.huge then
        cosocket.select(self.change, wait)
      else
        self.change:wait()
      end
    end
  end
end

-- For scripts -----------------------------------------------------------------

---@class smtp.OutboxStatus
---@field waiting integer Messages.
---@field bytes integer
---@field error cosocket.Error? Why the last attempt went wrong.

---@return smtp.OutboxStatus
function Outbox:status()
  return { waiting = self.count, bytes = self.bytes, error = self.last_error }
end

--- The messages that wait, oldest first.
---@return smtp.Entry[]
function Outbox:list()
  local list = {}
  for _, one in pairs(self.waiting) do list[#list + 1] = entry_of(one) end
  table.sort(list, function(one, other) return one.id < other.id end)
  return list
end

--- Tries everything now: the network is back.
function Outbox:retry()
  self.pause_until, self.pauses = 0, 0
  for id in pairs(self.delayed) do self.waiting[id].due = 0 end
  self.change:set()
end

--- Waits until nothing waits any more.
---@async
---@return true? ok
---@return cosocket.Error? err `timeout` of a deadline around it, `closed`
function Outbox:wait_empty()
  if self.count > 0 then
    local ok, err = self.empty:wait()
    if not ok then return nil, err end
  end
  if self.closed and self.count > 0 then return nil, cosocket.error("closed", "smtp.outbox", "this outbox is closed") end
  return true
end

--- Sends no more, and closes the file; what waits is sent after the next opening. A message on its way is awaited.
---@async
---@return true
function Outbox:close()
  if self.closed then return true end
  self.closed = true
  self.change:set()
  for _, worker in ipairs(self.workers) do worker:join() end
  self.pool:close()
  self.store:close()
  self.empty:set()
  return true
end

function Outbox:__close()
  self.closed = true
  self.change:set()
  self.pool:__close()
end

local outbox = {}

--- Opens an outbox, and makes it if there is none. What it holds begins to be sent.
---@async
---@param path string A file of this outbox alone; with `-wal` and `-shm` beside it.
---@param where string|fun(): cosocket.Stream?, cosocket.Error? `smtp://...`, `smtps://...`, or a function that connects.
---@param options? smtp.OutboxOptions
---@return smtp.Outbox? outbox
---@return cosocket.Error? err `io`: the file cannot be used, or another process has it
function outbox.open(path, where, options)
  local target = connect.target("smtp.outbox", where, options, OPTIONS)
  options = target.options --[[@as smtp.OutboxOptions]]
  local pooled = {}
  for name, value in pairs(options) do pooled[name] = value end
  for _, name in ipairs(OWN) do pooled[name] = nil end
  pooled.connections = options.connections or 1
  local senders = pool.new(where, pooled)
  local file, err = store.open(path)
  if not file then return nil, err end
  local stored, next_id = file:load()
  if not stored then
    file:close()
    return nil, next_id --[[@as cosocket.Error]]
  end
  local self = setmetatable({
    store = file,
    pool = senders,
    options = options,
    waiting = {},
    ready = {},
    first = 1,
    last = 0,
    delayed = {},
    count = 0,
    bytes = 0,
    pause_until = 0,
    pauses = 0,
    change = cosocket.event(),
    empty = cosocket.event(),
    closed = false,
    next_id = next_id,
    workers = {},
  }, Outbox)
  local at, clock = now(), os.time()
  for _, row in ipairs(stored) do
    -- A clock that was set back must not hold a message for ever.
    local delay = math.min(math.max(0, row.next_at - clock), options.retry_delay_max or 3600)
    self:add({
      id = row.id,
      envelope = row.envelope,
      message_id = row.message_id,
      size = row.size,
      attempts = row.attempts,
      born = at - math.max(0, clock - row.put_at),
      due = at + delay,
      busy = false,
    })
  end
  for i = 1, pooled.connections do self.workers[i] = cosocket.spawn("smtp outbox", self.work, self) end
  return self
end

return outbox
