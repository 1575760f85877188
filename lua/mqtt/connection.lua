--- The life of a client's connections: running one, losing it, waiting, and trying again (`mqtt.opening`). One task, the
--- owner, does all of it but the first attempt, which is `mqtt.connect`'s.

local cosocket = require("cosocket")
local drive = require("net.drive")
local log = require("log").new("mqtt")
local opening = require("mqtt.opening")
local reason = require("mqtt.reason")

local now = cosocket.now

--- Seconds that what was published before `close` may take to be acknowledged.
local DRAIN = 5
--- Seconds the last bytes may take to leave.
local GOODBYE = 5
--- Seconds the server may take to close after our DISCONNECT.
local LINGER = 1

local connection = {}

-- Errors ----------------------------------------------------------------------

--- Why the connection ends, from the server's DISCONNECT.
---@param packet mqtt.Reason
---@return cosocket.Error
local function told(packet)
  local code, properties = packet.reason_code, packet.properties or {}
  local words = code ~= 0 and reason.words(code, 5, properties) or "normal disconnection"
  return cosocket.error("closed", "mqtt", "the server ended the connection: " .. words, {
    code = code,
    reason = properties.reason_string,
    server_reference = properties.server_reference,
  })
end

--- Why the connection ends, from what the stream said.
---@param err cosocket.Error
---@return cosocket.Error
local function lost(err)
  if err.op:find("^mqtt") then return err end
  local message = ("the connection is lost: %s"):format(err.message)
  return cosocket.error(err.kind, "mqtt", message, { code = err.code, cause = err })
end

-- Running ---------------------------------------------------------------------

--- Sends what is left, and closes so that it arrives.
---@async
---@param client mqtt.Client
local function leave(client)
  local stream, input, output = client.stream, client.input, client.driven.output
  if client.gate then client.gate:pump() end
  local sent = cosocket.deadline(GOODBYE, function()
    while #output > 0 do
      input:clear()
      local ok = stream:turn(input, output)
      if not ok then return nil end
    end
    return stream:shutdown("write")
  end)
  -- A connection that is closed with unread bytes is reset, and the DISCONNECT may be lost with it: the server
  -- closes first.
  if not sent then return end
  cosocket.deadline(LINGER, function()
    repeat input:clear() until not stream:turn(input, output)
  end)
end

--- What the server answered to a subscription that was made again.
---@param client mqtt.Client
---@param ticket mqtt.Ticket
local function check_again(client, ticket)
  for i, code in ipairs(ticket.answer.reason_codes) do
    if code >= 0x80 then
      local words = reason.words(code, client.session.version)
      log.error("the server refused to subscribe us again: " .. words, { filter = ticket.again[i] })
    end
  end
end

--- Deals with one event. Answers why the connection ends, if it does.
---@async
---@param client mqtt.Client
---@param event mqtt.Event
---@return cosocket.Error? err
local function handle(client, event)
  local type = event.type
  if type == "disconnect" then
    return told(event)
  elseif type == "auth" then
    local done = event.reason_code == 0
    client.away = true
    local ok, err = opening.authenticate(client, event.properties and event.properties.authentication_data, done)
    client.away = false
    if not ok then return err end
    if done then client:reauthenticated() end
    client:flush()
  elseif type == "suback" and event.ticket.again then
    check_again(client, event.ticket)
  end
end

--- Takes what comes. Stops at what there is more to do about, and for want of room.
---@param client mqtt.Client
---@param event mqtt.Event
---@return boolean
local function take(client, event)
  local type = event.type
  if type == "publish" then
    local delivery = client.delivery or client:make_delivery()
    delivery:deliver(event)
    local inbox = delivery.inbox
    return inbox.bytes >= inbox.bytes_max
  end
  return type ~= "puback" and type ~= "pubcomp"
end

--- Turns the loop until the connection ends. Answers why.
---@async
---@param client mqtt.Client
---@return cosocket.Error err
local function serve(client)
  local stream, session, driven, input = client.stream, client.session, client.driven, client.input
  local delivery, stop = client.delivery, client.nudge
  while not client.goodbye do
    if delivery and delivery.inbox:is_full() then
      delivery:hold()
      session:pause(true, now())
      local ok, err = drive.hold(stream, driven, delivery.room)
      session:pause(false, now())
      if not ok then return err --[[@as cosocket.Error]] end
    else
      local event, err = drive.serve(stream, driven, input, take, client, stop)
      if err then return err end
      delivery = client.delivery
      if event and event.type ~= "publish" then
        local ended = handle(client, event)
        if ended then return ended end
      end
    end
  end
  return cosocket.error("closed", "mqtt", "this client is closed")
