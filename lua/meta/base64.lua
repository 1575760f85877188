---@meta base64

--- Base64 (RFC 4648), strict: one text for one value, no line breaks.
local base64 = {}

---@class base64.Options
---@field url? boolean The alphabet for URLs and file names (section 5). Default `false`.
---@field padding? boolean `=` at the end: written, and demanded. Default `true`, with `url` `false`.

---@param data string|cosocket.Buffer
---@param options? base64.Options
---@return string
function base64.encode(data, options) end

---@param text string|cosocket.Buffer
---@param options? base64.Options
---@return string? data
---@return cosocket.Error? err `protocol`, with the position
function base64.decode(text, options) end

return base64
