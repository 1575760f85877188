local cosocket = require("cosocket")
local test = require("test")
local url = require("url")

--- The named parts of `text`, for comparison with what is expected of them.
local function parts(text, ...)
  local parsed, found = assert(url.parse(text)), {}
  for i, name in ipairs { ... } do found[i] = tostring(parsed[name]) end
  return table.concat(found, " ")
end

return {
  ["a URL is taken apart"] = function()
    local parsed = assert(url.parse("HTTPS://me:se%3Acret@Example.COM:8443/a/./b/../c%20d?x=1&y=2#top"))
    test.equal(parsed.scheme, "https")
    test.equal(parsed.username, "me")
    test.equal(parsed.password, "se:cret")
    test.equal(parsed.host, "example.com")
    test.equal(parsed.port, 8443)
    test.equal(math.type(parsed.port), "integer")
    test.equal(parsed.port_or_default, 8443)
    test.equal(parsed.authority, "example.com:8443")
    test.equal(parsed.path, "/a/c%20d")
    test.equal(parsed.query, "x=1&y=2")
    test.equal(parsed.fragment, "top")
    test.equal(parsed.target, "/a/c%20d?x=1&y=2")
    test.equal(tostring(parsed), "https://me:se%3Acret@example.com:8443/a/c%20d?x=1&y=2#top")
    test.equal(parsed.href, tostring(parsed))
  end,

  ["absent parts are absent"] = function()
    test.equal(
      parts("http://a", "username", "password", "port", "query", "fragment", "path", "target", "authority"),
      "nil nil nil nil nil / / a"
    )
    test.equal(parts("mqtt://a", "path", "target", "port"), " / nil")
    test.equal(parts("mailto:a@b.c", "host", "authority", "port_or_default", "target", "path"), "nil nil nil nil a@b.c")
    test.equal(parts("unix:///run/x.sock", "host", "authority", "path"), "nil nil /run/x.sock")
  end,

  ["schemes of other protocols keep their ports and credentials"] = function()
    test.equal(parts("mqtt://broker.local:1883", "scheme", "host", "port", "authority"), "mqtt broker.local 1883 broker.local:1883")
    test.equal(parts("mqtt://u:p%40ss@broker:1884/prefix?a=b", "username", "password", "port", "path", "query"), "u p@ss 1884 /prefix a=b")
    test.equal(parts("ws://h/chat?x#y", "scheme", "host", "path", "query", "port_or_default"), "ws h /chat x 80")
    test.equal(parts("wss://h:443/", "port", "port_or_default", "authority"), "nil 443 h")
    test.equal(parts("mqtt://:secret@h", "username", "password"), "nil secret")
  end,

  ["what cannot be read is shown in part, and without its password"] = function()
    for text, wanted in pairs({
      ["http://joe:se@cret@h:99999/a@b"] = "http://***@h:99999/a@b",
      ["http://h:99999/a@b"] = "http://h:99999/a@b",
      ["//joe:secret@h"] = "//***@h",
      ["http://joe@[::1?a"] = "http://***@[::1?a",
    }) do
      local _, err = url.parse(text)
      test.matches(err.message, "^" .. ("%q"):format(wanted):gsub("%p", "%%%0") .. ": ")
    end
    local _, err = url.parse("http://h:x/" .. ("é"):rep(1000))
    test.truthy(#err.message < 500, err.message)
  end,

  ["the default port is the scheme's own"] = function()
    for scheme, port in pairs {
      http = 80, https = 443, ws = 80, wss = 443, mqtt = 1883, mqtts = 8883, smtp = 25, smtps = 465, submission = 587,
    } do
      test.equal(url.parse(scheme .. "://h").port_or_default, port)
      test.equal(url.parse(scheme .. "://h:7").port_or_default, 7)
    end
    test.equal(url.parse("gopher://h").port_or_default, nil)
  end,

  ["IPv6 hosts have brackets only in the authority"] = function()
    test.equal(parts("http://[2001:DB8::1]:8080/", "host", "authority", "port"), "2001:db8::1 [2001:db8::1]:8080 8080")
    test.equal(parts("mqtt://[::1]", "host", "authority", "port_or_default"), "::1 [::1] 1883")
    test.equal(parts("http://127.1/", "host"), "127.0.0.1")
    test.equal(parts("mqtt://127.0.0.1:1883", "host"), "127.0.0.1")
  end,

  ["names in other letters become names that resolve"] = function()
    test.equal(url.parse("http://bücher.example/").host, "xn--bcher-kva.example")
    test.equal(url.parse("mqtt://bücher.example/").host, "xn--bcher-kva.example")
  end,

  ["a stray percent sign in credentials means itself"] = function()
    test.equal(parts("mqtt://u%zz:50%@h", "username", "password"), "u%zz 50%")
  end,

  ["what is no URL is refused, with the reason"] = function()
    local function says(text, reason)
      local parsed, err = url.parse(text)
      test.fails("protocol", parsed, err)
      test.equal(err.message, ("%q: %s"):format(text, reason))
      test.equal(err.op, "url.parse")
    end
    says("", "no scheme (such as http: or mqtt:), and no base")
    says("example.com/path", "no scheme (such as http: or mqtt:), and no base")
    says("http://", "empty host")
    says("http://a:70000/", "invalid port number")
    says("mqtt://a:70000", "invalid port number")
    says("http://a:b/", "invalid port number")
    says("http://[::1", "invalid IPv6 address")
    says("http://[::g]/", "invalid IPv6 address")
    says("http://1.2.3.256/", "invalid IPv4 address")
    says("http://a b/", "invalid international domain name")
    test.fails("protocol", url.parse("http://a/\xff"))
    test.fails("limit", url.parse("http://a/" .. ("x"):rep(65536)))
  end,

  ["line breaks cannot be smuggled into a request"] = function()
    test.equal(url.parse("http://a/b\r\nX: y").target, "/bX:%20y")
    test.equal(url.parse("mqtt://a\n/b").host, "a")
  end,

  ["a relative URL is joined to its base"] = function()
    -- RFC 3986, 5.4
    local base = "http://a/b/c/d;p?q"
    for relative, expected in pairs {
      ["g"] = "http://a/b/c/g", ["./g"] = "http://a/b/c/g", ["g/"] = "http://a/b/c/g/", ["/g"] = "http://a/g",
      ["//g"] = "http://g/", ["?y"] = "http://a/b/c/d;p?y", ["g?y"] = "http://a/b/c/g?y", ["#s"] = "http://a/b/c/d;p?q#s",
      ["g;x=1/../y"] = "http://a/b/c/y", [""] = "http://a/b/c/d;p?q", ["."] = "http://a/b/c/", [".."] = "http://a/b/",
      ["../g"] = "http://a/b/g", ["../.."] = "http://a/", ["../../../g"] = "http://a/g", ["ws://h/x"] = "ws://h/x",
    } do
      test.equal(url.join(base, relative), expected)
    end
    test.equal(url.join("mqtt://h/a/b", "c"), "mqtt://h/a/c")
    test.equal(url.join(assert(url.parse(base)), "g"), "http://a/b/c/g")
    test.equal(url.parse("g", base).path, "/b/c/g")
    test.equal(url.parse("g", assert(url.parse(base))).path, "/b/c/g")
    test.fails("protocol", url.join("mailto:a@b", "g"))
    test.fails("protocol", url.join("nothing", "g"))
  end,

  ["a component is encoded whole and comes back"] = function()
    test.equal(url.encode("a b/c?d=e&f+g%h~i-j.k_l"), "a%20b%2Fc%3Fd%3De%26f%2Bg%25h~i-j.k_l")
    test.equal(url.encode("ü\0\xff"), "%C3%BC%00%FF")
    local all = {}
    for byte = 0, 255 do all[#all + 1] = string.char(byte) end
    test.equal(url.decode(url.encode(table.concat(all))), table.concat(all))
    test.equal(url.decode("a+b%2b%2B"), "a+b++")
    test.equal(url.encode(cosocket.buffer("a b")), "a%20b")
  end,

  ["a percent sign without two digits is refused, with its position"] = function()
    for _, text in ipairs { "%", "%4", "a%zz", "%%20", "%+1", "%0é" } do test.fails("protocol", url.decode(text)) end
    local _, err = url.decode("ab%4")
    test.equal(err.message, "the % at position 3 is not followed by two hex digits")
    _, err = url.parse_query("a=1&b=%4&c")
    test.equal(err.message, "the % at position 7 is not followed by two hex digits")
    _, err = url.parse_query("?a%=1")
    test.equal(err.message, "the % at position 3 is not followed by two hex digits")
  end,

  ["a query is built of pairs in order, or of names sorted"] = function()
    test.equal(url.query { { "b", 1 }, { "a", "x y" }, { "b", true } }, "b=1&a=x+y&b=true")
    test.equal(url.query { b = 1, a = "x&y", c = { 3, 1, 2 } }, "a=x%26y&b=1&c=3&c=1&c=2")
    test.equal(url.query {}, "")
    test.equal(url.query { [""] = "", f = 1.5 }, "=&f=1.5")
    test.equal(url.query { ["a=b"] = "+%" }, "a%3Db=%2B%25")
  end,

  ["a query is taken apart"] = function()
    local pairs_of, first = url.parse_query("?a=1&b=x+y&a=2&c&=d&&e=f%3Dg=h")
    test.equal(#pairs_of, 6)
    local seen = {}
    for i, pair in ipairs(pairs_of) do seen[i] = ("%s>%s"):format(pair[1], pair[2]) end
    test.equal(table.concat(seen, " "), "a>1 b>x y a>2 c> >d e>f=g=h")
    test.equal(first.a, "1")
    test.equal(first.c, "")
    test.equal(first[""], "d")
    test.equal(first.missing, nil)
    test.equal(#url.parse_query(""), 0)
    test.equal(#url.parse_query("?"), 0)
    test.equal(url.parse_query("a=%ff%00")[1][2], "\xff\0")
  end,

  ["a query comes back"] = function()
    local fields = { { "a b", "1+2" }, { "", "=&" }, { "ü", "\xff\0" } }
    local back = assert(url.parse_query(url.query(fields)))
    test.equal(#back, #fields)
    for i, field in ipairs(fields) do
      test.equal(back[i][1], field[1])
      test.equal(back[i][2], field[2])
    end
  end,

  ["wrong arguments raise"] = function()
    test.raises("string", url.parse, nil)
    test.raises("the base must be a string or a parsed URL, not boolean", url.parse, "a", true)
    test.raises("names and values are strings, numbers or booleans, not table", url.query, { { "a", {} } })
    test.raises("names and values are strings, numbers or booleans, not nil", url.query, { { "a" } })
    test.raises("names and values are strings, numbers or booleans, not function", url.query, { a = print })
    test.raises("table", url.query, "a=b")
  end,
}
