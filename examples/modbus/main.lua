-- A protocol of one's own: Modbus TCP, in modbus.lua beside this file. A pump is the server, with its values in
-- registers; a controller reads them, several requests on their way at once, and switches.
--
--     moonwire examples/modbus/main.lua
--     moonwire --trace modbus examples/modbus/main.lua

local cosocket = require("cosocket")
local modbus = require("modbus")

--- What the pump has, by kind and address.
local pump = {
  coil = { [0] = false }, -- whether it runs
  discrete_input = { [0] = true, [1] = false }, -- power, leak
  holding_register = { [0] = 1200, [1] = 0 }, -- wanted speed, seconds until it stops by itself
  input_register = { [0] = 0, [1] = 215 }, -- speed, tenths of a degree
}

local bank = {}

function bank.read(kind, address, count)
  local values = {}
  for i = 1, count do
    values[i] = pump[kind][address + i - 1]
    if values[i] == nil then return nil, 2 end -- illegal data address
  end
  return values
end

function bank.write(kind, address, values)
  for i = 1, #values do
    if pump[kind][address + i - 1] == nil then return nil, 2 end
  end
  for i, value in ipairs(values) do pump[kind][address + i - 1] = value end
  pump.input_register[0] = pump.coil[0] and pump.holding_register[0] or 0
  return true
end

local server <close> = assert(modbus.listen("tcp://127.0.0.1:0", bank))
local client <close> = assert(modbus.connect("tcp://" .. server:address(), { in_flight_max = 4 }))

--- Reads everything, with all requests on their way at once.
local function look()
  local seen = {}
  cosocket.group(function()
    cosocket.spawn(function() seen.running = assert(client:read_coils(0, 1))[1] end)
    cosocket.spawn(function() seen.inputs = assert(client:read_discrete_inputs(0, 2)) end)
    cosocket.spawn(function() seen.wanted = assert(client:read_holding_registers(0, 1))[1] end)
    cosocket.spawn(function() seen.measured = assert(client:read_input_registers(0, 2)) end)
  end)
  print(("running %s, power %s, leak %s, %d of %d rpm, %.1f degrees"):format(
    seen.running,
    seen.inputs[1],
    seen.inputs[2],
    seen.measured[1],
    seen.wanted,
    seen.measured[2] / 10
  ))
end

look()
assert(client:write_coils(0, true))
look()
print("wanted speed and rest: " .. table.concat(assert(client:read_write_registers(0, 2, 0, { 1450, 600 })), ", "))
look()
local _, err = client:write_registers(7, 1)
print(err)
