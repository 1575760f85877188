--- test.mqtt_peer: MQTT peers for tests. A server that says in packets what the test wants, and a broker that
--- listens nowhere.
---
---     local client, err, server, task = mqtt_peer.scripted({ keep_alive = 10 }, function(server)
---       local packet = server:expect("publish")
---       server:send({ type = "puback", packet_id = packet.packet_id })
---     end)

local broker = require("mqtt.broker")
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local mqtt = require("mqtt")
local test = require("test")

local mqtt_peer = {}

--- The bytes of packets.
---@param version mqtt.codec.Version
---@param ... table
---@return string
function mqtt_peer.wire(version, ...)
  local buffer = cosocket.buffer()
  for _, packet in ipairs({ ... }) do assert(codec.encode(buffer, packet, version)) end
  return buffer:take()
end

--- The packets in a buffer, which is empty then.
---@param buffer cosocket.Buffer
---@param version mqtt.codec.Version?
---@return mqtt.Packet[]
function mqtt_peer.packets(buffer, version)
  local list = {}
  while #buffer > 0 do list[#list + 1] = assert(codec.decode(buffer, version)) end
  return list
end

--- A server at the other end of a stream. It reads packet by packet, and speaks the version of the CONNECT it read.
---@class test.mqtt_peer.Server
---@field stream cosocket.Stream
---@field input cosocket.Buffer
---@field version mqtt.codec.Version?
---@field connect mqtt.Connect?
---@field pings integer PINGREQ packets, which are answered and not shown.
local Server = {}
Server.__index = Server

---@param stream cosocket.Stream
---@return test.mqtt_peer.Server
function mqtt_peer.server(stream)
  return setmetatable({ stream = stream, input = cosocket.buffer(), pings = 0 }, Server)
end

--- The next packet but for pings; `nil` at the end of the stream.
---@async
---@return table? packet
function Server:next()
  while true do
    local packet, err = codec.decode(self.input, self.version)
    if err then error(err, 0) end
    if packet and packet.type == "connect" then self.version, self.connect = packet.protocol_version, packet end
    if packet and packet.type == "pingreq" then
      self.pings = self.pings + 1
      self:send({ type = "pingresp" })
    elseif packet then
      return packet
    elseif not self.stream:fill(self.input) then
      return nil
    end
  end
end

--- The next packet, which is of `type`.
---@async
---@param type string
---@return table packet
function Server:expect(type)
  local packet = self:next()
  test.equal(packet and packet.type, type)
  return packet --[[@as table]]
end

--- Reads and forgets everything to the end of the stream.
---@async
function Server:drain()
  repeat until not self:next()
end

---@async
---@param ... table Packets.
---@return true? ok
---@return cosocket.Error? err
function Server:send(...)
  return self.stream:write(mqtt_peer.wire(self.version, ...))
end

--- A client (of MQTT 5, unless `options` say otherwise), and a server that accepts it with `connack` and then runs
--- `script(server)`.
---@async
---@param options? mqtt.Options
---@param script? fun(server: test.mqtt_peer.Server)
---@param connack? table
---@return mqtt.Client? client
---@return cosocket.Error? err
---@return test.mqtt_peer.Server server
---@return cosocket.Task task Ends with the script.
function mqtt_peer.scripted(options, script, connack)
  local near, far = cosocket.pair()
  local server = mqtt_peer.server(far --[[@as cosocket.Stream]])
  local task = cosocket.spawn("scripted MQTT server", function()
    server:expect("connect")
    local answer = { type = "connack" }
    for name, value in pairs(connack or {}) do answer[name] = value end
    server:send(answer)
    if script then script(server) end
  end)
  options = options or {}
  options.version = options.version or 5
  local client, err = mqtt.connect(assert(near), options)
  return client, err, server, task
end

--- A server on the loopback: `script(server, number)` runs for each connection, one after another, from its CONNECT on,
--- and the connection is closed when it returns.
---@param script fun(server: test.mqtt_peer.Server, number: integer)
---@return string url
---@return cosocket.Listener listener
function mqtt_peer.listening(script)
  local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
  cosocket.spawn("scripted MQTT listener", function()
    local number = 0
    while true do
      local stream = listener:accept()
      if not stream then return end
      number = number + 1
      local server <close> = mqtt_peer.server(stream)
      server:expect("connect")
      script(server, number)
    end
  end)
  return "mqtt://" .. listener:local_address(), listener
end

function Server:__close()
  self.stream:close()
end

--- Accepts the client.
---@async
---@param connack? table
function Server:accept(connack)
  local answer = { type = "connack" }
  for name, value in pairs(connack or {}) do answer[name] = value end
  self:send(answer)
end

--- A development broker that listens nowhere, and a function that connects a client to it.
---@param options? mqtt.BrokerOptions
---@return mqtt.Broker broker
---@return fun(options?: mqtt.Options): mqtt.Client connect
function mqtt_peer.broker(options)
  local one = broker.new(options)
  return one, function(client_options)
    local near, far = cosocket.pair()
    one:serve(far --[[@as cosocket.Stream]])
    return assert(mqtt.connect(assert(near), client_options))
  end
end

return mqtt_peer
