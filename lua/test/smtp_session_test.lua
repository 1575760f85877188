-- The client's session: bytes and numbers only. Nothing is opened, nothing sleeps.
local base64 = require("base64")
local cosocket = require("cosocket")
local sasl = require("smtp.sasl")
local session = require("smtp.session")
local test = require("test")

local ALL = "250-mail.example\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n"
  .. "250-STARTTLS\r\n250 AUTH PLAIN SCRAM-SHA-256\r\n"
local PLAIN = "250-mail.example\r\n250 SIZE\r\n"

--- What the session sent since.
local function sent(client) return client.output:take() or "" end

--- What the session makes of the server's words.
local function hear(client, words, now) return client:receive(cosocket.buffer(words), now or 0) end

--- A session whose server has greeted and said what it can do.
local function ready(ehlo, options)
  local client = session.new(options)
  assert(client:open(0))
  test.equal(hear(client, "220 mail.example ESMTP\r\n"), nil)
  test.equal(sent(client), "EHLO [127.0.0.1]\r\n")
  test.equal(assert(hear(client, ehlo or ALL)).type, "hello")
  test.equal(client.state, "ready")
  return client
end

local function envelope(...)
  local recipients = {}
  for i, address in ipairs({ ... }) do recipients[i] = { address = address, ascii = address } end
  return { sender = "a@example.org", sender_ascii = "a@example.org", recipients = recipients, size = 10 }
end

