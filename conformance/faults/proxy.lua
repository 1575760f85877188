--- A proxy between a client and a server that does to what passes what networks do: it delays it, cuts it into pieces,
--- holds it back, loses it, ends it early, and resets.
---
---     local way = proxy.start("mqtt://127.0.0.1:1883", { down = { after = 100, fault = "reset" } })
---     mqtt.connect(way.url)
---
--- What passes without a fault passes as it came: ends of one direction and resets, too.

local cosocket = require("cosocket")
local test = require("test")
local urls = require("url")

--- Pieces that may be on their way at a time where there is latency; then the sender has to wait.
local PIECES_MAX = 64
--- Bytes of a piece, at most.
local PIECE_MAX = 16384
--- Seconds that are sent at once where there is a bandwidth.
local BANDWIDTH_STEP = 0.02
--- Seconds that may be made up for.
local CATCH_UP = 0.1
--- Times that a port is tried to be had again, and seconds between them.
local LISTEN_ATTEMPTS, LISTEN_DELAY = 50, 0.02

--- What happens to a connection, or to one direction of it.
---@alias faults.Fault
---| "stall" # nothing passes in this direction, nor is it taken from the sender, until `resume`
---| "lose"  # whatever comes in this direction from now on is lost, its end included: nobody hears of it
---| "end"   # this direction ends as if its sender had ended it; the other one goes on
---| "cut"   # both directions end
---| "reset" # both sides get RST

---@alias faults.Direction "up"|"down" `up` is from the client to the server.

--- What is done to one direction of a connection.
---@class faults.Way
---@field latency? number Seconds that everything takes. Default 0.
---@field jitter? number Up to so many seconds more for each piece; their order stays. Default 0.
---@field bandwidth? number Bytes a second. Default: no limit.
---@field buffer? integer Bytes, about, that the system takes from the sender before they are handed on. Default: megabytes.
---@field slice? integer Bytes that are handed on at once, at most, each time in a segment of its own.
---@field pause? number Seconds between slices. Default 0.
---@field after? integer Bytes that pass before the fault. Default 0.
---@field fault? faults.Fault

--- What is done to a connection.
---@class faults.Connection
---@field accept? "serve"|"silent"|"cut"|"reset" What a client gets: the server; nothing, ever; an end; RST. Default "serve".
---@field up? faults.Way
---@field down? faults.Way

---@class faults.Options: faults.Connection
---@field connection? fun(number: integer): faults.Connection? What is done to the connections one by one, from 1 on. Default: the same to each.
---@field take? fun(buffer: cosocket.Buffer): string? Takes one whole message off the front, for `inspect`. Default: whatever has come.
---@field inspect? fun(message: string, direction: faults.Direction, number: integer): ("drop"|faults.Fault)?, boolean? Sees each message. It passes without an answer; with a fault that happens instead, or after the message if the second answer is `true`.
---@field on_data? fun(data: string, direction: faults.Direction, number: integer) Sees bytes as they come.
---@field random? test.Random For jitter. Default: one that follows the seed of the test.

local CONNECTION_OPTIONS = { accept = "string", up = "table", down = "table" }
local OPTIONS = { connection = "function", take = "function", inspect = "function", on_data = "function", random = "table" }
for name, kind in pairs(CONNECTION_OPTIONS) do OPTIONS[name] = kind end
local WAY_OPTIONS = {
  latency = "number",
  jitter = "number",
  bandwidth = "number",
  buffer = "integer",
  slice = "integer",
  pause = "number",
  after = "integer",
  fault = "string",
}
local FAULTS = { stall = true, lose = true, ["end"] = true, cut = true, reset = true }
local ACCEPTS = { serve = true, silent = true, cut = true, reset = true }

--- One connection through the proxy.
---@class faults.Link
---@field number integer
---@field private proxy faults.Proxy
---@field private client cosocket.Stream
---@field private server cosocket.Stream
---@field private lost table<faults.Direction, boolean>
---@field private stalled table<faults.Direction, boolean>
---@field private go_on cosocket.Event
---@field private happened table<faults.Direction, boolean> Whether the fault of the way has been.
---@field private due table<faults.Direction, number> When the last piece was due where there is a bandwidth.
---@field private ended integer Directions that have ended.
local Link = {}
Link.__index = Link

