-- Whether a broker that somebody else runs lets us in at all; says why not. It is told as the cases are where that is.
local broker = require("broker")

local client <close>, err = broker.try_connect()
if not client then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
