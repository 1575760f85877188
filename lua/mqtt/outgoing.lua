--- What one side of an MQTT session sends and is not yet answered: packet identifiers, the window of PUBLISH packets
--- that the other side's Receive Maximum allows, the steps of QoS 1 and 2, and what waits. It outlives connections.
--- Clients and servers use the same.

local aliases = require("mqtt.alias")
local answering = require("mqtt.outgoing.answering")
local backlogs = require("mqtt.backlog")
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local reason = require("mqtt.reason")
local tickets = require("mqtt.ticket")

local encode_ack, encode_publish = codec.encode_ack, codec.encode_publish
local new_ticket = tickets.new

--- Packet identifiers go from 1 to this (2.2.1).
local ID_MAX = 65535
--- Where changes are noted that must not be forgotten; `mqtt.store` makes one.
---@class mqtt.Journal
---@field last_seq integer
---@field add fun(self, entry: table)
---@field sent fun(self, seq: integer, packet_id: integer)
---@field unsent fun(self, seq: integer)
---@field released fun(self, seq: integer)
---@field remove fun(self, seq: integer)
---@field received fun(self, packet_id: integer)
---@field forget fun(self, packet_id: integer)
---@field forget_received fun(self)

---@class mqtt.Outgoing
---@field output cosocket.Buffer
---@field version mqtt.codec.Version
---@field open boolean There is a connection to send on.
---@field packet_max integer? What the other side takes at most.
---@field receive_maximum integer
---@field maximum_qos mqtt.Qos What the other side takes.
---@field retain_available boolean
---@field alias_maximum integer? Topic aliases that may be used on this connection; `nil` is none.
---@field private aliases mqtt.AliasSender?
---@field in_flight integer PUBLISH packets of QoS 1 and 2 sent and not acknowledged to the end.
---@field live table<integer, mqtt.Ticket> By packet identifier.
---@field backlog mqtt.Backlog What waits to be sent.
---@field journal mqtt.Journal?
---@field private plain boolean Nothing is special about this connection: no journal, aliases, or limits but the window.
---@field wall_offset number What makes of our time seconds since 1970, for the journal.
---@field private last_id integer
---@field private last_seq integer
---@field private scratch cosocket.Buffer?
local Outgoing = {
  -- What most never change: an idle client is small.
  version = 5,
  open = false,
  plain = false,
  receive_maximum = ID_MAX,
  maximum_qos = 2,
  retain_available = true,
  in_flight = 0,
  wall_offset = 0,
  last_id = 0,
  last_seq = 0,
}
Outgoing.__index = Outgoing

for name, method in pairs(answering) do Outgoing[name] = method end

-- Packet identifiers ----------------------------------------------------------

--- A packet identifier that nothing live has, now that of `ticket`; `nil` when all are taken.
---@param ticket mqtt.Ticket
---@return integer? packet_id
function Outgoing:claim(ticket)
  local id, live = self.last_id, self.live
  for _ = 1, ID_MAX do
    id = id < ID_MAX and id + 1 or 1
    -- [MQTT-2.2.1-3], [MQTT-2.2.1-4]: never one that is in use.
    if not live[id] then
      self.last_id, live[id], ticket.packet_id = id, ticket, id
      return id
    end
  end
end

--- Gives an identifier back.
---@param ticket mqtt.Ticket
function Outgoing:release(ticket)
  self.live[ticket.packet_id] = nil
  ticket.packet_id = nil
end

-- Sending ---------------------------------------------------------------------

--- The properties of a message that has waited: less is left of its time [MQTT-3.3.2-6]. 3.1.1 has none.
---@param ticket mqtt.Ticket
---@param version mqtt.codec.Version
---@param now number
---@return mqtt.Properties?
local function aged(ticket, version, now)
  local properties, expires_at = ticket.properties, ticket.expires_at
  if version ~= 5 then return nil end
  if not expires_at or not properties then return properties end
  local left = math.max(1, math.ceil(expires_at - now))
  if properties.message_expiry_interval == left then return properties end
  local copy = {}
  for name, value in next, properties do copy[name] = value end
  copy.message_expiry_interval = left
  return copy
end

