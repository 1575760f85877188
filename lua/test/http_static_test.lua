-- Conditional requests and ranges as numbers; files through a server.
local body = require("http.body")
local codec = require("http.codec")
local condition = require("http.server.condition")
local cosocket = require("cosocket")
local date = require("http.date")
local log = require("log")
local media_type = require("http.media_type")
local message = require("http.message")
local server = require("http.server")
local test = require("test")

log.level("off")

local AT = 1700000000
local BEFORE, SAME, AFTER = date.format(AT - 1), date.format(AT), date.format(AT + 1)

---@param fields table<string, string>
---@param method? string
---@param etag? string
local function check(fields, method, etag)
  return condition.check(method or "GET", codec.headers(fields), { etag = etag or '"a"', modified = AT })
end

---@param range string
---@param size integer
---@param more? table<string, string>
---@param method? string
local function ranges(range, size, more, method)
  local fields = { Range = range }
  for name, value in pairs(more or {}) do fields[name] = value end
  local found = condition.ranges(method or "GET", codec.headers(fields), { etag = '"a"', modified = AT }, size)
  if not found then return nil end
  local list = {}
  for i, one in ipairs(found) do list[i] = one.first .. "-" .. one.last end
  return table.concat(list, ",")
end

local conditions = {
  ["If-None-Match compares weakly, and a match is 304, or 412 for what changes"] = function()
    test.equal(check({ ["If-None-Match"] = '"a"' }), 304)
    test.equal(check({ ["If-None-Match"] = 'W/"a"' }, "HEAD"), 304)
    test.equal(check({ ["If-None-Match"] = '"x", W/"a" ,"y"' }), 304)
    test.equal(check({ ["If-None-Match"] = "*" }), 304)
    test.equal(check({ ["If-None-Match"] = '"b"' }), nil)
    test.equal(check({ ["If-None-Match"] = '"a"' }, "PUT"), 412)
    test.equal(check({ ["If-None-Match"] = '"a"' }, "GET", 'W/"a"'), 304)
    -- The tag counts, not the date (13.1.3).
    test.equal(check({ ["If-None-Match"] = '"b"', ["If-Modified-Since"] = AFTER }), nil)
  end,

  ["If-Match compares strongly, and no match is 412"] = function()
    test.equal(check({ ["If-Match"] = '"a"' }), nil)
    test.equal(check({ ["If-Match"] = "*" }), nil)
    test.equal(check({ ["If-Match"] = '"b", "a"' }), nil)
    test.equal(check({ ["If-Match"] = '"b"' }), 412)
    test.equal(check({ ["If-Match"] = 'W/"a"' }), 412)
    test.equal(check({ ["If-Match"] = 'W/"a"' }, "GET", 'W/"a"'), 412)
    test.equal(check({ ["If-Match"] = '"a"', ["If-Unmodified-Since"] = BEFORE }), nil)
  end,

  ["dates are compared to the second, and what is no date is ignored"] = function()
    test.equal(check({ ["If-Modified-Since"] = SAME }), 304)
    test.equal(check({ ["If-Modified-Since"] = AFTER }), 304)
    test.equal(check({ ["If-Modified-Since"] = BEFORE }), nil)
    test.equal(check({ ["If-Modified-Since"] = AFTER }, "POST"), nil)
    test.equal(check({ ["If-Modified-Since"] = "yesterday" }), nil)
    test.equal(check({ ["If-Unmodified-Since"] = BEFORE }), 412)
    test.equal(check({ ["If-Unmodified-Since"] = SAME }), nil)
    test.equal(check({ ["If-Unmodified-Since"] = "yesterday" }), nil)
  end,

  ["ranges are first to last, from first on, or the last so many"] = function()
    test.equal(ranges("bytes=0-0", 10), "0-0")
    test.equal(ranges("bytes=2-5", 10), "2-5")
    test.equal(ranges("bytes=2-", 10), "2-9")
    test.equal(ranges("bytes=-3", 10), "7-9")
    test.equal(ranges("bytes=-30", 10), "0-9")
    test.equal(ranges("bytes=5-100", 10), "5-9")
    test.equal(ranges("BYTES= 0-1 , 4-5,, 8-", 10), "0-1,4-5,8-9")
    test.equal(ranges("bytes=20-,0-1", 10), "0-1")
  end,

  ["what cannot be satisfied is 416, what is no range is ignored"] = function()
    for _, text in ipairs({ "bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99-,50-60" }) do test.equal(ranges(text, 10), "", text) end
    test.equal(ranges("bytes=0-", 0), "")
    for _, text in ipairs({ "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=1", "lines=1-2", "bytes 1-2", "bytes=1-2;3-4", "bytes=99999999999999999999-", "bytes=+1-2" }) do
      test.equal(ranges(text, 10), nil, text)
    end
    test.equal(ranges("bytes=0-1", 10, nil, "HEAD"), nil)
    -- Many, or overlapping: the whole is less work (14.2).
    test.equal(ranges("bytes=" .. ("0-0,"):rep(17), 100), nil)
    test.equal(ranges("bytes=0-,0-,0-", 10), nil)
  end,

  ["If-Range heeds the range only when it names what there is"] = function()
    test.equal(ranges("bytes=0-1", 10, { ["If-Range"] = '"a"' }), "0-1")
    test.equal(ranges("bytes=0-1", 10, { ["If-Range"] = '"b"' }), nil)
    test.equal(ranges("bytes=0-1", 10, { ["If-Range"] = 'W/"a"' }), nil)
    test.equal(ranges("bytes=0-1", 10, { ["If-Range"] = SAME }), "0-1")
    test.equal(ranges("bytes=0-1", 10, { ["If-Range"] = AFTER }), nil)
    test.equal(ranges("bytes=0-1", 10, { ["If-Range"] = "yesterday" }), nil)
  end,

  ["random ranges stay within what there is"] = function()
    local random = test.random()
    local letters = { "0", "1", "9", "-", ",", " ", "b", "=", "-1", "0-", "5-7" }
    for _ = 1, 3000 do
      local text, size = { "bytes=" }, random(0, 20)
      for i = 2, random(1, 12) do text[i] = random:pick(letters) end
      local found = condition.ranges("GET", codec.headers({ Range = table.concat(text) }), {}, size)
      for _, one in ipairs(found or {}) do assert(0 <= one.first and one.first <= one.last and one.last < size) end
    end
  end,

  ["content codings are weighed"] = function()
    local function accepts(text, coding) return condition.accepts_coding(codec.headers({ ["Accept-Encoding"] = text }), coding) end
    test.equal(accepts("gzip, br;q=0.5", "br"), 0.5)
    test.equal(accepts("GZIP", "gzip"), 1)
    test.equal(accepts("gzip;q=0, *", "gzip"), 0)
    test.equal(accepts("*;q=0.3", "br"), 0.3)
    test.equal(accepts("identity", "br"), 0)
    test.equal(condition.accepts_coding(codec.headers(), "br"), 0)
  end,

  ["types follow the endings of names"] = function()
    test.equal(media_type.of("a/b.HTML"), "text/html; charset=utf-8")
    test.equal(media_type.of("x.tar.gz"), "application/gzip")
    test.equal(media_type.of("no_ending"), "application/octet-stream")
    test.equal(media_type.of("x.unheard"), "application/octet-stream")
  end,
}

