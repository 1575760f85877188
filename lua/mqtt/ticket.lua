--- Something that will be answered: a message on its way, a SUBSCRIBE, an UNSUBSCRIBE. `publish_nowait` hands
--- tickets to scripts.

local cosocket = require("cosocket")
local reason = require("mqtt.reason")

---@class mqtt.Ticket
---@field type "publish"|"subscribe"|"unsubscribe"
---@field state? "waiting"|"sent"|"released" Of a message: not sent yet; sent; PUBREL sent (QoS 2).
---@field packet_id? integer Once it has been sent.
---@field seq? integer Its place in the order of messages.
---@field topic? string
---@field payload? string
---@field qos? mqtt.Qos
---@field retain? boolean
---@field properties? mqtt.Properties
---@field expires_at? number When nobody needs it any more, on the scale of `cosocket.now()`.
---@field packet? table What was asked, to ask again on another connection.
---@field answer? mqtt.Ack|mqtt.Acks The packet that answered.
---@field err? cosocket.Error Why none ever will.
---@field private event? cosocket.Event Set when it is answered, for who waits.
---@field package client? mqtt.Client Who knows how to wait, so that reading goes on meanwhile.
-- Most tickets are messages that are not retained: what is so is not said in each, which then needs half the memory.
local Ticket = { type = "publish", retain = false }
Ticket.__index = Ticket
Ticket.__name = "mqtt.Ticket"

--- Whether the answer is there, or will never come.
---@return boolean
function Ticket:is_done()
  return self.answer ~= nil or self.err ~= nil
end

--- Waits for the server's answer, through as many connections as it takes. A deadline ends the wait and not the
--- message.
---@async
---@return integer? reason_code 0, or 0x10 when the server knows that nobody has subscribed.
---@return cosocket.Error? err `refused` with `code`, `limit`, `timeout` when it expired unsent, `closed`
function Ticket:wait()
  local answer, err = self.answer, nil
  if not answer then
    answer, err = self:await()
    if not answer then return nil, err end
  end
  local code = answer.reason_code
  if code < 0x80 then return code end
  return nil, self:refusal("mqtt.publish", "the message", code)
end

--- Waits for the packet that answers.
---@async
---@package
---@return mqtt.Ack|mqtt.Acks|nil answer
---@return cosocket.Error? err
function Ticket:await()
  if not self.answer and not self.err then
    local event = self.event or cosocket.event()
    self.event = event
    local client = self.client
    local ok, err
    if client then
      ok, err = client:hold(event.wait, event)
    else
      ok, err = event:wait()
    end
    if not ok then return nil, err end
  end
  return self.answer, self.err
end

--- What the server said no with, as an error.
---@package
---@param op string
---@param what string
---@param code integer
---@param fields? table
---@return cosocket.Error
function Ticket:refusal(op, what, code, fields)
  local properties = self.answer and self.answer.properties
  fields = fields or {}
  fields.code, fields.reason = code, properties and properties.reason_string
  local message = ("the server refused %s: %s"):format(what, reason.words(code, nil, properties))
  return cosocket.error("refused", op, message, fields)
end

--- The answer is here, or will never come.
---@package
---@param answer mqtt.Ack|mqtt.Acks|nil
---@param err? cosocket.Error
function Ticket:finish(answer, err)
  self.answer = answer
  if err then self.err = err end
  -- Nobody needs these any more, and the ticket may be kept for long.
  self.payload = nil
  if self.properties then self.properties = nil end
  if self.packet then self.packet = nil end
  local event = self.event
  if event then event:set() end
end

local ticket = {}

--- Makes a ticket of the fields in `fields`; a message unless they say otherwise.
---@param fields table
---@return mqtt.Ticket
function ticket.new(fields)
  return setmetatable(fields, Ticket)
end

return ticket
