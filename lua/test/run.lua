--- test.run: what is known about the test that is running. For runners, and for the parts of `test`.

--- One test while it runs.
---@class test.Run
---@field seed integer
---@field failures string[] What failed checks said, caught or not.
---@field context string? Which round of a loop is running.
---@field skipped test.Skip?
---@field random_count integer Generators handed out.
---@field scripts test.Script[] The streams it made.

local run = {}

---@param seed integer
---@return test.Run
local function new(seed)
  return { seed = seed, failures = {}, random_count = 0, scripts = {} }
end

-- Outside a runner there is no test to note anything for, but checks and helpers work all the same.
local current = new(os.time())

---@return test.Run
function run.current()
  return current
end

--- Starts a test: what checks and helpers do from now on is noted in the answer.
---@param seed integer
---@return test.Run
function run.begin(seed)
  current = new(seed)
  return current
end

---@class test.Skip
---@field reason string
local Skip = { __name = "test.Skip" }
Skip.__tostring = function(skip) return "skipped: " .. skip.reason end

--- Ends the running test; it is skipped.
---@param reason string
function run.skip(reason)
  current.skipped = setmetatable({ reason = reason }, Skip)
  error(current.skipped)
end

---@type table<string, true>
local own_sources = {}

--- Leaves the calling file out of places and tracebacks: its callers are meant.
function run.hide_me()
  own_sources[debug.getinfo(2, "S").short_src] = true
end

--- Whether a file, as it is called in messages, is a part of the test support.
---@param short_src string
---@return boolean
function run.is_hidden(short_src)
  return own_sources[short_src] == true
end

--- `file:line` of the code that called into the test support.
---@return string
function run.caller()
  local level = 2
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then return "?" end
    if not own_sources[info.short_src] and info.currentline > 0 then
      return ("%s:%d"):format(info.short_src, info.currentline)
    end
    level = level + 1
  end
end

--- Fails the running test.
---@param message string
---@param where? string Default: the caller's place.
function run.fail(message, where)
  local text = ("%s: %s"):format(where or run.caller(), message)
  table.insert(current.failures, text)
  error(text, 0)
end

run.hide_me()

return run
