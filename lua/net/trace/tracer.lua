--- Hears what passes on connections and in datagrams, has it decoded, and prints it.

local captures = require("net.trace.capture")
local cosocket = require("cosocket")
local lanes = require("net.trace.lane")
local secret = require("net.trace.secret")
local tap = require("cosocket.tap")
local text = require("net.trace.text")

--- Bytes of a payload, a body or a dump that are shown.
local BYTES = 256
--- Bytes of a line, beside its payload.
local LINE_MAX = 4096
--- Bytes kept for a capture until it is known whether the connection carries what is wanted.
local KEPT_MAX = 256 * 1024

local OPTIONS = { protocols = "string", bytes = "integer", time = "string", colour = "boolean", file = "string", write = "function" }

--- What decodes a protocol: `lua/trace/NAME.lua`.
---@class net.trace.Decoder
---@field follow fun(lane: net.trace.Lane)
---@field port integer? Where a capture says that the server is.
---@field carries boolean?
---@field alone boolean?

---@class net.Tracer
---@field limit integer
---@field private all boolean
---@field private shown table<string, true>
---@field private time "clock"|"elapsed"|"none"
---@field private colour boolean
---@field private write fun(line: string)
---@field private flush fun()
---@field private capture net.trace.Capture?
---@field private connections table<integer, net.trace.Connection>
---@field private decoders table<string, net.trace.Decoder>
---@field private seeks_within boolean Something that may run within another protocol is shown.
---@field private numbers integer
---@field private began number
---@field private clock number
local Tracer = {}
Tracer.__index = Tracer
Tracer.__name = "net.Tracer"

---@class net.trace.Connection
---@field tracer net.Tracer
---@field side "client"|"server"
---@field over boolean
---@field port integer? Of the protocol, for a capture.
---@field number integer?
---@field local_address string
---@field peer_address string
---@field tls string?
---@field private protocol string?
---@field private spoken boolean A stack has said what this is.
---@field private wanted boolean Something of what it carries is shown.
---@field private kept {[1]: string, [2]: string, [3]: number}[]?
---@field private kept_size integer
---@field private lanes table<string, net.trace.Lane>
local Connection = {}
Connection.__index = Connection

-- Starting ----------------------------------------------------------------------

--- Bytes of the name of a protocol; the other side may have chosen it.
local NAME_MAX = 32

--- Loads what decodes a protocol. Raises for one that is wrong in itself.
---@param name string
---@return net.trace.Decoder?
local function load_decoder(name)
  if not name:find("^[%w_]+$") or #name > NAME_MAX then return nil end
  local module = "trace." .. name
  local ok, found = pcall(require, module)
  if not ok then
    if tostring(found):find(("module '%s' not found"):format(module), 1, true) then return nil end
    error(found, 0)
  end
  if type(found) ~= "table" or type(found.follow) ~= "function" then
    error(("%s must answer a table with a function follow"):format(module), 0)
  end
  return found
end

