-- The checks check: what passes, what fails, and what a failure says.
local cosocket = require("cosocket")
local run = require("test.run")
local stream = require("test.stream")
local test = require("test")

--- What a failing check says, without its place.
local function failure(check, ...)
  local message = test.raises("", check, ...)
  return (message:gsub("^[^\n]-:%d+: ", ""))
end

return {
  equal = {
    ["equal values pass whatever they are"] = function()
      test.equal(nil, nil)
      test.equal("a", "a")
      test.equal(1, 1.0)
      test.equal(0 / 0, 0 / 0)
      test.equal({ 1, { a = {}, [false] = "no" } }, { 1, { a = {}, [false] = "no" } })
    end,

    ["metatables do not count"] = function()
      test.equal(setmetatable({ 1 }, { __index = { 2, 3 } }), { 1 })
    end,

    ["tables that contain themselves are compared and shown"] = function()
      local one, other = { name = "x" }, { name = "x" }
      one.me, other.me = one, other
      test.equal(one, other)
      other.name = "y"
      test.matches(failure(test.equal, one, other), "me = <itself>")
    end,

    ["a failure says where the test asked"] = function()
      local line = debug.getinfo(1, "l").currentline + 1
      local message = test.raises("not equal", function() test.equal(1, 2) end)
      test.matches(message, "^[^\n]*test_test%.lua:" .. line .. ": not equal\n")
    end,

    ["plain values are shown as they are written"] = function()
      test.equal(failure(test.equal, "a\n\0\xff", 5), 'not equal\n  expected 5\n  actual   "a\\n\\x00\\xff"')
      test.equal(failure(test.equal, 1.5, "1.5", "a note"), 'not equal (a note)\n  expected "1.5"\n  actual   1.5')
      test.equal(failure(test.equal, nil, false), "not equal\n  expected false\n  actual   nil")
      test.equal(failure(test.equal, 2 ^ 53, 1), "not equal\n  expected 1\n  actual   9007199254740992.0")
    end,

    ["the first difference in a table is named, and the lines around it are marked"] = function()
      local function packet(qos)
        return {
          topic = "a topic that is long enough to need a line of its own",
          properties = { { name = "x" }, { name = "y", qos = qos } },
        }
      end
      test.equal(
        failure(test.equal, packet(1), packet(2)),
        "not equal at .properties[2].qos\n"
          .. "  expected 2\n"
          .. "  actual   1\n"
          .. "    {\n"
          .. '  -   properties = { { name = "x" }, { name = "y", qos = 2 } },\n'
          .. '  +   properties = { { name = "x" }, { name = "y", qos = 1 } },\n'
          .. '      topic = "a topic that is long enough to need a line of its own",\n'
          .. "    }"
      )
    end,

    ["a key that one side lacks is a difference"] = function()
      test.matches(failure(test.equal, { a = 1 }, { a = 1, b = 2 }), "at %.b\n  expected 2\n  actual   nil")
      test.matches(failure(test.equal, { a = 1, b = 2 }, { a = 1 }), "at %.b\n  expected nil\n  actual   2")
      test.matches(failure(test.equal, { [1.5] = 1 }, {}), "at %[1%.5%]\n")
    end,

    ["texts of several lines are compared line by line"] = function()
      test.equal(
        failure(test.equal, "a\nb\nc\nd", "a\nB\nc\nd"),
        "not equal\n"
          .. "  first difference at byte 3\n"
          .. '    "a\\n"\n'
          .. '  - "B\\n"\n'
          .. '  + "b\\n"\n'
          .. '    "c\\n"\n'
          .. '    "d"'
      )
    end,

    ["of long strings the part around the difference is shown"] = function()
      local long = ("x"):rep(100000)
      local message = failure(test.equal, long .. "a" .. long, long .. "b" .. long)
      test.matches(message, "first difference at byte 100001")
      test.matches(message, 'expected "x+bx+" %(from byte %d+ of 200001%)')
      assert(#message < 2000, "a failure must not show everything")
    end,

    ["long tables are shown around the change only"] = function()
      local one, other = {}, {}
      for i = 1, 500 do one[i], other[i] = ("item %d"):format(i), ("item %d"):format(i) end
      one[250] = "changed"
      local message = failure(test.equal, one, other)
      local _, lines = message:gsub("\n", "")
      assert(lines < 20, "too many lines:\n" .. message)
      test.matches(message, '\n  %- +"item 250",\n  %+ +"changed",\n')
    end,
  },

  ["values that differ are not equal"] = function()
    test.not_equal(1, 2)
    test.not_equal({ 1 }, { 1, 2 })
    test.equal(failure(test.not_equal, { a = 1 }, { a = 1 }), "equal: both are\n  { a = 1 }")
  end,

  ["true and false are what Lua takes for it"] = function()
    test.equal(test.truthy(0), 0)
    test.falsy(nil)
    test.falsy(false)
    test.equal(failure(test.truthy, nil, "a note"), "not true (a note): nil")
    test.equal(failure(test.falsy, { 1 }), "not false: { 1 }")
  end,

  ["near is within the tolerance, and nothing is near to not-a-number"] = function()
    test.near(1.05, 1, 0.1)
    test.near(-1, -1, 0)
    test.matches(failure(test.near, 1.2, 1, 0.1), "not near: expected 1, give or take 0.1, got 1.2")
    test.matches(failure(test.near, 0 / 0, 1, 0.1), "not near")
    test.matches(failure(test.near, "1", 1, 0.1), "not a number")
  end,

  ["a match answers its captures"] = function()
    test.equal({ test.matches("key=value", "^(%w+)=(%w+)$") }, { "key", "value" })
    test.equal({ test.matches("abc", "b") }, { 2, 2 })
    test.equal(failure(test.matches, "abc", "^b"), 'no match\n  pattern "^b"\n  text    "abc"')
    test.equal(failure(test.matches, nil, "b"), "not a string: nil")
  end,

  ["an expected error is answered, anything else fails"] = function()
    local err = { kind = "timeout", op = "read", message = "nothing came" }
    assert(rawequal(test.fails("timeout", nil, err), err))
    test.matches(failure(test.fails, "closed", nil, err), "a timeout error, not a closed one")
    test.matches(failure(test.fails, "timeout", "data"), 'did not fail: expected a timeout error, got\n  "data"')
    test.matches(failure(test.fails, "timeout", false, err), "did not fail")
    test.matches(failure(test.fails, "timeout", nil, "timeout"), "not an error")
    test.matches(failure(test.fails, "timeout", nil, { kind = "timeout" }), "not an error")
    test.raises('"time" is not a kind of error', test.fails, "time", nil, err)
  end,

  ["raised messages are compared as they stand or as patterns"] = function()
    local function raise(err) return function() error(err, 0) end end
    test.equal(test.raises("(1", raise("odd (1 text")), "odd (1 text")
    test.equal(test.raises("^o.d", raise("odd text")), "odd text")
    test.raises("as text", raise(setmetatable({}, { __tostring = function() return "as text" end })))
    test.matches(failure(test.raises, "x", raise("y")), 'raised something else\n  expected "x"\n  actual   "y"')
    test.equal(failure(test.raises, "x", function() end), 'nothing was raised; expected "x"')
  end,

  ["a skip needs a reason"] = function()
    test.raises("needs a reason", test.skip)
    test.raises("needs a reason", test.skip, "")
    test.raises("skipped: because", test.skip, "because")
    test.equal(run.current().skipped.reason, "because")
    run.current().skipped = nil
  end,

  ["every cut is made once"] = function()
    local seen = {}
    test.every_cut("abcd", function(first, second) seen[#seen + 1] = first .. "|" .. second end)
    test.equal(seen, { "a|bcd", "ab|cd", "abc|d" })
    test.raises("cannot be cut", test.every_cut, "a", print)
  end,

  random = {
    ["one seed gives the same numbers, another gives others"] = function()
      local function draw(seed)
        local random, drawn = test.random(seed), {}
        for i = 1, 20 do drawn[i] = random(1000000) end
        return drawn
      end
      test.equal(draw(1), draw(1))
      test.not_equal(draw(1), draw(2))
    end,

    ["numbers stay in their range and reach its ends"] = function()
      local random = test.random(1)
      local seen = {}
      for _ = 1, 1000 do
        local number, die, fraction = random(-1, 1), random(6), random()
        assert(number >= -1 and number <= 1 and math.type(number) == "integer")
        assert(die >= 1 and die <= 6)
        assert(fraction >= 0 and fraction < 1)
        seen[number], seen[die] = true, true
      end
      test.equal(seen, { [-1] = true, [0] = true, [1] = true, true, true, true, true, true, true })
      test.equal(random(5, 5), 5)
      test.equal(math.type(random(math.mininteger, math.maxinteger)), "integer")
      test.raises("no number from 2 to 1", random, 2, 1)
    end,

    ["bytes have every value and lists give all their items"] = function()
      local random = test.random(1)
      local bytes = random:bytes(10000)
      test.equal(#bytes, 10000)
      local different, items = {}, {}
      for byte in bytes:gmatch(".") do different[byte] = true end
      local count = 0
      for _ in pairs(different) do count = count + 1 end
      test.equal(count, 256)
      for _ = 1, 100 do items[random:pick({ "a", "b", "c" })] = true end
      test.equal(items, { a = true, b = true, c = true })
    end,

    ["two generators of one test differ"] = function()
      local one, other = test.random(), test.random()
      test.not_equal(one:bytes(16), other:bytes(16))
    end,
  },

  stream = {
    ["what comes byte by byte is read byte by byte"] = function()
      local stream = test.stream({ { send = "abc", cut = 1 }, { send = "defg", cut = 2 }, { close = true } })
      local parts = {}
      while true do
        local part, err = stream:read()
        if not part then
          test.fails("closed", part, err)
          break
        end
        parts[#parts + 1] = part
      end
      test.equal(parts, { "a", "b", "c", "de", "fg" })
    end,

    ["what is expected may come in any pieces"] = function()
      local stream, task = test.stream({ { expect = "hello " }, { send = "ok" }, { expect = "world" } })
      stream:write("hel")
      stream:flush()
      stream:write("lo wor")
      test.equal(stream:read(2), "ok")
      stream:write("ld")
      task:join()
    end,

    ["other bytes than expected fail the test, with both"] = function()
      local message = test.raises("step 2 of the stream: other bytes came", cosocket.group, function()
        local stream = test.stream({ { send = "go" }, { expect = "hello" } })
        stream:read(2)
        stream:write("help")
        test.fails("closed", stream:read())
      end)
      test.matches(message, 'expected "hello"\n  actual   "help"\n  first difference at byte 4')
    end,

    ["an end before what is expected fails the test"] = function()
      test.raises("step 1 of the stream:", cosocket.group, function()
        local stream = test.stream({ { expect = "hello" } })
        stream:write("he")
        stream:close()
      end)
    end,

    ["a stream left open is played to its end"] = function()
      local scripts = run.current().scripts
      test.stream({ { stall = 3600 }, { expect = "hello" } }):write("hello")
      stream.finish(scripts)
      test.raises('expected "hello"\n  actual   "hel"', cosocket.group, function()
        test.stream({ { expect = "hello" } }):write("hel")
        stream.finish(scripts)
      end)
    end,

    ["an hour of stalling takes an hour of the clock and no time"] = function()
      local began = cosocket.now()
      local stream = test.stream({ { stall = 3600 }, { send = "late" } })
      test.equal(stream:read(), "late")
      test.near(cosocket.now() - began, 3600, 1)
    end,

    ["a reset is read after what came before it"] = function()
      local stream = test.stream({ { send = "last words" }, { reset = true } })
      test.equal(stream:read(10), "last words")
      test.equal(test.fails("closed", stream:read()).code, "ECONNRESET")
    end,

    ["an end that is sent leaves the other direction open"] = function()
      local stream, task = test.stream({ { shutdown = true }, { expect = "still here" }, { expect_close = true } })
      test.fails("closed", stream:read())
      stream:write("still here")
      stream:close()
      task:join()
    end,

    ["bytes instead of the end fail the test"] = function()
      test.raises('expected the end of the stream, but this came\n  "more"', cosocket.group, function()
        local stream = test.stream({ { expect_close = true } })
        stream:write("more")
        stream:close()
      end)
    end,

    ["a function is a step too"] = function()
      local stream = test.stream({
        { expect = "ab" },
        function(far, input)
          while #input < 2 do far:fill(input) end
          far:write(input:take(2):upper())
        end,
      })
      stream:write("abcd")
      test.equal(stream:read(2), "CD")
    end,

    ["steps that cannot be played are refused"] = function()
      test.raises("steps must be a table, not a nil", test.stream)
      local function refused(message, step)
        test.raises("step 2 of a stream: " .. message, test.stream, { { close = true }, step })
      end
      refused("a string, not a table or a function", "hello")
      refused("both `close` and `reset`", { close = true, reset = true })
      refused("unknown key `wait` (known are cut, close, expect,", { wait = 1 })
      refused("`send` must be a string, not a number", { send = 5 })
      refused("nothing to do", {})
      refused("`cut` goes with `send` and is an integer from 1 on", { expect = "a", cut = 1 })
      refused("`cut` goes with `send` and is an integer from 1 on", { send = "a", cut = 0 })
    end,
  },
}