--- Appends a PUBLISH, under an alias where that is shorter.
---@param topic string
---@param payload string?
---@param qos mqtt.Qos
---@param retain boolean?
---@param dup boolean
---@param id integer?
---@param properties mqtt.Properties?
---@return true? ok
---@return cosocket.Error? err
function Outgoing:write(topic, payload, qos, retain, dup, id, properties)
  local senders = self.aliases
  if not senders and not self.alias_maximum then
    return encode_publish(
      self.output, self.version, topic, payload, qos, retain, dup, id, properties, self.packet_max
    )
  end
  if not senders then
    senders = aliases.sender(self.alias_maximum)
    self.aliases = senders
  end
  local alias, known = senders:find(topic)
  if not alias then
    return encode_publish(self.output, 5, topic, payload, qos, retain, dup, id, properties, self.packet_max)
  end
  local with = { topic_alias = alias }
  if properties then
    for name, value in next, properties do with[name] = value end
  end
  local text = known and "" or topic
  local ok, err = encode_publish(self.output, 5, text, payload, qos, retain, dup, id, with, self.packet_max)
  if ok and not known then senders:set(topic, alias) end
  return ok, err
end

---@param message string
---@param code integer
local function refused(message, code)
  return cosocket.error("refused", "mqtt.publish", message, { code = code })
end

--- Why the other side would not take a message, from what it said when we connected.
---@param qos mqtt.Qos
---@param retain boolean?
---@return cosocket.Error? err
function Outgoing:objection(qos, retain)
  if retain and not self.retain_available then
    -- [MQTT-3.2.2-14]
    return refused("the server does not retain messages", reason.retain_not_supported)
  elseif qos > self.maximum_qos then
    -- [MQTT-3.2.2-11]
    return refused(("the server takes at most QoS %d"):format(self.maximum_qos), reason.qos_not_supported)
  end
end

--- Notes a message that is not forgotten until it is acknowledged.
---@param outgoing mqtt.Outgoing
---@param ticket mqtt.Ticket
local function record(outgoing, ticket)
  outgoing.journal:add({
    seq = ticket.seq,
    topic = ticket.topic,
    payload = ticket.payload or "",
    qos = ticket.qos,
    retain = ticket.retain or false,
    properties = ticket.properties,
    expires_at = ticket.expires_at and ticket.expires_at + outgoing.wall_offset,
  })
  if ticket.packet_id then outgoing.journal:sent(ticket.seq, ticket.packet_id) end
end

--- Sends a message of QoS 1 or 2 for the first time.
---@param ticket mqtt.Ticket
---@param properties mqtt.Properties?
---@return true? ok
---@return cosocket.Error? err
local function send(outgoing, ticket, properties)
  -- Mostly the next identifier is free, and there are no aliases: that is done here, without a call for each step.
  local live, id = outgoing.live, outgoing.last_id + 1
  if id > ID_MAX then id = 1 end
  if live[id] then
    id = outgoing:claim(ticket)
    if not id then return nil, cosocket.error("limit", "mqtt.publish", "all 65535 packet identifiers are in use") end
  else
    outgoing.last_id, live[id], ticket.packet_id = id, ticket, id
  end
  local ok, err
  if outgoing.alias_maximum or outgoing.aliases then
    ok, err = outgoing:write(ticket.topic, ticket.payload, ticket.qos, ticket.retain, false, id, properties)
  else
    ok, err = encode_publish(
      outgoing.output, outgoing.version, ticket.topic, ticket.payload, ticket.qos, ticket.retain, false, id,
      properties, outgoing.packet_max
    )
  end
  if not ok then
    outgoing:release(ticket)
    return nil, err
  end
  ticket.state = "sent"
  outgoing.in_flight = outgoing.in_flight + 1
  return true
end

--- Sends a message of QoS 1 or 2 about which nothing is special, when it can leave at once: what `publish` does, in
--- fewer steps.
---@param topic string
---@param payload string?
---@param qos 1|2
---@return mqtt.Ticket? ticket `nil`: it takes the long way, or is refused there.
function Outgoing:send_plain(topic, payload, qos)
  local backlog, live, id, in_flight = self.backlog, self.live, self.last_id + 1, self.in_flight
  if
    id > ID_MAX or live[id] or in_flight >= self.receive_maximum or not self.open or backlog.first <= backlog.last
    or not encode_publish(self.output, self.version, topic, payload, qos, false, false, id)
  then
    return nil
  end
  local seq = self.last_seq + 1
  -- Eight fields, so that the table has room for what will come.
  local ticket = new_ticket({
    topic = topic,
    payload = payload,
    qos = qos,
    state = "sent",
    seq = seq,
    packet_id = id,
    client = nil,
    answer = nil,
  })
  self.last_id, self.last_seq, self.in_flight, live[id] = id, seq, in_flight + 1, ticket
  return ticket
end

---@return integer
function Outgoing:next_seq()
  local seq = self.last_seq + 1
  self.last_seq = seq
  return seq
