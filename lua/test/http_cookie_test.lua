local cookie = require("http.cookie")
local json = require("json")
local test = require("test")

local NOW = 1700000000

--- What a jar sends to `where` after it received `fields` from `from`.
local function sent(from, fields, where, now)
  local jar = cookie.jar()
  for _, field in ipairs(type(fields) == "table" and fields or { fields }) do jar:receive(from, field, NOW) end
  return jar:header(where or from, now or NOW)
end

return {
  ["a cookie goes back to where it came from, and to the paths below"] = function()
    test.equal(sent("http://example.com/a/b", "n=v"), "n=v")
    test.equal(sent("http://example.com/a/b", "n=v", "http://example.com/a/c/d"), "n=v")
    test.equal(sent("http://example.com/a/b", "n=v", "http://example.com/ab"), nil)
    test.equal(sent("http://example.com/a/b", "n=v", "http://example.com/"), nil)
    test.equal(sent("http://example.com/a/b", "n=v; Path=/", "http://example.com/"), "n=v")
    test.equal(sent("http://example.com/", "n=v; Path=/x", "http://example.com/x/y"), "n=v")
    test.equal(sent("http://example.com/", "n=v; Path=/x", "http://example.com/xy"), nil)
    test.equal(sent("http://example.com/", "n=v; Path=relative", "http://example.com/"), "n=v")
    test.equal(sent("http://EXAMPLE.com/", "n=v", "http://example.COM:8080/"), "n=v")
  end,

  ["only a domain attribute opens a cookie to the names below"] = function()
    test.equal(sent("http://example.com/", "n=v", "http://www.example.com/"), nil)
    test.equal(sent("http://example.com/", "n=v; Domain=example.com", "http://www.example.com/"), "n=v")
    test.equal(sent("http://www.example.com/", "n=v; Domain=.Example.com", "http://api.example.com/"), "n=v")
    test.equal(sent("http://www.example.com/", "n=v; Domain=example.com", "http://badexample.com/"), nil)
    test.equal(sent("http://10.0.0.1/", "n=v; Domain=10.0.0.1"), "n=v")
    test.equal(sent("http://10.0.0.1/", "n=v; Domain=0.0.1"), nil)
  end,

  ["nobody sets a cookie for another's domain, or for everybody's"] = function()
    for from, domain in pairs({
      ["http://example.com/"] = "other.com",
      ["http://www.example.com/"] = "api.example.com",
      ["http://shop.co.uk/"] = "co.uk",
      ["http://a.github.io/"] = "github.io",
      ["http://a.com/"] = "com",
    }) do
      test.equal(cookie.jar():receive(from, "n=v; Domain=" .. domain, NOW), false, domain)
    end
    -- Who is a public suffix speaks for itself only.
    test.equal(sent("http://github.io/", "n=v; Domain=github.io"), "n=v")
    test.equal(sent("http://github.io/", "n=v; Domain=github.io", "http://a.github.io/"), nil)
  end,

  ["longer paths go first, then older cookies"] = function()
    local fields = { "a=1; Path=/", "b=2; Path=/x", "c=3; Path=/", "d=4; Path=/x/y" }
    test.equal(sent("http://h.com/", fields, "http://h.com/x/y/z"), "d=4; b=2; a=1; c=3")
  end,

  ["the newest of one name, domain and path counts, in the place of the first"] = function()
    test.equal(sent("http://h.com/", { "a=1", "b=2", "a=3", "a=4; Path=/x" }), "a=3; b=2")
  end,

  ["a cookie ends when it says"] = function()
    local url = "http://h.com/"
    test.equal(sent(url, "n=v; Max-Age=10", url, NOW + 9), "n=v")
    test.equal(sent(url, "n=v; Max-Age=10", url, NOW + 10), nil)
    test.equal(sent(url, "n=v; Max-Age=0"), nil)
    test.equal(sent(url, { "n=v", "n=; Max-Age=-1" }), nil)
    test.equal(sent(url, "n=v; Expires=Wed, 15 Nov 2023 00:00:00 GMT", url, NOW), "n=v")
    test.equal(sent(url, "n=v; Expires=Wed, 15 Nov 2023 00:00:00 GMT", url, NOW + 86400), nil)
    test.equal(sent(url, { "n=v", "n=; expires=Thu, 01-Jan-1970 00:00:00 GMT" }), nil)
    -- Max-Age goes before Expires; what cannot be read is passed over.
    test.equal(sent(url, "n=v; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:00 GMT"), "n=v")
    test.equal(sent(url, "n=v; Max-Age=soon; Expires=never"), "n=v")
    test.equal(sent(url, "n=v; Max-Age=99999999999999999999", url, NOW + 400 * 86400), nil)
  end,

  ["Secure cookies come and go over TLS only"] = function()
    test.equal(sent("http://h.com/", "n=v; Secure"), nil)
    test.equal(sent("https://h.com/", "n=v; Secure"), "n=v")
    test.equal(sent("https://h.com/", "n=v; Secure", "http://h.com/"), nil)
    test.equal(sent("https://h.com/", "n=v; Secure", "wss://h.com/"), "n=v")
    local jar = cookie.jar()
    jar:receive("https://h.com/", "n=secret; Secure", NOW)
    test.equal(jar:receive("http://h.com/", "n=planted", NOW), false)
    test.equal(jar:header("https://h.com/", NOW), "n=secret")
  end,

  ["what comes in the clear hides nothing that came over TLS"] = function()
    for _, case in ipairs({
      { "https://a.example.com/", "sid=1; Secure; Path=/", "http://b.example.com/", "sid=2; Domain=example.com", false },
      { "https://a.example.com/", "sid=1; Secure; Domain=example.com", "http://b.example.com/", "sid=2", false },
      { "https://a.example.com/", "sid=1; Secure; Path=/", "http://a.example.com/", "sid=2; Path=/x", false },
      { "https://a.example.com/", "sid=1; Secure; Path=/x", "http://a.example.com/", "sid=2; Path=/", true },
      { "https://a.example.com/", "sid=1; Secure", "http://b.example.com/", "sid=2", true },
      { "https://a.example.com/", "sid=1; Secure", "http://b.example.com/", "sad=2; Domain=example.com", true },
      { "https://example.com/", "sid=1; Secure", "http://b.example.com/", "sid=2", false },
      { "https://a.example.com/", "sid=1", "http://b.example.com/", "sid=2; Domain=example.com", true },
    }) do
      local jar = cookie.jar()
      test.equal(jar:receive(case[1], case[2], NOW), true)
      test.equal(jar:receive(case[3], case[4], NOW), case[5], case[4] .. " from " .. case[3])
    end
  end,

  ["names with a prefix keep its promise"] = function()
    test.equal(sent("https://h.com/", "__Secure-n=v"), nil)
    test.equal(sent("https://h.com/", "__Secure-n=v; Secure"), "__Secure-n=v")
    test.equal(sent("https://h.com/", "__Host-n=v; Secure; Path=/"), "__Host-n=v")
    test.equal(sent("https://h.com/", "__Host-n=v; Secure"), nil)
    test.equal(sent("https://h.com/", "__Host-n=v; Secure; Path=/; Domain=h.com"), nil)
  end,

  ["odd fields are read as browsers read them, or passed over"] = function()
    test.equal(sent("http://h.com/", '  n  =  "v w"  ;HttpOnly;;Future=x'), 'n="v w"')
    test.equal(sent("http://h.com/", "n=a=b"), "n=a=b")
    test.equal(sent("http://h.com/", "n="), "n=")
    for _, field in ipairs({ "", "novalue", "=v", "n=a\r\nX: y", "n=\0", "n=" .. ("x"):rep(5000) }) do
      test.equal(cookie.jar():receive("http://h.com/", field, NOW), false)
    end
    test.equal(sent("http://h.com/", "n=v; Path=/" .. ("p"):rep(2000)), "n=v")
  end,

  ["a jar does not grow without end, and the oldest make room"] = function()
    local jar = cookie.jar()
    for i = 1, 500 do jar:receive("http://one.com/", ("c%d=x"):format(i), NOW) end
    test.equal(#jar:all(), 180)
    test.equal(jar:all()[1].name, "c321")
    for d = 1, 60 do
      for i = 1, 100 do jar:receive(("http://d%d.com/"):format(d), ("c%d=x"):format(i), NOW) end
    end
    test.equal(#jar:all(), 3000)
  end,

  ["what is saved comes back, but for what has ended"] = function()
    local jar = cookie.jar()
    jar:receive("https://h.com/a/b", "keep=1; Max-Age=100; Secure; HttpOnly; SameSite=Lax", NOW)
    jar:receive("https://h.com/a/b", "short=1; Max-Age=10", NOW)
    jar:receive("https://h.com/a/b", "session=1; Domain=h.com", NOW)
    local copy = cookie.jar()
    assert(copy:load(jar:dump(), NOW + 50))
    test.equal(copy:header("https://h.com/a/x", NOW + 50), "keep=1; session=1")
    test.equal(copy:header("http://www.h.com/a/x", NOW + 50), "session=1")
    test.equal({ copy:all()[1].http_only, copy:all()[1].same_site }, { true, "Lax" })
    copy = cookie.jar()
    assert(copy:load(jar:dump({ session = false }), NOW))
    test.equal(#copy:all(), 2)
    for _, text in ipairs({
      "", "[]", "{}", '{"version":2,"cookies":[]}', '{"version":1,"cookies":[5]}',
      json.encode({ version = 1, cookies = json.array({ { name = "n", value = "a\r\nb", domain = "h.com", path = "/" } }) }),
    }) do
      test.fails("protocol", cookie.jar():load(text))
    end
    local path = os.tmpname()
    assert(jar:save(path))
    test.equal(#assert(cookie.open(path)):all() >= 1, true)
    os.remove(path)
    test.equal(#assert(cookie.open(path)):all(), 0)
    test.equal(test.fails("io", jar:save("/no/such/folder/jar")).code, "ENOENT")
    test.equal(test.fails("io", cookie.open("/")).code, "EISDIR")
  end,

  ["cookies are set, read and cleared by hand"] = function()
    local jar = cookie.jar()
    assert(jar:set("https://h.com/", "sid=1; Path=/"))
    test.fails("protocol", jar:set("https://h.com/", "sid=1; Domain=other.com"))
    test.equal(jar:get("https://h.com/x", "sid"), "1")
    assert(jar:set("https://h.com/", "more=2"))
    assert(jar:set("https://i.com/", "sid=3"))
    jar:clear("h.com", "sid")
    test.equal(jar:get("https://h.com/", "sid"), nil)
    jar:clear("h.com")
    test.equal(#jar:all(), 1)
    jar:clear()
    test.equal({ #jar:all(), jar:header("https://i.com/") }, { 0 })
    jar:set("https://i.com/", "sid=3")
    test.raises("no scheme", function() jar:header("nowhere") end)
  end,
}
