-- Files that come whole although connections break, and event streams that go on.
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local peer = require("test.http_peer")
local sse = require("http.sse")
local test = require("test")
local transfer = require("http.transfer")

local http = peer.http

local TEXT = ("firmware"):rep(30000)
local SUM = "sha256:" .. hex.encode(crypto.sha256(TEXT))

--- Serves TEXT with Range; `faults[i]` is how many bytes the i-th request gets before the connection ends.
local function server_of(faults, options)
  options = options or {}
  local count = 0
  local server
  server = peer.serve(function(request)
    count = count + 1
    local from, status = 0, "200 OK"
    local tag = options.tag and options.tag(count) or '"v1"'
    local range, condition = request.headers.Range, request.headers["If-Range"]
    local fields = options.no_tag and "" or ("ETag: %s\r\n"):format(tag)
    if range and not options.no_ranges and (not condition or condition == tag) then
      from = tonumber(range:match("^bytes=(%d+)-$"))
      if from >= #TEXT then
        return ("HTTP/1.1 416 No\r\nContent-Range: bytes */%d\r\nContent-Length: 0\r\n\r\n"):format(#TEXT)
      end
      status = "206 Partial Content"
      fields = fields .. ("Content-Range: bytes %d-%d/%d\r\n"):format(from + (options.shift or 0), #TEXT - 1, #TEXT)
    end
    local body = TEXT:sub(from + 1)
    local fault = faults[count]
    if type(fault) == "string" then return fault end
    local bytes = peer.response(body, fields, status)
    if not fault then return bytes end
    request.stream:write(bytes:sub(1, #bytes - #body + fault))
    request.stream:flush()
    return nil
  end)
  return server
end

--- A path that is free, and something that removes what was left there.
local function free_path()
  local path = os.tmpname()
  os.remove(path)
  return path, setmetatable({}, { __close = function()
    for _, ending in ipairs({ "", ".part", ".part.info" }) do os.remove(path .. ending) end
  end })
end

local function content(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local saves = {
  ["a file appears when it is whole"] = function()
    local server = server_of({})
    local path, clean <close> = free_path()
    local saved = assert(http.save(server.url, path, { checksum = SUM }))
    test.equal({ saved.size, saved.attempts, saved.resumed, saved.checksum }, { #TEXT, 1, 0, SUM })
    test.equal(content(path) == TEXT, true)
    test.equal({ content(path .. ".part"), content(path .. ".part.info") }, {})
    local answer = assert(http.get(server.url, { stream = true }))
    assert(answer:save(path))
    assert(assert(http.get(server.url)):save(path, { checksum = SUM }))
    test.equal(content(path) == TEXT, true)
    test.fails("protocol", assert(http.get(server.url)):save(path, { checksum = "md5:" .. ("0"):rep(32) }))
  end,

  ["what breaks off goes on where it was, however often"] = function()
    local server = server_of({ 1000, 70000, 0, 5, 100000 })
    local path, clean <close> = free_path()
    local saved = assert(http.save(server.url, path, { checksum = SUM }))
    test.equal({ saved.attempts, saved.resumed }, { 6, 171005 })
    test.equal(content(path) == TEXT, true)
    local ranges = {}
    for i, request in ipairs(server.requests) do ranges[i] = request.headers.Range or "all" end
    test.equal(ranges, { "all", "bytes=1000-", "bytes=71000-", "bytes=71000-", "bytes=71005-", "bytes=171005-" })
    test.equal(server.requests[2].headers["If-Range"], '"v1"')
    test.equal(server.requests[1].headers["Accept-Encoding"], "identity")
  end,

  ["a response that breaks off while it is saved goes on, too"] = function()
    local server = server_of({ 1000 })
    local path, clean <close> = free_path()
    local answer = assert(http.get(server.url, { stream = true, headers = { ["X-Key"] = "k" }, auth = { bearer = "t" } }))
    local saved = assert(answer:save(path, { checksum = SUM }))
    test.equal({ saved.attempts, content(path) == TEXT }, { 2, true })
    test.equal({ server.requests[2].headers["X-Key"], server.requests[2].headers.Authorization }, { "k", "Bearer t" })
  end,

  ["a later run goes on with what an earlier one left"] = function()
    local path, clean <close> = free_path()
    local server = server_of({ 50000 })
    test.fails("closed", http.save(server.url, path, { attempts = 1 }))
    test.equal(#content(path .. ".part"), 50000)
    local saved = assert(http.save(server.url, path, { checksum = SUM }))
    test.equal({ saved.attempts, saved.resumed, content(path) == TEXT }, { 1, 50000, true })
    test.equal(server.requests[2].headers.Range, "bytes=50000-")
    -- A part of another URL is none of this one's.
    server = server_of({ 50000, nil })
    test.fails("closed", http.save(server.url .. "/other", path, { attempts = 1 }))
    assert(http.save(server.url .. "/this", path, { checksum = SUM }))
    test.equal(server.requests[2].headers.Range, nil)
    -- All of it had come, but for its name.
    server = server_of({ 50000 })
    test.fails("closed", http.save(server.url, path, { attempts = 1 }))
    local part = assert(io.open(path .. ".part", "wb"))
    part:write(TEXT)
    part:close()
    assert(http.save(server.url, path, { checksum = SUM }))
    test.equal(content(path) == TEXT, true)
  end,

  ["resume = false begins anew"] = function()
    local path, clean <close> = free_path()
    local server = server_of({ 50000, 100 })
    test.fails("closed", http.save(server.url, path, { attempts = 1 }))
    local saved = assert(http.save(server.url, path, { resume = false, checksum = SUM }))
    test.equal({ saved.attempts, saved.resumed }, { 2, 0 })
    for _, request in ipairs(server.requests) do test.equal(request.headers.Range, nil) end
  end,

  ["a file that changed meanwhile is not put together of two"] = function()
    local path, clean <close> = free_path()
    local server = server_of({ 1000 }, { tag = function(count) return count == 1 and '"old"' or '"new"' end })
    local saved = assert(http.save(server.url, path, { checksum = SUM }))
    test.equal({ saved.attempts, saved.resumed, content(path) == TEXT }, { 2, 0, true })
    -- Without a validator only a checksum can tell, and without that one begins anew.
    server = server_of({ 1000 }, { no_tag = true })
    assert(http.save(server.url, path))
    test.equal(server.requests[2].headers.Range, nil)
    server = server_of({ 1000 }, { no_tag = true })
    assert(http.save(server.url, path, { checksum = SUM }))
    test.equal(server.requests[2].headers.Range, "bytes=1000-")
  end,

  ["a part of another file is not put behind what came, even by a server that does not look"] = function()
    -- Whatever If-Range says.
    local asked = {}
    local function server_with(fields)
      local count = 0
      return peer.serve(function(request)
        count = count + 1
        asked[count] = request.headers["If-Range"] or request.headers.Range or "all"
        if not request.headers.Range then
          local bytes = peer.response(TEXT, fields(count))
          if count > 1 then return bytes end
          request.stream:write(bytes:sub(1, 50000))
          request.stream:flush()
          return nil
        end
        local from = tonumber(request.headers.Range:match("%d+"))
        local range = ("Content-Range: bytes %d-%d/%d\r\n"):format(from, #TEXT - 1, #TEXT)
        return peer.response(("?"):rep(#TEXT - from), range .. fields(count), "206 Partial Content")
      end)
    end
    local path, clean <close> = free_path()
    local server = server_with(function(count) return ('ETag: "%d"\r\n'):format(count) end)
    assert(http.save(server.url, path, { checksum = SUM, retry_delay = 0 }))
    test.equal(asked, { "all", '"1"', "all" })
    -- A date is no better than the second it was in (8.8.2.2): without a checksum nothing tells the files apart.
    asked = {}
    local date = "Tue, 15 Nov 1994 12:45:26 GMT"
    server = server_with(function() return ("Last-Modified: %s\r\nDate: %s\r\n"):format(date, date) end)
    assert(http.save(server.url, path, { retry_delay = 0 }))
    test.equal(asked, { "all", "all" })
    test.equal(content(path) == TEXT, true)
    -- One that was old by then will do.
    asked = {}
    server = server_with(function() return ("Last-Modified: %s\r\nDate: Tue, 15 Nov 1994 12:45:27 GMT\r\n"):format(date) end)
    assert(http.save(server.url, path, { retry_delay = 0 }))
    test.equal(asked, { "all", date })
  end,

  ["a server without ranges, or with wrong ones, still gives the file"] = function()
    local path, clean <close> = free_path()
    assert(http.save(server_of({ 1000 }, { no_ranges = true }).url, path, { checksum = SUM }))
    test.equal(content(path) == TEXT, true)
    assert(http.save(server_of({ 1000 }, { shift = 7 }).url, path, { checksum = SUM }))
    test.equal(content(path) == TEXT, true)
  end,

  ["a wrong checksum keeps no file"] = function()
    local path, clean <close> = free_path()
    local _, err = http.save(server_of({}).url, path, { checksum = "sha256:" .. ("0"):rep(64) })
    test.equal({ err.kind, err.code }, { "protocol", "checksum" })
    test.equal({ content(path), content(path .. ".part") }, {})
  end,

  ["one gives up after so many attempts that bring nothing"] = function()
    local path, clean <close> = free_path()
    local server = server_of({ 10, 0, 0, 0 })
    local started = cosocket.now()
    test.fails("closed", http.save(server.url, path, { attempts = 3, retry_delay = 2 }))
    test.equal(#server.requests, 3)
    test.near(cosocket.now() - started, 2 + 4, 0.5)
    test.fails("connect", http.save("http://127.0.0.1:1/", path, { attempts = 2 }))
  end,

  ["a status that passes is tried again when the server says"] = function()
    local path, clean <close> = free_path()
    local busy = "HTTP/1.1 503 Busy\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n"
    local server = server_of({ busy })
    local started = cosocket.now()
    assert(http.save(server.url, path))
    test.near(cosocket.now() - started, 20, 1)
    local _, err = http.save(server_of({ "HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n" }).url, path)
    test.equal({ err.kind, err.code }, { "refused", 404 })
  end,

  ["a file that is too large is not fetched"] = function()
    local path, clean <close> = free_path()
    test.fails("limit", http.save(server_of({}).url, path, { size_max = #TEXT - 1 }))
    assert(http.save(server_of({}).url, path, { size_max = #TEXT }))
    test.equal(test.fails("io", http.save(server_of({}).url, "/no/such/folder/file")).code, "ENOENT")
  end,

  ["progress is told, and can be drawn"] = function()
    local path, clean <close> = free_path()
    local told = {}
    assert(http.save(server_of({ 1000 }).url, path, { progress = true, on_progress = function(...) told[#told + 1] = { ... } end }))
    test.equal({ told[1][1] <= #TEXT, told[#told][1], told[#told][2] }, { true, #TEXT, #TEXT })
    test.equal(transfer.bar(512 * 1024, 1024 * 1024, 2048), "[" .. ("#"):rep(15) .. (" "):rep(15) .. "]  50%  512.0 KiB of 1.0 MiB  2.0 KiB/s")
    test.equal(transfer.bar(100, nil, 3 << 30), "100 B  3.0 GiB/s")
    test.matches(transfer.bar(0, 0, 0), "100%%")
  end,

  ["wrong options raise"] = function()
    test.raises("did you mean \"checksum\"?", function() http.save("http://h/", "x", { cheksum = "" }) end)
    test.raises("checksum must be", function() http.save("http://h/", "x", { checksum = "sha256:00" }) end)
    test.raises("the path must be", function() http.save("http://h/", nil) end)
  end,
}

--- Everything that the pieces dispatch.
local function events_of(...)
  local parser, all = sse.parser(), {}
  for _, piece in ipairs({ ... }) do
    for _, event in ipairs(assert(parser:feed(piece))) do all[#all + 1] = event end
  end
  return all, parser
end

local streams = {
  ["the standard's examples"] = function()
    test.equal(events_of("data: YHOO\ndata: +2\ndata: 10\n\n"), { { type = "message", data = "YHOO\n+2\n10", id = "" } })
    local text = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
    test.equal(events_of(text), {
      { type = "message", data = "first event", id = "1" },
      { type = "message", data = "second event", id = "" },
      { type = "message", data = " third event", id = "" },
    })
    test.equal(#events_of("data\n\ndata\ndata\n\ndata:"), 2)
    test.equal(events_of("data\n\ndata\ndata\n\ndata:")[2].data, "\n")
    test.equal(events_of("data:test\n\ndata: test\n\n")[1].data, events_of("data: test\n\n")[1].data)
  end,

  ["a stream cut at any byte is the same stream"] = function()
    local text = "\xEF\xBB\xBFevent: add\r\ndata: 1\r\n\r\n: c\revent: x\rdata: 2\rid: 7\r\rdata: \xC3\xA4\ndata\nretry: 1500\nfoo: bar\n\nid: a\0b\ndata: z\n\n"
    local whole, parser = events_of(text)
    test.equal(#whole, 4)
    test.equal(whole[2], { type = "x", data = "2", id = "7" })
    test.equal(whole[3], { type = "message", data = "\xC3\xA4\n", id = "7" })
    test.equal({ parser.retry, whole[4].id }, { 1.5, "7" })
    test.every_cut(text, function(first, second) test.equal((events_of(first, second)), whole) end)
    local bytes = {}
    for i = 1, #text do bytes[i] = text:sub(i, i) end
    test.equal((events_of(table.unpack(bytes))), whole)
  end,

  ["an event without data is none, but its id counts"] = function()
    local all, parser = events_of("event: x\nid: 5\n\n")
    test.equal({ #all, parser.id }, { 0, "5" })
    test.equal(#events_of("retry: 1x\ndata: no end\n"), 0)
  end,

  ["a line or event without end is a limit"] = function()
    test.fails("limit", sse.parser(100):feed(("x"):rep(101)))
    test.fails("limit", sse.parser(100):feed(("data: 12345\n"):rep(50)))
    test.equal(#assert(sse.parser(100):feed(("data: 12345\n\n"):rep(50))), 50)
  end,

  ["a lost stream is taken up behind its last event"] = function()
    local server
    server = peer.serve(function(request)
      local count = #server.requests
      if count == 3 then return "HTTP/1.1 503 Busy\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n" end
      if count == 5 then return "HTTP/1.1 204 Done\r\n\r\n" end
      test.equal(request.headers.Accept, "text/event-stream")
      request.stream:write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n")
      request.stream:write(("retry: 5000\nid: %d\ndata: event %d\n\ndata: half"):format(count, count))
      request.stream:flush()
      return nil
    end)
    local got, started = {}, cosocket.now()
    for event in http.events(server.url, { last_event_id = "0" }) do got[#got + 1] = event.data end
    test.equal(got, { "event 1", "event 2", "event 4" })
    local ids = {}
    for i, request in ipairs(server.requests) do ids[i] = request.headers["Last-Event-ID"] end
    test.equal(ids, { "0", "1", "2", "2", "4" })
    test.near(cosocket.now() - started, 5 + 5 + 30 + 5, 3)
  end,

  ["silence is no loss, unless idle_timeout says so"] = function()
    local server
    server = peer.serve(function(request)
      request.stream:write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n")
      request.stream:flush()
      cosocket.sleep(3600)
      request.stream:write("data: b\n\n")
      request.stream:flush()
      cosocket.sleep(3600)
      return nil
    end)
    local source <close> = http.events(server.url)
    test.equal({ source:next().data, source:next().data, #server.requests }, { "a", "b", 1 })
    local nervous <close> = http.events(server.url, { idle_timeout = 20 })
    test.equal({ nervous:next().data, nervous:next().data, #server.requests }, { "a", "a", 3 })
  end,

  ["what will never be an event stream is an error, and raised in a loop"] = function()
    local function fails(kind, bytes, options)
      local server = peer.serve(function() return bytes end)
      local source = http.events(server.url, options)
      local event, err = source:next()
      test.fails(kind, event, err)
      test.fails(kind, source:next())
      local ok, raised = pcall(function() for _ in source do end end)
      test.equal({ ok, raised.kind }, { false, kind })
    end
    fails("refused", peer.response("", nil, "404 None"))
    fails("protocol", peer.response("", "Content-Type: text/html\r\n"))
    fails("refused", peer.response("", nil, "500 Broken"), { retries_max = 2 })
    fails("limit", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" .. ("x"):rep(200), { event_max = 100 })
    test.raises("last_event_id", function() http.events("http://h/", { last_event_id = "a\nb" }) end)
  end,
}

return { saves = saves, streams = streams }
