-- Waiting for an answer whose question is leaving still: numbers only.
local patience = require("net.patience")
local test = require("test")

--- Looks at each of the times, with what has been delivered and what has not. Answers what `due` was after each.
local function looks(waits, list)
  local dues = {}
  for i, look in ipairs(list) do dues[i] = waits:look(table.unpack(look)) end
  return dues
end

return {
  ["the answer is late when so long nothing has moved"] = function()
    local waits = patience.new(100, 8, 5000, 3000)
    test.equal({ waits.due, waits.deadline }, { 108, 102 })
    test.equal(looks(waits, { { 102, 6000, 2000 }, { 104, 6000, 2000 }, { 106, 6000, 2000 } }), { 110, 110, 110 })
    test.equal({ waits.deadline, waits.left }, { 108, false })
    test.equal(looks(waits, { { 108, 6000, 2000 }, { 110, 6000, 2000 } }), { 110, 110 })
    test.equal(waits.deadline, 110)
  end,

  ["as long as something moves it is not late, however little it is"] = function()
    local waits = patience.new(0, 8, 0, 1000000)
    for now = 2, 600, 2 do
      test.equal(waits:look(now, now // 6, 1000000 - now // 6) > now, true)
      test.equal(waits.deadline, math.min(now + 2, waits.due))
    end
    test.equal(waits.left, false)
  end,

  ["once the question has left, nothing that moves behind it gives more time"] = function()
    local waits = patience.new(0, 8, 0, 1000)
    test.equal(looks(waits, { { 2, 1000, 70000 }, { 4, 50000, 70000 }, { 7, 90000, 70000 } }), { 10, 10, 10 })
    test.equal({ waits.left, waits.deadline }, { true, 10 })
  end,

  ["a question of which nothing waits has left, whatever the count says"] = function()
    -- Compressed, the bytes on the wire are fewer than was said.
    local waits = patience.new(0, 8, 0, 1000)
    test.equal(looks(waits, { { 2, 400, 0 }, { 4, 800, 100 } }), { 10, 10 })
    test.equal(waits.left, true)
  end,

  ["a count that falls is no progress, and one that rises again is"] = function()
    -- A count may be too small while records of TLS are on their way.
    local waits = patience.new(0, 8, 500, 1000)
    test.equal(looks(waits, { { 2, 480, 1100 }, { 4, 480, 1100 }, { 6, 490, 1090 } }), { 8, 8, 14 })
  end,

  ["without a stream to ask, the question has left"] = function()
    local waits = patience.new(0, 8, 0, 1000)
    test.equal(waits:look(2), 8)
    test.equal({ waits.left, waits.deadline }, { true, 8 })
  end,
}
