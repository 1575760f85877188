-- HTTP through a network that fails: nginx and h11 behind the fault proxy.

local cosocket = require("cosocket")
local http = require("http")
local proxy = require("conformance.faults.proxy")
local test = require("test")
local timed = require("conformance.faults.timed")
local web = require("conformance.http.web")

local CA = { ca = web.certificate("ca") }
--- Seconds that who waits is willing to, and how much later it may know.
local PATIENCE, SLACK = 0.5, 0.8
--- Bytes of the file that is too large to be on its way at once, and what may be held of it.
local BIG, HELD_MAX = 32 * 1048576, 12 * 1048576
--- Memory in KiB that may come along with it.
local GROWTH_MAX = 8 * 1024

local OK = "HTTP/1.1 200 OK\r\n"

--- A client that keeps nothing between cases, and a URL that leads through a proxy.
local function through(url, options, client_options)
  local way = proxy.start(url, options)
  return http.client(client_options), way
end

--- How many bytes an answer has: those that pass when all is well.
local function size_of(url)
  local client <close>, way = through(url)
  assert(client:get(way.url))
  return way.passed.down
end

--- A GET by itself; what becomes of it when the answer has this fault.
local function get(url, down, options)
  local client <close>, way = through(url, { down = down }, options)
  return client:get(way.url)
end

--- That a stall after `after` bytes ends in time, and the connection with it.
local function stalls(url, after)
  local client <close>, way = through(url, {
    connection = function(number) return number == 1 and { down = { after = after, fault = "stall" } } or {} end,
  }, { timeout = PATIENCE })
  local took, answer, err = timed(client.get, client, way.url)
  test.fails("timeout", answer, err)
  test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
  test.equal({ client:connections() }, { 0, 0 })
  test.equal(assert(client:get(way.url)).status, 200)
  test.equal(way.connections, 2)
end

local function read_file(path)
  local text = web.read(path)
  os.remove(path)
  return text
end

local function settle()
  for _ = 1, 2 do collectgarbage() end
end

