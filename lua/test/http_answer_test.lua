-- `decode_answer`, which has to agree with `decode_response` on everything.
local codec = require("http.codec")
local cosocket = require("cosocket")
local test = require("test")

local HEAD = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\n"

--- Decodes some bytes; what is left of them comes last.
---@param bytes string
---@param body_max? integer
---@param method? string
---@param head_max? number A float is none of what the fast path takes: so the slow one answers.
local function decode(bytes, body_max, method, head_max)
  local input = cosocket.buffer(bytes)
  local answer, err = codec.decode_answer(input, method or "GET", head_max or 65536, 128, body_max or 100)
  return answer, err, tostring(input:peek() or "")
end

--- The lines as "name: value" texts.
---@param headers http.Headers
local function lines(headers)
  local list = {}
  for name, value in pairs(headers) do list[#list + 1] = name .. ": " .. value end
  return list
end

--- Damages a text in some places.
local function damaged(random, text)
  local bytes = { text:byte(1, -1) }
  for _ = 1, random(0, 3) do
    bytes[random(#bytes)] = random:pick({ 0, 10, 13, 32, 44, 48, 58, random(0, 255) })
  end
  return string.char(table.unpack(bytes))
end

return {
  ["a body that is here comes with its head"] = function()
    for _, head_max in ipairs({ 65536, 65536.0 }) do
      local answer, err, rest = decode(HEAD .. "hello", nil, nil, head_max)
      test.equal({ answer, err, rest }, {
        { status = 200, reason = "OK", ok = true, length = 5, flags = codec.KEEP_ALIVE, head = HEAD, body = "hello" },
        nil,
        "",
      })
      test.equal(lines(codec.headers_of(answer.head)), { "Server: x", "Content-Length: 5" })
    end
    test.equal(decode("HTTP/1.1 204 No\r\n\r\n").body, "")
    test.equal(decode(HEAD .. "hello", nil, "HEAD").body, "")
  end,

  ["a body that is long, not all here, encoded or of unknown length stays"] = function()
    local function left(bytes, body_max)
      local answer, _, rest = decode(bytes, body_max)
      test.equal(answer.body, nil)
      return rest
    end
    test.equal(left(HEAD .. "hell"), "hell")
    test.equal(left(HEAD .. "hello", 4), "hello")
    test.equal(left(HEAD .. "hello", -1), "hello")
    test.equal(left("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", -1), "")
    test.equal(left("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "0\r\n\r\n")
    test.equal(left("HTTP/1.1 200 OK\r\n\r\nall"), "all")
    test.equal(left("HTTP/1.1 101 Other\r\nContent-Length: 1\r\n\r\nx"), "x")
    test.equal(left("HTTP/1.1 100 Go on\r\n\r\nHTTP"), "HTTP")
    local encoded = decode("HTTP/1.1 200 OK\r\nCONTENT-ENCODING: gzip\r\nContent-Length: 2\r\n\r\nab")
    test.equal({ encoded.body, encoded.flags }, { nil, codec.KEEP_ALIVE | codec.ENCODED | codec.MORE })
  end,

  ["what follows is told, and stays"] = function()
    local answer, _, rest = decode(HEAD .. "hello!")
    test.equal({ answer.body, answer.flags, rest }, { "hello", codec.KEEP_ALIVE | codec.MORE, "!" })
  end,

  ["a head that is not all here is left alone"] = function()
    for cut = 0, #HEAD - 1 do
      for _, head_max in ipairs({ 65536, 65536.0 }) do
        local answer, err, rest = decode(HEAD:sub(1, cut), nil, nil, head_max)
        test.equal({ answer, err, rest }, { nil, nil, HEAD:sub(1, cut) })
      end
    end
  end,

  ["it says what decode_response says, of heads that are right and of damaged ones"] = function()
    local random = test.random()
    local taken, refused = 0, 0
    for _ = 1, 3000 do
      local text = damaged(random, random:pick({
        HEAD .. "hello",
        "HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\nX: 1\r\nX: 2\r\n\r\n",
        "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
      }))
      local method = random:pick({ "GET", "HEAD", "CONNECT" })
      local answer, err = decode(text, 100, method)
      local slow, slow_err = decode(text, 100, method, 65536.0)
      test.equal(answer, slow)
      local status, reason, minor, headers, length, flags = codec.decode_response(cosocket.buffer(text), method, 65536, 128)
      if answer then
        taken = taken + 1
        test.equal({ answer.status, answer.reason, answer.length }, { status, reason, length })
        test.equal(answer.flags & 7, flags)
        test.equal(answer.head:find("^HTTP/1%.0") and 0 or 1, minor)
        test.equal(lines(codec.headers_of(answer.head)), lines(headers))
        test.equal(answer.ok, status >= 200 and status < 300)
      elseif err then
        refused = refused + 1
        test.equal({ err.kind, err.message, slow_err.message }, { reason.kind, reason.message, reason.message })
      else
        test.equal({ status, reason }, {})
      end
    end
    test.truthy(taken > 200 and refused > 200, ("%d taken, %d refused"):format(taken, refused))
  end,

  ["wrong arguments raise"] = function()
    test.raises("cosocket.Buffer", codec.decode_answer, "text", "GET", 1, 1, 1)
    test.raises("headers_of", codec.headers_of, "no head at all\r\n")
  end,
}