--- A folder with files, which is taken away at the end.
---@return {path: string}
local function folder()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute(("mkdir -p '%s/www/sub' '%s/www/.git' '%s/www/.well-known'"):format(path, path, path)))
  local function write(name, text)
    local file = assert(io.open(path .. "/" .. name, "wb"))
    file:write(text)
    file:close()
  end
  write("secret.txt", "secret")
  write("www/index.html", "<p>index</p>")
  write("www/a b.txt", "0123456789")
  write("www/page.css", "plain")
  write("www/page.css.gz", "zipped")
  write("www/sub/index.html", "sub")
  write("www/.git/config", "hidden")
  write("www/.well-known/x", "known")
  write("www/empty", "")
  write("www/large.bin", ("0123456789abcdef"):rep(20000))
  assert(os.execute(("ln -s ../secret.txt '%s/www/out' && ln -s .. '%s/www/up' && ln -s index.html '%s/www/in.html'"):format(path, path, path)))
  assert(os.execute(("mkfifo '%s/www/pipe'"):format(path)))
  return setmetatable({ path = path .. "/www" }, { __close = function() os.execute(("rm -r '%s'"):format(path)) end })
end

--- Asks for a file; the connection closes.
---@param one http.Server
---@param target string
---@param fields? table<string, string>
---@param method? string
local function ask(one, target, fields, method)
  local near, far = cosocket.pair()
  local stream <close> = near --[[@as cosocket.Stream]]
  one:serve(far --[[@as cosocket.Stream]])
  local input, output = cosocket.buffer(), cosocket.buffer()
  method = method or "GET"
  assert(codec.encode_request(output, method, target, nil, { Host = "h", Connection = "close" }, fields))
  local status, _, _, headers, length = message.next_response(stream, input, output, method, nil, cosocket.now() + 10)
  return { status = status, headers = headers, body = assert(body.reader(stream, input, length):read_all()) }
