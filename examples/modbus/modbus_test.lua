-- Modbus from its bytes to its sockets. The messages are the examples of the specification (AP, 6).
local certificate = require("test.certificate")
local cosocket = require("cosocket")
local log = require("log")
local message = require("modbus.message")
local modbus = require("modbus")
local session = require("modbus.session")
local test = require("test")

-- Some tests make mistakes on purpose, which are told.
log.level("off")

--- Bytes in hexadecimal, with spaces.
local function bytes(hex)
  return (hex:gsub("%s+", ""):gsub("%x%x", function(byte) return string.char(tonumber(byte, 16)) end))
end

--- A frame around a message: transaction and unit, then the message in hexadecimal.
local function frame(transaction, unit, hex)
  local body = bytes(hex)
  return string.pack(">I2I2I2B", transaction, 0, #body + 1, unit) .. body
end

local function bits(text)
  local values = {}
  for digit in text:gmatch("%d") do values[#values + 1] = digit == "1" end
  return values
end

--- The specification's examples: a request, what it wants, its response, and what that says.
local EXAMPLES = {
  { "01 0013 0013", { read = { "coil", 19, 19 } }, "01 03 CD 6B 05", bits("10110011 11010110 101") },
  { "02 00C4 0016", { read = { "discrete_input", 196, 22 } }, "02 03 AC DB 35", bits("00110101 11011011 101011") },
  { "03 006B 0003", { read = { "holding_register", 107, 3 } }, "03 06 022B 0000 0064", { 555, 0, 100 } },
  { "04 0008 0001", { read = { "input_register", 8, 1 } }, "04 02 000A", { 10 } },
  { "05 00AC FF00", { write = { "coil", 172, 1, { true } } }, "05 00AC FF00", true },
  { "06 0001 0003", { write = { "holding_register", 1, 1, { 3 } } }, "06 0001 0003", true },
  { "0F 0013 000A 02 CD 01", { write = { "coil", 19, 10, bits("10110011 10") } }, "0F 0013 000A", true },
  { "10 0001 0002 04 000A 0102", { write = { "holding_register", 1, 2, { 10, 258 } } }, "10 0001 0002", true },
  {
    "17 0003 0006 000E 0003 06 00FF 00FF 00FF",
    { read = { "holding_register", 3, 6 }, write = { "holding_register", 14, 3, { 255, 255, 255 } } },
    "17 0C 00FE 0ACD 0001 0003 000D 00FF",
    { 254, 2765, 1, 3, 13, 255 },
  },
}

local function span(list)
  return list and { kind = list[1], address = list[2], count = list[3], values = list[4] }
end

--- All frames that `pieces` hold, decoded as they come.
local function decode_all(pieces)
  local input, frames = cosocket.buffer(), {}
  for _, piece in ipairs(pieces) do
    input:append(piece)
    for one in function() return (message.decode(input)) end do frames[#frames + 1] = one end
  end
  test.equal(#input, 0)
  return frames
end

--- A bank of 100 coils and registers, all of them also readable as inputs.
local function new_bank()
  local held = { coil = {}, register = {} }
  for i = 0, 99 do
    held.coil[i], held.register[i] = i % 3 == 0, i
  end
  local function of(kind) return kind:find("register") and held.register or held.coil end
  return {
    read = function(kind, address, count)
      if address + count > 100 then return nil, 2 end
      return table.move(of(kind), address, address + count - 1, 1, {})
    end,
    write = function(kind, address, values)
      if address + #values > 100 then return nil, 2 end
      table.move(values, 1, #values, address, of(kind))
      return true
    end,
  }
end

--- A server on the loopback.
local function listen(bank, options) return assert(modbus.listen("tcp://127.0.0.1:0", bank, options)) end

--- A client of it.
local function connect(server) return assert(modbus.connect("tcp://" .. server:address())) end

local codec = {
  ["the specification's examples are said and understood, both ways"] = function()
    for _, example in ipairs(EXAMPLES) do
      local request, wanted, response, answer = bytes(example[1]), example[2], bytes(example[3]), example[4]
      local code, body = request:byte(), request:sub(2)
      local read, write = span(wanted.read), span(wanted.write)
      test.equal(message.request(code, read, write), body)
      test.equal(message.parse_request(code, body), { read = read, write = write })
      if read then read.values = answer end
      test.equal(message.response(read, body), response:sub(2))
      test.equal(message.parse_response(code, body, response:sub(2)), answer)
    end
  end,

  ["frames split at any byte are the same frames"] = function()
    local all = frame(1, 17, EXAMPLES[1][1]) .. frame(0xFFFF, 255, EXAMPLES[9][1])
    local whole = decode_all({ all })
    test.equal(#whole, 2)
    test.equal(whole[1], { transaction = 1, unit = 17, code = 1, body = bytes("0013 0013") })
    test.every_cut(all, function(first, second) test.equal(decode_all({ first, second }), whole) end)
  end,

  ["a frame says its length itself, and no other than there may be is waited for"] = function()
    for length, fine in pairs({ [0] = false, [1] = false, [2] = true, [254] = true, [255] = false, [65535] = false }) do
      local input = cosocket.buffer(string.pack(">I2I2I2BB", 1, 0, length, 1, 3))
      local one, err = message.decode(input)
      if not fine then
        test.fails("protocol", one, err)
      elseif length == 2 then
        test.equal(one.body, "")
      else
        test.equal({ one, err, #input }, { nil, nil, 8 })
      end
    end
    local err = test.fails("protocol", message.decode(cosocket.buffer("GET / HTTP/1.1\r\n")))
    test.matches(err.message, "not Modbus")
  end,

  ["a request that is wrong is answered by the exception that says so"] = function()
    for hex, exception in pairs({
      ["07"] = 1, ["63 0000"] = 1, -- functions that are not known
      ["01 0000 0000"] = 3, ["01 0000 07D1"] = 3, ["03 0000 007E"] = 3, -- too few, too many
      ["03 0000"] = 3, ["03 0000 0001 00"] = 3, ["05 0000 1234"] = 3, ["05 0000"] = 3,
      ["0F 0000 0008 02 00 00"] = 3, ["0F 0000 0009 01 00"] = 3, ["10 0000 0001 02 00"] = 3, ["10 0000 0000 00"] = 3,
      ["17 0000 0001 0000 007A F4"] = 3,
      ["03 FFFF 0002"] = 2, ["10 FFFF 0002 04 0001 0002"] = 2, -- beyond the last address
    }) do
      local wanted, code = message.parse_request(bytes(hex):byte(), bytes(hex):sub(2))
      test.equal({ wanted, code }, { nil, exception }, hex)
    end
  end,

  ["random bytes are a frame, too short, or a fault, and nothing is half taken"] = function()
    local random = test.random()
    for _ = 1, 3000 do
      local given = {}
      for i = 1, random(0, 20) do given[i] = string.char(random(0, i > 2 and 3 or 255)) end
      local text = table.concat(given)
      local input = cosocket.buffer(text)
      local one, err = message.decode(input)
      if not one then
        test.equal(input:peek(), text)
        assert(err == nil or err.kind == "protocol")
      else
        test.equal(#input, #text - 8 - #one.body)
        message.parse_request(one.code, one.body)
      end
    end
  end,

  ["values of any count come back"] = function()
    local random = test.random()
    for count = 1, 125 do
      local coils, registers = {}, {}
      for i = 1, count do
        coils[i], registers[i] = random(2) == 1, random(0, 65535)
      end
      for kind, values in pairs({ coil = coils, holding_register = registers }) do
        local packed = message.pack(kind, values)
        test.equal(#packed, message.size(kind, count))
        test.equal(message.unpack(kind, packed, count), values)
      end
    end
  end,
}

--- What a client session makes of bytes after a request for three registers.
local function ask_three(response)
  local state = session.client()
  local request = state:request(17, 3, bytes("006B 0003"))
  local answered, err = state:receive(cosocket.buffer(response), 0)
  return request, answered, err, state
end

local sessions = {
  ["an answer finds its request, in whatever order answers come"] = function()
    local state = session.client()
    local one, two = state:request(17, 3, bytes("006B 0003")), state:request(17, 4, bytes("0008 0001"))
    test.equal(state.output:take(), frame(1, 17, EXAMPLES[3][1]) .. frame(2, 17, EXAMPLES[4][1]))
    local input = cosocket.buffer(frame(2, 17, EXAMPLES[4][3]) .. frame(1, 17, EXAMPLES[3][3]))
    assert(state:receive(input, 0) == two and state:receive(input, 0) == one)
    test.equal({ one.answer, two.answer }, { { 555, 0, 100 }, { 10 } })
    test.equal({ state:receive(input, 0) }, {})
  end,

  ["an exception refuses the request, and the connection goes on"] = function()
    local request, answered, _, state = ask_three(frame(1, 17, "83 02"))
    assert(answered == request)
    test.equal({ request.err.kind, request.err.code }, { "refused", 2 })
    test.matches(request.err.message, "read holding registers: illegal data address")
    local again = state:request(17, 4, bytes("0008 0001"))
    assert(state:receive(cosocket.buffer(frame(2, 17, "84 63")), 0) == again)
    test.matches(again.err.message, "exception 99")
  end,

  ["an answer to something else is a fault"] = function()
    for _, hex in ipairs({ "04 06 022B 0000 0064", "03 04 022B 0000", "03 06 022B 0000", "03", "84 02", "83", "83 02 00" }) do
      local _, answered, err = ask_three(frame(1, 17, hex))
      test.fails("protocol", answered, err)
    end
    local _, answered, err = ask_three(frame(1, 18, EXAMPLES[3][3]))
    test.fails("protocol", answered, err)
  end,

  ["an answer for which nobody waits any more is passed over"] = function()
    local state = session.client()
    local one, two = state:request(17, 3, bytes("006B 0003")), state:request(17, 4, bytes("0008 0001"))
    state:abandon(one)
    local input = cosocket.buffer(frame(1, 17, EXAMPLES[3][3]) .. frame(2, 17, EXAMPLES[4][3]))
    assert(state:receive(input, 0) == two)
    test.equal({ one.answer, one.err }, {})
  end,

  ["transactions begin again after the last, and none is used twice at a time"] = function()
    local state = session.client()
    local first = state:request(1, 4, bytes("0008 0001"))
    for _ = 2, 0x10000 do state:abandon(state:request(1, 4, bytes("0008 0001"))) end
    test.equal(first.transaction, 1)
    test.equal(state:request(1, 4, bytes("0008 0001")).transaction, 2)
  end,

  ["a client that says nothing is given up, and any frame counts"] = function()
    local state = session.server(300, 1000)
    test.equal(state.deadline, 1300)
    assert(state:receive(cosocket.buffer(frame(1, 1, "07")), 1200))
    test.equal(state.deadline, 1500)
    test.fails("timeout", state:expire(1500))
  end,
}

local client = {
  ["answers that come byte by byte, and late ones, are understood"] = function()
    local stream = test.stream({
      { expect = frame(1, 255, "03 0000 0002") },
      { stall = 3 },
      { expect = frame(2, 7, "06 0001 0003") },
      { send = frame(1, 255, "03 04 0001 0002") .. frame(2, 7, "06 0001 0003"), cut = 1 },
    })
    local one <close> = assert(modbus.connect(stream, { timeout = 2 }))
    test.equal(test.fails("timeout", one:read_holding_registers(0, 2)).message, "no answer within 2 s")
    test.equal(one:write_registers(1, 3, 7), true)
  end,

  ["many ask at once, and no more than may be on their way"] = function()
    local first = frame(1, 255, "03 0001 0001") .. frame(2, 255, "03 0002 0001")
    local stream = test.stream({
      { expect = first },
      { stall = 1 },
      function(_, input) test.equal(#input, 0) end,
      { send = frame(2, 255, "03 02 0002") .. frame(1, 255, "03 02 0001") },
      { expect = frame(3, 255, "03 0003 0001") },
      { send = frame(3, 255, "03 02 0003") },
    })
    local one <close> = assert(modbus.connect(stream, { in_flight_max = 2 }))
    cosocket.group(function()
      for i = 1, 3 do
        cosocket.spawn(function() test.equal(one:read_holding_registers(i, 1), { i }) end)
      end
    end)
  end,

  ["mistakes of the caller blame its line, and send nothing"] = function()
    local stream = test.stream({ { expect_close = true } })
    local one <close> = assert(modbus.connect(stream))
    for _, wrong in ipairs({
      { "read_coils", "from 1 to 2000 values", 0, 2001 },
      { "read_holding_registers", "from 1 to 125 values", 0, 126 },
      { "read_input_registers", "from 1 to 125 values", 0, 0 },
      { "read_discrete_inputs", "an integer from 0 to 65535", 65536, 1 },
      { "read_coils", "beyond 65535", 65535, 2 },
      { "read_coils", "the unit must be from 0 to 255", 0, 1, 256 },
      { "write_coils", "value 2 must be a boolean", 0, { true, 1 } },
      { "write_coils", "value 1 must be a boolean", 0, 1 },
      { "write_coils", "from 1 to 1968 values", 0, {} },
      { "write_registers", "value 1 must be an integer from 0 to 65535", 0, 65536 },
      { "write_registers", "value 1 must be an integer", 0, "1" },
      { "read_write_registers", "a list of values is wanted", 0, 1, 0, 7 },
    }) do
      local message_of = test.raises(wrong[2], function() one[wrong[1]](one, table.unpack(wrong, 3)) end)
      test.matches(message_of, "^[^\n]*modbus_test%.lua:%d+: modbus: " .. wrong[1])
    end
    test.raises("timout", modbus.connect, "tcp://127.0.0.1:1", { timout = 1 })
  end,

  ["when the server is gone, everybody hears it"] = function()
    local served = listen(new_bank())
    local one <close> = connect(served)
    test.equal(one:read_coils(0, 1), { true })
    served:close()
    test.fails("closed", one:read_coils(0, 1))
    test.fails("closed", one:read_coils(0, 1))
  end,
}

local server = {
  ["reads and writes everything, and what is not there is refused"] = function()
    local served <close> = listen(new_bank())
    local one <close> = connect(served)
    test.equal(one:read_coils(0, 4), { true, false, false, true })
    test.equal(one:read_discrete_inputs(1, 2), { false, false })
    test.equal(one:read_input_registers(98, 2), { 98, 99 })
    test.equal(one:write_coils(1, true), true)
    test.equal(one:write_coils(2, { true, false }), true)
    test.equal(one:read_coils(0, 4), { true, true, true, false })
    test.equal(one:write_registers(0, 65535), true)
    test.equal(one:write_registers(1, { 7, 8 }), true)
    test.equal(one:read_write_registers(0, 4, 3, { 9 }), { 65535, 7, 8, 9 })
    test.equal(test.fails("refused", one:read_holding_registers(99, 2)).code, 2)
    test.equal(test.fails("refused", one:write_registers(99, { 1, 2 })).code, 2)
  end,

  ["answers over TLS, by the name of who is asked, and each unit by its number"] = function()
    local bank = { read = function(_, _, _, unit) return { unit } end }
    local tls = { certificate = certificate.localhost, key = certificate.key }
    local served <close> = assert(modbus.listen("tls://127.0.0.1:0", bank, { tls = tls }))
    local url = "tls://localhost:" .. served:address():match("%d+$")
    test.fails("tls", modbus.connect(url))
    local one <close> = assert(modbus.connect(url, { tls = { ca = certificate.ca }, unit = 3 }))
    test.equal(one:read_input_registers(0, 1), { 3 })
    test.equal(one:read_input_registers(0, 1, 9), { 9 })
  end,

  ["a bank without write is read only"] = function()
    local served <close> = listen({ read = new_bank().read })
    local one <close> = connect(served)
    test.equal(test.fails("refused", one:write_coils(0, true)).code, 1)
    test.equal(one:read_coils(0, 1), { true })
    test.raises("a function `read`", modbus.listen, "tcp://127.0.0.1:0", {})
  end,

  ["a bank that raises, or answers nonsense, is a failure of the device, and the server goes on"] = function()
    local answers = { function() error("on purpose") end, function() return { 1, 2 } end, function() return { -1 } end }
    local served <close> = listen({ read = function() return table.remove(answers, 1)() end })
    local one <close> = connect(served)
    for _ = 1, 3 do test.equal(test.fails("refused", one:read_holding_registers(0, 1)).code, 4) end
    answers = { function() return { 5 } end }
    test.equal(one:read_holding_registers(0, 1), { 5 })
  end,

  ["bytes that are no Modbus end their connection, and no other"] = function()
    local served <close> = listen(new_bank())
    local one <close> = connect(served)
    local stream <close> = assert(cosocket.connect("tcp://" .. served:address()))
    stream:write("GET / HTTP/1.1\r\n\r\n")
    test.fails("closed", stream:read())
    test.equal(one:read_coils(0, 1), { true })
  end,

  ["a client that says nothing is hung up on, and one more than there may be, too"] = function()
    local served <close> = listen(new_bank(), { clients_max = 1, idle_timeout = 20 })
    local one <close> = connect(served)
    test.equal(one:read_coils(0, 1), { true })
    local second <close> = connect(served)
    test.fails("closed", second:read_coils(0, 1))
    cosocket.sleep(19)
    test.equal(one:read_coils(0, 1), { true })
    cosocket.sleep(21)
    test.fails("closed", one:read_coils(0, 1))
  end,

  ["a client that does not read its answers is not read either"] = function()
    local reads, bank = 0, new_bank()
    bank.read = function(_, _, count)
      reads = reads + 1
      local values = {}
      for i = 1, count do values[i] = 0 end
      return values
    end
    local served <close> = listen(bank)
    local stream <close> = assert(cosocket.connect("tcp://" .. served:address()))
    local count, requests = 2000, frame(1, 255, "03 0000 007D"):rep(1000)
    local asking = cosocket.spawn(function()
      for _ = 1, count do
        if not stream:write(requests) then return end
      end
    end)
    cosocket.sleep(1)
    test.equal(asking:status(), "waiting")
    assert(reads > 100 and reads < count * 1000 // 2, reads)
    asking:cancel()
  end,
}

return { codec = codec, session = sessions, client = client, server = server }
