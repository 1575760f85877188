-- Asks a Modbus server of somebody else's: 100 coils and registers, and as many inputs.
local case = require("conformance.case")
local cosocket = require("cosocket")
local modbus = require("modbus")
local options = require("conformance.arguments")(arg)

local function equal(got, wanted, err)
  assert(got ~= nil, tostring(err))
  if type(wanted) ~= "table" then return assert(got == wanted, tostring(got)) end
  assert(#got == #wanted, ("%d values"):format(#got))
  for i, value in ipairs(wanted) do assert(got[i] == value, ("value %d is %s"):format(i, tostring(got[i]))) end
end

--- That the answer is these values.
local function is(wanted, got, err) equal(got, wanted, err) end

local client <close> = assert(modbus.connect("tcp://" .. options.address, { unit = 1 }))

case("coils are read and written", function()
  is({ true, false, false, true }, client:read_coils(0, 4))
  is(true, client:write_coils(1, true))
  is(true, client:write_coils(2, { true, false, true }))
  is({ true, true, true, false, true, false }, client:read_coils(0, 6))
end)

case("inputs are read", function()
  is({ true, false, false, true }, client:read_discrete_inputs(3, 4))
  is({ 90, 91, 92 }, client:read_input_registers(90, 3))
end)

case("registers are read, written, and both at once", function()
  is({ 5, 6, 7 }, client:read_holding_registers(5, 3))
  is(true, client:write_registers(1, 65535))
  is(true, client:write_registers(2, { 7, 8 }))
  is({ 0, 65535, 7, 8, 9, 10 }, client:read_write_registers(0, 6, 4, { 9, 10 }))
end)

case("what is not there is refused with its exception code", function()
  local values, err = client:read_holding_registers(99, 2)
  assert(values == nil and err.kind == "refused" and err.code == 2, tostring(err))
  is({ 50 }, client:read_holding_registers(50, 1))
end)

-- pymodbus answers one of several requests that come together.
case("many tasks ask at once, and one request is on its way", function()
  cosocket.group(function()
    for i = 0, 49 do
      cosocket.spawn(function() is({ i, i + 1 }, client:read_input_registers(i, 2)) end)
    end
  end)
end)
