--- One connection of a server: requests come off it one after another, and each is answered before the next.

local body = require("http.body")
local codec = require("http.codec")
local cosocket = require("cosocket")
local log = require("log").new("http.server")
local requests = require("http.server.request")
local responses = require("http.server.response")
local trace = require("net.trace")

local now, deadline = cosocket.now, cosocket.deadline
local decode_request, encode_response = codec.decode_request, codec.encode_response
local new_request, new_response = requests.new, responses.new
local KEEP_ALIVE, EXPECT_CONTINUE, UPGRADE = codec.KEEP_ALIVE, codec.EXPECT_CONTINUE, codec.UPGRADE

--- Bytes of a body that are copied behind their head rather than sent by themselves.
local TOGETHER_MAX = 16384
--- Bytes of one write, which has its time.
local WRITE_MAX = 65536
--- Bytes of a request's body that are read and dropped, so that the connection can go on.
local DISCARD_MAX = 65536
--- Bytes and seconds a client gets to read our last words while it is still sending (RFC 9112, 9.6).
local LINGER_BYTES, LINGER = 1048576, 2

--- Nothing to send: what `turn` sends while a request is awaited. It stays empty.
local NOTHING = cosocket.buffer()

---@class http.ServerConnection
---@field server http.Server
---@field stream cosocket.Stream
---@field task cosocket.Task
---@field keep_alive boolean Whether another request may follow the present one.
---@field private input cosocket.Buffer
---@field private upgraded boolean? The stream belongs to somebody else now.
---@field private requests integer
---@field private flags integer Of the present request.
---@field private reader http.Reader? Of the present request.
---@field private response http.ServerResponse? To the present request.
local Connection = {}
Connection.__index = Connection

--- Connections with which another task goes on. It costs them no field, for which there may be no room in their tables.
---@type table<http.ServerConnection, true>
local handed = {}

-- Writing ---------------------------------------------------------------------

--- Writes what is long part by part: who reads slowly, but reads, has time for each.
---@async
---@param self http.ServerConnection
---@param ... string|cosocket.Buffer
---@return true? ok
---@return cosocket.Error? err
local function write_long(self, ...)
  local stream, seconds = self.stream, self.server.options.write_timeout
  for i = 1, select("#", ...) do
    local bytes = select(i, ...)
    local part = type(bytes) == "string" and bytes.sub or function(_, from) return bytes:peek(WRITE_MAX, from - 1) end
    for from = 1, #bytes, WRITE_MAX do
      local ok, err = deadline(seconds, stream.write, stream, part(bytes, from, from + WRITE_MAX - 1))
      if not ok then return nil, err end
    end
  end
  return true
end

--- Writes, and gives up when the client does not read.
---@async
---@param ... string|cosocket.Buffer
---@return true? ok
---@return cosocket.Error? err
function Connection:write(...)
  for i = 1, select("#", ...) do
    if #(select(i, ...)) > WRITE_MAX then return write_long(self, ...) end
  end
  local stream = self.stream
  return deadline(self.server.options.write_timeout, stream.write, stream, ...)
end

--- Sends what the server's common buffer holds. Another task may use it as soon as this one waits, so it is empty by then.
---@async
---@param connection http.ServerConnection
---@param out cosocket.Buffer
---@return true? ok
---@return cosocket.Error? err
local function send_out(connection, out)
  local ok, err = connection.stream:try_flush(out)
  if #out == 0 then return ok, err end
  local rest = out:take() --[[@as string]]
  if not ok then return nil, err end
  return connection:write(rest)
end

--- Whether what is left of the request's body will be read and dropped.
---@param reader http.Reader
---@return boolean
local function is_short(reader)
  if reader.ended then return true end
  -- A client that waits for 100 may send its body or not, now that it is answered.
  if reader.err or reader.on_wait then return false end
  return reader.length < 0 or reader.length - reader.received <= DISCARD_MAX
end

