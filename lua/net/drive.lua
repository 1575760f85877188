--- Joins a session to a socket: the only loop in `lua/` that reads and writes.
---
--- A session is protocol without sockets and clocks: bytes and `now` go in, events and bytes come out. It has
---
--- | | |
--- |---|---|
--- | `output` | bytes to send |
--- | `deadline` | when `expire` wants to be called; `math.huge` is never |
--- | `receive(input, now)` | takes messages off the front of `input` until one is an event: it, `nil`, or `nil, err` |
--- | `expire(now, delivered, waiting)` | the deadline has passed: `true`, or `nil, err` when that is the end. `delivered` and `waiting` are what `stream:progress` says: see `net.patience` |
--- | `output_max` | while more waits to be sent, nothing is taken or read, so that a peer who asks and does not read the answers is held back; optional, for servers: two ends that both do so could wait for each other |

local cosocket = require("cosocket")

local now = cosocket.now

--- What the clock may lack to a deadline that has passed: it counts in whole nanoseconds.
local TICK = 1e-6

---@class net.Session<E>
---@field output cosocket.Buffer
---@field deadline number
---@field output_max? integer
---@field receive fun(self: net.Session<E>, input: cosocket.Buffer, now: number): E?, cosocket.Error?
---@field expire fun(self: net.Session<E>, now: number, delivered: integer?, waiting: any): true?, cosocket.Error?

local drive = {}

--- Moves bytes one way or the other, or lets the session's deadline pass. Also returns when another task
--- called `stream:wake()`.
---
--- Reading and writing wait together: a peer that will not read until we have read what it sent must not be
--- able to stop us.
---@async
---@param stream cosocket.Stream
---@param session net.Session<any>
---@param input? cosocket.Buffer Without: nothing is read.
---@return true? ok
---@return cosocket.Error? err
function drive.turn(stream, session, input)
  local deadline, output_max = session.deadline, session.output_max
  if output_max and #session.output > output_max then input = nil end
  local ok, err = stream:turn(input, session.output, deadline < math.huge and deadline or nil)
  if ok then return true end
  ---@cast err cosocket.Error
  local at = now()
  -- A deadline of somebody around us, such as `cosocket.deadline`, is not the session's.
  if err.kind ~= "timeout" or deadline - at > TICK then return nil, err end
  at = math.max(at, deadline)
  -- Another task may have moved the deadline on.
  if session.deadline > at then return true end
  return session:expire(at, stream:progress())
end

--- Runs the connection until the session has something for its owner.
---@async
---@generic E
---@param stream cosocket.Stream
---@param session net.Session<E>
---@param input cosocket.Buffer
---@param stop? cosocket.Event When this is set, `stream:wake()` ends the wait.
---@return E? event `nil` without an error: stopped.
---@return cosocket.Error? err
function drive.next_event(stream, session, input, stop)
  local output_max = session.output_max
  while true do
    if not (output_max and #session.output > output_max) then
      local event, err = session:receive(input, now())
      if event or err then
        -- What the session answered (an acknowledgement, a parting word) starts on its way now; what does not
        -- fit leaves with the next turn.
        if #session.output > 0 then stream:try_flush(session.output) end
        return event, err
      end
    end
    if stop and stop:is_set() then return nil end
    local ok, why = drive.turn(stream, session, input)
    if not ok then return nil, why end
  end
end

--- Runs the connection, and hands each event to `take`, until that answers `true`. What the session answers meanwhile
--- starts on its way when nothing more is to be taken.
---@async
---@generic E, O
---@param stream cosocket.Stream
---@param session net.Session<E>
---@param input cosocket.Buffer
---@param take fun(owner: O, event: E): boolean Whether to stop. It waits for nothing.
---@param owner O
---@param stop? cosocket.Event When this is set, `stream:wake()` ends the wait.
---@return E? event The one at which it stopped; `nil` without an error: `stop` is set.
---@return cosocket.Error? err
function drive.serve(stream, session, input, take, owner, stop)
  local output_max = session.output_max
  while true do
    -- What has come at once came at the same time.
    local at, event, err = now(), nil, nil
    repeat
      if output_max and #session.output > output_max then break end
      event, err = session:receive(input, at)
      if event and take(owner, event) then return event end
    until not event
    if err then
      -- A parting word.
      if #session.output > 0 then stream:try_flush(session.output) end
      return nil, err
    end
    if stop and stop:is_set() then return nil end
    local ok, why = drive.turn(stream, session, input)
    if not ok then return nil, why end
  end
end

--- Waits until everything the session queued has been handed to the system. What arrives meanwhile is put
--- onto `input` unread.
---@async
---@param stream cosocket.Stream
---@param session net.Session<any>
---@param input cosocket.Buffer
---@return true? ok
---@return cosocket.Error? err
function drive.flush(stream, session, input)
  while #session.output > 0 do
    local ok, err = drive.turn(stream, session, input)
    if not ok then return nil, err end
  end
  return stream:flush()
end

--- Goes on without reading until `go_on` is set: the other side is held back by its own full buffers. Time
--- passes for the session, and what it queues is sent.
---@async
---@param stream cosocket.Stream
---@param session net.Session<any>
---@param go_on cosocket.Event When this is set, `stream:wake()` ends the wait.
---@return true? ok
---@return cosocket.Error? err
function drive.hold(stream, session, go_on)
  while not go_on:is_set() do
    local ok, err = drive.turn(stream, session)
    if not ok then return nil, err end
  end
  return true
end

return drive
