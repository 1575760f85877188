-- What is shown of HTTP.
local test = require("test")
local tracing = require("test.tracing")

local REQUEST = "GET /x?access_token=abc HTTP/1.1\r\nHost: h\r\nAuthorization: Basic dTpw\r\nCookie: sid=zzz\r\n\r\n"
local POST = "POST /y HTTP/1.1\r\nHost: h\r\nContent-Length: 27\r\n\r\n{\"password\":\"geheim\",\"n\":1}"

local SCRIPT = {
  { ">", REQUEST },
  { "<", "HTTP/1.1 200 OK\r\nSet-Cookie: sid=zzz; Path=/\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n" },
  { ">", POST },
  { "<", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n" },
  { ">", "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n" },
  { "<", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" },
  { ">", "GET / HTTP/1.1\r\nHost: h\r\n\r\n" },
  { "<", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b123" },
}

local LINES = {
  "#1 > http GET /x?access_token=*** HTTP/1.1",
  "#1 > http Host: h",
  "#1 > http Authorization: Basic ***",
  "#1 > http Cookie: sid=***",
  "#1 < http HTTP/1.1 200 OK",
  "#1 < http Set-Cookie: sid=***; Path=/",
  "#1 < http Transfer-Encoding: chunked",
  '#1 < http chunk 5 bytes "hello"',
  '#1 < http chunk 6 bytes " world"',
  "#1 < http last chunk",
  "#1 < http X-Sum: 1",
  "#1 > http POST /y HTTP/1.1",
  "#1 > http Host: h",
  "#1 > http Content-Length: 27",
  '#1 > http body 27 bytes \'{"password":"***","n":1}\'',
  "#1 < http HTTP/1.1 100 Continue",
  "#1 < http HTTP/1.1 204 No Content",
  "#1 > http HEAD / HTTP/1.1",
  "#1 > http Host: h",
  "#1 < http HTTP/1.1 200 OK",
  "#1 < http Content-Length: 1000",
  "#1 > http GET / HTTP/1.1",
  "#1 > http Host: h",
  "#1 < http HTTP/1.1 200 OK",
  "#1 < http Content-Encoding: gzip",
  "#1 < http body 5 bytes (gzip)",
}

return {
  ["heads are shown line by line, bodies by their size, and no secret is in them"] = function()
    local lines, captured = tracing.hear("http", "client", SCRIPT)
    test.equal(lines, LINES)
    local sent = tracing.bytes(SCRIPT, ">"):gsub("abc", "***"):gsub("dTpw", "****"):gsub("zzz", "***"):gsub("geheim", "******")
    test.equal(captured.sent, sent)
    test.equal(captured.received, (tracing.bytes(SCRIPT, "<"):gsub("zzz", "***")))
  end,

  ["messages that come in pieces of any size are the same lines"] = function()
    for cut = 1, 90 do
      local lines = tracing.hear("http", "client", SCRIPT, { cut = cut })
      test.equal(lines, LINES)
    end
  end,

  ["a long body is passed piece by piece, and its beginning is shown"] = function()
    local lines, captured = tracing.hear("http", "client", {
      { ">", "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n" .. ("y"):rep(200000) },
      { "<", "HTTP/1.1 200 OK\r\n\r\n" .. ("z"):rep(100000) },
    }, { cut = 10000, bytes = 5 })
    test.equal({ lines[4], lines[6] }, { '#1 > http body 200000 bytes "yyyyy"...', '#1 < http body 100000 bytes "zzzzz"...' })
    test.equal(#captured.sent, 200000 + 51)
  end,

  ["a body that is cut short is told of"] = function()
    local lines = tracing.hear("http", "server", { { "<", "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc" } })
    test.equal(lines[4], '#1 < http body, unfinished, 3 bytes "abc"')
  end,

  ["a head that is not right is shown masked, and the rest as a dump"] = function()
    local lines, captured = tracing.hear("http", "server", {
      { "<", "GET  / HTTP/1.1\r\nAuthorization: Bearer tok3n\r\nbad line\r\n\r\n" },
      { "<", "Cookie: a=tok3n\r\n" },
    })
    test.equal({ lines[1], lines[2], lines[3] }, {
      "#1 < http GET  / HTTP/1.1",
      "#1 < http Authorization: Bearer ***",
      "#1 < http bad line",
    })
    test.matches(lines[4], "this is not right: .*; the rest is not decoded$")
    test.falsy(captured.received:find("tok3n", 1, true))
    test.falsy(table.concat(lines, "\n"):find("tok3n", 1, true))
    test.matches(lines[5], "0000  43 6f 6f 6b 69 65")
  end,

  ["a chunk that is not right is told of"] = function()
    local lines = tracing.hear("http", "client", {
      { ">", "GET / HTTP/1.1\r\nHost: h\r\n\r\n" },
      { "<", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" },
    })
    test.equal(lines[5], "#1 < http no chunk begins like this; the rest is not decoded")
    lines = tracing.hear("http", "client", {
      { ">", "GET / HTTP/1.1\r\nHost: h\r\n\r\n" },
      { "<", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n" },
    })
    test.equal(lines[6], "#1 < http a chunk is followed by something else than the end of a line; the rest is not decoded")
  end,

  ["what a head ends in the middle of is not shown"] = function()
    local lines, captured = tracing.hear("http", "client", { { ">", "GET / HTTP/1.1\r\nAuthorization: Basic dTpw" } })
    test.equal(lines, { "#1 > http 41 bytes of an unfinished message" })
    test.equal(captured.sent, ("*"):rep(41))
  end,

  ["control characters in fields do not reach the terminal"] = function()
    local lines = tracing.hear("http", "server", { { "<", "GET / HTTP/1.1\r\nHost: h\r\nX: a\27]0;title\7\r\n\r\n" } })
    test.equal(lines[3], "#1 < http X: a\\x1b]0;title\\x07")
  end,

  ["a tunnel is a dump until somebody says what runs in it"] = function()
    local lines = tracing.hear("http", "client", {
      { ">", "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n" },
      { "<", "HTTP/1.1 200 OK\r\n\r\n" },
      { ">", "hi" },
    })
    test.equal({ lines[3], lines[5] }, {
      "#1 > http Proxy-Authorization: Basic ***",
      "#1 > tcp 0000  68 69                                            |hi|",
    })
  end,

  ["only what is wanted is shown"] = function()
    local lines = tracing.hear("http", "client", SCRIPT, { protocols = "mqtt" })
    test.equal(lines, {})
    local captured
    lines, captured = tracing.hear("http", "client", { { ">", REQUEST } }, { protocols = "tcp", bytes = 16 })
    test.equal(lines, {
      "#1 > tcp 0000  47 45 54 20 2f 78 3f 61 63 63 65 73 73 5f 74 6f  |GET /x?access_to|",
      ("#1 > tcp ... %d bytes more"):format(#REQUEST - 16),
    })
    test.falsy(captured.sent:find("dTpw", 1, true))
  end,

  ["random bytes fail nothing"] = function()
    local random = test.random()
    local parts = { "GET / HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n", "Host: h\r\n", "\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n", "0\r\n\r\n", "Upgrade: websocket\r\nConnection: upgrade\r\n", "\xff\0", "x" }
    for _ = 1, 300 do
      local script = {}
      for i = 1, random(10) do
        local made = {}
        for k = 1, random(8) do made[k] = random:pick(parts) end
        script[i] = { random(2) == 1 and ">" or "<", table.concat(made) }
      end
      for _, line in ipairs((tracing.hear("http", "client", script, { cut = random(1, 40) }))) do
        test.falsy(line:find("decoder failed", 1, true), line)
        test.falsy(line:find("%c"), line)
      end
    end
  end,
}