--- Writes the head of a response, and a body if it is at hand.
---@async
---@param response http.ServerResponse
---@param status integer
---@param reason string?
---@param headers http.Headers?
---@param length http.Length?
---@param bytes (string|cosocket.Buffer)?
---@return true? ok
---@return cosocket.Error? err `protocol`: the headers cannot be sent, and nothing has been.
function Connection:write_head(response, status, reason, headers, length, bytes)
  local server, reader = self.server, self.reader
  if reader and not is_short(reader) or server.stopping then self.keep_alive = false end
  local has_date, kept = false, nil
  if headers and headers ~= server.text_headers then
    local given = headers:get("connection")
    if given then
      headers:del("connection")
      for option in given:lower():gmatch("[^,%s]+") do
        if option == "close" then
          self.keep_alive = false
        elseif option ~= "keep-alive" then
          kept = kept and kept .. ", " .. option or option
        end
      end
      -- Whether the connection goes on is ours to say.
      if kept then headers:set("Connection", self.keep_alive and kept or kept .. ", close") end
    end
    has_date = headers:get("date") ~= nil
  end
  local persistence = not self.keep_alive and "close" or response.minor == 0 and "keep-alive" or "plain"
  local common = server:common_headers(kept and "plain" or persistence, has_date)
  local out = server.output
  local ok, err = encode_response(out, status, reason, length, common, headers)
  if not ok then return nil, err end
  if bytes and #bytes <= TOGETHER_MAX then
    out:append(bytes)
    bytes = nil
  end
  ok, err = send_out(self, out)
  if ok and bytes then ok, err = self:write(bytes) end
  if not ok then self.keep_alive = false end
  return ok, err
end

--- Hands the stream over; see `request:upgrade`.
---@async
---@param request http.ServerRequest
---@param protocol string
---@param headers? http.Fields
---@return cosocket.Stream? stream
---@return cosocket.Buffer|cosocket.Error unread
function Connection:upgrade(request, protocol, headers)
  local response = self.response --[[@as http.ServerResponse]]
  if response.started then error("request:upgrade: a response has been sent already", 3) end
  if request.body_length ~= 0 then
    local text = "a request with a body is not upgraded here"
    return nil, cosocket.error("protocol", "http.upgrade", text, { code = 400 })
  end
  local own = codec.headers(headers)
  own:set("Connection", "Upgrade")
  own:set("Upgrade", protocol)
  local out = self.server.output
  local ok, err = encode_response(out, 101, nil, nil, own)
  if not ok then error(err --[[@as cosocket.Error]].message, 3) end
  ok, err = send_out(self, out)
  self.keep_alive = false
  response.status, response.started, response.finished = 101, true, true
  if not ok then return nil, err --[[@as cosocket.Error]] end
  local input = self.input
  self.upgraded, self.input = true, NOTHING
  return self.stream, input
end

-- Answering -------------------------------------------------------------------

--- An error with where it happened, for the log.
---@param err any
---@return any
local function traced(err)
  if cosocket.is_error(err, "cancelled") then return err end
  return debug.traceback(tostring(err), 2)
end

--- Answers a path that has a route, but not for this method.
---@async
---@param request http.ServerRequest
---@param response http.ServerResponse
---@param allow string
local function not_allowed(request, response, allow)
  if request.method == "OPTIONS" then
    response:send({ status = 204, headers = { Allow = allow } })
  else
    response:error(405, nil, { Allow = allow })
  end
end

--- Finds the handler and calls it.
---@async
---@param server http.Server
---@param request http.ServerRequest
---@param response http.ServerResponse
local function dispatch(server, request, response)
  local handler, parameters, allow = server.routes:find(request.method, request.path)
  if handler then
    if parameters then request.params = parameters end
    return handler(request, response)
  end
  if server.handler then return server.handler(request, response) end
  if allow then return not_allowed(request, response, allow) end
  if request.path == "*" then
    response:send({ status = 204 })
  elseif request.method == "CONNECT" then
    response:error(501)
  else
    response:error(404)
  end
end

---@param connection http.ServerConnection
---@param request http.ServerRequest
---@param response http.ServerResponse
---@param began number
local function note(connection, request, response, began)
  -- No query and no headers: they may hold what is nobody's business.
  log.info(("%s %s %s"):format(request.method, request.path, response.status or "-"), {
    peer = connection.stream:peer_address(),
    bytes = response.bytes,
    seconds = ("%.6f"):format(now() - began),
  })
