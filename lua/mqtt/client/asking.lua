--- Asking others and answering them, and proving again who one is: methods of `mqtt.Client`.

local cosocket = require("cosocket")
local opening = require("mqtt.opening")
local requests = require("mqtt.request")

local now = cosocket.now

---@class mqtt.Client
local Client = {}

--- Publishes a request and waits for the response to it (MQTT 5, 4.10): who answers publishes to the message's
--- `response_topic` with its `correlation_data`, as `respond` does.
---@async
---@param topic string
---@param payload? string
---@param options? number|mqtt.RequestOptions Seconds to wait, or options.
---@return mqtt.Publish? response
---@return cosocket.Error? err `timeout`, `refused` also when the server knows that nobody has subscribed, `closed`
function Client:request(topic, payload, options)
  options = requests.check(options)
  if self.session.version ~= 5 then
    return nil, cosocket.error("refused", "mqtt.request", "requests need MQTT 5, and the server speaks 3.1.1")
  end
  self.requester = self.requester or requests.new(self, self.options.response_topic)
  return self.requester:request(topic, payload, options)
end

--- Answers a request.
---@async
---@param message mqtt.Publish The request.
---@param payload? string
---@param options? mqtt.PublishOptions Default: the QoS of the request.
---@return integer? reason_code
---@return cosocket.Error? err `protocol` when the message asks for no response; as `publish`
function Client:respond(message, payload, options)
  local properties = message.properties or {}
  if not properties.response_topic then
    return nil, cosocket.error("protocol", "mqtt.respond", "the message names no response topic: nobody waits")
  end
  local given = { qos = message.qos }
  for name, value in pairs(options or {}) do given[name] = value end
  given.correlation = properties.correlation_data
  return self:publish(properties.response_topic, payload, given)
end

-- Authentication --------------------------------------------------------------

--- Authenticates anew on the connection (MQTT 5, 4.12.1), with the `authentication` of the options.
---@async
---@return true? ok
---@return cosocket.Error? err
function Client:reauthenticate()
  local authentication = self.options.authentication
  if not authentication then error("reauthenticate: mqtt.connect was given no authentication", 2) end
  if not self.stream then return nil, cosocket.error("closed", "mqtt.authenticate", "there is no connection") end
  local data, err = opening.secret("authentication.data", authentication.data)
  if err then return nil, err end
  local ok
  ok, err = self.session:authenticate(data, now(), true)
  if not ok then return nil, err end
  local event = cosocket.event()
  self.authenticated = event
  self:flush()
  ok, err = self:hold(event.wait, event)
  if not ok then return nil, err end
  if self.authenticated then
    self.authenticated = nil
    return nil, self.last_error or cosocket.error("closed", "mqtt.authenticate", "the connection is lost")
  end
  return true
end

return Client
