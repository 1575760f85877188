local codec = require("http.codec")
local cosocket = require("cosocket")
local test = require("test")

---@param bytes string
local function buffer(bytes) return cosocket.buffer(bytes) end

--- The lines as "name: value" texts.
---@param headers http.Headers
---@return string[]
local function lines(headers)
  local list = {}
  for name, value in pairs(headers) do list[#list + 1] = name .. ": " .. value end
  return list
end

local REQUEST = "POST /things?a=1 HTTP/1.1\r\nHost: example.org\r\nX-One: 1\r\ncontent-length: 5\r\nX-one:\t2 \r\n\r\n"
local RESPONSE = "HTTP/1.1 404 Not Found\r\nServer: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

--- Heads that must be refused, and the status a server answers them with.
---@param text string
---@return cosocket.Error
local function refused_request(text)
  local method, err = codec.decode_request(buffer(text))
  return test.fails("protocol", method, err)
end

---@param text string
---@param method? string
local function refused_response(text, method)
  local status, err = codec.decode_response(buffer(text), method)
  test.equal(test.fails("protocol", status, err).code, nil)
end

--- A request with these fields besides Host.
---@param fields string
---@param version? string
local function request(fields, version)
  return ("POST / HTTP/%s\r\nHost: h\r\n%s\r\n"):format(version or "1.1", fields)
end

---@param fields string
---@param version? string
---@return integer length
---@return integer flags
local function framing_of_request(fields, version)
  local method, _, _, _, length, flags = codec.decode_request(buffer(request(fields, version)))
  test.equal(method, "POST")
  return length, flags
end

---@param status integer
---@param fields string
---@param method? string
---@param version? string
---@return integer length
---@return integer flags
local function framing_of_response(status, fields, method, version)
  local text = ("HTTP/%s %d X\r\n%s\r\n"):format(version or "1.1", status, fields)
  local found, _, _, _, length, flags = codec.decode_response(buffer(text), method)
  test.equal(found, status)
  return length, flags
end

--- All pieces of a chunked body and what ended it.
---@param decoder http.Chunked
---@param bytes cosocket.Buffer
---@param pieces string[]
---@return false|nil ended
---@return http.Headers|cosocket.Error|nil
local function drain(decoder, bytes, pieces)
  while true do
    local piece, more = decoder:decode(bytes)
    if not piece then return piece, more end
    pieces[#pieces + 1] = piece
  end
end

local requests = {
  ["a request cut at any byte is one request"] = function()
    test.every_cut(REQUEST .. "hello", function(first, second)
      local input = buffer(first)
      local method, target, minor, headers, length, flags = codec.decode_request(input)
      if #first < #REQUEST then
        test.equal(method, nil)
        test.equal(target, nil)
        test.equal(input:peek(), first)
        method, target, minor, headers, length, flags = codec.decode_request(input:append(second))
      else
        input:append(second)
      end
      test.equal({ method, target, minor, length, flags }, { "POST", "/things?a=1", 1, 5, codec.KEEP_ALIVE })
      test.equal(lines(headers), { "Host: example.org", "X-One: 1", "content-length: 5", "X-one: 2" })
      test.equal(input:take(), "hello")
    end)
  end,

  ["empty lines before a request are passed over, but not many"] = function()
    local input = buffer("\r\n\r\nGET / HTTP/1.0\r\n\r\nx")
    test.equal(codec.decode_request(input), "GET")
    test.equal(input:take(), "x")
    test.equal(codec.decode_request(buffer("\r\n\r")), nil)
    refused_request(("\r\n"):rep(5))
    refused_request("\nGET / HTTP/1.0\r\n\r\n")
  end,

  ["a target is in one of four forms"] = function()
    for _, line in ipairs({ "GET /", "GET http://h/x?y", "OPTIONS *", "CONNECT h:443", "CONNECT [::1]:443", "GET //h/%2e?", "PUT /\xC3\xA4" }) do
      test.truthy(codec.decode_request(buffer(line .. " HTTP/1.1\r\nHost: h\r\n\r\n")), line)
    end
    for _, line in ipairs({ "GET x", "GET *", "GET  /", "GET /a b", "GET ", "GET /#f", "CONNECT /", "CONNECT h", "GET :", "GET ://x", "GET /\t", "GET\t/", "GET /\x7F" }) do
      test.equal(refused_request(line .. " HTTP/1.1\r\nHost: h\r\n\r\n").code, 400, line)
    end
  end,

  ["a start line that is not exactly one is refused"] = function()
    for _, line in ipairs({ " GET / HTTP/1.1", "GET / HTTP/1.1 ", "GET /", "GET / http/1.1", "GET / HTTP/1", "GET / HTTP/11.1", "G@T / HTTP/1.1", "GET / HTTP/1.1\rX" }) do
      test.equal(refused_request(line .. "\r\nHost: h\r\n\r\n").code, 400, line)
    end
    test.equal(refused_request("GET / HTTP/2.0\r\nHost: h\r\n\r\n").code, 505)
    test.equal(refused_request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").code, 505)
    -- RFC 9110, 2.5
    local _, _, minor = codec.decode_request(buffer("GET / HTTP/1.7\r\nHost: h\r\n\r\n"))
    test.equal(minor, 1)
  end,

  ["what is not HTTP is refused at its first byte"] = function()
    test.matches(refused_request("\x16\x03\x01\x02\x00").message, "TLS")
    refused_request("\0")
    refused_request(" ")
    refused_response("SSH-2.0-x")
    refused_response("HTTQ")
    refused_response("\x15\x03\x03\0\2")
    test.equal(codec.decode_response(buffer("HTT")), nil)
  end,

  ["a request of HTTP/1.1 has exactly one valid host"] = function()
    for _, fields in ipairs({ "", "Host: a\r\nHost: a\r\n", "Host: a\r\nhost: b\r\n", "Host: a b\r\n", "Host: a/b\r\n", "Host: u@h\r\n", "Host: a,b?\r\n" }) do
      test.equal(refused_request("GET / HTTP/1.1\r\n" .. fields .. "\r\n").code, 400, fields)
    end
    for _, fields in ipairs({ "Host: h:80", "Host: [::1]:8080", "Host:", "HOST: x.y" }) do
      test.truthy(codec.decode_request(buffer("GET / HTTP/1.1\r\n" .. fields .. "\r\n\r\n")), fields)
    end
    test.truthy(codec.decode_request(buffer("GET / HTTP/1.0\r\n\r\n")))
    refused_request("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n")
  end,
}

local fields = {
  ["what could make two readers see two messages is refused"] = function()
    for _, line in ipairs({
      "X: a\nY: b\r\n", -- bare LF
      "X: a\rY: b\r\n", -- bare CR
      "X: a\r\r\n",
      "X: a\r\n b\r\n", -- folded (5.2)
      "X: a\r\n\tb\r\n",
      " X: a\r\n",
      "X : a\r\n", -- 5.1
      "X\t: a\r\n",
      ": a\r\n",
      "X\r\n",
      "X Y: a\r\n",
      "X(Y): a\r\n",
      "X\xC3\xA4: a\r\n",
      "X\0: a\r\n",
      "X: a\0b\r\n",
      "X: a\x0Bb\r\n",
      "X: a\x7Fb\r\n",
      "\r",
    }) do
      test.equal(refused_request(request(line)).code, 400, line)
      refused_response("HTTP/1.1 200 OK\r\n" .. line .. "\r\n")
    end
  end,

  ["a bare LF is refused before the head is whole"] = function()
    refused_request("GET / HTTP/1.1\n")
    refused_request("GET / HTTP/1.1\r\nHost: h\n")
    refused_response("HTTP/1.1 200 OK\n")
  end,

  ["a head that is too large is refused before it is whole"] = function()
    local head = "GET / HTTP/1.1\r\nHost: h\r\nX: " .. ("x"):rep(100) .. "\r\n\r\n"
    test.truthy(codec.decode_request(buffer(head), #head))
    local err = test.fails("limit", codec.decode_request(buffer(head), #head - 1))
    test.equal(err.code, 431)
    err = test.fails("limit", codec.decode_request(buffer(head:sub(1, 50)), 50))
    test.equal(err.code, 431)
    test.equal(codec.decode_request(buffer(head:sub(1, 49)), 50), nil)
    test.equal(test.fails("limit", codec.decode_response(buffer("HTTP/1.1 200 OK\r\nX: " .. ("x"):rep(100)), "GET", 50)).code, nil)
  end,

  ["too long a first line is refused before it is whole"] = function()
    local line = "GET /" .. ("x"):rep(86) .. " HTTP/1.1"
    local head = line .. "\r\nHost: h\r\n\r\n"
    test.truthy(codec.decode_request(buffer(head), nil, nil, #line))
    test.equal(test.fails("limit", codec.decode_request(buffer(head), nil, nil, #line - 1)).code, 414)
    test.equal(test.fails("limit", codec.decode_request(buffer(("G"):rep(102)), nil, nil, 100)).code, 414)
    test.equal(codec.decode_request(buffer(("G"):rep(101)), nil, nil, 100), nil)
  end,

  ["too many fields are refused"] = function()
    for _, count in ipairs({ 1, 31, 32, 33, 200 }) do
      local head = "HTTP/1.1 200 OK\r\n" .. ("a:b\r\n"):rep(count) .. "\r\n"
      local status, _, _, headers = codec.decode_response(buffer(head), "GET", nil, count)
      test.equal(status, 200)
      test.equal(#headers, count)
      if count > 1 then test.fails("limit", codec.decode_response(buffer(head), "GET", nil, count - 1)) end
    end
    test.fails("limit", codec.decode_response(buffer("HTTP/1.1 200 OK\r\n" .. ("a:b\r\n"):rep(129) .. "\r\n")))
  end,
}

local responses = {
  ["a response cut at any byte is one response"] = function()
    test.every_cut(RESPONSE .. "5\r\n", function(first, second)
      local input = buffer(first)
      local status, reason, minor, headers, length, flags = codec.decode_response(input)
      if #first < #RESPONSE then
        test.equal(status, nil)
        test.equal(reason, nil)
        test.equal(input:peek(), first)
        status, reason, minor, headers, length, flags = codec.decode_response(input:append(second))
      else
        input:append(second)
      end
      test.equal({ status, reason, minor, length, flags }, { 404, "Not Found", 1, codec.CHUNKED, 0 })
      test.equal(lines(headers), { "Server: x", "Transfer-Encoding: chunked", "Connection: close" })
      test.equal(input:take(), "5\r\n")
    end)
  end,

  ["a reason may be absent, and may be any text"] = function()
    for text, reason in pairs({
      ["HTTP/1.1 200\r\n\r\n"] = "",
      ["HTTP/1.1 200 \r\n\r\n"] = "",
      ["HTTP/1.0 200 so  so\xE4\r\n\r\n"] = "so  so\xE4",
    }) do
      local status, found = codec.decode_response(buffer(text))
      test.equal({ status, found }, { 200, reason })
    end
  end,

  ["a status line that is not exactly one is refused"] = function()
    for _, line in ipairs({ "HTTP/1.1  200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 099 OK", "HTTP/1.1 2x0 OK", "HTTP/1.1", "HTTP/1.1 +20 OK", "HTTP/2.0 200 OK", "HTTP/1.1\t200 OK", "HTTP/1.1 200\tOK", "HTTP/1.1 200 O\0K", "http/1.1 200 OK", "\r\nHTTP/1.1 200 OK" }) do
      refused_response(line .. "\r\n\r\n")
    end
  end,
}

local lengths = {
  ["the length of a request is that of its fields, or 0"] = function()
    test.equal(framing_of_request(""), 0)
    test.equal(framing_of_request("Content-Length: 0\r\n"), 0)
    test.equal(framing_of_request("Content-Length: 007\r\n"), 7)
    test.equal(framing_of_request("Content-Length:   9223372036854775807 \r\n"), math.maxinteger)
    test.equal(framing_of_request("Transfer-Encoding: Chunked\r\n"), codec.CHUNKED)
  end,

  ["lengths that two readers may read as two are refused"] = function()
    for _, line in ipairs({
      "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
      "Content-Length: 5\r\nContent-Length: 5\r\n",
      "Content-Length: 5\r\ncontent-length: 6\r\n",
      "Content-Length: 5, 5\r\n",
      "Content-Length: 5,\r\n",
      "Content-Length:\r\n",
      "Content-Length: +5\r\n",
      "Content-Length: -5\r\n",
      "Content-Length: 5.0\r\n",
      "Content-Length: 0x5\r\n",
      "Content-Length: 5 5\r\n",
      "Content-Length: 5a\r\n",
      "Content-Length: 9223372036854775808\r\n",
      "Content-Length: 18446744073709551621\r\n",
      "Content-Length: 99999999999999999999999999\r\n",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: chunked, chunked\r\n",
      "Transfer-Encoding: chunked, identity\r\n",
      "Transfer-Encoding: chunked, gzip\r\n",
      "Transfer-Encoding: gzip\r\n",
      "Transfer-Encoding: identity\r\n",
      "Transfer-Encoding:\r\n",
      "Transfer-Encoding: xchunked\r\n",
      "Transfer-Encoding: \"chunked\"\r\n",
      "Transfer-Encoding: chunked;q=1\r\n",
      "Transfer-Encoding: ,chunked\r\n",
      "Transfer-Encoding: chunked,\r\n",
    }) do
      test.equal(refused_request(request(line)).code, 400, line)
      refused_response("HTTP/1.1 200 OK\r\n" .. line .. "\r\n")
      refused_response("HTTP/1.1 200 OK\r\n" .. line .. "\r\n", "HEAD")
    end
    -- A coding that exists and is not spoken here (6.1).
    test.equal(refused_request(request("Transfer-Encoding: gzip, chunked\r\n")).code, 501)
    -- 6.1: HTTP/1.0 has none.
    test.equal(refused_request(request("Transfer-Encoding: chunked\r\n", "1.0")).code, 400)
    refused_response("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
  end,

  ["a response without a length lasts until the connection ends"] = function()
    local length, flags = framing_of_response(200, "")
    test.equal({ length, flags & codec.KEEP_ALIVE }, { codec.UNTIL_CLOSE, 0 })
    test.equal(framing_of_response(200, "Content-Length: 3\r\n"), 3)
    test.equal(framing_of_response(200, "Content-Length: 3\r\n", "GET", "1.0"), 3)
  end,

  ["HEAD, 1xx, 204 and 304 have no body, whatever their fields say"] = function()
    for _, fields in ipairs({ "", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n" }) do
      for _, status in ipairs({ 100, 103, 204, 304 }) do
        local length, flags = framing_of_response(status, fields)
        test.equal({ length, flags }, { 0, codec.KEEP_ALIVE }, fields .. status)
      end
      test.equal(framing_of_response(200, fields, "HEAD"), 0)
    end
    -- The method's case counts.
    test.equal(framing_of_response(200, "Content-Length: 5\r\n", "head"), 5)
  end,

  ["after 101, and after 2xx to CONNECT, something else begins"] = function()
    test.equal(framing_of_response(101, "Connection: Upgrade\r\nUpgrade: x\r\n"), codec.TUNNEL)
    test.equal(framing_of_response(200, "", "CONNECT"), codec.TUNNEL)
    -- 6.3: lengths are ignored.
    test.equal(framing_of_response(200, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "CONNECT"), codec.TUNNEL)
    test.equal(framing_of_response(407, "Content-Length: 5\r\n", "CONNECT"), 5)
  end,

  ["a connection persists as 9.3 says"] = function()
    local function persists(fields, version)
      local _, flags = framing_of_request(fields, version)
      local _, others = framing_of_response(204, fields, "GET", version)
      test.equal(others & codec.KEEP_ALIVE, flags & codec.KEEP_ALIVE)
      return flags & codec.KEEP_ALIVE ~= 0
    end
    test.equal(persists(""), true)
    test.equal(persists("Connection: keep-alive\r\n"), true)
    test.equal(persists("Connection: close\r\n"), false)
    test.equal(persists("Connection: x, CLOSE , keep-alive\r\n"), false)
    test.equal(persists("Connection: x\r\nConnection: close\r\n"), false)
    test.equal(persists("Connection: closed\r\n"), true)
    test.equal(persists("", "1.0"), false)
    test.equal(persists("Connection: Keep-Alive\r\n", "1.0"), true)
    test.equal(persists("Connection: keep-alive, close\r\n", "1.0"), false)
  end,

  ["expectations and upgrades are told"] = function()
    local function flags(fields, version)
      local _, found = framing_of_request(fields, version)
      return found & ~codec.KEEP_ALIVE
    end
    test.equal(flags("Expect: 100-Continue\r\nContent-Length: 1\r\n"), codec.EXPECT_CONTINUE)
    -- Without a body there is nothing to wait for; HTTP/1.0 expects nothing (RFC 9110, 10.1.1).
    test.equal(flags("Expect: 100-continue\r\n"), 0)
    test.equal(flags("Expect: 100-continue\r\nContent-Length: 1\r\n", "1.0"), 0)
    test.equal(refused_request(request("Expect: 200-ok\r\n")).code, 417)
    test.equal(flags("Connection: Upgrade\r\nUpgrade: websocket\r\n"), codec.UPGRADE)
    test.equal(flags("Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n"), codec.UPGRADE)
    test.equal(flags("Upgrade: websocket\r\n"), 0)
    test.equal(flags("Connection: upgrade\r\n"), 0)
    test.equal(flags("Connection: upgrade\r\nUpgrade: websocket\r\n", "1.0"), 0)
  end,
}

local headers = {
  ["names are looked up whatever their case, in their order"] = function()
    local _, _, _, found = codec.decode_request(buffer(REQUEST))
    test.equal(found:get("HOST"), "example.org")
    test.equal(found["content-Length"], "5")
    test.equal(found:get("x-one"), "1, 2")
    test.equal(found:get_all("X-ONE"), { "1", "2" })
    test.equal(found:get("nothing"), nil)
    test.equal(found.nothing, nil)
    test.equal(found:get_all("nothing"), {})
    test.equal(#found, 4)
    test.equal({ found:at(4) }, { "X-one", "2" })
    test.equal({ found:at(5) }, {})
    test.equal({ found:at(0) }, {})
    test.equal({ found:at(math.mininteger) }, {})
  end,

  ["cookies are no list"] = function()
    local found = codec.headers({ { "Set-Cookie", "a=1" }, { "set-cookie", "b=2" } })
    test.equal(found:get("set-cookie"), "a=1")
    test.equal(found:get_all("set-cookie"), { "a=1", "b=2" })
  end,

  ["set replaces in place, add appends, del takes away"] = function()
    local made = codec.headers({ { "A", "1" }, { "B", "2" }, { "a", "3" } })
    made:set("a", 4)
    test.equal(lines(made), { "a: 4", "B: 2" })
    made:add("C", " 5\t")
    made["D"] = 6.5
    test.equal(lines(made), { "a: 4", "B: 2", "C: 5", "D: 6.5" })
    test.equal(made:del("A"), 1)
    test.equal(made:del("A"), 0)
    made.c = nil
    test.equal(lines(made), { "B: 2", "D: 6.5" })
    local copy = codec.headers(made)
    copy:set("B", "x")
    test.equal(made:get("B"), "2")
  end,

  ["a field that is set again and again holds its last value only"] = function()
    local made = codec.headers({ Fixed = "stays" })
    for i = 1, 5000 do made:set("X-Count", ("%d"):format(i) .. ("x"):rep(50)) end
    test.equal(made:get("fixed"), "stays")
    test.equal(made:get("x-count"), "5000" .. ("x"):rep(50))
    test.equal(#made, 2)
  end,

  ["a table of names is sorted, lists make several lines"] = function()
    test.equal(lines(codec.headers({ b = "2", a = { "1", "x" }, { "Z", "0" }, c = 3 })), { "Z: 0", "a: 1", "a: x", "b: 2", "c: 3" })
  end,

  ["what could begin another line is refused"] = function()
    local made = codec.headers()
    for _, value in ipairs({ "a\r\nX: b", "a\n", "\ra", "a\0", "\x01", "a\x7F" }) do
      test.raises("control character", made.set, made, "X", value)
      test.raises("control character", made.add, made, "X", value)
      test.raises("control character", codec.headers, { X = value })
      for _, init in ipairs({ { X = value }, { { "X", value } }, { X = { "fine", value } } }) do
        local out = buffer("before")
        test.fails("protocol", codec.encode_request(out, "GET", "/", nil, init))
        test.fails("protocol", codec.encode_response(out, 200, nil, nil, nil, init))
        test.fails("protocol", codec.encode_last_chunk(out, init))
        test.equal(out:take(), "before")
      end
    end
    for _, name in ipairs({ "", "a b", "a:", "a\r\n", "\0", "ä", "(x)" }) do
      test.raises("not the name", made.set, made, name, "v")
      test.fails("protocol", codec.encode_request(buffer(""), "GET", "/", nil, { [name] = "v" }))
    end
    test.equal(#made, 0)
  end,

  ["what is no field at all raises and says so"] = function()
    test.raises("must be a string or a number, not boolean", codec.headers, { a = true })
    test.raises("pairs such as", codec.headers, { "a: b" })
    test.raises("table wanted, not string", codec.headers, "a: b")
    test.raises("table wanted, not userdata", codec.headers, cosocket.buffer())
  end,

  ["values are not shown by tostring, for they may be secrets"] = function()
    test.equal(tostring(codec.headers({ Authorization = "Bearer secret" })), "http.Headers (1)")
  end,
}

local encoding = {
  ["heads are written as they are"] = function()
    local out = buffer("")
    assert(codec.encode_request(out, "GET", "/x?y", nil, { Host = "h" }, codec.headers({ Accept = "*/*" })))
    test.equal(out:take(), "GET /x?y HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n")
    assert(codec.encode_request(out, "PUT", "*", 12345678901, { Host = "h" }))
    test.equal(out:take(), "PUT * HTTP/1.1\r\nHost: h\r\nContent-Length: 12345678901\r\n\r\n")
    assert(codec.encode_response(out, 200, nil, 0))
    test.equal(out:take(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert(codec.encode_response(out, 299, nil, codec.CHUNKED, { A = 1 }))
    test.equal(out:take(), "HTTP/1.1 299 \r\nA: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert(codec.encode_response(out, 404, "Nothing here", codec.UNTIL_CLOSE))
    test.equal(out:take(), "HTTP/1.1 404 Nothing here\r\n\r\n")
    assert(codec.encode_last_chunk(out))
    assert(codec.encode_last_chunk(out, { Checksum = "x" }))
    test.equal(out:take(), "0\r\n\r\n0\r\nChecksum: x\r\n\r\n")
  end,

  ["methods, targets and reasons cannot begin another line"] = function()
    local out = buffer("")
    for _, method in ipairs({ "", "GET /", "G\r\nT", "G\0T" }) do
      test.fails("protocol", codec.encode_request(out, method, "/"))
    end
    for _, target in ipairs({ "", "/a b", "/\r\nX: y", "/\n", "/\0", "/\xC3\xA4", "/#f", "/\x7F" }) do
      test.fails("protocol", codec.encode_request(out, "GET", target))
    end
    for _, reason in ipairs({ "OK\r\nX: y", "O\nK", "\0" }) do
      test.fails("protocol", codec.encode_response(out, 200, reason))
    end
    for _, status in ipairs({ 0, 99, 1000 }) do
      test.fails("protocol", codec.encode_response(out, status))
    end
    test.equal(#out, 0)
  end,

  ["a length is told once"] = function()
    local out = buffer("")
    test.fails("protocol", codec.encode_response(out, 200, nil, 5, { ["Content-Length"] = 5 }))
    test.fails("protocol", codec.encode_response(out, 200, nil, codec.CHUNKED, { ["content-length"] = 5 }))
    test.fails("protocol", codec.encode_response(out, 200, nil, 5, { ["Transfer-encoding"] = "chunked" }))
    test.fails("protocol", codec.encode_request(out, "GET", "/", nil, { ["Content-Length"] = { 5, 5 } }))
    test.fails("protocol", codec.encode_request(out, "GET", "/", nil, { ["Content-Length"] = 5 }, { ["Transfer-Encoding"] = "chunked" }))
    test.equal(#out, 0)
    -- As HEAD is answered.
    test.equal(codec.encode_response(out, 200, nil, nil, { ["Content-Length"] = 5 }), true)
  end,

  ["fields that say where a message ends cannot be trailers"] = function()
    for _, name in ipairs({ "Content-Length", "transfer-encoding", "Host", "Authorization" }) do
      test.fails("protocol", codec.encode_last_chunk(buffer(""), { [name] = "1" }))
    end
  end,

  ["whatever is written is read the same"] = function()
    local random = test.random()
    local letters = "abcXYZ019-_!~"
    for _ = 1, 300 do
      local list = { { "Host", "h" } }
      for i = 1, random(0, 40) do
        local name, value = {}, {}
        for j = 1, random(1, 20) do
          local at = random(#letters)
          name[j] = letters:sub(at, at)
        end
        for j = 1, random(0, 60) do value[j] = string.char(random(0x20, 0x7E)) end
        local text = table.concat(value):match("^ *(.-) *$")
        list[i + 1] = { "x" .. table.concat(name), text }
      end
      local out = buffer("")
      assert(codec.encode_request(out, "PUT", "/x", 7, list))
      local method, target, _, found, length = codec.decode_request(out)
      test.equal({ method, target, length, #out }, { "PUT", "/x", 7, 0 })
      list[#list + 1] = { "Content-Length", "7" }
      for i, pair in ipairs(list) do test.equal({ found:at(i) }, pair) end
    end
  end,
}

local BODY = "5\r\nhello\r\n1;a=b;c=\"d\"\r\n \r\n00A ; x\r\n0123456789\r\n0\r\nX-Sum: 1\r\nx-two: 2\r\n\r\n"

local chunked = {
  ["a chunked body cut at any byte is one body"] = function()
    test.every_cut(BODY .. "next", function(first, second)
      local decoder, input, pieces = codec.chunked(), buffer(first), {}
      local ended, trailers = drain(decoder, input, pieces)
      if #first < #BODY then
        test.equal(ended, nil)
        test.equal(trailers, nil)
        test.equal(decoder:is_done(), false)
        ended, trailers = drain(decoder, input:append(second), pieces)
      else
        input:append(second)
      end
      test.equal(ended, false)
      test.equal(decoder:is_done(), true)
      test.equal(lines(trailers --[[@as http.Headers]]), { "X-Sum: 1", "x-two: 2" })
      test.equal(table.concat(pieces), "hello 0123456789")
      test.equal(input:take(), "next")
    end)
  end,

  ["a chunked body that comes byte by byte is one body"] = function()
    local decoder, input, pieces = codec.chunked(), buffer(""), {}
    for i = 1, #BODY do
      local ended, err = drain(decoder, input:append(BODY:sub(i, i)), pieces)
      if i < #BODY then
        test.equal(ended, nil)
        test.equal(err, nil)
      else
        test.equal(ended, false)
      end
    end
    test.equal(table.concat(pieces), "hello 0123456789")
  end,

  ["short chunks are answered together"] = function()
    local decoder = codec.chunked()
    local input = buffer(("1\r\nx\r\n2\r\nyz\r\n"):rep(1000) .. "0\r\n\r\n")
    test.equal(decoder:decode(input), ("xyz"):rep(1000))
    test.equal(decoder:decode(input), false)
    test.equal(#input, 0)
    test.equal(decoder:decode(input), false)
  end,

  ["a long chunk comes in pieces"] = function()
    local decoder, bytes = codec.chunked(), ("0123456789abcdef"):rep(20000)
    local input, pieces = buffer(("%x\r\n%s\r\n3\r\nend\r\n0\r\n\r\n"):format(#bytes, bytes)), {}
    test.equal(drain(decoder, input, pieces), false)
    for _, piece in ipairs(pieces) do assert(#piece <= 65536) end
    test.equal(table.concat(pieces), bytes .. "end")
  end,

  ["bytes of a chunk may be had without the buffer"] = function()
    local decoder, input = codec.chunked(), buffer("6\r\nab")
    test.equal(decoder:left(), 0)
    test.equal(decoder:decode(input), "ab")
    test.equal(decoder:left(), 4)
    decoder:pass(3)
    test.equal(decoder:left(), 1)
    test.raises("not that long", decoder.pass, decoder, 2)
    decoder:pass(1)
    test.equal(decoder:decode(input:append("\r\n1\r\nz\r\n0\r\n\r\n")), "z")
    test.equal(decoder:decode(input), false)
  end,

  ["chunks that two readers may read as two bodies are refused"] = function()
    for _, bytes in ipairs({
      "\r\n",
      "g\r\n",
      "-1\r\n",
      "+1\r\n",
      " 1\r\nx\r\n",
      "0x1\r\nx\r\n",
      "1\nx\r\n",
      "1\rx\r\n",
      "1 \r\nx\r\n",
      "1 x\r\nx\r\n",
      "1;a\nb\r\nx\r\n",
      "1;a\rb\r\nx\r\n",
      "1;\0\r\nx\r\n",
      "1;\0",
      "1\r\nxy\r\n",
      "1\r\nx\n",
      "1\r\nx\r\r",
      "1\r\nx0\r\n",
      "00000000000000001\r\nx",
      "8000000000000000\r\n",
      "ffffffffffffffff\r\n",
      "10000000000000000\r\n",
      "0\r\n\n",
      "0\r\nX: a\n\r\n",
      "0\r\nX : a\r\n\r\n",
      "0\r\n X: a\r\n\r\n",
      "0\r\nX\r\n\r\n",
    }) do
      local ended, err = drain(codec.chunked(), buffer(bytes), {})
      test.equal(test.fails("protocol", ended, err).code, 400, bytes)
    end
  end,

  ["extensions and trailers are bounded"] = function()
    local function limit(bytes, ...)
      local ended, err = drain(codec.chunked(...), buffer(bytes), {})
      test.fails("limit", ended, err)
    end
    limit("1;" .. ("x"):rep(5000))
    limit("1;" .. ("x"):rep(5000) .. "\r\nx\r\n")
    limit(("1;" .. ("x"):rep(1000) .. "\r\nx\r\n"):rep(17))
    limit("0\r\nX: " .. ("x"):rep(9000))
    limit("0\r\nX: " .. ("x"):rep(50) .. "\r\n\r\n", 40)
    limit("0\r\na:b\r\na:b\r\na:b\r\n\r\n", nil, 2)
    limit("0\r\n" .. ("a:b\r\n"):rep(65) .. "\r\n")
  end,

  ["a body in random chunks and cuts is the same body"] = function()
    local random = test.random()
    for _ = 1, 200 do
      local parts, wire = {}, {}
      for i = 1, random(1, 12) do
        parts[i] = random:bytes(random(1, 300))
        wire[i] = ("%x%s\r\n%s\r\n"):format(#parts[i], random:pick({ "", ";x", " ;y=z" }), parts[i])
      end
      local text = table.concat(wire) .. "0\r\n\r\n"
      local decoder, input, pieces, at, ended = codec.chunked(), buffer(""), {}, 1, nil
      while at <= #text do
        local size = random(1, 200)
        ended = drain(decoder, input:append(text:sub(at, at + size - 1)), pieces)
        at = at + size
      end
      test.equal(ended, false)
      test.equal(table.concat(pieces), table.concat(parts))
    end
  end,

  ["a damaged body ends, waits or is refused, and is never longer than its bytes"] = function()
    local random = test.random()
    for _ = 1, 3000 do
      local bytes = { BODY:byte(1, -1) }
      for _ = 1, random(1, 4) do bytes[random(#bytes)] = random:pick({ 0, 10, 13, 32, 48, 49, 59, 65, 102, random(0, 255) }) end
      local text, pieces = string.char(table.unpack(bytes)), {}
      local input = buffer(text)
      local ended, err = drain(codec.chunked(), input, pieces)
      if ended == nil and err then assert(err.kind == "protocol" or err.kind == "limit") end
      assert(#table.concat(pieces) <= #text)
    end
  end,
}

return {
  requests = requests,
  fields = fields,
  responses = responses,
  lengths = lengths,
  headers = headers,
  encoding = encoding,
  chunked = chunked,
}
