--- Datagrams as they are: a line for each, and its bytes in hexadecimal. Where they come from and go to is in the line; who
--- sends them has said nothing of what they are.

local udp = { alone = true }

---@param lane net.trace.Lane
function udp.follow(lane) lane:raw() end

return udp
