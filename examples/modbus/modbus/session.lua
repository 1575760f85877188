--- Both sides of Modbus TCP as sessions: bytes and `now` in, events and bytes out. They open nothing and wait for
--- nothing; `net.exchange` and `net.drive` join them to sockets.

local cosocket = require("cosocket")
local message = require("modbus.message")

--- Bytes of answers that a client may leave unread before its requests are left unread, too.
local OUTPUT_MAX = 65536

-- Client ------------------------------------------------------------------------

---@class modbus.Request: net.Request
---@field transaction integer
---@field unit integer
---@field code integer
---@field body string

--- Its events are requests that have been answered.
---@class modbus.ClientSession: net.Session<modbus.Request>
---@field private pending table<integer, modbus.Request> By their transactions.
---@field private last integer
local ClientSession = { deadline = math.huge, last = 0 }
ClientSession.__index = ClientSession

--- Queues a request.
---@param unit integer
---@param code integer
---@param body string
---@return modbus.Request
function ClientSession:request(unit, code, body)
  local transaction = self.last
  repeat
    transaction = (transaction + 1) % 0x10000
  until not self.pending[transaction]
  local request = { transaction = transaction, unit = unit, code = code, body = body }
  self.last, self.pending[transaction] = transaction, request
  message.encode(self.output, transaction, unit, code, body)
  return request
end

--- Nobody waits for this one any more; should its answer come, it finds nobody.
---@param request modbus.Request
function ClientSession:abandon(request) self.pending[request.transaction] = nil end

---@param input cosocket.Buffer
---@return modbus.Request? request
---@return cosocket.Error? err
function ClientSession:receive(input)
  while true do
    local frame, err = message.decode(input)
    if not frame then return nil, err end
    local request = self.pending[frame.transaction]
    if request then
      self.pending[frame.transaction] = nil
      if frame.code == request.code + 0x80 and #frame.body == 1 then
        local exception = frame.body:byte()
        local words = ("the server refused to %s: %s"):format(
          message.FUNCTIONS[request.code].name,
          message.EXCEPTIONS[exception] or "exception " .. exception
        )
        request.err = cosocket.error("refused", "modbus", words, { code = exception })
        return request
      end
      if frame.code == request.code and frame.unit == request.unit then
        request.answer = message.parse_response(request.code, request.body, frame.body)
      end
      if request.answer ~= nil then return request end
      return nil, cosocket.error("protocol", "modbus", "the server answered what was not asked")
    end
  end
end

---@return true
function ClientSession:expire() return true end

-- Server ------------------------------------------------------------------------

--- Its events are frames, each of which wants a `reply`.
---@class modbus.ServerSession: net.Session<modbus.Frame>
---@field private idle_timeout number
local ServerSession = { output_max = OUTPUT_MAX }
ServerSession.__index = ServerSession

---@param input cosocket.Buffer
---@param now number
---@return modbus.Frame? frame
---@return cosocket.Error? err
function ServerSession:receive(input, now)
  local frame, err = message.decode(input)
  if frame then self.deadline = now + self.idle_timeout end
  return frame, err
end

--- Queues an answer.
---@param frame modbus.Frame The request.
---@param body string? Without: it is refused.
---@param exception integer? With this code.
function ServerSession:reply(frame, body, exception)
  local code = frame.code
  if not body then
    code, body = code | 0x80, string.char(exception or 4)
  end
  message.encode(self.output, frame.transaction, frame.unit, code, body)
end

---@return nil
---@return cosocket.Error err
function ServerSession:expire()
  return nil, cosocket.error("timeout", "modbus", ("the client said nothing for %g s"):format(self.idle_timeout))
end

local session = {}

---@return modbus.ClientSession
function session.client() return setmetatable({ output = cosocket.buffer(), pending = {} }, ClientSession) end

---@param idle_timeout number Seconds that a client may say nothing.
---@param now number
---@return modbus.ServerSession
function session.server(idle_timeout, now)
  local fields = { output = cosocket.buffer(), idle_timeout = idle_timeout, deadline = now + idle_timeout }
  return setmetatable(fields, ServerSession)
end

return session
