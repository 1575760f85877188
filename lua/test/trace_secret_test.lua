-- What is masked, and how foreign bytes become text.
local secret = require("net.trace.secret")
local test = require("test")
local text = require("net.trace.text")

local function field(line, last) return (secret.field(line, secret.short, last)) end
local function shown(value) return secret.text(value, secret.short) end

return {
  ["fields with credentials keep what is no secret"] = function()
    test.equal(field("Authorization: Basic dXNlcjpwYXNz"), "Authorization: Basic ***")
    test.equal(field("PROXY-authorization:\tDigest username=\"u\", response=\"x\""), "PROXY-authorization:\tDigest ***")
    test.equal(field("authorization: abc"), "authorization: ***")
    test.equal(field("Cookie: a=1; b=2; lonely"), "Cookie: a=***; b=***;***")
    test.equal(field("Set-Cookie: sid=abc; Path=/; HttpOnly"), "Set-Cookie: sid=***; Path=/; HttpOnly")
    test.equal(field("X-Api-Key: k"), "X-Api-Key: ***")
    test.equal(field("X-Auth-Token: k"), "X-Auth-Token: ***")
    test.equal(field("Sec-WebSocket-Protocol: jsonrpc, bearer.dG9r"), "Sec-WebSocket-Protocol: jsonrpc, bearer.***")
    test.equal(field("Host: example"), "Host: example")
  end,

  ["a folded line is as secret as the one before"] = function()
    local line, name = secret.field("Authorization: Basic", secret.short)
    test.equal(line, "Authorization: ***")
    test.equal(field("  dXNlcg==", name), "  ***")
    test.equal(field("  more", "x-other"), "  more")
  end,

  ["passwords in URLs, and parameters that are called like secrets"] = function()
    test.equal(shown("mqtt://joe:pw@broker:1883/"), "mqtt://joe:***@broker:1883/")
    test.equal(shown("see https://token@host/x and ftp://a:b@c"), "see https://***@host/x and ftp://a:***@c")
    test.equal(shown("GET /x?access_token=abc&page=2#id_token=z HTTP/1.1"), "GET /x?access_token=***&page=2#id_token=*** HTTP/1.1")
    test.equal(shown("password=abc&user=joe&client_secret=x%20y"), "password=***&user=joe&client_secret=***")
    test.equal(shown("\1\0\8password=abc\0\3x='token=y' (pwd=z)"), "\1\0\8password=***\0\3x='token=***' (pwd=***")
    test.equal(shown("a=1&b=2, no secret://here"), "a=1&b=2, no secret://here")
  end,

  ["members of JSON, whatever their value and however it is written"] = function()
    test.equal(shown('{"user":"joe","password":"a\\"b","n":1}'), '{"user":"joe","password":"***","n":1}')
    test.equal(shown('{"api_key" : 12, "tokens": ["a", {"b": "]"}], "x": 1}'), '{"api_key" : ***, "tokens": ***, "x": 1}')
    test.equal(shown('{"Password":"unfinished'), '{"Password":"***')
    test.equal(shown('{"token_type":"Bearer"}'), '{"token_type":"Bearer"}')
  end,

  ["what stands in a capture has the same length"] = function()
    local random = test.random()
    local parts = { "password", "token", '"', "'", ":", "=", "&", "?", "://", "@", "{", "}", "[", "]", "\\", " ", "a", "\xff", "\0", "cookie", "/" }
    for _ = 1, 2000 do
      local made = {}
      for i = 1, random(30) do made[i] = random:pick(parts) end
      local value = table.concat(made)
      test.equal(#secret.text(value, secret.same), #value, value)
      test.equal(#secret.field(value, secret.same), #value, value)
      test.equal(#(secret.field("Cookie: " .. value, secret.same)), #value + 8, value)
      test.equal(#(secret.field("Set-Cookie:" .. value, secret.same)), #value + 11, value)
    end
  end,

  ["nothing that a terminal obeys is left"] = function()
    test.equal(text.escape("a\27[31m\r\n\0\x7f"), "a\\x1b[31m\\r\\n\\x00\\x7f")
    test.equal(text.escape("\u{9b}31m \u{202e}x\u{2066} \u{feff}"), "\\u{9b}31m \\u{202e}x\\u{2066} \\u{feff}")
    test.equal(text.escape("gr\u{fc}n \u{1f600} \xff\xc3 \xe2\x82"), "gr\u{fc}n \u{1f600} \\xff\\xc3 \\xe2\\x82")
  end,

  ["random bytes become text without control characters"] = function()
    local random = test.random()
    for _ = 1, 1000 do
      local made = text.escape(random:bytes(random(0, 60)))
      test.truthy(utf8.len(made), made)
      test.falsy(made:find("%c"), made)
    end
  end,

  ["text is cut between characters and quoted"] = function()
    test.equal(text.cut("a\u{e9}b", 2), "a")
    test.equal(text.cut("a\u{e9}b", 3), "a\u{e9}")
    test.equal(text.cut("abc", 3), "abc")
    test.equal(text.cut("\x80\x80\x80\x80\x80\x80", 5), "\x80\x80\x80\x80\x80")
    test.equal(text.quote("it is \\"), '"it is \\\\"')
    test.equal(text.quote('{"a":1}'), "'{\"a\":1}'")
    test.equal(text.quote([['"]]), [["'\""]])
    test.equal(text.quote("abcdef", 3), '"abc"...')
  end,

  ["a dump has the bytes and their characters"] = function()
    test.equal(text.dump("hello\0\27world 12345", 18), {
      "0000  68 65 6c 6c 6f 00 1b 77 6f 72 6c 64 20 31 32 33  |hello..world 123|",
      "0010  34 35                                            |45|",
    })
    test.equal(text.dump("hello", 2), { "0000  68 65                                            |he|", "... 3 bytes more" })
    test.equal(text.dump("hello", 0), { "... 5 bytes more" })
  end,

  ["hostile text takes no longer than its length"] = function()
    local clock = os.clock()
    for _, part in ipairs({ "x", "=", "a=", '"', '"a":', ":", " ", "://", "://a:", '"token":[', "@", "\\" }) do
      local value = part:rep(65536 // #part)
      for _, whole in ipairs({ value, value .. "=", value .. '":', "cookie:" .. value, "set-cookie:" .. value }) do
        secret.field(whole, secret.same)
      end
    end
    -- Anything quadratic would take minutes.
    test.truthy(os.clock() - clock < 20)
  end,
}
