---@meta http.codec

--- The codec of HTTP/1.1 (native): heads, chunked bodies, and the rules of where a message ends (RFC 9112). It knows no
--- socket and no clock.
---
--- Refused on receipt: a bare CR or LF, folded lines, spaces before a colon, invalid names, control characters; more than
--- one Content-Length or Transfer-Encoding, both together, lengths that are lists, signed or too large, codings other than
--- exactly `chunked`, any of them in HTTP/1.0; a request of 1.1 without exactly one valid Host. On sending: everything
--- that could begin another line, and two lengths.
local codec = {}

--- Bits of the flags that heads are decoded to.
---@type integer
codec.KEEP_ALIVE = 1 -- the connection may carry another message after this one (9.3)
---@type integer
codec.EXPECT_CONTINUE = 2 -- a request: the client waits for 100 before it sends the body
---@type integer
codec.UPGRADE = 4 -- `Connection: upgrade` and an `Upgrade` field
---@type integer
codec.ENCODED = 8 -- of `decode_answer`: there is a Content-Encoding
---@type integer
codec.MORE = 16 -- of `decode_answer`: more bytes than were taken are here

--- Lengths of bodies that are no number of bytes (6.3).
---@alias http.Length integer
---@type http.Length
codec.CHUNKED = -1
---@type http.Length
codec.UNTIL_CLOSE = -2 -- a response that ends with its connection
---@type http.Length
codec.TUNNEL = -3 -- 101, or a 2xx answer to CONNECT: what follows is not HTTP

--- Takes the head of a request off the front of `buffer`, or leaves it alone. Up to four empty lines before it are passed
--- over (2.2).
---@param buffer cosocket.Buffer
---@param head_max? integer Bytes of the whole head. Default 65536.
---@param headers_max? integer Field lines. Default 128.
---@param start_line_max? integer Bytes of the first line. Default 8192.
---@return string? method `nil` without an error: not all of it is here.
---@return string|cosocket.Error target `protocol` or `limit`; `code` is the status a server answers with: 400, 414, 417, 431, 501, 505.
---@return integer minor The version is HTTP/1.`minor`.
---@return http.Headers headers
---@return http.Length length
---@return integer flags
function codec.decode_request(buffer, head_max, headers_max, start_line_max) end

--- Takes the head of a response off the front of `buffer`, or leaves it alone.
---@param buffer cosocket.Buffer
---@param method? string Of the request it answers: HEAD has no body, CONNECT makes a tunnel. Default "GET".
---@param head_max? integer As above, and so on.
---@param headers_max? integer
---@param start_line_max? integer
---@return integer? status `nil` without an error: not all of it is here. Below 200 it is an interim one, and another follows.
---@return string|cosocket.Error reason `protocol` or `limit`
---@return integer minor
---@return http.Headers headers
---@return http.Length length
---@return integer flags
function codec.decode_response(buffer, method, head_max, headers_max, start_line_max) end

--- A response as `decode_answer` makes it.
---@class http.RawAnswer
---@field status integer
---@field reason string
---@field ok boolean Whether the status is from 200 to 299.
---@field length http.Length
---@field flags integer
---@field head string For `headers_of`.
---@field body string? All of it, if it was taken, too.

--- As `decode_response`, for who makes an object of every response: one table, and the body in it when its length is known,
--- at most `body_max`, all of it is here and there is no Content-Encoding.
---@param buffer cosocket.Buffer
---@param method string
---@param head_max integer
---@param headers_max integer
---@param body_max integer A negative number takes no body.
---@return http.RawAnswer? answer `nil` without an error: not all of it is here.
---@return cosocket.Error? err `protocol` or `limit`
function codec.decode_answer(buffer, method, head_max, headers_max, body_max) end

--- The header fields of a head.
---@param head string As `decode_answer` answered it.
---@return http.Headers
function codec.headers_of(head) end

--- What becomes fields: headers, a list of pairs, or a table of named values (sorted by name; a list of values makes
--- several lines).
---@alias http.Fields http.Headers|{[1]: string, [2]: string|number}[]|table<string, string|number|string[]>