end

--- Lets what was published before `close` be acknowledged, and says goodbye.
---@async
---@param client mqtt.Client
local function say_goodbye(client)
  local session, stream, driven, input = client.session, client.stream, client.driven, client.input
  if session.state == "connected" and not session.outgoing:is_idle() then
    cosocket.deadline(DRAIN, function()
      while not session.outgoing:is_idle() do
        local event, err = drive.next_event(stream, driven, input)
        -- What comes now is not taken any more: unacknowledged, it stays with the server.
        if not event or event.type == "disconnect" then return nil, err end
      end
    end)
  end
  local properties
  -- A session that began with us ends with us (3.14.2.2.2).
  if client.clean and session.version == 5 and (session.options.session_expiry or 0) > 0 then
    properties = { session_expiry_interval = 0 }
  end
  session:disconnect(client.goodbye_reason, properties)
  if client.gate then client.gate:pump() end
end

-- Owning ----------------------------------------------------------------------

--- A connection is over: what it leaves behind.
---@param client mqtt.Client
---@param err cosocket.Error
local function disconnected(client, err)
  local session = client.session
  for _, ticket in ipairs(session:disconnected()) do
    if not ticket.again then client:put_off(ticket) end
  end
  if client.gate then client.gate:disconnected() end
  if client.stream then client.stream:close() end
  client.stream, client.input = nil, nil
  client.last_error = err
end

--- Whether it is worth trying again after `err`.
---@param client mqtt.Client
---@param err cosocket.Error
---@return boolean
local function may_return(client, err)
  if client.goodbye or not client.reconnects then return false end
  -- Somebody else has our client identifier: we would take it from each other for ever.
  return err.code ~= reason.session_taken_over or err.kind ~= "closed"
end

--- Goes first to where the server sent us with its DISCONNECT, when we may.
---@param client mqtt.Client
---@param err cosocket.Error
local function follow(client, err)
  local servers = client.servers
  local others = opening.redirected(client, servers[client.next_server], err)
  if not others then return end
  if client.servers == servers then table.move(servers, 1, #servers, #others + 1, others) end
  client.servers, client.next_server = others, 1
end

--- Waits, and connects again; as often as it takes.
---@async
---@param client mqtt.Client
---@param err cosocket.Error Why there is no connection.
---@return true? ok
---@return cosocket.Error? err
local function come_back(client, err)
  while may_return(client, err) do
    local backoff = client.backoff or client:make_backoff()
    local delay = backoff:next(err)
    client.next_attempt = now() + delay
    log.warn(("not connected, next attempt in %.1f s"):format(delay), { client = client.session.client_id, error = err })
    local ready, why = cosocket.select(client.nudge, delay)
    if ready == nil then return nil, why --[[@as cosocket.Error]] end
    client.next_attempt = nil
    if client.goodbye then break end
    local task = cosocket.spawn("mqtt connecting", opening.open, client)
    cosocket.select(task, client.nudge)
    if client.goodbye then
      task:cancel()
      break
    end
    local ok, failure = task:join()
    if ok then
      log.info("connected again", { client = client.session.client_id })
      return true
    end
    err = failure --[[@as cosocket.Error]]
    client.last_error = err
  end
  return nil, err
end

--- Lets go of everything, however the owner ends; cancelled, too.
local Owner = {}

function Owner:__close()
  local client = self.client
  client:lose(cosocket.error("closed", "mqtt", "the task of this client was cancelled"))
  if client.stream then client.stream:close() end
  client.ended:set()
end

--- The task that owns the connection, and each one after it.
---@async
---@param client mqtt.Client
function connection.own(client)
  local owner <close> = setmetatable({ client = client }, Owner)
  local err
  if not client.stream then
    local ok
    ok, err = opening.open(client)
    client.last_error = err
  end
  while true do
    if not client.stream then
      local ok
      ok, err = come_back(client, err --[[@as cosocket.Error]])
      if not ok then break end
    end
    client:announce("on_connected", client.session.connack)
    err = lost(serve(client))
    if client.backoff then client.backoff:lasted(now() - client.connected_at) end
    if client.goodbye then say_goodbye(client) end
    -- We had the last word, here or in the session: it shall arrive.
    if client.goodbye or err.kind == "protocol" or err.kind == "limit" then leave(client) end
    disconnected(client, err)
    follow(client, err)
    if not may_return(client, err) then break end
    client:announce("on_disconnected", err)
  end
  if client.goodbye then err = cosocket.error("closed", "mqtt", "this client is closed") end
  client:lose(err --[[@as cosocket.Error]])
  if client.gate then client.gate:wait_closed() end
end

return connection