end

local files = {
  ["files have types, validators and dates"] = function()
    local www <close> = folder()
    local one = server.new():static("/", www.path)
    local answer = ask(one, "/a%20b.txt")
    test.equal({ answer.status, answer.body, answer.headers["content-type"] }, { 200, "0123456789", "text/plain; charset=utf-8" })
    test.equal({ answer.headers["cache-control"], answer.headers["accept-ranges"] }, { "no-cache", "bytes" })
    test.truthy(date.parse(answer.headers["last-modified"]))
    local again = ask(one, "/a%20b.txt", { ["If-None-Match"] = answer.headers.etag })
    test.equal({ again.status, again.body, again.headers.etag, again.headers["content-length"] }, { 304, "", answer.headers.etag })
    test.equal(ask(one, "/a%20b.txt", { ["If-Modified-Since"] = answer.headers["last-modified"] }).status, 304)
    test.equal(ask(one, "/a%20b.txt", { ["If-Match"] = '"other"' }).status, 412)
    local head = ask(one, "/a%20b.txt", nil, "HEAD")
    test.equal({ head.status, head.headers["content-length"], head.body }, { 200, "10", "" })
    test.equal({ ask(one, "/empty").status, ask(one, "/empty").body }, { 200, "" })
    assert(ask(one, "/large.bin").body == ("0123456789abcdef"):rep(20000))
    answer = ask(one, "/empty", nil, "POST")
    test.equal({ answer.status, answer.headers.allow }, { 405, "GET, HEAD, OPTIONS" })
  end,

  ["parts of files are sent"] = function()
    local www <close> = folder()
    local one = server.new():static("/", www.path)
    local answer = ask(one, "/a%20b.txt", { Range = "bytes=2-4" })
    test.equal({ answer.status, answer.body, answer.headers["content-range"] }, { 206, "234", "bytes 2-4/10" })
    answer = ask(one, "/large.bin", { Range = "bytes=100000-" })
    assert(answer.body == ("0123456789abcdef"):rep(20000):sub(100001))
    answer = ask(one, "/a%20b.txt", { Range = "bytes=20-" })
    test.equal({ answer.status, answer.headers["content-range"] }, { 416, "bytes */10" })
    answer = ask(one, "/a%20b.txt", { Range = "bytes=0-1", ["If-Range"] = '"other"' })
    test.equal({ answer.status, answer.body }, { 200, "0123456789" })
    answer = ask(one, "/a%20b.txt", { Range = "bytes=0-1, -2" })
    local boundary = test.matches(answer.headers["content-type"], "^multipart/byteranges; boundary=(%S+)$")
    local part = "--%s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes %s/10\r\n\r\n%s\r\n"
    test.equal(answer.body, part:format(boundary, "0-1", "01") .. part:format(boundary, "8-9", "89") .. "--" .. boundary .. "--\r\n")
  end,

  ["a folder is its index, after a slash"] = function()
    local www <close> = folder()
    local one = server.new():static("/site", www.path):static("/bare", www.path, { index = "" })
    test.equal(ask(one, "/site/").body, "<p>index</p>")
    test.equal(ask(one, "/site/sub/").body, "sub")
    local answer = ask(one, "/site/sub?x=1")
    test.equal({ answer.status, answer.headers.location }, { 301, "/site/sub/?x=1" })
    test.equal(ask(one, "/bare/").status, 404)
    test.equal(ask(one, "/bare/sub").status, 404)
    test.equal(ask(one, "/sitex/").status, 404)
  end,

  ["a redirect never leads to another host"] = function()
    local www <close> = folder()
    local one = server.new():static("/", www.path)
    test.equal(ask(one, "//sub").status, 404)
    test.equal(ask(one, "/sub").headers.location, "/sub/")
  end,

  ["no path leads out of the folder"] = function()
    local www <close> = folder()
    local one = server.new():static("/", www.path, { hidden = true })
    for _, target in ipairs({
      "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/%2e%2e%2fsecret.txt", "/sub/../../secret.txt",
      "/sub/%2e%2e/index.html", "/./index.html", "//index.html", "/sub//index.html", "/%2fetc/passwd", "//etc/passwd",
      "/..%5csecret.txt", "/%5c..%5csecret.txt", "/index.html%00", "/%00", "/index.html/", "/index.html/x", "/out", "/up/secret.txt",
      "/up/www/../secret.txt", "/up", "/pipe", "/%ff", "/%zz", "/%2e", "/%2e%2e", "/..;/secret.txt", "/...", "/" .. ("x"):rep(5000),
    }) do
      local answer = ask(one, target)
      test.equal({ answer.status, answer.body }, { 404, "Not Found\n" }, target)
    end
    -- A link that stays inside is a file like any other.
    test.equal(ask(one, "/in.html").body, "<p>index</p>")
  end,

  ["what begins with a dot is hidden, but for what is well known"] = function()
    local www <close> = folder()
    local one = server.new():static("/", www.path):static("/all", www.path, { hidden = true })
    test.equal(ask(one, "/.git/config").status, 404)
    test.equal(ask(one, "/.well-known/x").body, "known")
    test.equal(ask(one, "/all/.git/config").body, "hidden")
  end,

  ["what is compressed already is sent to those who understand it"] = function()
    local www <close> = folder()
    local one = server.new():static("/", www.path, { precompressed = true, max_age = 60, headers = { ["X-Frame-Options"] = "DENY" } })
    local zipped = ask(one, "/page.css", { ["Accept-Encoding"] = "br, gzip" })
    local plain = ask(one, "/page.css", { ["Accept-Encoding"] = "gzip;q=0" })
    test.equal({ zipped.body, zipped.headers["content-encoding"], zipped.headers["content-type"] }, { "zipped", "gzip", "text/css; charset=utf-8" })
    test.equal({ plain.body, plain.headers["content-encoding"] }, { "plain" })
    test.equal({ plain.headers.vary, plain.headers["cache-control"], plain.headers["x-frame-options"] }, { "Accept-Encoding", "max-age=60", "DENY" })
    test.not_equal(zipped.headers.etag, plain.headers.etag)
  end,

  ["wrong options raise"] = function()
    local one = server.new()
    test.raises("unknown option", one.static, one, "/", "x", { idnex = "" })
    test.raises("the folder must be a string", one.static, one, "/", nil)
  end,
}

return { conditions = conditions, files = files }
