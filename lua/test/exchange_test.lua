-- Many tasks that ask over one connection, by a session whose requests have numbers: "7 hello" is answered "7 HELLO".
local cosocket = require("cosocket")
local exchange = require("net.exchange")
local test = require("test")

--- A session of numbered lines. What has no number is an event of its own, "bad" is a fault.
local Numbered = { deadline = math.huge, last = 0 }
Numbered.__index = Numbered

local function new_session()
  return setmetatable({ output = cosocket.buffer(), pending = {}, abandoned = {} }, Numbered)
end

function Numbered:say(word)
  if word == "" then return nil, cosocket.error("limit", "say", "there is nothing to say") end
  self.last = self.last + 1
  local request = { number = self.last }
  self.pending[self.last] = request
  self.output:append(self.last, " ", word, "\n")
  return request
end

function Numbered:abandon(request)
  table.insert(self.abandoned, request.number)
  self.pending[request.number] = nil
end

function Numbered:receive(input)
  while true do
    local line = input:line()
    if line == nil then return nil end
    if line == "bad" then
      self.output:append("sorry\n")
      return nil, cosocket.error("protocol", "numbered", "a bad line")
    end
    local number, word = line:match("^(%d+) (.*)$")
    if not number then return line end
    local request = self.pending[math.tointeger(number)]
    -- An answer for which nobody waits is passed over.
    if request then
      self.pending[request.number] = nil
      if word == "no" then
        request.err = cosocket.error("refused", "numbered", "the other side said no")
      else
        request.answer = word
      end
      return request
    end
  end
end

function Numbered:expire()
  self.deadline = math.huge
  return nil, cosocket.error("timeout", "numbered", "nobody is there")
end

--- An exchange whose other end plays `steps`.
local function start(steps, options)
  local stream, task = test.stream(steps)
  local session = new_session()
  local link = exchange.start(stream, session, options)
  return link, session, task
end

--- Says several words in a task each; answers what came of them, in this order.
local function say_all(link, session, words)
  local tasks, answers = {}, {}
  for i, word in ipairs(words) do
    tasks[i] = cosocket.spawn(function() return link:ask(10, session.say, word) end)
  end
  for i, task in ipairs(tasks) do
    local answer, err = task:join()
    answers[i] = answer or err.kind
  end
  return answers
end

