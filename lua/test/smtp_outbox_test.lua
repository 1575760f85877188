-- The outbox: what is kept, when it is tried again, when it is given up.
local cosocket = require("cosocket")
local sink = require("smtp.sink")
local smtp = require("smtp")
local test = require("test")

local function path()
  local name = os.tmpname()
  os.remove(name)
  return name .. ".db"
end

local function remove(name)
  for _, ending in ipairs({ "", "-wal", "-shm", "-journal" }) do os.remove(name .. ending) end
end

local function message(text, fields)
  local all = { from = "a@example.org", to = "b@example.org", text = text }
  for name, value in pairs(fields or {}) do all[name] = value end
  return all
end

--- A way to a server that is not there.
local function nowhere()
  return nil, cosocket.error("connect", "connect", "nobody there")
end

--- A function that connects to a server that listens nowhere.
local function dial(server)
  return function()
    local near, far = cosocket.pair()
    cosocket.spawn(server.serve, server, far)
    return near
  end
end

--- An outbox before a sink.
local function opened(options, sink_options)
  local server = sink.new(sink_options)
  local name = path()
  local all = { starttls = "off" }
  for key, value in pairs(options or {}) do all[key] = value end
  local outbox = assert(smtp.outbox(name, dial(server), all))
  return outbox, server, name
end

local function done(outbox, name)
  outbox:close()
  remove(name)
end

