--- What the other side may make grow, and how often it may speak.

local cosocket = require("cosocket")
local json = require("json")

--- Bytes of a message, in either direction.
local MESSAGE_MAX = 1048576
--- How deep arrays and objects nest in a message.
local DEPTH_MAX = 64
--- Calls of the other side that run here at a time, notifications included.
local CALLS_MAX = 256
--- Calls of ours that wait for their answer.
local PENDING_MAX = 1024
--- Streams, of each direction.
local SUBSCRIPTIONS_MAX = 100
--- Requests in a batch.
local BATCH_MAX = 100
--- Messages of the other side in a second, each of a batch counted, and how many may come at once.
local RATE = 100000

---@class wsrpc.Limits
---@field message_max? integer Bytes of a message; a longer one closes the connection with code 1009. Default 1048576.
---@field depth_max? integer How deep arrays and objects nest, at most 256. Default 64.
---@field calls_max? integer Calls of the other side that run at a time; more get error -32002, and notifications are dropped. Default 256.
---@field pending_max? integer Calls of ours that wait for their answer; more fail with `limit`. Default 1024.
---@field subscriptions_max? integer Streams of each direction. Default 100.
---@field batch_max? integer Requests in a batch. Default 100.
---@field rate? number Messages of the other side in a second, as many of them at once; more get error -32003, and twice as many close the connection. Default 100000.

local limit = {}

--- Bytes of an id that is a string.
limit.id_max = 256

--- The names of the limits, for those who check options.
limit.options = {
  message_max = "integer",
  depth_max = "integer",
  calls_max = "integer",
  pending_max = "integer",
  subscriptions_max = "integer",
  batch_max = "integer",
  rate = "number",
}

--- What sessions with the same limits share.
---@class wsrpc.Config: wsrpc.Limits
---@field decode fun(text: string): any, cosocket.Error?
---@field encode wsrpc.Encode

---@param limits? wsrpc.Limits
---@return wsrpc.Config
function limit.config(limits)
  limits = limits or {}
  local message_max, depth_max = limits.message_max or MESSAGE_MAX, limits.depth_max or DEPTH_MAX
  local codec = json.codec({ depth_max = depth_max, size_max = message_max, sort_keys = false })
  return {
    message_max = message_max,
    depth_max = depth_max,
    calls_max = limits.calls_max or CALLS_MAX,
    pending_max = limits.pending_max or PENDING_MAX,
    subscriptions_max = limits.subscriptions_max or SUBSCRIPTIONS_MAX,
    batch_max = limits.batch_max or BATCH_MAX,
    rate = limits.rate or RATE,
    decode = codec.decode,
    encode = codec.encode,
  }
end

--- The error of what is beyond a limit of our own.
---@param what string
---@param count integer
---@param option string
---@return nil
---@return cosocket.Error
function limit.reached(what, count, option)
  local text = ("%d %s already; %s allows no more"):format(count, what, option)
  return nil, cosocket.error("limit", "wsrpc", text)
end

--- Whether one more message is within the rate; `nil` when that is the end.
---@param self wsrpc.Session
---@param now number
---@return boolean?
function limit.within_rate(self, now)
  local rate = self.config.rate
  local tokens = math.min(rate, self.tokens + (now - (self.counted or now)) * rate)
  self.counted = now
  if tokens >= 1 then
    self.tokens, self.excess = tokens - 1, 0
    return true
  end
  self.tokens = tokens
  self.excess = self.excess + 1
  if self.excess > rate then return nil end
  return false
end

return limit
