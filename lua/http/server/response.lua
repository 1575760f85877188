--- A response as a handler sees it: sent whole with `send` and its kin, or piece by piece with `write`.

local codec = require("http.codec")
local cosocket = require("cosocket")
local json = require("json")
local payload = require("http.payload")

local CHUNKED, UNTIL_CLOSE = codec.CHUNKED, codec.UNTIL_CLOSE

---@class http.ServerAnswer
---@field status? integer Default 200, or 204 without a body.
---@field reason? string Default: the standard's phrase.
---@field headers? http.Fields
---@field type? string Content-Type, unless the headers have one.
---@field body? http.Source A string, a buffer, a function, a file: see `http.payload`.
---@field length? integer Bytes that a function will make; without it is sent in chunks.
---@field trailers? http.Fields|fun(): http.Fields? Sent after the body, which is then chunked.

local ANSWER = {
  status = "integer",
  reason = "string",
  headers = "table|userdata",
  type = "string",
  body = "string|userdata|function|table",
  length = "integer",
  trailers = "table|userdata|function",
}

---@class http.ServerResponse
---@field status integer? What was sent.
---@field started boolean The head has been written: nothing of it can be changed any more.
---@field finished boolean
---@field bytes integer Bytes of the body so far.
---@field private connection http.ServerConnection
---@field private method string Of the request.
---@field private minor integer
---@field private framing http.Length?
---@field private broken boolean? The other side cannot tell where this response ends.
local Response = {}
Response.__index = Response
Response.__name = "http.ServerResponse"

--- Whether a response may have a body (RFC 9110, 6.4.1).
---@param status integer
---@return boolean
local function has_body(status)
  return status >= 200 and status ~= 204 and status ~= 304
end

--- Headers of our own to change: those of the handler stay as they are.
---@param fields http.Fields?
---@param media_type string?
---@return http.Headers?
local function own_headers(fields, media_type)
  if not fields and not media_type then return nil end
  local headers = codec.headers(fields)
  if media_type and not headers:get("content-type") then headers:set("Content-Type", media_type) end
  return headers
end

---@param response http.ServerResponse
---@param method string
---@param level integer
local function must_be_new(response, method, level)
  if type(response) ~= "table" or not response.connection then
    cosocket.check_self(response, "response", method, level + 1)
  end
  if response.started then error("a response has been sent already", level + 1) end
end

--- Writes the head.
---@async
---@param self http.ServerResponse
---@param status integer
---@param reason string?
---@param headers http.Headers?
---@param length http.Length? `nil`: no length is told, as in 304.
---@param bytes (string|cosocket.Buffer)? A body that leaves with it.
---@return true? ok
---@return cosocket.Error? err
local function start(self, status, reason, headers, length, bytes)
  local connection = self.connection
  if length == CHUNKED and self.minor == 0 then length = UNTIL_CLOSE end
  if length == UNTIL_CLOSE then connection.keep_alive = false end
  local ok, err = connection:write_head(self, status, reason, headers, length, bytes)
  if not ok then
    -- Wrong headers are the handler's mistake, and nothing has been sent.
    ---@cast err cosocket.Error
    if err.kind == "protocol" then error(err.message, 0) end
    self.started, self.broken = true, true
    return nil, err
  end
  self.status, self.framing, self.started = status, length, true
  return true
end