return {
  ["what is put is delivered, in its order"] = function()
    local sent = {}
    local outbox, server, name = opened({ on_sent = function(entry, result) sent[#sent + 1] = { entry.id, result.code } end })
    for i = 1, 5 do assert(outbox:put(message(("message %d"):format(i)))) end
    assert(outbox:wait_empty())
    test.equal(outbox:status(), { waiting = 0, bytes = 0 })
    for i = 1, 5 do test.matches(server.messages[i].data, ("message %d\r\n$"):format(i)) end
    test.equal(sent, { { 1, 250 }, { 2, 250 }, { 3, 250 }, { 4, 250 }, { 5, 250 } })
    test.equal(server.connections, 1)
    done(outbox, name)
  end,

  ["what is kept outlives the process, attachments too"] = function()
    local name, bytes = path(), test.random():bytes(600000)
    local attachment = os.tmpname()
    local file = assert(io.open(attachment, "wb"))
    file:write(bytes)
    file:close()
    local outbox = assert(smtp.outbox(name, nowhere, { starttls = "off" }))
    local id = assert(outbox:put(message("hi", { attachments = { { path = attachment } }, bcc = "c@example.org" })))
    outbox:close()
    os.remove(attachment)
    local server = sink.new()
    outbox = assert(smtp.outbox(name, dial(server), { starttls = "off" }))
    local entry = outbox:list()[1]
    test.equal({ entry.id, entry.recipients }, { id, { "b@example.org", "c@example.org" } })
    assert(outbox:wait_empty())
    local got = server.messages[1]
    test.equal(got.recipients, { "b@example.org", "c@example.org" })
    local encoded = got.data:match("base64\r\n\r\n(.-)\r\n%-%-"):gsub("%s", "")
    assert(require("base64").decode(encoded) == bytes, "other bytes")
    -- Numbers are not used again.
    assert(assert(outbox:put(message("more"))) > id)
    done(outbox, name)
  end,

  ["a server that is away is tried again, ever more seldom, and the message waits"] = function()
    local name, tries = path(), {}
    local began = cosocket.now()
    local function away()
      tries[#tries + 1] = cosocket.now() - began
      return nowhere()
    end
    local outbox = assert(smtp.outbox(name, away, { starttls = "off", retry_delay = 10, retry_delay_max = 100 }))
    assert(outbox:put(message("hi")))
    cosocket.sleep(500)
    outbox:close()
    local expected, at = { 0 }, 0
    for i, delay in ipairs({ 10, 20, 40, 80, 100 }) do
      at = at + delay
      expected[i + 1] = at
    end
    for i, time in ipairs(expected) do test.near(tries[i], time, time * 0.11 + 1) end
    test.equal(outbox:list()[1].attempts, 0)
    assert(outbox:status().error)
    remove(name)
  end,

  ["what is refused for now is tried again, for those it was refused"] = function()
    local refusals = 2
    local outbox, server, name = opened({ retry_delay = 60 }, {
      on_command = function(_, line)
        if line:find("full@") and refusals > 0 then
          refusals = refusals - 1
          return "452 4.2.2 full"
        end
      end,
    })
    local began = cosocket.now()
    assert(outbox:put(message("hi", { to = "b@example.org, full@example.org" })))
    cosocket.sleep(5)
    test.equal(outbox:list()[1].recipients, { "full@example.org" })
    test.equal(outbox:list()[1].attempts, 1)
    assert(outbox:wait_empty())
    test.near(cosocket.now() - began, 180, 20)
    test.equal(#server.messages, 2)
    test.equal(server.messages[1].recipients, { "b@example.org" })
    test.equal(server.messages[2].recipients, { "full@example.org" })
    done(outbox, name)
  end,

  ["what is refused for good is given up, and the callback hears why"] = function()
    local failed = {}
    local outbox, server, name = opened({
      on_failed = function(entry, refused) failed[#failed + 1] = { entry.id, refused } end,
    }, {
      on_command = function(_, line) return line:find("nobody@") and "550 5.1.1 no such user" or nil end,
      on_message = function(got) return got.data:find("spam") and "554 5.7.1 spam" or nil end,
    })
    assert(outbox:put(message("hi", { to = "nobody@example.org" })))
    assert(outbox:put(message("hi", { to = "b@example.org, nobody@example.org" })))
    assert(outbox:put(message("spam")))
    assert(outbox:wait_empty())
    local no = { address = "nobody@example.org", code = 550, status = "5.1.1", text = "no such user", retry = false }
    test.equal(failed, {
      { 1, { no } },
      { 2, { no } },
      { 3, { { address = "b@example.org", code = 554, status = "5.7.1", text = "spam", retry = false } } },
    })
    test.equal(#server.messages, 1)
    done(outbox, name)
  end,

  ["what is too old is given up, whosever fault it is"] = function()
    for _, reply in ipairs({ "450 4.2.1 later", "421 4.3.2 not now" }) do
      local failed = {}
      local outbox, server, name = opened({
        give_up_after = 100, retry_delay = 30, on_failed = function(_, refused) failed[#failed + 1] = refused[1].text end,
      }, { on_command = function(verb) return verb == "RCPT" and reply or nil end })
      local began = cosocket.now()
      assert(outbox:put(message("hi")))
      assert(outbox:wait_empty())
      assert(cosocket.now() - began >= 100)
      test.equal(#failed, 1)
      done(outbox, name)
    end
  end,

  ["a callback that raises stops nobody"] = function()
    local outbox, server, name = opened({ on_sent = function() error("oops") end })
    assert(outbox:put(message("one")))
    assert(outbox:put(message("two")))
    assert(outbox:wait_empty())
    test.equal(#server.messages, 2)
    done(outbox, name)
  end,

  ["messages are tried at once when that is asked for"] = function()
    local away = true
    local outbox, server, name = opened({ retry_delay = 1000 }, {
      on_command = function(verb) return away and verb == "EHLO" and "421 away" or nil end,
    })
    assert(outbox:put(message("hi")))
    cosocket.sleep(5)
    away = false
    local began = cosocket.now()
    outbox:retry()
    assert(outbox:wait_empty())
    assert(cosocket.now() - began < 10)
    done(outbox, name)
  end,

  ["a message that waits can be taken out"] = function()
    local name = path()
    local outbox = assert(smtp.outbox(name, nowhere, { starttls = "off" }))
    local id = assert(outbox:put(message("hi")))
    cosocket.sleep(1)
    test.equal(outbox:remove(id), true)
    test.equal(outbox:remove(id), false)
    test.equal(outbox:status().waiting, 0)
    outbox:close()
    remove(name)
  end,

  ["it has limits, and what is wrong in a message is told at once"] = function()
    local name = path()
    local outbox = assert(smtp.outbox(name, nowhere, { starttls = "off", waiting_max = 2, bytes_max = 700000 }))
    test.fails("protocol", outbox:put(message("hi", { to = "nobody" })))
    test.fails("io", outbox:put(message("hi", { attachments = { "/nonexistent" } })))
    test.fails("limit", outbox:put(message(("x\n"):rep(400000))))
    assert(outbox:put(message("one")))
    assert(outbox:put(message("two")))
    test.fails("limit", outbox:put(message("three")))
    test.raises("unknown option", outbox.put, outbox, { form = "x" })
    test.raises('unknown option "waiting"', smtp.outbox, name, "smtp://h", { waiting = 3 })
    outbox:close()
    test.fails("closed", outbox:put(message("four")))
    remove(name)
  end,

  ["two programs cannot have one outbox"] = function()
    local name = path()
    local outbox = assert(smtp.outbox(name, nowhere, { starttls = "off" }))
    test.fails("io", smtp.outbox(name, nowhere, { starttls = "off" }))
    outbox:close()
    remove(name)
  end,
}
