--- What is wrong with a message, as errors that name the field.

local cosocket = require("cosocket")

local fault = {}

--- A field of a message that cannot be sent as it is.
---@param field string Also of a part: `attachments[1]`.
---@param text string What is wrong with it.
---@param cause? cosocket.Error
---@return nil
---@return cosocket.Error err `protocol`, with `field`
function fault.broken(field, text, cause)
  return nil, cosocket.error("protocol", "smtp.message", ("%s: %s"):format(field, text), { field = field, cause = cause })
end

return fault
