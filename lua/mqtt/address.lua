--- Where servers are: addresses, in the order in which they are tried, and how a stream to one is opened.

local cosocket = require("cosocket")
local url_module = require("url")

local SCHEMES = { mqtt = 1883, mqtts = 8883, unix = 0, ws = 80, wss = 443 }

---@class mqtt.Address
---@field stream cosocket.Stream? One that is connected already, instead of all below.
---@field text string As it may be shown: without a password.
---@field target string What `cosocket.connect` or the WebSocket stack connects to.
---@field tls boolean
---@field websocket boolean
---@field username string?
---@field password string?

local address = {}

--- Takes an address apart.
---@param text any
---@return mqtt.Address? address
---@return string? mistake
function address.parse(text)
  if type(text) ~= "string" then return nil, ("the address must be a string, not a %s"):format(type(text)) end
  local scheme = text:match("^(%a+)://")
  scheme = scheme and scheme:lower()
  if not SCHEMES[scheme] then
    return nil, ("the address must begin with mqtt://, mqtts://, ws://, wss:// or unix://, unlike %q"):format(text)
  end
  if scheme == "unix" then return { text = text, target = text, tls = false, websocket = false } end
  local url, err = url_module.parse(text)
  if not url then return nil, err and err.message or "not an address" end
  if not url.host or url.host == "" then return nil, ("%q names no host"):format(text) end
  local host = url.host:find(":", 1, true) and ("[%s]"):format(url.host) or url.host
  local port = url.port or SCHEMES[scheme]
  local tls, websocket = scheme == "mqtts" or scheme == "wss", scheme == "ws" or scheme == "wss"
  local target
  if websocket then
    local path = url.path ~= "" and url.path or "/"
    target = ("%s://%s:%d%s%s"):format(scheme, host, port, path, url.query and "?" .. url.query or "")
  elseif (url.path ~= "" and url.path ~= "/") or url.query or url.fragment then
    return nil, "an address has no path: topics are named in publish and subscribe"
  else
    target = ("%s://%s:%d"):format(tls and "tls" or "tcp", host, port)
  end
  local found = { text = ("%s://%s:%d"):format(scheme, host, port), target = target, tls = tls, websocket = websocket }
  if url.username then found.username, found.password = url.username, url.password end
  return found
end

--- The servers of a Server Reference (4.11), reached as `like` is: names, or addresses with ports, between blanks.
--- What cannot be understood is left out.
---@param reference string
---@param like mqtt.Address
---@return mqtt.Address[]
function address.references(reference, like)
  local scheme = like.text:match("^%a+")
  local found = {}
  if scheme == "unix" then return found end
  for name in reference:gmatch("%S+") do
    local path = like.websocket and like.target:match("^%a+://[^/]+(.*)$") or ""
    local one = address.parse(("%s://%s%s"):format(scheme, name, path))
    if one then
      one.username, one.password = like.username, like.password
      found[#found + 1] = one
    end
  end
  return found
end

--- Opens a stream.
---@async
---@param to mqtt.Address
---@param tls cosocket.TlsOptions?
---@param seconds number
---@return cosocket.Stream? stream
---@return cosocket.Error? err
function address.open(to, tls, seconds)
  if to.stream then return to.stream end
  if to.websocket then
    -- MQTT 5, 6: binary frames of the subprotocol "mqtt".
    return require("websocket").connect_stream(to.target, { subprotocol = "mqtt", tls = tls, timeout = seconds })
  end
  return cosocket.connect(to.target, { timeout = seconds, tls = to.tls and tls or nil })
end

return address
