--- Stands between a session and its stream when there is a store: what the session says goes out when what it rests
--- on is on disk. While one commit is under way the next gathers.

local cosocket = require("cosocket")

---@class mqtt.Gate: net.Session<mqtt.Event>
---@field output cosocket.Buffer What may be sent.
---@field failed cosocket.Error? Why nothing could be written down. The connection ends with it.
---@field private session mqtt.Session
---@field private journal mqtt.Journal
---@field private wake fun() Called when `output` has grown, or the gate has failed.
---@field private unsaved mqtt.Ticket[] Messages that the next commit makes safe.
---@field private committing boolean
---@field private held integer Bytes that go out when the commit that is under way is done.
---@field private closed boolean
---@field private work cosocket.Event Set when there is something to commit.
---@field private ended cosocket.Event
---@field private connection integer Counts connections: what one had to say is not said on the next.
---@field private round cosocket.Event Set when the commit that is under way is done.
local Gate = {}
Gate.__index = Gate

--- A message was accepted, and is to be made safe.
---@param ticket mqtt.Ticket
function Gate:note(ticket)
  self.unsaved[#self.unsaved + 1] = ticket
end

--- Lets out what may go, and starts a commit for what may not yet.
function Gate:pump()
  self.deadline = self.session.deadline
  if self.committing then return end
  local staged = self.session.output
  if self.journal:is_clean() then
    if #staged > 0 then
      self.output:append(staged)
      staged:clear()
    end
  elseif not self.failed then
    self.committing = true
    self.work:set()
  end
end

--- Commits whenever there is something to commit, until `close`: a task.
---@async
function Gate:run()
  while not self.closed do
    local ok, err = self.work:wait()
    if not ok then error(err, 0) end
    self.work:clear()
    if self.committing then self:commit() end
  end
  -- What is done with is forgotten for good; a failure only makes the next program do it again.
  if not self.journal:is_clean() then self.journal:commit() end
  self.journal:close()
  self.ended:set()
end

--- Waits until `close` has been followed.
---@async
function Gate:wait_closed()
  return self.ended:wait()
end

--- No more will come; what was noted is still written down.
function Gate:close()
  self.closed = true
  self.work:set()
end

--- Commits until nothing is left to commit.
---@private
---@async
function Gate:commit()
  local staged = self.session.output
  repeat
    local connection, bytes, saved = self.connection, staged:take(), self.unsaved
    self.unsaved, self.held = {}, bytes and #bytes or 0
    local ok, err = self.journal:commit()
    self.held = 0
    if ok then
      for _, ticket in ipairs(saved) do ticket.stored = true end
      if connection == self.connection then self.output:append(bytes) end
    else
      self.failed = err
      -- Nobody was promised anything yet: they are told, and nothing of it stays.
      for _, list in ipairs({ saved, self.unsaved }) do
        for _, ticket in ipairs(list) do self.session.outgoing:withdraw(ticket, err) end
      end
      self.unsaved = {}
    end
    local round = self.round
    self.round = cosocket.event()
    round:set()
    self.wake()
  until self.failed or (self.journal:is_clean() and #staged == 0)
  self.committing = false
end

--- Waits until `ticket` is safe.
---@async
---@param ticket mqtt.Ticket
---@return true? ok
---@return cosocket.Error? err
function Gate:wait_stored(ticket)
  while not ticket.stored and not ticket:is_done() do
    local ok, err = self.round:wait()
    if not ok then return nil, err end
  end
  if ticket.err then return nil, ticket.err end
  return true
end

--- Before a connection: what could not be written down is tried again.
---@async
---@return true? ok
---@return cosocket.Error? err
function Gate:recover()
  if not self.failed then return true end
  self.failed = nil
  local ok, err = self.journal:commit()
  if not ok then
    self.failed = err
    return nil, err
  end
  return true
end

--- The connection is gone, and what was to be said on it.
function Gate:disconnected()
  self.connection = self.connection + 1
  self.output:clear()
  self.deadline = self.session.deadline
end

---@param input cosocket.Buffer
---@param now number
---@return mqtt.Event? event
---@return cosocket.Error? err
function Gate:receive(input, now)
  if self.failed then return nil, self.failed end
  local event, err = self.session:receive(input, now)
  self:pump()
  return event, err
end

---@param now number
---@param delivered integer?
---@param waiting any
---@return true? ok
---@return cosocket.Error? err
function Gate:expire(now, delivered, waiting)
  -- What is on its way to the stream is before what the session says now.
  if delivered then waiting = waiting + #self.output + self.held end
  local ok, err = self.session:expire(now, delivered, waiting)
  self:pump()
  return ok, err
end

local gate = {}

---@param session mqtt.Session
---@param journal mqtt.Journal
---@param wake fun()
---@return mqtt.Gate
function gate.new(session, journal, wake)
  return setmetatable({
    output = cosocket.buffer(),
    deadline = session.deadline,
    session = session,
    journal = journal,
    wake = wake,
    unsaved = {},
    committing = false,
    held = 0,
    closed = false,
    work = cosocket.event(),
    ended = cosocket.event(),
    connection = 0,
    round = cosocket.event(),
  }, Gate)
end

return gate
