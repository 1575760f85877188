--- test.mqtt_raw: a client of MQTT that says in packets what the test wants, joined to a broker.
---
---     local client = mqtt_raw.connect(broker, { client_id = "c", clean_start = true })
---     client:send({ type = "pingreq" })
---     client:expect("pingresp")

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local mqtt_peer = require("test.mqtt_peer")
local test = require("test")

--- Seconds (of the virtual clock) after which nothing more is expected.
local PATIENCE = 0.1

local mqtt_raw = {}

---@class test.mqtt_raw.Client
---@field stream cosocket.Stream
---@field input cosocket.Buffer
---@field version mqtt.codec.Version
---@field connack mqtt.Connack The broker's answer to CONNECT.
---@field err cosocket.Error? Why the stream has ended.
local Client = {}
Client.__index = Client

---@async
---@param ... table|string Packets, or bytes.
---@return true? ok
---@return cosocket.Error? err
function Client:send(...)
  local output = cosocket.buffer()
  for _, packet in ipairs({ ... }) do
    if type(packet) == "string" then
      output:append(packet)
    else
      assert(codec.encode(output, packet, self.version))
    end
  end
  return self.stream:write(output)
end

--- The next packet; `nil` when none comes for a while, or the stream has ended.
---@async
---@param seconds? number How long to wait. Default 0.1.
---@return table? packet
function Client:next(seconds)
  while true do
    local packet, err = codec.decode(self.input, self.version)
    if err then error(err, 0) end
    if packet then return packet end
    local count, why = cosocket.deadline(seconds or PATIENCE, function() return self.stream:fill(self.input) end)
    if not count then
      if why.kind ~= "timeout" then self.err = why end
      return nil
    end
  end
end

--- The next packet, which is of `type` and has `fields`.
---@async
---@param type string
---@param fields? table
---@return table packet
function Client:expect(type, fields)
  local packet = self:next()
  test.equal(packet and packet.type, type)
  ---@cast packet table
  for name, value in pairs(fields or {}) do test.equal(packet[name], value, ("%s of %s"):format(name, type)) end
  return packet
end

--- Everything that comes until the broker is silent.
---@async
---@return table[]
function Client:all()
  local list = {}
  for packet in function() return self:next() end do list[#list + 1] = packet end
  return list
end

--- Nothing comes.
---@async
function Client:silent()
  local packet = self:next()
  test.equal(packet and packet.type, nil)
end

--- The broker has closed the connection.
---@async
function Client:closed()
  self:silent()
  test.equal(self.err and self.err.kind, "closed")
end

--- Subscribes, and answers the reason codes.
---@async
---@param filter string
---@param options? table Those of the subscription, and `properties`.
---@return integer code
function Client:subscribe(filter, options)
  options = options or {}
  local subscription = { filter = filter }
  for name, value in pairs(options) do subscription[name] = value end
  subscription.properties = nil
  local packet = { type = "subscribe", packet_id = 60000, subscriptions = { subscription } }
  packet.properties = options.properties
  self:send(packet)
  return self:expect("suback").reason_codes[1]
end

--- Publishes, and for QoS 1 and 2 goes through all steps. Answers the first reason code.
---@async
---@param topic string
---@param payload string
---@param fields? table
---@return integer? code
function Client:publish(topic, payload, fields)
  local packet = { type = "publish", topic = topic, payload = payload }
  for name, value in pairs(fields or {}) do packet[name] = value end
  if not packet.qos or packet.qos == 0 then
    self:send(packet)
    return nil
  end
  packet.packet_id = packet.packet_id or 1
  self:send(packet)
  if packet.qos == 1 then return self:expect("puback", { packet_id = packet.packet_id }).reason_code end
  local code = self:expect("pubrec", { packet_id = packet.packet_id }).reason_code
  if code < 0x80 then
    self:send({ type = "pubrel", packet_id = packet.packet_id })
    self:expect("pubcomp", { packet_id = packet.packet_id, reason_code = 0 })
  end
  return code
end

--- Takes the next packet, which is a PUBLISH, and acknowledges it to the end.
---@async
---@param fields? table
---@return mqtt.Publish
function Client:take(fields)
  local message = self:expect("publish", fields)
  if message.qos == 1 then
    self:send({ type = "puback", packet_id = message.packet_id })
  elseif message.qos == 2 then
    self:send({ type = "pubrec", packet_id = message.packet_id })
    self:expect("pubrel", { packet_id = message.packet_id })
    self:send({ type = "pubcomp", packet_id = message.packet_id })
  end
  return message
end

--- Payloads of what comes until the broker is silent; everything is acknowledged.
---@async
---@return string[]
function Client:payloads()
  local list = {}
  while true do
    local packet = self:next()
    if not packet then return list end
    if packet.type == "publish" then
      list[#list + 1] = packet.payload
      if packet.qos == 1 then self:send({ type = "puback", packet_id = packet.packet_id }) end
      if packet.qos == 2 then self:send({ type = "pubrec", packet_id = packet.packet_id }) end
    elseif packet.type == "pubrel" then
      self:send({ type = "pubcomp", packet_id = packet.packet_id })
    end
  end
end

--- Breaks the connection, and lets the broker notice.
---@async
function Client:drop()
  self.stream:close()
  cosocket.sleep(0.001)
end

--- Says goodbye.
---@async
---@param fields? table
function Client:disconnect(fields)
  local packet = { type = "disconnect" }
  for name, value in pairs(fields or {}) do packet[name] = value end
  self:send(packet)
  self:closed()
  self.stream:close()
end

--- A client that has sent CONNECT.
---@async
---@param broker mqtt.Broker
---@param connect? table
---@param version? mqtt.codec.Version Default 5.
---@return test.mqtt_raw.Client
function mqtt_raw.open(broker, connect, version)
  local near, far = cosocket.pair()
  broker:serve(far --[[@as cosocket.Stream]])
  local self = setmetatable({ stream = near, input = cosocket.buffer(), version = version or 5 }, Client)
  local packet = { type = "connect" }
  for name, value in pairs(connect or { clean_start = true }) do packet[name] = value end
  self.stream:write(mqtt_peer.wire(self.version, packet))
  return self
end

--- A client that was answered; `connack` says how.
---@async
---@param broker mqtt.Broker
---@param connect? table
---@param version? mqtt.codec.Version Default 5.
---@return test.mqtt_raw.Client
function mqtt_raw.connect(broker, connect, version)
  local self = mqtt_raw.open(broker, connect, version)
  self.connack = self:expect("connack")
  return self
end

return mqtt_raw
