--- Who a client is: the callbacks of a broker that decide about it, the exchange of enhanced authentication (4.12)
--- among them.

local cosocket = require("cosocket")
local log = require("log").new("mqtt.broker")
local reason = require("mqtt.reason")

local authentication = {}

--- What is known of a client besides its name.
---@class mqtt.broker.Client
---@field client_id string
---@field version 5|"3.1.1"
---@field username string?
---@field password string?
---@field address string? Where it connects from.
---@field certificate cosocket.Certificate? The one it has shown, with TLS.
---@field connect mqtt.Connect The packet.

--- Calls what a script has decided. A callback answers `true`; anything that is false, or a reason code from 0x80 on
--- (as an integer), is a no, and what follows it is handed on.
---@async
---@param name string
---@param code integer What a plain no means.
---@param callback fun(...): any, any
---@param ... any
---@return integer? objection
---@return any more
function authentication.verdict(name, code, callback, ...)
  local ok, answer, more = pcall(callback, ...)
  if not ok then
    if cosocket.is_error(answer, "cancelled") then error(answer, 0) end
    log.error(("%s failed: %s"):format(name, tostring(answer)))
    return reason.unspecified_error
  end
  if math.type(answer) == "integer" then
    if answer >= 0x80 then return answer, more end
    return nil, more
  end
  if answer then return nil, more end
  return code, more
end

---@param connection mqtt.broker.Connection
---@return mqtt.broker.Client
function authentication.client(connection)
  local packet, stream = connection.server.connect, connection.stream
  ---@cast packet mqtt.Connect
  local tls = stream.tls_info and stream:tls_info()
  local address = stream.peer_address and stream:peer_address()
  return {
    client_id = packet.client_id,
    version = packet.protocol_version == 5 and 5 or "3.1.1",
    username = packet.username,
    password = packet.password,
    -- A pair of streams and clients of a unix socket have none.
    address = address ~= "" and address or nil,
    certificate = tls and tls.peer_certificate,
    connect = packet,
  }
end

--- A conversation by AUTH packets, as the callback of a method sees it.
---@class mqtt.broker.Exchange: mqtt.broker.Client
---@field method string
---@field data string? What the client sent with CONNECT, or with AUTH when it authenticates again.
---@field again boolean The client was connected before.
---@field private connection mqtt.broker.Connection
local Exchange = {}
Exchange.__index = Exchange

--- Sends data to the client, and waits for what it answers.
---@async
---@param data string?
---@return string? data Empty when the client sent none.
---@return cosocket.Error? err The client has gone: there is nothing more to decide.
function Exchange:ask(data)
  local connection = self.connection
  local ok, err = connection.server:ask(data)
  if not ok then return nil, err end
  connection:flush()
  while true do
    local packet
    packet, err = connection:next()
    if not packet then return nil, err end
    if packet.type == "auth" then return packet.properties.authentication_data or "" end
    -- One who is connected goes on with everything else meanwhile (4.12.1).
    connection:handle(packet)
    connection:flush()
  end
end

--- Runs the method of enhanced authentication that the client has named.
---@async
---@param connection mqtt.broker.Connection
---@param packet mqtt.Connect|mqtt.Reason What the client began it with.
---@return integer? objection
---@return string? data For the client, when there is no objection.
function authentication.exchange(connection, packet)
  local properties = packet.properties or {}
  local method = properties.authentication_method
  local callback = (connection.broker.options.auth or {})[method]
  -- [MQTT-4.12.0-1]
  if not callback then return reason.bad_authentication_method end
  local exchange = authentication.client(connection)
  ---@cast exchange mqtt.broker.Exchange
  exchange.method, exchange.data, exchange.again = method, properties.authentication_data, packet.type == "auth"
  exchange.connection = connection
  setmetatable(exchange, Exchange)
  return authentication.verdict("auth", reason.not_authorized, callback, exchange)
end

return authentication
