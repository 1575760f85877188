---@meta embedded

--- Files of the `lua/` tree that are no Lua: what is sent to browsers.
local embedded = {}

--- The text of a file, as it was when the program was built.
---@param path string Within `lua/`, such as `"wsrpc/wsrpc.js"`.
---@return string? text `nil` when there is no such file.
function embedded.text(path) end

return embedded