end

--- Ends a request whose handler has returned or failed.
---@async
---@param self http.ServerConnection
---@param request http.ServerRequest
---@param response http.ServerResponse
---@param ok boolean
---@param err any
local function conclude(self, request, response, ok, err)
  if not ok then
    if cosocket.is_error(err, "cancelled") then error(err, 0) end
    log.error(("%s %s: %s"):format(request.method, request.path, tostring(err)))
  elseif not response.started then
    log.error(("%s %s: the handler has sent no response"):format(request.method, request.path))
  end
  if not response.started then
    -- Nothing of what went wrong is told to a stranger.
    response:error(500)
  elseif not response.finished then
    if ok then response:finish() else response.broken = true end
  end
  if response.broken then self.keep_alive = false end
end

--- Begins a request.
---@private
---@param flags integer
---@return number? began When it will be logged.
function Connection:begin(flags)
  local options = self.server.options
  self.requests = self.requests + 1
  self.keep_alive = flags & KEEP_ALIVE ~= 0 and self.requests < options.requests_max
  return options.access_log and log.enabled("info") and now() or nil
end

--- Ends a request after its handler.
---@private
---@async
---@param request http.ServerRequest
---@param response http.ServerResponse
---@param ok boolean
---@param err any
function Connection:finish(request, response, ok, err)
  if not ok or not response.finished then conclude(self, request, response, ok, err) end
  if response.broken then self.keep_alive = false end
  if self.upgraded and not ok then self.stream:close() end
end

--- Answers one request. `true` when another may follow.
---@private
---@async
---@param method string
---@param target string
---@param minor integer
---@param headers http.Headers
---@param length http.Length
---@param flags integer
---@return boolean
function Connection:answer(method, target, minor, headers, length, flags)
  local server = self.server
  local options = server.options
  local began = self:begin(flags)
  local request = new_request(self, method, target, minor, headers, length, flags)
  local response = new_response(self, method, minor)
  self.response = response
  local reader
  if length ~= 0 then
    reader = body.reader(self.stream, self.input, length, {
      size_max = options.body_max,
      timeout = options.body_timeout,
      on_wait = flags & EXPECT_CONTINUE ~= 0 and function()
        -- A final response says it all (RFC 9110, 10.1.1).
        if response.started then return true end
        return self:write("HTTP/1.1 100 Continue\r\n\r\n")
      end or nil,
    })
    request.reader, self.reader = reader, reader
  end
  if reader and reader.err and length >= 0 then
    -- Larger than we take, and it says so itself: nobody needs to read it.
    response:error(413)
  else
    self:finish(request, response, xpcall(dispatch, traced, server, request, response))
  end
  if began then note(self, request, response, began) end
  self.response = nil
  if not reader then return self.keep_alive end
  self.reader = nil
  if not reader.ended and self.keep_alive then
    -- Chunks may turn out to be more than we would drop.
    self.keep_alive = deadline(options.body_timeout, reader.discard, reader, DISCARD_MAX) == true
  end
  if not reader.ended then self:linger() end
  return self.keep_alive
end

--- Ends our direction, and drops what the client is still sending: closing at once would reset the connection, and the
--- client might never see our answer.
---@private
---@async
function Connection:linger()
  local stream, input = self.stream, self.input
  input:clear()
  deadline(LINGER, function()
    if not stream:shutdown("write") then return end
    local dropped = 0
    while dropped < LINGER_BYTES do
      local count = stream:fill(input)
      if not count then return end
      dropped = dropped + count
      input:clear()
    end
  end)
end

--- Answers what is no request.
---@private
---@async
---@param err cosocket.Error
function Connection:refuse(err)
  local status = math.type(err.code) == "integer" and err.code or 400
  log.info(("refused with %d: %s"):format(status, err.message), { peer = self.stream:peer_address() })
  self.keep_alive = false
  local response = new_response(self, "GET", 1)
  if response:error(status, err.message) then self:linger() end
end

