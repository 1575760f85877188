-- Runs one test file. `moonwire test` starts a process for each file, and this in it; `test.host` tells what to
-- run and takes the results.

local cosocket = require("cosocket")
local host = require("test.host")
local run = require("test.run")
local show = require("test.show")
local stream = require("test.stream")

-- Only now: a project may have a file of the name of one of the modules above.
package.path = host.path .. package.path

-- What a test prints before it hangs must not be lost with it.
local stdout = io.stdout
stdout:setvbuf("line")

local OWN_SOURCE = debug.getinfo(1, "S").short_src

--- Raised in a test's group when the test is over: whatever it left running is cancelled.
local OVER = {}

--- What an error says, and the way that led to it.
local function describe(err)
  if type(err) == "table" and not (getmetatable(err) or {}).__tostring then return "error: " .. show.value(err) end
  return tostring(err)
end

--- The traceback of the caller, without the frames of this file and of the checks.
local function trace()
  local lines = {}
  for line in debug.traceback("", 3):gmatch("\n\t([^\n]+)") do
    if line:sub(1, #OWN_SOURCE + 1) == OWN_SOURCE .. ":" then break end
    if not run.is_hidden(line:match("^(.-):") or "") then lines[#lines + 1] = line end
  end
  if lines[#lines] and lines[#lines]:find("^%[C%]: in function 'xpcall'") then lines[#lines] = nil end
  while lines[1] and lines[1]:find("^%[C%]: in function 'error'") do table.remove(lines, 1) end
  return table.concat(lines, "\n")
end

--- Flattens groups; the order is that of the file.
local function collect(tests, prefix, cases)
  for name, entry in pairs(tests) do
    if type(name) ~= "string" then
      error(("%s is not a name: tests are called by statements"):format(show.value(name)), 0)
    elseif type(entry) == "function" then
      local line = debug.getinfo(entry, "S").linedefined
      cases[#cases + 1] = { name = prefix .. name, line = line, run = entry }
    elseif type(entry) == "table" then
      collect(entry, prefix .. name .. ": ", cases)
    else
      error(("%q is a %s, not a function or a group"):format(prefix .. name, type(entry)), 0)
    end
  end
  return cases
end

local function by_place(one, other)
  if one.line ~= other.line then return one.line < other.line end
  return one.name < other.name
end

--- Runs one test and reports how it ended. Answers whether it is worth going on.
---@return boolean
local function run_case(case)
  local state = run.begin(host.seed)
  local way
  local function body()
    local ok, err = xpcall(case.run, function(err)
      way = trace()
      return err
    end)
    if not ok then error(err, 0) end
    stream.finish(state.scripts)
    -- A check that failed fails its test, whoever caught the error.
    local failure = state.failures[1]
    if failure then error(failure .. "\n  (the error was caught before it could end the test)", 0) end
  end
  local function in_task()
    if cosocket.spawn then cosocket.spawn(case.name, body):join() else body() end
    error(OVER, 0)
  end
  local _, err = pcall(cosocket.group or in_task, in_task)
  stdout:flush()
  local reason = run.skip_reason(err)
  if reason then
    host.skipped(reason)
  elseif err == OVER then
    host.passed()
  else
    local message = describe(err)
    -- A way of one step that the message tells already.
    if way and not way:find("\n") and way:match("^(.-:%d+:)") == message:match("^(.-:%d+:)") then way = nil end
    if state.context then message = ("%s\n  (%s)"):format(message, state.context) end
    if state.random_count > 0 then message = ("%s\n  (repeat with --seed %d)"):format(message, state.seed) end
    host.failed(message, way)
    return not host.fail_fast
  end
  return true
end

--- Loads the file and answers its tests in order.
local function load_cases()
  local chunk, mistake = loadfile(host.file)
  if not chunk then error(mistake, 0) end
  local tests = chunk()
  if type(tests) ~= "table" then
    error(("%s: a test file returns a table of tests, not %s"):format(host.file, show.value(tests)), 0)
  end
  local cases = {}
  for _, case in ipairs(collect(tests, "", {})) do
    if case.name:find(host.filter, 1, true) then cases[#cases + 1] = case end
  end
  table.sort(cases, by_place)
  return cases
end

local way
local loaded, cases = xpcall(load_cases, function(err)
  way = trace()
  return err
end)
if loaded then
  local names = {}
  for i, case in ipairs(cases) do names[i] = case.name end
  host.plan(names)
  for i = host.first, #cases do
    host.begin(i)
    if not run_case(cases[i]) then break end
  end
elseif run.skip_reason(cases) then
  host.plan({ "the whole file" })
  host.begin(1)
  host.skipped(run.skip_reason(cases))
else
  stdout:flush()
  host.broken(describe(cases), way)
end
host.done()
