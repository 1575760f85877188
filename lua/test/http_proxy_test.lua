local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local http = require("http")
local proxy = require("http.proxy")
local test = require("test")

--- What the environment says, of a table.
local function settings_of(environment)
  return proxy.from_environment(function(name) return environment[name] end)
end

--- A proxy that plays its side with functions, and the URL that names it.
local function scripted(handle, scheme, login)
  local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
  cosocket.spawn("proxy", function()
    local stream = listener:accept()
    handle(stream)
    stream:close()
  end)
  return ("%s://%s%s"):format(scheme, login or "", listener:local_address())
end

--- A proxy that wants Digest, and answers what is asked through it itself. `seen` gets the first line and the credentials
--- of each request.
local function digest_proxy(options)
  local listener, seen = assert(cosocket.listen("tcp://127.0.0.1:0")), {}
  local function h(...) return hex.encode(crypto[options.hash](table.concat({ ... }, ":"))) end
  local function talk(stream)
    while true do
      local head = stream:read_until("\r\n\r\n")
      if not head then break end
      local method, target = head:match("^(%S+) (%S+)")
      local field = head:match("Proxy%-Authorization: ([^\r]*)")
      seen[#seen + 1] = { method = method, target = target, field = field }
      local given = {}
      for name, value in (field or ""):gmatch('([%w*]+)="?([^",]*)"?') do given[name] = value end
      local wanted = given.nonce and h(h("user", "p", "pass"), given.nonce, given.nc, given.cnonce, "auth", h(method, target))
      if not wanted or given.response ~= wanted or given.uri ~= target then
        local challenge = 'Proxy-Authenticate: Basic realm="b"\r\nProxy-Authenticate: Digest realm="p", nonce="n%d", qop="auth", algorithm=%s\r\n'
        stream:write("HTTP/1.1 407 Who are you\r\nContent-Length: 2\r\n", challenge:format(#seen, options.algorithm), "\r\nno")
      elseif method == "CONNECT" then
        stream:write("HTTP/1.1 200 OK\r\n\r\n")
        stream:read_until("\r\n\r\n")
        stream:write("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ntunneled")
      else
        stream:write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nforwarded")
      end
    end
    stream:close()
  end
  cosocket.spawn("proxy", function()
    while true do
      local stream = listener:accept()
      if not stream then break end
      cosocket.spawn("proxy connection", talk, stream)
    end
  end)
  return listener, seen
end

return {
  ["a proxy's URL says how, where and who"] = function()
    local parsed = assert(proxy.parse("http://user:p%40ss@Host.example:3128"))
    test.equal({ parsed.scheme, parsed.host, parsed.port, parsed.username, parsed.password }, { "http", "host.example", 3128, "user", "p@ss" })
    test.equal(parsed.auth:header("GET", "/"), "Basic dXNlcjpwQHNz")
    test.equal({ proxy.parse("host:8080").scheme, proxy.parse("host:8080").port }, { "http", 8080 })
    test.equal({ proxy.parse("socks5h://[::1]").scheme, proxy.parse("socks5://[::1]").port }, { "socks5", 1080 })
    for _, text in ipairs({ "ftp://host", "http://", "http://h:99999" }) do test.fails("protocol", proxy.parse(text)) end
    local _, err = proxy.parse("http://user:secret@h:99999")
    test.falsy(tostring(err):find("secret", 1, true))
    test.not_equal(proxy.parse("http://u:a@h").key, proxy.parse("http://u:b@h").key)
    test.falsy(proxy.parse("http://u:secret@h").key:find("secret", 1, true))
  end,

  ["small letters go before capitals, and a CGI's header is not believed"] = function()
    local settings = assert(settings_of({ http_proxy = "http://a", HTTP_PROXY = "http://b", HTTPS_PROXY = "http://c" }))
    test.equal({ settings.http.host, settings.https.host }, { "a", "c" })
    test.equal(settings_of({ HTTP_PROXY = "http://b", REQUEST_METHOD = "GET" }), nil)
    test.equal(settings_of({ http_proxy = "http://a", REQUEST_METHOD = "GET" }).http.host, "a")
    settings = assert(settings_of({ ALL_PROXY = "socks5://s", https_proxy = "http://c" }))
    test.equal({ settings.http.scheme, settings.https.host }, { "socks5", "c" })
    test.equal(settings_of({ http_proxy = "" }), nil)
    test.fails("protocol", settings_of({ http_proxy = "ftp://x" }))
  end,

  ["NO_PROXY has names, addresses, ranges and ports"] = function()
    local settings = assert(settings_of({
      ALL_PROXY = "http://p",
      NO_PROXY = "example.com, .other.net,*.star.org,10.0.0.0/8,192.168.1.1,port.test:8080,[fe80::1]:80",
    }))
    local function direct(host, port) return proxy.choose(settings, "http", host, port or 80) == nil end
    for _, host in ipairs({ "example.com", "www.Example.com", "other.net", "a.other.net", "star.org", "a.star.org", "10.1.2.3", "192.168.1.1", "fe80::1", "example.com." }) do
      test.equal(direct(host), true, host)
    end
    for _, host in ipairs({ "badexample.com", "example.com.evil.org", "11.0.0.1", "192.168.1.2", "port.test", "fe80::2" }) do
      test.equal(direct(host), false, host)
    end
    test.equal(direct("port.test", 8080), true)
    -- Whatever the environment says, one's own machine is near.
    for _, host in ipairs({ "localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1" }) do test.equal(direct(host), true, host) end
    settings = settings_of({ ALL_PROXY = "http://p", no_proxy = "*" })
    test.equal(direct("anywhere.org"), true)
    settings = proxy.for_all("http://p")
    test.equal(direct("localhost"), false)
  end,

  ["IPv6 addresses are sixteen bytes"] = function()
    test.equal(proxy.ipv6("::1"), ("\0"):rep(15) .. "\1")
    test.equal(proxy.ipv6("2001:db8::ff00:42:8329"), "\x20\x01\x0d\xb8\0\0\0\0\0\0\xff\0\0\x42\x83\x29")
    test.equal(proxy.ipv6("1:2:3:4:5:6:7:8"), "\0\1\0\2\0\3\0\4\0\5\0\6\0\7\0\8")
    test.equal(proxy.ipv6("::ffff:1.2.3.4"), ("\0"):rep(10) .. "\xff\xff\1\2\3\4")
    for _, text in ipairs({ "1:2:3", "1:2:3:4:5:6:7:8:9", "g::", "1::2:3:4:5:6:7:8", "12345::" }) do
      test.equal(proxy.ipv6(text), nil, text)
    end
  end,

  ["a tunnel is asked for, and what refuses it is told"] = function()
    local head
    local url = scripted(function(stream)
      head = stream:read_until("\r\n\r\n")
      stream:write("HTTP/1.1 403 Not Allowed\r\nContent-Length: 0\r\n\r\n")
      stream:flush()
    end, "http", "u:p@")
    local answer, err = http.get("https://device.test/", { proxy = url })
    test.fails("refused", answer, err)
    test.equal(err.code, 403)
    test.matches(head, "^CONNECT device.test:443 HTTP/1.1\r\n")
    test.matches(head, "Proxy%-Authorization: Basic dTpw\r\n")
    local function fails(kind, bytes)
      local broken = scripted(function(stream)
        stream:read_until("\r\n\r\n")
        stream:write(bytes)
        stream:flush()
      end, "http")
      test.fails(kind, http.get("https://device.test/", { proxy = broken }))
    end
    fails("protocol", "HTTP/1.1 200 OK\r\n\r\nearly")
    fails("protocol", "nonsense\r\n\r\n")
    fails("closed", "")
    fails("limit", "HTTP/1.1 200 OK\r\n" .. ("X: y\r\n"):rep(5000))
  end,

  ["SOCKS5 sends the name, and every reply has its error"] = function()
    local asked
    local function fails(kind, reply, scheme, login, greeting)
      local url = scripted(function(stream)
        asked = stream:read(3)
        stream:write(greeting or "\5\0")
        stream:flush()
        if greeting == "\5\2" then
          asked = stream:read(6)
          stream:write(reply)
          stream:flush()
          return
        end
        asked = stream:read(4 + 1 + 11 + 2)
        stream:write(reply or "")
        stream:flush()
      end, scheme or "socks5", login)
      local answer, err = http.get("http://device.test:8080/", { proxy = url })
      test.fails(kind, answer, err)
      return err
    end
    test.equal(fails("connect", "\5\5\0\1\0\0\0\0\0\0").code, 5)
    test.equal(asked, "\5\1\0\3\11device.test\x1F\x90")
    fails("refused", "\5\2\0\1\0\0\0\0\0\0")
    fails("connect", "\5\99\0\1\0\0\0\0\0\0")
    fails("protocol", "\4\0\0\1\0\0\0\0\0\0")
    fails("protocol", "\5\0\0\9\0\0\0\0\0\0")
    fails("protocol", nil, nil, nil, "\4\0")
    fails("protocol", nil, nil, nil, "\5\7")
    fails("refused", nil, nil, nil, "\5\xFF")
    fails("closed", "\5\0\0\1")
  end,

  ["a tunnel of SOCKS5 carries the request, with login"] = function()
    local seen
    local url = scripted(function(stream)
      test.equal(stream:read(4), "\5\2\0\2")
      stream:write("\5\2")
      test.equal(stream:read(5), "\1\1u\1p")
      stream:write("\1\0")
      test.equal(stream:read(10), "\5\1\0\1\127\0\0\1\0\80")
      stream:write("\5\0\0\3\4name\0\80")
      seen = stream:read_until("\r\n\r\n")
      stream:write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
      stream:flush()
    end, "socks5", "u:p@")
    test.equal(assert(http.get("http://127.0.0.1/x", { proxy = url })).body, "hi")
    test.matches(seen, "^GET /x HTTP/1.1\r\n")
    test.falsy(seen:find("Proxy"))
  end,

  ["a proxy that wants Digest gets it, for tunnels and for what it forwards"] = function()
    for algorithm, hash in pairs({ MD5 = "md5", ["SHA-256"] = "sha256", ["SHA-512-256"] = "sha512_256" }) do
      local listener, seen = digest_proxy({ algorithm = algorithm, hash = hash })
      local proxy_url = "http://" .. listener:local_address()
      local credentials = { username = "user", password = "pass", scheme = "digest" }
      local client = http.client({ proxy = proxy_url, proxy_auth = credentials })
      test.equal(assert(client:get("http://device.test/a?b#c")).body, "forwarded")
      test.equal({ #seen, seen[1].field, seen[2].target }, { 2, nil, "http://device.test/a?b" })
      -- What was learnt serves the next request.
      test.equal(assert(client:post("http://device.test/", { body = "x" })).body, "forwarded")
      test.equal(#seen, 3)
      test.matches(seen[3].field, "nc=00000002")
      client:close()
      -- A tunnel (WebSocket goes through one), with a fresh client.
      seen[1], seen[2], seen[3] = nil, nil, nil
      local other = http.client({ proxy = proxy_url, proxy_auth = credentials })
      local stream, _, answer = other:upgrade("ws://device.test/", { headers = { Connection = "Upgrade", Upgrade = "x" } })
      test.equal({ stream, answer }, {})
      test.equal({ #seen, seen[1].method, seen[1].field, seen[2].target }, { 2, "CONNECT", nil, "device.test:80" })
      other:close()
      listener:close()
    end
  end,

  ["the user of a proxy's URL is told with Basic, and with Digest where that is wanted"] = function()
    local listener, seen = digest_proxy({ algorithm = "SHA-256", hash = "sha256" })
    local client = http.client({ proxy = "http://user:pass@" .. listener:local_address() })
    test.equal(assert(client:get("http://device.test/")).body, "forwarded")
    test.matches(seen[1].field, "^Basic ")
    test.matches(seen[2].field, "^Digest ")
    local wrong = http.client({ proxy = "http://user:wrong@" .. listener:local_address() })
    test.equal(assert(wrong:get("http://device.test/")).status, 407)
    local before = #seen
    test.fails("refused", wrong:get("https://device.test/"))
    test.equal(#seen - before, 2)
    -- One that was told never to show the password asks first, and gives up when only Basic is offered.
    local shy = http.client({ proxy_auth = { username = "user", password = "wrong", scheme = "digest" }, proxy = "http://" .. listener:local_address() })
    test.equal(assert(shy:get("http://device.test/")).status, 407)
    for i = before + 3, #seen do test.falsy((seen[i].field or ""):find("^Basic")) end
    client:close()
    wrong:close()
    shy:close()
    listener:close()
  end,

  ["wrong credentials for proxies raise"] = function()
    test.raises("proxy_auth needs `username`", http.client, { proxy_auth = {} })
    test.raises('proxy_auth.scheme must be "basic"', http.client, { proxy_auth = { username = "u", scheme = "ntlm" } })
    test.raises("proxy_auth.username must not have a colon", http.get, "http://h/", { proxy_auth = { username = "a:b" } })
  end,
}
