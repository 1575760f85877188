--- The life of a client's connections: opening one, running it, losing it, waiting, and trying again. One task, the
--- owner, does all of it but the first attempt, which is `mqtt.connect`'s.

local addresses = require("mqtt.address")
local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local drive = require("net.drive")
local log = require("log").new("mqtt")
local reason = require("mqtt.reason")
local tickets = require("mqtt.ticket")

local now = cosocket.now

--- Seconds for name, connection, handshakes and CONNACK together.
local TIMEOUT = 30
--- Seconds that what was published before `close` may take to be acknowledged.
local DRAIN = 5
--- Seconds the last bytes may take to leave.
local GOODBYE = 5
--- Seconds the server may take to close after our DISCONNECT.
local LINGER = 1
--- Server References followed one after another.
local REFERENCES_MAX = 5

--- A version that a server has taken is the only one from then on.
local ONE_VERSION = { [4] = { 4 }, [5] = { 5 } }

local connection = {}

-- Errors ----------------------------------------------------------------------

--- The server's words for a reason code.
---@param code integer
---@param version mqtt.codec.Version?
---@param properties mqtt.Properties
---@return string
local function words_of(code, version, properties)
  local words = codec.reason(code, version) or ("reason code 0x%02X"):format(code)
  local said = properties.reason_string
  return said and ("%s (%s)"):format(words, said) or words
end

--- Why the server refused.
---@param connack mqtt.Connack
---@param version mqtt.codec.Version
---@return cosocket.Error
local function refusal(connack, version)
  local properties = connack.properties or {}
  local message = "the server refused the connection: " .. words_of(connack.reason_code, version, properties)
  return cosocket.error("refused", "mqtt.connect", message, {
    code = connack.reason_code,
    reason = properties.reason_string,
    server_reference = properties.server_reference,
  })
end

--- Why the connection ends, from the server's DISCONNECT.
---@param packet mqtt.Reason
---@return cosocket.Error
local function told(packet)
  local code, properties = packet.reason_code, packet.properties or {}
  local words = code ~= 0 and words_of(code, 5, properties) or "normal disconnection"
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

-- Connecting ------------------------------------------------------------------

--- Asks a function of the script's for something secret.
---@async
---@param what string
---@param ask any The function, or the value itself.
---@param ... any
---@return any value
---@return cosocket.Error? err
function connection.secret(what, ask, ...)
  if type(ask) ~= "function" then return ask end
  local ok, value, err = pcall(ask, ...)
  if not ok then
    if cosocket.is_error(value, "cancelled") then error(value, 0) end
    err = value
  end
  if err == nil then return value end
  local message = ("%s failed: %s"):format(what, type(err) == "table" and err.message or tostring(err))
  return nil, cosocket.error("refused", "mqtt.connect", message, { code = reason.not_authorized, cause = err })
end

--- Answers the server's AUTH.
---@async
---@param client mqtt.Client
---@param data string?
---@param done boolean The server is content.
---@return true? ok
---@return cosocket.Error? err
local function authenticate(client, data, done)
  local answer, err = connection.secret("authentication.answer", client.options.authentication.answer, data, done)
  if err then return nil, err end
  if done then return true end
  return client.session:authenticate(answer, now())
end

--- What CONNECT carries that may change from one connection to the next.
---@async
---@param client mqtt.Client
---@param address mqtt.Address
---@return true? ok
---@return cosocket.Error? err
local function prepare(client, address)
  local options, given = client.session.options, client.options
  options.username = given.username or address.username
  local password, err = connection.secret("the password function", given.password)
  if err then return nil, err end
  options.password = password or address.password
  local authentication = given.authentication
  if authentication then
    local data
    data, err = connection.secret("authentication.data", authentication.data)
    if err then return nil, err end
    options.authentication_method, options.authentication_data = authentication.method, data
  end
  return true
end

--- Whether to begin with a clean session. What 3.1.1 calls so is also forgotten afterwards.
---@param client mqtt.Client
---@return boolean
local function starts_clean(client)
  if client.session.version == 4 then return client.clean end
  return (client.clean or client.fresh == true) and client.connections == 0
end

--- Opens a stream to one server and asks it once, in one version.
---@async
---@param client mqtt.Client
---@param address mqtt.Address
---@param deadline number
---@param clean boolean
---@return mqtt.Connack? connack
---@return cosocket.Error? err
---@return boolean? other_version Another version may be what the server wants.
local function ask(client, address, deadline, clean)
  local session, gate = client.session, client.gate
  local ok, stream, err
  if gate then
    ok, err = gate:recover()
    if not ok then return nil, err end
  end
  stream, err = addresses.open(address, client.options.tls, math.max(0, deadline - now()))
  if not stream then return nil, err end
  local input = cosocket.buffer()
  client.opening = stream
  local owned <close> = setmetatable({}, {
    __close = function()
      client.opening = nil
      if client.stream ~= stream then
        session:disconnected()
        if gate then gate:disconnected() end
        stream:close()
      end
    end,
  })
  ok, err = prepare(client, address)
  if not ok then return nil, err end
  session.options.timeout = math.max(0, deadline - now())
  ok, err = session:connect(now(), clean)
  if not ok then return nil, err end
  while true do
    if gate then gate:pump() end
    local event
    event, err = drive.next_event(stream, client.driven, input)
    if not event then
      ---@cast err cosocket.Error
      if err.kind ~= "closed" then return nil, err end
      local message = "the server closed the connection instead of answering CONNECT"
      return nil, cosocket.error("closed", "mqtt.connect", message, { cause = err }), true
    elseif event.type == "auth" then
      ok, err = authenticate(client, event.properties and event.properties.authentication_data, false)
      if not ok then return nil, err end
    elseif event.reason_code ~= 0 then
      local other = event.reason_code == reason.unsupported_protocol_version
        or (session.version == 4 and event.reason_code == 1)
      return nil, refusal(event, session.version), other
    else
      if client.options.authentication then
        ok, err = authenticate(client, event.properties and event.properties.authentication_data, true)
        if not ok then return nil, err end
      end
      client.stream, client.input = stream, input
      return event
    end
  end
