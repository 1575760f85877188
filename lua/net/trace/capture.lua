--- A capture of what was said: TCP connections made up around the plaintext, and datagrams, as Wireshark and tshark read
--- them (pcapng, or pcap for older programs).
---
--- The other side's TLS is not in it: the segments carry what was within. The server's port is that of the protocol, so
--- that it is recognized; the real one is in the comment on the first packet (pcapng).

--- Bytes of a segment.
local SEGMENT = 32768
--- Where clients without a port are said to be, and the next ones.
local FREE_PORT = 40000
--- LINKTYPE_RAW: packets begin with their IP header.
local LINK = 101

--- Numbers of protocols in IP headers.
local TCP, UDP = 6, 17

local SYN, ACK, PUSH, FIN = 0x02, 0x10, 0x08, 0x01

--- A connection in the capture. Each table has what belongs to what we sent, and to what we received.
---@class net.trace.Flow
---@field hosts table<string, string> Where it comes from.
---@field ports table<string, integer>
---@field next table<string, integer> Sequence numbers.
---@field name string Addresses and ports.

---@class net.trace.Capture
---@field private out file*
---@field private is_ng boolean
---@field private flows table<net.trace.Connection, net.trace.Flow>
---@field private names table<string, true> Of those that are open.
---@field private told table<net.trace.Connection, true> Sockets of datagrams that a comment has named.
---@field private unflushed boolean
local Capture = {}
Capture.__index = Capture

local capture = {}

-- Addresses ---------------------------------------------------------------------

