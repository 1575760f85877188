-- The client against a small server, and against servers that say what a test wants.
local cosocket = require("cosocket")
local sink = require("smtp.sink")
local smtp = require("smtp")
local test = require("test")

local HELLO = "250-mail.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
local MESSAGE = { from = "a@example.org", to = "b@example.org", subject = "hello", text = "one\n.two\n" }

--- A function that connects to a server that listens nowhere.
local function dial(server)
  return function()
    local near, far = cosocket.pair()
    cosocket.spawn(server.serve, server, far)
    return near
  end
end

--- A client of a sink that listens nowhere.
local function connected(options, sink_options)
  local server = sink.new(sink_options)
  local near, far = cosocket.pair()
  cosocket.spawn(server.serve, server, far)
  options = options or {}
  options.starttls = options.starttls or "off"
  local client, err = smtp.connect(assert(near), options)
  return client, err, server
end

--- What a client makes of a server that plays the steps.
local function scripted(steps, options)
  options = options or {}
  options.starttls = options.starttls or "off"
  return smtp.connect(test.stream(steps), options)
end

return {
  arguments = {
    ["wrong ones raise and say what is wanted"] = function()
      local function raises(pattern, ...) test.raises(pattern, smtp.connect, ...) end
      raises('unknown option "usernme"; did you mean "username"?', "smtp://h", { usernme = "x" })
      raises("must begin with smtp:// or smtps://", "http://h")
      raises("must begin with smtp:// or smtps://", "h:25")
      raises("an address has no path", "smtp://h/inbox")
      raises("starttls must be", "smtp://h", { starttls = "maybe" })
      raises("starttls goes with smtp://", "smtps://h", { starttls = "off" })
      raises('"NTLM" is not a mechanism', "smtp://h", { auth = "NTLM" })
      raises("a password needs a username", "smtp://h", { password = "x" })
      raises("a username needs a password", "smtp://me@h")
      raises("password and token exclude", "smtp://h", { username = "a", password = "x", token = "y" })
      raises("name must be a domain", "smtp://h", { name = "a b" })
      raises('unknown option "greting"', "smtp://h", { timeouts = { greting = 1 } })
      raises('unknown option "tls.verify"', "smtps://h", { tls = { verify = false } })
      raises("dkim needs selector", "smtp://h", { dkim = { domain = "x.org", key = "k" } })
      raises("must be a string, not a nil", nil)
    end,

    ["mistakes blame the line that called, and no password is shown"] = function()
      local message = test.raises("starttls must be", function() smtp.connect("smtp://h", { starttls = "x" }) end)
      test.matches(message, "smtp_client_test%.lua:%d+: smtp%.connect: starttls")
      message = test.raises("unknown option", function() smtp.connect("smtp://h", { x = 4 }) end)
      test.matches(message, "smtp_client_test%.lua:%d+: ")
      message = test.raises("an address", function() smtp.connect("smtp://u:s3cret@h/path") end)
      test.matches(message, "smtp_client_test%.lua:%d+: smtp%.connect: an address")
      assert(not message:find("s3cret"))
      message = test.raises("a password needs", function() smtp.connect("smtp://h", { password = "x" }) end)
      test.matches(message, "smtp_client_test%.lua:%d+: ")
      local client = connected()
      message = test.raises("unknown option", function() client:send({ form = "x" }) end)
      test.matches(message, "smtp_client_test%.lua:%d+: ")
      message = test.raises("notify must be", function() client:send(MESSAGE, { notify = "SOMETIMES" }) end)
      test.matches(message, "smtp_client_test%.lua:%d+: ")
      client:close()
    end,

    ["what is wrong with a message is told before the server is asked"] = function()
      local asked = 0
      local function nobody()
        asked = asked + 1
        return nil, cosocket.error("connect", "connect", "nobody is there")
      end
      local message = test.raises('unknown option "body"', function()
        assert(smtp.send(nobody, { from = "a@b.example", to = "c@d.example", body = "x" }))
      end)
      test.matches(message, "^[^:]*smtp_client_test%.lua:%d+: ")
      test.fails("protocol", smtp.send(nobody, { from = "nobody", to = "c@d.example", text = "x" }))
      local lost = { from = "a@b.example", to = "c@d.example", text = "x", attachments = { "/nowhere/at/all.csv" } }
      test.fails("io", smtp.send(nobody, lost))
      test.equal(asked, 0)
      test.fails("connect", smtp.send(nobody, MESSAGE))
      test.equal(asked, 1)
    end,
  },

  ["a message arrives, and the server's words come back"] = function()
    local client, _, server = connected()
    local result = assert(client:send(MESSAGE))
    test.equal(result, { accepted = { "b@example.org" }, refused = {}, code = 250, status = "2.0.0", text = "taken" })
    client:close()
    local message = server.messages[1]
    test.equal({ message.sender, message.recipients }, { "a@example.org", { "b@example.org" } })
    test.matches(message.data, "\r\nSubject: hello\r\n")
    test.equal(message.data:match("\r\n\r\n(.*)$"), "one\r\n.two\r\n")
  end,

  ["it arrives whatever the server can do"] = function()
    for _, extensions in ipairs({ {}, { "PIPELINING" }, { "CHUNKING" }, { "PIPELINING", "CHUNKING" }, { "SIZE", "8BITMIME" } }) do
      for _, size in ipairs({ 0, 10, 200000 }) do
        local client, _, server = connected(nil, { extensions = extensions })
        local text = ("0123456789abcde.\n"):rep(size // 17)
        assert(client:send({ from = "a@x.org", to = "b@x.org", text = text }))
        assert(client:send({ from = "a@x.org", to = "b@x.org", text = text }))
        client:close()
        test.equal(#server.messages, 2)
        for _, message in ipairs(server.messages) do
          local body = message.data:match("\r\n\r\n(.*)$"):gsub("\r\n", "\n")
          test.equal(body, text, table.concat(extensions, " "))
        end
      end
    end
  end,

  ["a refusal leaves the connection, and the next message goes"] = function()
    local client, _, server = connected(nil, {
      on_command = function(_, line) return line:find("nobody") and "550 5.1.1 no such user" or nil end,
    })
    local err = test.fails("refused", client:send({ from = "a@x.org", to = "nobody@x.org", text = "" }))
    test.equal({ err.code, err.status, err.reason, err.retry }, { 550, "5.1.1", "no such user", false })
    test.equal(err.refused[1].address, "nobody@x.org")
    local result = assert(client:send({ from = "a@x.org", to = "nobody@x.org, b@x.org", text = "" }))
    test.equal(result.accepted, { "b@x.org" })
    test.equal(result.refused[1].code, 550)
    client:close()
    test.equal(server.messages[1].recipients, { "b@x.org" })
  end,

  ["an injected header or address is an error that names the field"] = function()
    local client, _, server = connected()
    local function refused(field, message)
      message.from = message.from or "a@x.org"
      message.to = message.to or "b@x.org"
      local err = test.fails("protocol", client:send(message))
      test.equal(err.field, field)
      assert(err.message:find(field, 1, true), err.message)
    end
    for _, break_ in ipairs({ "\r\n", "\n", "\r", "\0" }) do
      refused("subject", { subject = "x" .. break_ .. "Bcc: c@x.org" })
      refused("to", { to = "b@x.org" .. break_ .. "c@x.org" })
      refused("from", { from = { name = "x" .. break_ .. "y", address = "a@x.org" } })
      refused("cc", { cc = { "c@x.org" .. break_ } })
      refused("bcc", { bcc = "c" .. break_ .. "@x.org" })
      refused("reply_to", { reply_to = "c@x.org>" .. break_ })
      refused("message_id", { message_id = "a" .. break_ .. "b@x" })
      refused("in_reply_to", { in_reply_to = "a@b" .. break_ .. "X: y" })
      refused("headers", { headers = { ["X-A"] = "a" .. break_ .. "b" } })
      refused("headers", { headers = { ["X-A" .. break_] = "a" } })
    end
    refused("headers", { headers = { Bcc = "c@x.org" } })
    refused("headers", { headers = { { "content-type", "text/html" } } })
    test.raises("must be a number", client.send, client, { from = "a@x.org", date = "now" })
    client:close()
    test.equal(#server.messages, 0)
  end,

  ["a deadline in the middle of a message makes the connection unfit"] = function()
    local client = assert(scripted({
      { send = "220 x\r\n" }, { expect = "EHLO [127.0.0.1]\r\n" }, { send = HELLO },
      { expect = "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" }, { expect_close = true },
    }))
    local _, err = cosocket.deadline(5, client.send, client, MESSAGE)
    test.equal({ err.kind, err.retry, err.in_doubt }, { "timeout", true, nil })
    test.fails("timeout", client:send(MESSAGE))
    test.equal(client:status().state, "closed")
  end,

  ["two tasks take turns"] = function()
    local client, _, server = connected()
    cosocket.group(function()
      for _ = 1, 5 do cosocket.spawn(function() assert(client:send(MESSAGE)) end) end
    end)
    client:close()
    test.equal(#server.messages, 5)
  end,

  ["a task that is cancelled takes the connection with it"] = function()
    local client = assert(scripted({
      { send = "220 x\r\n" }, { expect = "EHLO [127.0.0.1]\r\n" }, { send = HELLO },
      { expect = "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" }, { expect_close = true },
    }))
    local task = cosocket.spawn(function() client:send(MESSAGE) end)
    cosocket.sleep(1)
    task:cancel()
    cosocket.sleep(1)
    test.fails("closed", client:send(MESSAGE))
  end,

  ["a lost answer leaves the message in doubt, a lost connection before it does not"] = function()
    local start = { { send = "220 x\r\n" }, { expect = "EHLO [127.0.0.1]\r\n" }, { send = HELLO } }
    local envelope = { expect = "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" }
    local client = assert(scripted({ start[1], start[2], start[3], envelope, { close = true } }))
    local err = test.fails("closed", client:send(MESSAGE))
    test.equal({ err.retry, err.in_doubt }, { true, nil })
    client = assert(scripted({
      start[1], start[2], start[3], envelope, { send = "250 a\r\n250 b\r\n354 c\r\n" },
      function(far, input)
        while not input:find("\r\n.\r\n") do assert(far:fill(input)) end
      end,
      { close = true },
    }))
    err = test.fails("closed", client:send(MESSAGE))
    test.equal({ err.op, err.retry, err.in_doubt }, { "smtp.send", true, true })
  end,

  ["a server that closes, is silent, or speaks something else is told apart"] = function()
    local client, err = scripted({ { close = true } })
    test.equal(test.fails("closed", client, err).retry, true)
    local before = cosocket.now()
    client, err = scripted({ { stall = 100 } }, { timeout = 7 })
    test.fails("timeout", client, err)
    test.near(cosocket.now() - before, 7, 0.1)
    client, err = scripted({ { send = "HTTP/1.1 400 no\r\n" } })
    test.fails("protocol", client, err)
    client, err = scripted({ { send = "554 no\r\n" } })
    test.equal(test.fails("refused", client, err).code, 554)
    client, err = scripted({ { send = "22" }, { close = true } })
    test.fails("closed", client, err)
  end,

  ["replies that come byte by byte are understood"] = function()
    local client = assert(scripted({
      { send = "220-a\r\n220 b\r\n", cut = 1 }, { expect = "EHLO [127.0.0.1]\r\n" }, { send = HELLO, cut = 1 },
      { expect = "NOOP\r\n" }, { send = "250 ok\r\n", cut = 1 }, { expect = "QUIT\r\n" }, { send = "221 bye\r\n" },
    }))
    test.equal(client:noop(), true)
    client:close()
  end,

  login = {
    ["a password is not sent without TLS, and the error names the option"] = function()
      local client, err = scripted({
        { send = "220 x\r\n" }, { expect = "EHLO [127.0.0.1]\r\n" }, { send = "250-x\r\n250 AUTH PLAIN LOGIN\r\n" },
        { expect_close = true },
      }, { username = "u", password = "p" })
      test.fails("tls", client, err)
      test.matches(err.message, "auth_without_tls")
    end,

    ["it is sent when that is asked for"] = function()
      local client, _, server = connected(
        { username = "u", password = "p", auth_without_tls = true },
        { users = { u = "p" } }
      )
      test.equal(client:status().mechanism, "PLAIN")
      assert(client:send(MESSAGE))
      client:close()
      test.equal(server.messages[1].user, "u")
    end,

    ["a wrong password is refused in the server's words"] = function()
      local client, err = connected(
        { username = "u", password = "wrong-secret", auth_without_tls = true },
        { users = { u = "p" } }
      )
      test.fails("refused", client, err)
      test.equal({ err.op, err.code, err.status, err.retry }, { "smtp.auth", 535, "5.7.8", false })
      assert(not tostring(err):find("wrong%-secret"))
    end,

    ["no way to log in is an error that lists what there is"] = function()
      local client, err = connected({ username = "u", token = "t", auth_without_tls = true }, { users = { u = "p" } })
      test.fails("refused", client, err)
      test.matches(err.message, "LOGIN, PLAIN")
      client, err = connected({ username = "u", password = "p", auth = "CRAM-MD5", auth_without_tls = true }, { users = { u = "p" } })
      test.fails("refused", client, err)
    end,

    ["a mechanism that the server does not know after all is passed over"] = function()
      local client = connected({ username = "u", password = "p", auth_without_tls = true, auth = { "PLAIN", "LOGIN" } }, {
        users = { u = "p" },
        on_command = function(_, line) return line:find("AUTH PLAIN") and "504 5.5.4 no" or nil end,
      })
      test.equal(client:status().mechanism, "LOGIN")
      client:close()
    end,
  },

  tls = {
    ["without STARTTLS the connection is refused, and nothing was sent"] = function()
      local client, err = scripted({
        { send = "220 x\r\n" }, { expect = "EHLO [127.0.0.1]\r\n" }, { send = HELLO }, { expect_close = true },
      }, { starttls = "required" })
      test.fails("tls", client, err)
      test.matches(err.message, "STARTTLS")
      test.equal(err.retry, false)
    end,

    ["optional TLS goes on without it"] = function()
      local client = assert(scripted({
        { send = "220 x\r\n" }, { expect = "EHLO [127.0.0.1]\r\n" }, { send = HELLO },
      }, { starttls = "optional" }))
      test.equal(client:status().tls, false)
      client:__close()
    end,

    ["words put in before TLS are an attack"] = function()
      local client, err = scripted({
        { send = "220 x\r\n" }, { expect = "EHLO [127.0.0.1]\r\n" }, { send = "250-x\r\n250 STARTTLS\r\n" },
        { expect = "STARTTLS\r\n" }, { send = "220 go\r\n250-x\r\n250 AUTH PLAIN\r\n" }, { expect_close = true },
      }, { starttls = "required" })
      test.fails("protocol", client, err)
      test.matches(err.message, "before TLS")
    end,
  },

  pool = {
    ["connections are used again, and begun anew"] = function()
      local verbs = {}
      local server = sink.new({
        on_command = function(verb) verbs[#verbs + 1] = verb end,
      })
      local pool = smtp.pool(dial(server), { starttls = "off", connections = 1 })
      for _ = 1, 3 do assert(pool:send(MESSAGE)) end
      pool:close()
      test.equal({ server.connections, #server.messages }, { 1, 3 })
      test.equal(table.concat(verbs, " "), "EHLO MAIL RCPT BDAT RSET MAIL RCPT BDAT RSET MAIL RCPT BDAT QUIT")
      test.fails("closed", pool:send(MESSAGE))
    end,

    ["no more connections are opened than are allowed"] = function()
      local server = sink.new()
      local pool = smtp.pool(dial(server), { starttls = "off", connections = 3 })
      local tasks = {}
      for i = 1, 20 do tasks[i] = cosocket.spawn(function() assert(pool:send(MESSAGE)) end) end
      for _, task in ipairs(tasks) do task:join() end
      pool:close()
      test.equal(#server.messages, 20)
      assert(server.connections <= 3, server.connections)
    end,

    ["a connection that the server closed is replaced"] = function()
      local seen = 0
      local server = sink.new({
        on_command = function(verb)
          if verb == "RSET" then
            seen = seen + 1
            return seen == 1 and "421 4.4.2 idle too long" or nil
          end
        end,
      })
      local pool = smtp.pool(dial(server), { starttls = "off", connections = 1 })
      assert(pool:send(MESSAGE))
      assert(pool:send(MESSAGE))
      pool:close()
      test.equal({ server.connections, #server.messages }, { 2, 2 })
    end,

    ["old and much used connections are not used again"] = function()
      local server = sink.new()
      local pool = smtp.pool(dial(server), { starttls = "off", connections = 1, messages_max = 2, idle_max = 30 })
      for _ = 1, 3 do assert(pool:send(MESSAGE)) end
      test.equal(server.connections, 2)
      cosocket.sleep(31)
      assert(pool:send(MESSAGE))
      test.equal(server.connections, 3)
      pool:close()
    end,
  },
}
