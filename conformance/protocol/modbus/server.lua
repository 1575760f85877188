-- A Modbus server of 100 coils, discrete inputs, holding and input registers.
local modbus = require("modbus")

local held = { coil = {}, discrete_input = {}, holding_register = {}, input_register = {} }
for i = 0, 99 do
  held.coil[i], held.discrete_input[i] = i % 3 == 0, i % 3 == 0
  held.holding_register[i], held.input_register[i] = i, i
end

local server = assert(modbus.listen("tcp://127.0.0.1:0", {
  read = function(kind, address, count)
    if address + count > 100 then return nil, 2 end
    return table.move(held[kind], address, address + count - 1, 1, {})
  end,
  write = function(kind, address, values)
    if address + #values > 100 then return nil, 2 end
    table.move(values, 1, #values, address, held[kind])
    return true
  end,
}))
print("listening on " .. server:address())
io.stdout:flush()
