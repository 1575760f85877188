--- What lies between a session and its stream: packets go through as they are, unless somebody wants to see how the
--- other side takes it when they do not.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local log = require("log").new("mqtt.broker")

--- Bytes of packets that wait because they are delayed; beyond them nothing more is sent.
local DELAYED_MAX = 16777216
--- What a packet that waits costs besides its bytes.
local PACKET_COST = 100

--- What is done with a packet instead of handing it on. `"drop"`: it is lost. `"duplicate"`: it comes twice.
--- `"stall"`: from this packet on nothing comes in this direction, and the connection stays open; one that was to be
--- received is not even read. `"close"`: the connection ends without this packet, `"close_after"`: with it as the last
--- one; either way without a word. `delay`: it comes so many seconds later, and what follows waits behind it.
--- `replace`: these bytes come in its place, which need not be a packet.
---@alias mqtt.broker.Mischief
---| "drop" | "duplicate" | "stall" | "close" | "close_after"
---| {delay: number?, replace: string?}

--- Looks at a packet, and answers what is to be done with it; `nil` is nothing. It must not wait. `direction` is the
--- broker's: `"receive"` or `"send"`. `bytes` is the packet as it is on the wire.
---@alias mqtt.broker.OnPacket fun(packet: mqtt.Packet, direction: "receive"|"send", client_id: string, bytes: string): mqtt.broker.Mischief?

--- The event that says that nothing is to be read until `go_on` is set.
local HOLD = { type = "hold" }

---@class mqtt.broker.Wire: net.Session<mqtt.Packet>
---@field on_packet mqtt.broker.OnPacket?
---@field go_on cosocket.Event? While nothing is to be read: set when that is over.
---@field cut boolean The connection is to end at once.
---@field private server mqtt.ServerSession
---@field private arrived cosocket.Buffer What has been let through to the session.
---@field private held string? What is to arrive when `held_until` has come.
---@field private held_until number?
---@field private delayed table<integer, {at: number, bytes: string}> What is to be sent later, from `first` to `last`.
---@field private first integer
---@field private last integer
---@field private delayed_bytes integer
---@field private mute boolean Nothing is sent any more.
local Wire = {}
Wire.__index = Wire

--- The whole packet at the front of `buffer`, taken off it.
---@param buffer cosocket.Buffer
---@return string? bytes `nil`: not all of it is here, or it is none.
---@return boolean malformed
local function take_packet(buffer)
  local length, factor = 0, 1
  for at = 1, 4 do
    local byte = buffer:peek_uint(1, at)
    if not byte then return nil, false end
    length = length + (byte & 127) * factor
    factor = factor * 128
    if byte < 128 then return buffer:take(1 + at + length), false end
  end
  return nil, true
end

--- What is to be done with a packet.
---@param bytes string
---@param direction "receive"|"send"
---@return mqtt.broker.Mischief?
function Wire:ask(bytes, direction)
  local server, on_packet = self.server, self.on_packet
  if not on_packet then return nil end
  local packet = codec.decode(cosocket.buffer(bytes), server.version)
  -- What is no packet goes where it is refused.
  if not packet then return nil end
  local ok, answer = pcall(on_packet, packet, direction, server.client_id, bytes)
  if ok then return answer end
  log.error(("on_packet failed, and the connection is closed: %s"):format(tostring(answer)))
  return "close"
end

--- What becomes of a packet: the bytes that go on, and after how many seconds.
---@param bytes string
---@param mischief mqtt.broker.Mischief?
---@return string bytes
---@return number delay
function Wire:alter(bytes, mischief)
  if mischief == "drop" then
    return "", 0
  elseif mischief == "duplicate" then
    return bytes .. bytes, 0
  elseif mischief == "close" then
    self.cut = true
    return "", 0
  elseif mischief == "close_after" then
    self.cut = true
  elseif type(mischief) == "table" then
    return mischief.replace or bytes, mischief.delay or 0
  end
  return bytes, 0
end

--- The deadline: the session's, or that of what is delayed.
---@private
function Wire:schedule()
  local due = self.server.deadline
  if self.held_until then due = math.min(due, self.held_until) end
  local delayed = self.delayed[self.first]
  if delayed then due = math.min(due, delayed.at) end
  self.deadline = due
end

-- Sending ---------------------------------------------------------------------

--- Bytes that have not left yet.
---@return integer
function Wire:backlog()
  return #self.output + #self.server.output + self.delayed_bytes
end

