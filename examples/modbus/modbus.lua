--- Modbus TCP: a client that may have several requests on their way, and a server of a script's own values.
---
---     local client <close> = assert(modbus.connect("tcp://192.0.2.7:502"))
---     local values = assert(client:read_holding_registers(0, 4))
---     assert(client:write_coils(3, { true, false }))
---
--- A stack in small: codec (`modbus.message`), sessions (`modbus.session`), and here what has sockets. `trace/modbus.lua`
--- decodes it for `moonwire --trace modbus`.

local acceptor = require("net.acceptor")
local cosocket = require("cosocket")
local drive = require("net.drive")
local exchange = require("net.exchange")
local log = require("log").new("modbus")
local message = require("modbus.message")
local session = require("modbus.session")
local trace = require("net.trace")

--- The unit that is the server itself, and not something behind it (TCP, 4.4.1.2).
local UNIT = 255
--- Seconds that connecting, and each answer, may take.
local TIMEOUT = 3
--- Requests on their way at once. A server should take up to 16 (TCP, 4.4.2.2); many lose the second one.
local IN_FLIGHT_MAX = 1
--- Clients of a server at once.
local CLIENTS_MAX = 64
--- Seconds that a client of a server may say nothing.
local IDLE_TIMEOUT = 300

-- Client ------------------------------------------------------------------------

---@class modbus.ConnectOptions
---@field unit? integer Who is asked where a call does not say. Default 255, the server itself.
---@field timeout? number Seconds that connecting, and each answer, may take. Default 3.
---@field in_flight_max? integer Requests on their way at once, for servers that can take more than one. Default 1.
---@field tls? boolean|cosocket.TlsOptions

local CONNECT_OPTIONS = { unit = "integer", timeout = "number", in_flight_max = "integer", tls = "boolean|table" }

---@class modbus.Client
---@field private link net.Exchange
---@field private session modbus.ClientSession
---@field private options modbus.ConnectOptions
local Client = {}
Client.__index = Client
Client.__name = "modbus.Client"

--- Checks a span of addresses, and the values that are written there; mistakes blame the caller of `op`.
---@param op string
---@param kind modbus.Kind
---@param max integer
---@param address any
---@param count any
---@param values any
---@return modbus.Span
local function span(op, kind, max, address, count, values)
  local mistake
  if values ~= nil then
    mistake, count = message.mistake(kind, values), type(values) == "table" and #values
  end
  if math.type(address) ~= "integer" or address < 0 or address > 0xFFFF then
    mistake = mistake or "the address must be an integer from 0 to 65535"
  elseif math.type(count) ~= "integer" or count < 1 or count > max then
    mistake = mistake or ("from 1 to %d values go into one request"):format(max)
  elseif address + count > 0x10000 then
    mistake = mistake or "the last address would be beyond 65535"
  end
  -- The methods below end in a tail call and so count for no level: 1 is here, 2 is `ask`, 3 who called the method.
  if mistake then error(("modbus: %s: %s"):format(op, mistake), 3) end
  return { kind = kind, address = address, count = count, values = values }
end

---@async
---@param self modbus.Client
---@param op string
---@param code integer
---@param unit integer?
---@param read {[1]: any, [2]: any}? Address and count.
---@param write {[1]: any, [2]: any}? Address and values.
---@return any answer
---@return cosocket.Error? err
local function ask(self, op, code, unit, read, write)
  local does, options = message.FUNCTIONS[code], self.options
  unit = unit or options.unit or UNIT
  if math.type(unit) ~= "integer" or unit < 0 or unit > 255 then
    error(("modbus: %s: the unit must be from 0 to 255"):format(op), 2)
  end
  local reading = read and span(op, does.read, does.read_max, read[1], read[2])
  local writing = write and span(op, does.write, does.write_max, write[1], nil, write[2])
  local body = message.request(code, reading, writing)
  return self.link:ask(options.timeout or TIMEOUT, self.session.request, unit, code, body)
end

--- Reads coils.
---@async
---@param address integer Of the first, from 0 on.
---@param count integer At most 2000.
---@param unit? integer
---@return boolean[]? values
---@return cosocket.Error? err `refused` with the exception's `code`; `timeout`, `closed`, `protocol`
function Client:read_coils(address, count, unit)
  return ask(self, "read_coils", 1, unit, { address, count })
end

--- Reads discrete inputs.
---@async
---@param address integer
---@param count integer At most 2000.
---@param unit? integer
---@return boolean[]? values
---@return cosocket.Error? err
function Client:read_discrete_inputs(address, count, unit)
  return ask(self, "read_discrete_inputs", 2, unit, { address, count })
end

--- Reads holding registers.
---@async
---@param address integer
---@param count integer At most 125.
---@param unit? integer
---@return integer[]? values From 0 to 65535.
---@return cosocket.Error? err
function Client:read_holding_registers(address, count, unit)
  return ask(self, "read_holding_registers", 3, unit, { address, count })
end

--- Reads input registers.
---@async
---@param address integer
---@param count integer At most 125.
---@param unit? integer
---@return integer[]? values
---@return cosocket.Error? err
function Client:read_input_registers(address, count, unit)
  return ask(self, "read_input_registers", 4, unit, { address, count })
end

--- Writes coils.
---@async
---@param address integer
---@param values boolean|boolean[] One (function 5), or a list of at most 1968 (function 15).
---@param unit? integer
---@return true? ok
---@return cosocket.Error? err
function Client:write_coils(address, values, unit)
  if type(values) ~= "table" then return ask(self, "write_coils", 5, unit, nil, { address, { values } }) end
  return ask(self, "write_coils", 15, unit, nil, { address, values })
end