return {
  ["[RFC 9112 2.2] an answer in slices of any size is the same answer, with a length, in chunks and compressed"] = function()
    for _, path in ipairs({ "/small.txt", "/gzip/small.txt" }) do
      local whole = assert(http.get(web.url("nginx", path)))
      for _, slice in ipairs({ 1, 2, 3, 7, 64 }) do
        local answer = assert(get(web.url("nginx", path), { slice = slice }))
        test.equal({ answer.status, answer.body, answer.headers.ETag }, { whole.status, whole.body, whole.headers.ETag })
      end
    end
    local page = assert(http.get(web.url("nginx", "/page.html"))).body
    assert(assert(get(web.url("nginx", "/gzip/page.html"), { slice = 5 })).body == page, "another page")
  end,

  ["[RFC 9112 2.2] a request in slices of one byte is the same request"] = function()
    local client <close>, way = through(web.url("strict", "/seen?a=b"), { up = { slice = 1 } })
    local seen = assert(client:post(way.url, { body = "the body", headers = { ["X-Own"] = "1" } })):json()
    test.equal({ seen.method, seen.target, seen.body }, { "POST", "/seen?a=b", "the body" })
  end,

  ["[RFC 9112 9.3] with latency and jitter each answer is its own request's"] = function()
    local client <close>, way = through(web.url("strict", "/echo"), {
      up = { latency = 0.05, jitter = 0.05 },
      down = { latency = 0.05, jitter = 0.05, slice = 100 },
    }, { connections_max = 8 })
    local tasks = {}
    for i = 1, 40 do
      local body = ("%d "):format(i):rep(100)
      tasks[i] = cosocket.spawn(function() test.equal(assert(client:post(way.url, { body = body })).body, body) end)
    end
    for _, task in ipairs(tasks) do task:join() end
    test.truthy(way.connections <= 8, way.connections)
  end,

  ["a server that stalls before, in or after the head, or in the body, is a timeout, and its connection is not used again"] = function()
    local url = web.url("nginx", "/page.html")
    for _, after in ipairs({ 0, 1, 20, 300, 100000 }) do stalls(url, after) end
  end,

  ["a way that loses the answer, or the request, is a timeout, and its connection is not used again"] = function()
    for _, direction in ipairs({ "up", "down" }) do
      local client <close>, way = through(web.url("nginx", "/small.txt"), nil, { timeout = PATIENCE })
      assert(client:get(way.url))
      way:lose(direction)
      local took, answer, err = timed(client.get, client, way.url)
      test.fails("timeout", answer, err)
      test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
      way:resume()
      test.equal(assert(client:get(way.url)).body, "small\n")
      test.equal(way.connections, 2)
    end
  end,

  ["a trickle that never stops does not outlive the timeout"] = function()
    local took, answer, err = timed(get, web.url("nginx", "/page.html"), { slice = 1, pause = 0.02 }, { timeout = PATIENCE })
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
  end,

  ["a body that pauses for less than the idle timeout comes whole, one that pauses longer does not"] = function()
    local url = web.url("nginx", "/page.html")
    local page = assert(http.get(url)).body
    local slow = { slice = 60000, pause = 0.3 }
    assert(assert(get(url, slow, { idle_timeout = 1 })).body == page)
    test.fails("timeout", get(url, slow, { idle_timeout = 0.1 }))
  end,

  ["[RFC 9112 8] an answer that ends after any byte is an error, never a short success"] = function()
    for _, path in ipairs({ "/small.txt", "/gzip/small.txt" }) do
      local url = web.url("nginx", path)
      local whole = size_of(url)
      assert(get(url, { after = whole, fault = "end" }))
      for after = 0, whole - 1 do
        local answer, err = get(url, { after = after, fault = "end" })
        if answer then error(("after %d of %d bytes: %d, %q"):format(after, whole, answer.status, answer.body)) end
        test.fails("closed", answer, err)
      end
    end
  end,

  ["[RFC 9112 8] an answer that is reset after any byte is an error"] = function()
    local url = web.url("nginx", "/small.txt")
    for after = 0, size_of(url) - 1 do test.fails("closed", get(url, { after = after, fault = "reset" })) end
  end,

  ["[RFC 9112 6.3] a body that ends with its connection is whole after an end, and not after a reset"] = function()
    local url = web.odd(OK .. "\r\nuntil the end")
    test.equal(assert(get(url, { slice = 1 })).body, "until the end")
    local whole = size_of(url)
    for after = #OK + 2, whole - 1 do
      test.equal(test.fails("closed", get(url, { after = after, fault = "reset" })).code, "ECONNRESET")
    end
  end,

  ["[RFC 9110 14] a download that is reset, cut and stalled in the middle goes on where it was"] = function()
    local url = web.url("nginx", "/page.html")
    local page = assert(http.get(url)).body
    local faults = { "reset", "end", "cut", "stall", "reset" }
    local client <close>, way = through(url, {
      connection = function(number)
        return { down = faults[number] and { after = 30000, fault = faults[number] } or nil }
      end,
    }, { idle_timeout = PATIENCE })
    local path = os.tmpname()
    local saved = assert(client:save(way.url, path, { retry_delay = 0.01 }))
    assert(read_file(path) == page, "another page")
    test.equal({ saved.size, saved.attempts, way.connections }, { #page, 6, 6 })
    test.truthy(saved.resumed > 140000, saved.resumed)
  end,

  ["[RFC 9110 14] a download goes on after handshakes of TLS that are cut and reset"] = function()
    local url = web.secure_url("tls", "/page.html")
    local page = assert(http.get(web.url("nginx", "/page.html"))).body
    local plans = { { after = 60000, fault = "reset" }, { after = 50, fault = "reset" }, { after = 50, fault = "end" } }
    local client <close>, way = through(url, {
      connection = function(number) return { down = plans[number] } end,
    }, { tls = CA })
    local path = os.tmpname()
    local saved = assert(client:save(way.url, path, { retry_delay = 0.01 }))
    assert(read_file(path) == page, "another page")
    test.equal({ saved.attempts, way.connections }, { 4, 4 })
  end,

  ["[RFC 9110 14] the rest of a streamed answer that is reset is fetched by response:save"] = function()
    local url = web.url("nginx", "/page.html")
    local page = assert(http.get(url)).body
    local client <close>, way = through(url, {
      connection = function(number) return { down = number == 1 and { after = 100000, fault = "reset" } or nil } end,
    })
    local path = os.tmpname()
    local answer = assert(client:get(way.url, { stream = true }))
    local saved = assert(answer:save(path, { retry_delay = 0.01 }))
    assert(read_file(path) == page, "another page")
    test.equal(saved.attempts, 2)
  end,

  ["a download whose every attempt brings nothing is given up with the reason"] = function()
    local client <close>, way = through(web.url("nginx", "/page.html"), { accept = "reset" })
    local path = os.tmpname()
    local saved, err = client:save(way.url, path, { retry_delay = 0.01, attempts = 3 })
    test.fails("closed", saved, err)
    test.equal(way.connections, 3)
    os.remove(path)
    os.remove(path .. ".part")
    os.remove(path .. ".part.info")
  end,

  ["[RFC 9110 9.2.2] GET is sent again when a kept connection turns out dead, POST is not"] = function()
    for method, times in pairs({ GET = 2, POST = 1 }) do
      local client <close>, way = through(web.url("strict", "/echo"), {
        -- The second request of the first connection ends it unanswered.
        connection = function(number) return number == 1 and {} or nil end,
        inspect = function(message, direction, number)
          if direction == "up" and number == 1 and message:find("second", 1, true) then return "reset" end
        end,
      })
      assert(client:request(method, way.url))
      local answer, err = client:request(method, way.url, { headers = { ["X-Which"] = "second" } })
      if method == "GET" then
        test.equal(assert(answer, err).status, 200)
      else
        test.fails("closed", answer, err)
      end
      test.equal(way.connections, times, method)
    end
  end,

  ["a connection that was reset while idle is noticed before a request goes out"] = function()
    local client <close>, way = through(web.url("strict", "/echo"))
    for i = 1, 3 do
      test.equal(assert(client:post(way.url, { body = tostring(i) })).body, tostring(i))
      way:reset()
      cosocket.sleep(0.02)
    end
    test.equal(way.connections, 3)
  end,

  ["a refused connection says whose address refused"] = function()
    local url = proxy.refused(web.url("nginx"))
    local took, answer, err = timed(http.get, url)
    test.fails("connect", answer, err)
    test.equal(err.code, "ECONNREFUSED")
    assert(tostring(err):find(url:match("//([^/]+)"), 1, true), tostring(err))
    test.truthy(took < SLACK, took)
  end,

  ["a server that accepts and never answers is a timeout, with TLS as well"] = function()
    local client <close>, way = through(web.url("nginx"), { accept = "silent" }, { timeout = PATIENCE })
    local took, answer, err = timed(client.get, client, way.url)
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
    local secure <close>, behind = through(web.secure_url("tls"), { accept = "silent" }, { connect_timeout = PATIENCE, tls = CA })
    took, answer, err = timed(secure.get, secure, behind.url)
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
  end,

  ["a TLS handshake that stalls after any flight is a timeout, one that ends or is reset is an error of TLS"] = function()
    local url = web.secure_url("tls", "/small.txt")
    for _, direction in ipairs({ "up", "down" }) do
      for _, after in ipairs({ 0, 1, 5, 100 }) do
        for fault, kind in pairs({ stall = "timeout", lose = "timeout", ["end"] = "tls", cut = "tls", reset = "tls" }) do
          local client <close>, way = through(url, { [direction] = { after = after, fault = fault } }, { connect_timeout = 0.15, tls = CA })
          local took, answer, err = timed(client.get, client, way.url, { timeout = 2 })
          if answer or err.kind ~= kind then error(("%s after %d %s: %s"):format(fault, after, direction, err or answer.status)) end
          test.truthy(took < 0.15 + SLACK, took)
        end
      end
    end
  end,

  ["[RFC 8446 6.1] under TLS a body that ends with its connection is cut without close_notify"] = function()
    local listener <close> = assert(cosocket.listen("tls://127.0.0.1:0", {
      tls = { certificate = web.certificate("server"), key = web.key("server") },
    }))
    cosocket.spawn("server", function()
      while true do
        local stream = listener:accept()
        if not stream then return end
        stream:read_until("\r\n\r\n")
        stream:write(OK, "\r\nuntil the end")
        stream:close()
      end
    end)
    local url = "https://localhost:" .. listener:local_address():match("%d+$")
    local whole
    -- From the second on, handshakes are shorter: they resume a session (RFC 8446, 2.2).
    for _ = 1, 2 do
      local client <close>, way = through(url, nil, { tls = CA })
      test.equal(assert(client:get(way.url)).body, "until the end")
      whole = way.passed.down
    end
    -- close_notify has 24 bytes (RFC 8446, 5.2), and the body comes before.
    for _, less in ipairs({ 1, 12, 24, 30 }) do
      local one <close>, cut = through(url, { down = { after = whole - less, fault = "end" } }, { tls = CA })
      local answer, err = one:get(cut.url)
      if answer then error(("%d bytes less: %q"):format(less, answer.body)) end
      test.truthy(err.kind == "closed" or err.kind == "tls", tostring(err))
    end
  end,

  ["a slow way holds a large request back, and memory does not grow"] = function()
    local client <close>, way = through(web.url("strict", "/echo"), { up = { bandwidth = 4 * 1048576 } })
    local piece, given, size = ("x"):rep(65536), 0, 6 * 1048576
    settle()
    local _, before = web.memory()
    local most = 0
    local answer = assert(client:post(way.url, {
      length = size,
      body = function()
        if given == size then return nil end
        given = given + #piece
        -- What waits anywhere in this process: all that was given and has not gone on.
        most = math.max(most, given - way.passed.up)
        return piece
      end,
    }))
    test.equal(#answer.body, size)
    -- The system's own buffers of two sockets hold the most of it.
    local _, after = web.memory()
    test.truthy(most < HELD_MAX, most)
    -- The answer is a string of that size; reading it takes as much again.
    test.truthy(after - before < GROWTH_MAX + 4 * size // 1024, after - before)
  end,

  ["an answer that nobody reads is held back, and memory does not grow"] = function()
    local path = web.folder .. "/www/faults.bin"
    local file = assert(io.open(path, "wb"))
    file:seek("set", BIG - 1)
    file:write("x")
    file:close()
    local client <close>, way = through(web.url("nginx", "/faults.bin"))
    settle()
    local _, before = web.memory()
    local answer = assert(client:get(way.url, { stream = true }))
    local got = 0
    for _ = 1, 10 do
      got = got + #assert(answer:read())
      cosocket.sleep(0.02)
    end
    os.remove(path)
    local _, after = web.memory()
    test.truthy(way.passed.down - got < HELD_MAX, way.passed.down)
    test.truthy(after - before < GROWTH_MAX, after - before)
    for piece in answer:chunks() do got = got + #piece end
    test.equal(got, BIG)
  end,

  ["whatever happens at whatever place, requests end in time with an answer or an error, and nothing is left"] = function()
    local random = test.random()
    local faults = { "stall", "lose", "end", "cut", "reset" }
    local page = assert(http.get(web.url("nginx", "/page.html"))).body
    local function round(count)
      local client <close>, way = through(web.url("nginx", "/page.html"), {
        connection = function()
          local plan = { accept = random(20) == 1 and random:pick({ "silent", "cut", "reset" }) or nil }
          local one = { slice = random(2) == 1 and random(3000, 30000) or nil, jitter = random(2) == 1 and 0.01 or nil }
          if random(4) > 1 then one.after, one.fault = random(0, 200000), random:pick(faults) end
          plan[random:pick({ "up", "down" })] = one
          return plan
        end,
      }, { timeout = 1.5, connections_max = 50 })
      local good, kinds, tasks = 0, {}, {}
      for i = 1, count do
        tasks[i] = cosocket.spawn(function()
          local took, answer, err = timed(client.get, client, way.url)
          test.truthy(took < 3, took)
          if answer then
            assert(answer.body == page, "a short or a wrong body")
            good = good + 1
          else
            kinds[err.kind] = (kinds[err.kind] or 0) + 1
            test.truthy(err.kind == "timeout" or err.kind == "closed", tostring(err))
          end
        end)
      end
      for _, task in ipairs(tasks) do task:join() end
      local busy = client:connections()
      test.equal(busy, 0)
      way:refuse()
      return good
    end
    round(20)
    settle()
    local descriptors = web.descriptors()
    test.truthy(round(150) > 10)
    settle()
    local patience = cosocket.now() + 5
    while web.descriptors() > descriptors and cosocket.now() < patience do cosocket.sleep(0.05) end
    test.equal(web.descriptors(), descriptors)
  end,
}
