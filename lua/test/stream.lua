--- test.stream: a stream whose other end plays a script.

local cosocket = require("cosocket")
local diff = require("test.diff")
local run = require("test.run")
local show = require("test.show")

local stream = {}

--- Virtual seconds after which everything that can happen has happened.
local SETTLE = 0.001

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
---@field task cosocket.Task

---@param script test.Script
---@param message string
local function fail_step(script, message)
  run.fail(("step %d of the stream: %s"):format(script.at, message), script.where)
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
          fail_step(script, "other bytes came\n" .. diff.strings(script.input:peek(), wanted))
        end
        local count, err = script.far:fill(script.input)
        if not count then
          fail_step(script, ("%s\n%s"):format(err, diff.strings(script.input:peek(), wanted)))
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
        fail_step(script, "expected the end of the stream, but this came\n  " .. show.plain(script.input:peek()))
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

--- What a step does, or why it cannot be played.
---@param step table
---@return string? verb
---@return string? mistake
local function verb_of(step)
  local verb
  for _, name in ipairs(show.sorted_keys(step)) do
    local kind = STEPS[name]
    if kind and verb then return nil, ("both `%s` and `%s`"):format(verb, name) end
    if kind and type(step[name]) ~= kind.type then
      return nil, ("`%s` must be a %s, not a %s"):format(name, kind.type, type(step[name]))
    end
    if not kind and name ~= "cut" then
      return nil, ("unknown key `%s` (known are cut, %s)"):format(name, table.concat(show.sorted_keys(STEPS), ", "))
    end
    verb = kind and name or verb
  end
  if not verb then return nil, "nothing to do" end
  if step.cut ~= nil and (verb ~= "send" or math.type(step.cut) ~= "integer" or step.cut < 1) then
    return nil, "`cut` goes with `send` and is an integer from 1 on"
  end
  return verb
end

---@async
---@param script test.Script
local function play(script)
  for at, step in ipairs(script.steps) do
    script.at = at
    local verb = type(step) == "table" and verb_of(step) or nil
    script.task:name(("stream of %s, step %d: %s"):format(script.where, at, verb or "a function"))
    if verb then
      STEPS[verb].play(script, step)
    else
      step(script.far, script.input)
    end
  end
end

--- Makes the stream; the steps must be right.
---@param steps (test.Step|fun(far: cosocket.Stream, input: cosocket.Buffer))[]
---@return cosocket.Stream stream
---@return cosocket.Task task
function stream.new(steps)
  if type(steps) ~= "table" then error(("steps must be a table, not a %s"):format(type(steps)), 3) end
  for at, step in ipairs(steps) do
    local mistake
    if type(step) == "table" then
      mistake = select(2, verb_of(step))
    elseif type(step) ~= "function" then
      mistake = ("a %s, not a table or a function"):format(type(step))
    end
    if mistake then error(("step %d of a stream: %s"):format(at, mistake), 3) end
  end
  local near, far = cosocket.pair()
  ---@type test.Script
  local script = {
    where = run.caller(),
    steps = steps,
    at = 0,
    near = assert(near, far),
    far = far --[[@as cosocket.Stream]],
    input = cosocket.buffer(),
  }
  script.task = cosocket.spawn(play, script)
  table.insert(run.current().scripts, script)
  return near, script.task
end

--- Closes the streams of a test that has ended, and waits until each has played its steps: what was expected
--- must have come. A script that failed or was cancelled before has told its group.
---@async
---@param scripts test.Script[]
function stream.finish(scripts)
  for _, script in ipairs(scripts) do
    local status = script.task:status()
    if status == "ready" or status == "waiting" then
      script.near:close()
      script.task:join()
    end
  end
end

run.hide_me()

return stream
