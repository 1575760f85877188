--- test.random: generators of random numbers that a seed repeats.

--- `random()` is a number from 0 up to 1; `random(n)` an integer from 1 to n; `random(m, n)` one from m to n.
---@class test.Random
---@field private state integer
---@overload fun(): number
---@overload fun(n: integer): integer
---@overload fun(m: integer, n: integer): integer
local Random = {}
Random.__index = Random

--- The next 64 bits (xorshift64*).
---@private
---@return integer
function Random:bits()
  local x = self.state
  x = x ~ (x >> 12)
  x = x ~ (x << 25)
  x = x ~ (x >> 27)
  self.state = x
  return x * 0x2545F4914F6CDD1D
end

---@param low? integer
---@param high? integer
---@return number
function Random:__call(low, high)
  if not low then return (self:bits() >> 11) * 2.0 ^ -53 end
  if not high then
    low, high = 1, low
  end
  if low > high then error(("no number from %d to %d"):format(low, high), 2) end
  local count = high - low + 1
  if count > 0 then return low + (self:bits() >> 1) % count end
  -- More than half of all integers: draw until one fits.
  local drawn
  repeat
    drawn = self:bits()
  until drawn >= low and drawn <= high
  return drawn
end

--- `n` random bytes.
---@param n integer
---@return string
function Random:bytes(n)
  local bytes = {}
  for i = 1, n do bytes[i] = string.char(self:bits() >> 56) end
  return table.concat(bytes)
end

--- One of a list's items.
---@generic T
---@param list T[]
---@return T
function Random:pick(list)
  return list[self(#list)]
end

local random = {}

---@param seed integer
---@return test.Random
function random.new(seed)
  -- The state must not be 0, and near seeds shall not give near numbers (splitmix64).
  local x = seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019
  x = (x ~ (x >> 30)) * 0xBF58476D1CE4E5B9
  x = (x ~ (x >> 27)) * 0x94D049BB133111EB
  x = x ~ (x >> 31)
  return setmetatable({ state = x ~= 0 and x or 1 }, Random)
end

return random
