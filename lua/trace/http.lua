--- HTTP/1.1: the lines of heads, and the sizes and beginnings of bodies.

local codec = require("http.codec")
local cosocket = require("cosocket")
local mask = require("net.trace.mask")
local secret = require("net.trace.secret")
local text = require("net.trace.text")

--- Bytes of a head.
local HEAD_MAX = 256 * 1024
--- Lines of a head.
local FIELDS_MAX = 1000
--- Bytes of a body, or a chunk, that is waited for; a longer one passes as it comes.
local WHOLE_MAX = 64 * 1024
--- Bytes of the line before a chunk.
local CHUNK_LINE_MAX = 8192

local http = { port = 80, carries = true, alone = true }

---@class net.trace.HttpRequest
---@field method string
---@field headers http.Headers?
---@field answered boolean Finally.
---@field switched boolean What follows is not HTTP.

--- Waits for the end of a head.
---@param lane net.trace.Lane
---@return integer? size
local function head_size(lane)
  -- Empty lines before it are passed over (RFC 9112, 2.2).
  local seen = 0
  while true do
    local line = lane:line(CHUNK_LINE_MAX)
    if line == "\r\n" or line == "\n" then lane:take(#line) else break end
  end
  while true do
    local one, other = lane:find("\n\r\n", seen), lane:find("\n\n", seen)
    if one and (not other or one < other) then return one + 3 end
    if other then return other + 2 end
    seen = math.max(0, lane:count() - 2)
    if lane:count() >= HEAD_MAX or not lane:need(lane:count() + 1) then return nil end
  end
end

--- A line of a head, without what is secret.
---@param line string
---@param number integer 1 is the first of the head.
---@param fill net.trace.Fill
---@param last string?
---@return string line
---@return string? name
local function safe_line(line, number, fill, last)
  if number == 1 then return secret.url(line, fill), nil end
  return secret.field(line, fill, last)
end

--- Takes lines and prints them.
---@param lane net.trace.Lane
---@param bytes string Whole lines.
---@param number integer Of the first.
local function show_lines(lane, bytes, number)
  local shown, kept, last = {}, {}, nil
  for line, ending in bytes:gmatch("([^\n]-)(\r?\n)") do
    kept[#kept + 1] = safe_line(line, number, secret.same, last) .. ending
    local safe, name = safe_line(line, number, secret.short, last)
    if line ~= "" then shown[#shown + 1] = safe end
    number, last = number + 1, name
  end
  lane:take(#bytes, table.concat(kept))
  for _, line in ipairs(shown) do lane:say(line) end
end

--- Says what passed of a body.
---@param lane net.trace.Lane
---@param what string
---@param size integer
---@param first string
---@param coding string?
local function say_body(lane, what, size, first, coding)
  if coding then
    lane:say(("%s %s (%s)"):format(what, text.size(size), coding))
  elseif size == 0 or lane.limit == 0 then
    lane:say(("%s %s"):format(what, text.size(size)))
  else
    local shown = lane:quote(first)
    if size > #first and shown:sub(-3) ~= "..." then shown = shown .. "..." end
    lane:say(("%s %s %s"):format(what, text.size(size), shown))
  end
end

--- So many bytes of a body.
---@param lane net.trace.Lane
---@param what string
---@param length number
---@param coding string?
---@param masking net.trace.Mask Of the body.
---@return boolean whole
local function pass_piece(lane, what, length, coding, masking)
  if length <= WHOLE_MAX and lane:need(length --[[@as integer]]) then
    local bytes = masking:feed(lane:peek(length --[[@as integer]]))
    lane:take(#bytes, bytes)
    say_body(lane, what, #bytes, bytes, coding)
    return true
  end
  local first, size = lane:pass(length, masking)
  local whole = size == length or length == math.huge
  say_body(lane, whole and what or what .. ", unfinished,", size, first, coding)
  return whole
end

--- RFC 9112, 7.1.
---@param lane net.trace.Lane
---@param coding string?
---@return boolean whole
local function pass_chunks(lane, coding)
  -- What begins in one chunk may end in another.
  local masking = mask.new()
  while true do
    local line = lane:line(CHUNK_LINE_MAX)
    if not line then return false end
    local digits = line:sub(-1) == "\n" and line:match("^(%x+)[ \t;\r\n]")
    local length = digits and #digits <= 12 and tonumber(digits, 16)
    if not length then
      lane:say("no chunk begins like this; the rest is not decoded")
      return false
    end
    lane:take(#line)
    if length == 0 then break end
    if not pass_piece(lane, "chunk", length, coding, masking) or not lane:need(1) then return false end
    local ending = lane:line(2)
    if ending ~= "\r\n" and ending ~= "\n" then
      lane:say("a chunk is followed by something else than the end of a line; the rest is not decoded")
      return false
    end
    lane:take(#ending)
  end
  lane:say("last chunk")
  local last, name = nil, nil
  while true do
    local line = lane:line(CHUNK_LINE_MAX)
    if not line then return false end
    local plain = line:gsub("\r?\n$", "")
    if plain == "" then
      lane:take(#line)
      return true
    end
    local safe = secret.field(plain, secret.same, last)
    lane:take(#line, safe .. line:sub(#plain + 1))
    plain, name = secret.field(plain, secret.short, last)
    lane:say(plain)
    last = name
    -- Of one that is too long, nobody knows what the rest is.
    if line:sub(-1) ~= "\n" and not lane:pass_line() then return false end
  end
end

---@param lane net.trace.Lane
---@param length http.Length
---@param headers http.Headers
---@return boolean whole
local function pass_body(lane, length, headers)
  local coding = headers:get("content-encoding")
  if coding and coding:lower() == "identity" then coding = nil end
  if length == 0 then return true end
  if length == codec.CHUNKED then return pass_chunks(lane, coding) end
  return pass_piece(lane, "body", length == codec.UNTIL_CLOSE and math.huge or length, coding, mask.new())
end

--- A head that the codec refuses is shown all the same.
---@param lane net.trace.Lane
---@param bytes string
---@param err cosocket.Error?
local function refuse(lane, bytes, err)
  show_lines(lane, bytes, 1)
  lane:say(("this is not right: %s; the rest is not decoded"):format(err and err.message or "the head is incomplete"))
end

---@param lane net.trace.Lane
local function follow_requests(lane)
  local requests = lane.state.requests
  while true do
    local size = head_size(lane)
    if not size then return end
    local bytes = lane:peek(size)
    local method, target, _, headers, length, flags = codec.decode_request(cosocket.buffer(bytes), HEAD_MAX, FIELDS_MAX, HEAD_MAX)
    if not method then return refuse(lane, bytes, target --[[@as cosocket.Error]]) end
    ---@type net.trace.HttpRequest
    local request = { method = method, headers = headers, answered = false, switched = false }
    requests[#requests + 1] = request
    show_lines(lane, bytes, 1)
    if not pass_body(lane, length, headers) then return end
    if method == "CONNECT" or flags & codec.UPGRADE ~= 0 then
      -- What follows is what the answer makes it.
      if not lane:wait(function() return request.answered end) then return end
      if request.switched then return lane:become(lane.state.next, lane.state.of_next) end
    end
  end
end

--- What an upgrade leads to.
---@param request net.trace.HttpRequest?
---@param status integer
---@param headers http.Headers
---@return string protocol
---@return table state
local function upgraded(request, status, headers)
  local upgrade = status == 101 and headers:get("upgrade")
  if upgrade and upgrade:lower() == "websocket" then
    return "websocket", {
      subprotocol = headers:get("sec-websocket-protocol"),
      extensions = headers:get("sec-websocket-extensions"),
    }
  end
  -- What runs in a tunnel is said by whoever opened it.
  return upgrade and request and upgrade:lower():match("^[%w_]+$") or "tcp", {}
end

---@param lane net.trace.Lane
local function follow_responses(lane)
  local requests = lane.state.requests
  while true do
    local size = head_size(lane)
    if not size then return end
    local bytes = lane:peek(size)
    local request = requests[1]
    local status, reason, _, headers, length =
      codec.decode_response(cosocket.buffer(bytes), request and request.method, HEAD_MAX, FIELDS_MAX, HEAD_MAX)
    if not status then return refuse(lane, bytes, reason --[[@as cosocket.Error]]) end
    show_lines(lane, bytes, 1)
    if status >= 200 or status == 101 then
      table.remove(requests, 1)
      if length == codec.TUNNEL then
        lane.state.next, lane.state.of_next = upgraded(request, status, headers)
        if request then
          request.answered, request.switched = true, true
        end
        return lane:become(lane.state.next, lane.state.of_next)
      end
      if request then request.answered = true end
      if not pass_body(lane, length, headers) then return end
    end
  end
end

---@param lane net.trace.Lane
function http.follow(lane)
  lane.state.requests = lane.state.requests or {}
  if lane.is_client then return follow_requests(lane) end
  return follow_responses(lane)
end

return http
