-- Servers that mean no good, and what must not leak to them, or through them.
local cosocket = require("cosocket")
local peer = require("test.http_peer")
local test = require("test")

local http = peer.http

--- A server that takes a head and says `bytes`; then it ends.
local function says(bytes)
  return peer.listen(function(stream)
    stream:read_until("\r\n\r\n")
    stream:write(bytes)
    stream:flush()
  end)
end

local secrets = {
  ["the user and password of a URL go nowhere but into Authorization"] = function()
    local server = peer.serve(function(request)
      if request.target == "/there" then return peer.response("", "Location: /here\r\n", "302 Found") end
      return peer.response("no", nil, "404 Not Found")
    end)
    local address = server.url:gsub("//", "//joe:se%%63ret@") .. "/there"
    local answer = assert(http.get(address, { query = { a = 1 } }))
    test.equal(answer.status, 404)
    local answer = assert(http.get(address))
    test.equal(answer.url, server.url .. "/here")
    test.equal(answer.redirects, { server.url .. "/there" })
    local _, err = answer:check()
    test.falsy(tostring(err):find("se%S*ret"), tostring(err))
    for i, request in ipairs(server.requests) do
      test.equal(request.headers.Authorization, "Basic am9lOnNlY3JldA==", "request " .. i)
    end
    test.equal(server.requests[1].target, "/there?a=1")
    for _, wrong in ipairs({ "http://joe:secret@h:99999/", "http://joe:secret@[::1/", "http://joe:secret@a b/" }) do
      _, err = http.get(wrong)
      test.fails("protocol", nil, err)
      test.falsy(tostring(err):find("secret", 1, true), tostring(err))
    end
  end,

  ["a proxy that forwards is not told the password in the request line"] = function()
    local seen
    local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
    cosocket.spawn("proxy", function()
      local stream <close> = assert(listener:accept())
      seen = stream:read_until("\r\n\r\n")
      stream:write(peer.response("ok"))
      stream:flush()
    end)
    local client = require("http").client({ proxy = "http://" .. listener:local_address() })
    assert(client:get("http://joe:secret@origin.test/x?y"))
    listener:close()
    test.matches(seen, "^GET http://origin%.test/x%?y HTTP/1%.1\r\n")
    test.matches(seen, "\r\nAuthorization: Basic ")
  end,

  ["a download that goes on does not carry credentials where a redirect led"] = function()
    local text = ("x"):rep(100000)
    local count = 0
    local store
    store = peer.serve(function(request)
      count = count + 1
      if count > 1 then
        local from = tonumber(request.headers.Range:match("%d+"))
        local range = ("Content-Range: bytes %d-%d/%d\r\nETag: \"a\"\r\n"):format(from, #text - 1, #text)
        return peer.response(text:sub(from + 1), range, "206 Partial Content")
      end
      request.stream:write(peer.response(text, 'ETag: "a"\r\n'):sub(1, 50000))
      request.stream:flush()
      return nil
    end)
    local front = peer.serve(function(request)
      if not request.headers.Authorization then return peer.response("", nil, "401 Unauthorized") end
      return peer.response("", ("Location: %s/file\r\n"):format(store.url), "302 Found")
    end)
    local answer = assert(http.get(front.url, {
      stream = true,
      query = { a = 1 },
      auth = { username = "joe", password = "secret" },
      headers = { Cookie = "sid=1", ["X-Plain"] = "1" },
    }))
    local path = os.tmpname()
    local saved = assert(answer:save(path, { retry_delay = 0 }))
    os.remove(path)
    test.equal({ saved.size, saved.attempts }, { #text, 2 })
    test.equal(#store.requests, 2)
    for _, request in ipairs(store.requests) do
      test.equal({ request.headers.Authorization, request.headers.Cookie, request.headers["X-Plain"] }, { nil, nil, "1" })
    end
    for _, request in ipairs(front.requests) do test.equal(request.target, "/?a=1") end
  end,

  ["a Host that the client was told is sent once, and the request's own goes before it"] = function()
    local server = peer.serve(function() return peer.response("ok") end)
    local client = http.client({ headers = { Host = "one.example" } })
    assert(client:get(server.url))
    assert(client:get(server.url, { headers = { A = "b" } }))
    assert(client:get(server.url, { headers = { Host = "two.example" } }))
    local hosts = {}
    for i, request in ipairs(server.requests) do hosts[i] = request.headers:get_all("Host") end
    test.equal(hosts, { { "one.example" }, { "one.example" }, { "two.example" } })
  end,

  ["no text of a script begins another line, and who gave it is told"] = function()
    local server = peer.serve(function() return peer.response("ok") end)
    local evil = "a\r\nX-Evil: 1"
    local here = debug.getinfo(1, "S").short_src
    for _, options in ipairs({
      { user_agent = evil },
      { headers = { A = evil } },
      { headers = { [evil] = "a" } },
      { body = "a", trailers = { A = evil } },
      { multipart = { { name = "a", value = "b", type = evil } } },
      { multipart = { { name = "a", value = "b", headers = { A = evil } } } },
      { multipart = { { name = "a", value = "b", headers = { [evil] = "b" } } } },
    }) do
      local ok, err = pcall(function() return (http.post(server.url, options)) end)
      test.falsy(ok)
      test.matches(tostring(err), "^%S+http_hostile_test%.lua:%d+: http[.post]*: ")
    end
    test.raises("^http.client: ", http.client, { user_agent = evil })
    test.equal(#server.requests, 0, here)
    assert(http.post(server.url, { multipart = { { name = evil, filename = evil, value = "b" } } }))
    assert(http.get(server.url .. "/" .. evil, { query = { [evil] = evil } }))
    for _, request in ipairs(server.requests) do
      test.equal(request.headers["X-Evil"], nil)
      test.falsy(request.body:find("\nX-Evil", 1, true))
    end
  end,
}

local servers = {
  ["an answer of any status to half an upload is the answer, when the server ends there"] = function()
    for _, status in ipairs({ "200 OK", "413 Too Large" }) do
      local server = says(("HTTP/1.1 %s\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbye"):format(status))
      local client = http.client()
      local answer = assert(client:post(server.url, { body = ("x"):rep(10000000) }))
      test.equal({ answer.status, answer.body }, { tonumber(status:match("%d+")), "bye" })
      test.equal({ client:connections() }, { 0, 0 })
    end
  end,

  ["an answer that is here before its connection is reset is not lost to the reset"] = function()
    local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local closed
    cosocket.spawn("server", function()
      while true do
        local stream = listener:accept()
        if not stream then return end
        stream:read_until("\r\n\r\n")
        stream:write("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        stream:flush()
        -- With what was not read of the body: that is a reset.
        stream:close()
        closed:set()
      end
    end)
    local client = require("http").client()
    for _ = 1, 20 do
      closed = cosocket.event()
      local count = 0
      local answer = assert(client:post("http://" .. listener:local_address(), { body = function()
        count = count + 1
        -- The client goes on before it has looked what has come.
        if count > 1 then closed:wait() end
        return count < 40 and ("x"):rep(65536) or nil
      end }))
      test.equal({ answer.status, answer.body }, { 413, "big" })
    end
    listener:close()
  end,

  ["an id that no field can hold is an event's, and not told to the server"] = function()
    local asked = {}
    local server = peer.serve(function(request)
      asked[#asked + 1] = request.headers["Last-Event-ID"] or false
      local id = ({ "a\1b", "7", ("x"):rep(5000) })[#asked]
      return peer.response(id and ("id: %s\ndata: x\n\n"):format(id) or "", "Content-Type: text/event-stream\r\n",
        id and "200 OK" or "204 No Content")
    end)
    local ids = {}
    for event in http.events(server.url, { retry_delay = 0 }) do ids[#ids + 1] = event.id end
    test.equal(ids, { "a\1b", "7", ("x"):rep(5000) })
    test.equal(asked, { false, false, "7", false })
    test.raises("last_event_id", http.events, server.url, { last_event_id = "a\1" })
  end,

  ["a long line that comes byte by byte takes time as its length does"] = function()
    local parser = require("http.sse").parser()
    local began = os.clock()
    assert(parser:feed("data: "))
    for _ = 1, 300000 do assert(parser:feed("x")) end
    test.equal(#assert(parser:feed("\n\n"))[1].data, 300000)
    -- Joined anew with each byte, they take some ten seconds.
    test.truthy(os.clock() - began < 3, os.clock() - began)
  end,

  ["a server that wants to be asked again at once is asked ten times a second"] = function()
    local count = 0
    local server = peer.serve(function()
      count = count + 1
      return peer.response("retry: 0\ndata\n\n", "Content-Type: text/event-stream\r\nConnection: close\r\n")
    end)
    local events = http.events(server.url)
    cosocket.deadline(10, function() while true do events:next() end end)
    events:close()
    test.truthy(count >= 90 and count <= 101, count)
  end,

  ["who waits for a place is not passed over by those who come later"] = function()
    local server = peer.serve(function(request)
      cosocket.sleep(1)
      request.stream:write(peer.response("x", "Connection: close\r\n"))
      return nil
    end)
    local client = http.client({ connections_max = 1 })
    local greedy, order = 0, {}
    local task = cosocket.spawn(function()
      while true do
        assert(client:get(server.url, { timeout = 1000 }))
        greedy = greedy + 1
      end
    end)
    cosocket.sleep(0.5)
    for i = 1, 3 do
      cosocket.spawn(function()
        assert(client:get(server.url, { timeout = 1000 }))
        order[#order + 1] = { i, greedy }
      end)
    end
    cosocket.sleep(20)
    task:cancel()
    test.equal(order, { { 1, 1 }, { 2, 1 }, { 3, 1 } })
  end,

  ["places that come free together are taken together"] = function()
    local server = peer.serve(function(request)
      if request.target == "/slow" then cosocket.sleep(10) end
      request.stream:write(peer.response("x", "Connection: close\r\n"))
      return nil
    end)
    local client = http.client({ connections_max = 4 })
    for _ = 1, 4 do cosocket.spawn(function() assert(client:get(server.url .. "/slow", { timeout = 1000 })) end) end
    cosocket.sleep(1)
    local done = {}
    for i = 1, 4 do
      cosocket.spawn(function()
        assert(client:get(server.url .. "/slow"))
        done[i] = cosocket.now()
      end)
    end
    local began = cosocket.now()
    cosocket.sleep(25)
    for i = 1, 4 do test.near(done[i] - began, 19, 0.1) end
  end,
}

local places = {
  ["the place of a task that was cancelled is not waited for"] = function()
    local server = peer.serve(function(request)
      if request.target == "/never" then cosocket.sleep(1000) end
      return peer.response("x")
    end)
    local client = http.client({ connections_max = 1 })
    local task = cosocket.spawn(function() client:get(server.url .. "/never", { timeout = 1000, idle_timeout = 1000 }) end)
    cosocket.sleep(1)
    local took = {}
    for i = 1, 3 do
      cosocket.spawn(function()
        local began = cosocket.now()
        assert(client:get(server.url))
        took[i] = cosocket.now() - began
      end)
    end
    cosocket.sleep(0.95)
    task:cancel()
    cosocket.sleep(1)
    for i = 1, 3 do test.near(took[i], 1, 0.1) end
  end,

  ["wherever a request is cancelled or out of time, no answer goes to another and no place is lost"] = function()
    local random = test.random()
    local function pick(list) return list[random(1, #list)] end
    local function pause() if random(1, 3) == 1 then cosocket.sleep(random(0, 50) / 1000) end end
    local server = peer.serve(function(request)
      local id = request.headers["X-Id"]
      local text = id .. ":" .. #request.body .. ":" .. ("x"):rep(random(0, 3) * 1000)
      pause()
      if request.target == "/redirect" then return peer.response("moved", "Location: /end\r\n", "307 Moved") end
      if random(1, 15) == 1 then return nil end
      local bytes
      if random(1, 2) == 1 then
        bytes = peer.response(text)
      else
        bytes = ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"):format(#text, text)
      end
      local at = 1
      while at <= #bytes do
        local size = random(1, #bytes)
        if not request.stream:write(bytes:sub(at, at + size - 1)) then return nil end
        request.stream:flush()
        at = at + size
        pause()
      end
      return false
    end)
    local client = http.client({ connections_max = 8, timeout = 5 })
    local tasks, done, wrong = {}, 0, 0
    for i = 1, 300 do
      tasks[i] = cosocket.spawn(function()
        cosocket.sleep(random(0, 2000) / 1000)
        local id = ("id%d"):format(i)
        local body = pick({ false, "short", ("y"):rep(200000) })
        local options = { headers = { ["X-Id"] = id }, stream = pick({ true, false }), body = body or nil }
        if body then options.expect = pick({ 0.02, false }) end
        if body and random(1, 2) == 1 then
          local sent = 0
          options.body = function()
            if sent >= #body then return nil end
            pause()
            local piece = body:sub(sent + 1, sent + 50000)
            sent = sent + #piece
            return piece
          end
        end
        local function run()
          local method = body and pick({ "POST", "PUT" }) or pick({ "GET", "DELETE" })
          local answer = client:request(method, server.url .. pick({ "/", "/redirect" }), options)
          if not answer then return end
          local text = options.stream and answer:read_all() or answer.body
          if text and text:match("^id%d+") ~= id then wrong = wrong + 1 end
          if text then done = done + 1 end
        end
        if random(1, 3) == 1 then cosocket.deadline(random(0, 100) / 1000, run) else run() end
      end)
    end
    for i = 1, 150 do
      cosocket.sleep(0.015)
      if random(1, 2) == 1 then tasks[random(1, #tasks)]:cancel() end
    end
    for _, task in ipairs(tasks) do pcall(task.join, task) end
    test.equal(wrong, 0)
    test.truthy(done > 100, done)
    collectgarbage() collectgarbage()
    local busy, idle = client:connections()
    test.equal(busy, 0)
    test.truthy(idle <= 8)
    for _ = 1, 8 do
      local answer = client:get(server.url, { headers = { ["X-Id"] = "last" } })
      if answer then test.matches(answer.body, "^last:0:") end
    end
    client:close()
    cosocket.sleep(1)
    collectgarbage() collectgarbage()
    cosocket.sleep(1)
    test.equal(server.open, 0)
  end,
}

local all = {}
for _, part in ipairs({ secrets, servers, places }) do
  for name, fn in pairs(part) do all[name] = fn end
end
return all