end

--- Sends a message, or lets it wait while there is no connection or the window is full [MQTT-3.3.4-7],
--- [MQTT-3.3.4-9].
---@param ticket mqtt.Ticket
---@param now number
---@return true? ok
---@return cosocket.Error? err
function Outgoing:publish(ticket, now)
  local qos = ticket.qos
  if self.open then
    if ticket.retain or qos > self.maximum_qos then
      local err = self:objection(qos, ticket.retain)
      if err then return nil, err end
    end
    local backlog = self.backlog
    if qos > 0 and self.in_flight < self.receive_maximum and backlog.first > backlog.last then
      local ok, err = send(self, ticket, ticket.properties)
      if not ok then return nil, err end
      local seq = self.last_seq + 1
      self.last_seq, ticket.seq = seq, seq
      if self.journal then record(self, ticket) end
      return true
    end
  end
  return self:enqueue(ticket)
end

-- Waiting ---------------------------------------------------------------------

---@private
---@param ticket mqtt.Ticket
---@return true? ok
---@return cosocket.Error? err
function Outgoing:enqueue(ticket)
  -- What cannot be sent later is refused now.
  local scratch = self.scratch or cosocket.buffer()
  self.scratch = scratch
  local qos = ticket.qos
  local ok, err = encode_publish(
    scratch, self.version, ticket.topic, ticket.payload, qos, ticket.retain, false, qos > 0 and ID_MAX or nil,
    ticket.properties, self.packet_max
  )
  scratch:clear()
  if not ok then return nil, err end
  ok, err = self.backlog:admit(ticket, function(old, why) self:settle(old, nil, why) end)
  if not ok then return nil, err end
  ticket.seq = self:next_seq()
  if self.journal and qos > 0 then record(self, ticket) end
  return true
end

--- How many wait to be sent.
---@return integer
function Outgoing:waiting_count()
  return self.backlog:count()
end

--- Whether nothing waits to be sent or to be answered.
---@return boolean
function Outgoing:is_idle()
  return self.backlog:is_empty() and next(self.live) == nil
end

--- Sends what waits, as far as the window has room.
---@param now number
function Outgoing:advance(now)
  local backlog = self.backlog
  while self.open and not backlog:is_empty() do
    local ticket = backlog:peek() --[[@as mqtt.Ticket]]
    local qos = ticket.qos
    if qos > 0 and self.in_flight >= self.receive_maximum then return end
    local again = ticket.packet_id ~= nil
    local ok, err
    if not again and ticket.expires_at and now >= ticket.expires_at then
      err = cosocket.error("timeout", "mqtt.publish", "the message expired before it could be sent")
    else
      err = self:objection(qos, ticket.retain)
      if not err then
        local properties = aged(ticket, self.version, now)
        if again then
          -- [MQTT-3.3.1-1]
          ok, err = self:write(ticket.topic, ticket.payload, qos, ticket.retain, true, ticket.packet_id, properties)
          if ok then
            ticket.state = "sent"
            self.in_flight = self.in_flight + 1
          end
        elseif qos > 0 then
          ok, err = send(self, ticket, properties)
          if ok and self.journal then self.journal:sent(ticket.seq, ticket.packet_id) end
          -- All identifiers are taken: one will come free.
          if not ok and err.kind == "limit" and not ticket.packet_id and not self:has_free_id() then return end
        else
          ok, err = self:write(ticket.topic, ticket.payload, 0, ticket.retain, false, nil, properties)
        end
      end
    end
    backlog:shift()
    if not ok then
      self:settle(ticket, nil, err)
    elseif qos == 0 then
      self:settle(ticket, { type = "puback", packet_id = 0, reason_code = 0 })
    end
  end
end

---@private
---@return boolean
function Outgoing:has_free_id()
  for id = 1, ID_MAX do
    if not self.live[id] then return true end
  end
  return false
end

-- Answers ---------------------------------------------------------------------

--- A ticket is done: its identifier is free again.
---@param ticket mqtt.Ticket
---@param answer mqtt.Ack|mqtt.Acks|nil
---@param err? cosocket.Error
function Outgoing:settle(ticket, answer, err)
  if ticket.packet_id then self:release(ticket) end
  if self.journal and ticket.type == "publish" and ticket.qos > 0 then self.journal:remove(ticket.seq) end
  ticket:finish(answer, err)
end

