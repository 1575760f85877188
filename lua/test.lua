--- test: checks, random numbers and scripted streams for the test files that `moonwire test` runs.
---
--- A test file ends in `_test.lua` and returns its tests; their names are statements. Nested
--- tables are groups. Each test runs in a task of its own, on a clock that jumps over waiting.
---
---     local cosocket = require("cosocket")
---     local test = require("test")
---
---     return {
---       ["a line split at any byte is one line"] = function()
---         test.every_cut("hello\r\n", function(first, second)
---           local buffer = cosocket.buffer(first)
---           test.equal(buffer:line(), nil)
---           test.equal(buffer:append(second):line(), "hello")
---         end)
---       end,
---
---       ["a greeting that comes byte by byte is answered"] = function()
---         local stream = test.stream({
---           { send = "220 hello\r\n", cut = 1 },
---           { expect = "QUIT\r\n" },
---           { close = true },
---         })
---         test.equal(stream:read_line(), "220 hello")
---         stream:write("QUIT\r\n")
---         test.fails("closed", stream:read())
---       end,
---     }
---
--- For plain conditions `assert(value, message)` does. A failed check fails its test even where the
--- error it raises is caught on the way.

local diff = require("test.diff")
local random = require("test.random")
local run = require("test.run")
local show = require("test.show")
local stream = require("test.stream")

local test = {}

---@param what string
---@param note? string
---@return string
local function with_note(what, note)
  return note and ("%s (%s)"):format(what, note) or what
end

-- Checks ----------------------------------------------------------------------

--- Both are the same, tables by what is in them (metatables aside), strings byte by byte.
---@param actual any
---@param expected any
---@param note? string
function test.equal(actual, expected, note)
  local text = diff.values(actual, expected)
  if text then run.fail(with_note("not equal", note) .. text) end
end

--- The two differ.
---@param actual any
---@param unexpected any
---@param note? string
function test.not_equal(actual, unexpected, note)
  if not diff.values(actual, unexpected) then
    run.fail(("%s: both are\n  %s"):format(with_note("equal", note), (show.value(actual):gsub("\n", "\n  "))))
  end
end

--- Anything but `nil` and `false`.
---@generic T
---@param value T?
---@param note? string
---@return T value
function test.truthy(value, note)
  if not value then run.fail(("%s: %s"):format(with_note("not true", note), tostring(value))) end
  return value
end

--- `nil` or `false`.
---@param value any
---@param note? string
function test.falsy(value, note)
  if value then run.fail(("%s: %s"):format(with_note("not false", note), show.value(value))) end
end

--- Not further than `tolerance` apart.
---@param actual number
---@param expected number
---@param tolerance number
function test.near(actual, expected, tolerance)
  if type(actual) ~= "number" then run.fail(("not a number: %s"):format(show.value(actual))) end
  -- The comparison is written so that "not a number" is never near.
  if not (math.abs(actual - expected) <= tolerance) then
    run.fail(("not near: expected %s, give or take %s, got %s"):format(expected, tolerance, actual))
  end
end

--- The text contains the Lua pattern.
---@param text string
---@param pattern string
---@return any ... The pattern's captures, or where it begins and ends.
function test.matches(text, pattern)
  if type(text) ~= "string" then run.fail(("not a string: %s"):format(show.value(text))) end
  local function answer(first, last, ...)
    if not first then run.fail(("no match\n  pattern %s\n  text    %s"):format(show.quote(pattern), show.plain(text))) end
    if select("#", ...) > 0 then return ... end
    return first, last
  end
  return answer(text:find(pattern))
end

local KINDS = {}
for kind in ("closed refused protocol timeout cancelled limit resolve connect tls io"):gmatch("%a+") do
  KINDS[kind] = true
end

--- The answer is `nil` and an error of `kind`: `test.fails("timeout", stream:read())`.
---@param kind cosocket.ErrorKind
---@param value any
---@param err any
---@return cosocket.Error err
function test.fails(kind, value, err)
  if not KINDS[kind] then error(("%q is not a kind of error"):format(tostring(kind)), 2) end
  if value ~= nil then
    run.fail(("did not fail: expected a %s error, got\n  %s"):format(kind, (show.value(value):gsub("\n", "\n  "))))
  end
  if type(err) ~= "table" or not KINDS[err.kind] or type(err.op) ~= "string" or type(err.message) ~= "string" then
    run.fail(("not an error (kind, op, message): %s"):format(show.value(err)))
  end
  if err.kind ~= kind then run.fail(("a %s error, not a %s one\n  %s"):format(err.kind, kind, tostring(err))) end
  return err
end

--- The function raises, and the message contains `pattern`, as it stands or as a Lua pattern.
---@async
---@param pattern string
---@param fn fun(...): ...
---@param ... any
---@return string message
function test.raises(pattern, fn, ...)
  local failures = run.current().failures
  local count = #failures
  local ok, err = pcall(fn, ...)
  -- Checks that failed inside were meant to.
  for i = #failures, count + 1, -1 do failures[i] = nil end
  if ok then run.fail(("nothing was raised; expected %s"):format(show.quote(pattern))) end
  local message = tostring(err)
  if not message:find(pattern, 1, true) then
    local is_pattern, found = pcall(string.find, message, pattern)
    if not (is_pattern and found) then
      run.fail(("raised something else\n  expected %s\n  actual   %s"):format(show.quote(pattern), show.quote(message)))
    end
  end
  return message
end

--- Calls `fn` with both parts of `bytes`, once for every place where they can be cut.
---@async
---@param bytes string At least two.
---@param fn fun(first: string, second: string)
function test.every_cut(bytes, fn)
  if #bytes < 2 then error("one byte cannot be cut: this would check nothing", 2) end
  local current = run.current()
  local outer = current.context
  for cut = 1, #bytes - 1 do
    current.context = ("cut after byte %d of %d"):format(cut, #bytes)
    fn(bytes:sub(1, cut), bytes:sub(cut + 1))
  end
  current.context = outer
end

--- Ends the test here. It counts as skipped, and is listed with the reason.
---@param reason string
function test.skip(reason)
  if type(reason) ~= "string" or reason == "" then error("a skipped test needs a reason", 2) end
  run.skip(reason)
end

--- A generator of random numbers. Without a seed of its own it follows `--seed`, and a failing test names that.
---@param seed? integer
---@return test.Random
function test.random(seed)
  if seed then return random.new(seed) end
  local current = run.current()
  current.random_count = current.random_count + 1
  return random.new(current.seed + (current.random_count << 32))
end

--- A stream for the code under test, whose other end plays the steps, in order. When the test ends the stream
--- is closed, and everything expected must have come.
---@param steps (test.Step|fun(far: cosocket.Stream, input: cosocket.Buffer))[]
---@return cosocket.Stream stream
---@return cosocket.Task task Ends with the last step.
function test.stream(steps)
  return stream.new(steps)
end

run.hide_me()

return test
