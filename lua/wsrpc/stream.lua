--- A stream of the other side, as its subscriber has it: values in the order they were sent, held back when they are not
--- taken.

local cosocket = require("cosocket")

--- Values that may come before they are taken.
local WINDOW = 64

---@class wsrpc.Stream
---@field name string
---@field err cosocket.Error? Why it ended, if that was not the clean end.
---@field package params table?
---@field package peer wsrpc.Peer
---@field package window integer
---@field package resubscribe boolean
---@field package feed wsrpc.Feed?
---@field package values any[]
---@field package first integer
---@field package last integer
---@field package taken integer Since credit was given last.
---@field package over boolean
---@field package confirmed boolean The other side has agreed, once.
---@field package ready cosocket.Event
local Stream = {}
Stream.__index = Stream
Stream.__name = "wsrpc.Stream"

--- Waits for the next value. A deadline that passes takes nothing away.
---@async
---@return any value `json.null` for null; `nil` without an error at the clean end.
---@return cosocket.Error? err
function Stream:next()
  while true do
    local first = self.first
    if first <= self.last then
      local value = self.values[first]
      self.values[first] = nil
      self.first = first + 1
      self.taken = self.taken + 1
      if self.feed and self.taken * 2 >= self.window then
        self.peer:grant(self.feed, self.taken)
        self.taken = 0
      end
      return value
    end
    if self.over then return nil, self.err end
    self.ready:clear()
    local ok, err = self.ready:wait()
    if not ok then return nil, err end
  end
end

--- Wants no more: the other side's task for it ends. Values that have come are dropped.
---@return true
function Stream:close()
  if not self.over then
    self.over = true
    self.peer:unsubscribe(self)
    self.ready:set()
  end
  self.values, self.first, self.last = {}, 1, 0
  return true
end

function Stream:__close()
  self:close()
end

--- How many values wait here to be taken.
---@return integer
function Stream:waiting()
  return self.last - self.first + 1
end

--- A value has come.
---@param value any
function Stream:push(value)
  local last = self.last + 1
  self.last = last
  self.values[last] = value
  self.ready:set()
end

--- There will be no more.
---@param err cosocket.Error?
function Stream:finish(err)
  if self.over then return end
  self.over, self.err, self.feed = true, err, nil
  self.ready:set()
end

local stream = {}

--- The class, for whoever is told of the end of several things.
stream.class = Stream

---@class wsrpc.StreamOptions
---@field window? integer Values that may come before they are taken; the publisher waits then. Default 64.
---@field resubscribe? boolean Whether it goes on when the connection was lost and is there again; what was sent meanwhile is lost. Default `true`.

stream.options = { window = "integer", resubscribe = "boolean" }

---@param peer wsrpc.Peer
---@param name string
---@param params table?
---@param options wsrpc.StreamOptions
---@return wsrpc.Stream
function stream.new(peer, name, params, options)
  return setmetatable({
    peer = peer,
    name = name,
    params = params,
    window = options.window or WINDOW,
    resubscribe = options.resubscribe ~= false,
    values = {},
    first = 1,
    last = 0,
    taken = 0,
    over = false,
    confirmed = false,
    ready = cosocket.event(),
  }, Stream)
end

return stream
