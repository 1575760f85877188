--- Modbus messages: bytes to frames and back, and what a frame says. No sockets, no clock, no state.
---
--- AP is "MODBUS Application Protocol Specification V1.1b3", TCP the "MODBUS Messaging on TCP/IP Implementation Guide V1.0b".

local cosocket = require("cosocket")

---@alias modbus.Kind "coil"|"discrete_input"|"holding_register"|"input_register"
---@alias modbus.Values boolean[]|integer[]

--- What a function does: it writes, then it reads.
---@class modbus.Function
---@field name string
---@field read modbus.Kind?
---@field read_max integer?
---@field write modbus.Kind?
---@field write_max integer?
---@field single boolean? It writes one value, which has no count.

local message = {
  --- In front of each message: transaction, protocol, length, unit, and the function code (TCP, 3.1.3).
  HEADER = ">I2I2I2BB",
  HEADER_SIZE = 8,
  --- What the length may be: it counts the unit and a message of at most 253 bytes (AP, 4.1).
  LENGTH_MIN = 2,
  LENGTH_MAX = 254,
}

local HEADER, HEADER_SIZE, LENGTH_MIN, LENGTH_MAX = message.HEADER, message.HEADER_SIZE, message.LENGTH_MIN, message.LENGTH_MAX

--- AP, 6.1 to 6.6, 6.11, 6.12, 6.17.
---@type table<integer, modbus.Function>
message.FUNCTIONS = {
  [1] = { name = "read coils", read = "coil", read_max = 2000 },
  [2] = { name = "read discrete inputs", read = "discrete_input", read_max = 2000 },
  [3] = { name = "read holding registers", read = "holding_register", read_max = 125 },
  [4] = { name = "read input registers", read = "input_register", read_max = 125 },
  [5] = { name = "write single coil", write = "coil", write_max = 1, single = true },
  [6] = { name = "write single register", write = "holding_register", write_max = 1, single = true },
  [15] = { name = "write multiple coils", write = "coil", write_max = 1968 },
  [16] = { name = "write multiple registers", write = "holding_register", write_max = 123 },
  [23] = {
    name = "read/write multiple registers",
    read = "holding_register",
    read_max = 125,
    write = "holding_register",
    write_max = 121,
  },
}

--- AP, 7.
---@type table<integer, string>
message.EXCEPTIONS = {
  [1] = "illegal function",
  [2] = "illegal data address",
  [3] = "illegal data value",
  [4] = "server device failure",
  [5] = "acknowledge",
  [6] = "server device busy",
  [8] = "memory parity error",
  [10] = "gateway path unavailable",
  [11] = "gateway target device failed to respond",
}

local IS_BIT = { coil = true, discrete_input = true }

-- Values ------------------------------------------------------------------------

