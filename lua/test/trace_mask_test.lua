-- Secrets in text that comes in pieces: what is masked does not depend on where it was cut.
local mask = require("net.trace.mask")
local secret = require("net.trace.secret")
local test = require("test")
local tracing = require("test.tracing")

local SECRET = "s3cret!"

--- Texts with a secret, in every form that is known.
local TEXTS = {
  '{"user":"joe","password":"%s","n":1}',
  '{"user":"joe" , "pass-word" \t:\n "a\\"%s\\\\","n":"x"}',
  '{"api_key" : %s, "tokens": ["a%s", {"b": "]}%s"}, [1]], "x": "plain"}',
  '{"credentials":{"a":"}","b":{"c":"%s"}},"d":"plain"}',
  '{"Token":null,"secret":"%s","HTTP_AUTHORIZATION":"Basic %s"}',
  "user=joe&password=%s&x=plain",
  "a=1;client_secret=%s;b=2 access_token=%s c",
  "GET /x?access_token=%s&page=2#id_token=%s HTTP/1.1",
  "token=%s",
}

--- Texts with a password before a host: where it is cut, more may be masked.
local URLS = {
  "see mqtt://joe:%s@broker:1883/ and https://%s@host/x, https://host:80/y",
  'amqp://a:b:%s@h "ftp://:%s@c" <http://plain.example/>',
}

local function filled(text) return (text:gsub("%%s", SECRET)) end

