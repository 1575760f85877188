-- Mail through a network that fails: Postfix behind the fault proxy, and the sink behind Postfix that says what arrived.

local cosocket = require("cosocket")
local proxy = require("conformance.faults.proxy")
local server = require("conformance.smtp.server")
local smtp = require("smtp")
local test = require("test")
local timed = require("conformance.faults.timed")

--- Seconds that who waits is willing to, and how much later it may know.
local PATIENCE, SLACK = 0.4, 0.8
--- Seconds in which Postfix has handed on what it took.
local ARRIVES = 10

local PLAIN = server.urls.plain
--- A message ends with a dot, unless a case says otherwise: a chunk would leave at once with what announces it.
local OPTIONS = { starttls = "off", timeout = 5, chunking = false }

local function options(more)
  local all = {}
  for name, value in pairs(OPTIONS) do all[name] = value end
  for name, value in pairs(more or {}) do all[name] = value end
  return all
end

local function message(more)
  local all = { from = "a@example.test", to = "b@example.test", subject = "x", message_id = server.identifier(), text = "one\n.two\n" }
  for name, value in pairs(more or {}) do all[name] = value end
  return all
end

--- How many copies of each message have arrived.
local function counts_of(all)
  local arrived, counts = server.ask({ ids = true }), {}
  for i, sent in ipairs(all) do
    local known = arrived[sent.message_id]
    counts[i] = known and known[2] or 0
  end
  return counts
end

--- How many copies of a message have arrived; waits for the first.
local function wait_for(sent)
  local patience = cosocket.now() + ARRIVES
  while true do
    local count = counts_of({ sent })[1]
    if count > 0 or cosocket.now() > patience then return count end
    cosocket.sleep(0.02)
  end
end

--- The same of messages that need not have arrived: once a later one has, since Postfix hands on what it has at once.
local function copies_of(all)
  local marker = message()
  assert(smtp.send(PLAIN, marker, OPTIONS))
  test.equal(wait_for(marker), 1)
  return counts_of(all)
end

--- Sends one message through a proxy; answers what came of it, and how many bytes had passed in each direction.
local function send(faults, sent, more, url)
  local way = proxy.start(url or PLAIN, faults)
  local took, result, err = timed(smtp.send, way.url, sent, options(more))
  return result, err, way, took
end

--- Bytes of a whole conversation in each direction.
local function conversation()
  local result, err, way = send(nil, message())
  assert(result, err)
  -- QUIT and its answer are not waited for.
  return way.passed
end

--- Sees what the end of the data and the answer to it come to: proxies with this fault once the final dot has come.
local function at_the_dot(fault, passes)
  local tail = ""
  return {
    inspect = function(data, direction)
      if direction ~= "up" then return end
      tail = (tail .. data):sub(-64)
      if tail:find("\r\n.\r\n", 1, true) then return fault, passes end
    end,
  }
end

