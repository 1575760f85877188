--- Takes the connections that come to a listener: not more than there may be at a time, a task for each, all of which end
--- with `close`.
---
---     local acceptor = acceptor.start(listener, serve, { name = "echo" })   -- serve(stream), in a task of its own
---
--- The stream is closed when `serve` returns. What it raises is logged, and the others go on.

local cosocket = require("cosocket")
local log = require("log")

--- Connections at a time.
local CONNECTIONS_MAX = 1000
--- Seconds until the next attempt, when the system has no descriptors left: some may be free again in a moment.
local RETRY = 0.1

---@class net.AcceptorOptions
---@field name? string What tasks are called, and the log. Default "server".
---@field connections_max? integer Connections at a time; one more is closed at once. Default 1000.

local OPTIONS = { name = "string", connections_max = "integer" }

---@class net.Acceptor
---@field count integer Connections that there are.
---@field private listener cosocket.Listener
---@field private serve async fun(stream: cosocket.Stream)
---@field private name string
---@field private connections_max integer
---@field private streams table<cosocket.Stream, cosocket.Task>
---@field private log log.Logger
local Acceptor = {}
Acceptor.__index = Acceptor
Acceptor.__name = "net.Acceptor"

local acceptor = {}

--- Takes connections until the listener is closed.
---@async
---@param listener cosocket.Listener
---@param logger log.Logger
---@param take fun(owner: any, stream: cosocket.Stream)
---@param owner any
function acceptor.take_all(listener, logger, take, owner)
  while true do
    local stream, err = listener:accept()
    if stream then
      take(owner, stream)
    else
      ---@cast err cosocket.Error
      if err.kind == "closed" then return end
      logger.error("no connection can be accepted", { error = tostring(err) })
      cosocket.sleep(RETRY)
    end
  end
end

--- A connection of an acceptor.
---@class net.Accepted
---@field acceptor net.Acceptor
---@field stream cosocket.Stream

---@async
---@param one net.Accepted
local function serve(one) one.acceptor.serve(one.stream) end

---@param one net.Accepted
---@param ok boolean
---@param err any
---@param traceback string?
local function over(one, ok, err, traceback)
  local self, stream = one.acceptor, one.stream
  local peer = stream:peer_address()
  self.streams[stream], self.count = nil, self.count - 1
  stream:close()
  if ok then return end
  if cosocket.is_error(err, "cancelled") then error(err, 0) end
  local text = tostring(err)
  if type(err) == "string" and traceback and traceback ~= "" then text = text .. "\n" .. traceback end
  self.log.error("a connection failed", { peer = peer, error = text })
end

---@param self net.Acceptor
---@param stream cosocket.Stream
local function take(self, stream)
  if self.count >= self.connections_max then
    self.log.warn("too many connections; one more was closed", { connections_max = self.connections_max })
    stream:close()
    return
  end
  self.count = self.count + 1
  local task = cosocket.spawn_then(over, serve, { acceptor = self, stream = stream })
  task:name(self.name .. " connection")
  self.streams[stream] = task
end

--- Where it listens: `"127.0.0.1:8080"`, or a path.
---@return string
function Acceptor:address() return self.listener:local_address() end

--- Takes no more, and ends those that there are.
---@return true
function Acceptor:close()
  self.listener:close()
  for stream, task in pairs(self.streams) do
    stream:close()
    task:cancel()
  end
  return true
end

Acceptor.__close = Acceptor.close

--- Begins, with a task in the group of the caller. `close` ends it.
---@param listener cosocket.Listener
---@param serve async fun(stream: cosocket.Stream)
---@param options? net.AcceptorOptions
---@return net.Acceptor
function acceptor.start(listener, serve, options)
  options = cosocket.check_options("acceptor.start", options, OPTIONS)
  local name = options.name or "server"
  local self = setmetatable({
    listener = listener,
    serve = serve,
    name = name,
    connections_max = options.connections_max or CONNECTIONS_MAX,
    streams = {},
    count = 0,
    log = log.new(name),
  }, Acceptor)
  cosocket.spawn(name, acceptor.take_all, listener, self.log, take, self)
  return self
end

return acceptor
