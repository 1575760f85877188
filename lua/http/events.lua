--- Server-sent events from a URL, for as long as the server has some: a lost connection is made again, and the server
--- told which event was the last (the HTML standard, 9.2.3).

local request_options = require("http.options")
local codec = require("http.codec")
local cosocket = require("cosocket")
local date = require("http.date")
local sse = require("http.sse")

--- Seconds before the connection is made again; twice as many after each failure, up to the second number.
local RETRY, RETRY_MAX = 3, 60
--- Seconds that go by at least, whatever the server wants.
local RETRY_MIN = 0.1
--- Bytes of an id that is told to the server.
local ID_MAX = 4096

---@class http.EventsOptions
---@field last_event_id? string Go on after this event.
---@field retry_delay? number Seconds before a lost connection is made again, unless the stream says. Default 3.
---@field retries_max? integer Failures in a row after which one gives up. Default: never.
---@field event_max? integer Bytes of one event. Default 1 MiB.
---@field idle_timeout? number Seconds without a byte, not even a comment, after which the connection counts as lost. Default: none.

---@class http.Events
---@field last_event_id string
---@field private client http.Client
---@field private url string
---@field private request http.RequestOptions
---@field private options http.EventsOptions
---@field private parser http.EventParser
---@field private answer http.Response?
---@field private ready http.Event[]
---@field private at integer
---@field private failures integer
---@field private closed boolean
---@field private err cosocket.Error?
---@overload fun(): http.Event?
local Events = {}
Events.__index = Events
Events.__name = "http.Events"

local EVENTS_OPTIONS = { last_event_id = "string", retry_delay = "number", retries_max = "integer", event_max = "integer" }

local events = {}

--- Whether a field can hold an id (RFC 9110, 5.5), which the server is free to choose.
---@param id string
---@return boolean
local function can_be_told(id)
  return #id <= ID_MAX and not id:find("[%z\1-\8\10-\31\127]")
end

---@param client http.Client
---@param url string
---@param given? http.EventsOptions|http.RequestOptions
---@return http.Events
function events.new(client, url, given)
  local options, request = request_options.split("http.events", given, EVENTS_OPTIONS, 2)
  local id = options.last_event_id or ""
  if not can_be_told(id) then
    error(("http.events: last_event_id must be at most %d bytes without line breaks and other control characters"):format(ID_MAX), 2)
  end
  local parser = sse.parser(options.event_max)
  parser.id = id
  parser:reset()
  return setmetatable({
    client = client,
    url = url,
    request = request,
    options = options,
    parser = parser,
    last_event_id = id,
    ready = {},
    at = 1,
    failures = 0,
    closed = false,
  }, Events)
end

--- Connects. `false`: not now, but perhaps later.
---@private
---@async
---@return boolean? connected
---@return cosocket.Error? err
---@return number? wait Seconds the server asks for.
function Events:connect()
  local request = {}
  for name, value in pairs(self.request) do request[name] = value end
  request.stream, request.decompress = true, false
  request.idle_timeout = request.idle_timeout or math.huge
  local headers = codec.headers(self.request.headers)
  if not headers.Accept then headers:add("Accept", "text/event-stream") end
  headers:set("Cache-Control", "no-store")
  local id = self.parser.id
  if id ~= "" and can_be_told(id) then headers:set("Last-Event-ID", id) end
  request.headers = headers
  local answer, err = self.client:get(self.url, request)
  if not answer then
    ---@cast err cosocket.Error
    if err.kind == "protocol" or err.kind == "limit" or err.kind == "tls" then return nil, err end
    return false, err
  end
  local status = answer.status
  if status == 204 then
    -- The server says that there will be no more.
    answer:close()
    self.closed = true
    return nil
  elseif status ~= 200 then
    answer:close()
    local _, refused = answer:check()
    local field = answer.headers["Retry-After"]
    if status ~= 429 and status < 500 then return nil, refused end
    return false, refused, field and date.retry_after(field) or nil
  end
  local kind = (answer.headers["Content-Type"] or "none"):lower():match("^[^;%s]*")
  if kind ~= "text/event-stream" then
    answer:close()
    return nil, cosocket.error("protocol", "http.events", ("%s is no event stream, but %s"):format(answer.url, kind))
  end
  self.answer = answer
  return true
end

--- The next event. Waits for it, and connects anew when that is needed.
---@async
---@return http.Event? event `nil` without an error: the server has said that there are no more, or `close` was called.
---@return cosocket.Error? err `refused`: with `code`, a status that is not 200; `protocol`: no event stream; `limit`; and why `retries_max` attempts failed
function Events:next()
  while true do
    local event = self.ready[self.at]
    if event then
      self.at = self.at + 1
      self.last_event_id = event.id
      return event
    end
    if self.err or self.closed then return nil, self.err end
    local answer, err, wait = self.answer, nil, nil
    if not answer then
      local connected
      connected, err, wait = self:connect()
      if connected == nil then
        self.err = err
        return nil, err
      end
      answer = self.answer
    end
    if answer then
      local piece
      piece, err = answer:read()
      if piece then
        local complete, broken = self.parser:feed(piece)
        if not complete then
          self.err = broken
          self:close()
          return nil, broken
        end
        self.ready, self.at = complete, 1
        self.failures = 0
      else
        answer:close()
        self.answer = nil
        self.parser:reset()
      end
    end
    if not self.answer and not self.closed then
      self.failures = self.failures + 1
      local most = self.options.retries_max
      if most and self.failures > most then
        self.err = err or cosocket.error("closed", "http.events", "the server ends the stream each time")
        return nil, self.err
      end
      local told = self.parser.retry
      local delay = told and math.max(told, RETRY_MIN) or self.options.retry_delay or RETRY
      delay = math.min(delay * 2 ^ math.max(0, self.failures - 1), math.max(delay, RETRY_MAX))
      local ok, why = cosocket.sleep(math.max(delay, wait or 0))
      if not ok then return nil, why end
    end
  end
end

--- `for event in events do`: what `next` fails with is raised.
---@async
---@return http.Event?
function Events:__call()
  local event, err = self:next()
  if err then error(err, 0) end
  return event
end

--- Ends it.
function Events:close()
  self.closed = true
  if self.answer then self.answer:close() end
  self.answer = nil
end

Events.__close = Events.close

return events
