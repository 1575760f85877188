--- Publishing, as a client does it: methods of `mqtt.Client`.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local publication = require("mqtt.publication")
local tickets = require("mqtt.ticket")

local now = cosocket.now

---@class mqtt.Client
local Client = {}

---@class mqtt.PublishOptions
---@field qos? mqtt.Qos Default 0.
---@field retain? boolean Default `false`.
---@field expiry? number Seconds after which nobody needs the message any more; MQTT 5, as all below.
---@field content_type? string
---@field response_topic? string
---@field correlation? string
---@field utf8? boolean The payload is text.
---@field user? [string, string][]|table<string, string> User properties.

--- Gives the session a message. Answers `true` when it is sent and forgotten (QoS 0).
---@param self mqtt.Client
---@param op string
---@param topic string
---@param payload string?
---@param options mqtt.PublishOptions?
---@return true|mqtt.Ticket|nil sent
---@return mqtt.Gate|cosocket.Error|nil gate Or why it is not sent.
local function give(self, op, topic, payload, options)
  if not self.session then cosocket.check_self(self, "client", op, 3) end
  local qos, retain, properties, expiry = 0, false, nil, nil
  if type(topic) ~= "string" then error(("%s: the topic must be a string, not a %s"):format(op, type(topic)), 3) end
  if payload ~= nil and type(payload) ~= "string" then
    error(("%s: the payload must be a string, not a %s"):format(op, type(payload)), 3)
  end
  if options then
    qos, retain, properties = publication.check(op, options, 4)
    expiry = options.expiry
  end
  if self.err or self.goodbye then
    return nil, self.err or cosocket.error("closed", "mqtt.publish", "this client is closed")
  end
  local sent, err = self.session:publish(topic, payload, qos, retain, properties, now(), expiry)
  if not sent then
    ---@cast err cosocket.Error
    if err.kind == "protocol" and not codec.valid_topic(topic) then
      error(("%s: %q is not a topic to publish to"):format(op, topic), 3)
    end
    return nil, err
  end
  if sent == true or qos == 0 then return sent end
  local gate = self.gate
  if gate then gate:note(sent) end
  return sent, gate
end

--- Waits while more is about to leave than should.
---@private
---@async
---@return true? ok
---@return cosocket.Error? err
function Client:wait_for_room()
  while self.congested and self.stream do
    local stream = self.stream
    local ok, err = self:hold(stream.flush, stream)
    if not ok and self.stream == stream then
      -- The owner hears of it too; what is queued goes out on the next connection.
      if self.err or not self.reconnects then return nil, self.err or err end
      break
    end
    self.congested = false
    self:flush()
  end
  self.congested = false
  return true
end

--- Publishes. Returns when the server has acknowledged the message (QoS 1 and 2), however many connections that takes,
--- or when it is on its way (QoS 0). Without a connection messages wait, as far as `queue_max` allows. A deadline ends
--- the wait and not the message.
---@async
---@param topic string
---@param payload? string
---@param options? mqtt.PublishOptions
---@return integer? reason_code 0, or 0x10 when the server knows that nobody has subscribed.
---@return cosocket.Error? err `closed`, `refused` with `code`, `limit`, `protocol`, `timeout` when it expired unsent, `io` when it could not be stored
function Client:publish(topic, payload, options)
  if self.congested then
    local ok, err = self:wait_for_room()
    if not ok then return nil, err end
  end
  local sent, err = give(self, "publish", topic, payload, options)
  if sent == true then
    self:flush()
    return 0
  elseif not sent then
    return nil, err
  end
  if sent.qos == 0 then
    -- It waits for a connection, and nobody waits for it.
    self:flush()
    return 0
  end
  self:flush()
  sent.client = self
  return sent:wait()
end

--- Publishes without waiting for the server. The ticket tells later how it went: `ticket:wait()`, `ticket:is_done()`.
--- With a store, a message of QoS 1 or 2 is on disk when this returns: it will be delivered, whatever happens to the
--- process.
---@async
---@param topic string
---@param payload? string
---@param options? mqtt.PublishOptions
---@return mqtt.Ticket? ticket
---@return cosocket.Error? err `closed`, `refused` with `code`, `limit`, `protocol`, `io` when it could not be stored
function Client:publish_nowait(topic, payload, options)
  if self.congested then
    local ok, err = self:wait_for_room()
    if not ok then return nil, err end
  end
  local sent, gate = give(self, "publish_nowait", topic, payload, options)
  if not sent then return nil, gate --[[@as cosocket.Error]] end
  self:flush()
  if sent == true then
    sent = tickets.new({ type = "publish", qos = 0, answer = { type = "puback", packet_id = 0, reason_code = 0 } })
  elseif gate then
    ---@cast gate mqtt.Gate
    local ok, err = gate:wait_stored(sent)
    if not ok then return nil, err end
  end
  sent.client = self
  return sent
end

return Client
