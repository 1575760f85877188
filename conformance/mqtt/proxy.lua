--- A man in the middle between a client and the broker: shows what passes, cuts connections, holds packets back.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local urls = require("url")

--- Chunks kept for whoever looks at them; later ones are let through unseen.
local SENT_MAX = 1000

---@alias proxy.Verdict nil|"drop"|"cut" `nil` lets a packet through.

---@class proxy.Proxy
---@field url string What the client connects to.
---@field sent cosocket.Queue What the client sent, chunk by chunk.
---@field inspect? fun(packet: table, from_client: boolean): proxy.Verdict Sees each packet; for plain TCP only.
---@field private listener cosocket.Listener
---@field private streams cosocket.Stream[]
---@field private frozen boolean
---@field private version mqtt.codec.Version
local Proxy = {}
Proxy.__index = Proxy

--- Takes one whole packet off the front of `buffer`, as bytes.
---@param buffer cosocket.Buffer
---@return string? bytes
local function take_packet(buffer)
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

--- What of `data` may pass, and whether the connection ends then.
---@param self proxy.Proxy
---@param buffer cosocket.Buffer What of a packet has come before.
---@param data string
---@param from_client boolean
---@return string
---@return boolean cut
local function inspected(self, buffer, data, from_client)
  buffer:append(data)
  local passing = {}
  for bytes in take_packet, buffer do
    local packet = assert(codec.decode(cosocket.buffer(bytes), self.version))
    local verdict = self.inspect and self.inspect(packet, from_client)
    if verdict == "cut" then return table.concat(passing), true end
    if verdict ~= "drop" then passing[#passing + 1] = bytes end
  end
  return table.concat(passing), false
end

---@async
---@param self proxy.Proxy
---@param from cosocket.Stream
---@param to cosocket.Stream
---@param from_client boolean
local function pump(self, from, to, from_client)
  local buffer = cosocket.buffer()
  while true do
    local data = from:read()
    if not data then break end
    if from_client then self.sent:try_put(data) end
    local passing, cut = data, false
    if self.inspect then passing, cut = inspected(self, buffer, data, from_client) end
    -- What is read while frozen is lost, as on a network that drops everything.
    if not self.frozen and passing ~= "" and not to:write(passing) or cut then break end
  end
  to:close()
  from:close()
end

---@async
---@param self proxy.Proxy
---@param address string
local function serve(self, address)
  while true do
    local client = self.listener:accept()
    if not client then return end
    if self.refusing then
      client:close()
    else
      local server = assert(cosocket.connect(address))
      table.insert(self.streams, client)
      table.insert(self.streams, server)
      cosocket.spawn("proxy, up", pump, self, client, server, true)
      cosocket.spawn("proxy, down", pump, self, server, client, false)
    end
  end
end

--- Cuts all connections; new ones come through.
function Proxy:interrupt()
  local streams = self.streams
  self.streams = {}
  for _, stream in ipairs(streams) do stream:close() end
end

--- Cuts all connections, and takes no more.
function Proxy:cut()
  self.listener:close()
  self:interrupt()
end

--- Cuts all connections and lets none through, until `admit`.
function Proxy:refuse()
  self.refusing = true
  self:interrupt()
end

--- Lets new connections through again.
function Proxy:admit()
  self.refusing = false
end

--- Lets nothing through from now on, without a word to either side.
function Proxy:freeze()
  self.frozen = true
end

local proxy = {}

--- Starts a proxy to the broker at `url`.
---@async
---@param url string
---@param inspect? fun(packet: table, from_client: boolean): proxy.Verdict
---@param version? 5|"3.1.1" Of the packets that `inspect` sees. Default 5.
---@return proxy.Proxy
function proxy.start(url, inspect, version)
  local address = assert(urls.parse(url))
  local secure = address.scheme == "mqtts" or address.scheme == "wss"
  local scheme, userinfo = address.scheme, url:match("^%a+://([^@/]*@)") or ""
  local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
  local own_port = listener:local_address():match("%d+$")
  local self = setmetatable({
    -- The name stays: a certificate is for it.
    url = ("%s://%s%s:%s%s"):format(scheme, userinfo, secure and address.host or "127.0.0.1", own_port, address.path or ""),
    sent = cosocket.queue(SENT_MAX),
    inspect = inspect,
    version = version == "3.1.1" and 4 or 5,
    listener = listener,
    streams = {},
    frozen = false,
    refusing = false,
  }, Proxy)
  cosocket.spawn("proxy", serve, self, ("tcp://%s:%d"):format(address.host, address.port_or_default))
  return self
end

return proxy
