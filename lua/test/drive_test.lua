-- The loop that joins a session to a stream, with a session that says every line back.
local cosocket = require("cosocket")
local drive = require("net.drive")
local test = require("test")

--- A session of lines: each is an event and is said back; a silent peer is asked, and the third time given up.
local Echo = {}
Echo.__index = Echo

local function new_echo(interval)
  local deadline = interval and cosocket.now() + interval or math.huge
  return setmetatable({ output = cosocket.buffer(), deadline = deadline, interval = interval, asked = 0 }, Echo)
end

function Echo:receive(input)
  local line = input:line()
  if line == "bad" then
    self.output:append("sorry\n")
    return nil, cosocket.error("protocol", "echo", "a bad line")
  end
  if line then self.output:append(line, "\n") end
  return line
end

function Echo:expire(now)
  self.asked = self.asked + 1
  if self.asked == 3 then return nil, cosocket.error("timeout", "echo", "nobody there") end
  self.output:append("?\n")
  self.deadline = now + self.interval
  return true
end

--- Asks for far more than the buffers of the system hold, and reads the answers only later. `told` says how many lines
--- were taken, and how much waited to be sent at most.
local function check_held_back(near, far, echo, told)
  local line, count = ("x"):rep(99), 60000
  local asking = cosocket.spawn(function()
    for _ = 1, count do assert(far:write(line, "\n")) end
    far:shutdown("write")
  end)
  cosocket.sleep(1)
  local taken = told()
  assert(taken > 10 and taken < count // 2, ("%d of %d lines were taken"):format(taken, count))
  test.equal(asking:status(), "waiting")
  for _ = 1, count do assert(assert(far:read_line()) == line) end
  asking:join()
  cosocket.sleep(1)
  local all, most = told()
  test.equal(all, count)
  assert(most <= echo.output_max + #line + 1, most)
  near:close()
end

return {
  ["an event comes when all of it has, and its answer is on the way"] = function()
    local stream, task = test.stream({
      { send = "hel" },
      { stall = 1 },
      { send = "lo\nwor" },
      { expect = "hello\n" },
      { send = "ld\n" },
      { expect = "world\n" },
    })
    local echo, input = new_echo(), cosocket.buffer()
    test.equal(drive.next_event(stream, echo, input), "hello")
    test.equal(drive.next_event(stream, echo, input), "world")
    task:join()
  end,

  ["events that came together are answered without reading again"] = function()
    local stream, task = test.stream({ { send = "a\nb\nc\n" }, { stall = 1000 }, { expect = "a\nb\nc\n" } })
    local echo, input, before = new_echo(), cosocket.buffer(), cosocket.now()
    for _, line in ipairs({ "a", "b", "c" }) do test.equal(drive.next_event(stream, echo, input), line) end
    test.near(cosocket.now() - before, 0, 1)
    task:join()
  end,

  ["a fault of the session is the answer, and its parting word leaves"] = function()
    local stream, task = test.stream({ { send = "bad\n" }, { expect = "sorry\n" } })
    test.fails("protocol", drive.next_event(stream, new_echo(), cosocket.buffer()))
    task:join()
  end,

  ["the end of the stream is the answer after the last event"] = function()
    local stream = test.stream({ { send = "last\nhalf" }, { close = true } })
    local echo, input = new_echo(), cosocket.buffer()
    test.equal(drive.next_event(stream, echo, input), "last")
    test.fails("closed", drive.next_event(stream, echo, input))
  end,

  ["the session's deadlines pass while nothing comes"] = function()
    local stream, task = test.stream({ { expect = "?\n?\n" } })
    local before = cosocket.now()
    local err = test.fails("timeout", drive.next_event(stream, new_echo(10), cosocket.buffer()))
    test.equal(err.message, "nobody there")
    test.near(cosocket.now() - before, 30, 0.001)
    task:join()
  end,

  ["a deadline that another task moved on is not kept"] = function()
    local stream = test.stream({ { stall = 12 }, { send = "hello\n" } })
    local echo = new_echo(10)
    cosocket.spawn(function()
      cosocket.sleep(5)
      echo.deadline = cosocket.now() + 10
    end)
    test.equal(drive.next_event(stream, echo, cosocket.buffer()), "hello")
    test.equal(echo.asked, 0)
  end,

  ["a deadline around the loop ends the wait and not the session"] = function()
    local stream = test.stream({ { stall = 10 }, { send = "hello\n" } })
    local echo, input = new_echo(100), cosocket.buffer()
    test.fails("timeout", cosocket.deadline(3, function() return drive.next_event(stream, echo, input) end))
    test.equal(echo.asked, 0)
    test.equal(drive.next_event(stream, echo, input), "hello")
  end,

  ["what another task queued leaves when it wakes the loop"] = function()
    local stream, task = test.stream({ { expect = "from outside\n" }, { send = "hello\n" } })
    local echo = new_echo()
    cosocket.spawn(function()
      cosocket.sleep(1)
      echo.output:append("from outside\n")
      stream:wake()
    end)
    test.equal(drive.next_event(stream, echo, cosocket.buffer()), "hello")
    task:join()
  end,

  ["two that both write before they read do not wait for each other for ever"] = function()
    local near, far = cosocket.pair()
    local big = ("x"):rep(3000000) .. "\n"
    local function side(stream)
      local echo = new_echo()
      echo.output:append(big)
      return cosocket.spawn(function() return drive.next_event(stream, echo, cosocket.buffer()) end)
    end
    local one, other = side(near), side(far)
    test.equal(#one:join(), #big - 1)
    test.equal(#other:join(), #big - 1)
  end,

  ["flush returns when all has left, and what came meanwhile is kept"] = function()
    local stream, task = test.stream({ { send = "early\n" }, { expect = ("x"):rep(2000000) } })
    local echo, input = new_echo(), cosocket.buffer()
    echo.output:append(("x"):rep(2000000))
    test.equal(drive.flush(stream, echo, input), true)
    test.equal(#echo.output, 0)
    task:join()
    test.equal(drive.next_event(stream, echo, input), "early")
  end,

  serve = {
    ["hands on every event until it is told to stop, and the rest later"] = function()
      local stream = test.stream({ { send = "a\nb\nc\n" }, { expect = "a\nb\nc\n" }, { send = "d\n" } })
      local echo, input, taken = new_echo(), cosocket.buffer(), {}
      local function take(owner, event)
        table.insert(owner, event)
        return event == "b" or event == "d"
      end
      test.equal(drive.serve(stream, echo, input, take, taken), "b")
      test.equal(taken, { "a", "b" })
      test.equal(drive.serve(stream, echo, input, take, taken), "d")
      test.equal(taken, { "a", "b", "c", "d" })
    end,

    ["ends when it is woken and shall stop, and with the connection"] = function()
      local stream = test.stream({ { stall = 2 }, { close = true } })
      local stop = cosocket.event()
      local serving = cosocket.spawn(function()
        return drive.serve(stream, new_echo(), cosocket.buffer(), error, nil, stop)
      end)
      cosocket.sleep(1)
      stream:wake()
      cosocket.sleep(0.1)
      test.equal(serving:status(), "waiting")
      stop:set()
      stream:wake()
      local event, err = serving:join()
      test.equal({ event, err }, {})
      test.fails("closed", drive.serve(stream, new_echo(), cosocket.buffer(), error))
    end,

    ["sends a parting word"] = function()
      local stream, task = test.stream({ { send = "bad\n" }, { expect = "sorry\n" } })
      test.fails("protocol", drive.serve(stream, new_echo(), cosocket.buffer(), error))
      task:join()
    end,
  },

  ["a peer who does not read the answers"] = {
    ["is not read either, until he does: events one by one"] = function()
      local near, far = cosocket.pair()
      local echo, input, count = new_echo(), cosocket.buffer(), 0
      echo.output_max = 1000
      local most = 0
      local serving = cosocket.spawn(function()
        while drive.next_event(near, echo, input) do
          count, most = count + 1, math.max(most, #echo.output)
        end
      end)
      check_held_back(near, far, echo, function() return count, most end)
      serving:join()
    end,

    ["is not read either, until he does: all that there are"] = function()
      local near, far = cosocket.pair()
      local echo, count = new_echo(), 0
      echo.output_max = 1000
      local most = 0
      local serving = cosocket.spawn(drive.serve, near, echo, cosocket.buffer(), function()
        count, most = count + 1, math.max(most, #echo.output)
        return false
      end)
      check_held_back(near, far, echo, function() return count, most end)
      serving:join()
    end,

    ["cannot keep time from passing"] = function()
      local near, far = cosocket.pair()
      local echo = new_echo(10)
      echo.output_max = 1000
      echo.output:append(("x"):rep(3000000))
      test.fails("timeout", drive.next_event(near, echo, cosocket.buffer()))
      far:close()
    end,
  },

  hold = {
    ["reads nothing until it may go on"] = function()
      local stream = test.stream({ { send = "hello\n" } })
      local echo, input, go_on = new_echo(), cosocket.buffer(), cosocket.event()
      cosocket.spawn(function()
        cosocket.sleep(5)
        go_on:set()
        stream:wake()
      end)
      local before = cosocket.now()
      test.equal(drive.hold(stream, echo, go_on), true)
      test.near(cosocket.now() - before, 5, 0.001)
      test.equal(drive.next_event(stream, echo, input), "hello")
    end,

    ["lets deadlines pass and sends what is queued"] = function()
      local stream, task = test.stream({ { send = "unread\n" }, { expect = "?\n?\n" } })
      test.fails("timeout", drive.hold(stream, new_echo(10), cosocket.event()))
      task:join()
    end,

    ["tries again to send what did not fit"] = function()
      local near, far = cosocket.pair()
      local echo, go_on, size = new_echo(), cosocket.event(), 3000000
      echo.output:append(("x"):rep(size))
      local task = cosocket.spawn(function()
        cosocket.sleep(5)
        test.equal(#far:read(size), size)
        go_on:set()
        near:wake()
      end)
      test.equal(drive.hold(near, echo, go_on), true)
      test.equal(#echo.output, 0)
      task:join()
    end,

    ["ends with a deadline around it"] = function()
      local near <close> = cosocket.pair()
      local go_on = cosocket.event()
      test.fails("timeout", cosocket.deadline(3, function() return drive.hold(near, new_echo(), go_on) end))
      test.fails("timeout", cosocket.deadline(3, function() return drive.hold(near, new_echo(100), go_on) end))
    end,
  },
}
