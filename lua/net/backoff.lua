--- How long to wait before the next attempt to connect: exponential, with jitter, longer when the server asks for it.

local cosocket = require("cosocket")

--- Seconds to wait at least when the server says that it has too much to do.
local BUSY_DELAY = 10
--- A connection that lasted this long was a good one: the next attempt is a first one.
local STABLE = 10

---@class net.ReconnectOptions
---@field delay_min? number Seconds before the second attempt; the first follows at once, within this time. Default 1.
---@field delay_max? number Seconds between attempts at most. Default 60.
---@field factor? number How much longer each delay is than the one before. Default 2.

local OPTIONS = { delay_min = "number", delay_max = "number", factor = "number" }

---@class net.Backoff
---@field private delay_min number
---@field private delay_max number
---@field private factor number
---@field private random fun(): number
---@field private busy table<any, boolean>
---@field private attempts integer
local Backoff = {}
Backoff.__index = Backoff

--- A connection is over that had lasted for `seconds`.
---@param seconds number
function Backoff:lasted(seconds)
  if seconds >= STABLE then self.attempts = 0 end
end

--- Seconds to wait after `err`: spread over half of the delay, so that the clients of a server that comes back do not
--- come all at once.
---@param err cosocket.Error
---@return number
function Backoff:next(err)
  local attempts = self.attempts
  self.attempts = attempts + 1
  local delay
  if attempts == 0 then
    delay = self.delay_min * self.random()
  else
    delay = math.min(self.delay_max, self.delay_min * self.factor ^ (attempts - 1))
    delay = delay * (0.5 + 0.5 * self.random())
  end
  if self.busy[err.code] then
    delay = math.max(delay, math.min(BUSY_DELAY, self.delay_max) * (0.5 + 0.5 * self.random()))
  elseif err.kind == "refused" then
    -- It will hardly change its mind; but a device in the field has nobody else to ask.
    delay = self.delay_max * (0.5 + 0.5 * self.random())
  end
  return delay
end

local backoff = {}

--- Checks the options; mistakes blame the caller's caller.
---@param op string
---@param options net.ReconnectOptions|boolean|nil
---@param level? integer
function backoff.check(op, options, level)
  if type(options) ~= "table" then return end
  level = (level or 3) + 1
  cosocket.check_options(op, options, OPTIONS, level)
  local least, most = options.delay_min or 1, options.delay_max or 60
  if least <= 0 or most < least then
    error(op .. ": delay_min must be more than 0 and at most delay_max", level)
  end
  if (options.factor or 2) < 1 then error(op .. ": factor must be at least 1", level) end
end

---@param options? net.ReconnectOptions
---@param random? fun(): number From 0 to 1. Default `math.random`.
---@param busy? table<any, boolean> Codes of errors with which a server asks not to be called again soon.
---@return net.Backoff
function backoff.new(options, random, busy)
  options = options or {}
  return setmetatable({
    delay_min = options.delay_min or 1,
    delay_max = options.delay_max or 60,
    factor = options.factor or 2,
    random = random or math.random,
    busy = busy or {},
    attempts = 0,
  }, Backoff)
end

return backoff
