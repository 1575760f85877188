--- How long to wait before the next attempt to connect, with MQTT's own reasons to wait longer.

local backoff = require("net.backoff")
local reason = require("mqtt.reason")

---@alias mqtt.ReconnectOptions net.ReconnectOptions
---@alias mqtt.Backoff net.Backoff

--- Reason codes with which a server asks not to be called again soon (4.13).
local BUSY = {
  [reason.server_unavailable] = true,
  [reason.server_busy] = true,
  [reason.server_shutting_down] = true,
  [reason.quota_exceeded] = true,
  [reason.connection_rate_exceeded] = true,
}

local mqtt_backoff = { check = backoff.check }

---@param options? mqtt.ReconnectOptions
---@param random? fun(): number From 0 to 1. Default `math.random`.
---@return mqtt.Backoff
function mqtt_backoff.new(options, random)
  return backoff.new(options, random, BUSY)
end

return mqtt_backoff
