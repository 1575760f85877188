--- A man in the middle between a client and the broker: shows packets, drops them, cuts connections. What else it can do
--- stands in `faults/proxy.lua`.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local faults = require("conformance.faults.proxy")

--- Chunks kept for whoever looks at them; later ones are let through unseen.
local SENT_MAX = 1000

---@alias proxy.Verdict nil|"drop"|faults.Fault `nil` lets a packet through.

---@class proxy.Proxy: faults.Proxy
---@field sent cosocket.Queue What the client sent, chunk by chunk.

local proxy = {}

--- Takes one whole packet off the front of `buffer`, as bytes.
---@param buffer cosocket.Buffer
---@return string? bytes
function proxy.take_packet(buffer)
  local head = buffer:peek(math.min(5, #buffer))
  local length, shift = 0, 0
  for i = 2, #head do
    local byte = head:byte(i)
    length, shift = length | (byte & 0x7F) << shift, shift + 7
    if byte < 0x80 then
      local size = i + length
      return #buffer >= size and buffer:take(size) or nil
    end
  end
end

--- Starts a proxy to the broker at `url`.
---@async
---@param url string
---@param inspect? fun(packet: table, from_client: boolean): proxy.Verdict, boolean? Sees each packet; for plain TCP only. With `true` behind it the verdict comes after the packet.
---@param version? 5|"3.1.1" Of the packets that `inspect` sees. Default 5.
---@return proxy.Proxy
function proxy.start(url, inspect, version)
  local sent = cosocket.queue(SENT_MAX)
  local way = faults.start(url, {
    take = inspect and proxy.take_packet,
    inspect = inspect and function(bytes, direction)
      return inspect(assert(codec.decode(cosocket.buffer(bytes), version == "3.1.1" and 4 or 5)), direction == "up")
    end,
    on_data = function(data, direction)
      if direction == "up" then sent:try_put(data) end
    end,
  }) --[[@as proxy.Proxy]]
  way.sent = sent
  return way
end

return proxy
