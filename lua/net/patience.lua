--- How long the answer may take to a question that waits behind other output. Over a slow line, who was asked cannot
--- answer before the question has left: until then it is late only when nothing moves any more.

--- How often it is looked whether something moves, within the time the answer may take.
local LOOKS = 4

---@class net.Patience
---@field due number When the answer is late, as far as is known now.
---@field deadline number When `look` wants to be called.
---@field left boolean Whether the question has left. Then `due` stays.
---@field private seconds number
---@field private delivered integer At the last look.
---@field private wanted integer What will have been delivered when the question has.
local Patience = {}
Patience.__index = Patience

--- Looks how far the output has come.
---@param now number
---@param delivered integer? What `stream:progress` says; `nil`: nothing is known of it.
---@param waiting integer? Bytes that are not delivered.
---@return number due
function Patience:look(now, delivered, waiting)
  if self.left then return self.due end
  if delivered then
    if delivered > self.delivered then self.due = now + self.seconds end
    self.delivered = delivered
  end
  self.left = not delivered or waiting == 0 or delivered >= self.wanted
  self.deadline = self.left and self.due or math.min(self.due, now + self.seconds / LOOKS)
  return self.due
end

local patience = {}

--- For a question that has just been put behind `waiting` bytes.
---@param now number
---@param seconds number The answer may take so long from when the question has left, and so long may nothing move before.
---@param delivered integer What `stream:progress` says.
---@param waiting integer Bytes that are not delivered, with those that the stream has not been given.
---@return net.Patience
function patience.new(now, seconds, delivered, waiting)
  return setmetatable({
    due = now + seconds,
    deadline = now + seconds / LOOKS,
    left = false,
    seconds = seconds,
    delivered = delivered,
    wanted = delivered + waiting,
  }, Patience)
end

return patience
