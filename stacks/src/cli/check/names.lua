-- Tells `moonwire check` which globals and modules a script would find.
local take = require("check.host")

local globals, modules = {}, {}
for name in pairs(_G) do globals[#globals + 1] = name end
for _, of in ipairs({ package.loaded, package.preload }) do
  for name in pairs(of) do modules[#modules + 1] = name end
end
take(globals, modules)
