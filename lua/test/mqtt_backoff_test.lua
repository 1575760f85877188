-- Delays between attempts to connect: numbers only.
local backoff = require("mqtt.backoff")
local cosocket = require("cosocket")
local test = require("test")

local LOST = cosocket.error("closed", "mqtt", "lost")

local function delays(options, random, count, err)
  local one = backoff.new(options, function() return random end)
  local list = {}
  for i = 1, count do list[i] = one:next(err or LOST) end
  return list, one
end

return {
  ["delays grow up to the greatest, and are spread over half of themselves"] = function()
    test.equal(delays({ delay_min = 1, delay_max = 10 }, 1, 6), { 1, 1, 2, 4, 8, 10 })
    test.equal(delays({ delay_min = 1, delay_max = 10 }, 0, 6), { 0, 0.5, 1, 2, 4, 5 })
    test.equal(delays({ delay_min = 2, delay_max = 100, factor = 3 }, 1, 5), { 2, 2, 6, 18, 54 })
    test.equal(delays(nil, 1, 9)[9], 60)
  end,

  ["only a connection that lasted starts them again"] = function()
    local _, one = delays(nil, 1, 5)
    one:lasted(1)
    test.equal(one:next(LOST), 16)
    one:lasted(10)
    test.equal(one:next(LOST), 1)
  end,

  ["a server that asks for time gets it"] = function()
    for _, code in ipairs({ 0x88, 0x89, 0x8B, 0x97, 0x9F }) do
      local busy = cosocket.error("closed", "mqtt", "busy", { code = code })
      test.equal(delays(nil, 0, 1, busy), { 5 })
      test.equal(delays({ delay_max = 4 }, 1, 1, busy), { 4 })
    end
  end,

  ["a refusal that will hardly change is asked about seldom"] = function()
    local no = cosocket.error("refused", "mqtt.connect", "no", { code = 0x87 })
    test.equal(delays(nil, 1, 2, no), { 60, 60 })
  end,

  ["options that cannot be are refused"] = function()
    local function check(options)
      return function() backoff.check("op", options) end
    end
    test.raises("delay_min must be more than 0", check({ delay_min = 0 }))
    test.raises("at most delay_max", check({ delay_min = 10, delay_max = 5 }))
    test.raises("factor must be at least 1", check({ factor = 0.5 }))
    test.raises("unknown option \"delay\"", check({ delay = 5 }))
    check({ delay_min = 0.1 })()
    check(true)()
  end,
}