end

--- Ends a connection that has done what it was for.
---@param client mqtt.Client
local function hang_up(client)
  local stream = client.stream --[[@as cosocket.Stream]]
  client.session:disconnect()
  if client.gate then client.gate:pump() end
  stream:try_flush(client.driven.output)
  client.session:disconnected()
  if client.gate then client.gate:disconnected() end
  stream:close()
  client.stream, client.input = nil, nil
end

--- Connects to one server in one version. A session that the server remembers and our store does not know would make
--- nonsense of packet identifiers: it is begun anew [MQTT-3.2.2-4]. 3.1.1 has no word for that but two connections.
---@async
---@param client mqtt.Client
---@param address mqtt.Address
---@param deadline number
---@return mqtt.Connack? connack
---@return cosocket.Error? err
---@return boolean? other_version
local function begin(client, address, deadline)
  local connack, err, other_version = ask(client, address, deadline, starts_clean(client))
  if not connack or not client.fresh or not connack.session_present then return connack, err, other_version end
  for _, clean in ipairs({ true, false }) do
    hang_up(client)
    connack, err = ask(client, address, deadline, clean)
    if not connack then return nil, err end
  end
  return connack
end

--- Where else the server sends us, when we may go there.
---@param client mqtt.Client
---@param address mqtt.Address
---@param err cosocket.Error
---@return mqtt.Address[]? addresses
local function redirected(client, address, err)
  local reference, code = err.server_reference, err.code
  if not client.options.follow_reference or not reference then return nil end
  if code ~= reason.use_another_server and code ~= reason.server_moved then return nil end
  local others = addresses.references(reference, address)
  if not others[1] then return nil end
  -- [MQTT-4.11]: moved for good, or for this time.
  if code == reason.server_moved then client.servers = others end
  return others
end

--- Tries one server, in each version that is wanted, and those it refers to.
---@async
---@param client mqtt.Client
---@param address mqtt.Address
---@param deadline number
---@return mqtt.Connack? connack
---@return cosocket.Error? err
local function try(client, address, deadline)
  local queue, followed, last_err = { address }, 0, nil
  while queue[1] do
    local at = table.remove(queue, 1)
    local err
    for i, version in ipairs(client.versions) do
      local connack, other_version
      client.session.version = version
      connack, err, other_version = begin(client, at, deadline)
      if connack then
        -- The session is one of this version from now on.
        client.versions = ONE_VERSION[version]
        return connack
      end
      if not other_version or i == #client.versions then break end
    end
    ---@cast err cosocket.Error
    last_err = err
    local others = redirected(client, at, err)
    if others and followed < REFERENCES_MAX then
      followed = followed + 1
      queue = others
    end
  end
  return nil, last_err
end

--- Tells the server again what it has forgotten, and what it was not asked yet.
---@param client mqtt.Client
---@param connack mqtt.Connack
local function catch_up(client, connack)
  local session, can = client.session, connack.properties or {}
  if not connack.session_present and client.subscriptions then
    for _, packet in ipairs(client.subscriptions:packets(can.subscription_identifier_available ~= false)) do
      local filters = {}
      for i, subscription in ipairs(packet.subscriptions) do filters[i] = subscription.filter end
      local ticket, err = session:ask(tickets.new({ type = "subscribe", packet = packet, again = filters }), now())
      if not ticket then log.error("a subscription could not be made again", { error = err }) end
    end
  end
  local requests = client.requests
  client.requests = nil
  for _, ticket in ipairs(requests or {}) do
    local ok, err = true, nil
    local packet = ticket.packet
    if ticket.type == "subscribe" then ok, err = session:allows(packet.subscriptions, packet.properties) end
    if ok then ok, err = session:ask(ticket, now()) end
    if not ok then ticket:finish(nil, err) end
  end
  session:resume(now())
end

--- Tries each server in turn, once round.
---@async
---@param client mqtt.Client
---@return true? ok
---@return cosocket.Error? err
function connection.open(client)
  local servers = client.servers
  local last_err
  for _ = 1, #servers do
    if client.next_server > #servers then client.next_server = 1 end
    local connack, err = try(client, servers[client.next_server], now() + (client.options.timeout or TIMEOUT))
    if connack then
      client.connections = client.connections + 1
      client.connected_at, client.fresh = now(), nil
      if client.gate then client.journal:identify(client.session.client_id) end
      catch_up(client, connack)
      client:flush()
      client:tell_change()
      return true
    end
    last_err = err
    client.next_server = client.next_server + 1
    servers = client.servers
    if client.goodbye then break end
  end
  return nil, last_err
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
      local words = codec.reason(code, client.session.version) or tostring(code)
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
    local ok, err = authenticate(client, event.properties and event.properties.authentication_data, done)
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
  local others = redirected(client, servers[client.next_server], err)
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
    local task = cosocket.spawn("mqtt connecting", connection.open, client)
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
    ok, err = connection.open(client)
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
