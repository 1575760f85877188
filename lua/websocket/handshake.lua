--- The opening handshake (RFC 6455, 4): what its headers say and mean. Requests and answers travel elsewhere.

local base64 = require("base64")
local codec = require("websocket.codec")
local extension = require("websocket.extension")
local field = require("net.field")

local handshake = {}

--- Answers what a header says, its repeats joined with commas; `nil` when it is not there.
---@alias websocket.Header fun(name: string): string?

--- Whether a comma-separated header has this word.
---@param value string?
---@param word string In lower case.
---@return boolean
local function has(value, word)
  for _, one in ipairs(field.members(value)) do
    if one:lower() == word then return true end
  end
  return false
end

--- Whether this can name a subprotocol (4.1): a token.
---@param name any
---@return boolean
function handshake.valid_subprotocol(name)
  return type(name) == "string" and name:match("^[%w!#$%%&'*+.^_`|~-]+$") ~= nil
end

-- Client ----------------------------------------------------------------------

---@class websocket.Offer
---@field key string
---@field subprotocols string[]
---@field compression websocket.CompressionOptions?

--- Headers of a client's request (4.1), and what its answer is judged by.
---@param subprotocols string[]
---@param compression websocket.CompressionOptions?
---@param origin string?
---@return [string, string][] headers
---@return websocket.Offer offer
function handshake.request(subprotocols, compression, origin)
  local key = codec.generate_key()
  local headers = {
    { "Upgrade", "websocket" },
    { "Connection", "Upgrade" },
    { "Sec-WebSocket-Key", key },
    { "Sec-WebSocket-Version", "13" },
  }
  if subprotocols[1] then headers[#headers + 1] = { "Sec-WebSocket-Protocol", table.concat(subprotocols, ", ") } end
  if compression then headers[#headers + 1] = { "Sec-WebSocket-Extensions", extension.offer(compression) } end
  if origin then headers[#headers + 1] = { "Origin", origin } end
  return headers, { key = key, subprotocols = subprotocols, compression = compression }
end

--- What a client makes of an answer with status 101 (4.1).
---@param header websocket.Header
---@param offer websocket.Offer
---@return {subprotocol: string?, compression: websocket.Agreed?}? agreed
---@return string? mistake Why the connection has to fail.
function handshake.check_response(header, offer)
  if not has(header("upgrade"), "websocket") then return nil, "the server's answer has no Upgrade: websocket" end
  if not has(header("connection"), "upgrade") then return nil, "the server's answer has no Connection: Upgrade" end
  if header("sec-websocket-accept") ~= codec.accept_key(offer.key) then
    return nil, "the server's Sec-WebSocket-Accept does not answer our key"
  end
  local agreed = {}
  local subprotocol = header("sec-websocket-protocol")
  if subprotocol then
    local offered = false
    for _, name in ipairs(offer.subprotocols) do offered = offered or name == subprotocol end
    if not offered then return nil, ("the server speaks a subprotocol that was not offered: %q"):format(subprotocol) end
    agreed.subprotocol = subprotocol
  end
  local extensions = header("sec-websocket-extensions")
  if extensions then
    local mistake
    agreed.compression, mistake = extension.accepted(extensions, offer.compression)
    if not agreed.compression then return nil, mistake end
  end
  return agreed
end

-- Server ----------------------------------------------------------------------

---@class websocket.Refusal
---@field status integer
---@field message string
---@field headers table<string, string>

---@param status integer
---@param message string
---@param headers? table<string, string>
---@return nil
---@return websocket.Refusal
local function refuse(status, message, headers)
  return nil, { status = status, message = message, headers = headers or {} }
end

--- Whether a page of `origin` may open a connection. Without a list only a page that this server has sent may:
--- browsers let any page connect anywhere, cookies included (10.2).
---@param origin string
---@param host string? What the request says the server is.
---@param origins string[]|"*"|nil
---@return boolean
function handshake.allows(origin, host, origins)
  if origins == "*" then return true end
  origin = origin:lower()
  if type(origins) == "table" then
    for _, allowed in ipairs(origins) do
      if allowed:lower() == origin then return true end
    end
    return false
  end
  local scheme, authority = origin:match("^(https?)://([^/]+)$")
  if not scheme or not host then return false end
  local default = scheme == "https" and ":443" or ":80"
  local function plain(name) return (name:lower():gsub(default .. "$", "")) end
  return plain(authority) == plain(host)
end

---@class websocket.Terms
---@field subprotocols string[]
---@field origins string[]|"*"|nil
---@field compression websocket.CompressionOptions?

--- What a server makes of a request (4.2): the headers of its answer with status 101, or why it refuses.
---@param method string
---@param version string "1.1"
---@param header websocket.Header
---@param terms websocket.Terms
---@return [string, string][]? headers
---@return websocket.Refusal|{subprotocol: string?, compression: websocket.Agreed?} agreed
function handshake.check_request(method, version, header, terms)
  if not has(header("upgrade"), "websocket") or not has(header("connection"), "upgrade") then
    return refuse(426, "this resource speaks WebSocket", { Upgrade = "websocket", Connection = "Upgrade" })
  end
  if method ~= "GET" then return refuse(405, "a WebSocket handshake is a GET", { Allow = "GET" }) end
  if version ~= "1.1" then return refuse(400, "a WebSocket handshake is HTTP/1.1") end
  if not header("host") then return refuse(400, "the request has no Host") end
  if header("sec-websocket-version") ~= "13" then
    return refuse(426, "only version 13 is spoken", { ["Sec-WebSocket-Version"] = "13", Upgrade = "websocket" })
  end
  local key = header("sec-websocket-key")
  local nonce = key and base64.decode(key)
  if not nonce or #nonce ~= 16 then return refuse(400, "Sec-WebSocket-Key is not 16 bytes in base64") end
  local origin = header("origin")
  if origin and not handshake.allows(origin, header("host"), terms.origins) then
    return refuse(403, "pages of this origin may not connect")
  end
  local headers = {
    { "Upgrade", "websocket" },
    { "Connection", "Upgrade" },
    { "Sec-WebSocket-Accept", codec.accept_key(key --[[@as string]]) },
  }
  local agreed = {}
  local offered = {}
  for _, name in ipairs(field.members(header("sec-websocket-protocol"))) do offered[name] = true end
  for _, name in ipairs(terms.subprotocols) do
    if offered[name] then
      agreed.subprotocol = name
      headers[#headers + 1] = { "Sec-WebSocket-Protocol", name }
      break
    end
  end
  local extensions = header("sec-websocket-extensions")
  if extensions and terms.compression then
    local compression, mistake = extension.choose(extensions, terms.compression)
    if mistake then return refuse(400, mistake) end
    if compression then
      agreed.compression = compression
      headers[#headers + 1] = { "Sec-WebSocket-Extensions", compression.header }
    end
  end
  return headers, agreed
end

return handshake
