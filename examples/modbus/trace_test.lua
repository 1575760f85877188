-- What `moonwire --trace modbus` shows.
local test = require("test")
local tracing = require("test.tracing")

local function frame(transaction, message) return string.pack(">I2I2I2B", transaction, 0, #message + 1, 1) .. message end

local SCRIPT = {
  { ">", frame(1, "\1\0\19\0\19") .. frame(2, "\3\0\7\0\2") .. frame(3, "\x17\0\3\0\1\0\4\0\1\2\0\9") },
  { "<", frame(2, "\x83\2") .. frame(1, "\1\3\xCD\x6B\5") .. frame(3, "\x17\2\1\0") },
  { ">", frame(4, "\6\0\1\0\3") .. frame(5, "\x2B\x0E\1\0") .. frame(6, "\3\0\0\0\0") },
  { "<", frame(4, "\6\0\1\0\3") .. frame(5, "\xAB\1") .. frame(9, "\3\2\0\1") },
}

local LINES = {
  "#1 > modbus id=1 unit=1 read coils 19..37",
  "#1 > modbus id=2 unit=1 read holding registers 7..8",
  '#1 > modbus id=3 unit=1 read/write multiple registers 4="9" 3..3',
  "#1 < modbus id=2 unit=1 refused: 2 illegal data address",
  '#1 < modbus id=1 unit=1 "1 0 1 1 0 0 1 1 1 1 0 1 0 1 1 0 1 0 1"',
  '#1 < modbus id=3 unit=1 "256"',
  '#1 > modbus id=4 unit=1 write single register 1="3"',
  "#1 > modbus id=5 unit=1 function 43, 3 bytes: illegal function",
  "#1 > modbus id=6 unit=1 function 3, 4 bytes: illegal data value",
  "#1 < modbus id=4 unit=1 written",
  "#1 < modbus id=5 unit=1 refused: 1 illegal function",
  "#1 < modbus id=9 unit=1 function 3, 3 bytes",
}

return {
  ["requests and responses are lines, in pieces of any size"] = function()
    for cut = 1, 60 do
      local lines, captured = tracing.hear("modbus", "client", SCRIPT, { cut = cut })
      test.equal(lines, LINES)
      test.equal(captured, { sent = tracing.bytes(SCRIPT, ">"), received = tracing.bytes(SCRIPT, "<") })
    end
  end,

  ["what is no Modbus is shown as it is"] = function()
    local lines = tracing.hear("modbus", "client", { { ">", "GET / HTTP/1.1\r\n" } })
    test.equal(#lines, 1)
    test.matches(lines[1], "GET / HTTP/1%.1")
  end,

  ["random bytes fail nothing"] = function()
    local random = test.random()
    for _ = 1, 300 do
      local script = {}
      for i = 1, random(8) do
        local body = {}
        for j = 1, random(1, 12) do body[j] = string.char(j == 1 and random:pick({ 1, 3, 5, 15, 23, 131 }) or random(0, 255)) end
        script[i] = { random(2) == 1 and ">" or "<", frame(random(3), table.concat(body)) }
      end
      for _, line in ipairs((tracing.hear("modbus", "client", script, { cut = random(1, 20) }))) do
        test.falsy(line:find("decoder failed", 1, true), line)
      end
    end
  end,
}
