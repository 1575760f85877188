-- A server that sends what is legal but rare, and what is illegal.
local http = require("http")
local test = require("test")
local web = require("web")

local OK = "HTTP/1.1 200 OK\r\n"

--- A case for an answer that is read as `body`, whole and byte by byte.
local function reads(bytes, body, how)
  return function()
    for _, cut in ipairs({ "", "cut=1" }) do
      local answer = assert(http.get(web.odd(bytes, (how and how .. "&" or "") .. cut)))
      test.equal(answer.body, body, cut)
    end
  end
end

--- A case for an answer that is refused.
local function refuses(kind, bytes, how, options)
  return function()
    local answer, err = http.get(web.odd(bytes, how), options)
    test.fails(kind, answer, err)
  end
end

local function get(bytes, how)
  return assert(http.get(web.odd(bytes, how)))
end

return {
  ["[RFC 9112 4] a reason may be empty"] = reads("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi", "hi"),
  ["[RFC 9112 4] a reason may have any bytes but control characters"] = reads("HTTP/1.1 200 \xC3\xA4 \t!\r\nContent-Length: 2\r\n\r\nhi", "hi"),
  ["[RFC 9112 2.3] a minor version we do not know is read as 1.1"] = reads("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi"),
  ["[RFC 9110 15] a status that nobody knows is an answer"] = function()
    test.equal(get("HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n").status, 299)
    test.equal(get("HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n").status, 599)
  end,
  ["[RFC 9112 5.1] spaces around values are no part of them"] = function()
    test.equal(get(OK .. "X: \t a b \t\r\nContent-Length:0\r\n\r\n").headers.X, "a b")
  end,
  ["[RFC 9110 5.3] repeated fields are one list, and each can be had"] = function()
    local headers = get(OK .. "A: 1\r\nB: x\r\na: 2\r\nContent-Length: 0\r\n\r\n").headers
    test.equal({ headers.A, headers:get_all("a"), headers:at(3) }, { "1, 2", { "1", "2" }, "a", "2" })
  end,
  ["[RFC 9110 5.5] values may have bytes beyond ASCII"] = function()
    test.equal(get(OK .. "X: \xE4\xFF\r\nContent-Length: 0\r\n\r\n").headers.X, "\xE4\xFF")
  end,
  ["[RFC 9112 6.3] a body without a length ends with the connection"] = reads(OK .. "\r\nuntil the end", "until the end"),
  ["[RFC 9112 2.3] a body of HTTP/1.0 ends with the connection"] = reads("HTTP/1.0 200 OK\r\n\r\nuntil the end", "until the end"),
  ["[RFC 9112 7.1] chunks have extensions, zeros and capitals"] = reads(
    OK .. "Transfer-Encoding: Chunked\r\n\r\n0005;a;b=c;d=\"e\"\r\nhello\r\nA\r\n0123456789\r\n000\r\n\r\n", "hello0123456789"),
  ["[RFC 9110 15.2] interim answers come before the answer"] = reads(
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 P\r\n\r\n" .. OK .. "Content-Length: 2\r\n\r\nhi", "hi"),
  ["[RFC 9110 8.6] leading zeros of a length mean nothing"] = reads(OK .. "Content-Length: 0002\r\n\r\nhi", "hi"),
  ["[RFC 9110 6.4.1] 204 has no body, even if a length is told"] = reads("HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n", ""),
  ["[RFC 9110 15.4.5] 304 has no body, even if it is chunked"] = reads("HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
  ["[RFC 9112 6.3] no body is a body"] = reads(OK .. "Content-Length: 0\r\n\r\n", ""),

  ["[RFC 9112 6.1] both lengths together are refused"] = refuses("protocol", OK .. "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
  ["[RFC 9112 6.3] differing lengths are refused"] = refuses("protocol", OK .. "Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!"),
  ["[RFC 9112 6.3] a list of lengths is refused"] = refuses("protocol", OK .. "Content-Length: 2, 2\r\n\r\nhi"),
  ["[RFC 9110 8.6] a negative length is refused"] = refuses("protocol", OK .. "Content-Length: -2\r\n\r\nhi"),
  ["[RFC 9110 8.6] a length with a sign is refused"] = refuses("protocol", OK .. "Content-Length: +2\r\n\r\nhi"),
  ["[RFC 9110 8.6] a length in hex is refused"] = refuses("protocol", OK .. "Content-Length: 0x2\r\n\r\nhi"),
  ["[RFC 9110 8.6] an empty length is refused"] = refuses("protocol", OK .. "Content-Length:\r\n\r\nhi"),
  ["[RFC 9110 8.6] a length beyond all measure is refused"] = refuses("protocol", OK .. "Content-Length: 99999999999999999999\r\n\r\nhi"),
  ["[RFC 9112 6.1] a coding that is not chunked is refused"] = refuses("protocol", OK .. "Transfer-Encoding: gzip\r\n\r\nhi"),
  ["[RFC 9112 6.1] chunked that is not last is refused"] = refuses("protocol", OK .. "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
  ["[RFC 9112 6.1] chunked twice is refused"] = refuses("protocol", OK .. "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
  ["[RFC 9112 6.1] Transfer-Encoding in HTTP/1.0 is refused"] = refuses("protocol", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
  ["[RFC 9112 2.2] lines that end with LF alone are refused"] = refuses("protocol", "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi"),
  ["[RFC 9112 2.2] a CR alone is refused"] = refuses("protocol", OK .. "X: a\rb\r\nContent-Length: 2\r\n\r\nhi"),
  ["[RFC 9112 5.2] a folded line is refused"] = refuses("protocol", OK .. "X: a\r\n\tb\r\nContent-Length: 2\r\n\r\nhi"),
  ["[RFC 9112 5.1] a space before the colon is refused"] = refuses("protocol", OK .. "Content-Length : 2\r\n\r\nhi"),
  ["[RFC 9112 5] a line without a colon is refused"] = refuses("protocol", OK .. "nonsense\r\nContent-Length: 2\r\n\r\nhi"),
  ["[RFC 9110 5.5] NUL in a value is refused"] = refuses("protocol", OK .. "X: a\0b\r\nContent-Length: 2\r\n\r\nhi"),
  ["[RFC 9112 4] a status of four digits is refused"] = refuses("protocol", "HTTP/1.1 2000 OK\r\n\r\n"),
  ["[RFC 9112 4] a status that is no number is refused"] = refuses("protocol", "HTTP/1.1 abc OK\r\n\r\n"),
  ["[RFC 9112 2.3] HTTP/2 in this way is refused"] = refuses("protocol", "HTTP/2 200\r\n\r\n"),
  ["[RFC 9112 2.3] another protocol is refused"] = refuses("protocol", "220 mail.example.org ESMTP\r\n\r\n"),
  ["[RFC 9110 15.2.2] a change of protocols that nobody asked for is refused"] = refuses("protocol", "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
  ["[RFC 9112 7.1] a chunk's size that is none is refused"] = refuses("protocol", OK .. "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"),
  ["[RFC 9112 7.1] a chunk's size beyond all measure is refused"] = refuses("protocol", OK .. "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
  ["[RFC 9112 7.1] a chunk that is longer than it says is refused"] = refuses("protocol", OK .. "Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n"),

  ["[RFC 9112 8] a body that is shorter than its length is cut"] = refuses("closed", OK .. "Content-Length: 10\r\n\r\nhalf"),
  ["[RFC 9112 8] a chunked body without its last chunk is cut"] = refuses("closed", OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
  ["[RFC 9112 8] a head that is cut is no answer"] = refuses("closed", OK .. "Content-Len"),
  ["no answer at all is closed"] = refuses("closed", ""),
  ["a reset is closed"] = refuses("closed", OK .. "Content-Length: 10\r\n\r\nhalf", "then=reset"),
  ["a stall before the head is a timeout"] = refuses("timeout", "", "then=stall", { timeout = 1 }),
  ["a stall in the head is a timeout"] = refuses("timeout", "HTTP/1.1 2", "then=stall", { idle_timeout = 1 }),
  ["a stall in the body is a timeout"] = refuses("timeout", OK .. "Content-Length: 10\r\n\r\nhalf", "then=stall", { idle_timeout = 1 }),
  ["a head without end is a limit"] = refuses("limit", OK .. ("X: " .. ("y"):rep(1000) .. "\r\n"):rep(10), "then=stall", { head_max = 5000 }),
  ["too many fields are a limit"] = refuses("limit", OK .. ("X: y\r\n"):rep(129) .. "\r\n"),
  ["a body that is too large is a limit"] = refuses("limit", OK .. "Content-Length: 1000\r\n\r\n", "then=stall", { body_max = 999 }),

  ["[RFC 9112 9.2] an answer that nobody asked for is not the next request's"] = function()
    local client <close> = http.client()
    local url = web.odd(OK .. "Content-Length: 5\r\n\r\nfirst" .. OK .. "Content-Length: 4\r\n\r\nevil", "then=keep")
    for _ = 1, 3 do test.equal(assert(client:get(url)).body, "first") end
    local fine = web.odd(OK .. "Content-Length: 5\r\n\r\nfirst", "then=keep")
    test.equal(assert(client:get(fine)).body, "first")
    test.equal(assert(client:get(fine)).body, "second")
  end,
}