---@private
---@param now number
function Wire:release(now)
  local delayed = self.delayed
  while self.first <= self.last and delayed[self.first].at <= now do
    local bytes = delayed[self.first].bytes
    delayed[self.first] = nil
    self.first, self.delayed_bytes = self.first + 1, self.delayed_bytes - #bytes - PACKET_COST
    self.output:append(bytes)
  end
end

---@private
---@param bytes string
---@param now number
function Wire:send(bytes, now)
  local mischief = self:ask(bytes, "send")
  if mischief == "stall" then
    self.mute = true
    return
  end
  local delay
  bytes, delay = self:alter(bytes, mischief)
  local last = self.delayed[self.last]
  if delay == 0 and not last then
    self.output:append(bytes)
    return
  end
  if self.delayed_bytes + #bytes + PACKET_COST > DELAYED_MAX then
    self.mute = true
    return
  end
  self.last = self.last + 1
  self.delayed[self.last] = { at = math.max(now + delay, last and last.at or now), bytes = bytes }
  self.delayed_bytes = self.delayed_bytes + #bytes + PACKET_COST
end

--- Moves what the session has said to `output`.
---@param now number
function Wire:pump(now)
  local from = self.server.output
  self:release(now)
  if #from > 0 then
    if not self.on_packet and not self.mute and not self.cut and self.first > self.last then
      self.output:append(from)
    else
      while not self.mute and not self.cut do
        local bytes = take_packet(from)
        if not bytes then break end
        self:send(bytes, now)
      end
    end
    from:clear()
  end
  self:schedule()
end

-- Receiving -------------------------------------------------------------------

---@private
---@param until_ number
function Wire:stop_reading(until_)
  self.go_on = cosocket.event()
  if until_ < math.huge then self.held_until = until_ end
end

--- Lets one packet through to the session.
---@private
---@param input cosocket.Buffer
---@param now number
---@return boolean moved
function Wire:take(input, now)
  local bytes, malformed = take_packet(input)
  -- The session says what is wrong with it.
  if malformed then bytes = input:take() end
  if not bytes then return false end
  local mischief = self:ask(bytes, "receive")
  if mischief == "stall" then
    self:stop_reading(math.huge)
    return false
  end
  local delay
  bytes, delay = self:alter(bytes, mischief)
  if delay > 0 then
    self.held = bytes
    self:stop_reading(now + delay)
    return false
  end
  self.arrived:append(bytes)
  return true
end

---@private
---@param input cosocket.Buffer
---@param now number
---@return mqtt.Packet? event
---@return cosocket.Error? err
function Wire:read(input, now)
  local server, arrived = self.server, self.arrived
  if not self.on_packet and not self.go_on and #arrived == 0 then return server:receive(input, now) end
  while true do
    local event, err = server:receive(arrived, now)
    if event or err then return event, err end
    if self.go_on or self.cut or server.state == "connecting" or not self:take(input, now) then return nil end
  end
end

--- Takes packets off the front of `input` until one is an event; `wire.HOLD` is one, too.
---@param input cosocket.Buffer
---@param now number
---@return mqtt.Packet? event
---@return cosocket.Error? err
function Wire:receive(input, now)
  local event, err
  if not self.cut then event, err = self:read(input, now) end
  self:pump(now)
  if self.cut and not event then return nil, cosocket.error("closed", "mqtt.broker", "cut off on purpose") end
  if self.go_on and not event and not err then return HOLD end
  return event, err
end

--- The deadline has passed, of the session or of what is delayed.
---@param now number
---@return true? alive
---@return cosocket.Error? err
function Wire:expire(now)
  if self.held_until and now >= self.held_until then
    self.arrived:append(self.held)
    self.go_on:set()
    self.held, self.held_until, self.go_on = nil, nil, nil
  end
  local ok, err = self.server:expire(now)
  self:pump(now)
  return ok, err
end

--- The connection is ending: who waits for something that is delayed waits no more.
function Wire:close()
  if self.go_on then self.go_on:set() end
  self.go_on, self.held_until, self.held = nil, nil, nil
end

local wire = { HOLD = HOLD }

---@param server mqtt.ServerSession
---@param on_packet mqtt.broker.OnPacket?
---@param output_max integer Bytes that may be unread on the other side before that is not read, either.
---@return mqtt.broker.Wire
function wire.new(server, on_packet, output_max)
  return setmetatable({
    server = server,
    output_max = output_max,
    on_packet = on_packet,
    output = cosocket.buffer(),
    deadline = server.deadline,
    cut = false,
    arrived = cosocket.buffer(),
    delayed = {},
    first = 1,
    last = 0,
    delayed_bytes = 0,
    mute = false,
  }, Wire)
end

return wire
