--- Opening a client's connection: to one server or another, in one version or another, with its credentials, and the
--- words that follow CONNACK.

local addresses = require("mqtt.address")
local cosocket = require("cosocket")
local drive = require("net.drive")
local log = require("log").new("mqtt")
local reason = require("mqtt.reason")
local tickets = require("mqtt.ticket")
local trace = require("net.trace")

local now = cosocket.now

--- Seconds for name, connection, handshakes and CONNACK together.
local TIMEOUT = 30
--- Server References followed one after another.
local REFERENCES_MAX = 5

--- A version that a server has taken is the only one from then on.
local ONE_VERSION = { [4] = { 4 }, [5] = { 5 } }

local opening = {}

-- Words -----------------------------------------------------------------------

--- Why the server refused.
---@param connack mqtt.Connack
---@param version mqtt.codec.Version
---@return cosocket.Error
local function refusal(connack, version)
  local properties = connack.properties or {}
  local message = "the server refused the connection: " .. reason.words(connack.reason_code, version, properties)
  return cosocket.error("refused", "mqtt.connect", message, {
    code = connack.reason_code,
    reason = properties.reason_string,
    server_reference = properties.server_reference,
  })
end

-- Asking ----------------------------------------------------------------------

--- Asks a function of the script's for something secret.
---@async
---@param what string
---@param ask any The function, or the value itself.
---@param ... any
---@return any value
---@return cosocket.Error? err
function opening.secret(what, ask, ...)
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
function opening.authenticate(client, data, done)
  local answer, err = opening.secret("authentication.answer", client.options.authentication.answer, data, done)
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
  local password, err = opening.secret("the password function", given.password)
  if err then return nil, err end
  options.password = password or address.password
  local authentication = given.authentication
  if authentication then
    local data
    data, err = opening.secret("authentication.data", authentication.data)
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
  trace.attach(stream, "mqtt", "client")
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
      if err.kind == "timeout" then
        -- Ours, or a deadline of the caller's, which names the wait only.
        local message = "the server did not answer CONNECT"
        return nil, cosocket.error("timeout", "mqtt.connect", message, { cause = err })
      end
      if err.kind ~= "closed" then return nil, err end
      local message = "the server closed the connection instead of answering CONNECT"
      return nil, cosocket.error("closed", "mqtt.connect", message, { cause = err }), true
    elseif event.type == "auth" then
      ok, err = opening.authenticate(client, event.properties and event.properties.authentication_data, false)
      if not ok then return nil, err end
    elseif event.reason_code ~= 0 then
      local other = event.reason_code == reason.unsupported_protocol_version
        or (session.version == 4 and event.reason_code == 1)
      return nil, refusal(event, session.version), other
    else
      if client.options.authentication then
        ok, err = opening.authenticate(client, event.properties and event.properties.authentication_data, true)
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
function opening.redirected(client, address, err)
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
    local others = opening.redirected(client, at, err)
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
function opening.open(client)
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

return opening
