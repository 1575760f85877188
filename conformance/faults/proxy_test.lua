-- The fault proxy itself, between two ends of ours, on a clock that jumps.
-- clock: virtual

local cosocket = require("cosocket")
local proxy = require("conformance.faults.proxy")
local test = require("test")

--- Two ends with a proxy between them. `near` is the client's.
---@param options? faults.Options
---@return cosocket.Stream near
---@return cosocket.Stream far
---@return faults.Proxy way
---@return fun(): cosocket.Stream, cosocket.Stream again Makes one more connection.
local function through(options)
  local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
  local way = proxy.start("tcp://" .. listener:local_address(), options)
  local function connect()
    local near = assert(cosocket.connect(way.url))
    return near, (assert(listener:accept()))
  end
  local near, far = connect()
  return near, far, way, connect
end

---@param stream cosocket.Stream
---@param bytes string
local function send(stream, bytes)
  assert(stream:write(bytes))
  assert(stream:flush())
end

--- What comes in pieces, each with the time since `began`, until the end.
local function pieces(stream, began)
  local all = {}
  while true do
    local data, err = stream:read()
    if not data then return all, err end
    all[#all + 1] = { data, cosocket.now() - began }
  end
end

local function fails_as(kind, code, value, err)
  test.equal(test.fails(kind, value, err).code, code)
end

return {
  ["without faults bytes pass as they are, and each direction ends for itself"] = function()
    local near, far = through()
    send(near, "question")
    near:shutdown()
    test.equal(far:read_all(), "question")
    send(far, "answer")
    far:close()
    test.equal(near:read_all(), "answer")
  end,
  ["a mebibyte passes unchanged both ways"] = function()
    local near, far = through()
    local bytes = test.random():bytes(1048576)
    cosocket.spawn(function()
      near:write(bytes)
      near:shutdown()
    end)
    cosocket.spawn(function()
      far:write(bytes)
      far:shutdown()
    end)
    local there = cosocket.spawn(far.read_all, far)
    assert(near:read_all() == bytes and there:join() == bytes)
  end,
  ["a reset passes as a reset"] = function()
    local near, far = through()
    far:reset()
    fails_as("closed", "ECONNRESET", near:read())
    near, far = through()
    near:reset()
    fails_as("closed", "ECONNRESET", far:read())
  end,
  ["latency delays every piece, and the end"] = function()
    local near, far = through({ up = { latency = 0.5 } })
    local began = cosocket.now()
    send(near, "one")
    cosocket.sleep(0.1)
    send(near, "two")
    cosocket.sleep(0.1)
    near:shutdown()
    local got = pieces(far, began)
    test.equal({ got[1][1], got[2][1], #got }, { "one", "two", 2 })
    test.near(got[1][2], 0.5, 0.02)
    test.near(got[2][2], 0.6, 0.02)
    test.near(cosocket.now() - began, 0.7, 0.02)
  end,
  ["jitter delays at random, keeps the order, and is repeated by a seed"] = function()
    local function times()
      local near, far = through({ down = { jitter = 1 }, random = test.random(7) })
      cosocket.spawn(function()
        for i = 1, 20 do
          send(far, ("%02d"):format(i))
          cosocket.sleep(0.01)
        end
        far:shutdown()
      end)
      local began = cosocket.now()
      local got, text = pieces(near, began), {}
      for i, piece in ipairs(got) do
        text[i] = piece[1]
        got[i] = piece[2]
      end
      test.equal(table.concat(text), "0102030405060708091011121314151617181920")
      return got
    end
    local one, other = times(), times()
    assert(one[#one] > 0.5 and one[#one] < 1.3, one[#one])
    test.equal(#one, #other)
    for i = 1, #one do test.near(one[i], other[i], 0.02) end
  end,
  ["bandwidth is what it says"] = function()
    local near, far = through({ down = { bandwidth = 100000 } })
    cosocket.spawn(function()
      far:write(("x"):rep(200000))
      far:shutdown()
    end)
    local began = cosocket.now()
    test.equal(#near:read_all(), 200000)
    test.near(cosocket.now() - began, 2, 0.1)
  end,
  ["slices come one by one"] = function()
    local near, far = through({ up = { slice = 3, pause = 0.1 } })
    local began = cosocket.now()
    send(near, "12345678")
    near:shutdown()
    local got = pieces(far, began)
    test.equal({ got[1][1], got[2][1], got[3][1], #got }, { "123", "456", "78", 3 })
    test.near(got[3][2], 0.2, 0.02)
  end,
  ["a stall holds back what comes after its place, until it is over"] = function()
    local near, far, way = through({ down = { after = 4, fault = "stall" } })
    send(far, "12345678")
    test.equal(near:read(), "1234")
    test.fails("timeout", cosocket.deadline(60, near.read, near))
    send(near, "up")
    test.equal(far:read(), "up")
    way:resume()
    test.equal(near:read(), "5678")
    far:close()
    test.equal(near:read_all(), "")
  end,
  ["a stalled sender is held back by full buffers"] = function()
    local near, far = through({ up = { fault = "stall" } })
    local sent = 0
    test.fails("timeout", cosocket.deadline(5, function()
      while true do
        local ok, err = near:write(("x"):rep(65536))
        if not ok then return nil, err end
        sent = sent + 65536
      end
    end))
    assert(sent < 64 * 1048576, sent)
    test.fails("timeout", cosocket.deadline(1, far.read, far))
  end,
  ["what is lost is lost without a word, its end included"] = function()
    local near, far = through({ up = { after = 4, fault = "lose" } })
    send(near, "12345678")
    test.equal(far:read(), "1234")
    send(far, "still heard")
    test.equal(near:read(), "still heard")
    near:close()
    test.fails("timeout", cosocket.deadline(60, far.read, far))
  end,
  ["a direction that ends early ends alone, and short"] = function()
    local near, far = through({ down = { after = 4, fault = "end" } })
    send(far, "12345678")
    test.equal(near:read_all(), "1234")
    send(near, "still heard")
    test.equal(far:read(), "still heard")
  end,
  ["a cut ends both sides after its place"] = function()
    local near, far = through({ up = { after = 4, fault = "cut" } })
    send(near, "12345678")
    test.equal(far:read_all(), "1234")
    test.equal(near:read_all(), "")
  end,
  ["a reset comes to both sides after its place"] = function()
    local near, far = through({ up = { after = 4, fault = "reset" } })
    send(near, "1234")
    fails_as("closed", "ECONNRESET", near:read())
    far:read()
    fails_as("closed", "ECONNRESET", far:read())
  end,
  ["a fault at once does not wait for the first byte"] = function()
    local near = through({ down = { fault = "reset" } })
    fails_as("closed", "ECONNRESET", near:read())
    near = through({ down = { fault = "end" } })
    test.equal(near:read_all(), "")
  end,
  ["faults find their place among slices, with latency too"] = function()
    for after = 0, 8 do
      local near, far = through({ down = { after = after, fault = "end", slice = 3, latency = 0.1 } })
      send(far, "12345678")
      test.equal(near:read_all(), ("12345678"):sub(1, after))
    end
  end,
  ["connections may differ, one from another"] = function()
    local near, _, way, again = through({
      connection = function(number) return number == 1 and { down = { fault = "end" } } or {} end,
    })
    test.equal(near:read_all(), "")
    local one, other = again()
    send(other, "fine")
    test.equal(one:read(), "fine")
    test.equal(way.connections, 2)
  end,
  ["a refused connection is refused by the system, and admitted later by the same address"] = function()
    local near, _, way, again = through()
    way:refuse()
    test.equal(near:read_all(), "")
    local err = test.fails("connect", cosocket.connect(way.url))
    test.equal(err.code, "ECONNREFUSED")
    test.matches(err.message, way.address:gsub("%.", "%%."))
    way:admit()
    local one, other = again()
    send(one, "hello")
    test.equal(other:read(), "hello")
  end,
  ["what is accepted may stay without an answer, be ended or reset"] = function()
    local way = proxy.start("tcp://127.0.0.1:1", { accept = "silent" })
    local near = assert(cosocket.connect(way.url))
    test.fails("timeout", cosocket.deadline(3600, near.read, near))
    way:interrupt()
    test.equal(near:read_all(), "")
    way.accept = "cut"
    test.equal(assert(cosocket.connect(way.url)):read_all(), "")
    way.accept = "reset"
    fails_as("closed", "ECONNRESET", assert(cosocket.connect(way.url)):read())
    -- Nobody is behind it.
    way.accept = "serve"
    fails_as("closed", "ECONNRESET", assert(cosocket.connect(way.url)):read())
  end,
  ["messages are seen whole, dropped, and bring faults before or after them"] = function()
    local seen = {}
    local near, far = through({
      take = function(buffer)
        local line = buffer:line()
        return line and line .. "\n"
      end,
      inspect = function(line, direction)
        seen[#seen + 1] = direction .. " " .. line
        if line == "drop\n" then return "drop" end
        if line == "last\n" then return "end", true end
      end,
    })
    for _, part in ipairs({ "o", "ne\ndr", "op\ntwo\nla", "st\nmore\n" }) do
      send(near, part)
      cosocket.sleep(0.01)
    end
    test.equal(far:read_all(), "one\ntwo\nlast\n")
    test.equal(seen, { "up one\n", "up drop\n", "up two\n", "up last\n" })
    near, far = through({
      inspect = function(data) return data == "bad" and "reset" or nil end,
    })
    send(near, "good")
    test.equal(far:read(), "good")
    send(near, "bad")
    fails_as("closed", "ECONNRESET", far:read())
  end,
  ["losing and stalling can begin at any time, for connections to come as well"] = function()
    local near, far, way, again = through()
    way:stall("down")
    send(far, "held")
    test.fails("timeout", cosocket.deadline(10, near.read, near))
    way:resume()
    test.equal(near:read(), "held")
    way:lose("up")
    local one, other = again()
    send(near, "lost")
    send(one, "lost")
    test.fails("timeout", cosocket.deadline(10, far.read, far))
    test.fails("timeout", cosocket.deadline(10, other.read, other))
    send(other, "down")
    test.equal(one:read(), "down")
    way:resume()
    one, other = again()
    send(one, "fine")
    test.equal(other:read(), "fine")
    -- A gap cannot be mended.
    send(near, "later")
    test.fails("timeout", cosocket.deadline(10, far.read, far))
  end,
  ["what it saw and passed is counted"] = function()
    local seen = {}
    local near, far, way = through({ on_data = function(data, direction, number) seen[#seen + 1] = { data, direction, number } end })
    send(near, "12345")
    test.equal(far:read(5), "12345")
    send(far, "678")
    test.equal(near:read(3), "678")
    test.equal(way.passed, { up = 5, down = 3 })
    test.equal(seen, { { "12345", "up", 1 }, { "678", "down", 1 } })
  end,
  ["its address is the server's with another port"] = function()
    local function url_of(where) return (proxy.start(where).url:gsub(":%d%d+", ":PORT")) end
    test.equal(url_of("mqtts://user:pass@localhost:8883"), "mqtts://user:pass@localhost:PORT")
    test.equal(url_of("http://127.0.0.1:80/a?b=c"), "http://127.0.0.1:PORT/a?b=c")
    test.equal(url_of("tcp://[::1]:8080"), "tcp://127.0.0.1:PORT")
  end,
  ["an address that nobody listens at is refused"] = function()
    test.equal(test.fails("connect", cosocket.connect(proxy.refused("tcp://127.0.0.1:1"))).code, "ECONNREFUSED")
  end,
  ["wrong plans are refused by name"] = function()
    test.raises("latncy", proxy.start, "tcp://127.0.0.1:1", { up = { latncy = 1 } })
    test.raises("no fault \"explode\"", proxy.start, "tcp://127.0.0.1:1", { down = { fault = "explode" } })
    test.raises("say which", proxy.start, "tcp://127.0.0.1:1", { down = { after = 1 } })
    test.raises("cannot be \"maybe\"", proxy.start, "tcp://127.0.0.1:1", { accept = "maybe" })
  end,
}
