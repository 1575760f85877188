-- What is shown of SMTP and of SOCKS5.
local test = require("test")
local tracing = require("test.tracing")

local SCRIPT = {
  { "<", "220 mx\r\n" },
  { ">", "EHLO d\r\n" },
  { "<", "250-mx\r\n250 AUTH PLAIN LOGIN\r\n" },
  { ">", "AUTH PLAIN AHUAc2VjcmV0\r\n" },
  { "<", "535 5.7.8 no\r\n" },
  { ">", "auth login\r\n" },
  { "<", "334 VXNlcm5hbWU6\r\n" },
  { ">", "dXNlcg==\r\n" },
  { "<", "334 UGFzc3dvcmQ6\r\n" },
  { ">", "c2VjcmV0\r\n" },
  { "<", "235 ok\r\n" },
  { ">", "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" },
  { "<", "250 ok\r\n250 ok\r\n354 go on\r\n" },
  { ">", "Subject: x\r\n\r\nAUTH hello\r\n..dot\r\n.\r\nNOOP\r\n" },
  { "<", "250 taken\r\n250 ok\r\n" },
  { ">", "BDAT 5 LAST\r\nAUTH\nQUIT\r\n" },
  { "<", "250 taken\r\n221 bye\r\n" },
}

local LINES = {
  "#1 < smtp 220 mx",
  "#1 > smtp EHLO d",
  "#1 < smtp 250-mx",
  "#1 < smtp 250 AUTH PLAIN LOGIN",
  "#1 > smtp AUTH PLAIN ***",
  "#1 < smtp 535 5.7.8 no",
  "#1 > smtp auth login",
  "#1 < smtp 334 ***",
  "#1 > smtp ***",
  "#1 < smtp 334 ***",
  "#1 > smtp ***",
  "#1 < smtp 235 ok",
  "#1 > smtp MAIL FROM:<a@b>",
  "#1 > smtp RCPT TO:<c@d>",
  "#1 > smtp DATA",
  "#1 < smtp 250 ok",
  "#1 < smtp 250 ok",
  "#1 < smtp 354 go on",
  "#1 > smtp message 33 bytes, 4 lines",
  "#1 > smtp NOOP",
  "#1 < smtp 250 taken",
  "#1 < smtp 250 ok",
  "#1 > smtp BDAT 5 LAST",
  "#1 > smtp chunk of a message 5 bytes",
  "#1 > smtp QUIT",
  "#1 < smtp 250 taken",
  "#1 < smtp 221 bye",
}

local SECRETS = { "AHUAc2VjcmV0", "VXNlcm5hbWU6", "dXNlcg==", "UGFzc3dvcmQ6", "c2VjcmV0" }

local function masked(bytes)
  for _, word in ipairs(SECRETS) do bytes = bytes:gsub(word, ("*"):rep(#word)) end
  return bytes
end

return {
  ["commands and replies are lines, logins are masked, messages have their size"] = function()
    local lines, captured = tracing.hear("smtp", "client", SCRIPT)
    test.equal(lines, LINES)
    test.equal(captured.sent, masked(tracing.bytes(SCRIPT, ">")))
    test.equal(captured.received, masked(tracing.bytes(SCRIPT, "<")))
  end,

  ["lines that come in pieces of any size are the same"] = function()
    for cut = 1, 70 do
      local lines, captured = tracing.hear("smtp", "client", SCRIPT, { cut = cut })
      local sorted, expected = { table.unpack(lines) }, { table.unpack(LINES) }
      table.sort(sorted)
      table.sort(expected)
      test.equal(sorted, expected)
      test.equal(captured.sent, masked(tracing.bytes(SCRIPT, ">")))
    end
  end,

  ["a server shows the same the other way round"] = function()
    local turned = {}
    for i, step in ipairs(SCRIPT) do turned[i] = { step[1] == ">" and "<" or ">", step[2] } end
    local lines = tracing.hear("smtp", "server", turned)
    test.equal(lines[5], "#1 < smtp AUTH PLAIN ***")
    test.equal(#lines, #LINES)
  end,

  ["an AUTH without a mechanism, and an answer that nobody asked for, are masked"] = function()
    local lines, captured = tracing.hear("smtp", "client", {
      { "<", "220 mx\r\n" },
      { ">", "AUTH !s3cret\r\n" },
      { ">", "s3cret-that-comes-early\r\n" },
    })
    test.equal(lines, { "#1 < smtp 220 mx", "#1 > smtp AUTH ***", "#1 > smtp 25 bytes of an unfinished message" })
    test.falsy(captured.sent:find("s3cret", 1, true))
  end,

  ["an empty message, and one that is cut short"] = function()
    local begin = { "<", "220 mx\r\n" }
    local lines = tracing.hear("smtp", "client", { begin, { ">", "DATA\r\n" }, { "<", "354 go\r\n" }, { ">", ".\r\n" }, { "<", "250 ok\r\n" } })
    test.equal(lines[4], "#1 > smtp message 0 bytes, 0 lines")
    lines = tracing.hear("smtp", "client", { begin, { ">", "DATA\r\n" }, { "<", "354 go\r\n" }, { ">", "abc\r\ndef" } })
    test.equal(lines[4], "#1 > smtp message, unfinished, 4 bytes")
  end,

  ["DATA that is refused is followed by commands"] = function()
    local lines = tracing.hear("smtp", "client", { { "<", "220 mx\r\n" }, { ">", "DATA\r\nQUIT\r\n" }, { "<", "503 no\r\n221 bye\r\n" } })
    test.equal(lines[#lines], "#1 > smtp QUIT")
  end,

  ["control characters in replies are shown"] = function()
    test.equal(tracing.hear("smtp", "client", { { "<", "220 a\27[31mb\r\n" } })[1], "#1 < smtp 220 a\\x1b[31mb")
  end,

  ["random lines fail nothing"] = function()
    local random = test.random()
    local parts = { "AUTH", "AUTH PLAIN x", "DATA", "BDAT 3", "BDAT 99999999999999999999", "334 x", "354 go", "250 ok", ".", "", "\xff\0", "abc" }
    for _ = 1, 300 do
      local script = {}
      for i = 1, random(12) do script[i] = { random(2) == 1 and ">" or "<", random:pick(parts) .. "\r\n" } end
      for _, line in ipairs((tracing.hear("smtp", "client", script, { cut = random(1, 20) }))) do
        test.falsy(line:find("decoder failed", 1, true), line)
        test.falsy(line:find("%c"), line)
      end
    end
  end,

  ["a SOCKS5 proxy is asked, and the password is masked"] = function()
    local script = {
      { ">", "\5\2\0\2" },
      { "<", "\5\2" },
      { ">", "\1\4user\6s3cret" },
      { "<", "\1\0" },
      { ">", "\5\1\0\3\7example\1\xbb" },
      { "<", "\5\0\0\1\127\0\0\1\0\80" },
    }
    for _, cut in ipairs({ 1, 2, 100 }) do
      local lines, captured = tracing.hear("socks5", "client", script, { cut = cut })
      test.equal(lines, {
        "#1 > socks5 hello, 2 methods",
        "#1 < socks5 method 2",
        '#1 > socks5 login username="user" password=***',
        "#1 < socks5 login accepted",
        "#1 > socks5 connect example:443",
        "#1 < socks5 reply 0 127.0.0.1:80",
      })
      test.equal(captured.sent, (tracing.bytes(script, ">"):gsub("s3cret", "******")))
    end
  end,
}