return {
  hello = {
    ["EHLO tells what the server can do"] = function()
      local client = ready()
      test.equal({ client.extensions.SIZE, client.extensions.PIPELINING, client.extensions.CHUNKING }, { "1000", "", nil })
      test.equal(client.mechanisms, { PLAIN = true, ["SCRAM-SHA-256"] = true })
    end,

    ["an old server is greeted with HELO"] = function()
      local client = session.new({ name = "device.example" })
      assert(client:open(0))
      test.equal(hear(client, "220 old\r\n"), nil)
      test.equal(sent(client), "EHLO device.example\r\n")
      test.equal(hear(client, "502 what?\r\n"), nil)
      test.equal(sent(client), "HELO device.example\r\n")
      test.equal(assert(hear(client, "250 old\r\n")).type, "hello")
      test.equal(client.extensions, {})
    end,

    ["a reply split at any byte is one reply"] = function()
      test.every_cut("220-two\r\n220 lines\r\n" .. ALL, function(first, second)
        local client = session.new()
        assert(client:open(0))
        local input = cosocket.buffer(first)
        local event = client:receive(input, 0)
        if not event then
          input:append(second)
          event = client:receive(input, 0)
        end
        test.equal(assert(event).type, "hello")
        test.equal(client.greeting.text, "two lines")
        test.equal(client.extensions.SIZE, "1000")
      end)
    end,

    ["a server that refuses the connection is heard"] = function()
      local client = session.new()
      assert(client:open(0))
      local err = test.fails("refused", hear(client, "554 5.7.1 you are on a list\r\n"))
      test.equal({ err.code, err.status, err.reason, err.retry }, { 554, "5.7.1", "you are on a list", false })
      test.equal(client.state, "closed")
      client = session.new()
      assert(client:open(0))
      test.equal(test.fails("refused", hear(client, "421 busy\r\n")).retry, true)
    end,

    ["what is no reply is an error"] = function()
      for _, words in ipairs({
        "HTTP/1.1 400 Bad Request\r\n",
        "220x\r\n",
        "999 what\r\n",
        "22\r\n",
        "\r\n",
        "220-one\r\n250 other\r\n",
        "2200 x\r\n",
      }) do
        local client = session.new()
        assert(client:open(0))
        test.fails("protocol", hear(client, words))
        test.equal(client.state, "closed")
      end
    end,

    ["endless lines and endless replies are ended"] = function()
      local client = session.new()
      assert(client:open(0))
      test.fails("limit", hear(client, "220 " .. ("x"):rep(5000)))
      client = session.new({ line_max = 100 })
      assert(client:open(0))
      test.fails("limit", hear(client, "220 " .. ("x"):rep(100) .. "\r\n"))
      client = session.new({ lines_max = 10 })
      assert(client:open(0))
      test.fails("limit", hear(client, ("220-x\r\n"):rep(11)))
    end,

    ["control characters of a server are not passed on"] = function()
      local client = session.new()
      assert(client:open(0))
      local _, err = hear(client, "554 5.7.1 \27[31mred\0\r\n")
      test.equal(err.reason, "?[31mred?")
    end,
  },

  tls = {
    ["after TLS everything is asked again"] = function()
      local client = ready()
      assert(client:starttls(0))
      test.equal(sent(client), "STARTTLS\r\n")
      test.equal(assert(hear(client, "220 2.0.0 go\r\n")).type, "tls")
      client:secured(0)
      test.equal(sent(client), "EHLO [127.0.0.1]\r\n")
      test.equal(client.extensions, {})
      test.equal(assert(hear(client, PLAIN)).type, "hello")
      test.equal(client.mechanisms, {})
    end,

    ["bytes behind the answer to STARTTLS are an attack"] = function()
      local client = ready()
      assert(client:starttls(0))
      local err = test.fails("protocol", hear(client, "220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n"))
      test.matches(err.message, "before TLS")
      test.equal(client.state, "closed")
    end,

    ["a refused STARTTLS leaves the session"] = function()
      local client = ready()
      assert(client:starttls(0))
      test.equal(test.fails("refused", hear(client, "454 4.7.0 not now\r\n")).retry, true)
      test.equal(client.state, "ready")
    end,
  },

  auth = {
    ["an initial response goes with AUTH"] = function()
      local client = ready()
      assert(client:authenticate(sasl.new("PLAIN", { username = "u", password = "p" }), 0))
      test.equal(sent(client), "AUTH PLAIN " .. base64.encode("\0u\0p") .. "\r\n")
      test.equal(assert(hear(client, "235 2.7.0 in\r\n")).type, "authenticated")
    end,

    ["an initial response that is too long waits for its challenge"] = function()
      local client = ready()
      local password = ("p"):rep(600)
      assert(client:authenticate(sasl.new("PLAIN", { username = "u", password = password }), 0))
      test.equal(sent(client), "AUTH PLAIN\r\n")
      test.equal(hear(client, "334 \r\n"), nil)
      test.equal(sent(client), base64.encode("\0u\0" .. password) .. "\r\n")
    end,

    ["a refused login leaves the session, and shows no secret that the server repeats"] = function()
      local client = ready()
      assert(client:authenticate(sasl.new("PLAIN", { username = "u", password = "p" }), 0))
      local secret = base64.encode("\0u\0p")
      local err = test.fails("refused", hear(client, "535 5.7.8 bad command AUTH PLAIN " .. secret .. "\r\n"))
      test.equal({ err.code, err.status, err.mechanism, err.retry }, { 535, "5.7.8", "PLAIN", false })
      assert(not tostring(err):find(secret, 1, true))
      assert(not err.reason:find(secret, 1, true))
      test.equal(client.state, "ready")
      test.equal(sent(client):match("^AUTH") ~= nil, true)
    end,

    ["a challenge that is not base64 is given up with a star"] = function()
      local client = ready()
      assert(client:authenticate(sasl.new("CRAM-MD5", { username = "u", password = "p" }), 0))
      sent(client)
      test.equal(hear(client, "334 ???\r\n"), nil)
      test.equal(sent(client), "*\r\n")
      test.fails("protocol", hear(client, "501 cancelled\r\n"))
      test.equal(client.state, "closed")
    end,

    ["a SCRAM server that cheats is left even if it says welcome"] = function()
      local client = ready()
      assert(client:authenticate(sasl.new("SCRAM-SHA-256", { username = "u", password = "p" }), 0))
      test.fails("protocol", hear(client, "235 welcome\r\n"))
      test.equal(client.state, "closed")
    end,
  },

  mail = {
    ["with PIPELINING the envelope is one flight"] = function()
      local client = ready()
      assert(client:mail(envelope("b@x.org", "c@x.org"), 0))
      test.equal(
        sent(client),
        "MAIL FROM:<a@example.org> SIZE=10\r\nRCPT TO:<b@x.org>\r\nRCPT TO:<c@x.org>\r\nDATA\r\n"
      )
      test.equal(assert(hear(client, "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")).type, "data")
      assert(client:data("Subject: x\n\n.dot\r\n..two", 0))
      assert(client:finish(0))
      test.equal(sent(client), "Subject: x\r\n\r\n..dot\r\n...two\r\n.\r\n")
      local event = assert(hear(client, "250 2.0.0 queued as 1234\r\n"))
      test.equal(event.result, {
        accepted = { "b@x.org", "c@x.org" },
        refused = {},
        code = 250,
        status = "2.0.0",
        text = "queued as 1234",
      })
      test.equal(client.state, "ready")
    end,

    ["without PIPELINING each command waits for its reply"] = function()
      local client = ready(PLAIN)
      assert(client:mail(envelope("b@x.org", "c@x.org"), 0))
      test.equal(sent(client), "MAIL FROM:<a@example.org> SIZE=10\r\n")
      for _, line in ipairs({ "RCPT TO:<b@x.org>\r\n", "RCPT TO:<c@x.org>\r\n", "DATA\r\n" }) do
        test.equal(hear(client, "250 ok\r\n"), nil)
        test.equal(sent(client), line)
      end
      test.equal(assert(hear(client, "354 go\r\n")).type, "data")
    end,

    ["QUIT goes with the last message"] = function()
      for _, code in ipairs({ 250, 554 }) do
        local client = ready()
        local last = envelope("b@x.org")
        last.quit = true
        assert(client:mail(last, 0))
        assert(hear(client, "250 ok\r\n250 ok\r\n354 go\r\n"))
        sent(client)
        assert(client:finish(0))
        test.equal(sent(client), ".\r\nQUIT\r\n")
        local input = cosocket.buffer(("%d x\r\n221 bye\r\n"):format(code))
        local event, err = client:receive(input, 0)
        if code == 250 then
          test.equal(event.type, "sent")
        else
          test.equal(test.fails("refused", event, err).code, 554)
        end
        test.equal(client.state, "quitting")
        test.equal(assert(client:receive(input, 0)).type, "reply")
        test.equal(client.state, "closed")
      end
    end,

    ["pieces cut anywhere are the same message"] = function()
      local text = ".a\r\n..b\n\r\n.\n.c"
      local function whole(pieces)
        local client = ready()
        assert(client:mail(envelope("b@x.org"), 0))
        assert(hear(client, "250 ok\r\n250 ok\r\n354 go\r\n"))
        sent(client)
        for _, piece in ipairs(pieces) do assert(client:data(piece, 0)) end
        assert(client:finish(0))
        return sent(client)
      end
      local expected = whole({ text })
      test.equal(expected, "..a\r\n...b\r\n\r\n..\r\n..c\r\n.\r\n")
      test.every_cut(text, function(first, second) test.equal(whole({ first, second }), expected) end)
    end,

    ["refused recipients are told with the result"] = function()
      local client = ready()
      assert(client:mail(envelope("b@x.org", "c@x.org", "d@x.org"), 0))
      assert(hear(client, "250 ok\r\n250 ok\r\n550-5.1.1 nobody\r\n550 5.1.1 here\r\n452 4.2.2 full\r\n354 go\r\n"))
      assert(client:finish(0))
      local result = assert(hear(client, "250 ok\r\n")).result
      test.equal(result.accepted, { "b@x.org" })
      test.equal(result.refused, {
        { address = "c@x.org", code = 550, status = "5.1.1", text = "nobody here", retry = false },
        { address = "d@x.org", code = 452, status = "4.2.2", text = "full", retry = true },
      })
    end,

    ["when every recipient is refused the message is not sent"] = function()
      local client = ready()
      assert(client:mail(envelope("b@x.org", "c@x.org"), 0))
      sent(client)
      local err = test.fails("refused", hear(client, "250 ok\r\n550 5.1.1 no\r\n450 4.2.1 later\r\n554 no recipients\r\n"))
      test.equal({ err.code, err.status, err.retry, #err.refused }, { 550, "5.1.1", true, 2 })
      test.equal(client.state, "ready")
      -- What is left of it at the server is taken back before the next one.
      assert(client:mail(envelope("d@x.org"), 0))
      test.matches(sent(client), "^RSET\r\nMAIL FROM")
      test.equal(assert(hear(client, "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")).type, "data")
    end,

    ["a server that wants the message for nobody gets a dot"] = function()
      local client = ready()
      assert(client:mail(envelope("b@x.org"), 0))
      sent(client)
      test.equal(hear(client, "250 ok\r\n550 no\r\n354 go\r\n"), nil)
      test.equal(sent(client), ".\r\n")
      test.equal(test.fails("refused", hear(client, "554 no valid recipients\r\n")).code, 550)
      test.equal(client.state, "ready")
    end,

    ["a refused sender ends it, whatever the rest is answered"] = function()
      local client = ready()
      assert(client:mail(envelope("b@x.org"), 0))
      local err = test.fails("refused", hear(client, "550 5.7.1 not you\r\n503 no\r\n503 no\r\n"))
      test.equal({ err.code, err.reason }, { 550, "not you" })
      client = ready(PLAIN)
      assert(client:mail(envelope("b@x.org"), 0))
      test.equal(test.fails("refused", hear(client, "451 later\r\n")).retry, true)
      test.equal(client.state, "ready")
    end,

    ["4xx and 5xx for the message are told apart"] = function()
      for code, retry in pairs({ [451] = true, [552] = false }) do
        local client = ready()
        assert(client:mail(envelope("b@x.org"), 0))
        assert(hear(client, "250 ok\r\n250 ok\r\n354 go\r\n"))
        assert(client:finish(0))
        local err = test.fails("refused", hear(client, ("%d no\r\n"):format(code)))
        test.equal({ err.code, err.retry }, { code, retry })
        test.equal(client.state, "ready")
      end
    end,

    ["what the server cannot take is refused before it is sent"] = function()
      local client = ready()
      local large = envelope("b@x.org")
      large.size = 1001
      local err = test.fails("refused", client:mail(large, 0))
      test.equal({ err.code, err.status, err.retry }, { 552, "5.3.4", false })
      client = ready(PLAIN)
      local utf8 = envelope("b@x.org")
      utf8.smtputf8 = true
      test.equal(test.fails("refused", client:mail(utf8, 0)).status, "5.6.7")
      local eight_bit = envelope("b@x.org")
      eight_bit.eight_bit = true
      test.equal(test.fails("refused", client:mail(eight_bit, 0)).status, "5.6.3")
      local report = envelope("b@x.org")
      report.recipients[1].notify = "NEVER"
      test.fails("refused", client:mail(report, 0))
      test.equal(sent(client), "")
      test.equal(client.state, "ready")
    end,

    ["parameters are written as their standards say"] = function()
      local client = ready()
      local all = envelope("b@bücher.example")
      all.recipients[1].ascii = "b@xn--bcher-kva.example"
      all.recipients[1].notify, all.recipients[1].orcpt = "SUCCESS,DELAY", "x+y=z@x.org"
      all.ret, all.envid, all.eight_bit = "HDRS", "id + 1", true
      assert(client:mail(all, 0))
      test.equal(
        sent(client),
        "MAIL FROM:<a@example.org> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=id+20+2B+201\r\n"
          .. "RCPT TO:<b@xn--bcher-kva.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By+3Dz@x.org\r\nDATA\r\n"
      )
      client = ready()
      all.smtputf8 = true
      assert(client:mail(all, 0))
      test.matches(sent(client), "BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=%S+\r\nRCPT TO:<b@bücher%.example>")
    end,

    ["an address with a line end never becomes a command"] = function()
      local client = ready()
      test.raises("no line", client.mail, client, envelope("b@x.org>\r\nRCPT TO:<evil@x.org"), 0)
    end,
  },

  chunks = {
    ["a small message is one flight with its envelope"] = function()
      local client = ready("250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
      assert(client:mail(envelope("b@x.org"), 0))
      assert(client:chunk(cosocket.buffer("..\r\n"), true, 0))
      test.equal(sent(client), "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@x.org>\r\nBDAT 4 LAST\r\n..\r\n")
      test.equal(assert(hear(client, "250 ok\r\n250 ok\r\n250 2.0.0 taken\r\n")).type, "sent")
    end,

    ["a large one goes in chunks"] = function()
      local client = ready("250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
      assert(client:mail(envelope("b@x.org"), 0))
      sent(client)
      test.equal(assert(hear(client, "250 ok\r\n250 ok\r\n")).type, "data")
      assert(client:chunk(cosocket.buffer("abc"), false, 0))
      test.equal(hear(client, "250 3 bytes\r\n"), nil)
      assert(client:chunk(cosocket.buffer(""), true, 0))
      test.equal(sent(client), "BDAT 3\r\nabcBDAT 0 LAST\r\n")
      test.equal(assert(hear(client, "250 ok\r\n")).type, "sent")
    end,

    ["a refused chunk ends it, and RSET follows"] = function()
      local client = ready("250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
      assert(client:mail(envelope("b@x.org"), 0))
      assert(hear(client, "250 ok\r\n250 ok\r\n"))
      assert(client:chunk(cosocket.buffer("abc"), false, 0))
      test.equal(test.fails("refused", hear(client, "552 5.3.4 too much\r\n")).code, 552)
      sent(client)
      assert(client:mail(envelope("b@x.org"), 0))
      test.matches(sent(client), "^RSET\r\n")
    end,

    ["when nobody is accepted the chunk's refusal is not the reason"] = function()
      local client = ready("250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
      assert(client:mail(envelope("b@x.org"), 0))
      assert(client:chunk(cosocket.buffer("abc"), true, 0))
      test.equal(test.fails("refused", hear(client, "250 ok\r\n550 5.1.1 no\r\n503 what\r\n")).code, 550)
    end,
  },

  ["421 ends the session at any time"] = function()
    local client = ready()
    local err = test.fails("closed", hear(client, "421 4.3.2 going down\r\n"))
    test.equal({ err.code, err.retry, err.status }, { 421, true, "4.3.2" })
    client = ready()
    assert(client:mail(envelope("b@x.org"), 0))
    test.fails("closed", hear(client, "250 ok\r\n421 going\r\n"))
    test.equal(client.state, "closed")
  end,

  ["a server that speaks unasked is left"] = function()
    local client = ready()
    test.fails("protocol", hear(client, "250 hello again\r\n"))
    test.equal(client.state, "closed")
  end,

  ["a server that does not want the rest of a message is left"] = function()
    local client = ready()
    assert(client:mail(envelope("b@x.org"), 0))
    assert(hear(client, "250 ok\r\n250 ok\r\n354 go\r\n"))
    assert(client:data("x", 0))
    test.equal(test.fails("refused", hear(client, "552 too much\r\n")).code, 552)
    test.equal(client.state, "closed")
  end,

  time = {
    ["each step has its own limit"] = function()
      local client = session.new({ timeouts = { greeting = 7 } })
      assert(client:open(100))
      test.equal(client.deadline, 107)
      hear(client, "220 x\r\n", 101)
      test.equal(client.deadline, 401)
      hear(client, ALL, 102)
      test.equal(client.deadline, math.huge)
      assert(client:mail(envelope("b@x.org"), 200))
      test.equal(client.deadline, 500)
      hear(client, "250 ok\r\n", 201)
      test.equal(client.deadline, 501)
      hear(client, "250 ok\r\n", 202)
      test.equal(client.deadline, 322)
      hear(client, "354 ok\r\n", 203)
      test.equal(client.deadline, 383)
      assert(client:data("x", 210))
      test.equal(client.deadline, 390)
      assert(client:finish(211))
      test.equal(client.deadline, 811)
      hear(client, "250 ok\r\n", 212)
      test.equal(client.deadline, math.huge)
      assert(client:command("QUIT", 300))
      test.equal(client.deadline, 310)
    end,

    ["each chunk but the last has the limit of a block, and the last that of the message's end"] = function()
      local client = ready("250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
      assert(client:mail(envelope("b@x.org"), 0))
      hear(client, "250 ok\r\n250 ok\r\n", 1)
      assert(client:chunk(cosocket.buffer("abc"), false, 10))
      test.equal(client.deadline, 190)
      hear(client, "250 3 bytes\r\n", 11)
      assert(client:chunk(cosocket.buffer("def"), false, 20))
      assert(client:chunk(cosocket.buffer("ghi"), true, 20))
      test.equal(client.deadline, 200)
      hear(client, "250 3 bytes\r\n", 30)
      test.equal(client.deadline, 630)
    end,

    ["a server that is late is left"] = function()
      local client = ready()
      assert(client:mail(envelope("b@x.org"), 0))
      test.equal(client:expire(299), true)
      local err = test.fails("timeout", client:expire(300))
      test.matches(err.message, "MAIL")
      test.equal(client.state, "closed")
    end,
  },

  ["no words of a server make the session raise"] = function()
    local random = test.random()
    local words = {
      "250 ok\r\n", "354 go\r\n", "550 5.1.1 no\r\n", "421 bye\r\n", "334 AAAA\r\n", "235 in\r\n", "220 go\r\n",
      "250-x\r\n", "\r\n", "x", "250", "\0", "503 order\r\n", "250-AUTH PLAIN\r\n", "250 SIZE x\r\n",
    }
    for _ = 1, 500 do
      local client = session.new()
      assert(client:open(0))
      local input = cosocket.buffer()
      for _ = 1, 30 do
        input:append(random:pick(words))
        if client.state == "ready" then
          local what = random(4)
          if what == 1 then
            client:mail(envelope("b@x.org", "c@x.org"), 0)
          elseif what == 2 then
            client:authenticate(assert(sasl.new("SCRAM-SHA-1", { username = "u", password = "p" })), 0)
          elseif what == 3 then
            client:starttls(0)
          else
            client:command("NOOP", 0)
          end
        elseif client.state == "data" then
          client:finish(0)
        elseif client.state == "tls" then
          client:secured(0)
        end
        client:receive(input, 0)
      end
    end
  end,
}
