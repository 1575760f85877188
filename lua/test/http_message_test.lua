local body = require("http.body")
local codec = require("http.codec")
local cosocket = require("cosocket")
local message = require("http.message")
local payload = require("http.payload")
local test = require("test")

--- A reader of what the other end of a stream sends.
---@param steps table[]
---@param length http.Length
---@param options? http.BodyOptions
---@param arrived? string What is in the input already.
---@return http.Reader reader
---@return cosocket.Buffer input
local function reader(steps, length, options, arrived)
  local input = cosocket.buffer(arrived)
  return body.reader(test.stream(steps), input, length, options), input
end

---@param from http.Reader
---@return string
local function all(from)
  local pieces = {}
  for piece in from:pieces() do
    assert(#piece > 0)
    pieces[#pieces + 1] = piece
  end
  return table.concat(pieces)
end

local heads = {
  ["a request that comes byte by byte is awaited"] = function()
    local stream = test.stream({ { send = "GET /x HTTP/1.1\r\nHost: h\r\n\r\nrest", cut = 1 } })
    local input, output = cosocket.buffer(), cosocket.buffer()
    local method, target, minor, headers, length, flags = message.next_request(stream, input, output)
    test.equal({ method, target, minor, #headers, length, flags }, { "GET", "/x", 1, 1, 0, codec.KEEP_ALIVE })
  end,

  ["what is to be sent leaves while an answer is awaited"] = function()
    local stream = test.stream({ { expect = "question" }, { send = "HTTP/1.1 204 Fine\r\n\r\nmore" } })
    local input, output = cosocket.buffer(), cosocket.buffer("question")
    local status, reason = message.next_response(stream, input, output, "GET")
    test.equal({ status, reason }, { 204, "Fine" })
    test.equal({ input:take(), #output }, { "more", 0 })
  end,

  ["interim responses are passed over, but not for ever"] = function()
    local interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    local stream = test.stream({ { send = interim .. "HTTP/1.1 200 OK\r\n\r\n" }, { send = ("HTTP/1.1 102 P\r\n\r\n"):rep(40) } })
    local input, output, seen = cosocket.buffer(), cosocket.buffer(), {}
    local function note(status, headers) seen[#seen + 1] = { status, headers:get("link") } end
    test.equal(message.final_response(stream, input, output, "GET", nil, nil, note), 200)
    test.equal(seen, { { 100 }, { 103, "x" } })
    test.fails("limit", message.final_response(stream, input, output, "GET"))
  end,

  ["101 is no interim response one may pass over"] = function()
    local stream = test.stream({ { send = "HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" } })
    local status, _, _, _, length = message.final_response(stream, cosocket.buffer(), cosocket.buffer(), "GET")
    test.equal({ status, length }, { 101, codec.TUNNEL })
  end,

  ["the end before a head and the end within one are told apart"] = function()
    local input, output = cosocket.buffer(), cosocket.buffer()
    local err = test.fails("closed", message.next_request(test.stream({ { close = true } }), input, output))
    test.matches(err.message, "closed the connection")
    err = test.fails("closed", message.next_request(test.stream({ { send = "GET" }, { close = true } }), input, output))
    test.matches(err.message, "middle of a head")
    input:clear()
    err = test.fails("closed", message.next_response(test.stream({ { send = "HTTP" }, { close = true } }), input, output, "GET"))
    test.matches(err.message, "middle of a head")
  end,

  ["a head that does not come in time is a timeout, and limits hold"] = function()
    local stream = test.stream({ { send = "GET / HT" }, { stall = 10 }, { send = "TP/1.1\r\nX: " .. ("x"):rep(100) } })
    local input, output = cosocket.buffer(), cosocket.buffer()
    test.fails("timeout", message.next_request(stream, input, output, nil, cosocket.now() + 5))
    test.equal(input:peek(), "GET / HT")
    local err = test.fails("limit", message.next_request(stream, input, output, { head_max = 60 }, cosocket.now() + 60))
    test.equal(err.code, 431)
  end,
}

local fixed = {
  ["a body of known length cut at any byte is one body"] = function()
    test.every_cut("hello world", function(first, second)
      local from, input = reader({ { send = second .. "next", cut = 3 } }, 11, nil, first)
      test.equal(all(from), "hello world")
      test.equal({ from.received, from.ended }, { 11, true })
      test.equal(from:read(), nil)
      test.equal(from:read_all(), "")
      -- What is not of the body has not been lost.
      while #input < 4 do assert(from.stream:fill(input)) end
      test.equal(input:take(), "next")
    end)
  end,

  ["all of a body is had at once"] = function()
    test.every_cut("hello world", function(first, second)
      local from, input = reader({ { send = second .. "next" } }, 11, nil, first)
      test.equal(from:read_all(), "hello world")
      test.equal(from.ended, true)
      while #input < 4 do assert(from.stream:fill(input)) end
      test.equal(input:take(), "next")
    end)
    test.equal(reader({}, 0):read_all(), "")
    test.equal(reader({}, codec.TUNNEL, nil, "ws"):read(), nil)
  end,

  ["a body that ends too early is an error, and says how much came"] = function()
    for _, how in ipairs({ "read_all", "read" }) do
      local from = reader({ { send = "hello" }, { close = true } }, 11)
      local value, err
      repeat value, err = from[how](from) until not value
      test.fails("closed", value, err)
      test.matches(err.message, "after 5 of 11 bytes")
      test.equal(from.ended, false)
      test.fails("closed", from:read())
      test.fails("closed", from:read_all())
    end
    local from = reader({ { send = "hello" }, { reset = true } }, 11)
    test.equal(from:read(), "hello")
    test.equal(test.fails("closed", from:read()).code, "ECONNRESET")
  end,

  ["a body larger than the limit is refused before it is read"] = function()
    local from = reader({}, 11, { size_max = 10 })
    test.fails("limit", from:read())
    test.fails("limit", from:read_all())
    test.fails("limit", reader({}, 11):read_all(10))
    test.equal(reader({}, 10, { size_max = 10 }, "0123456789"):read_all(10), "0123456789")
    -- Nobody allocates what is only promised.
    test.fails("limit", reader({}, math.maxinteger):read_all())
  end,

  ["a timeout takes nothing away"] = function()
    local from = reader({ { send = "hel" }, { stall = 10 }, { send = "lo" } }, 5, { timeout = 4 })
    test.equal(from:read(), "hel")
    test.fails("timeout", from:read())
    test.fails("timeout", from:read_all())
    cosocket.sleep(10)
    test.equal(from:read_all(), "lo")
  end,

  ["what somebody waits for is told once, and only when something is missing"] = function()
    local calls = 0
    local function on_wait()
      calls = calls + 1
      return true
    end
    test.equal(reader({}, 5, { on_wait = on_wait }, "hello"):read_all(), "hello")
    test.equal(calls, 0)
    local from = reader({ { send = "lo", cut = 1 } }, 5, { on_wait = on_wait }, "hel")
    test.equal(all(from), "hello")
    test.equal(calls, 1)
    from = reader({}, 5, { on_wait = function() return nil, cosocket.error("closed", "write", "gone") end })
    test.fails("closed", from:read())
  end,

  ["the rest of a body is dropped, if it is short"] = function()
    local from = reader({ { send = "lo" } }, 5, nil, "hel")
    test.equal(from:discard(5), true)
    test.fails("limit", reader({}, 6, nil, "hel"):discard(5))
    -- A client that waits for 100 has not sent anything, and may never do.
    test.fails("limit", reader({}, 5, { on_wait = function() error("told") end }):discard(100))
    test.equal(reader({}, codec.CHUNKED, nil, "3\r\nabc\r\n0\r\n\r\n"):discard(3), true)
    test.fails("limit", reader({}, codec.CHUNKED, nil, "4\r\nabcd\r\n1\r\nx\r\n0\r\n\r\n"):discard(3))
  end,
}

local BODY = "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n"

local chunked = {
  ["a chunked body cut at any byte is one body"] = function()
    test.every_cut(BODY, function(first, second)
      local from, input = reader({ { send = second .. "next" } }, codec.CHUNKED, nil, first)
      test.equal(all(from), "hello world")
      test.equal({ from.received, from.ended, from.trailers:get("x-sum") }, { 11, true, "11" })
      while #input < 4 do assert(from.stream:fill(input)) end
      test.equal(input:take(), "next")
    end)
  end,

  ["a long chunk is read past the buffer and means the same"] = function()
    -- Reads take 64 KiB at most: some of these chunks end in the middle of one.
    for size = 300000, 360000, 15000 do
      local bytes = test.random():bytes(size)
      local wire = ("%x\r\n%s\r\n3\r\nend\r\n0\r\n\r\nnext"):format(#bytes, bytes)
      local from, input = reader({ { send = wire } }, codec.CHUNKED)
      assert(all(from) == bytes .. "end")
      test.equal(input:take(), "next")
      from = reader({ { send = wire } }, codec.CHUNKED)
      assert(from:read_all() == bytes .. "end")
    end
  end,

  ["a chunked body that ends too early or is damaged is an error"] = function()
    for cut = 0, #BODY - 1 do
      local from = reader({ { send = BODY:sub(1, cut) }, { close = true } }, codec.CHUNKED)
      test.fails("closed", from:read_all())
      test.equal(from.ended, false)
    end
    local from = reader({ { send = "5\r\nhello!\r\n" } }, codec.CHUNKED)
    test.fails("protocol", from:read_all())
    test.fails("protocol", from:read())
  end,

  ["a chunked body larger than the limit is refused when it is"] = function()
    test.equal(reader({ { send = BODY } }, codec.CHUNKED, { size_max = 11 }):read_all(), "hello world")
    test.fails("limit", reader({ { send = BODY } }, codec.CHUNKED, { size_max = 10 }):read_all())
    test.fails("limit", reader({ { send = BODY } }, codec.CHUNKED):read_all(10))
    test.fails("limit", reader({ { send = BODY } }, codec.CHUNKED, { trailers_size_max = 5 }):read_all())
    test.fails("limit", reader({ { send = BODY } }, codec.CHUNKED, { trailers_max = 0 }):read_all())
  end,
}

local until_close = {
  ["a body without a length ends with its connection"] = function()
    local from = reader({ { send = "lo world", cut = 1 }, { close = true } }, codec.UNTIL_CLOSE, nil, "hel")
    test.equal(all(from), "hello world")
    test.equal(from.ended, true)
    test.equal(reader({ { send = "x" }, { shutdown = true } }, codec.UNTIL_CLOSE):read_all(), "x")
  end,

  ["a reset is no end of a body"] = function()
    local from = reader({ { send = "hello" }, { reset = true } }, codec.UNTIL_CLOSE)
    test.equal(from:read(), "hello")
    test.fails("closed", from:read())
    test.equal(from.ended, false)
  end,

  ["a body without a length is bounded, too"] = function()
    test.fails("limit", reader({ { send = "hello" } }, codec.UNTIL_CLOSE, { size_max = 4 }):read_all())
    test.fails("limit", reader({ { send = "hello" } }, codec.UNTIL_CLOSE):read_all(4))
  end,
}

--- What a payload writes.
---@param source http.Source
---@param length? integer
---@param framing? http.Length
---@param trailers? http.Fields|function
---@return string wire
---@return http.Length length
---@return cosocket.Error? err
local function sent(source, length, framing, trailers)
  local wire = cosocket.buffer()
  local made = payload.new("send", source, length, trailers)
  local ok, err = made:send(function(...)
    wire:append(...)
    return true
  end, framing)
  if not ok then assert(cosocket.is_error(err)) end
  return wire:take() --[[@as string]], made.length, err
end

---@param ... string
local function list(...)
  local items, at = { ... }, 0
  return function()
    at = at + 1
    return items[at]
  end
end

local payloads = {
  ["strings and buffers have a length"] = function()
    test.equal({ sent("hello") }, { "hello", 5 })
    test.equal({ sent("") }, { "", 0 })
    test.equal({ sent(cosocket.buffer("hello")) }, { "hello", 5 })
    test.equal(payload.new("send", "x").replayable, true)
    test.equal(payload.new("send", list()).replayable, false)
  end,

  ["an iterator is sent in chunks, unless its length is told"] = function()
    test.equal({ sent(list("hello", "", " world")) }, { "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", codec.CHUNKED })
    test.equal({ sent(list("hello", "", " world"), 11) }, { "hello world", 11 })
    test.equal({ sent(list()) }, { "0\r\n\r\n", codec.CHUNKED })
    test.equal({ sent(list("hello"), nil, codec.UNTIL_CLOSE) }, { "hello", codec.CHUNKED })
  end,

  ["a function may push instead"] = function()
    local wire = sent(function(write)
      for i = 1, 3 do assert(write(("x"):rep(i))) end
      assert(write(""))
      assert(write(cosocket.buffer("end")))
    end)
    test.equal(wire, "1\r\nx\r\n2\r\nxx\r\n3\r\nxxx\r\n3\r\nend\r\n0\r\n\r\n")
  end,

  ["trailers follow the last chunk"] = function()
    test.equal(sent("hello", nil, nil, { Sum = 5 }), "5\r\nhello\r\n0\r\nSum: 5\r\n\r\n")
    local count = 0
    local wire = sent(function(write)
      write("hello")
      count = 5
    end, nil, nil, function() return { Sum = count } end)
    test.equal(wire, "5\r\nhello\r\n0\r\nSum: 5\r\n\r\n")
    local _, _, err = sent("hello", nil, nil, { Host = "x" })
    test.fails("protocol", nil, err)
  end,

  ["a body that is not as long as it was told to be is an error"] = function()
    local wire, _, err = sent(list("hello"), 6)
    test.equal(wire, "hello")
    test.matches(test.fails("protocol", nil, err).message, "has 5 bytes, not the 6")
    wire, _, err = sent(list("hello", "!"), 5)
    test.equal(wire, "hello")
    test.matches(test.fails("protocol", nil, err).message, "longer than the 5")
  end,

  ["a source that fails does not end its body"] = function()
    local function failing()
      local told = false
      return function()
        if told then return nil, cosocket.error("io", "sensor", "gone") end
        told = true
        return "x"
      end
    end
    local wire, _, err = sent(failing())
    test.equal(wire, "1\r\nx\r\n")
    test.fails("io", nil, err)
  end,

  ["a failing write is told to the source and to the caller"] = function()
    local seen
    local made = payload.new("send", function(write)
      write("a")
      seen = { write("b") }
    end)
    local ok, err = made:send(function() return nil, cosocket.error("closed", "write", "gone") end)
    test.fails("closed", ok, err)
    test.fails("closed", table.unpack(seen, 1, 2))
  end,

  ["a file is sent from where it stands, with its length, and closed"] = function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w+b"))
    file:write(("0123456789"):rep(20000))
    file:seek("set", 5)
    local wire, length = sent(file)
    test.equal(length, 199995)
    assert(wire == ("0123456789"):rep(20000):sub(6))
    test.equal(io.type(file), "closed file")
    test.raises("closed file", payload.new, "send", file)
    local other = assert(io.open(path, "rb"))
    payload.new("send", other):close()
    test.equal(io.type(other), "closed file")
    os.remove(path)
  end,

  ["what cannot be a body raises"] = function()
    test.raises("send: a body is a string", payload.new, "send", 5)
    test.raises("not a table", payload.new, "send", {})
    test.raises("not a userdata", payload.new, "send", codec.headers())
    test.raises("5 bytes, not the 6", payload.new, "send", "hello", 6)
    test.raises("a piece of a body must be", sent, function() return 5 end)
  end,

  ["whatever is sent is read the same"] = function()
    local random = test.random()
    for _ = 1, 60 do
      local pieces = {}
      for i = 1, random(0, 8) do pieces[i] = random:bytes(random(0, random:pick({ 3, 300, 30000 }))) end
      local whole = table.concat(pieces)
      local length = random:pick({ codec.CHUNKED, #whole, codec.UNTIL_CLOSE })
      local near, far = cosocket.pair()
      cosocket.spawn(function()
        local made = payload.new("send", list(table.unpack(pieces)), length >= 0 and length or nil)
        assert(made:send(function(...) return near:write(...) end, length))
        near:close()
      end)
      local from = body.reader(far --[[@as cosocket.Stream]], cosocket.buffer(), length)
      local got = random(2) == 1 and all(from) or from:read_all()
      assert(got == whole)
    end
  end,
}

return { heads = heads, fixed = fixed, chunked = chunked, until_close = until_close, payloads = payloads }