--- A message is not sent after all, because it could not be made safe.
---@param ticket mqtt.Ticket
---@param err cosocket.Error
function Outgoing:withdraw(ticket, err)
  if ticket:is_done() then return end
  if ticket.state == "waiting" then
    self.backlog:take_out(function(one) return one == ticket end)
  else
    self.in_flight = self.in_flight - 1
  end
  self:settle(ticket, nil, err)
end

-- Connections -----------------------------------------------------------------

--- There is a connection, about which all is known.
---@private
function Outgoing:begin()
  self.open = true
  self.plain = not self.journal and not self.alias_maximum and not self.packet_max and self.maximum_qos == 2
end

--- Live tickets in the order in which they were sent.
---@return mqtt.Ticket[]
local function in_order(live)
  local tickets = {}
  for _, ticket in pairs(live) do tickets[#tickets + 1] = ticket end
  table.sort(tickets, function(a, b) return a.seq < b.seq end)
  return tickets
end

--- Sends again what the other side has not acknowledged, with the same identifiers and in the same order, and goes on
--- with what waits [MQTT-4.4.0-1], [MQTT-4.6.0-1].
---@param now number
function Outgoing:resume(now)
  self:begin()
  local again = {}
  for _, ticket in ipairs(in_order(self.live)) do
    if ticket.state == "released" then
      -- It takes no room: the window is that of this connection, on which its PUBLISH never was (4.9).
      ticket.uncounted = true
      encode_ack(self.output, self.version, "pubrel", ticket.packet_id)
    elseif ticket.state == "sent" then
      again[#again + 1] = ticket
    end
  end
  self.backlog:put_back(again)
  self:advance(now)
end

--- The other side knows nothing of what was sent before. What it had not taken over is sent anew.
---@param now number
function Outgoing:restart(now)
  self:begin()
  local again = {}
  for _, ticket in ipairs(in_order(self.live)) do
    if ticket.state == "released" then
      self:settle(ticket, { type = "pubcomp", packet_id = ticket.packet_id, reason_code = 0 })
    elseif ticket.state == "sent" then
      self:forget_sending(ticket)
      again[#again + 1] = ticket
    end
  end
  -- A resent message that still waits for room may have kept the identifier of the old session.
  for ticket in self.backlog:each() do
    if ticket.packet_id then self:forget_sending(ticket) end
  end
  self.backlog:put_back(again)
  self:advance(now)
end

--- A message is as if it had never been sent.
---@private
---@param ticket mqtt.Ticket
function Outgoing:forget_sending(ticket)
  self:release(ticket)
  if self.journal then self.journal:unsent(ticket.seq) end
end

--- The connection is gone. Answers the requests (SUBSCRIBE, UNSUBSCRIBE) that no answer will come to, in their order;
--- messages are kept.
---@return mqtt.Ticket[]
function Outgoing:disconnected()
  self.open, self.aliases, self.alias_maximum = false, nil, nil
  if self.in_flight > 0 then self.in_flight = 0 end
  local requests = {}
  for _, ticket in ipairs(in_order(self.live)) do
    if ticket.type ~= "publish" then
      self:release(ticket)
      requests[#requests + 1] = ticket
    end
  end
  return requests
end

--- Takes over what the journal knew.
---@param entries table[]
---@param make fun(fields: table): mqtt.Ticket
function Outgoing:restore(entries, make)
  for _, entry in ipairs(entries) do
    local ticket = make({
      type = "publish",
      state = entry.state,
      seq = entry.seq,
      packet_id = entry.packet_id,
      topic = entry.topic,
      payload = entry.payload,
      qos = entry.qos,
      retain = entry.retain,
      properties = entry.properties,
      expires_at = entry.expires_at and entry.expires_at - self.wall_offset,
    })
    if entry.packet_id then self.live[entry.packet_id] = ticket end
    if entry.state == "waiting" then self.backlog:push(ticket) end
    self.last_seq = math.max(self.last_seq, entry.seq)
    self.last_id = math.max(self.last_id, entry.packet_id or 0)
  end
end

--- Forgets everything, and answers what was sent or waited, in the order it came.
---@return mqtt.Ticket[]
function Outgoing:abandon()
  local tickets = in_order(self.live)
  for ticket in self.backlog:each() do
    if not ticket.packet_id then tickets[#tickets + 1] = ticket end
  end
  self.backlog:clear()
  self.live, self.in_flight, self.open = {}, 0, false
  return tickets
end

local outgoing = {}

---@param output cosocket.Buffer Where packets are put.
---@return mqtt.Outgoing
function outgoing.new(output)
  return setmetatable({ output = output, live = {}, backlog = backlogs.new() }, Outgoing)
end

return outgoing
