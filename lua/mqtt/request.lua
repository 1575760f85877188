--- Request and response over MQTT 5 (4.10): a response topic of one's own, and Correlation Data to tell answers apart.

local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local publication = require("mqtt.publication")
local reason = require("mqtt.reason")

--- Seconds a response may take, unless an option says otherwise.
local TIMEOUT = 30

---@class mqtt.RequestOptions: mqtt.PublishOptions
---@field timeout? number Seconds the response may take. Default 30.

local request = {}

--- What `client:request` was given, as options; mistakes blame its caller.
---@param options number|mqtt.RequestOptions|nil
---@return mqtt.RequestOptions
function request.check(options)
  if options == nil then return {} end
  if type(options) == "number" then options = { timeout = options } end
  if type(options) ~= "table" then error("request: options must be a table, or the seconds to wait", 3) end
  local timeout, message = nil, {}
  for name, value in pairs(options) do
    if name == "timeout" then
      timeout = value
    else
      message[name] = value
    end
  end
  if timeout ~= nil and (type(timeout) ~= "number" or timeout ~= timeout or timeout < 0) then
    error("request: timeout must be a number of seconds", 3)
  end
  if message.response_topic or message.correlation then
    error("request: response_topic and correlation are chosen for each request", 3)
  end
  publication.check("request", message, 4)
  message.timeout = timeout
  return message
end

---@class mqtt.Requester
---@field private client mqtt.Client
---@field private topic string? Where responses come.
---@field private wanted string? What the script wants it to begin with.
---@field private subscribing cosocket.Event?
---@field private pending table<string, {event: cosocket.Event, response: mqtt.Publish?}>
---@field private last integer
local Requester = {}
Requester.__index = Requester

--- The topic for responses: below what the server or the script says, and nobody else's.
---@private
---@return string
function Requester:choose_topic()
  local status = self.client:status()
  local base = self.wanted or status.server.response_information
  if not base then base = "response/" .. status.client_id:gsub("[+#/%z\1-\31\127]", "_") end
  return ("%s/%s"):format(base:gsub("/$", ""), hex.encode(crypto.random_bytes(8)))
end

--- Subscribes to responses, once.
---@private
---@async
---@return true? ok
---@return cosocket.Error? err
function Requester:prepare()
  while self.subscribing do
    local ok, err = self.subscribing:wait()
    if not ok then return nil, err end
  end
  if self.topic then return true end
  local event <close> = setmetatable({ event = cosocket.event() }, {
    __close = function(guard)
      self.subscribing = nil
      guard.event:set()
    end,
  })
  self.subscribing = event.event
  local topic = self:choose_topic()
  local granted, err = self.client:subscribe(topic, { qos = 1 }, function(message)
    local correlation = message.properties and message.properties.correlation_data
    local waiting = correlation and self.pending[correlation]
    -- A response that nobody waits for any more came too late.
    if not waiting then return end
    waiting.response = message
    waiting.event:set()
  end)
  if not granted then return nil, err end
  self.topic = topic
  return true
end

--- Publishes a request and waits for its response.
---@async
---@param topic string
---@param payload string?
---@param options mqtt.RequestOptions
---@return mqtt.Publish? response
---@return cosocket.Error? err
function Requester:request(topic, payload, options)
  local seconds = options.timeout or TIMEOUT
  options.timeout = nil
  local client = self.client
  local correlation
  local guard <close> = setmetatable({}, {
    __close = function()
      if correlation then self.pending[correlation] = nil end
    end,
  })
  local response, err = cosocket.deadline(seconds, function()
    local ok, err = self:prepare()
    if not ok then return nil, err end
    self.last = self.last + 1
    correlation = string.pack(">I8", self.last)
    local waiting = { event = cosocket.event() }
    self.pending[correlation] = waiting
    options.response_topic, options.correlation = self.topic, correlation
    options.qos = options.qos or 1
    local code
    code, err = client:publish(topic, payload, options)
    if not code then return nil, err end
    if code == reason.no_matching_subscribers then
      local message = ("nobody has subscribed to %q"):format(topic)
      return nil, cosocket.error("refused", "mqtt.request", message, { code = code })
    end
    ok, err = client:wait_for(waiting.event)
    if not ok then return nil, err end
    return waiting.response
  end)
  if response then return response end
  if cosocket.is_error(err, "timeout") then
    local message = ("no response to %q within %g s"):format(topic, seconds)
    return nil, cosocket.error("timeout", "mqtt.request", message, { cause = err })
  end
  return nil, err
end

---@param client mqtt.Client
---@param wanted string? What response topics begin with.
---@return mqtt.Requester
function request.new(client, wanted)
  return setmetatable({ client = client, wanted = wanted, pending = {}, last = 0 }, Requester)
end

return request
