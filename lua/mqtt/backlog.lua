--- Messages that wait to be sent, in order and within limits.

local cosocket = require("cosocket")

--- What a waiting message costs besides its topic and payload.
local MESSAGE_COST = 200

---@class mqtt.Backlog
---@field bytes integer What the messages that wait cost.
---@field dropped integer Messages that the policy dropped.
---@field queue_max integer Messages that may wait. Default 10000.
---@field queue_bytes_max integer Bytes that may wait. Default 16777216.
---@field queue_policy "reject"|"drop_oldest"|"drop_newest" What is done when one more would wait. Default "reject".
---@field package first integer
---@field package last integer
---@field private [integer] mqtt.Ticket
local Backlog = {
  bytes = 0,
  dropped = 0,
  queue_max = 10000,
  queue_bytes_max = 16777216,
  queue_policy = "reject",
  first = 1,
  last = 0,
}
Backlog.__index = Backlog

---@param ticket mqtt.Ticket
---@return integer
local function cost(ticket)
  return #ticket.topic + #(ticket.payload or "") + MESSAGE_COST
end

---@return integer
function Backlog:count()
  return self.last - self.first + 1
end

---@return boolean
function Backlog:is_empty()
  return self.first > self.last
end

--- The message that is next.
---@return mqtt.Ticket?
function Backlog:peek()
  return self[self.first]
end

--- All messages, in their order. None is to be taken out meanwhile.
---@return fun(): mqtt.Ticket?
function Backlog:each()
  local at, last = self.first - 1, self.last
  return function()
    at = at + 1
    if at <= last then return self[at] end
  end
end

---@private
function Backlog:is_full(bytes)
  return self:count() >= self.queue_max or self.bytes + bytes > self.queue_bytes_max
end

--- Puts a message behind the others, if there is room or the policy makes some.
---@param ticket mqtt.Ticket
---@param give_up fun(ticket: mqtt.Ticket, err: cosocket.Error) Called for each message that is dropped instead.
---@return true? ok
---@return cosocket.Error? err `limit`
function Backlog:admit(ticket, give_up)
  local bytes = cost(ticket)
  if self:is_full(bytes) and self.queue_policy == "drop_oldest" and bytes <= self.queue_bytes_max then
    -- What was sent before is in the other side's hands too, and stays.
    for _, old in ipairs(self:take_out(function(one) return not one.packet_id and self:is_full(bytes) end)) do
      self.dropped = self.dropped + 1
      give_up(old, cosocket.error("limit", "mqtt.publish", "dropped: newer messages needed its place"))
    end
  end
  if self:is_full(bytes) then
    if self.queue_policy ~= "reject" then self.dropped = self.dropped + 1 end
    local message = ("%d messages (%d bytes) wait to be sent, and no more may: raise queue_max or queue_bytes_max, "
      .. "or publish less"):format(self:count(), self.bytes)
    return nil, cosocket.error("limit", "mqtt.publish", message)
  end
  self:push(ticket)
  return true
end

--- Puts a message behind the others, whatever the limits say.
---@param ticket mqtt.Ticket
function Backlog:push(ticket)
  ticket.state = "waiting"
  local last = self.last + 1
  self.last = last
  self[last] = ticket
  self.bytes = self.bytes + cost(ticket)
end

--- Puts messages before the others.
---@param tickets mqtt.Ticket[]
function Backlog:put_back(tickets)
  local count = #tickets
  if count == 0 then return end
  -- Behind the first place there is room for whatever was taken off.
  local first, last = self.first, self.last
  table.move(self, first, last, count + 1)
  for at = math.max(first, count + last - first + 2), last do self[at] = nil end
  self.first, self.last = 1, count + last - first + 1
  for at, ticket in ipairs(tickets) do
    ticket.state = "waiting"
    self[at] = ticket
    self.bytes = self.bytes + cost(ticket)
  end
end

--- Takes the first message off.
---@return mqtt.Ticket?
function Backlog:shift()
  local first = self.first
  local ticket = self[first]
  if not ticket then return nil end
  self[first] = nil
  self.bytes = self.bytes - cost(ticket)
  if first == self.last then
    self.first, self.last = 1, 0
  else
    self.first = first + 1
  end
  return ticket
end

--- Takes out the messages that `wanted` says yes to, and answers them in their order.
---@param wanted fun(ticket: mqtt.Ticket): boolean?
---@return mqtt.Ticket[]
function Backlog:take_out(wanted)
  local taken, kept = {}, self.first - 1
  local last = self.last
  for at = self.first, last do
    local ticket = self[at]
    if wanted(ticket) then
      taken[#taken + 1] = ticket
      self.bytes = self.bytes - cost(ticket)
      self.last = self.last - 1
    else
      kept = kept + 1
      self[kept] = ticket
    end
  end
  for at = kept + 1, last do self[at] = nil end
  if self.first > self.last then self.first, self.last = 1, 0 end
  return taken
end

--- Forgets everything.
function Backlog:clear()
  for at = self.first, self.last do self[at] = nil end
  self.first, self.last, self.bytes = 1, 0, 0
end

local backlog = {}

---@return mqtt.Backlog
function backlog.new()
  return setmetatable({}, Backlog)
end

return backlog
