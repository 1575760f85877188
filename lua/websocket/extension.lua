--- Negotiating permessage-deflate (RFC 7692, 7.1): offers and answers as header values.
---
--- A window of 256 bytes (8 bits) is beyond zlib's raw deflate: an offer that wants it of us is declined, and where
--- the other side limits us to it, we do not compress.

local cosocket = require("cosocket")

--- Parameters of one header; a sane one has four.
local PARAMETERS_MAX = 16
--- Extensions of one header.
local OFFERS_MAX = 16

local NAME = "permessage-deflate"
local BITS_MIN, BITS_MAX = 9, 15

---@class websocket.CompressionOptions
---@field client_no_context_takeover? boolean The client's messages do not refer to each other: less memory on both sides. Default `false`.
---@field server_no_context_takeover? boolean The same for the server's messages. Default `false`.
---@field client_max_window_bits? integer The client's window is 2 to this power, 9 to 15. Default 15.
---@field server_max_window_bits? integer The server's. Default 15.
---@field level? integer 1 (fast) to 9 (small). Default 6.
---@field threshold? integer Shorter messages are sent as they are. Default 64.

local OPTIONS = {
  client_no_context_takeover = "boolean",
  server_no_context_takeover = "boolean",
  client_max_window_bits = "integer",
  server_max_window_bits = "integer",
  level = "integer",
  threshold = "integer",
}

--- What both sides agreed on.
---@class websocket.Agreed
---@field inflate websocket.Compression
---@field deflate websocket.Compression?
---@field level integer?
---@field threshold integer?
---@field header string The server's answer.

local extension = {}

--- Checks the option `compression`; `nil` when there is to be none. Raises for what is none, `level` calls above.
---@param op string
---@param given boolean|table|nil
---@param level integer
---@return websocket.CompressionOptions?
function extension.check(op, given, level)
  if not given then return nil end
  if given == true then return {} end
  local options = cosocket.check_options(op, given --[[@as table]], OPTIONS, level + 1)
  local function range(name, least, most)
    local value = options[name]
    if value and (value < least or value > most) then
      error(("%s: %s must be from %d to %d"):format(op, name, least, most), level + 2)
    end
  end
  range("client_max_window_bits", BITS_MIN, BITS_MAX)
  range("server_max_window_bits", BITS_MIN, BITS_MAX)
  range("level", 1, 9)
  return options
end

---@class websocket.Extension
---@field name string
---@field parameters table<string, string|true>

