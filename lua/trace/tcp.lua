--- Bytes as they are, in hexadecimal: what nothing else decodes.

local tcp = { alone = true }

---@param lane net.trace.Lane
function tcp.follow(lane) lane:raw() end

return tcp
