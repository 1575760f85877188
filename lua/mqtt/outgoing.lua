--- What one side of an MQTT connection has sent and is not yet answered: packet identifiers, and the window of
--- PUBLISH packets that the other side's Receive Maximum allows. Clients and servers use the same.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")

local encode_publish = codec.encode_publish

--- Packet identifiers go from 1 to this (2.2.1).
local ID_MAX = 65535

--- Something sent, or waiting to be sent, that will be answered.
---@class mqtt.Ticket
---@field type "publish"|"subscribe"|"unsubscribe"
---@field packet_id? integer Once it has been sent.
---@field topic? string
---@field payload? string
---@field qos? mqtt.Qos
---@field retain? boolean
---@field properties? mqtt.Properties
---@field count? integer How many filters will be answered.
---@field answer? mqtt.Ack|mqtt.Acks The packet that answered.
---@field err? cosocket.Error Why none ever will.
---@field event? cosocket.Event Set when it is answered, by whoever waits.

---@class mqtt.Outgoing
---@field output cosocket.Buffer
---@field version mqtt.codec.Version
---@field packet_max integer? What the other side takes at most.
---@field receive_maximum integer
---@field in_flight integer PUBLISH packets sent and not acknowledged.
---@field live table<integer, mqtt.Ticket> By packet identifier.
---@field private last_id integer
---@field private scratch cosocket.Buffer?
---@field private first integer
---@field private last integer
---@field private waiting table<integer, mqtt.Ticket>
local Outgoing = {}
Outgoing.__index = Outgoing

--- A packet identifier that nothing live has, now that of `ticket`; `nil` when all are taken.
---@param ticket mqtt.Ticket
---@return integer? packet_id
function Outgoing:claim(ticket)
  local id = self.last_id
  for _ = 1, ID_MAX do
    id = id < ID_MAX and id + 1 or 1
    -- [MQTT-2.2.1-3], [MQTT-2.2.1-4]: never one that is in use.
    if not self.live[id] then
      self.last_id, self.live[id], ticket.packet_id = id, ticket, id
      return id
    end
  end
end

--- Gives back the identifier of something that was not sent after all.
---@param ticket mqtt.Ticket
function Outgoing:release(ticket)
  self.live[ticket.packet_id] = nil
  ticket.packet_id = nil
end

---@param ticket mqtt.Ticket
---@return true? ok
---@return cosocket.Error? err
local function send(outgoing, ticket)
  local id = outgoing:claim(ticket)
  if not id then return nil, cosocket.error("limit", "mqtt.publish", "all 65535 packet identifiers are in use") end
  local ok, err = encode_publish(
    outgoing.output, outgoing.version, ticket.topic, ticket.payload, ticket.qos, ticket.retain, false, id,
    ticket.properties, outgoing.packet_max
  )
  if not ok then
    outgoing:release(ticket)
    return nil, err
  end
  outgoing.in_flight = outgoing.in_flight + 1
  return true
end

--- Sends a PUBLISH of QoS 1, or lets it wait while the window is full [MQTT-3.3.4-7], [MQTT-3.3.4-9].
---@param ticket mqtt.Ticket
---@return true? ok
---@return cosocket.Error? err
function Outgoing:publish(ticket)
  if self.in_flight < self.receive_maximum and self.first > self.last then return send(self, ticket) end
  -- What cannot be sent later is refused now.
  local scratch = self.scratch or cosocket.buffer()
  self.scratch = scratch
  local ok, err = encode_publish(
    scratch, self.version, ticket.topic, ticket.payload, ticket.qos, ticket.retain, false, ID_MAX,
    ticket.properties, self.packet_max
  )
  scratch:clear()
  if not ok then return nil, err end
  self.last = self.last + 1
  self.waiting[self.last] = ticket
  return true
end

--- How many wait for room in the window.
---@return integer
function Outgoing:waiting_count()
  return self.last - self.first + 1
end

--- A ticket has been answered: its identifier is free again, and what waited may be sent.
---@param ticket mqtt.Ticket
function Outgoing:settle(ticket)
  self.live[ticket.packet_id] = nil
  if ticket.type == "publish" then
    self.in_flight = self.in_flight - 1
    self:advance()
  end
end

--- Sends what waits, as far as the window has room.
---@private
function Outgoing:advance()
  while self.first <= self.last and self.in_flight < self.receive_maximum do
    local ticket = self.waiting[self.first]
    -- It was looked at when it came, so that only a want of identifiers can stop it; one has just come free.
    if not send(self, ticket) then return end
    self.waiting[self.first] = nil
    self.first = self.first + 1
  end
  if self.first > self.last then self.first, self.last = 1, 0 end
end

--- Forgets everything, and answers what was sent or waited, in the order it came.
---@return mqtt.Ticket[]
function Outgoing:abandon()
  local tickets, ids = {}, {}
  for id in pairs(self.live) do ids[#ids + 1] = id end
  -- Identifiers go round: those behind the last one are the oldest.
  table.sort(ids, function(a, b)
    local a_old, b_old = a > self.last_id, b > self.last_id
    if a_old ~= b_old then return a_old end
    return a < b
  end)
  for i, id in ipairs(ids) do tickets[i] = self.live[id] end
  table.move(self.waiting, self.first, self.last, #tickets + 1, tickets)
  self.live, self.waiting, self.first, self.last, self.in_flight = {}, {}, 1, 0, 0
  return tickets
end

local outgoing = {}

---@param output cosocket.Buffer Where packets are put.
---@return mqtt.Outgoing
function outgoing.new(output)
  return setmetatable({
    output = output,
    version = 5,
    receive_maximum = ID_MAX,
    in_flight = 0,
    live = {},
    last_id = 0,
    waiting = {},
    first = 1,
    last = 0,
  }, Outgoing)
end

return outgoing
