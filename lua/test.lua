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

local cosocket = require("cosocket")

--- Longest table that is shown on one line.
local LINE_MAX = 72
--- Bytes of one string that are shown.
local STRING_MAX = 1000
--- Bytes shown before the first difference of two strings that are too long to show.
local BEFORE_MAX = 40
--- Unchanged lines shown around a change.
local CONTEXT_LINES = 3
--- Pairs of lines compared at most; beyond that all lines count as changed.
local PAIRS_MAX = 1000000
--- Virtual seconds after which everything that can happen has happened.
local SETTLE = 0.001

local test = {}

-- Showing values --------------------------------------------------------------

local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\", ['"'] = '\\"' }

---@param text string
---@return string
local function quote(text)
  local shown = text:gsub('[%c\\"]', function(char)
    return ESCAPES[char] or ("\\x%02x"):format(char:byte())
  end)
  if not utf8.len(shown) then
    shown = shown:gsub("[\x80-\xff]", function(char) return ("\\x%02x"):format(char:byte()) end)
  end
  return '"' .. shown .. '"'
end

---@param value any
---@return string
local function show_plain(value)
  if type(value) == "string" then
    if #value <= STRING_MAX then return quote(value) end
    return ("%s .. (%d bytes)"):format(quote(value:sub(1, STRING_MAX)), #value)
  elseif math.type(value) == "float" and value == value and math.abs(value) ~= math.huge then
    local short = ("%.14g"):format(value)
    local exact = tonumber(short) == value and short or ("%.17g"):format(value)
    return exact:find("[.e]") and exact or exact .. ".0"
  end
  return tostring(value)
end

local RANKS = { number = 1, string = 2, boolean = 3 }

---@param one any
---@param other any
---@return boolean
local function key_precedes(one, other)
  local one_rank, other_rank = RANKS[type(one)] or 4, RANKS[type(other)] or 4
  if one_rank ~= other_rank then return one_rank < other_rank end
  if one_rank <= 2 then return one < other end
  return tostring(one) < tostring(other)
end

---@param of table
---@return any[]
local function sorted_keys(of)
  local keys = {}
  for key in next, of do keys[#keys + 1] = key end
  table.sort(keys, key_precedes)
  return keys
end

---@param key any
---@return string
local function show_key(key)
  if type(key) == "string" and key:find("^[%a_][%w_]*$") then return key end
  return ("[%s]"):format(show_plain(key))
end

--- The lines that show `value`; equal values have equal lines.
---@param value any
---@param indent string
---@param open table<table, true> Tables being shown around this one.
---@return string[]
local function show_lines(value, indent, open)
  if type(value) ~= "table" then return { show_plain(value) } end
  if open[value] then return { "<itself>" } end
  open[value] = true
  local items, flat, length = {}, true, 0
  local list_end = rawlen(value)
  for _, key in ipairs(sorted_keys(value)) do
    local is_item = math.type(key) == "integer" and key >= 1 and key <= list_end
    local lines = show_lines(rawget(value, key), indent .. "  ", open)
    if not is_item then lines[1] = ("%s = %s"):format(show_key(key), lines[1]) end
    flat = flat and #lines == 1
    length = length + #lines[1] + 2
    items[#items + 1] = lines
  end
  open[value] = nil
  if #items == 0 then return { "{}" } end
  if flat and #indent + length <= LINE_MAX then
    local firsts = {}
    for i, lines in ipairs(items) do firsts[i] = lines[1] end
    return { ("{ %s }"):format(table.concat(firsts, ", ")) }
  end
  local all = { "{" }
  for _, lines in ipairs(items) do
    for i, line in ipairs(lines) do
      all[#all + 1] = (i == 1 and indent .. "  " or "") .. line .. (i == #lines and "," or "")
    end
  end
  all[#all + 1] = indent .. "}"
  return all
end

--- Any value as text, always the same for equal values.
---@param value any
---@return string
function test.show(value)
  return table.concat(show_lines(value, "", {}), "\n")
end

-- Comparing values ------------------------------------------------------------

--- Where two values differ first: the way there (`.headers[2]`) and what is there.
---@param actual any
---@param expected any
---@param way string
---@param pairs_seen table<table, table>
---@return string? way `nil` when they do not differ
---@return any actual
---@return any expected
local function difference(actual, expected, way, pairs_seen)
  if rawequal(actual, expected) or actual == expected then return nil end
  if actual ~= actual and expected ~= expected then return nil end -- two times "not a number"
  if type(actual) ~= "table" or type(expected) ~= "table" then return way, actual, expected end
  if pairs_seen[actual] == expected then return nil end
  pairs_seen[actual] = expected
  local keys = {}
  for key in next, actual do keys[key] = true end
  for key in next, expected do keys[key] = true end
  for _, key in ipairs(sorted_keys(keys)) do
    local shown = show_key(key)
    local step = shown:sub(1, 1) == "[" and shown or "." .. shown
    local found, one, other = difference(rawget(actual, key), rawget(expected, key), way .. step, pairs_seen)
    if found then return found, one, other end
  end
  return nil
end

--- The length of the longest common run of lines from each pair of positions on.
---@param old string[]
---@param new string[]
---@return integer[][]
local function common_lengths(old, new)
  local lengths = { [#old + 1] = {} }
  for j = 1, #new + 1 do lengths[#old + 1][j] = 0 end
  for i = #old, 1, -1 do
    local row, below = { [#new + 1] = 0 }, lengths[i + 1]
    for j = #new, 1, -1 do
      row[j] = old[i] == new[j] and below[j + 1] + 1 or math.max(below[j], row[j + 1])
    end
    lengths[i] = row
  end
  return lengths
end

--- Marks lines: `-` only in `old`, `+` only in `new`, blank in both.
---@param old string[]
---@param new string[]
---@return string[]
local function mark_lines(old, new)
  local marked = {}
  local function mark(sign, line) marked[#marked + 1] = sign .. " " .. line end
  local lengths = #old * #new <= PAIRS_MAX and common_lengths(old, new) or nil
  local i, j = 1, 1
  while i <= #old or j <= #new do
    if lengths and i <= #old and j <= #new and old[i] == new[j] then
      mark(" ", old[i])
      i, j = i + 1, j + 1
    elseif i <= #old and (j > #new or not lengths or lengths[i + 1][j] >= lengths[i][j + 1]) then
      mark("-", old[i])
      i = i + 1
    else
      mark("+", new[j])
      j = j + 1
    end
  end
  return marked
end

--- A diff of two lists of lines, without what is far from any change.
---@param old string[]
---@param new string[]
---@return string
local function diff(old, new)
  local marked = mark_lines(old, new)
  local near = {}
  for at, line in ipairs(marked) do
    if line:sub(1, 1) ~= " " then
      for i = at - CONTEXT_LINES, at + CONTEXT_LINES do near[i] = true end
    end
  end
  local shown = {}
  for at, line in ipairs(marked) do
    if near[at] then
      shown[#shown + 1] = "  " .. line
    elseif near[at - 1] or at == 1 then
      shown[#shown + 1] = "    ..."
    end
  end
  return table.concat(shown, "\n")
end

--- The lines of a text, each shown as a string of its own.
---@param text string
---@return string[]
local function text_lines(text)
  local lines = {}
  for line in text:gmatch("[^\n]*\n?") do
    if line ~= "" then lines[#lines + 1] = quote(line) end
  end
  return lines
end

---@param actual string
---@param expected string
---@return string
local function string_difference(actual, expected)
  local at = 1
  while at <= #actual and actual:byte(at) == expected:byte(at) do at = at + 1 end
  if #actual <= STRING_MAX * 4 and #expected <= STRING_MAX * 4 and expected:find("\n.") then
    return ("  first difference at byte %d\n%s"):format(at, diff(text_lines(expected), text_lines(actual)))
  end
  local from = #actual + #expected > 2 * STRING_MAX and math.max(1, at - BEFORE_MAX) or 1
  local function part(text)
    local shown = quote(text:sub(from, from + STRING_MAX // 2))
    if from > 1 or #text > from + STRING_MAX // 2 then
      return ("%s (from byte %d of %d)"):format(shown, from, #text)
    end
    return shown
  end
  return ("  expected %s\n  actual   %s\n  first difference at byte %d"):format(part(expected), part(actual), at)
end

--- What to say about two values that differ.
---@param actual any
---@param expected any
---@return string? text `nil` when they do not differ
local function describe_difference(actual, expected)
  local way, one, other = difference(actual, expected, "", {})
  if not way then return nil end
  local text = way == "" and "" or (" at %s"):format(way)
  if type(one) == "string" and type(other) == "string" then
    text = text .. "\n" .. string_difference(one, other)
  elseif type(one) ~= "table" or type(other) ~= "table" then
    local function brief(value)
      local shown = show_lines(value, "", {})
      return #shown == 1 and shown[1] or ("%s ... %s (a table)"):format(shown[1], shown[#shown])
    end
    text = ("%s\n  expected %s\n  actual   %s"):format(text, brief(other), brief(one))
  end
  if type(actual) == "table" or type(expected) == "table" then
    local old, new = show_lines(expected, "", {}), show_lines(actual, "", {})
    if #old > 1 or #new > 1 or way ~= "" then text = text .. "\n" .. diff(old, new) end
  end
  return text
end

-- The test that is running ----------------------------------------------------

--- What is known about one test while it runs. For runners.
---@class test.Run
---@field seed integer
---@field failures string[] What failed checks said, caught or not.
---@field context string? Which round of a loop is running.
---@field random_count integer Generators handed out.
---@field streams test.Script[]

---@param seed? integer
---@return test.Run
local function new_run(seed)
  return { seed = seed or os.time(), failures = {}, random_count = 0, streams = {} }
end

-- Outside a runner there is no test to note anything for, but checks and helpers work all the same.
local current = new_run()

--- Starts a test: what checks and helpers do from now on is noted in the answer. For runners.
---@param seed integer
---@return test.Run
function test.begin(seed)
  current = new_run(seed)
  return current
end

---@class test.Skip
---@field reason string
local Skip = { __name = "test.Skip" }
Skip.__tostring = function(skip) return "skipped: " .. skip.reason end

--- The reason, when `err` is what `skip` raised. For runners.
---@param err any
---@return string?
function test.skip_reason(err)
  return getmetatable(err) == Skip and err.reason or nil
end

--- Ends the test here. It counts as skipped, and is listed with the reason.
---@param reason string
function test.skip(reason)
  if type(reason) ~= "string" or reason == "" then error("a skipped test needs a reason", 2) end
  error(setmetatable({ reason = reason }, Skip))
end

local OWN_SOURCE = debug.getinfo(1, "S").source

--- `file:line` of the code that called into this module.
---@return string
local function caller()
  local level = 2
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then return "?" end
    if info.source ~= OWN_SOURCE and info.currentline > 0 then
      return ("%s:%d"):format(info.short_src, info.currentline)
    end
    level = level + 1
  end
end

--- Fails the running test.
---@param message string
---@param where? string
local function fail(message, where)
  local text = ("%s: %s"):format(where or caller(), message)
  table.insert(current.failures, text)
  error(text, 0)
end

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
  local text = describe_difference(actual, expected)
  if text then fail(with_note("not equal", note) .. text) end
end

--- The two differ.
---@param actual any
---@param unexpected any
---@param note? string
function test.not_equal(actual, unexpected, note)
  if not difference(actual, unexpected, "", {}) then
    fail(("%s: both are\n  %s"):format(with_note("equal", note), (test.show(actual):gsub("\n", "\n  "))))
  end
end

--- Anything but `nil` and `false`.
---@generic T
---@param value T?
---@param note? string
---@return T value
function test.truthy(value, note)
  if not value then fail(("%s: %s"):format(with_note("not true", note), tostring(value))) end
  return value
end

--- `nil` or `false`.
---@param value any
---@param note? string
function test.falsy(value, note)
  if value then fail(("%s: %s"):format(with_note("not false", note), test.show(value))) end
end

--- Not further than `tolerance` apart.
---@param actual number
---@param expected number
---@param tolerance number
function test.near(actual, expected, tolerance)
  if type(actual) ~= "number" then fail(("not a number: %s"):format(test.show(actual))) end
  -- The comparison is written so that "not a number" is never near.
  if not (math.abs(actual - expected) <= tolerance) then
    fail(("not near: expected %s, give or take %s, got %s"):format(expected, tolerance, actual))
  end
end

--- The text contains the Lua pattern.
---@param text string
---@param pattern string
---@return any ... The pattern's captures, or where it begins and ends.
function test.matches(text, pattern)
  if type(text) ~= "string" then fail(("not a string: %s"):format(test.show(text))) end
  local function answer(first, last, ...)
    if not first then fail(("no match\n  pattern %s\n  text    %s"):format(quote(pattern), show_plain(text))) end
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
    fail(("did not fail: expected a %s error, got\n  %s"):format(kind, (test.show(value):gsub("\n", "\n  "))))
  end
  if type(err) ~= "table" or not KINDS[err.kind] or type(err.op) ~= "string" or type(err.message) ~= "string" then
    fail(("not an error (kind, op, message): %s"):format(test.show(err)))
  end
  if err.kind ~= kind then fail(("a %s error, not a %s one\n  %s"):format(err.kind, kind, tostring(err))) end
  return err
end

--- The function raises, and the message contains `pattern`, as it stands or as a Lua pattern.
---@async
---@param pattern string
---@param fn fun(...): ...
---@param ... any
---@return string message
function test.raises(pattern, fn, ...)
  local failures = #current.failures
  local ok, err = pcall(fn, ...)
  -- Checks that failed inside were meant to.
  for i = #current.failures, failures + 1, -1 do current.failures[i] = nil end
  if ok then fail(("nothing was raised; expected %s"):format(quote(pattern))) end
  local message = tostring(err)
  if not message:find(pattern, 1, true) then
    local is_pattern, found = pcall(string.find, message, pattern)
    if not (is_pattern and found) then
      fail(("raised something else\n  expected %s\n  actual   %s"):format(quote(pattern), quote(message)))
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
  local outer = current.context
  for cut = 1, #bytes - 1 do
    current.context = ("cut after byte %d of %d"):format(cut, #bytes)
    fn(bytes:sub(1, cut), bytes:sub(cut + 1))
  end
  current.context = outer
end

-- Random numbers --------------------------------------------------------------

--- `random()` is a number from 0 up to 1; `random(n)` an integer from 1 to n; `random(m, n)` one from m to n.
---@class test.Random
---@field seed integer
---@field private state integer
---@overload fun(): number
---@overload fun(n: integer): integer
---@overload fun(m: integer, n: integer): integer
local Random = {}
Random.__index = Random

--- The next 64 bits (xorshift64*).
---@package
---@return integer
function Random:bits()
  local x = self.state
  x = x ~ (x >> 12)
  x = x ~ (x << 25)
  x = x ~ (x >> 27)
  self.state = x
  return x * 0x2545F4914F6CDD1D
end

---@param self test.Random
---@param low? integer
---@param high? integer
---@return number
function Random.__call(self, low, high)
  if not low then return (self:bits() >> 11) * 2.0 ^ -53 end
  if not high then low, high = 1, low end
  if low > high then error(("no number from %d to %d"):format(low, high), 2) end
  local count = high - low + 1
  if count <= 0 then -- more than half of all integers: draw until one fits
    local drawn
    repeat drawn = self:bits() until drawn >= low and drawn <= high
    return drawn
  end
  return low + (self:bits() >> 1) % count
end

--- `n` random bytes.
---@param n integer
---@return string
function Random:bytes(n)
  local parts = {}
  for i = 1, n do parts[i] = string.char(self:bits() >> 56) end
  return table.concat(parts)
end

--- One of a list's items.
---@generic T
---@param list T[]
---@return T
function Random:pick(list)
  return list[self(#list)]
end

--- A generator of random numbers. Without a seed of its own it follows `--seed`; a failing test names that.
---@param seed? integer
---@return test.Random
function test.random(seed)
  if not seed then
    current.random_count = current.random_count + 1
    seed = current.seed + (current.random_count - 1) * 0x9E3779B9
  end
  -- The state must not be 0, and near seeds shall not give near numbers (splitmix64).
  local x = seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019
  x = (x ~ (x >> 30)) * 0xBF58476D1CE4E5B9
  x = (x ~ (x >> 27)) * 0x94D049BB133111EB
  x = x ~ (x >> 31)
  return setmetatable({ seed = seed, state = x ~= 0 and x or 1 }, Random)
end

-- Scripted streams ------------------------------------------------------------

--- One thing the other end does. A function is called with the other end's stream and what was read from it
--- but not yet expected.
---@class test.Step
---@field send? string Sends the bytes.
---@field cut? integer With `send`: at most so many at once; each part arrives by itself.
---@field expect? string Waits for exactly these bytes.
---@field expect_close? true Waits for the end of the stream; bytes before it are a failure.
---@field stall? number Does nothing for so many seconds.
---@field shutdown? true Sends the end of the stream, and goes on reading.
---@field reset? true Drops the connection: this side reads ECONNRESET.
---@field close? true Closes.

---@class test.Script
---@field where string
---@field steps (test.Step|fun(far: cosocket.Stream, input: cosocket.Buffer))[]
---@field at integer
---@field near cosocket.Stream
---@field far cosocket.Stream
---@field input cosocket.Buffer
---@field task cosocket.Task?
---@field ended boolean

---@param script test.Script
---@param message string
local function fail_step(script, message)
  fail(("step %d of the stream: %s"):format(script.at, message), script.where)
end

--- Lets everybody else go on until they wait.
---@async
local function settle()
  cosocket.sleep(SETTLE)
end

--- What each kind of step does, and what its value is.
---@type table<string, {type: string, play: fun(script: test.Script, step: test.Step)}>
local STEPS = {
  send = {
    type = "string",
    play = function(script, step)
      local bytes, size = step.send, step.cut or math.max(1, #step.send)
      for from = 1, #bytes, size do
        -- Nobody may be reading any more; a real peer would not know either.
        if not script.far:write(bytes:sub(from, from + size - 1)) or not script.far:flush() then return end
        if step.cut then settle() end
      end
    end,
  },
  expect = {
    type = "string",
    play = function(script, step)
      local wanted = step.expect
      while true do
        local got = script.input:peek(#wanted)
        if got == wanted then
          script.input:skip(#wanted)
          return
        end
        if got ~= wanted:sub(1, #got) then
          fail_step(script, "other bytes came\n" .. string_difference(script.input:peek(), wanted))
        end
        local count, err = script.far:fill(script.input)
        if not count then
          fail_step(script, ("%s\n%s"):format(err, string_difference(script.input:peek(), wanted)))
        end
      end
    end,
  },
  expect_close = {
    type = "boolean",
    play = function(script)
      local count, err
      if #script.input == 0 then count, err = script.far:fill(script.input) end
      if #script.input > 0 then
        fail_step(script, "expected the end of the stream, but this came\n  " .. show_plain(script.input:peek()))
      end
      if not count and err and err.kind ~= "closed" then fail_step(script, tostring(err)) end
    end,
  },
  stall = { type = "number", play = function(_, step) cosocket.sleep(step.stall) end },
  shutdown = { type = "boolean", play = function(script) script.far:shutdown("write") end },
  reset = {
    type = "boolean",
    play = function(script)
      settle() -- what was sent before must have been read: a reset throws it away
      -- The system resets a connection that is closed with unread bytes, so there must be one.
      script.near:try_flush(cosocket.buffer("\0"))
      settle()
      script.far:close()
    end,
  },
  close = { type = "boolean", play = function(script) script.far:close() end },
}

---@async
---@param script test.Script
local function play(script)
  for at, step in ipairs(script.steps) do
    script.at = at
    if type(step) == "function" then
      step(script.far, script.input)
    else
      for name, kind in next, STEPS do
        if step[name] ~= nil then
          if script.task then script.task:name(("stream of %s, step %d: %s"):format(script.where, at, name)) end
          kind.play(script, step)
        end
      end
    end
  end
  script.ended = true
end

---@param at integer
---@param step any
---@return string? mistake
local function mistake_in(at, step)
  if type(step) == "function" then return nil end
  if type(step) ~= "table" then return ("step %d is a %s, not a table or a function"):format(at, type(step)) end
  local verb
  for _, name in ipairs(sorted_keys(step)) do
    local kind = STEPS[name]
    if kind then
      if verb then return ("step %d has both `%s` and `%s`"):format(at, verb, name) end
      verb = name
      if type(step[name]) ~= kind.type then
        return ("step %d: `%s` must be a %s, not a %s"):format(at, name, kind.type, type(step[name]))
      end
    elseif name ~= "cut" then
      return ("step %d: unknown key `%s`"):format(at, tostring(name))
    end
  end
  if not verb then return ("step %d does nothing: it has none of the known keys"):format(at) end
  if step.cut ~= nil and (verb ~= "send" or math.type(step.cut) ~= "integer" or step.cut < 1) then
    return ("step %d: `cut` goes with `send` and is an integer from 1 on"):format(at)
  end
end

--- A stream for the code under test, whose other end plays the steps, in order. When the test ends the stream
--- is closed, and everything expected must have come.
---@param steps (test.Step|fun(far: cosocket.Stream, input: cosocket.Buffer))[]
---@return cosocket.Stream stream
---@return cosocket.Task task Ends with the last step.
function test.stream(steps)
  if type(steps) ~= "table" then error(("steps must be a table, not a %s"):format(type(steps)), 2) end
  for at, step in ipairs(steps) do
    local mistake = mistake_in(at, step)
    if mistake then error(mistake, 2) end
  end
  local near, far = cosocket.pair()
  ---@type test.Script
  local script = {
    where = caller(),
    steps = steps,
    at = 0,
    near = assert(near, far),
    far = far --[[@as cosocket.Stream]],
    input = cosocket.buffer(),
    ended = false,
  }
  script.task = cosocket.spawn(("stream of %s"):format(script.where), play, script)
  table.insert(current.streams, script)
  return near, script.task
end

--- Ends a test whose function has returned: streams are played to their end, and checks that failed
--- unseen fail the test. For runners.
---@async
---@param run test.Run
function test.finish(run)
  for _, script in ipairs(run.streams) do
    if not script.ended then
      script.near:close()
      script.task:join()
    end
  end
  local failure = run.failures[1]
  if failure then error(failure .. "\n  (the error was caught before it could end the test)", 0) end
end

return test