--- Awaiting the next request has ended without one. Nobody who has sent nothing is told anything when the time is over.
---@private
---@async
---@param err cosocket.Error
function Connection:give_up(err)
  if err.kind == "timeout" then
    if #self.input == 0 then return end
    self:refuse(cosocket.error("timeout", "http.server", "the request did not come in time", { code = 408 }))
  elseif err.kind ~= "closed" then
    log.info(tostring(err), { peer = self.stream:peer_address() })
  end
end

--- Lets go of the connection, however its task ended.
function Connection:__close()
  if handed[self] then
    handed[self] = nil
    return
  end
  self.server:forget(self)
  if not self.upgraded then
    self.stream:close()
    -- The collector does not know how much memory half a body holds.
    self.input:clear()
  end
end

local connection = {}

---@param server http.Server
---@param stream cosocket.Stream
---@return http.ServerConnection
function connection.new(server, stream)
  trace.attach(stream, "http", "server")
  return setmetatable({
    server = server,
    stream = stream,
    input = cosocket.buffer(),
    keep_alive = true,
    requests = 0,
  }, Connection)
end

---@param options http.ServerOptions
---@param input cosocket.Buffer
local function decode(options, input)
  return decode_request(input, options.head_max, options.headers_max, options.start_line_max)
end

--- Ends a request that asked for another protocol.
---@async
---@param self http.ServerConnection
---@param ok boolean
---@param err any
---@param traceback string?
---@return boolean goes_on
local function conclude_upgrade(self, ok, err, traceback)
  local serving <close> = self
  local response = self.response --[[@as http.ServerResponse]]
  local request, began = response.request --[[@as http.ServerRequest]], response.began
  if not ok and not cosocket.is_error(err, "cancelled") then
    err = tostring(err) .. (traceback and traceback ~= "" and "\n" .. traceback or "")
  end
  self:finish(request, response, ok, err)
  if began then note(self, request, response, began) end
  self.response = nil
  -- It is not let go of here, then.
  if self.keep_alive then handed[self] = true end
  return self.keep_alive
end

--- Goes on after the handler of such a request.
---@async
---@param self http.ServerConnection
---@param ok boolean
---@param err any
---@param traceback string?
local function after_upgrade(self, ok, err, traceback)
  if conclude_upgrade(self, ok, err, traceback) then connection.serve(self) end
end

---@async
---@param self http.ServerConnection
---@param request http.ServerRequest
---@param response http.ServerResponse
local function dispatch_for(self, request, response) return dispatch(self.server, request, response) end

--- Answers a request that asks for another protocol. What is spoken then may last for days, mostly in silence: the handler
--- gets a task of its own, with nothing under it on its stack, where the one that read the request has grown.
---@param self http.ServerConnection
---@param method string
---@param target string
---@param minor integer
---@param headers http.Headers
---@param flags integer
local function hand_over(self, method, target, minor, headers, flags)
  local began = self:begin(flags)
  local request, response = new_request(self, method, target, minor, headers, 0, flags), new_response(self, method, minor)
  response.request, response.began = request, began
  self.response, handed[self] = response, true
  self.task = cosocket.spawn_then(after_upgrade, dispatch_for, self, request, response)
end

--- Serves a connection to its end: a task. Ten thousand may be parked in here, so that it keeps little on its stack.
---@async
---@param self http.ServerConnection
function connection.serve(self)
  local serving <close> = self
  local server, input, since = self.server, self.input, nil
  while true do
    local method, target, minor, headers, length, flags = decode(server.options, input)
    if method then
      since = nil
      if flags & UPGRADE ~= 0 and length == 0 then
        return hand_over(self, method, target --[[@as string]], minor, headers --[[@as http.Headers]], flags --[[@as integer]])
      end
      if not self:answer(method, target --[[@as string]], minor, headers, length, flags) then return end
    elseif target then
      return self:refuse(target --[[@as cosocket.Error]])
    else
      local at
      if #input > 0 then
        since = since or now()
        at = since + server.options.head_timeout
      else
        if server.stopping then return end
        at = now() + server.options.idle_timeout
      end
      local ok, err = self.stream:turn(input, NOTHING, at)
      if not ok then return self:give_up(err --[[@as cosocket.Error]]) end
    end
  end
end

return connection
