--- Event streams (the HTML standard, 9.2.6): bytes in, events out. No socket, no clock.

local cosocket = require("cosocket")

--- Bytes of one line, and of one event.
local EVENT_MAX = 1048576

---@class http.Event
---@field type string `"message"`, unless the stream says otherwise.
---@field data string
---@field id string The last one that the stream told; empty when it told none.

---@class http.EventParser
---@field id string
---@field retry number? Seconds, once the stream has told.
---@field private rest cosocket.Buffer The beginning of a line, which may come byte by byte.
---@field private began boolean
---@field private after_cr boolean
---@field private data string[]
---@field private size integer
---@field private type string
---@field private next_id string
---@field private event_max integer
local Parser = {}
Parser.__index = Parser
Parser.__name = "http.EventParser"

local sse = {}

---@param event_max? integer Bytes of one event. Default 1 MiB.
---@return http.EventParser
function sse.parser(event_max)
  return setmetatable({
    id = "",
    rest = cosocket.buffer(),
    began = false,
    after_cr = false,
    data = {},
    size = 0,
    type = "",
    next_id = "",
    event_max = event_max or EVENT_MAX,
  }, Parser)
end

---@private
---@param line string
---@param events http.Event[]
function Parser:take(line, events)
  if line == "" then
    -- The id counts even when there is nothing to dispatch.
    self.id = self.next_id
    if #self.data > 0 then
      local kind = self.type ~= "" and self.type or "message"
      events[#events + 1] = { type = kind, data = table.concat(self.data, "\n"), id = self.id }
    end
    self.data, self.size, self.type = {}, 0, ""
    return
  end
  local field, value = line:match("^([^:]*): ?(.*)$")
  if not field then field, value = line, "" end
  if field == "data" then
    self.data[#self.data + 1] = value
    self.size = self.size + #value + 1
  elseif field == "event" then
    self.type = value
  elseif field == "id" then
    if not value:find("\0", 1, true) then self.next_id = value end
  elseif field == "retry" then
    if value:find("^%d+$") then self.retry = math.min(tonumber(value) / 1000, 86400) end
  end
end

--- Takes what came of the stream.
---@param piece string
---@return http.Event[]? events Those that are complete now; often none.
---@return cosocket.Error? err `limit`
function Parser:feed(piece)
  local events = {} ---@type http.Event[]
  if not self.began then
    -- One byte order mark at the beginning is passed over, and may be cut.
    piece = self.rest:take() .. piece
    if #piece < 3 and ("\xEF\xBB\xBF"):sub(1, #piece) == piece then
      self.rest:append(piece)
      return events
    end
    self.began = true
    if piece:sub(1, 3) == "\xEF\xBB\xBF" then piece = piece:sub(4) end
  end
  local at = 1
  if self.after_cr and piece ~= "" then
    self.after_cr = false
    if piece:sub(1, 1) == "\n" then at = 2 end
  end
  while true do
    local stop = piece:find("[\r\n]", at)
    local text = piece:sub(at, (stop or 0) - 1)
    if #self.rest + #text + self.size > self.event_max then
      return nil, cosocket.error("limit", "http.events", ("an event is larger than %d bytes"):format(self.event_max))
    end
    if not stop then
      self.rest:append(text)
      return events
    end
    local line = #self.rest > 0 and self.rest:take() .. text or text
    at = stop + 1
    if piece:byte(stop) == 13 then
      if at > #piece then self.after_cr = true elseif piece:byte(at) == 10 then at = at + 1 end
    end
    self:take(line, events)
  end
end

--- Begins a new stream, after a connection was lost: an event that was not complete is not one.
function Parser:reset()
  self.rest:clear()
  self.began, self.after_cr = false, false
  self.data, self.size, self.type, self.next_id = {}, 0, "", self.id
end

return sse