--- The sixteen bytes of an IPv6 address.
---@param host string
---@return string?
local function ipv6(host)
  local front, back = host:gsub("%%.*$", ""):match("^(.-)::(.*)$")
  local function groups(part)
    local made = {}
    for group in (part or ""):gmatch("[^:]+") do
      local a, b, c, d = group:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
      if a then
        made[#made + 1], made[#made + 2] = tonumber(a) << 8 | tonumber(b), tonumber(c) << 8 | tonumber(d)
      else
        made[#made + 1] = tonumber(group, 16)
      end
    end
    return made
  end
  local all, tail = groups(front or host:gsub("%%.*$", "")), groups(back)
  while #all + #tail < 8 do all[#all + 1] = 0 end
  table.move(tail, 1, #tail, #all + 1, all)
  if #all ~= 8 then return nil end
  local bytes = {}
  for i, group in ipairs(all) do bytes[i] = string.pack(">I2", group & 0xFFFF) end
  return table.concat(bytes)
end

--- Address and port, as bytes and a number.
---@param address string
---@return string? host
---@return integer port
local function parse(address)
  local host, port = address:match("^%[(.-)%]:(%d+)$")
  if host then return ipv6(host), tonumber(port) --[[@as integer]] end
  local a, b, c, d, number = address:match("^(%d+)%.(%d+)%.(%d+)%.(%d+):(%d+)$")
  if not a then return nil, 0 end
  return string.char(tonumber(a), tonumber(b), tonumber(c), tonumber(d)), tonumber(number) --[[@as integer]]
end

local LOOPBACK = "\127\0\0\1"
local LOOPBACK_6 = ("\0"):rep(15) .. "\1"

-- Packets -----------------------------------------------------------------------

--- RFC 1071.
---@param header string
---@return integer
local function checksum(header)
  local sum = 0
  for at = 1, #header, 2 do sum = sum + string.unpack(">I2", header, at) end
  while sum > 0xFFFF do sum = (sum & 0xFFFF) + (sum >> 16) end
  return ~sum & 0xFFFF
end

---@param protocol integer
---@param from string
---@param to string
---@param segment string
---@return string
local function ip(protocol, from, to, segment)
  if #from == 16 then return string.pack(">I4I2BB", 0x60000000, #segment, protocol, 64) .. from .. to .. segment end
  local front = string.pack(">BBI2I2I2BB", 0x45, 0, 20 + #segment, 0, 0x4000, 64, protocol)
  local sum = checksum(front .. "\0\0" .. from .. to)
  return front .. string.pack(">I2", sum) .. from .. to .. segment
end

---@param bytes string
---@return string
local function padded(bytes) return bytes .. ("\0"):rep(-#bytes % 4) end

---@param kind integer
---@param body string
---@return string
local function block(kind, body)
  local size = 12 + #body
  return string.pack("<I4I4", kind, size) .. body .. string.pack("<I4", size)
end

---@param packet string
---@param at number
---@param comment? string
---@private
function Capture:write(packet, at, comment)
  local micros = math.floor(at * 1e6)
  self.unflushed = true
  if not self.is_ng then
    self.out:write(string.pack("<I4I4I4I4", micros // 1000000, micros % 1000000, #packet, #packet), packet)
    return
  end
  local options = ""
  if comment then options = string.pack("<I2I2", 1, #comment) .. padded(comment) .. "\0\0\0\0" end
  local head = string.pack("<I4I4I4I4I4", 0, micros >> 32, micros & 0xFFFFFFFF, #packet, #packet)
  self.out:write(block(6, head .. padded(packet) .. options))
end

---@param flow net.trace.Flow
---@param direction string
---@param flags integer
---@param bytes string
---@param at number
---@param comment? string
---@private
function Capture:segment(flow, direction, flags, bytes, at, comment)
  local other = direction == "sent" and "received" or "sent"
  local from, to = flow.hosts[direction], flow.hosts[other]
  local acknowledged = flags & ACK ~= 0 and flow.next[other] or 0
  local head = string.pack(">I2I2I4I4BBI2I2I2", flow.ports[direction], flow.ports[other], flow.next[direction], acknowledged, 5 << 4, flags, 65535, 0, 0)
  self:write(ip(TCP, from, to, head .. bytes), at, comment)
  local length = #bytes + ((flags & (SYN | FIN) ~= 0) and 1 or 0)
  flow.next[direction] = (flow.next[direction] + length) & 0xFFFFFFFF
end

-- Connections -------------------------------------------------------------------

--- Opens a connection in the capture.
---@param connection net.trace.Connection
---@param at number
---@return net.trace.Flow flow
---@private
function Capture:open(connection, at)
  local here, here_port = parse(connection.local_address)
  local there, there_port = parse(connection.peer_address)
  -- A unix socket, or a pair.
  if not here or not there or #here ~= #there then
    here, there, here_port, there_port = LOOPBACK, LOOPBACK, 0, 0
  end
  local is_client = connection.side == "client"
  local real = is_client and there_port or here_port
  local server_port = connection.port or real
  local client_port = is_client and here_port or there_port
  if server_port == 0 then server_port = 9 end
  -- Both ends may be ours: each has a connection of its own, and so must have a port of its own.
  local function name() return ("%s %s %d %d"):format(is_client and here or there, is_client and there or here, client_port, server_port) end
  if client_port == 0 then client_port = FREE_PORT end
  local port = client_port
  while self.names[name()] do client_port = client_port % 65535 + 1 end
  local differs = port ~= client_port and real ~= 0 and (", in truth from port %d"):format(port) or ""
  self.names[name()] = true
  local flow = {
    hosts = { sent = here, received = there },
    ports = { sent = is_client and client_port or server_port, received = is_client and server_port or client_port },
    next = { sent = 0, received = 0 },
    name = name(),
  }
  self.flows[connection] = flow
  local asks, answers = is_client and "sent" or "received", is_client and "received" or "sent"
  local where = real ~= 0 and real ~= server_port and (", in truth port %d"):format(real) or ""
  local comment = ("connection #%d%s%s%s"):format(connection.number, where, differs, connection.tls and ", under " .. connection.tls or "")
  self:segment(flow, asks, SYN, "", at, comment)
  self:segment(flow, answers, SYN | ACK, "", at)
  self:segment(flow, asks, ACK, "", at)
  return flow
end

--- Bytes have passed.
---@param connection net.trace.Connection
---@param direction string
---@param bytes string
---@param at number Seconds since 1970.
function Capture:bytes(connection, direction, bytes, at)
  local flow = self.flows[connection] or self:open(connection, at)
  for from = 1, #bytes, SEGMENT do
    self:segment(flow, direction, PUSH | ACK, bytes:sub(from, from + SEGMENT - 1), at)
  end
end

--- A connection is over.
---@param connection net.trace.Connection
---@param at number
function Capture:close(connection, at)
  local flow = self:part(connection, at)
  if flow then self.names[flow.name] = nil end
end

--- TLS begins on a connection. What follows is one of its own: who reads the capture would take it for encrypted.
---@param connection net.trace.Connection
---@param at number
---@return net.trace.Flow? flow
function Capture:part(connection, at)
  local flow = self.flows[connection]
  if not flow then return nil end
  self:segment(flow, "sent", FIN | ACK, "", at)
  self:segment(flow, "received", FIN | ACK, "", at)
  self:segment(flow, "sent", ACK, "", at)
  self.flows[connection] = nil
  return flow
end

-- Datagrams ---------------------------------------------------------------------

--- A socket that is bound to every address is shown at that which it would speak from to this machine.
---@param host string
---@param other string
---@return string
local function concrete(host, other)
  local is_local = other:byte(1) == 127 and #other == 4 or other == LOOPBACK_6
  return is_local and not host:find("[^\0]") and other or host
end

--- A datagram has passed. Ports are the real ones: they say what it is.
---@param connection net.trace.Connection
---@param direction string
---@param bytes string
---@param address string Of the other side.
---@param at number Seconds since 1970.
function Capture:datagram(connection, direction, bytes, address, at)
  local here, here_port = parse(connection.local_address)
  local there, there_port = parse(address)
  if not here or not there or #here ~= #there then
    here, there = LOOPBACK, LOOPBACK
  end
  here = concrete(here, there)
  local from, to, from_port, to_port = here, there, here_port, there_port
  if direction == "received" then from, to, from_port, to_port = there, here, there_port, here_port end
  local size = 8 + #bytes
  local sum = 0
  if #from == 16 then
    -- RFC 8200, 8.1: there must be one, and zero is written otherwise.
    local header = from .. to .. string.pack(">I4I4I2I2I2I2", size, UDP, from_port, to_port, size, 0)
    sum = checksum(header .. bytes .. (#bytes % 2 == 1 and "\0" or ""))
    if sum == 0 then sum = 0xFFFF end
  end
  local comment
  if not self.told[connection] then
    self.told[connection] = true
    comment = ("socket #%d"):format(connection.number)
  end
  self:write(ip(UDP, from, to, string.pack(">I2I2I2I2", from_port, to_port, size, sum) .. bytes), at, comment)
end

--- Hands what was written to the system.
function Capture:flush()
  if not self.unflushed then return end
  self.unflushed = false
  self.out:flush()
end

---@param out file*
---@param kind "pcapng"|"pcap"
---@return net.trace.Capture
function capture.new(out, kind)
  local is_ng = kind == "pcapng"
  if is_ng then
    out:write(block(0x0A0D0D0A, string.pack("<I4I2I2i8", 0x1A2B3C4D, 1, 0, -1)))
    out:write(block(1, string.pack("<I2I2I4", LINK, 0, 0)))
  else
    out:write(string.pack("<I4I2I2i4I4I4I4", 0xA1B2C3D4, 2, 4, 0, 0, 262144, LINK))
  end
  out:flush()
  return setmetatable({ out = out, is_ng = is_ng, flows = {}, names = {}, told = setmetatable({}, { __mode = "k" }), unflushed = false }, Capture)
end

return capture