--- Sends a response, whole.
---
---     response:send("hello")
---     response:send({ status = 404, type = "text/plain", body = "no such thing" })
---     response:send({ headers = { ["Cache-Control"] = "no-store" }, body = function(write) ... end })
---@async
---@param answer string|http.ServerAnswer A text is sent as text/plain.
---@return true? ok
---@return cosocket.Error? err `closed`, `timeout`, or what the body's source failed with; the connection ends then.
function Response:send(answer)
  must_be_new(self, "send", 2)
  local status, reason, headers, source, length, trailers = 200, nil, nil, nil, nil, nil
  if type(answer) == "string" then
    headers, source = self.connection.server.text_headers, answer
  else
    answer = cosocket.check_options("response:send", answer, ANSWER)
    source, reason, length, trailers = answer.body, answer.reason, answer.length, answer.trailers
    headers = own_headers(answer.headers, answer.type)
    status = answer.status or (source == nil and not trailers and 204 or 200)
    if status < 200 or status > 999 then error(("response:send: %d is no final status"):format(status), 2) end
  end
  local is_head = self.method == "HEAD"
  if not has_body(status) then
    if source ~= nil and source ~= "" then error(("response:send: status %d has no body"):format(status), 2) end
    self.finished = true
    return start(self, status, reason, headers)
  end
  if type(source) == "string" and not trailers and (not length or length == #source) then
    self.finished = true
    if is_head then return start(self, status, reason, headers, #source) end
    self.bytes = #source
    return start(self, status, reason, headers, #source, source)
  end
  local body = payload.new("response:send", source or "", length, trailers)
  local ok, err = start(self, status, reason, headers, body.length)
  if not ok or is_head then
    body:close()
    self.finished = true
    return ok, err
  end
  -- Should the source raise, nobody may take what was sent for the whole.
  self.broken = true
  ok, err = body:send(function(...) return self:put(...) end, self.framing)
  self.finished, self.broken = true, not ok
  return ok, err
end

--- Puts bytes of the body onto the wire as they are.
---@private
---@async
---@param ... string|cosocket.Buffer
---@return true? ok
---@return cosocket.Error? err
function Response:put(...)
  for i = 1, select("#", ...) do self.bytes = self.bytes + #(select(i, ...)) end
  local ok, err = self.connection:write(...)
  if not ok then self.broken = true end
  return ok, err
end

--- Begins a response whose body follows with `write`, and ends with `finish` or the handler.
---@async
---@param answer? http.ServerAnswer Without `body`.
---@return true? ok
---@return cosocket.Error? err
function Response:start(answer)
  must_be_new(self, "start", 2)
  answer = cosocket.check_options("response:start", answer, ANSWER)
  if answer.body ~= nil or answer.trailers ~= nil then error("response:start: the body follows with write", 2) end
  local status = answer.status or 200
  if not has_body(status) then error(("response:start: status %d has no body"):format(status), 2) end
  return start(self, status, answer.reason, own_headers(answer.headers, answer.type), answer.length or CHUNKED)
end

--- Sends a piece of the body; the first begins the response if `start` has not. It leaves when the task waits next.
---@async
---@param piece string|cosocket.Buffer
---@return true? ok
---@return cosocket.Error? err `closed` when nobody is there any more, `timeout` when nobody reads.
function Response:write(piece)
  if self.finished then error("a response has been sent already", 2) end
  if not self.started then
    local ok, err = self:start()
    if not ok then return nil, err end
  end
  local size = #piece
  if size == 0 or self.method == "HEAD" then return true end
  local framing = self.framing --[[@as http.Length]]
  if framing == CHUNKED then
    self.bytes = self.bytes + size
    local ok, err = self.connection:write(("%x\r\n"):format(size), piece, "\r\n")
    if not ok then self.broken = true end
    return ok, err
  end
  if framing >= 0 and self.bytes + size > framing then
    self.broken = true
    error(("response:write: the body is longer than the %d bytes that were told"):format(framing), 2)
  end
  return self:put(piece)
end

--- Ends a response begun with `start` or `write`. The handler's end does it, too.
---@async
---@param trailers? http.Fields
---@return true? ok
---@return cosocket.Error? err
function Response:finish(trailers)
  if self.finished then return true end
  if not self.started then error("response:finish: nothing has been started", 2) end
  self.finished = true
  if self.broken then return nil, cosocket.error("closed", "response:finish", "the response was cut short") end
  if self.method == "HEAD" then return true end
  local framing = self.framing --[[@as http.Length]]
  if framing == CHUNKED then
    local last = cosocket.buffer()
    local ok, err = codec.encode_last_chunk(last, trailers)
    if ok then ok, err = self.connection:write(last) end
    self.broken = not ok
    return ok, err
  end
  if framing >= 0 and self.bytes < framing then
    self.broken = true
    local text = ("the body has %d bytes, not the %d that were told"):format(self.bytes, framing)
    return nil, cosocket.error("protocol", "response:finish", text)
  end
  return true
end

--- Sends a value as JSON; raises when it is none.
---@async
---@param value any
---@param status? integer Default 200.
---@return true? ok
---@return cosocket.Error? err
function Response:json(value, status)
  must_be_new(self, "json", 2)
  local text, why = json.encode(value)
  if not text then error(("response:json: %s"):format(why --[[@as cosocket.Error]].message), 2) end
  return self:send({ status = status, type = "application/json", body = text })
end

--- Sends the client elsewhere.
---@async
---@param location string A URL or a path, percent-encoded.
---@param status? 301|302|303|307|308 Default 302.
---@return true? ok
---@return cosocket.Error? err
function Response:redirect(location, status)
  must_be_new(self, "redirect", 2)
  return self:send({ status = status or 302, headers = { Location = location }, body = "" })
end

--- Answers with a status and its phrase as text.
---@async
---@param status integer
---@param text? string
---@param headers? http.Fields
---@return true? ok
---@return cosocket.Error? err
function Response:error(status, text, headers)
  must_be_new(self, "error", 2)
  if not has_body(status) then return self:send({ status = status, headers = headers }) end
  text = text or codec.phrase(status)
  return self:send({ status = status, headers = headers, type = "text/plain; charset=utf-8", body = text .. "\n" })
end

--- Answers an error of `request:body`, `json`, `form` or `upgrade` with the status in its `code`.
---@async
---@param err cosocket.Error
---@return true? ok
---@return cosocket.Error? err
function Response:fail(err)
  local status = math.type(err.code) == "integer" and err.code or 500
  if status < 400 or status > 599 then status = 500 end
  if status == 500 then return self:error(500) end
  -- RFC 9110, 15.5.22
  local headers = status == 426 and err.upgrade and { Upgrade = err.upgrade, Connection = "upgrade" } or nil
  return self:error(status, err.message, headers)
end

-- Server-sent events ----------------------------------------------------------

---@class http.ServerEvent
---@field data? string Lines are sent as lines.
---@field event? string
---@field id? string
---@field retry? number Seconds.

local EVENT = { data = "string", event = "string", id = "string", retry = "number" }

---@class http.ServerEvents
---@field private response http.ServerResponse
local Events = {}
Events.__index = Events
Events.__name = "http.ServerEvents"

--- One field, which must be one line.
---@param name string
---@param value string
---@return string
local function line(name, value)
  if value:find("[\r\n\0]") then error(("events:send: %s must be one line"):format(name), 3) end
  return ("%s: %s\n"):format(name, value)
end

--- Sends an event; a text is its data.
---@async
---@param event string|http.ServerEvent
---@return true? ok
---@return cosocket.Error? err
function Events:send(event)
  if type(event) == "string" then event = { data = event } end
  event = cosocket.check_options("events:send", event, EVENT)
  local parts = {}
  if event.event then parts[#parts + 1] = line("event", event.event) end
  if event.id then parts[#parts + 1] = line("id", event.id) end
  if event.retry then parts[#parts + 1] = ("retry: %d\n"):format(event.retry * 1000 // 1 | 0) end
  if event.data then
    local text = event.data:gsub("\r\n?", "\n")
    for one in (text .. "\n"):gmatch("(.-)\n") do parts[#parts + 1] = ("data: %s\n"):format(one) end
  end
  parts[#parts + 1] = "\n"
  return self.response:write(table.concat(parts))
end

--- Sends a comment, which keeps the connection alive and finds out whether it still is.
---@async
---@param text? string
---@return true? ok
---@return cosocket.Error? err
function Events:comment(text)
  return self.response:write((":%s\n\n"):format((text or ""):gsub("[\r\n]", " ")))
end

--- Ends the stream of events; the handler's end does it, too.
---@async
---@return true? ok
---@return cosocket.Error? err
function Events:close()
  return self.response:finish()
end

--- Begins a stream of server-sent events.
---@async
---@param headers? http.Fields
---@return http.ServerEvents? events
---@return cosocket.Error? err
function Response:events(headers)
  must_be_new(self, "events", 2)
  local own = codec.headers(headers)
  own:set("Content-Type", "text/event-stream")
  if not own:get("cache-control") then own:set("Cache-Control", "no-store") end
  local ok, err = self:start({ headers = own })
  if not ok then return nil, err end
  return setmetatable({ response = self }, Events)
end

local response = {}

---@param connection http.ServerConnection
---@param method string
---@param minor integer
---@return http.ServerResponse
function response.new(connection, method, minor)
  return setmetatable({
    connection = connection,
    method = method,
    minor = minor,
    started = false,
    finished = false,
    bytes = 0,
  }, Response)
end

return response
