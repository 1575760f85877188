--- Subscribing to streams of the other side: methods of `wsrpc.Peer`.

local cosocket = require("cosocket")
local failure = require("wsrpc.failure")
local stream = require("wsrpc.stream")

local now = cosocket.now

---@class wsrpc.Peer
local Peer = {}

--- Asks for a stream's values.
---@param one wsrpc.Stream
---@return true? ok
---@return cosocket.Error? err
function Peer:attach(one)
  local current = self.session --[[@as wsrpc.Session]]
  -- What still waits here counts.
  local credit = math.max(1, one.window - one:waiting())
  local feed, err = current:subscribe(one.name, one.params, credit, one)
  if not feed then return nil, err end
  one.feed, one.taken = feed, 0
  return true
end

---@async
---@param self wsrpc.Peer
---@param one wsrpc.Stream
---@return true? ok
---@return cosocket.Error? err
local function subscribe(self, one)
  local current, err = self:present()
  if not current then return nil, err end
  self.streams[one] = true
  local ok, why = self:attach(one)
  if not ok then return nil, why end
  self:flush()
  while not one.confirmed and not one.over do
    one.ready:clear()
    ok, why = one.ready:wait()
    if not ok then return nil, why end
  end
  if not one.confirmed then return nil, one.err end
  return true
end

---@async
---@param self wsrpc.Peer
---@param op string
---@param name string
---@param params table?
---@param options wsrpc.StreamOptions?
---@param level integer
---@return wsrpc.Stream? stream
---@return cosocket.Error? err
local function open_stream(self, op, name, params, options, level)
  failure.check(op, name, params, level + 1)
  options = cosocket.check_options(op, options, stream.options, level + 1)
  if options.window and options.window < 1 then error(op .. ": window must be at least 1", level + 1) end
  local one = stream.new(self, name, params, options)
  local seconds, began = self.call_timeout, now()
  local ok, err = cosocket.deadline(seconds, subscribe, self, one)
  if ok then return one end
  ---@cast err cosocket.Error
  one:close()
  self.streams[one] = nil
  if err.kind == "protocol" and err.op ~= "wsrpc.call" then return failure.unsent(op, err, level + 1) end
  return nil, failure.why_not(name, seconds, began, err)
end

--- Subscribes to a stream of the other side: `stream:next()` waits for values, `stream:close()` ends it.
---@async
---@param name string
---@param params? table
---@param options? wsrpc.StreamOptions
---@return wsrpc.Stream? stream
---@return cosocket.Error? err As of `call`.
function Peer:subscribe(name, params, options)
  return open_stream(self, "peer:subscribe", name, params, options, 2)
end

--- `for reading in peer:stream("temperature", { sensor = 1 }) do`: the values of a stream. The loop ends when the other
--- side ends the stream; leaving it ends it over there. What is not the clean end is raised.
---@async
---@param name string
---@param params? table
---@param options? wsrpc.StreamOptions
---@return fun(): any
---@return nil
---@return nil
---@return wsrpc.Stream
function Peer:stream(name, params, options)
  local one, why = open_stream(self, "peer:stream", name, params, options, 2)
  if not one then error(why, 0) end
  return function()
    local value, err = one:next()
    if err then error(err, 0) end
    return value
  end, nil, nil, one
end

--- Lets more values of a stream come.
---@package
---@param feed wsrpc.Feed
---@param count integer
function Peer:grant(feed, count)
  if not self.session then return end
  self.session:grant(feed, count)
  self:flush()
end

--- Ends a stream of ours.
---@package
---@param one wsrpc.Stream
function Peer:unsubscribe(one)
  self.streams[one] = nil
  local feed = one.feed
  one.feed = nil
  if feed and self.session then
    self.session:unsubscribe(feed)
    self:flush()
  end
end

return Peer
