--- Reason codes of MQTT 5 that Lua code says or looks for (2.4), and what the other side says with any of them.

local codec = require("mqtt.codec")

local reason = {
  no_matching_subscribers = 0x10,
  no_subscription_existed = 0x11,
  continue_authentication = 0x18,
  re_authenticate = 0x19,
  --- From here on a code says no.
  unspecified_error = 0x80,
  protocol_error = 0x82,
  unsupported_protocol_version = 0x84,
  client_identifier_not_valid = 0x85,
  bad_user_name_or_password = 0x86,
  not_authorized = 0x87,
  server_unavailable = 0x88,
  server_busy = 0x89,
  server_shutting_down = 0x8B,
  bad_authentication_method = 0x8C,
  keep_alive_timeout = 0x8D,
  session_taken_over = 0x8E,
  packet_identifier_not_found = 0x92,
  receive_maximum_exceeded = 0x93,
  topic_alias_invalid = 0x94,
  quota_exceeded = 0x97,
  administrative_action = 0x98,
  retain_not_supported = 0x9A,
  qos_not_supported = 0x9B,
  use_another_server = 0x9C,
  server_moved = 0x9D,
  shared_subscriptions_not_supported = 0x9E,
  connection_rate_exceeded = 0x9F,
  subscription_identifiers_not_supported = 0xA1,
  wildcard_subscriptions_not_supported = 0xA2,
}

--- A reason code in words, with what the other side says besides.
---@param code integer
---@param version mqtt.codec.Version? With 4: a Connect Return code.
---@param properties mqtt.Properties?
---@return string
function reason.words(code, version, properties)
  local words = codec.reason(code, version) or ("reason code 0x%02X"):format(code)
  local said = properties and properties.reason_string
  return said and ("%s (%s)"):format(words, said) or words
end

return reason
