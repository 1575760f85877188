--- One direction of one connection as its decoder sees it: bytes that are waited for, looked at, and taken.
---
--- A decoder is written as if it read from a stream. Its coroutine rests where more bytes are needed:
---
---     function echo.follow(lane)
---       while true do
---         local line = lane:line(1000)
---         if not line then return end
---         lane:take(#line)
---         lane:say("line " .. text.quote(line))
---       end
---     end
---
--- What is taken goes on into captures and dumps; secrets in it are handed over masked. Nothing a decoder does disturbs the
--- connection: one that fails is told of, and the rest is shown as it is.

local mask = require("net.trace.mask")
local secret = require("net.trace.secret")
local text = require("net.trace.text")

--- Bytes that may wait for a decoder.
local HELD_MAX = 1024 * 1024

---@class net.trace.Lane
---@field direction "sent"|"received"
---@field protocol string What is decoded.
---@field side "client"|"server" Ours.
---@field is_client boolean Whether what passes here comes from the client.
---@field state table What both directions know of this protocol.
---@field limit integer Bytes of a payload that are shown.
---@field private connection net.trace.Connection
---@field private release fun(bytes: string)
---@field private held string
---@field private at integer Where what is not taken begins.
---@field private pieces string[] What has come since, and is not joined yet.
---@field private fed integer Bytes that have come.
---@field private taken integer Bytes of them that were taken.
---@field private ends integer[] Where messages end, counted as `fed`.
---@field private ended boolean
---@field private thread thread?
---@field private dumps string[]
local Lane = {}
Lane.__index = Lane
Lane.__name = "net.trace.Lane"

local lane = { HELD_MAX = HELD_MAX }

---@param connection net.trace.Connection
---@param direction "sent"|"received"
---@param protocol string
---@param state table
---@param release fun(bytes: string) Gets what was taken, secrets masked.
---@return net.trace.Lane
function lane.new(connection, direction, protocol, state, release)
  return setmetatable({
    connection = connection,
    direction = direction,
    protocol = protocol,
    side = connection.side,
    is_client = (direction == "sent") == (connection.side == "client"),
    state = state,
    limit = connection.tracer.limit,
    release = release,
    held = "",
    at = 1,
    pieces = {},
    fed = 0,
    taken = 0,
    ends = {},
    ended = false,
    dumps = {},
  }, Lane)
end

-- For decoders ------------------------------------------------------------------

--- How many bytes are here.
---@return integer
function Lane:count() return self.fed - self.taken end

--- Makes one string of what is here.
---@private
function Lane:join()
  if not self.pieces[1] then return end
  self.held = self.held:sub(self.at) .. table.concat(self.pieces)
  self.at, self.pieces = 1, {}
end

--- Waits for so many bytes.
---@param count integer
---@return boolean here `false`: the direction ended before.
function Lane:need(count)
  while self:count() < count do
    if self.ended then return false end
    if count > HELD_MAX then error(("a decoder waits for %d bytes at once"):format(count)) end
    coroutine.yield()
  end
  return true
end

--- Waits until the other direction, or another, has made something true.
---@param condition fun(): any
---@return boolean met `false`: the connection ended before.
function Lane:wait(condition)
  while not condition() do
    if self.connection.over then return false end
    coroutine.yield()
  end
  return true
end

--- A copy of bytes that are here.
---@param count integer
---@param offset? integer Default 0.
---@return string
function Lane:peek(count, offset)
  self:join()
  local from = self.at + (offset or 0)
  return self.held:sub(from, math.min(from + count - 1, #self.held))
end

--- Where `bytes` are, among those that are here.
---@param bytes string
---@param offset? integer
---@return integer? offset
function Lane:find(bytes, offset)
  self:join()
  local found = self.held:find(bytes, self.at + (offset or 0), true)
  return found and found - self.at
end

--- Waits for a line, and answers it with its end, without taking it. One that is longer than `max`, or the last without an
--- end, is answered as far as it goes.
---@param max integer
---@return string? line
function Lane:line(max)
  local seen = 0
  while true do
    local found = self:find("\n", seen)
    if found then return self:peek(math.min(found + 1, max)) end
    seen = self:count()
    if seen >= max then return self:peek(max) end
    if self.ended then return seen > 0 and self:peek(seen) or nil end
    coroutine.yield()
  end
end

--- Takes bytes that are here.
---@param count integer
---@param masked? string The same, as long, without its secrets.
---@return string bytes
function Lane:take(count, masked)
  local bytes = self:hold(count)
  if masked and #masked ~= #bytes then masked = secret.same(#bytes) end
  self:released(masked or bytes)
  return bytes
end

--- Takes bytes that are here, and hands nothing on: `released` does, in their place.
---@param count integer
---@return string bytes
function Lane:hold(count)
  local bytes = self:peek(count)
  self.at, self.taken = self.at + #bytes, self.taken + #bytes
  return bytes
end

--- Hands bytes on into captures and dumps.
---@param bytes string
function Lane:released(bytes)
  self:dump_later(bytes)
  self.release(bytes)
end

--- Takes bytes as they come, and keeps the first.
---@param count number `math.huge`: until the end.
---@param masking? net.trace.Mask Of the text that this is a part of. Default: this is all of it.
---@return string first As much as may be shown, masked.
---@return integer passed Fewer than `count`: the direction ended.
function Lane:pass(count, masking)
  masking = masking or mask.new()
  local first, passed = "", 0
  while passed < count and self:need(1) do
    local size = math.min(count - passed, self:count()) --[[@as integer]]
    local piece = self:take(size, masking:feed(self:peek(size)))
    if #first < self.limit then first = first .. piece:sub(1, self.limit - #first) end
    passed = passed + size
  end
  return first, passed
end

--- Takes what is left of a line whose beginning was taken, as a secret.
---@return boolean whole
function Lane:pass_line()
  while self:need(1) do
    local found = self:find("\n")
    local size = found or self:count()
    self:take(size, (self:peek(size):gsub("[^\r]", "*")))
    if found then
      self:take(1)
      return true
    end
  end
  return false
end

--- Waits for a whole message, of a protocol that runs over messages.
---@return integer? size `nil`: the end, or one of more than `HELD_MAX` bytes.
---@return boolean? too_long
function Lane:message()
  while not self.ends[1] do
    if self.ended then return nil end
    -- What is fed beyond this ends the lane.
    if self:count() > HELD_MAX // 2 then return nil, true end
    coroutine.yield()
  end
  return self.ends[1] - self.taken
end

--- Takes what has come of a message that is too long, and all that comes of it.
---@return string first
---@return integer passed
function Lane:pass_message()
  local first, passed, masking = "", 0, mask.new()
  while true do
    local size = self.ends[1] and self.ends[1] - self.taken
    local count = size or self:count()
    local piece = self:take(count, masking:feed(self:peek(count), size ~= nil or self.ended))
    if #first < self.limit then first = first .. piece:sub(1, self.limit - #first) end
    passed = passed + count
    if size then
      self:end_message()
      return first, passed
    end
    if self.ended then return first, passed end
    coroutine.yield()
  end
end

--- Forgets where the message that was taken ended.
function Lane:end_message() table.remove(self.ends, 1) end

--- Prints a line. Control characters in it are made visible.
---@param words string
function Lane:say(words)
  self.connection:print(self.direction, self.protocol, words)
  self:dump_now()
end

--- Prints bytes in hexadecimal.
---@param bytes string
function Lane:dump(bytes)
  for _, line in ipairs(text.dump(bytes, self.limit)) do self.connection:print(self.direction, self.protocol, line) end
end

--- Payload in quotation marks, shortened, without what looks like a secret.
---@param bytes string
---@return string
function Lane:quote(bytes)
  if self.limit == 0 then return "" end
  -- A secret may begin before the limit and end behind it.
  return text.quote(secret.text(bytes, secret.short), self.limit)
end

--- Goes on as another protocol. The decoder answers what this answers: `return lane:become("websocket", state)`.
---@param protocol string
---@param state table
function Lane:become(protocol, state)
  local decoder = self.connection.tracer:decoder(protocol)
  if not decoder then
    protocol, decoder = "tcp", self.connection.tracer:decoder("tcp")
  end
  ---@cast decoder net.trace.Decoder
  self.protocol, self.state = protocol, state
  self.connection:speaks(protocol)
  if not self.connection:follows(protocol) then return self:skip() end
  return decoder.follow(self)
end

--- A lane for what runs within this one. Feed it, and it hands on what it took.
---@param protocol string
---@param state table
---@param release fun(bytes: string)
---@return net.trace.Lane? inner `nil`: nothing decodes that.
function Lane:inner(protocol, state, release)
  local decoder = self.connection.tracer:decoder(protocol)
  if not decoder then return nil end
  local inner = lane.new(self.connection, self.direction, protocol, state, release)
  self.connection:speaks(protocol)
  inner:start(decoder)
  return inner
end

-- For the tracer ----------------------------------------------------------------

---@private
---@param bytes string
function Lane:dump_later(bytes)
  if self.connection:dumps(self) then self.dumps[#self.dumps + 1] = bytes end
end

---@private
function Lane:dump_now()
  if not self.dumps[1] then return end
  local lines = text.dump(table.concat(self.dumps), self.limit)
  self.dumps = {}
  for _, line in ipairs(lines) do self.connection:print(self.direction, "tcp", line) end
end

--- Lets all pass that nobody asked for.
function Lane:skip()
  while self:need(1) do
    self.held, self.at, self.pieces, self.taken = "", 1, {}, self.fed
  end
end

--- What follows a protocol that is not shown.
lane.SKIPPING = { follow = Lane.skip }

--- Shows all that comes in hexadecimal, without what looks like a secret.
function Lane:raw()
  local scrubber = secret.scrubber()
  while self:need(1) do
    local size = self:count()
    local bytes = scrubber:feed(self:peek(size))
    self:take(size, bytes)
    if not self.dumps[1] then self:dump(bytes) end
    self:dump_now()
  end
end

---@param decoder net.trace.Decoder
function Lane:start(decoder)
  self.thread = coroutine.create(function()
    decoder.follow(self)
    -- A decoder that ends with bytes left has given up; or their rest does not come, and they are not for showing.
    if not self.ended then self:raw() end
  end)
  self:run()
end

---@private
function Lane:run()
  if not self.thread then return end
  local ok, err = coroutine.resume(self.thread)
  if not ok then
    self.connection:print(self.direction, self.protocol, ("the decoder failed: %s"):format(tostring(err)))
    -- What it was at is not known to be harmless.
    local size = self:count()
    if size > 0 then self:take(size, secret.same(size)) end
    self.thread = coroutine.create(function() self:raw() end)
    coroutine.resume(self.thread)
  end
  self:dump_now()
  if self.thread and coroutine.status(self.thread) == "dead" then self.thread = nil end
end

--- Bytes have passed; or with none, perhaps something has changed.
---@param bytes string
---@param is_end? boolean A message ends here.
function Lane:feed(bytes, is_end)
  if bytes ~= "" then self.pieces[#self.pieces + 1] = bytes end
  self.fed = self.fed + #bytes
  if is_end then self.ends[#self.ends + 1] = self.fed end
  self:run()
  if self:count() > HELD_MAX then
    self:say(("%s wait for what does not come; the rest is not decoded"):format(text.size(self:count())))
    self.thread = coroutine.create(function() self:raw() end)
    self:run()
  end
end

--- No more comes.
function Lane:finish()
  if self.ended then return end
  self.ended = true
  self:run()
  local left = self:count()
  if left > 0 then
    self:take(left, secret.same(left))
    self:say(("%s of an unfinished message"):format(text.size(left)))
  end
  self.thread = nil
end

return lane