--- Masks a text that comes in pieces, which end at the places given.
local function pieces(text, ends)
  local one, made, from = mask.new(), {}, 1
  for i, last in ipairs(ends) do
    made[i] = one:feed(text:sub(from, last), i == #ends)
    from = last + 1
  end
  return table.concat(made)
end

local function whole(text) return secret.text(text, secret.same) end

return {
  ["a text that is cut at any byte is masked as if it were whole"] = function()
    for _, form in ipairs(TEXTS) do
      local text = filled(form)
      local expected = whole(text)
      test.falsy(expected:find(SECRET, 1, true), expected)
      test.equal(#expected, #text)
      for cut = 0, #text do test.equal(pieces(text, { cut, #text }), expected, ("%s cut at %d"):format(text, cut)) end
    end
  end,

  ["a text that is cut twice, anywhere, is masked as if it were whole"] = function()
    for _, form in ipairs(TEXTS) do
      local text = filled(form)
      local expected = whole(text)
      for one = 0, #text do
        for other = one, #text do
          if pieces(text, { one, other, #text }) ~= expected then test.equal(pieces(text, { one, other, #text }), expected, text) end
        end
      end
    end
  end,

  ["a text that comes byte by byte is masked as if it were whole"] = function()
    for _, form in ipairs(TEXTS) do
      local text = filled(form)
      local ends = {}
      for i = 1, #text do ends[i] = i end
      test.equal(pieces(text, ends), whole(text))
    end
  end,

  ["a password before a host is masked wherever it is cut, and what is not secret only near the cut"] = function()
    for _, form in ipairs(URLS) do
      local text = filled(form)
      local expected = whole(text)
      test.falsy(expected:find(SECRET, 1, true), expected)
      for one = 0, #text do
        for other = one, #text do
          local made = pieces(text, { one, other, #text })
          test.equal(#made, #text)
          for at = 1, #text do
            local byte, wanted = made:sub(at, at), expected:sub(at, at)
            if byte ~= wanted then
              test.equal(byte, "*", text)
              test.truthy(wanted ~= "*", text)
              -- Only an authority that the end of a piece left open.
              local open = text:sub(1, at <= one and one or other):match("://([^%s/?#@\"'<>]*)$")
              test.truthy(open, ("%s cut at %d and %d"):format(text, one, other))
            end
          end
        end
      end
    end
  end,

  ["no part of a secret of many pieces is shown, and what follows it is"] = function()
    local long = ("x"):rep(5000)
    for _, form in ipairs({ '{"password":"%s","n":1}', "password=%s&n=1", '{"tokens":["%s"],"n":1}', '{"token":%s,"n":1}' }) do
      local text = form:gsub("%%s", long)
      for _, size in ipairs({ 1, 7, 1448 }) do
        local ends = {}
        for at = size, #text, size do ends[#ends + 1] = at end
        ends[#ends + 1] = #text
        local made = pieces(text, ends)
        test.falsy(made:find("x", 1, true))
        test.equal(made, whole(text))
        test.truthy(made:find("n", 1, true))
      end
    end
  end,

  ["random text that comes in random pieces is masked as if it were whole"] = function()
    local random = test.random()
    local parts = { '"', '"password"', '"x"', "token", "token=", "=", ":", ": ", "\\", "[", "]", "{", "}", ",", "&", "?", ";", " ", "\n", "-", "a", ("y"):rep(70), "\xff", "password", '"pass', 'word":"' }
    for _ = 1, 5000 do
      local made = {}
      for i = 1, random(25) do made[i] = random:pick(parts) end
      local text = table.concat(made)
      local ends, at = {}, 0
      while at < #text do
        at = math.min(#text, at + random(0, 12))
        ends[#ends + 1] = at
      end
      ends[#ends + 1] = #text
      test.equal(pieces(text, ends), whole(text), ("%q"):format(text))
    end
  end,

  ["what is remembered does not grow with the text"] = function()
    for _, part in ipairs({ "x", '"', '"a', '"a" ', "=", "a=", "://", "://a:", ":", " ", '"password" ', '"token":[', '"token":["\\', "password=" }) do
      local one = mask.new()
      for _ = 1, 200 do one:feed(part:rep(1000 // #part)) end
      for _, filter in ipairs({ one.members, one.authorities, one.parameters }) do
        test.truthy(#filter.kept <= 256, ("%d bytes of %q"):format(#filter.kept, part))
      end
    end
    local scrubber = secret.scrubber()
    for _ = 1, 200 do scrubber:feed(("x: "):rep(300)) end
    test.truthy(#(scrubber.line or "") <= 1024)
  end,

  ["a secret in a body of any length is masked wherever the body is cut"] = function()
    local filler = ('{"n":1},'):rep(8200)
    local body = filler .. '{"password":"' .. SECRET .. '"},' .. filler
    local head = ("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"):format(#body)
    local from = #head + #filler
    for cut = from - 2, from + 30 do
      local _, captured = tracing.hear("http", "client", { { ">", (head .. body):sub(1, cut) }, { ">", (head .. body):sub(cut + 1) } })
      test.equal(captured.sent, head .. filler .. '{"password":"*******"},' .. filler)
    end
  end,

  ["a secret in two chunks of a body is masked in both"] = function()
    local text = '{"password":"' .. SECRET .. '","n":1}'
    for cut = 1, #text - 1 do
      local one, other = text:sub(1, cut), text:sub(cut + 1)
      local lines, captured = tracing.hear("http", "client", {
        { ">", "GET / HTTP/1.1\r\nHost: h\r\n\r\n" },
        { "<", ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n"):format(#one, one, #other, other) },
      })
      local bytes = captured.received:gsub("^.-\r\n\r\n%x+\r\n", ""):gsub("\r\n%x+\r\n", "", 1):gsub("\r\n0\r\n\r\n$", "")
      test.equal(bytes, '{"password":"*******","n":1}')
      local said = table.concat(lines, "\n")
      for at = 1, #SECRET - 2 do test.falsy(said:find(SECRET:sub(at, at + 2), 1, true), said) end
    end
  end,

  ["a secret in two frames of a message is masked in both"] = function()
    local text = '{"password":"' .. SECRET .. '"}'
    for cut = 0, #text do
      local one, other = text:sub(1, cut), text:sub(cut + 1)
      local lines, captured = tracing.hear("websocket", "client", {
        { ">", "\x01" .. string.char(#one) .. one .. "\x89\2hi\x80" .. string.char(#other) .. other },
        { ">", "\x81\5hello" },
      })
      local bytes = captured.sent
      test.equal(bytes:sub(3, 2 + cut) .. bytes:sub(cut + 9, cut + 8 + #other), '{"password":"*******"}')
      test.equal(lines[4], '#1 > websocket text 5 bytes fin "hello"')
      for at = 1, #SECRET - 2 do test.falsy(table.concat(lines, "\n"):find(SECRET:sub(at, at + 2), 1, true)) end
    end
  end,

  ["a long frame that is compressed is not shown, and neither is what follows it in its message"] = function()
    local secrets = ("s3cret"):rep(50000)
    local lines, captured = tracing.hear("websocket", "client", {
      { ">", "\x41\x7f" .. string.pack(">I8", #secrets) .. secrets .. "\x80\6s3cret\x81\5hello" },
    }, { cut = 10000 })
    test.falsy(captured.sent:find("s3cret", 1, true))
    test.falsy(table.concat(lines, "\n"):find("s3cret", 1, true))
    test.equal(lines[#lines], '#1 > websocket text 5 bytes fin "hello"')
  end,

  ["a secret in two chunks of a mail is masked in both"] = function()
    local text = "https://host/reset?token=" .. SECRET .. "&n=1\r\n"
    for cut = 1, #text - 1 do
      local one, other = text:sub(1, cut), text:sub(cut + 1)
      local _, captured = tracing.hear("smtp", "client", {
        { "<", "220 mx\r\n" },
        { ">", ("BDAT %d\r\n%sBDAT %d LAST\r\n%sQUIT\r\n"):format(#one, one, #other, other) },
      })
      local bytes = captured.sent:gsub("BDAT[^\n]*\n", ""):gsub("QUIT\r\n", "")
      test.matches(bytes, "token=" .. ("%*"):rep(#SECRET) .. "&n=1\r\n$")
    end
    for cut = 1, #text do
      local _, captured = tracing.hear("smtp", "client", {
        { "<", "220 mx\r\n" },
        { ">", "DATA\r\n" },
        { "<", "354 go\r\n" },
        { ">", text:sub(1, cut) },
        { ">", text:sub(cut + 1) .. ".\r\n" },
      })
      test.matches(captured.sent, "token=" .. ("%*"):rep(#SECRET) .. "&n=1\r\n%.\r\n$")
    end
  end,

  ["a login that is longer than a line may be is masked to its end"] = function()
    local long = (SECRET):rep(4000)
    local lines, captured = tracing.hear("smtp", "client", {
      { "<", "220 mx\r\n" },
      { ">", "AUTH PLAIN " .. long .. "\r\n" },
      { "<", "334 " .. long .. "\r\n" },
      { ">", long .. "\r\n" },
      { "<", "235 ok\r\n" },
      { ">", "NOOP\r\n" },
    }, { cut = 1000 })
    test.falsy(captured.sent:find("s3c", 1, true))
    test.falsy(captured.received:find("s3c", 1, true))
    test.falsy(table.concat(lines, "\n"):find("s3c", 1, true))
    test.equal(lines[#lines], "#1 > smtp NOOP")
  end,

  ["a trailer that is longer than a line may be is masked to its end"] = function()
    local _, captured = tracing.hear("http", "client", {
      { ">", "GET / HTTP/1.1\r\nHost: h\r\n\r\n" },
      { "<", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Token: " .. (SECRET):rep(3000) .. "\r\nX-Sum: 1\r\n\r\n" },
    }, { cut = 1000 })
    test.falsy(captured.received:find("s3c", 1, true))
    test.matches(captured.received, "%*\r\nX%-Sum: 1\r\n\r\n$")
  end,

  ["what nobody understands is scrubbed wherever it is cut"] = function()
    local text = filled("Authorization: Basic %s\r\nX: y\r\n  folded\r\nCookie: a=%s; b=%s\r\nSet-Cookie: a=%s; Path=/\r\nauth plain %s\r\n\r\n{\"password\":\n \"%s\",\"n\":1}\r\nAuthorization:\r\n Bearer %s\r\n")
    local expected = secret.scrubber():feed(text)
    test.falsy(expected:find("s3c", 1, true), expected)
    test.matches(expected, "folded\r\nCookie: a=%*+; b=%*+\r\nSet%-Cookie: a=%*+; Path=/\r\nauth plain %*+\r\n")
    for cut = 0, #text do
      local scrubber = secret.scrubber()
      local one, other = text:sub(1, cut), text:sub(cut + 1)
      local made = scrubber:feed(one) .. scrubber:feed(other)
      test.equal(#made, #text)
      for at = 1, #SECRET - 2 do test.falsy(made:find(SECRET:sub(at, at + 2), 1, true), made) end
      test.truthy(made:find("folded", 1, true), made)
    end
    local scrubber, shown = secret.scrubber(), {}
    for byte in text:gmatch(".") do shown[#shown + 1] = scrubber:feed(byte) end
    local made = table.concat(shown)
    test.equal(#made, #expected)
    -- The scheme is known to be one when a blank follows.
    for at = 1, #made do test.truthy(made:sub(at, at) == "*" or made:sub(at, at) == expected:sub(at, at), made) end
    test.matches(made, "Cookie: .=%*+;.*=%*+\r\n")
    scrubber = secret.scrubber()
    local long = scrubber:feed("Cookie: a=" .. ("c"):rep(2000)) .. scrubber:feed(SECRET) .. scrubber:feed(SECRET .. "\r\nX: " .. ("c"):rep(2000)) .. scrubber:feed("plain")
    test.falsy(long:find("s3c", 1, true))
    test.matches(long, "plain$")
  end,
}
