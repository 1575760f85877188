-- nginx, Apache httpd and h11: what everybody's servers do.
local cosocket = require("cosocket")
local http = require("http")
local test = require("test")
local web = require("web")

local PAGE = ("<p>a page that compresses well</p>\n"):rep(5000)

--- What h11 saw of a request.
local function seen(method, options)
  return assert(assert(http.request(method, web.url("strict", "/seen"), options)):json())
end

return {
  ["[RFC 9112 9.3] nginx: requests follow one another on one connection"] = function()
    local client <close> = http.client()
    for _ = 1, 20 do test.equal(assert(client:get(web.url("nginx", "/small.txt"))).body, "small\n") end
    test.equal({ client:connections() }, { 0, 1 })
  end,

  ["[RFC 9112 9.6] nginx: a connection that is closed after five requests is replaced"] = function()
    local client <close> = http.client()
    local kept = 0
    for _ = 1, 23 do
      test.equal(assert(client:get(web.url("nginx", "/few/small.txt"))).body, "small\n")
      kept = kept + select(2, client:connections())
    end
    test.equal(kept, 19)
  end,

  ["[RFC 9112 9.3.1] nginx: a connection that idled away is not used"] = function()
    local client <close> = http.client()
    assert(client:get(web.url("nginx", "/short/small.txt")))
    cosocket.sleep(1.5)
    test.equal(assert(client:post(web.url("nginx", "/echo"), { body = "x" })).body, "x")
  end,

  ["[RFC 9110 8.4] nginx: gzip in chunks is decoded"] = function()
    local answer = assert(http.get(web.url("nginx", "/gzip/page.html")))
    test.equal({ answer.headers["Content-Encoding"], answer.headers["Transfer-Encoding"] }, { "gzip", "chunked" })
    test.equal(answer.body == PAGE, true)
  end,

  ["[RFC 7932] Apache: brotli is decoded"] = function()
    local answer = assert(http.get(web.url("apache", "/br/page.html"), { headers = { ["Accept-Encoding"] = "br" } }))
    test.equal({ answer.headers["Content-Encoding"], answer.body == PAGE }, { "br", true })
  end,

  ["[RFC 9110 8.4] Apache: deflate and no coding are the same page"] = function()
    test.equal(assert(http.get(web.url("apache", "/deflate/page.html"))).body == PAGE, true)
    test.equal(assert(http.get(web.url("apache", "/page.html"), { decompress = false })).body == PAGE, true)
  end,

  ["[RFC 7616] Apache: Digest lets in, with one challenge for many requests"] = function()
    local client <close> = http.client({ auth = { username = web.user, password = web.password, scheme = "digest" } })
    for i = 1, 5 do test.equal(assert(client:get(web.url("apache", "/digest/small.txt?n=" .. i))).body, "small\n") end
    local wrong = { username = web.user, password = "wrong", scheme = "digest" }
    test.equal(assert(http.get(web.url("apache", "/digest/small.txt"), { auth = wrong })).status, 401)
  end,

  ["[RFC 7617] nginx: Basic lets in"] = function()
    local url, auth = web.url("nginx", "/basic/small.txt"), { username = web.user, password = web.password }
    test.equal(assert(http.get(url)).status, 401)
    test.equal(assert(http.get(url, { auth = auth })).body, "small\n")
    auth.scheme = "any"
    test.equal(assert(http.get(url, { auth = auth })).body, "small\n")
    test.equal(assert(http.get((url:gsub("//", ("//%s:%s@"):format(web.user, web.password), 1)))).body, "small\n")
  end,

  ["[RFC 9110 15.4] nginx: redirects are followed as their statuses say"] = function()
    test.equal(assert(http.get(web.url("nginx", "/moved"))).body == PAGE, true)
    test.equal(assert(http.put(web.url("nginx", "/kept"), { body = "kept" })).body, "kept")
    test.fails("limit", http.get(web.url("nginx", "/round")))
    local auth = { username = web.user, password = web.password }
    local saw = assert(http.get(web.url("nginx", "/away"), { auth = auth, headers = { Cookie = "a=b" } })):json()
    for _, field in ipairs(saw.headers) do
      test.falsy(field[1]:lower() == "authorization" or field[1]:lower() == "cookie", field[1])
    end
  end,

  ["[RFC 9110 15.3.5, 9.3.2] nginx: 204 and HEAD have no body"] = function()
    local client <close> = http.client()
    test.equal(assert(client:get(web.url("nginx", "/none"))).body, "")
    local head = assert(client:head(web.url("nginx", "/page.html")))
    test.equal({ head.headers["Content-Length"], head.body }, { tostring(#PAGE), "" })
    test.equal(assert(client:get(web.url("nginx", "/small.txt"))).body, "small\n")
    test.equal({ client:connections() }, { 0, 1 })
  end,

  ["[RFC 9112 9.5] nginx: a refusal ends a long upload"] = function()
    local count = 0
    local answer, err = http.post(web.url("nginx", "/early"), {
      length = 1 << 30,
      body = function()
        count = count + 1
        return ("x"):rep(65536)
      end,
    })
    test.equal(answer and answer.status, 413, err and tostring(err))
    test.truthy(count < 1000)
  end,

  ["[RFC 9110 14] nginx: a file is fetched in two parts"] = function()
    local path = os.tmpname()
    local part = assert(io.open(path .. ".part", "wb"))
    part:write(PAGE:sub(1, 100000))
    part:close()
    local head = assert(http.head(web.url("nginx", "/page.html")))
    local info = assert(io.open(path .. ".part.info", "wb"))
    local json = require("json")
    info:write(assert(json.encode({ url = web.url("nginx", "/page.html"), validator = head.headers.ETag })))
    info:close()
    local saved = assert(http.save(web.url("nginx", "/page.html"), path))
    test.equal({ saved.resumed, saved.response.status, web.read(path) == PAGE }, { 100000, 206, true })
    os.remove(path)
  end,

  ["h11: every kind of request is legal"] = function()
    test.equal(seen("GET").method, "GET")
    test.equal(seen("DELETE", { query = { a = "b c" } }).target, "/seen?a=b+c")
    test.equal(seen("POST", { body = "text" }).body, "text")
    test.equal(seen("PUT", { body = coroutine.wrap(function() coroutine.yield("in ") coroutine.yield("chunks") end) }).body, "in chunks")
    test.equal(seen("PATCH", { json = { 1, 2 } }).body, "[1,2]")
    test.equal(seen("POST", { form = { a = "1&2" } }).body, "a=1%262")
    test.matches(seen("POST", { multipart = { a = "1" } }).body, 'name="a"\r\n\r\n1\r\n')
    test.equal(seen("POST").body, "")
    test.equal(seen("PROPFIND").method, "PROPFIND")
    test.equal(seen("OPTIONS").method, "OPTIONS")
  end,

  ["[RFC 9112 7.1.2] h11: trailers go and come"] = function()
    test.equal(seen("POST", { body = "text", trailers = { ["X-Sum"] = "4" } }).trailers, { { "x-sum", "4" } })
    local answer = assert(http.get(web.url("strict", "/trailers")))
    test.equal({ answer.body, answer.trailers["X-Sum"] }, { "body", "4" })
  end,

  ["[RFC 9110 10.1.1] h11: 100 is waited for"] = function()
    local told = {}
    local answer = assert(http.post(web.url("strict", "/echo"), {
      body = ("x"):rep(3 << 20),
      expect = 30,
      on_informational = function(status) told[#told + 1] = status end,
    }))
    test.equal({ #answer.body, told }, { 3 << 20, { 100 } })
  end,

  ["[RFC 8297] h11: early hints are told, and the answer comes"] = function()
    local told = 0
    local answer = assert(http.get(web.url("strict", "/hints"), { on_informational = function(_, headers)
      test.equal(headers.Link, "</style.css>")
      told = told + 1
    end }))
    test.equal({ answer.status, told }, { 200, 2 })
  end,

  ["[RFC 6265] h11: cookies come back, but for others' and ended ones"] = function()
    local client <close> = http.client({ cookies = true })
    assert(client:get(web.url("strict", "/login")))
    local saw = assert(client:get(web.url("strict", "/seen"))):json()
    local sent
    for _, field in ipairs(saw.headers) do
      if field[1]:lower() == "cookie" then sent = field[2] end
    end
    test.equal(sent, "sid=abc")
  end,

  ["[HTML 9.2] h11: an event stream is taken up behind its last event until 204 ends it"] = function()
    local got = {}
    for event in http.events(web.url("strict", "/events")) do got[#got + 1] = event.data end
    test.equal(#got, 9)
    test.equal({ got[1], got[9] }, { "event 1", "event 9" })
  end,
}