--- Takes a Sec-WebSocket-Extensions value apart (RFC 6455, 9.1).
---@param value string
---@return websocket.Extension[]? extensions `nil`: it is not one.
function extension.parse(value)
  local token = "^[%w!#$%%&'*+.^_`|~-]+"
  local at, list = 1, {}
  local function take(pattern)
    local found = value:match(pattern, at)
    if found then at = at + #found end
    return found
  end
  local function space() take("^[ \t]*") end
  repeat
    space()
    local name = take(token)
    if not name or #list == OFFERS_MAX then return nil end
    local one, count = { name = name:lower(), parameters = {} }, 0
    space()
    while take("^;") do
      space()
      local key = take(token)
      count = count + 1
      if not key or count > PARAMETERS_MAX then return nil end
      key = key:lower()
      space()
      local given = true
      if take("^=") then
        space()
        given = take(token)
        if not given then
          local quoted = take('^"[^"\\]*"')
          given = quoted and quoted:match('^"(.*)"$')
        end
        if not given then return nil end
        space()
      end
      -- The same twice is wrong in every extension we know (RFC 7692, 7).
      if one.parameters[key] ~= nil then return nil end
      one.parameters[key] = given
    end
    list[#list + 1] = one
  until not take("^,")
  if at <= #value then return nil end
  return list
end

--- A number of window bits as it may stand in a header (7.1.2): without leading zeros, 8 to 15.
---@param text string|true|nil
---@return integer?
local function bits(text)
  if type(text) ~= "string" or not text:match("^[1-9]%d?$") then return nil end
  local number = math.tointeger(tonumber(text))
  return number and number >= 8 and number <= BITS_MAX and number or nil
end

local FLAGS = { client_no_context_takeover = true, server_no_context_takeover = true }
local WINDOWS = { client_max_window_bits = true, server_max_window_bits = true }

--- Whether parameters are those of permessage-deflate. `offer`: client_max_window_bits may stand alone.
---@param parameters table<string, string|true>
---@param offer boolean
---@return boolean
local function valid(parameters, offer)
  for key, value in pairs(parameters) do
    if FLAGS[key] then
      if value ~= true then return false end
    elseif WINDOWS[key] then
      local alone = offer and key == "client_max_window_bits" and value == true
      if not alone and not bits(value) then return false end
    else
      return false
    end
  end
  return true
end

--- What a client offers.
---@param options websocket.CompressionOptions
---@return string
function extension.offer(options)
  local parts = { NAME }
  if options.server_no_context_takeover then parts[#parts + 1] = "server_no_context_takeover" end
  if options.client_no_context_takeover then parts[#parts + 1] = "client_no_context_takeover" end
  local window = options.server_max_window_bits
  if window and window < BITS_MAX then parts[#parts + 1] = ("server_max_window_bits=%d"):format(window) end
  window = options.client_max_window_bits
  parts[#parts + 1] = window and window < BITS_MAX and ("client_max_window_bits=%d"):format(window)
    or "client_max_window_bits"
  return table.concat(parts, "; ")
end

--- What a client makes of the server's answer to its offer.
---@param value string
---@param options websocket.CompressionOptions? What was offered; `nil`: nothing.
---@return websocket.Agreed? agreed
---@return string? mistake Why the connection has to fail.
function extension.accepted(value, options)
  local list = extension.parse(value)
  if not list then return nil, "the server's extensions cannot be read" end
  local one = list[1]
  if #list > 1 or one.name ~= NAME or not options then
    return nil, ("the server uses an extension that was not offered: %s"):format(one.name)
  end
  local answer = one.parameters
  if not valid(answer, false) then return nil, "the server's parameters of permessage-deflate are wrong" end
  local theirs = bits(answer.server_max_window_bits)
  if options.server_no_context_takeover and not answer.server_no_context_takeover then
    return nil, "the server does not agree to server_no_context_takeover"
  end
  if (options.server_max_window_bits or BITS_MAX) < (theirs or BITS_MAX) then
    return nil, "the server does not agree to server_max_window_bits"
  end
  local own = math.min(options.client_max_window_bits or BITS_MAX, bits(answer.client_max_window_bits) or BITS_MAX)
  local alone = answer.client_no_context_takeover or options.client_no_context_takeover
  return {
    inflate = {
      window_bits = math.max(BITS_MIN, theirs or BITS_MAX),
      takeover = not answer.server_no_context_takeover,
    },
    deflate = own >= BITS_MIN and { window_bits = own, takeover = not alone } or nil,
    level = options.level,
    threshold = options.threshold,
    header = value,
  }
end

--- What a server makes of one offer.
---@param offer table<string, string|true>
---@param options websocket.CompressionOptions
---@return websocket.Agreed? agreed `nil`: declined.
local function consider(offer, options)
  if not valid(offer, true) then return nil end
  local parts = { NAME }
  local own = math.min(bits(offer.server_max_window_bits) or BITS_MAX, options.server_max_window_bits or BITS_MAX)
  if own < BITS_MIN then return nil end
  local alone = offer.server_no_context_takeover or options.server_no_context_takeover
  if alone then parts[#parts + 1] = "server_no_context_takeover" end
  local theirs_alone = offer.client_no_context_takeover or options.client_no_context_takeover
  if theirs_alone then parts[#parts + 1] = "client_no_context_takeover" end
  if own < BITS_MAX or offer.server_max_window_bits then
    parts[#parts + 1] = ("server_max_window_bits=%d"):format(own)
  end
  local theirs = bits(offer.client_max_window_bits) or BITS_MAX
  local wanted = math.min(theirs, options.client_max_window_bits or BITS_MAX)
  -- 7.1.2.2: only a client that has offered it can be limited.
  if offer.client_max_window_bits and wanted < BITS_MAX then
    theirs = wanted
    parts[#parts + 1] = ("client_max_window_bits=%d"):format(wanted)
  end
  return {
    inflate = { window_bits = math.max(BITS_MIN, theirs), takeover = not theirs_alone },
    deflate = { window_bits = own, takeover = not alone },
    level = options.level,
    threshold = options.threshold,
    header = table.concat(parts, "; "),
  }
end

--- What a server makes of a client's offers: the first it can agree to.
---@param value string
---@param options websocket.CompressionOptions
---@return websocket.Agreed? agreed `nil` without a mistake: there will be no compression.
---@return string? mistake Why the header cannot be read.
function extension.choose(value, options)
  local list = extension.parse(value)
  if not list then return nil, "Sec-WebSocket-Extensions cannot be read" end
  for _, one in ipairs(list) do
    local agreed = one.name == NAME and consider(one.parameters, options)
    if agreed then return agreed end
  end
  return nil
end

return extension
