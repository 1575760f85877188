-- Messages: what they are made of, piece by piece. Whether the world reads them the same way, conformance/smtp proves.
local base64 = require("base64")
local codec = require("smtp.codec")
local cosocket = require("cosocket")
local envelopes = require("smtp.envelope")
local message = require("smtp.message")
local test = require("test")

--- The whole message as text; its size was said truly.
local function whole(given, options)
  local composed = assert(message.compose(given, options))
  local buffer = cosocket.buffer()
  local reader <close> = composed:reader()
  local err
  repeat
    local more
    more, err = reader:read(buffer)
    assert(not err, tostring(err))
  until not more
  local text = buffer:take() or ""
  if composed.size then test.equal(composed.size, #text) end
  return text, composed
end

local function with(fields)
  fields.from = fields.from or "a@example.org"
  fields.to = fields.to or "b@example.org"
  return fields
end

local function temporary(content)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(content)
  file:close()
  return path
end

--- A header field, unfolded.
local function header(text, name)
  local head = "\r\n" .. text:match("^(.-)\r\n\r\n")
  return (head:gsub("\r\n([ \t])", "%1")):match("\r\n" .. name .. ": ([^\r]*)")
end

return {
  ["a plain message has what RFC 5322 asks for"] = function()
    local text, composed = whole(with({ text = "hi\n", date = 0, message_id = "one@example.org", subject = "x" }))
    test.equal(
      text,
      "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nFrom: <a@example.org>\r\nTo: <b@example.org>\r\nSubject: x\r\n"
        .. "Message-ID: <one@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"utf-8\"\r\n"
        .. "Content-Transfer-Encoding: 7bit\r\n\r\nhi\r\n"
    )
    test.equal(composed.message_id, "one@example.org")
  end,

  ["date and identifier are made when they are absent"] = function()
    local one, composed = whole(with({}))
    local other = whole(with({}))
    test.matches(header(one, "Date"), "^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d %+0000$")
    test.matches(header(one, "Message%-ID"), "^<%x+@example%.org>$")
    test.equal(header(one, "Message%-ID"), "<" .. composed.message_id .. ">")
    test.not_equal(header(one, "Message%-ID"), header(other, "Message%-ID"))
  end,

  ["who is in bcc gets it, and is in no header"] = function()
    local text, composed = whole(with({ cc = "c@example.org", bcc = { "secret@example.org", "b@EXAMPLE.org" } }))
    assert(not text:lower():find("secret") and not text:lower():find("\nbcc:"))
    local envelope = assert(envelopes.of(composed, {}))
    local list = {}
    for i, one in ipairs(envelope.recipients) do list[i] = one.address end
    test.equal(list, { "b@example.org", "c@example.org", "secret@example.org" })
  end,

  ["the envelope may be another one"] = function()
    local _, composed = whole(with({}))
    local envelope = assert(envelopes.of(composed, {
      sender = "bounces@example.org",
      recipients = { "x@example.org", { address = "y@example.org", notify = "NEVER" } },
      notify = "FAILURE",
    }))
    test.equal(envelope.sender, "bounces@example.org")
    test.equal({ envelope.recipients[1].notify, envelope.recipients[2].notify }, { "FAILURE", "NEVER" })
    test.equal(assert(envelopes.of(composed, { sender = "" })).sender, "")
    test.fails("protocol", envelopes.of(composed, { recipients = {} }))
    test.fails("protocol", envelopes.of(composed, { recipients = { "nobody" } }))
  end,

  ["text is sent as it is while it can be"] = function()
    local function encoding(text) return header(whole(with({ text = text })), "Content%-Transfer%-Encoding") end
    test.equal(encoding("plain\n"), "7bit")
    test.equal(encoding(("x"):rep(998)), "7bit")
    test.equal(encoding(("x"):rep(999)), "quoted-printable")
    test.equal(encoding("Grüße"), "quoted-printable")
    test.equal(encoding("これは日本語の文章です。"), "base64")
    test.equal(encoding("nul\0"), "quoted-printable")
  end,

  ["no line is longer than a mail server takes"] = function()
    local long = ("ü"):rep(5000) .. ("x"):rep(5000)
    for _, given in ipairs({ { text = long }, { html = long }, { subject = long }, { from = { name = long, address = "a@x.org" } } }) do
      for line in whole(with(given)):gmatch("[^\r\n]+") do assert(#line <= 998, #line) end
    end
  end,

  ["parts are nested as they are read"] = function()
    local text = whole(with({
      text = "t",
      html = "<img src='cid:plot'>",
      inline = { { cid = "plot", content = "<svg/>", name = "plot.svg" } },
      calendar = "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n",
      alternatives = { { type = "text/x-amp-html", content = "<html>" } },
      attachments = { { content = "a,b\n", name = "Ü.csv" } },
    }))
    local order = {}
    for kind in text:gmatch("\nContent%-Type: ([^;\r]+)") do order[#order + 1] = kind end
    test.equal(order, {
      "multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/svg+xml",
      "text/x-amp-html", "text/calendar", "text/csv",
    })
    test.matches(text, "\nContent%-ID: <plot>\r\n")
    test.matches(text, "method=\"?REQUEST")
    test.matches(text, "filename%*=UTF%-8''%%C3%%9C%.csv")
    test.matches(text, "Content%-Disposition: inline; filename=\"plot%.svg\"")
  end,

  ["attachments come from content, a file, and streams of three kinds"] = function()
    local random = test.random()
    local bytes = random:bytes(100000)
    local path = temporary(bytes)
    local function pieces()
      local at = 1
      return function()
        if at > #bytes then return nil end
        local piece = bytes:sub(at, at + random(1, 5000))
        at = at + #piece
        return piece
      end
    end
    local near, far = cosocket.pair()
    cosocket.spawn(function()
      far:write(bytes)
      far:close()
    end)
    for _, one in ipairs({
      { content = bytes }, path, { path = path }, { stream = pieces() }, { stream = assert(io.open(path, "rb")) },
      { stream = near },
    }) do
      local text = whole(with({ attachments = { one } }))
      local encoded = text:match("base64\r\n\r\n(.-)\r\n%-%-")
      for line in encoded:gmatch("[^\r\n]+") do assert(#line <= 76) end
      test.equal(base64.decode((encoded:gsub("%s", ""))), bytes)
    end
    os.remove(path)
  end,

  ["a file that is not there, or is a folder, is an error with its name"] = function()
    local err = test.fails("io", message.compose(with({ attachments = { "/nonexistent/x.pdf" } })))
    test.matches(err.message, "attachments%[1%].*/nonexistent/x.pdf")
    test.equal(err.code, "ENOENT")
    test.equal(test.fails("io", message.compose(with({ attachments = { "/tmp" } }))).code, "EISDIR")
  end,

  ["a file that becomes shorter ends the message"] = function()
    local path = temporary(("x"):rep(1000))
    local composed = assert(message.compose(with({ attachments = { path } })))
    local file = assert(io.open(path, "wb"))
    file:write("x")
    file:close()
    local buffer, err = cosocket.buffer(), nil
    local reader <close> = composed:reader()
    repeat
      local more
      more, err = reader:read(buffer)
    until not more
    test.matches(tostring(err), "shorter")
    os.remove(path)
  end,

  ["a stream that fails is told"] = function()
    local composed = assert(message.compose(with({ attachments = { { stream = function() return nil, "broken" end } } })))
    test.equal(composed.size, nil)
    local buffer, reader = cosocket.buffer(), composed:reader()
    local err
    repeat
      local more
      more, err = reader:read(buffer)
    until not more
    test.matches(tostring(err), "attachments%[1%]: broken")
  end,

  ["what is wrong in a part is told with its name"] = function()
    local function fails(pattern, given)
      local err = test.fails("protocol", message.compose(with(given)))
      test.matches(err.message, pattern)
    end
    fails("text: not UTF%-8", { text = "\xff" })
    fails("inline: there is no html", { inline = { { cid = "x", content = "" } } })
    fails("inline%[1%]: it needs a cid", { html = "", inline = { { content = "" } } })
    fails("inline%[1%]: .* is not a content identifier", { html = "", inline = { { content = "", cid = "a>b" } } })
    fails("attachments%[1%]: .* is not a media type", { attachments = { { content = "", type = "a/b\r\nX: y" } } })
    fails("alternatives%[1%]: it needs a type", { alternatives = { { content = "" } } })
    fails("from: a message needs", { from = {} })
    test.raises("needs one of content, path and stream", message.compose, with({ attachments = { {} } }))
    test.raises("needs one of content, path and stream", message.compose, with({ attachments = { { path = "x", content = "y" } } }))
    test.raises("priority must be", message.compose, with({ priority = "urgent" }))
  end,

  ["replies, priority and headers of one's own are written"] = function()
    local text = whole(with({
      in_reply_to = "<one@x>", references = { "zero@x", "one@x" }, priority = "high",
      headers = { { "X-Device", "Gerät 7" }, { "X-Device", "8" } }, reply_to = "r@example.org",
      sender = "s@example.org",
    }))
    test.equal(header(text, "In%-Reply%-To"), "<one@x>")
    test.equal(header(text, "References"), "<zero@x> <one@x>")
    test.equal(header(text, "X%-Priority"), "1")
    test.equal(header(text, "Reply%-To"), "<r@example.org>")
    test.equal(header(text, "Sender"), "<s@example.org>")
    test.matches(text, "X%-Device: =%?utf%-8%?.*X%-Device: 8\r\n")
  end,

  ["headers are UTF-8 where an address needs it, or when asked"] = function()
    local text, composed = whole(with({ to = "Jörg <jörg@bücher.example>", subject = "Grüße" }))
    test.equal(composed.smtputf8, true)
    test.matches(text, "To: \"Jörg\" <jörg@bücher%.example>")
    test.matches(text, "Subject: Grüße\r\n")
    text, composed = whole(with({ subject = "Grüße", utf8 = true }))
    test.equal(composed.smtputf8, true)
    test.matches(text, "Subject: Grüße\r\n")
    text, composed = whole(with({ to = "b@bücher.example", subject = "Grüße" }))
    test.equal(composed.smtputf8, false)
    test.matches(text, "<b@xn%-%-bcher%-kva%.example>")
    assert(not text:find("[\x80-\xff]"))
  end,

  ready = {
    ["a message that is ready is sent as it is, but for Bcc"] = function()
      local eml = "From: a@example.org\nTo: B <b@example.org>,\n c@example.org\nBcc: secret@example.org\n"
        .. "Subject: x\nMessage-ID: <m@x>\n\n.body\n\nend"
      local path = temporary(eml)
      for _, given in ipairs({ { raw = eml }, { eml = path }, { raw = (eml:gsub("\n", "\r\n")) } }) do
        local text, composed = whole(given)
        test.equal(
          text,
          "From: a@example.org\r\nTo: B <b@example.org>,\r\n c@example.org\r\nSubject: x\r\nMessage-ID: <m@x>\r\n"
            .. "\r\n.body\r\n\r\nend\r\n"
        )
        local envelope = assert(envelopes.of(composed, {}))
        test.equal({ envelope.sender, #envelope.recipients, composed.message_id }, { "a@example.org", 3, "m@x" })
      end
      os.remove(path)
    end,

    ["what it needs of a server is seen"] = function()
      local _, composed = whole({ raw = "From: a@x.org\r\nTo: b@x.org\r\n\r\nGr\xfc\xdfe\r\n" })
      test.equal({ composed.eight_bit, composed.smtputf8 }, { true, false })
      _, composed = whole({ raw = "From: Jörg <a@x.org>\r\nTo: b@x.org\r\n\r\nx\r\n" })
      test.equal(composed.smtputf8, true)
    end,

    ["what SMTP does not carry is refused"] = function()
      local function fails(pattern, raw)
        local err = test.fails("protocol", message.compose({ raw = raw }))
        test.matches(err.message, pattern)
      end
      fails("a line of 999 bytes", "From: a@x.org\r\n\r\n" .. ("x"):rep(999))
      fails("NUL", "From: a@x.org\r\n\r\n\0")
      fails("is not a header field", "From: a@x.org\r\nnonsense\r\n\r\nx")
      fails("header fields of more", ("X: y\r\n"):rep(60000))
      fails("raw: from", "From: nobody\r\n\r\nx")
      test.raises("has no other fields", message.compose, { raw = "x", subject = "y" })
    end,

    ["a message of header fields only, or with none, is one"] = function()
      test.equal(whole({ raw = "From: a@x.org\r\n" }), "From: a@x.org\r\n\r\n")
      test.equal(whole({ raw = "\r\nbody" }), "\r\nbody\r\n")
    end,
  },

  dkim = {
    ["it needs to read twice, which a stream cannot"] = function()
      local given = with({ attachments = { { stream = function() end } } })
      local err = test.fails("protocol", message.compose(given, { dkim = { domain = "x.org", selector = "s", key = "k" } }))
      test.matches(err.message, "attachments%[1%]: DKIM reads a message twice")
    end,

    ["a key that cannot be read is an error without it"] = function()
      local dkim = { domain = "x.org", selector = "s", key = "/nonexistent.pem" }
      test.equal(test.fails("io", message.compose(with({}), { dkim = dkim })).code, "ENOENT")
      dkim.key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
      local err = test.fails("protocol", message.compose(with({}), { dkim = dkim }))
      assert(not tostring(err):find("c2Vj"))
    end,

    ["an Ed25519 signature covers what a reader sees"] = function()
      -- RFC 8463, A.1
      local key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
        .. "-----END PRIVATE KEY-----\n"
      local text = whole(with({ text = "hi\n", subject = "x" }), { dkim = { domain = "example.org", selector = "s1", key = key } })
      local field = header(text, "DKIM%-Signature"):gsub("%s", "")
      test.matches(field, "^v=1;a=ed25519%-sha256;c=relaxed/relaxed;t=%d+;d=example.org;s=s1;h=from:to:subject:")
      test.matches(field, ":from;bh=[%w+/=]+;b=" .. ("[%w+/]"):rep(86) .. "==$")
      local body = codec.body_hash()
      body:update("hi\r\n")
      test.equal(field:match("bh=([^;]+)"), base64.encode(body:finish()))
    end,
  },
}