--- What leaves for standard error or a file, a batch at a time.
---@param out file*
---@return fun(line: string) write
---@return fun() flush
local function to_file(out)
  local lines = {}
  return function(line) lines[#lines + 1] = line end, function()
    if not lines[1] then return end
    lines[#lines + 1] = ""
    out:write(table.concat(lines, "\n"))
    out:flush()
    lines = {}
  end
end

local tracer = {}

---@param options? net.TraceOptions
---@return net.Tracer? tracer
---@return cosocket.Error? err
function tracer.new(options)
  options = cosocket.check_options("trace.start", options, OPTIONS, 3)
  local function wrong(words) error("trace.start: " .. words, 4) end
  local time = options.time or "clock"
  if time ~= "clock" and time ~= "elapsed" and time ~= "none" then wrong('time must be "clock", "elapsed" or "none"') end
  local limit = options.bytes or BYTES
  if limit < 0 or limit > lanes.HELD_MAX then wrong(("bytes must be from 0 to %d"):format(lanes.HELD_MAX)) end
  local shown, all, seeks_within = {}, false, false
  for name in (options.protocols or "all"):gmatch("[^,%s]+") do
    local decoder = name ~= "all" and load_decoder(name)
    if decoder then
      shown[name] = true
      seeks_within = seeks_within or not decoder.alone
    elseif name == "all" then
      all = true
    else
      wrong(("%q is no protocol that is decoded here (no trace/%s.lua)"):format(name, name))
    end
  end
  if not all and not next(shown) then wrong("protocols names nothing") end
  local write, flush, capture = options.write, function() end, nil
  local file = options.file
  if file then
    local out, why, code = io.open(file, "wb")
    if not out then
      return nil, cosocket.error("io", "trace.start", ("cannot write %s"):format(tostring(why)), { code = code })
    end
    local kind = file:match("%.(pcapng)$") or file:match("%.(pcap)$")
    if kind then
      capture = captures.new(out, kind)
      write = write or function() end
    elseif not write then
      write, flush = to_file(out)
    end
  elseif not write then
    write, flush = to_file(io.stderr)
  end
  ---@cast write fun(line: string)
  return setmetatable({
    limit = limit,
    all = all,
    shown = shown,
    time = time,
    colour = options.colour and not file or false,
    write = write,
    flush = flush,
    capture = capture,
    connections = {},
    decoders = {},
    seeks_within = seeks_within,
    numbers = 0,
    began = cosocket.now(),
    clock = tap.clock(),
  }, Tracer)
end

--- What decodes a protocol.
---@param protocol string
---@return net.trace.Decoder?
function Tracer:decoder(protocol)
  local found = self.decoders[protocol]
  if not found then
    found = load_decoder(protocol)
    self.decoders[protocol] = found
  end
  return found
end

---@param protocol string
---@return boolean
function Tracer:shows(protocol) return self.all or self.shown[protocol] == true end

--- Whether connections that speak this must be heard: it is shown, or what is shown may run within.
---@param protocol string
---@return boolean
function Tracer:wants(protocol)
  if self:shows(protocol) or self.shown.tcp then return true end
  local decoder = self.seeks_within and self:decoder(protocol)
  return decoder and decoder.carries or false
end

--- Which connections must be heard of which nobody says what they speak.
---@return boolean streams
---@return boolean datagrams
function Tracer:wants_everything() return self:shows("tcp"), self:shows("udp") end

--- Forgets every connection, and counts from 1 again.
function Tracer:reset()
  self.connections, self.numbers = {}, 0
  self.began, self.clock = cosocket.now(), tap.clock()
end

-- Hearing -----------------------------------------------------------------------

---@type table<string, fun(connection: net.trace.Connection, a: string, b: string?)>
local EVENTS = {}

function EVENTS.spoken(connection, protocol, side)
  for _, lane in pairs(connection.lanes) do lane:finish() end
  connection.side = side == "server" and "server" or "client"
  connection.spoken = true
  connection:start(protocol)
end

function EVENTS.secured(connection, what)
  connection.tls = what
  local tracer = connection.tracer
  if tracer.capture then tracer.capture:part(connection, tracer:wall()) end
  if connection.number then connection:print("*", nil, what) end
end

local function passed(connection, direction, bytes)
  if not connection.lanes[direction] then connection:start("tcp") end
  connection.lanes[direction]:feed(bytes)
  -- The other may have waited for this; and this one for what that has seen now.
  local other = direction == "sent" and "received" or "sent"
  connection.lanes[other]:feed("")
  connection.lanes[direction]:feed("")
end

--- A datagram: a message of its own, whose address is told.
local function datagram(connection, direction, bytes, address)
  if not connection.protocol then connection.protocol = "udp" end
  connection:speaks("udp")
  if not connection.wanted then return end
  local tracer = connection.tracer
  local safe = secret.scrubber():feed(bytes)
  local peer = address
  -- Who asks has another port each time: lines without times are there to be compared.
  if tracer.time == "none" and connection.peer_address == "" then peer = peer:gsub(":%d+$", "") end
  connection:print(direction, "udp", ("%s %s %s"):format(text.size(#bytes), direction == "sent" and "to" or "from", peer))
  for _, line in ipairs(text.dump(safe, tracer.limit)) do connection:print(direction, "udp", line) end
  if tracer.capture then tracer.capture:datagram(connection, direction, safe, address, tracer:wall()) end
end

--- `address` comes with datagrams only.
function EVENTS.sent(connection, bytes, address)
  if address then return datagram(connection, "sent", bytes, address) end
  passed(connection, "sent", bytes)
end

function EVENTS.received(connection, bytes, address)
  if address then return datagram(connection, "received", bytes, address) end
  passed(connection, "received", bytes)
end

function EVENTS.ended(connection)
  if connection.lanes.received then connection.lanes.received:finish() end
  if connection.number then connection:print("*", nil, "the other side ended") end
end

function EVENTS.failed(connection, why)
  if connection.number then connection:print("*", nil, "failed: " .. why) end
end

function EVENTS.closed(connection)
  connection.over = true
  for _, direction in ipairs({ "sent", "received" }) do
    local lane = connection.lanes[direction]
    if lane then lane:finish() end
  end
  if connection.number then connection:print("*", nil, "closed") end
  local tracer = connection.tracer
  if tracer.capture then tracer.capture:close(connection, tracer:wall()) end
end

--- Something has happened on a stream, or a socket of datagrams.
---@param id integer
---@param event string
---@param a? string
---@param b? string
function Tracer:hear(id, event, a, b)
  if event == "played" then
    self.flush()
    if self.capture then self.capture:flush() end
    return
  end
  if event == "opened" then
    self.connections[id] = setmetatable({
      tracer = self,
      side = "client",
      over = false,
      spoken = false,
      wanted = false,
      kept = {},
      kept_size = 0,
      local_address = a or "",
      peer_address = b or "",
      lanes = {},
    }, Connection)
    return
  end
  local connection = self.connections[id]
  if not connection then return end
  EVENTS[event](connection, a or "", b)
  if event == "closed" then self.connections[id] = nil end
end

-- Connections -------------------------------------------------------------------

---@param protocol string
function Connection:start(protocol)
  local tracer = self.tracer
  local decoder = tracer:decoder(protocol)
  if not decoder then
    protocol, decoder = "tcp", tracer:decoder("tcp")
  end
  ---@cast decoder net.trace.Decoder
  self.protocol, self.port = protocol, decoder.port
  if not self:follows(protocol) then decoder = lanes.SKIPPING end
  local state = {}
  for _, direction in ipairs({ "sent", "received" }) do
    self.lanes[direction] = lanes.new(self, direction, protocol, state, function(bytes) self:captured(direction, bytes) end)
  end
  self:speaks(protocol)
  self.lanes.sent:start(decoder)
  self.lanes.received:start(decoder)
end

--- Whether this is decoded: it must be, or it goes into a capture because of what is, and its secrets must not.
---@param protocol string
---@return boolean
function Connection:follows(protocol)
  local tracer = self.tracer
  return tracer:wants(protocol) or tracer.capture ~= nil and self.wanted
end

--- Another protocol is spoken, perhaps within another.
---@param protocol string
function Connection:speaks(protocol)
  local tracer = self.tracer
  if self.wanted or not tracer:shows(protocol) and not tracer.shown.tcp then return end
  self.wanted = true
  self:number_it()
  for _, kept in ipairs(self.kept or {}) do
    if tracer.capture then tracer.capture:bytes(self, kept[1], kept[2], kept[3]) end
  end
  self.kept = nil
end

--- Whether bytes are dumped beside what a decoder says of them.
---@param lane net.trace.Lane
---@return boolean
function Connection:dumps(lane)
  return self.tracer.shown.tcp == true and lane.protocol ~= "tcp" and self.lanes[lane.direction] == lane
end

--- Bytes for a capture.
---@private
---@param direction string
---@param bytes string
function Connection:captured(direction, bytes)
  local capture = self.tracer.capture
  if not capture then return end
  local at = self.tracer:wall()
  if self.wanted then return capture:bytes(self, direction, bytes, at) end
  if not self.kept then return end
  self.kept_size = self.kept_size + #bytes
  if self.kept_size > KEPT_MAX then
    self.kept = nil
  else
    self.kept[#self.kept + 1] = { direction, bytes, at }
  end
end

--- Gives the connection its number, and says where it goes.
---@private
function Connection:number_it()
  if self.number then return end
  local tracer = self.tracer
  tracer.numbers = tracer.numbers + 1
  self.number = tracer.numbers
  local here, there = self.local_address, self.peer_address
  local words = (self.protocol or "tcp") .. (self.side == "client" and " to " or " from ")
  if self.protocol == "udp" and there == "" then
    -- Its port is another one each time, too, unless somebody has chosen it.
    if tracer.time == "none" then here = here:gsub(":%d+$", "") end
    return self:print("*", nil, "udp at " .. here)
  end
  -- The port of a client is another one each time: lines without times are there to be compared.
  if self.side == "server" and tracer.time == "none" then there = there:gsub(":%d+$", "") end
  words = words .. (there ~= "" and there or "nowhere")
  if self.side == "server" and here ~= "" then words = ("%s at %s"):format(words, here) end
  if self.tls then words = ("%s, %s"):format(words, self.tls) end
  self:print("*", nil, words)
end

local MARKS = { sent = ">", received = "<", ["*"] = "*" }

--- Prints a line of this connection.
---@param direction "sent"|"received"|"*"
---@param protocol string?
---@param words string
function Connection:print(direction, protocol, words)
  local tracer = self.tracer
  if protocol and not tracer:shows(protocol) then return end
  self:number_it()
  local line = text.escape(text.cut(words, LINE_MAX + tracer.limit))
  if protocol then line = ("%s %s"):format(protocol, line) end
  local head = ("%s#%d %s "):format(tracer:stamp(), self.number, MARKS[direction])
  if tracer.colour then
    -- Faint: what one looks for are the words.
    line = direction == "*" and ("\27[2m%s%s\27[0m"):format(head, line) or ("\27[2m%s\27[0m%s"):format(head, line)
  else
    line = head .. line
  end
  tracer.write(line)
end

-- Time --------------------------------------------------------------------------

--- Seconds since 1970.
---@return number
function Tracer:wall() return self.clock + (cosocket.now() - self.began) end

--- What a line begins with.
---@return string
function Tracer:stamp()
  if self.time == "none" then return "" end
  if self.time == "elapsed" then return ("%.6f "):format(cosocket.now() - self.began) end
  local at = self:wall()
  local seconds = math.floor(at)
  return ("%s.%03d "):format(os.date("!%H:%M:%S", seconds), math.floor((at - seconds) * 1000))
end

return tracer