--- Ends the connection on both sides.
---@private
---@param how "close"|"reset"
function Link:finish(how)
  self.client[how](self.client)
  self.server[how](self.server)
  -- Whoever is held back has nothing to wait for any more.
  self.stalled = {}
  self.go_on:set()
end

--- Has a fault happen. Answers whether the direction goes on.
---@param fault faults.Fault
---@param direction faults.Direction
---@return boolean
function Link:suffer(fault, direction)
  if fault == "stall" then
    self.stalled[direction] = true
  elseif fault == "lose" then
    self.lost[direction] = true
  elseif fault == "end" then
    return false
  else
    self:finish(fault == "cut" and "close" or "reset")
    return false
  end
  return true
end

--- Waits while the direction is held back.
---@private
---@async
---@param direction faults.Direction
function Link:hold(direction)
  while self.stalled[direction] do
    self.go_on:clear()
    self.go_on:wait()
  end
end

--- Hands bytes on, in slices, as fast as the direction is. Answers whether it goes on.
---@private
---@async
---@param to cosocket.Stream
---@param direction faults.Direction
---@param way faults.Way
---@param data string
---@return boolean
function Link:hand_on(to, direction, way, data)
  local size = way.slice or way.bandwidth and math.max(1, way.bandwidth * BANDWIDTH_STEP // 1) or PIECE_MAX
  for at = 1, #data, size do
    local piece = data:sub(at, at + size - 1)
    self:hold(direction)
    if self.lost[direction] then return true end
    if not to:write(piece) or not to:flush() then
      -- The receiver is gone: so does the sender learn it.
      self:finish("reset")
      return false
    end
    self.proxy.passed[direction] = self.proxy.passed[direction] + #piece
    if way.bandwidth then
      -- Counted from when the piece before was due: who wakes late makes up for that, though not for long silence.
      local now = cosocket.now()
      local due = math.max(self.due[direction] or now, now - CATCH_UP) + #piece / way.bandwidth
      self.due[direction] = due
      cosocket.sleep(math.max(0, due - now))
    end
    if way.slice then cosocket.sleep(way.pause or 0) end
  end
  return true
end

--- Hands bytes on; at its place, the fault happens. Answers whether the direction goes on.
---@private
---@async
---@param to cosocket.Stream
---@param direction faults.Direction
---@param way faults.Way
---@param data string
---@param before integer Bytes that have passed.
---@return boolean
function Link:pass(to, direction, way, data, before)
  local place = (way.after or 0) - before
  if not way.fault or self.happened[direction] or place > #data then return self:hand_on(to, direction, way, data) end
  if not self:hand_on(to, direction, way, data:sub(1, place)) then return false end
  self.happened[direction] = true
  return self:suffer(way.fault, direction) and self:hand_on(to, direction, way, data:sub(place + 1))
end

--- What has come, message by message: those that pass, and the fault that one of them brings.
---@private
---@param direction faults.Direction
---@param buffer cosocket.Buffer What of a message came before.
---@param data string
---@return string passing
---@return faults.Fault? fault
function Link:inspected(direction, buffer, data)
  local options = self.proxy.options
  local take = options.take or function(bytes) return #bytes > 0 and bytes:take() or nil end
  buffer:append(data)
  local passing = {}
  for message in take, buffer do
    local verdict, afterwards = options.inspect(message, direction, self.number)
    if not verdict or verdict ~= "drop" and afterwards then passing[#passing + 1] = message end
    if verdict and verdict ~= "drop" then return table.concat(passing), verdict end
  end
  return table.concat(passing)
end

--- The end of a direction: the other side reads it, too, unless it is lost.
---@private
---@async
---@param to cosocket.Stream
---@param direction faults.Direction
---@param err cosocket.Error?
function Link:end_direction(to, direction, err)
  self:hold(direction)
  if self.lost[direction] then return end
  if err and err.code == "ECONNRESET" then
    self:finish("reset")
  else
    to:shutdown("write")
  end
  self.ended = self.ended + 1
  if self.ended == 2 then self:finish("close") end
end

--- Moves one direction's bytes until it ends. `deliver` gets them, and the end as `nil` and the error that it is.
---@private
---@async
---@param from cosocket.Stream
---@param direction faults.Direction
---@param deliver async fun(data: string?, err: cosocket.Error?): boolean Answers whether to go on.
function Link:read(from, direction, deliver)
  local options = self.proxy.options
  local buffer = cosocket.buffer()
  while true do
    self:hold(direction)
    local data, err = from:read()
    if not data then
      deliver(nil, err)
      return
    end
    if options.on_data then options.on_data(data, direction, self.number) end
    local fault
    if options.inspect then
      data, fault = self:inspected(direction, buffer, data)
    end
    if data ~= "" and not deliver(data) then return end
    if fault and not self:suffer(fault, direction) then
      if fault == "end" then deliver(nil) end
      return
    end
  end
end

--- One direction of the connection.
---@private
---@async
---@param from cosocket.Stream
---@param to cosocket.Stream
---@param direction faults.Direction
---@param way faults.Way
function Link:pump(from, to, direction, way)
  local passed = 0
  local function deliver(data, err)
    if not data then
      self:end_direction(to, direction, err)
      return false
    end
    local goes_on = self:pass(to, direction, way, data, passed)
    passed = passed + #data
    if not goes_on and way.fault == "end" then self:end_direction(to, direction) end
    return goes_on
  end
  -- What is to happen at once does not wait for the first byte.
  if way.fault and (way.after or 0) == 0 and not deliver("") then return end
  if not way.latency and not way.jitter then return self:read(from, direction, deliver) end

  -- What is on its way, each piece with the time at which it arrives.
  local road, last = cosocket.queue(PIECES_MAX), 0
  cosocket.spawn("fault proxy, on the way " .. direction, function()
    for piece in road do
      cosocket.sleep(math.max(0, piece.at - cosocket.now()))
      if not deliver(piece.data, piece.err) then break end
    end
    road:close()
  end)
  self:read(from, direction, function(data, err)
    local delay = (way.latency or 0) + (way.jitter or 0) * self.proxy.random()
    last = math.max(last, cosocket.now() + delay)
    if not data then return road:put({ at = last, err = err }) == true end
    for at = 1, #data, PIECE_MAX do
      if not road:put({ at = last, data = data:sub(at, at + PIECE_MAX - 1) }) then return false end
    end
    return true
  end)
  road:close()
end

---@class faults.Proxy
---@field url string What the client connects to: the server's address as it was given, with the proxy's port.
---@field address string `"127.0.0.1:40123"`
---@field accept "serve"|"silent"|"cut"|"reset" What clients get from now on.
---@field connections integer How many there have been.
---@field passed table<faults.Direction, integer> Bytes that were handed on, in all.
---@field options faults.Options
---@field random test.Random
---@field private to string
---@field private listener cosocket.Listener?
---@field private links table<faults.Link, true>
---@field private silent cosocket.Stream[] Clients that get no answer.
---@field private held table<faults.Direction, faults.Fault> What new connections suffer, too.
local Proxy = {}
Proxy.__index = Proxy

---@param way faults.Way?
---@return faults.Way
local function checked_way(way)
  way = cosocket.check_options("proxy.start", way, WAY_OPTIONS, 4)
  if way.fault and not FAULTS[way.fault] then error(("proxy: there is no fault %q"):format(way.fault), 4) end
  if way.after and not way.fault then error("proxy: `after` is where the fault is: say which", 4) end
  return way
end

---@param accept string?
---@return "serve"|"silent"|"cut"|"reset"
local function checked_accept(accept)
  if accept and not ACCEPTS[accept] then error(("proxy: accept cannot be %q"):format(accept), 4) end
  return accept or "serve"
end

--- Joins a client to the server.
---@private
---@async
---@param client cosocket.Stream
---@param number integer
---@param plan faults.Connection
function Proxy:join(client, number, plan)
  local up, down = checked_way(plan.up), checked_way(plan.down)
  local server = cosocket.connect(self.to)
  if not server then
    client:reset()
    return
  end
  if up.buffer then assert(client:set_option("receive_buffer", up.buffer)) end
  if down.buffer then assert(server:set_option("receive_buffer", down.buffer)) end
  local link = setmetatable({
    number = number,
    proxy = self,
    client = client,
    server = server,
    lost = {},
    stalled = {},
    happened = {},
    due = {},
    go_on = cosocket.event(),
    ended = 0,
  }, Link)
  for direction, fault in pairs(self.held) do link:suffer(fault, direction) end
  self.links[link] = true
  cosocket.group(function()
    cosocket.spawn("fault proxy, up", link.pump, link, client, server, "up", up)
    cosocket.spawn("fault proxy, down", link.pump, link, server, client, "down", down)
  end)
  self.links[link] = nil
  link:finish("close")
end

---@private
---@async
---@param listener cosocket.Listener
function Proxy:serve(listener)
  while true do
    local client = listener:accept()
    if not client then return end
    self.connections = self.connections + 1
    local number, options = self.connections, self.options
    local plan = options.connection and options.connection(number) or options
    local accept = plan ~= options and checked_accept(plan.accept) or self.accept
    if accept == "silent" then
      table.insert(self.silent, client)
    elseif accept ~= "serve" then
      client[accept == "cut" and "close" or "reset"](client)
    else
      cosocket.spawn("fault proxy", self.join, self, client, number, plan)
    end
  end
end

---@private
---@async
---@param port string
function Proxy:listen(port)
  local listener, err
  for _ = 1, LISTEN_ATTEMPTS do
    listener, err = cosocket.listen("tcp://127.0.0.1:" .. port)
    if listener then break end
    cosocket.sleep(LISTEN_DELAY)
  end
  self.listener = assert(listener, err)
  self.address = self.listener:local_address()
  cosocket.spawn("fault proxy, accepting", self.serve, self, self.listener)
end

---@private
---@param how "close"|"reset"
function Proxy:end_all(how)
  local links = self.links
  self.links = {}
  for link in pairs(links) do link:finish(how) end
  for _, stream in ipairs(self.silent) do stream[how](stream) end
  self.silent = {}
end

--- Ends all connections; new ones come through.
function Proxy:interrupt()
  self:end_all("close")
end

--- Resets all connections; new ones come through.
function Proxy:reset()
  self:end_all("reset")
end

--- Ends all connections, and has the system refuse new ones until `admit`.
function Proxy:refuse()
  if self.listener then self.listener:close() end
  self.listener = nil
  self:interrupt()
end

--- Takes connections again, by the same address.
---@async
function Proxy:admit()
  if not self.listener then self:listen(self.address:match("%d+$")) end
end

---@private
---@param fault "stall"|"lose"
---@param direction faults.Direction?
function Proxy:afflict(fault, direction)
  for _, each in ipairs(direction and { direction } or { "up", "down" }) do
    self.held[each] = fault
    for link in pairs(self.links) do link:suffer(fault, each) end
  end
end

--- Holds back whatever comes, on connections to come, too, until `resume`.
---@param direction? faults.Direction Default: both.
function Proxy:stall(direction)
  self:afflict("stall", direction)
end

--- Lets through what was held back.
function Proxy:resume()
  self.held = {}
  for link in pairs(self.links) do
    link.stalled = {}
    link.go_on:set()
  end
end

--- Loses whatever comes from now on, without a word to either side. After `resume` new connections come through; those
--- there were have lost bytes, and stay silent.
---@param direction? faults.Direction Default: both.
function Proxy:lose(direction)
  self:afflict("lose", direction)
end

local proxy = {}

--- Starts a proxy to the server at `where`. It ends with the test.
---@async
---@param where string A URL with a port, as the client takes it.
---@param options? faults.Options
---@return faults.Proxy
function proxy.start(where, options)
  options = cosocket.check_options("proxy.start", options, OPTIONS)
  local accept = checked_accept(options.accept)
  checked_way(options.up)
  checked_way(options.down)
  local address = assert(urls.parse(where))
  local host, port = address.host, address.port_or_default
  if not host or not port then error("proxy.start: the server's address needs a host and a port", 2) end
  local self = setmetatable({
    url = "",
    accept = accept,
    connections = 0,
    passed = { up = 0, down = 0 },
    options = options,
    random = options.random or test.random(),
    to = ("tcp://%s:%d"):format(host:find(":", 1, true) and "[" .. host .. "]" or host, port),
    links = {},
    silent = {},
    held = {},
  }, Proxy)
  self:listen("0")
  local own_port = self.address:match("%d+$")
  local scheme, userinfo, rest = where:match("^([%w+.-]+://)([^@/?]*@?)[^/?]*(.*)$")
  if not userinfo:find("@", 1, true) then userinfo = "" end
  -- A name stays: a certificate may be for it.
  local named = host:find("%a") and not host:find(":", 1, true)
  self.url = ("%s%s%s:%s%s"):format(scheme, userinfo, named and host or "127.0.0.1", own_port, rest)
  return self
end

--- An address at which nobody listens: connections to it are refused.
---@async
---@param where string A URL with a port.
---@return string url
function proxy.refused(where)
  local way = proxy.start(where)
  way:refuse()
  return way.url
end

return proxy
