-- Runs one test file. `moonwire test` starts a process for each file, and this in it; `test.host` tells what to
-- run and takes the results.

local cosocket = require("cosocket")
local host = require("test.host")
local run = require("test.run")
local show = require("test.show")
local stream = require("test.stream")
-- Tests get this one, even where a project has a file of that name.
require("test")

package.path = host.path .. package.path

-- What a test prints before it hangs must not be lost with it.
local stdout = io.stdout
stdout:setvbuf("line")

local OWN_SOURCE = debug.getinfo(1, "S").short_src

--- Raised in a test's group when the test is over: whatever it left running is cancelled.
local OVER = setmetatable({}, { __tostring = function() return "the test is over" end })

--- An error as text.
local function describe(err)
  if type(err) == "table" and not (getmetatable(err) or {}).__tostring then return "error: " .. show.value(err) end
  return tostring(err)
end

--- A traceback without the frames of this file and of the checks, which are everywhere the same.
---@param text string
---@return string[]
local function steps_of(text)
  local steps = {}
  for line in text:gmatch("[^\n]+") do
    line = line:gsub("^%s+", "")
    local source = line:match("^(.-):%d*:? in ") or line:match("^(.-): in ")
    local is_ours = source == OWN_SOURCE or source == "[cosocket]" or run.is_hidden(source or "")
    local is_plumbing = line:find("^%[C%]: in ") or line:find("^%(%.%.%.tail calls%.%.%.%)") or line == "stack traceback:"
    if not is_ours and not is_plumbing then steps[#steps + 1] = line end
  end
  -- A task of which nothing is left.
  for i = #steps, 1, -1 do
    if steps[i]:find("^in .*:$") and (not steps[i + 1] or steps[i + 1]:find("^in .*:$")) then table.remove(steps, i) end
  end
  return steps
end

--- The way to an error, unless it is one step that the message tells already.
---@param message string
---@param ... string Tracebacks, the inner ones first.
---@return string
local function way_to(message, ...)
  local steps = {}
  for _, text in ipairs({ ... }) do
    for _, step in ipairs(steps_of(text)) do steps[#steps + 1] = step end
  end
  if #steps == 1 and steps[1]:match("^.-:%d+:") == message:match("^.-:%d+:") then return "" end
  return table.concat(steps, "\n")
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

--- Runs one test in a task of its own.
---
--- The error of such a task, with the way it took through other tasks, comes back from the runtime.
---@return test.Run state
---@return string? message What the test failed with.
---@return string? way
local function run_case(case)
  local state = run.begin(host.seed)
  local ended = cosocket.event()
  local raised, way
  cosocket.spawn(case.name, function()
    local mark <close> = setmetatable({}, { __close = function() ended:set() end })
    cosocket.group(function()
      local ok, err = xpcall(case.run, function(err)
        raised, way = err, debug.traceback("", 2)
        return err
      end)
      if not ok then error(err, 0) end
      stream.finish(state.scripts)
      error(OVER, 0)
    end)
  end)
  ended:wait()
  local is_over = false
  for _, failure in ipairs(host.failures()) do
    if failure.message == tostring(OVER) then
      is_over = true
    elseif raised ~= nil and failure.message == tostring(raised) then
      local message = describe(raised)
      return state, message, way_to(message, way, failure.traceback)
    else
      return state, failure.message, way_to(failure.message, failure.traceback)
    end
  end
  if state.failures[1] then
    return state, state.failures[1] .. "\n  (the error was caught before it could end the test)", ""
  end
  if not is_over then return state, "was cancelled from outside", "" end
  return state
end

--- Tells how a test ended. Answers whether it passed or was skipped.
---@param state test.Run
---@param message? string
---@param way? string
---@return boolean
local function report(state, message, way)
  stdout:flush()
  if not message then
    host.passed()
  elseif state.skipped and message == tostring(state.skipped) then
    host.skipped(state.skipped.reason)
  else
    if state.context then message = ("%s\n  (%s)"):format(message, state.context) end
    if state.random_count > 0 then message = ("%s\n  (repeat with --seed %d)"):format(message, state.seed) end
    host.failed(message, way)
    return false
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

local state = run.begin(host.seed)
local way = ""
local loaded, cases = xpcall(load_cases, function(err)
  way = debug.traceback("", 2)
  return err
end)
if loaded then
  local names = {}
  for i, case in ipairs(cases) do names[i] = case.name end
  host.plan(names)
  for i = host.first, host.list and 0 or #cases do
    host.begin(i)
    if not report(run_case(cases[i])) and host.fail_fast then break end
  end
elseif state.skipped and rawequal(cases, state.skipped) then
  host.plan({ "the whole file" })
  if not host.list then
    host.begin(1)
    report(state, tostring(state.skipped))
  end
else
  stdout:flush()
  local message = describe(cases)
  host.failed(message, way_to(message, way))
end
host.done()
