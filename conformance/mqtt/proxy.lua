--- A man in the middle between a client and the broker: shows what passes, cuts the connection, or drops everything.

local cosocket = require("cosocket")

--- Chunks kept for whoever looks at them; later ones are let through unseen.
local SENT_MAX = 1000

---@class proxy.Proxy
---@field url string What the client connects to.
---@field sent cosocket.Queue What the client sent, chunk by chunk.
---@field private listener cosocket.Listener
---@field private streams cosocket.Stream[]
---@field private frozen boolean
local Proxy = {}
Proxy.__index = Proxy

---@async
---@param self proxy.Proxy
---@param from cosocket.Stream
---@param to cosocket.Stream
---@param seen? cosocket.Queue
local function pump(self, from, to, seen)
  while true do
    local data = from:read()
    if not data then break end
    if seen then seen:try_put(data) end
    -- What is read while frozen is lost, as on a network that drops everything.
    if not self.frozen and not to:write(data) then break end
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
    local server = assert(cosocket.connect(address))
    table.insert(self.streams, client)
    table.insert(self.streams, server)
    cosocket.spawn("proxy, up", pump, self, client, server, self.sent)
    cosocket.spawn("proxy, down", pump, self, server, client)
  end
end

--- Cuts all connections, and takes no more.
function Proxy:cut()
  self.listener:close()
  for _, stream in ipairs(self.streams) do stream:close() end
end

--- Lets nothing through from now on, without a word to either side.
function Proxy:freeze()
  self.frozen = true
end

local proxy = {}

--- Starts a proxy to the broker at `url`.
---@async
---@param url string
---@return proxy.Proxy
function proxy.start(url)
  local scheme, host, port = url:match("^(%a+)://(.+):(%d+)$")
  local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
  local own_port = listener:local_address():match("%d+$")
  local self = setmetatable({
    url = ("%s://%s:%s"):format(scheme, host, own_port),
    sent = cosocket.queue(SENT_MAX),
    listener = listener,
    streams = {},
    frozen = false,
  }, Proxy)
  cosocket.spawn("proxy", serve, self, ("tcp://%s:%s"):format(host, port))
  return self
end

return proxy