--- Appends the head of a request. On an error `buffer` is as it was. `Host` and everything else is yours to give.
---@param buffer cosocket.Buffer
---@param method string
---@param target string As it goes onto the wire: percent-encoded.
---@param length? http.Length Adds `Content-Length` or `Transfer-Encoding: chunked`. Without, no such field is added.
---@param headers? http.Fields
---@param more? http.Fields
---@return true? ok
---@return cosocket.Error? err `protocol`: something could begin another line, is no token, or tells a second length.
function codec.encode_request(buffer, method, target, length, headers, more) end

--- Appends the head of a response; else as above.
---@param buffer cosocket.Buffer
---@param status integer
---@param reason? string Default: the standard's phrase.
---@param length? http.Length
---@param headers? http.Fields
---@param more? http.Fields
---@return true? ok
---@return cosocket.Error? err
function codec.encode_response(buffer, status, reason, length, headers, more) end

--- Appends the end of a chunked body: the last chunk, trailers, an empty line. A chunk itself is
--- `stream:write(("%x\r\n"):format(#piece), piece, "\r\n")`, for any piece but an empty one.
---@param buffer cosocket.Buffer
---@param trailers? http.Fields
---@return true? ok
---@return cosocket.Error? err `protocol`: also for fields that cannot be trailers (RFC 9110, 6.5.1).
function codec.encode_last_chunk(buffer, trailers) end

--- The standard's phrase for a status code; empty when there is none.
---@param status integer
---@return string
function codec.phrase(status) end

-- Headers ---------------------------------------------------------------------

--- Field lines in their order and with their case; names are looked up whatever their case.
---
--- `#headers` is the number of lines; `for name, value in pairs(headers)` goes through them in order;
--- `headers["Content-Type"]` is `get`, assigning is `set`, or `del` with `nil`.
---@class http.Headers
---@operator len: integer
---@field [string] string?
local Headers = {}

--- The value of a field; those of several lines joined with ", " (RFC 9110, 5.3), but for Set-Cookie, whose first is
--- answered.
---@param name string
---@return string?
function Headers:get(name) end
--- The values of all lines of this name, in order.
---@param name string
---@return string[]
function Headers:get_all(name) end
--- Name and value of the line at `index`, from 1 on.
---@param index integer
---@return string? name
---@return string? value
function Headers:at(index) end
--- Makes this the only line of its name, where the first of them stood. Raises when the name is no token or the value
--- has a control character.
---@param name string
---@param value string|number Spaces around it are dropped.
function Headers:set(name, value) end
--- Adds a line at the end; raises as `set` does.
---@param name string
---@param value string|number
function Headers:add(name, value) end
--- Takes all lines of this name away.
---@param name string
---@return integer count
function Headers:del(name) end

--- Makes headers, of `init` or none. Headers are copied. Raises as `set` does.
---@param init? http.Fields
---@return http.Headers
function codec.headers(init) end

-- Chunked bodies --------------------------------------------------------------

--- Takes the chunks of one body off the front of a buffer (7.1).
---@class http.Chunked
local Chunked = {}

--- The next piece, at most 64 KiB of it; short chunks are answered together.
---@param buffer cosocket.Buffer What has been understood is taken off its front.
---@return string|false|nil piece `false`: the body has ended. `nil` without an error: more bytes are needed.
---@return http.Headers|cosocket.Error|nil trailers With `false`, perhaps empty. With `nil`: `protocol` or `limit`.
function Chunked:decode(buffer) end
--- How many bytes are left of the chunk one is inside of, 0 when inside of none.
---@return integer
function Chunked:left() end
--- Tells that `count` bytes of this chunk were had without the buffer; at most `left()`.
---@param count integer
function Chunked:pass(count) end
--- Whether the body has ended.
---@return boolean
function Chunked:is_done() end

---@param trailers_size_max? integer Bytes of the trailers. Default 8192.
---@param trailers_max? integer Lines of trailers. Default 64.
---@return http.Chunked
function codec.chunked(trailers_size_max, trailers_max) end

return codec