return {
  ["each gets its own answer, in whatever order they come"] = function()
    local link, session = start({
      { expect = "1 a\n2 b\n3 c\n" },
      { send = "3 C\n1 A\n" },
      { stall = 1 },
      { send = "2 no\n" },
      { expect_close = true },
    }, { in_flight_max = 3 })
    test.equal(say_all(link, session, { "a", "b", "c" }), { "A", "refused", "C" })
    link:close()
  end,

  ["answers that come byte by byte are the same"] = function()
    local link, session = start({ { expect = "1 a\n2 b\n" }, { send = "2 B\nnews\n1 A\n", cut = 1 } }, { in_flight_max = 2 })
    test.equal(say_all(link, session, { "a", "b" }), { "A", "B" })
    link:close()
  end,

  ["one waits for the answer of the other, unless more may be on their way"] = function()
    local link, session = start({
      { expect = "1 a\n" },
      { stall = 1 },
      function(_, input) test.equal(#input, 0) end,
      { send = "1 A\n" },
      { expect = "2 b\n" },
      { send = "2 B\n" },
    })
    test.equal(say_all(link, session, { "a", "b" }), { "A", "B" })
    link:close()
  end,

  ["a time that is up ends one wait, and its answer disturbs nobody"] = function()
    local link, session = start({ { expect = "1 a\n" }, { stall = 5 }, { send = "1 A\n" }, { expect = "2 b\n" }, { send = "2 B\n" } })
    local before = cosocket.now()
    test.equal(test.fails("timeout", link:ask(2, session.say, "a")).message, "no answer within 2 s")
    test.near(cosocket.now() - before, 2, 0.001)
    test.equal(session.abandoned, { 1 })
    test.equal(link:ask(10, session.say, "b"), "B")
    test.equal(session.abandoned, { 1 })
    link:close()
  end,

  ["the time counts while a request waits for its turn"] = function()
    local link, session = start({ { expect = "1 a\n" }, { stall = 5 }, { send = "1 A\n" } })
    local first = cosocket.spawn(function() return link:ask(10, session.say, "a") end)
    cosocket.sleep(0)
    test.fails("timeout", link:ask(2, session.say, "b"))
    test.equal(first:join(), "A")
    test.equal(session.last, 1)
    link:close()
  end,

  ["a deadline of somebody around it is told as such"] = function()
    local link, session = start({ { expect = "1 a\n" }, { expect_close = true } }, { name = "numbered" })
    local err = test.fails("timeout", cosocket.deadline(1, function() return link:ask(2, session.say, "a") end))
    test.not_equal(err.op, "numbered")
    link:close()
  end,

  ["a task that is cancelled gives its request up"] = function()
    local link, session = start({ { expect = "1 a\n2 b\n" }, { send = "2 B\n" } })
    local task = cosocket.spawn(function() return link:ask(10, session.say, "a") end)
    cosocket.sleep(1)
    task:cancel()
    test.equal(link:ask(10, session.say, "b"), "B")
    test.equal(session.abandoned, { 1 })
    link:close()
  end,

  ["what answers nobody goes to on_event, and what has no answer is sent by flush"] = function()
    local news = {}
    local link, session, task = start({ { send = "one\n" }, { expect = "listen\n" }, { send = "two\nthree\n" } }, {
      on_event = function(event) table.insert(news, event) end,
    })
    cosocket.sleep(1)
    session.output:append("listen\n")
    link:flush()
    task:join()
    cosocket.sleep(1)
    test.equal(news, { "one", "two", "three" })
    link:close()
  end,

  ["a command that the session refuses is answered, and nothing is sent"] = function()
    local link, session = start({ { expect = "1 a\n" }, { send = "1 A\n" }, { expect_close = true } })
    test.fails("limit", link:ask(1, session.say, ""))
    test.equal(link:ask(1, session.say, "a"), "A")
    link:close()
  end,

  ["when the connection ends, everybody hears why, and who comes later does"] = function()
    local link, session = start({ { expect = "1 a\n2 b\n" }, { close = true } }, { in_flight_max = 2 })
    test.equal(say_all(link, session, { "a", "b", "c" }), { "closed", "closed", "closed" })
    test.fails("closed", link:ask(1, session.say, "d"))
    test.equal(link.err.kind, "closed")
    test.equal(session.abandoned, {})
  end,

  ["a fault of the session ends it, and its parting word leaves"] = function()
    local link, session, task = start({ { expect = "1 a\n" }, { send = "bad\n" }, { expect = "sorry\n" }, { expect_close = true } })
    test.fails("protocol", link:ask(10, session.say, "a"))
    test.fails("protocol", link:ask(10, session.say, "b"))
    task:join()
  end,

  ["the session's deadline passes while everybody waits"] = function()
    local link, session = start({ { expect = "1 a\n" }, { expect_close = true } })
    session.deadline = cosocket.now() + 4
    local before = cosocket.now()
    test.equal(test.fails("timeout", link:ask(10, session.say, "a")).op, "numbered")
    test.near(cosocket.now() - before, 4, 0.001)
    test.equal(link.err.op, "numbered")
  end,

  ["close sends what is queued, and ends the waits of others"] = function()
    local link, session, task = start({ { expect = "1 a\nbye\n" }, { expect_close = true } }, { name = "numbered" })
    local waiting = cosocket.spawn(function() return link:ask(10, session.say, "a") end)
    cosocket.sleep(1)
    session.output:append("bye\n")
    test.equal(link:close(), true)
    test.equal(link:close(), true)
    local err = test.fails("closed", waiting:join())
    test.equal({ err.op, err.message }, { "numbered", "this connection is closed" })
    task:join()
  end,

  ["it is closed at the end of its block"] = function()
    local stream, task = test.stream({ { expect_close = true } })
    do
      local link <close> = exchange.start(stream, new_session())
      test.equal(link.err, nil)
    end
    task:join()
  end,

  ["a handler that raises ends the connection with its group"] = function()
    local stream, task = test.stream({ { send = "news\n" }, { expect_close = true } })
    local link
    test.raises("on purpose", cosocket.group, function()
      link = exchange.start(stream, new_session(), { on_event = function() error("on purpose") end })
      cosocket.sleep(10)
    end)
    test.equal(link.err.kind, "closed")
    task:join()
  end,

  ["an unknown option is refused by its name"] = function()
    local stream = test.stream({})
    test.raises("in_flight", exchange.start, stream, new_session(), { inflight_max = 3 })
  end,
}
