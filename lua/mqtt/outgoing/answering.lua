--- What the answers to messages do to them: methods of `mqtt.Outgoing`.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local reason = require("mqtt.reason")

local encode_ack, take_ack = codec.encode_ack, codec.take_ack

--- Types of answers (2.1.2), and what they are called.
local PUBACK, PUBREC, PUBCOMP = 4, 5, 7
local ANSWERS = { [PUBACK] = "puback", [PUBREC] = "pubrec", [PUBCOMP] = "pubcomp" }
--- What answers that say only that all is well are to their tickets: their identifiers are free again.
local ACCEPTED = {
  [PUBACK] = { type = "puback", packet_id = 0, reason_code = 0 },
  [PUBCOMP] = { type = "pubcomp", packet_id = 0, reason_code = 0 },
}

---@class mqtt.Outgoing
local Outgoing = {}

---@param packet mqtt.Ack
---@return nil
---@return cosocket.Error err
local function unknown(packet)
  local message = ("%s for packet identifier %d, which no message of that kind has")
    :format(packet.type:upper(), packet.packet_id)
  return nil, cosocket.error("protocol", "mqtt", message, { code = reason.protocol_error })
end

--- An acknowledgement came: the next step of QoS 2, or the end. Answers the ticket that is done with it.
---@param packet mqtt.Ack PUBACK, PUBREC or PUBCOMP.
---@param now number
---@return mqtt.Ticket? ticket
---@return cosocket.Error? err
---@return boolean? wrote Whether something was said because of it.
function Outgoing:acknowledged(packet, now)
  local id = packet.packet_id
  local ticket, type = self.live[id], packet.type
  if type == "puback" then
    -- Requests have no quality of service.
    if not ticket or ticket.qos ~= 1 or ticket.state ~= "sent" then return unknown(packet) end
  elseif type == "pubrec" then
    if not ticket or ticket.type ~= "publish" then
      -- Nothing is known of it any more: the other side may forget it, too (3.6.2.1).
      local code = self.version == 5 and reason.packet_identifier_not_found or 0
      encode_ack(self.output, self.version, "pubrel", id, code)
      return nil, nil, true
    elseif ticket.qos ~= 2 then
      return unknown(packet)
    elseif packet.reason_code < 0x80 then
      -- [MQTT-4.3.3-4]. The other side owns the message now.
      if ticket.state == "sent" then
        ticket.state, ticket.payload = "released", ""
        if ticket.properties then ticket.properties = nil end
        if self.journal then self.journal:released(ticket.seq) end
      end
      encode_ack(self.output, self.version, "pubrel", id)
      return nil, nil, true
    elseif ticket.state ~= "sent" then
      return unknown(packet)
    end
  elseif not ticket or ticket.state ~= "released" then
    return unknown(packet)
  elseif packet.reason_code == reason.packet_identifier_not_found and ticket.uncounted then
    -- To a PUBREL that is sent again: the first one had arrived, and the PUBCOMP was lost. No error (3.7.2.1).
    packet.reason_code = 0
  end
  if not ticket.uncounted then self.in_flight = self.in_flight - 1 end
  if self.journal then
    self:settle(ticket, packet)
  else
    self.live[id], ticket.packet_id = nil, nil
    ticket:finish(packet)
  end
  local backlog = self.backlog
  if backlog.first > backlog.last then return ticket end
  self:advance(now)
  return ticket, nil, true
end

--- Takes the answers off the front of `input` that say only that all is well: mostly many come at once.
---@param input cosocket.Buffer
---@param now number
---@return boolean wrote Whether something was said because of them.
---@return cosocket.Error? err
function Outgoing:take_answers(input, now)
  local live, version, output, wrote = self.live, self.version, self.output, false
  local done = 0
  local ack, err = take_ack(input, version), nil
  while ack do
    local type, id = ack >> 16, ack & 0xFFFF
    local ticket = live[id]
    local state = ticket and ticket.state
    if type == PUBACK and state == "sent" and ticket.qos == 1 or type == PUBCOMP and state == "released" and not ticket.uncounted then
      done = done + 1
      live[id], ticket.packet_id = nil, nil
      ticket:finish(ACCEPTED[type])
    elseif type == PUBREC and state == "sent" and ticket.qos == 2 then
      -- [MQTT-4.3.3-4]. The other side owns the message now.
      ticket.state, ticket.payload = "released", ""
      if ticket.properties then ticket.properties = nil end
      encode_ack(output, version, "pubrel", id)
      wrote = true
    else
      local said
      _, err, said = self:acknowledged({ type = ANSWERS[type], packet_id = id, reason_code = 0 }, now)
      wrote = wrote or said or false
      if err then break end
    end
    ack = take_ack(input, version)
  end
  if done > 0 then
    self.in_flight = self.in_flight - done
    local backlog = self.backlog
    if backlog.first <= backlog.last then
      self:advance(now)
      wrote = true
    end
  end
  return wrote, err
end

return Outgoing