return {
  ["[RFC 5321 2.3.8] commands and replies in slices of one byte are the same, and the message arrives once"] = function()
    local sent = message()
    assert(send({ up = { slice = 1 }, down = { slice = 1 } }, sent))
    test.equal(wait_for(sent), 1)
    local arrived = server.arrived(sent.message_id)
    test.equal(arrived.recipients, { "b@example.test" })
  end,

  ["[RFC 3207, RFC 4954] so are STARTTLS, the login and what follows"] = function()
    local sent = message()
    local way = proxy.start(server.urls.submission, { up = { slice = 7 }, down = { slice = 7 } })
    assert(smtp.send(way.url, sent, server.login()))
    test.equal(wait_for(sent), 1)
  end,

  ["[RFC 2920] with latency and jitter a message takes few round trips, by pipelining"] = function()
    local sent, way = message({ to = "b@example.test, c@example.test, d@example.test, e@example.test" }), { latency = 0.1, jitter = 0.02 }
    local result, err, _, took = send({ up = way, down = way }, sent)
    assert(result, err)
    test.equal(#result.accepted, 4)
    -- Greeting, EHLO, MAIL to DATA, the message, QUIT; one by one it would be nine round trips of 0.2 s and more.
    test.truthy(took < 1.6, took)
    test.equal(wait_for(sent), 1)
  end,

  ["[RFC 5321 4.2.5] a reset after the final dot is in doubt, and may have arrived; before the message it is not, and has not"] = function()
    local after, before = {}, {}
    for i = 1, 5 do
      after[i] = message()
      local result, err = send(at_the_dot("reset", true), after[i])
      test.fails("closed", result, err)
      test.equal({ err.in_doubt, err.retry }, { true, true })
      before[i] = message()
      -- In the middle of the envelope.
      result, err = send({ up = { after = 60, fault = "reset" } }, before[i])
      test.fails("closed", result, err)
      test.equal({ err.in_doubt or false, err.retry }, { false, true })
    end
    for _, count in ipairs(copies_of(before)) do test.equal(count, 0) end
    for _, count in ipairs(copies_of(after)) do test.truthy(count <= 1, count) end
  end,

  ["[RFC 5321 4.2.5] an answer to the final dot that is lost or stalled is in doubt after the timeout"] = function()
    for _, fault in ipairs({ "stall", "lose" }) do
      local sent = message()
      local way
      local faults = at_the_dot(nil, true)
      local inspect = faults.inspect
      faults.inspect = function(data, direction, number)
        inspect(data, direction, number)
        -- The answer to the message, which is the first after 354.
        if direction == "down" and data:find("^250 2.0.0") then return fault end
      end
      way = proxy.start(PLAIN, faults)
      local took, result, err = timed(smtp.send, way.url, sent, options({ timeouts = { done = PATIENCE, quit = 0.1 } }))
      test.fails("timeout", result, err)
      test.equal({ err.in_doubt, err.retry }, { true, true })
      test.truthy(took < PATIENCE + 1, took)
      -- It had arrived: who sends it again makes a second copy.
      test.equal(wait_for(sent), 1)
    end
  end,

  ["a connection that is reset after any byte is an error unless all is said, and what is not in doubt has not arrived"] = function()
    local whole = conversation()
    local clear, doubtful = {}, {}
    for direction, bytes in pairs(whole) do
      for after = 0, bytes - 1, 7 do
        local sent = message()
        local fault = after % 2 == 0 and "reset" or "end"
        local result, err = send({ [direction] = { after = after, fault = fault } }, sent, { timeouts = { command = 2, done = 2, quit = 0.1 } })
        if not result then
          if err.kind ~= "closed" then error(("%s after %d %s: %s"):format(fault, after, direction, err)) end
          test.equal(err.retry, true)
          table.insert(err.in_doubt and doubtful or clear, sent)
        end
      end
    end
    test.truthy(#clear > 40, #clear)
    for i, count in ipairs(copies_of(clear)) do test.equal(count, 0, i) end
    for i, count in ipairs(copies_of(doubtful)) do test.truthy(count <= 1, i) end
  end,

  ["[RFC 5321 4.5.3.2] a server that stalls at any reply is left within the deadline, and in doubt only after the final dot"] = function()
    for _, after in ipairs({ 0, 1, 40, 100, 250 }) do
      local result, err, _, took = send({ down = { after = after, fault = "stall" } }, message(), {
        timeouts = { greeting = PATIENCE, command = PATIENCE, data = PATIENCE, done = PATIENCE, quit = 0.1 },
      })
      test.fails("timeout", result, err)
      test.equal({ err.in_doubt or false, err.retry }, { false, true })
      test.truthy(took < 2 * PATIENCE + SLACK, took)
    end
  end,

  ["a message that the server stops taking in the middle is given up in time, and is not in doubt"] = function()
    local sent = message({ attachments = { { name = "x.bin", content = ("x"):rep(8 * 1048576) } } })
    local result, err, _, took = send({ up = { after = 100000, fault = "stall" } }, sent, { timeouts = { block = PATIENCE, quit = 0.1 } })
    test.fails("timeout", result, err)
    test.equal({ err.in_doubt or false, err.retry }, { false, true })
    test.truthy(took < 10, took)
    test.equal(copies_of({ sent })[1], 0)
  end,

  ["[RFC 3030] so is one that goes in chunks, and after the last chunk it is in doubt"] = function()
    local sent = message({ attachments = { { name = "x.bin", content = ("x"):rep(8 * 1048576) } } })
    local result, err, _, took = send({ up = { after = 100000, fault = "stall" } }, sent, {
      chunking = true,
      timeouts = { block = PATIENCE, quit = 0.1 },
    })
    test.fails("timeout", result, err)
    test.equal({ err.in_doubt or false, err.retry }, { false, true })
    test.truthy(took < 10, took)
    test.equal(copies_of({ sent })[1], 0)
    local small = message()
    local faults = {
      inspect = function(data, direction)
        if direction == "up" and data:find("BDAT %d+ LAST") then return "reset", true end
      end,
    }
    result, err = send(faults, small, { chunking = true })
    test.fails("closed", result, err)
    test.equal({ err.in_doubt, err.retry }, { true, true })
    test.truthy(copies_of({ small })[1] <= 1)
  end,

  ["a pooled connection that died while idle is replaced, and the message arrives once"] = function()
    local way = proxy.start(PLAIN)
    local pool <close> = smtp.pool(way.url, options({ connections = 1 }))
    local all = {}
    for i = 1, 4 do
      all[i] = message()
      assert(pool:send(all[i]))
      if i % 2 == 0 then way:interrupt() else way:reset() end
      cosocket.sleep(0.02)
    end
    test.equal(copies_of(all), { 1, 1, 1, 1 })
    test.equal(way.connections, 4)
  end,

  ["STARTTLS and implicit TLS that stall are a timeout, those that end or are reset an error of TLS or of the connection"] = function()
    for _, fault in ipairs({ "stall", "lose", "end", "reset" }) do
      for _, place in ipairs({ "submission", "smtps" }) do
        for _, after in ipairs({ 10, 300 }) do
          local way = proxy.start(server.urls[place], { down = { after = after, fault = fault } })
          local took, client, err = timed(smtp.connect, way.url, server.login({ timeout = PATIENCE }))
          local kinds = (fault == "stall" or fault == "lose") and { timeout = true } or { tls = true, closed = true }
          if client or not kinds[err.kind] then error(("%s, %s after %d: %s"):format(place, fault, after, err)) end
          test.equal(err.retry, true, tostring(err))
          test.truthy(took < PATIENCE + SLACK, took)
        end
      end
    end
  end,

  ["a server that refuses, or accepts and stays silent, is an error in time that is worth another attempt"] = function()
    local client, err = smtp.connect(proxy.refused(PLAIN), OPTIONS)
    test.fails("connect", client, err)
    test.equal({ err.code, err.retry }, { "ECONNREFUSED", true })
    local took
    took, client, err = timed(smtp.connect, proxy.start(PLAIN, { accept = "silent" }).url, options({ timeout = PATIENCE }))
    test.fails("timeout", client, err)
    test.equal(err.retry, true)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
  end,

  ["an outbox delivers everything through connections that stall, are cut and reset at random; only what was in doubt comes twice"] = function()
    local random, path = test.random(), os.tmpname()
    os.remove(path)
    local dots, tail = 0, ""
    local way = proxy.start(PLAIN, {
      connection = function(number)
        if number % 3 == 0 then return {} end
        local direction = random:pick({ "up", "down" })
        local fault = random:pick({ "stall", "cut", "reset", "end", "lose" })
        return { [direction] = { after = random(0, direction == "up" and 900 or 500), fault = fault } }
      end,
      on_data = function(data, direction)
        if direction ~= "up" then return end
        local text = tail .. data
        dots = dots + select(2, text:gsub("\r\n%.\r\n", ""))
        tail = text:sub(-4)
      end,
    })
    local outbox = assert(smtp.outbox(path, way.url, options({
      timeout = PATIENCE,
      timeouts = { command = PATIENCE, data = PATIENCE, block = PATIENCE, done = PATIENCE, quit = 0.1 },
      connections = 1,
      retry_delay = 0.05,
      retry_delay_max = 0.2,
    })))
    local all = {}
    for i = 1, 20 do
      all[i] = message()
      assert(outbox:put(all[i]))
    end
    assert(cosocket.deadline(45, outbox.wait_empty, outbox))
    outbox:close()
    local copies = 0
    for i, count in ipairs(copies_of(all)) do
      test.truthy(count >= 1, i)
      copies = copies + count
    end
    -- As often as its last byte was sent, and no answer to that came.
    test.truthy(copies <= dots, ("%d copies, %d final dots"):format(copies, dots))
    os.remove(path)
  end,
}