--- Writes holding registers.
---@async
---@param address integer
---@param values integer|integer[] One (function 6), or a list of at most 123 (function 16).
---@param unit? integer
---@return true? ok
---@return cosocket.Error? err
function Client:write_registers(address, values, unit)
  if type(values) ~= "table" then return ask(self, "write_registers", 6, unit, nil, { address, { values } }) end
  return ask(self, "write_registers", 16, unit, nil, { address, values })
end

--- Writes holding registers, and then reads some: one request (function 23).
---@async
---@param address integer What is read.
---@param count integer At most 125.
---@param write_address integer
---@param values integer[] At most 121.
---@param unit? integer
---@return integer[]? values
---@return cosocket.Error? err
function Client:read_write_registers(address, count, write_address, values, unit)
  return ask(self, "read_write_registers", 23, unit, { address, count }, { write_address, values })
end

--- Closes. Who still waits for an answer gets `closed`.
---@return true
function Client:close() return self.link:close() end

Client.__close = Client.close

-- Server ------------------------------------------------------------------------

--- Where a server's values are. Both functions may wait, and refuse with `nil` and an exception code, such as 2 for an
--- address that is not there.
---@class modbus.Bank
---@field read async fun(kind: modbus.Kind, address: integer, count: integer, unit: integer): modbus.Values?, integer?
---@field write? async fun(kind: modbus.Kind, address: integer, values: modbus.Values, unit: integer): true?, integer? Without: nothing can be written.

---@class modbus.ListenOptions
---@field clients_max? integer Clients at once; one more is hung up on. Default 64.
---@field idle_timeout? number Seconds after which one that says nothing is, too. Default 300.
---@field tls? cosocket.TlsServerOptions

local LISTEN_OPTIONS = { clients_max = "integer", idle_timeout = "number", tls = "table" }

--- What the bank says to a request.
---@async
---@param bank modbus.Bank
---@param frame modbus.Frame
---@return string? body
---@return integer? exception
local function respond(bank, frame)
  local wanted, exception = message.parse_request(frame.code, frame.body)
  if not wanted then return nil, exception end
  local read, write = wanted.read, wanted.write
  if write then
    if not bank.write then return nil, 1 end
    local ok, code = bank.write(write.kind, write.address, write.values, frame.unit)
    if not ok then return nil, code or 4 end
  end
  if read then
    local values, code = bank.read(read.kind, read.address, read.count, frame.unit)
    if not values then return nil, code or 4 end
    local mistake = message.mistake(read.kind, values)
    if #values ~= read.count then mistake = ("%d values were asked for, not %d"):format(read.count, #values) end
    if mistake then error("the bank's read: " .. mistake, 0) end
    read.values = values
  end
  return message.response(read, frame.body)
end

--- A mistake of the bank's, with the lines that led to it.
---@param err any
---@return any
local function traced(err)
  if cosocket.is_error(err) then return err end
  return debug.traceback(tostring(err), 2)
end

--- Answers a client until one of us has enough: a task.
---@async
---@param bank modbus.Bank
---@param stream cosocket.Stream
---@param idle_timeout number
local function serve(bank, stream, idle_timeout)
  trace.attach(stream, "modbus", "server")
  local state, input = session.server(idle_timeout, cosocket.now()), cosocket.buffer()
  while true do
    local frame, err = drive.next_event(stream, state, input)
    if not frame then
      log.debug("a client is gone", { peer = stream:peer_address(), error = tostring(err) })
      return
    end
    local ok, body, exception = xpcall(respond, traced, bank, frame)
    if not ok then
      -- Whoever ends this task means it, and not the request.
      if cosocket.is_error(body, "cancelled") then error(body, 0) end
      log.error("a request failed", { error = body })
      body, exception = nil, 4
    end
    state:reply(frame, body, exception)
  end
end

-- Module ------------------------------------------------------------------------

local modbus = {}

--- Connects to a server: `"tcp://host:502"`, `"tls://host:802"` or `"unix:///path"`. A stream that is connected already
--- does, too.
---@async
---@param address string|cosocket.Stream
---@param options? modbus.ConnectOptions
---@return modbus.Client? client `close` it: until then its task keeps the group of the caller from ending.
---@return cosocket.Error? err `resolve`, `connect`, `tls`, `timeout`
function modbus.connect(address, options)
  options = cosocket.check_options("modbus.connect", options, CONNECT_OPTIONS)
  local stream, err = address, nil
  if type(address) == "string" then
    stream, err = cosocket.connect(address, { timeout = options.timeout or TIMEOUT, tls = options.tls })
    if not stream then return nil, err end
  end
  ---@cast stream cosocket.Stream
  trace.attach(stream, "modbus", "client")
  local state = session.client()
  local link = exchange.start(stream, state, { name = "modbus", in_flight_max = options.in_flight_max or IN_FLIGHT_MAX })
  return setmetatable({ link = link, session = state, options = options }, Client)
end

--- Listens, and answers from `bank`.
---@async
---@param address string As for `connect`; port 0 picks a free one.
---@param bank modbus.Bank
---@param options? modbus.ListenOptions
---@return net.Acceptor? server `address()` says where; `close` it.
---@return cosocket.Error? err
function modbus.listen(address, bank, options)
  options = cosocket.check_options("modbus.listen", options, LISTEN_OPTIONS)
  if type(bank) ~= "table" or not bank.read then error("modbus.listen: a bank with a function `read` is wanted", 2) end
  local listener, err = cosocket.listen(address, { tls = options.tls })
  if not listener then return nil, err end
  local idle_timeout = options.idle_timeout or IDLE_TIMEOUT
  return acceptor.start(listener, function(stream) serve(bank, stream, idle_timeout) end, {
    name = "modbus server",
    connections_max = options.clients_max or CLIENTS_MAX,
  })
end

return modbus
