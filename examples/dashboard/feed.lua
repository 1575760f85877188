--- Values that many follow: each of them gets what is kept, and then what is new, in its own time.

local cosocket = require("cosocket")

---@class dashboard.Feed
local Feed = {}
Feed.__index = Feed

--- Adds a value, and wakes those who follow.
function Feed:add(value)
  self.last = self.last + 1
  self.values[self.last] = value
  self.values[self.last - self.keep] = nil
  -- Each event is for those who wait now.
  self.changed:set()
  self.changed = cosocket.event()
end

--- Gives lists of values to `emit` until it takes no more. Who is slower than values come gets many at once; what is not
--- kept any more by then is left out.
---@async
---@param emit async fun(values: any[]): true?, cosocket.Error?
function Feed:follow(emit)
  local next_one = 1
  while true do
    next_one = math.max(next_one, self.last - self.keep + 1)
    if next_one > self.last then
      if not self.changed:wait() then return end
    else
      local values = table.move(self.values, next_one, self.last, 1, {})
      next_one = self.last + 1
      if not emit(values) then return end
    end
  end
end

local feed = {}

---@param keep integer How many values are kept.
---@return dashboard.Feed
function feed.new(keep)
  return setmetatable({ keep = keep, values = {}, last = 0, changed = cosocket.event() }, Feed)
end

return feed
