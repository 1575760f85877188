--- What a client is subscribed to, so that a server that has forgotten hears of it again.

--- Filters in one SUBSCRIBE at most, when all are told again.
local FILTERS_MAX = 32

---@class mqtt.Remembered
---@field subscription table As SUBSCRIBE has it.
---@field properties mqtt.Properties?

---@class mqtt.Subscriptions
---@field private by_filter table<string, mqtt.Remembered>
---@field private order string[]
local Subscriptions = {}
Subscriptions.__index = Subscriptions

--- The server has agreed to a subscription: it replaces the one before [MQTT-3.8.4-3].
---@param subscription table
---@param properties mqtt.Properties?
function Subscriptions:add(subscription, properties)
  local filter = subscription.filter
  if not self.by_filter[filter] then self.order[#self.order + 1] = filter end
  self.by_filter[filter] = { subscription = subscription, properties = properties }
end

---@param filter string
function Subscriptions:remove(filter)
  if not self.by_filter[filter] then return end
  self.by_filter[filter] = nil
  for i, other in ipairs(self.order) do
    if other == filter then
      table.remove(self.order, i)
      return
    end
  end
end

--- SUBSCRIBE packets that say everything again, in the order in which it was said.
---@param identifiers boolean Whether the server takes subscription identifiers.
---@return table[] packets
function Subscriptions:packets(identifiers)
  local packets, last = {}, nil
  for _, filter in ipairs(self.order) do
    local one = self.by_filter[filter]
    if not last or last.of ~= one.properties or #last.packet.subscriptions >= FILTERS_MAX then
      local properties = one.properties
      if properties and properties.subscription_identifier and not identifiers then
        properties = { user_property = properties.user_property }
      end
      last = { of = one.properties, packet = { type = "subscribe", subscriptions = {}, properties = properties } }
      packets[#packets + 1] = last.packet
    end
    local list = last.packet.subscriptions
    list[#list + 1] = one.subscription
  end
  return packets
end

local subscriptions = {}

---@return mqtt.Subscriptions
function subscriptions.new()
  return setmetatable({ by_filter = {}, order = {} }, Subscriptions)
end

return subscriptions
