--- Status codes of closing (RFC 6455, 7.4.1, and its registry) and what they mean.

local close_code = {
  normal = 1000,
  going_away = 1001,
  protocol_error = 1002,
  unsupported_data = 1003,
  --- Never sent: the other side gave none.
  no_status = 1005,
  --- Never sent: the connection was lost without a Close frame.
  abnormal = 1006,
  invalid_data = 1007,
  policy_violation = 1008,
  message_too_big = 1009,
  extension_required = 1010,
  internal_error = 1011,
  service_restart = 1012,
  try_again_later = 1013,
  bad_gateway = 1014,
}

local WORDS = {}
for name, code in pairs(close_code) do WORDS[code] = name:gsub("_", " ") end

--- A code in words.
---@param code integer
---@return string
function close_code.words(code)
  local words = WORDS[code]
  return words and ("%d, %s"):format(code, words) or tostring(code)
end

return close_code