--- Values as they are sent: bits from the lowest of the first byte on (AP, 6.1), registers with the high byte first (AP, 4.2).
---@param kind modbus.Kind
---@param values modbus.Values
---@return string
function message.pack(kind, values)
  if not IS_BIT[kind] then return string.pack(">" .. ("I2"):rep(#values), table.unpack(values)) end
  local bytes = {}
  for first = 1, #values, 8 do
    local byte = 0
    for bit = 0, 7 do
      if values[first + bit] then byte = byte | 1 << bit end
    end
    bytes[#bytes + 1] = string.char(byte)
  end
  return table.concat(bytes)
end

--- How many bytes so many values take.
---@param kind modbus.Kind
---@param count integer
---@return integer
function message.size(kind, count) return IS_BIT[kind] and (count + 7) // 8 or 2 * count end

---@param kind modbus.Kind
---@param bytes string As many as `size` says.
---@param count integer
---@return modbus.Values
function message.unpack(kind, bytes, count)
  local values = {}
  if IS_BIT[kind] then
    for i = 0, count - 1 do values[i + 1] = bytes:byte(i // 8 + 1) >> i % 8 & 1 == 1 end
  else
    values = { string.unpack(">" .. ("I2"):rep(count), bytes) }
    -- Where the next would begin.
    values[count + 1] = nil
  end
  return values
end

--- What is wrong with values that are to be sent, in words.
---@param kind modbus.Kind
---@param values any
---@return string? mistake
function message.mistake(kind, values)
  if type(values) ~= "table" then return "a list of values is wanted" end
  for i, value in ipairs(values) do
    if IS_BIT[kind] then
      if type(value) ~= "boolean" then return ("value %d must be a boolean"):format(i) end
    elseif math.type(value) ~= "integer" or value < 0 or value > 0xFFFF then
      return ("value %d must be an integer from 0 to 65535"):format(i)
    end
  end
end

-- Frames ------------------------------------------------------------------------

---@class modbus.Frame
---@field transaction integer What a response repeats of its request.
---@field unit integer
---@field code integer The function code; in a refusal, plus 0x80.
---@field body string What follows it.

--- Takes a whole frame off the front, or leaves everything as it is.
---@param input cosocket.Buffer
---@return modbus.Frame? frame
---@return cosocket.Error? err
function message.decode(input)
  -- The header is looked at once, as one string: a call for each field would cost as much as all of this.
  if #input < HEADER_SIZE then return nil end
  local transaction, protocol, length, unit, code = string.unpack(HEADER, input:peek(HEADER_SIZE))
  if protocol ~= 0 then
    return nil, cosocket.error("protocol", "modbus", ("the protocol identifier is %d: this is not Modbus"):format(protocol))
  end
  if length < LENGTH_MIN or length > LENGTH_MAX then
    local words = "a frame claims a length of %d, and may have %d to %d"
    return nil, cosocket.error("protocol", "modbus", words:format(length, LENGTH_MIN, LENGTH_MAX))
  end
  if #input < HEADER_SIZE - 2 + length then return nil end
  input:skip(HEADER_SIZE)
  return { transaction = transaction, unit = unit, code = code, body = input:take(length - LENGTH_MIN) }
end

---@param output cosocket.Buffer
---@param transaction integer
---@param unit integer
---@param code integer
---@param body string
function message.encode(output, transaction, unit, code, body)
  output:append(string.pack(HEADER, transaction, 0, #body + LENGTH_MIN, unit, code), body)
end

-- Requests ----------------------------------------------------------------------

--- What a request reads, or writes.
---@class modbus.Span
---@field kind modbus.Kind
---@field address integer
---@field count integer
---@field values modbus.Values? What is written.

--- The body of a request.
---@param code integer
---@param read modbus.Span?
---@param write modbus.Span?
---@return string
function message.request(code, read, write)
  local body = read and string.pack(">I2I2", read.address, read.count) or ""
  if not write then return body end
  if message.FUNCTIONS[code].single then
    local value = write.values[1]
    if value == true then value = 0xFF00 end
    return string.pack(">I2I2", write.address, value or 0)
  end
  return body .. string.pack(">I2I2s1", write.address, write.count, message.pack(write.kind, write.values))
end

--- A span of a request, if it is one.
---@param body string
---@param at integer
---@param kind modbus.Kind
---@param max integer
---@return modbus.Span?
local function span_at(body, at, kind, max)
  if #body < at + 3 then return nil end
  local address, count = string.unpack(">I2I2", body, at)
  if count < 1 or count > max then return nil end
  return { kind = kind, address = address, count = count }
end

--- What a request wants to read and to write; or the exception that is its answer, in the order of AP, 6.
---@param code integer
---@param body string
---@return {read: modbus.Span?, write: modbus.Span?}? wanted
---@return integer? exception
function message.parse_request(code, body)
  local does = message.FUNCTIONS[code]
  if not does then return nil, 1 end
  if does.single then
    if #body ~= 4 then return nil, 3 end
    local address, value = string.unpack(">I2I2", body)
    if IS_BIT[does.write] then
      if value ~= 0 and value ~= 0xFF00 then return nil, 3 end
      value = value == 0xFF00
    end
    return { write = { kind = does.write, address = address, count = 1, values = { value } } }
  end
  local at, read, write = 1, nil, nil
  if does.read then
    read = span_at(body, at, does.read, does.read_max)
    if not read then return nil, 3 end
    at = at + 4
  end
  if does.write then
    write = span_at(body, at, does.write, does.write_max)
    if not write then return nil, 3 end
    local size = message.size(write.kind, write.count)
    if body:byte(at + 4) ~= size or #body ~= at + 4 + size then return nil, 3 end
    write.values = message.unpack(write.kind, body:sub(at + 5), write.count)
  elseif #body ~= 4 then
    return nil, 3
  end
  for _, span in pairs({ read, write }) do
    if span.address + span.count > 0x10000 then return nil, 2 end
  end
  return { read = read, write = write }
end

-- Responses ---------------------------------------------------------------------

--- The body of a response: what was read, or what a request to write began with.
---@param read modbus.Span? With what was read as its `values`.
---@param body string Of the request.
---@return string
function message.response(read, body)
  if not read then return body:sub(1, 4) end
  return string.pack("s1", message.pack(read.kind, read.values))
end

--- What a response says: what was read, or `true`; `nil` when it does not answer that request.
---@param code integer
---@param request string The body of the request.
---@param response string
---@return modbus.Values|true|nil answer
function message.parse_response(code, request, response)
  local kind = message.FUNCTIONS[code].read
  if not kind then return response == request:sub(1, 4) or nil end
  local count = string.unpack(">I2", request, 3)
  local size = message.size(kind, count)
  if #response ~= 1 + size or response:byte() ~= size then return nil end
  return message.unpack(kind, response:sub(2), count)
end

return message
