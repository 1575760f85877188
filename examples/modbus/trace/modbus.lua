--- Modbus TCP for `moonwire --trace modbus`: a line for each request and response.

local message = require("modbus.message")
local text = require("net.trace.text")

--- Requests whose answers are waited for.
local PENDING_MAX = 1000

local modbus = { port = 502 }

--- Values in words, as many as may be shown.
---@param lane net.trace.Lane
---@param values modbus.Values
---@return string
local function show(lane, values)
  local words = {}
  for i, value in ipairs(values) do words[i] = type(value) == "boolean" and (value and "1" or "0") or tostring(value) end
  return lane:quote(table.concat(words, " "))
end

--- What a request wants.
---@param lane net.trace.Lane
---@param code integer
---@param body string
---@return string
local function request(lane, code, body)
  local wanted, exception = message.parse_request(code, body)
  if not wanted then return ("function %d, %s: %s"):format(code, text.size(#body), message.EXCEPTIONS[exception]) end
  local words = { message.FUNCTIONS[code].name }
  local read, write = wanted.read, wanted.write
  if write then words[#words + 1] = ("%d=%s"):format(write.address, show(lane, write.values)) end
  if read then words[#words + 1] = ("%d..%d"):format(read.address, read.address + read.count - 1) end
  return table.concat(words, " ")
end

--- What a response says, as far as it is known what was asked.
---@param lane net.trace.Lane
---@param code integer
---@param asked {code: integer, body: string}?
---@param body string
---@return string
local function response(lane, code, asked, body)
  if code >= 0x80 then
    local exception = body:byte() or 0
    return ("refused: %d %s"):format(exception, message.EXCEPTIONS[exception] or "")
  end
  local answer
  if asked and asked.code == code then answer = message.parse_response(code, asked.body, body) end
  if answer == nil then return ("function %d, %s"):format(code, text.size(#body)) end
  return answer == true and "written" or show(lane, answer --[[@as modbus.Values]])
end

---@param lane net.trace.Lane
function modbus.follow(lane)
  -- Both directions know what was asked: a response does not say how many coils it holds.
  local state = lane.state
  state.asked, state.count = state.asked or {}, state.count or 0
  while true do
    if not lane:need(message.HEADER_SIZE) then return end
    local transaction, protocol, length, unit, code = string.unpack(message.HEADER, lane:peek(message.HEADER_SIZE))
    -- A decoder that ends leaves the rest to be shown in hexadecimal.
    if protocol ~= 0 or length < message.LENGTH_MIN or length > message.LENGTH_MAX then return end
    local size = message.HEADER_SIZE + length - message.LENGTH_MIN
    if not lane:need(size) then return end
    local body = lane:take(size):sub(message.HEADER_SIZE + 1)
    local words
    if lane.is_client then
      words = request(lane, code, body)
      if state.count < PENDING_MAX and not state.asked[transaction] and message.parse_request(code, body) then
        state.asked[transaction], state.count = { code = code, body = body }, state.count + 1
      end
    else
      local asked = state.asked[transaction]
      if asked then state.asked[transaction], state.count = nil, state.count - 1 end
      words = response(lane, code, asked, body)
    end
    lane:say(("id=%d unit=%d %s"):format(transaction, unit, words))
  end
end

return modbus
