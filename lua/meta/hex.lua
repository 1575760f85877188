---@meta hex

--- Two hex digits for each byte (RFC 4648, section 8).
local hex = {}

--- In small letters.
---@param data string|cosocket.Buffer
---@return string
function hex.encode(data) end

--- Letters may be of either case.
---@param text string|cosocket.Buffer
---@return string? data
---@return cosocket.Error? err `protocol`, with the position
function hex.decode(text) end

return hex
