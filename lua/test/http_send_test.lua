-- What requests carry, and where they are led: bodies, redirects, credentials, cookies, other protocols.
local base64 = require("base64")
local compress = require("compress")
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local peer = require("test.http_peer")
local test = require("test")

local http = peer.http

local response = peer.response

--- Answers with the request's body.
local function echo()
  return peer.serve(function(request) return response(request.body) end)
end

local function redirect_to(where, status)
  return ("HTTP/1.1 %s R\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"):format(status or 302, where)
end

local function gzip(text)
  local encoder, output = compress.encoder("gzip"), cosocket.buffer()
  encoder:encode(text, output)
  encoder:finish(output)
  return output:take()
end

--- A file with this text; its path, and a function that removes it.
local function file_of(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path, setmetatable({}, { __close = function() os.remove(path) end })
end

local bodies = {
  ["a string, a buffer, a number of pieces and a file are the same body"] = function()
    local server, client = echo(), http.client()
    local text = ("line of a body\n"):rep(20000)
    local path, removed <close> = file_of(text)
    local function pieces()
      local at = 1
      return function()
        if at > #text then return nil end
        at = at + 7777
        return text:sub(at - 7777, at - 1)
      end
    end
    local file <close> = assert(io.open(path, "rb"))
    for name, body in pairs({
      string = text,
      buffer = cosocket.buffer(text),
      pieces = pieces(),
      callable = setmetatable({}, { __call = pieces() }),
      file = file,
      opened = assert(http.file(path)),
    }) do
      local answer = assert(client:put(server.url, { body = body }))
      test.equal(answer.body == text, true, name)
      local request = server.requests[#server.requests]
      local told = name ~= "pieces" and name ~= "callable"
      test.equal(request.headers["Content-Length"], told and tostring(#text) or nil, name)
      test.equal(request.headers["Transfer-Encoding"], not told and "chunked" or nil, name)
    end
    test.equal(server.connections, 1)
    test.equal(assert(client:put(server.url, { body = pieces(), length = #text })).body == text, true)
    test.equal(server.requests[#server.requests].headers["Content-Length"], tostring(#text))
    test.equal(test.fails("io", http.file("/no/such/file")).code, "ENOENT")
  end,

  ["a function may wait between its pieces"] = function()
    local server = echo()
    local function slowly()
      for i = 1, 3 do
        cosocket.sleep(10)
        coroutine.yield(tostring(i))
      end
    end
    test.equal(assert(http.post(server.url, { body = coroutine.wrap(slowly) })).body, "123")
  end,

  ["a function that gives up ends the request, and its connection"] = function()
    local server, client = echo(), http.client()
    local function gives(...)
      local answers, at = { ... }, 0
      return function()
        at = at + 1
        if at == 1 then return "begin" end
        return nil, table.unpack(answers)
      end
    end
    local answer, err = client:post(server.url, { body = gives("no more sensor") })
    test.fails("io", answer, err)
    test.matches(err.message, "no more sensor")
    test.fails("limit", client:post(server.url, { body = gives(cosocket.error("limit", "x", "y")) }))
    test.fails("io", client:post(server.url, { body = gives(), length = 4 }))
    test.fails("io", client:post(server.url, { body = gives(), length = 6 }))
    test.raises("must answer strings", function() client:post(server.url, { body = function() return 5 end }) end)
    test.equal((client:connections()), 0)
  end,

  ["trailers follow a chunked body, whose head announces them"] = function()
    local server = echo()
    assert(http.post(server.url, { body = "text", trailers = { ["X-Sum"] = "9" } }))
    local request = server.requests[1]
    test.equal({ request.body, request.trailers["X-Sum"], request.headers.Trailer }, { "text", "9", "X-Sum" })
    assert(http.post(server.url, { body = "text", trailers = function() return { ["X-Late"] = "1" } end }))
    test.equal(server.requests[2].trailers["X-Late"], "1")
    test.fails("protocol", http.post(server.url, { body = "text", trailers = { ["Content-Length"] = "9" } }))
  end,

  ["JSON, forms and queries are written and named"] = function()
    local server, client = echo(), http.client()
    assert(client:post(server.url .. "/p?a=1#f", { json = { b = { 1, 2 } }, query = { z = "ä &", y = { 1, 2 } } }))
    local request = server.requests[1]
    test.equal({ request.body, request.headers["Content-Type"] }, { '{"b":[1,2]}', "application/json" })
    test.equal(request.target, "/p?a=1&y=1&y=2&z=%C3%A4+%26")
    assert(client:post(server.url, { form = { { "n", "a b" }, { "m", "&" } } }))
    test.equal(server.requests[2].body, "n=a+b&m=%26")
    test.equal(server.requests[2].headers["Content-Type"], "application/x-www-form-urlencoded")
    assert(client:post(server.url, { json = 5, headers = { ["content-type"] = "application/merge-patch+json" } }))
    test.equal(server.requests[3].headers["Content-Type"], "application/merge-patch+json")
    test.fails("protocol", client:post(server.url, { json = { 0 / 0 } }))
    assert(client:get(server.url .. "?", { query = {} }))
    test.equal(server.requests[4].target, "/?")
    test.equal(#server.requests, 4)
  end,

  ["a form with files has its parts in order, and a length"] = function()
    local server, client = echo(), http.client()
    local path, removed <close> = file_of("log\nlog\n")
    assert(client:post(server.url, {
      multipart = {
        { name = 'a"\r\nb', value = "1" },
        { name = "log", file = path, filename = "device.log" },
        { name = "raw", body = "xyz", type = "application/x-raw", headers = { ["X-Part"] = "p" } },
      },
    }))
    local request = server.requests[1]
    local boundary = request.headers["Content-Type"]:match("^multipart/form%-data; boundary=([%w-]+)$")
    local expected = ({
      "--B",
      'Content-Disposition: form-data; name="a%22%0D%0Ab"',
      "",
      "1",
      "--B",
      'Content-Disposition: form-data; name="log"; filename="device.log"',
      "Content-Type: application/octet-stream",
      "",
      "log\nlog\n",
      "--B",
      'Content-Disposition: form-data; name="raw"',
      "Content-Type: application/x-raw",
      "X-Part: p",
      "",
      "xyz",
      "--B--",
      "",
    })
    test.equal(request.body, (table.concat(expected, "\r\n"):gsub("%-%-B", "--" .. boundary:gsub("%%", "%%%%"))))
    test.equal(request.headers["Content-Length"], tostring(#request.body))
    assert(client:post(server.url, { multipart = { b = 2, a = { body = coroutine.wrap(function() coroutine.yield("s") end) } } }))
    test.equal(server.requests[2].headers["Transfer-Encoding"], "chunked")
    test.matches(server.requests[2].body, 'name="a"\r\n\r\ns\r\n.*name="b"\r\n\r\n2\r\n')
    test.equal(test.fails("io", client:post(server.url, { multipart = { { name = "f", file = "/no/such" } } })).code, "ENOENT")
    test.raises("has no name", function() client:post(server.url, { multipart = { { value = 1 } } }) end)
    test.raises("needs one of", function() client:post(server.url, { multipart = { { name = "x" } } }) end)
    test.raises("unknown option", function() client:post(server.url, { multipart = { { nam = "x" } } }) end)
  end,

  ["a compressed body says so"] = function()
    local server = echo()
    local answer = assert(http.post(server.url, { body = ("x"):rep(100000), compress = true }))
    local request = server.requests[1]
    test.equal({ request.headers["Content-Encoding"], request.headers["Transfer-Encoding"] }, { "gzip", "chunked" })
    local output = cosocket.buffer()
    compress.decoder("gzip", { ratio_max = 10000 }):decode(cosocket.buffer(answer.body), output, 200000)
    test.equal(output:take() == ("x"):rep(100000), true)
  end,

  ["a body that is expected is sent after 100, or when nobody says it"] = function()
    local said
    local server = peer.listen(function(stream)
      local head = stream:read_until("\r\n\r\n")
      test.matches(head, "Expect: 100%-continue")
      if said == 100 then
        test.fails("timeout", cosocket.deadline(0.5, stream.read, stream))
        stream:write("HTTP/1.1 100 Continue\r\n\r\n")
      end
      if said == 417 then
        stream:write("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
        head = stream:read_until("\r\n\r\n")
        if not head then return end
      end
      if said == 401 then
        stream:write("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        test.fails("closed", stream:read())
        return
      end
      stream:write(response(stream:read(4)))
      stream:flush()
    end)
    local client = http.client({ expect = 2 })
    said = 100
    local started = cosocket.now()
    test.equal(assert(client:post(server.url, { body = "text" })).body, "text")
    test.near(cosocket.now() - started, 0.5, 0.3)
    said = nil
    started = cosocket.now()
    test.equal(assert(client:post(server.url, { body = "text" })).body, "text")
    test.near(cosocket.now() - started, 2, 0.3)
    said = 401
    test.equal(assert(client:post(server.url, { body = "text" })).status, 401)
  end,

  ["an expectation that failed is dropped, and the request sent again"] = function()
    local server
    server = peer.listen(function(stream)
      while true do
        local head = stream:read_until("\r\n\r\n")
        if not head then return end
        if head:find("Expect") then
          stream:write("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
        else
          stream:write(response(stream:read(4)))
        end
      end
    end)
    test.equal(assert(http.post(server.url, { body = "text", expect = true })).body, "text")
    test.equal(server.connections, 2)
  end,

  ["an answer that says no ends a long upload"] = function()
    local server = peer.listen(function(stream)
      stream:read_until("\r\n\r\n")
      stream:write(response("too much", nil, "413 Too Large"))
      stream:flush()
      cosocket.sleep(100)
    end)
    local sent = 0
    local function endless()
      sent = sent + 1
      return ("x"):rep(65536)
    end
    local client = http.client()
    local answer = assert(client:post(server.url, { body = endless }))
    test.equal({ answer.status, answer.body }, { 413, "too much" })
    test.equal({ client:connections() }, { 0, 0 })
  end,

  ["an answer that comes while a body is sent waits for its end"] = function()
    local server = peer.listen(function(stream)
      stream:read_until("\r\n\r\n")
      stream:write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
      stream:flush()
      local body = stream:read(3)
      cosocket.sleep(1)
      stream:write(body, stream:read(3))
      stream:flush()
    end)
    local at = 0
    local function two()
      at = at + 1
      if at == 2 then cosocket.sleep(5) end
      return ({ "abc", "def" })[at]
    end
    test.equal(assert(http.post(server.url, { body = two, length = 6 })).body, "abcdef")
  end,
}

local redirects = {
  ["methods and bodies become what the statuses say"] = function()
    local status
    local server = peer.serve(function(request)
      if request.target == "/from" then return redirect_to("to", status) end
      return response(request.method .. " " .. request.body)
    end)
    local client = http.client()
    for _, case in ipairs({
      { 301, "POST", "GET " }, { 302, "POST", "GET " }, { 303, "POST", "GET " }, { 307, "POST", "POST body" }, { 308, "POST", "POST body" },
      { 301, "PUT", "PUT body" }, { 303, "PUT", "GET " }, { 302, "GET", "GET " }, { 308, "DELETE", "DELETE body" },
    }) do
      status = case[1]
      local answer = assert(client:request(case[2], server.url .. "/from", { body = case[2] ~= "GET" and "body" or nil }))
      test.equal(answer.body, case[3], ("%d %s"):format(case[1], case[2]))
      test.equal({ answer.url, answer.redirects }, { server.url .. "/to", { server.url .. "/from" } })
      local last = server.requests[#server.requests]
      test.equal(last.headers["Content-Length"], #last.body > 0 and "4" or nil)
    end
    test.equal(server.connections, 1)
    status = 303
    test.equal(assert(client:head(server.url .. "/from")).method, "HEAD")
    status = 304
    test.equal(assert(client:get(server.url .. "/from")).status, 304)
    status = 308
    local once = coroutine.wrap(function() coroutine.yield("once") end)
    test.fails("protocol", client:post(server.url .. "/from", { body = once }))
  end,

  ["targets are relative to where they come from"] = function()
    local where
    local server
    server = peer.serve(function(request)
      if #server.requests == 1 then return redirect_to(where) end
      return response(request.target)
    end)
    for location, target in pairs({
      ["c"] = "/a/c", ["/c?d=e"] = "/c?d=e", ["?q"] = "/a/b?q", ["../x/./y"] = "/x/y", ["//%s/z"] = "/z", ["c#frag"] = "/a/c",
      ["/with space"] = "/with%20space",
    }) do
      server.requests = {}
      where = location:gsub("%%s", server.address)
      local answer = assert(http.get(server.url .. "/a/b#keep"))
      test.equal(answer.body, target, location)
      test.matches(answer.url, location:find("frag") and "#frag$" or "#keep$")
    end
    for _, nowhere in ipairs({ "http://", "ftp://example.org/", "mailto:x@y" }) do
      server.requests, where = {}, nowhere
      test.fails("protocol", http.get(server.url))
    end
  end,

  ["redirects have an end"] = function()
    local server
    server = peer.serve(function() return redirect_to("/again") end)
    test.fails("limit", http.get(server.url))
    test.equal(#server.requests, 11)
    local answer = assert(http.get(server.url, { redirects_max = 0 }))
    test.equal({ answer.status, answer.headers.Location }, { 302, "/again" })
    local none = peer.serve(function() return response("x", nil, "302 Found") end)
    test.equal(assert(http.get(none.url)).body, "x")
  end,

  ["credentials do not follow to another origin"] = function()
    local other = peer.serve(function() return response("other") end)
    local server
    server = peer.serve(function(request)
      return redirect_to(request.target == "/same" and "/end" or request.target == "/end" and other.url .. "/x" or "/end")
    end)
    local client = http.client({ headers = { Authorization = "Bearer default", ["X-Default"] = "d" } })
    assert(client:get(server.url .. "/same", { headers = { Cookie = "a=b", ["X-Own"] = "o", ["Proxy-Authorization"] = "p" } }))
    local last, foreign = server.requests[2].headers, other.requests[1].headers
    test.equal({ last.Authorization, last.Cookie, last["X-Default"], last["X-Own"] }, { "Bearer default", "a=b", "d", "o" })
    test.equal({ foreign.Authorization, foreign.Cookie, foreign["Proxy-Authorization"] }, {})
    test.equal({ foreign["X-Default"], foreign["X-Own"], foreign.Host }, { "d", "o", other.address })
    assert(http.get(server.url .. "/same", { auth = { username = "u", password = "p" } }))
    test.equal({ server.requests[4].headers.Authorization, other.requests[2].headers.Authorization }, { "Basic dTpw" })
    assert(http.get(((server.url .. "/same"):gsub("//", "//user:secret@"))))
    test.equal(server.requests[5].headers.Authorization, "Basic dXNlcjpzZWNyZXQ=")
    test.equal(other.requests[3].headers.Authorization, nil)
  end,

  ["what one redirect has taken away, the next does not bring back"] = function()
    local other = peer.serve(function(request)
      return request.target == "/end" and response("other") or redirect_to("/end")
    end)
    local server = peer.serve(function() return redirect_to(other.url .. "/first", "302 Found") end)
    local secrets = { Authorization = "Bearer default", Cookie = "a=b", ["Content-Type"] = "text/plain", ["X-Default"] = "d" }
    for _, said_by in ipairs({ "client", "request" }) do
      other.requests = {}
      local client = http.client({ headers = said_by == "client" and secrets or nil })
      assert(client:post(server.url .. "/", { body = "text", headers = said_by == "request" and secrets or nil }))
      for number = 1, 2 do
        local foreign = other.requests[number].headers
        test.equal({ foreign.Authorization, foreign.Cookie, foreign["Content-Type"] }, {}, said_by)
        test.equal({ foreign["X-Default"], foreign.Host }, { "d", other.address }, said_by)
      end
    end
  end,
}

--- A server that wants Digest, and says each time what is wrong.
local function digest_server(options)
  local count = 0
  return peer.serve(function(request)
    count = count + 1
    local field = request.headers.Authorization
    local function challenge(stale)
      local fields = ("WWW-Authenticate: Digest realm=\"d\", nonce=\"n%d\", opaque=\"o\", %s%s\r\n"):format(
        count, options.parameters, stale and ", stale=true" or "")
      return response("no", (options.others or "") .. fields, "401 No")
    end
    if not field then return challenge() end
    local given = {}
    for name, value in field:gmatch('([%w*]+)="?([^",]*)"?') do given[name] = value end
    local function h(...) return hex.encode(crypto[options.hash](table.concat({ ... }, ":"))) end
    local a1 = h("user", "d", "pass")
    if options.session then a1 = h(a1, given.nonce, given.cnonce) end
    local a2 = given.qop == "auth-int" and h(request.method, request.target, h(request.body)) or h(request.method, request.target)
    local wanted = given.qop and h(a1, given.nonce, given.nc, given.cnonce, given.qop, a2) or h(a1, given.nonce, a2)
    local name = options.userhash and h("user", "d") or "user"
    if given.username ~= name or given.response ~= wanted or given.uri ~= request.target then return challenge() end
    if options.uses and tonumber(given.nc, 16) > options.uses then return challenge(true) end
    return response(("nc %s"):format(given.nc), options.info)
  end)
end

local credentials = {
  ["Basic and Bearer are sent unasked"] = function()
    local server = echo()
    assert(http.get(server.url, { auth = { username = "Aladdin", password = "open sesame" } }))
    test.equal(server.requests[1].headers.Authorization, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
    local client = http.client({ auth = { bearer = "abc.def~" } })
    assert(client:get(server.url))
    test.equal(server.requests[2].headers.Authorization, "Bearer abc.def~")
    assert(client:get(server.url, { auth = false }))
    test.equal(server.requests[3].headers.Authorization, nil)
  end,

  ["Digest answers every kind of challenge"] = function()
    for _, options in ipairs({
      { hash = "md5", parameters = 'qop="auth"' },
      { hash = "md5", parameters = 'qop="auth,auth-int", algorithm=MD5' },
      { hash = "sha256", parameters = 'qop="auth", algorithm=SHA-256' },
      { hash = "sha256", parameters = 'qop="auth", algorithm=SHA-256-sess', session = true },
      { hash = "md5", parameters = 'qop="auth", algorithm=MD5-sess', session = true },
      { hash = "sha256", parameters = 'qop="auth-int", algorithm=SHA-256' },
      { hash = "sha512_256", parameters = 'qop="auth", algorithm=SHA-512-256' },
      { hash = "sha512_256", parameters = 'qop="auth", algorithm=SHA-512-256-sess', session = true },
      { hash = "md5", parameters = "algorithm=MD5" },
      { hash = "sha256", parameters = 'qop="auth", algorithm=SHA-256, userhash=true', userhash = true },
    }) do
      local server, client = digest_server(options), http.client({ auth = { username = "user", password = "pass", scheme = "digest" } })
      test.equal(assert(client:post(server.url .. "/a?b=c", { body = "text" })).status, 200, options.parameters)
      -- The next request needs no challenge.
      local before = #server.requests
      test.equal(assert(client:get(server.url)).status, 200)
      test.equal(#server.requests, before + 1)
      test.falsy(server.requests[1].headers.Authorization)
    end
  end,

  ["the strongest of several challenges is answered"] = function()
    local weak = 'WWW-Authenticate: Basic realm="b", Digest realm="d", nonce="x", qop="auth", algorithm=MD5\r\nWWW-Authenticate: Newer abc==\r\n'
    local server = digest_server({ hash = "sha256", parameters = 'qop="auth", algorithm=SHA-256', others = weak })
    local auth = { username = "user", password = "pass", scheme = "any" }
    test.equal(assert(http.get(server.url, { auth = auth })).status, 200)
    local basic = peer.serve(function(request)
      if request.headers.Authorization then return response("in") end
      return response("", 'WWW-Authenticate: Digest realm="d", nonce="n", algorithm=SHA-1, Basic realm="b"\r\n', "401 No")
    end)
    test.equal(assert(http.get(basic.url, { auth = auth })).body, "in")
    test.equal(basic.requests[2].headers.Authorization, "Basic " .. base64.encode("user:pass"))
  end,

  ["a stale nonce is replaced, a refusal is an answer"] = function()
    local server = digest_server({ hash = "sha256", parameters = 'qop="auth", algorithm=SHA-256', uses = 2 })
    local client = http.client({ auth = { username = "user", password = "pass", scheme = "digest" } })
    for _ = 1, 5 do test.equal(assert(client:get(server.url)).status, 200) end
    test.equal(#server.requests, 5 + 3)
    local wrong = http.client({ auth = { username = "user", password = "wrong", scheme = "digest" } })
    local before = #server.requests
    test.equal(assert(wrong:get(server.url)).status, 401)
    test.equal(#server.requests, before + 2)
    -- Digest never falls back to what shows the password.
    local basic = peer.serve(function() return response("", 'WWW-Authenticate: Basic realm="b"\r\n', "401 No") end)
    test.equal(assert(client:get(basic.url)).status, 401)
    test.equal(#basic.requests, 1)
  end,

  ["the next nonce may come with an answer"] = function()
    local server = digest_server({ hash = "md5", parameters = 'qop="auth"', info = 'Authentication-Info: nextnonce="fresh"\r\n' })
    local client = http.client({ auth = { username = "user", password = "pass", scheme = "digest" } })
    assert(client:get(server.url))
    assert(client:get(server.url))
    test.matches(server.requests[3].headers.Authorization, 'nonce="fresh".*nc=00000001')
  end,

  ["a body that can be sent only once is not sent for a challenge"] = function()
    local server = digest_server({ hash = "md5", parameters = 'qop="auth"' })
    local auth = { username = "user", password = "pass", scheme = "digest" }
    local once = coroutine.wrap(function() coroutine.yield("once") end)
    test.equal(assert(http.post(server.url, { body = once, auth = auth })).status, 401)
  end,

  ["cookies of a jar come back to who set them"] = function()
    local server = peer.serve(function(request)
      local fields = request.target == "/login" and "Set-Cookie: sid=1; Path=/; HttpOnly\r\nSet-Cookie: other=2\r\n" or ""
      return response(request.headers.Cookie or "none", fields)
    end)
    local client = http.client({ cookies = true })
    test.equal(assert(client:get(server.url .. "/login")).body, "none")
    test.equal(assert(client:get(server.url .. "/")).body, "sid=1; other=2")
    test.equal(assert(client:get(server.url, { cookies = false })).body, "none")
    test.equal(assert(client:get(server.url, { headers = { Cookie = "by=hand" } })).body, "by=hand")
    test.equal(#client.jar:all(), 2)
    local jar = http.jar()
    assert(http.get(server.url .. "/login", { cookies = jar }))
    test.equal(assert(http.get(server.url, { cookies = jar })).body, "sid=1; other=2")
    test.equal(assert(http.get(server.url)).body, "none")
  end,
}

local codings = {
  ["what was compressed is decoded, whole and streamed"] = function()
    local text = ("some text, again and again\n"):rep(10000)
    local packed = gzip(text)
    local server = peer.serve(function(request)
      test.matches(request.headers["Accept-Encoding"] or "", "gzip")
      if request.target == "/chunked" then
        local head = "HTTP/1.1 200 OK\r\nContent-Encoding: x-gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head .. ("%x\r\n%s\r\n0\r\n\r\n"):format(#packed, packed)
      end
      return response(packed, "Content-Encoding: GZIP\r\n")
    end)
    local client = http.client()
    test.equal(assert(client:get(server.url)).body == text, true)
    test.equal(assert(client:get(server.url .. "/chunked")).body == text, true)
    local pieces = {}
    for piece in assert(client:get(server.url, { stream = true })):chunks() do pieces[#pieces + 1] = piece end
    test.equal(table.concat(pieces) == text, true)
    test.truthy(#pieces > 1)
    test.equal(server.connections, 1)
  end,

  ["codings over one another are undone from the last to the first"] = function()
    local server = peer.serve(function(request)
      local twice = gzip(gzip("deep"))
      return response(request.target == "/four" and twice or twice, "Content-Encoding: gzip, " .. (request.target == "/four" and "gzip, gzip, " or "") .. "gzip\r\n")
    end)
    test.equal(assert(http.get(server.url)).body, "deep")
    test.fails("limit", http.get(server.url .. "/four"))
  end,

  ["a bomb, a cut and garbage are errors"] = function()
    local client = http.client()
    local function get(text, options)
      local server = peer.serve(function() return response(text, "Content-Encoding: gzip\r\n") end)
      return client:get(server.url, options)
    end
    local bomb = gzip(("\0"):rep(4 << 20))
    test.fails("limit", get(bomb, { body_max = 1 << 30 }))
    test.fails("limit", get(bomb, { body_max = 1 << 20, ratio_max = 100000 }))
    test.equal(#assert(get(bomb, { ratio_max = 100000 })).body, 4 << 20)
    test.fails("protocol", get(gzip("text"):sub(1, -2)))
    test.fails("protocol", get("no gzip at all"))
    test.equal(assert(get("")).body, "")
    test.equal((client:connections()), 0)
  end,

  ["what is not asked for is not decoded"] = function()
    local packed = gzip("text")
    local server = peer.serve(function(request)
      test.equal(request.headers["Accept-Encoding"], nil)
      return response(packed, "Content-Encoding: gzip\r\n")
    end)
    test.equal(assert(http.get(server.url, { decompress = false })).body, packed)
    local unknown = peer.serve(function() return response("as it came", "Content-Encoding: sdch\r\n") end)
    test.equal(assert(http.get(unknown.url)).body, "as it came")
  end,
}

local upgrades = {
  ["a stream of another protocol comes with what has arrived on it"] = function()
    local server = peer.serve(function(request)
      test.equal({ request.headers.Upgrade, request.headers.Connection, request.headers.Host }, { "echo", "Upgrade", request.headers.Host })
      request.stream:write("HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nhello")
      request.stream:write(request.stream:read(3))
      return nil
    end)
    local client = http.client()
    local options = { headers = { Upgrade = "echo", Connection = "Upgrade" } }
    local stream, leftover, answer = client:upgrade((server.url:gsub("^http", "ws")) .. "/chat", options)
    assert(stream, leftover)
    stream:write("abc")
    while #leftover < 8 do assert(stream:fill(leftover)) end
    test.equal({ leftover:take(), answer.status, answer.headers.Upgrade }, { "helloabc", 101, "echo" })
    test.equal({ client:connections() }, { 0, 0 })
    stream:close()
  end,

  ["a server that does not change protocols has refused"] = function()
    local server = peer.serve(function(request)
      if request.target == "/away" then return redirect_to("/other") end
      return response("not here", nil, "403 Forbidden")
    end)
    local client = http.client()
    local stream, err = client:upgrade(server.url, { headers = { Upgrade = "x", Connection = "upgrade" } })
    test.fails("refused", stream, err)
    test.equal({ err.code, err.response.body }, { 403, "not here" })
    stream, err = client:upgrade(server.url .. "/away")
    test.equal({ stream, err.code }, { nil, 302 })
    local silent = peer.listen(function(stream) stream:read_all() end)
    test.fails("timeout", client:upgrade(silent.url, { timeout = 3 }))
    test.fails("timeout", client:upgrade(silent.url))
  end,
}

local bases = {
  ["relative URLs are relative to base_url, and defaults are sent"] = function()
    local server = echo()
    local client = http.client({ base_url = server.url .. "/api/v1/", headers = { ["X-Key"] = "k", Accept = "text/plain" }, user_agent = "device/1" })
    assert(client:get("things?a=1"))
    assert(client:get("/root", { headers = { { "X-Key", "own" }, { "X-Key", "twice" } }, user_agent = false }))
    assert(client:get(server.url .. "/absolute"))
    local one, two, three = table.unpack(server.requests)
    test.equal({ one.target, one.headers["X-Key"], one.headers.Accept, one.headers["User-Agent"] }, { "/api/v1/things?a=1", "k", "text/plain", "device/1" })
    test.equal({ two.target, two.headers["X-Key"], two.headers["User-Agent"] }, { "/root", "own, twice" })
    test.equal(three.target, "/absolute")
    assert(client:get("x", { headers = { Host = "virtual", ["accept-encoding"] = "br" } }))
    test.equal({ server.requests[4].headers.Host, server.requests[4].headers["Accept-Encoding"] }, { "virtual", "br" })
  end,

  ["two lengths are not sent"] = function()
    test.fails("protocol", http.post(echo().url, { body = "text", headers = { ["Content-Length"] = "10" } }))
  end,
}

return {
  bodies = bodies,
  redirects = redirects,
  credentials = credentials,
  codings = codings,
  upgrades = upgrades,
  bases = bases,
}
