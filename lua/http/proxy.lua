--- Ways through other machines: which proxy a URL goes through, and how a stream through it is made. HTTP proxies
--- forward requests (RFC 9112, 3.2.2) or open tunnels (RFC 9110, 9.3.6); SOCKS5 proxies only open them (RFC 1928).

local codec = require("http.codec")
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local trace = require("net.trace")
local url = require("url")

--- Bytes of a proxy's answer to CONNECT.
local HEAD_MAX = 16384
--- How often one tunnel is asked for, when the proxy wants credentials.
local TRIES_MAX = 3

local PORTS = { http = 80, https = 443, socks5 = 1080, socks5h = 1080 }

---@class http.Proxy
---@field scheme "http"|"https"|"socks5" `https`: TLS to the proxy itself.
---@field host string
---@field port integer
---@field username string?
---@field password string?
---@field key string What tells it from others, without secrets.
---@field auth http.Auth? Credentials for HTTP proxies, and what they have been challenged with.

--- What the environment says, or a script.
---@class http.ProxySettings
---@field http http.Proxy?
---@field https http.Proxy?
---@field bypass {host: string?, port: integer?, address: integer?, bits: integer?}[]
---@field everything boolean Nothing goes through a proxy.
---@field loopback boolean Loopback addresses never do.

local proxy = {}

--- What stands for credentials in a key: who has others must not get a tunnel that was opened with these.
---@param username string?
---@param password string?
---@return string
local function id_of(username, password)
  if not username then return "" end
  return hex.encode(crypto.sha256(("%d:%s%s"):format(#username, username, password or "")):sub(1, 16))
end

--- Takes a proxy's URL apart. Without a scheme it is an HTTP proxy.
---@param text string
---@param given? http.AuthOptions Instead of the URL's user and password.
---@return http.Proxy? proxy
---@return cosocket.Error? err `protocol`
function proxy.parse(text, given)
  if not text:find("://", 1, true) then text = "http://" .. text end
  local parsed, err = url.parse(text)
  if not parsed then
    ---@cast err cosocket.Error
    -- Its message may show a password.
    return nil, cosocket.error("protocol", "http.proxy", "the proxy's URL cannot be read; it should be like http://user:password@host:port")
  end
  local scheme = parsed.scheme
  local port = parsed.port or PORTS[scheme]
  if not port or not parsed.host then
    local message = ("a proxy is http://, https:// or socks5://, not %s://"):format(scheme)
    return nil, cosocket.error("protocol", "http.proxy", message)
  end
  local username, password = parsed.username, parsed.password
  if given then
    username, password = given.username or given.bearer, given.password
  end
  local made = {
    scheme = scheme == "socks5h" and "socks5" or scheme,
    host = parsed.host,
    port = port,
    username = username,
    password = password,
    key = ("%s://%s@%s:%d"):format(scheme, id_of(username, password), parsed.host, port),
  }
  if username and made.scheme ~= "socks5" then
    -- A URL cannot say how: Basic is what proxies take, and Digest is answered where one asks for it.
    made.auth = require("http.auth").new(given or { username = username, password = password, scheme = "any" }, not given)
  end
  return made
end

--- An IPv4 address as a number.
---@param text string
---@return integer?
local function ipv4(text)
  local a, b, c, d = text:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  if not a then return nil end
  local value = 0
  for _, part in ipairs({ a, b, c, d }) do
    local number = tonumber(part)
    if number > 255 then return nil end
    value = value << 8 | number
  end
  return value
end

--- NO_PROXY: names (with all below them), addresses, ranges (10.0.0.0/8), each with a port or without; `*` is all.
---@param list string
---@return table[] bypass
---@return boolean everything
function proxy.parse_bypass(list)
  local bypass, everything = {}, false
  for item in list:gmatch("[^,%s]+") do
    item = item:lower()
    if item == "*" then everything = true end
    local range, bits = item:match("^([%d%.]+)/(%d+)$")
    local address = range and ipv4(range)
    if address and tonumber(bits) <= 32 then
      table.insert(bypass, { address = address, bits = tonumber(bits) })
    else
      local host, port = item:match("^%[([^%]]+)%]:?(%d*)$")
      if not host then host, port = item:match("^([^:]+):(%d+)$") end
      if not host then host, port = item, "" end
      host = host:gsub("^%*?%.", "")
      table.insert(bypass, { host = host, port = tonumber(port) })
    end
  end
  return bypass, everything
end

--- The proxies that environment variables name. Small letters go before capitals; in a CGI program, `HTTP_PROXY` is a
--- header that the client sent, and is not believed.
---@param getenv? fun(name: string): string?
---@param given? http.AuthOptions Instead of the user and password of the URLs.
---@return http.ProxySettings? settings `nil` when there are none.
---@return cosocket.Error? err `protocol`: one that cannot be read.
function proxy.from_environment(getenv, given)
  getenv = getenv or os.getenv
  local function get(name, no_capitals)
    local value = getenv(name) or (not no_capitals and getenv(name:upper())) or nil
    return value ~= "" and value or nil
  end
  local all = get("all_proxy")
  local settings = { loopback = true }
  for _, scheme in ipairs({ "http", "https" }) do
    local text = get(scheme .. "_proxy", scheme == "http" and getenv("REQUEST_METHOD") ~= nil) or all
    if text then
      local parsed, err = proxy.parse(text, given)
      if not parsed then return nil, err end
      settings[scheme] = parsed
    end
  end
  if not settings.http and not settings.https then return nil end
  settings.bypass, settings.everything = proxy.parse_bypass(get("no_proxy") or "")
  return settings
end

--- One proxy for everything, as an option names it.
---@param text string
---@param given? http.AuthOptions Instead of the URL's user and password.
---@return http.ProxySettings? settings
---@return cosocket.Error? err
function proxy.for_all(text, given)
  local parsed, err = proxy.parse(text, given)
  if not parsed then return nil, err end
  return { http = parsed, https = parsed, bypass = {}, everything = false, loopback = false }
end

--- The proxy for a URL.
---@param settings http.ProxySettings?
---@param scheme "http"|"https"
---@param host string
---@param port integer
---@return http.Proxy?
function proxy.choose(settings, scheme, host, port)
  local found = settings and settings[scheme]
  if not settings or not found or settings.everything then return nil end
  host = host:lower():gsub("%.$", "")
  local address = ipv4(host)
  if settings.loopback then
    if host == "localhost" or host:find("%.localhost$") or host == "::1" then return nil end
    if address and address >> 24 == 127 then return nil end
  end
  for _, item in ipairs(settings.bypass) do
    if item.address then
      local unused = 32 - item.bits
      if address and address >> unused == item.address >> unused then return nil end
    elseif not item.port or item.port == port then
      if host == item.host then return nil end
      if not address and host:sub(-#item.host - 1) == "." .. item.host then return nil end
    end
  end
  return found
end

--- `host:port` as CONNECT has it.
---@param host string
---@param port integer
---@return string
local function authority(host, port)
  return (host:find(":", 1, true) and "[%s]:%d" or "%s:%d"):format(host, port)
end

--- Asks an HTTP proxy for a tunnel.
---@async
---@param stream cosocket.Stream
---@param through http.Proxy
---@param host string
---@param port integer
---@return true? ok
---@return cosocket.Error? err
---@return boolean? again The proxy wants credentials that we can give, over another connection.
local function connect_tunnel(stream, through, host, port)
  local input, output = cosocket.buffer(), cosocket.buffer()
  local target, auth = authority(host, port), through.auth
  local fields = { { "Host", target } }
  local credentials = auth and auth:header("CONNECT", target, "")
  if credentials then fields[2] = { "Proxy-Authorization", credentials } end
  local ok, err = codec.encode_request(output, "CONNECT", target, nil, fields)
  if not ok then return nil, err end
  repeat
    ok, err = stream:turn(input, output)
    if not ok then return nil, err end
    local status, reason, _, headers
    repeat
      status, reason, _, headers = codec.decode_response(input, "CONNECT", HEAD_MAX)
    until not status or status >= 200
    if status and auth then
      ---@cast headers http.Headers
      auth:sent()
      auth:info(headers["Proxy-Authentication-Info"])
    end
    if status and status < 300 then
      if #input == 0 then return true end
      return nil, cosocket.error("protocol", "http.proxy", "the proxy sent bytes into the tunnel before anybody could")
    elseif status then
      local message = ("the proxy refused a tunnel to %s: %d %s"):format(target, status, reason)
      local again = false
      if status == 407 then
        message = message .. (auth and " (user or password is wrong)" or " (give user and password in the proxy's URL)")
        again = auth ~= nil and auth:challenged(headers:get_all("Proxy-Authenticate"), true)
      end
      return nil, cosocket.error("refused", "http.proxy", message, { code = status }), again
    elseif reason then
      return nil, reason --[[@as cosocket.Error]]
    end
  until false
end

--- RFC 1928, 6.
local REPLIES = {
  "the proxy failed",
  "its rules do not allow it",
  "the network is unreachable",
  "the host is unreachable",
  "the connection was refused",
  "the time to live expired",
  "it does not know the command",
  "it does not know the type of address",
}

--- Asks a SOCKS5 proxy for a tunnel. It resolves the name.
---@async
---@param stream cosocket.Stream
---@param through http.Proxy
---@param host string
---@param port integer
---@return true? ok
---@return cosocket.Error? err
local function connect_socks(stream, through, host, port)
  local function refuse(kind, message, code)
    return nil, cosocket.error(kind, "http.proxy", message, { code = code })
  end
  if #host > 255 then return refuse("protocol", "the name is too long for SOCKS5") end
  -- RFC 1928, 3: without credentials, none are offered.
  local offer = through.username and "\5\2\0\2" or "\5\1\0"
  local ok, err = stream:write(offer)
  local chosen
  if ok then
    chosen, err = stream:read(2)
  end
  if not chosen then return nil, err end
  local version, method = chosen:byte(1, 2)
  if version ~= 5 then return refuse("protocol", "the proxy does not speak SOCKS5") end
  if method == 2 and through.username then
    -- RFC 1929, 2.
    local username, password = through.username, through.password or ""
    if #username > 255 or #password > 255 then return refuse("protocol", "SOCKS5 takes at most 255 bytes of user or password") end
    ok, err = stream:write("\1", string.pack("s1s1", username, password))
    local answer
    if ok then
      answer, err = stream:read(2)
    end
    if not answer then return nil, err end
    if answer:byte(2) ~= 0 then return refuse("refused", "the proxy refused user or password") end
  elseif method == 0xFF then
    local hint = through.username and "it takes neither user and password nor none" or "it wants a user and a password, in the proxy's URL"
    return refuse("refused", "the proxy refused us: " .. hint, 0xFF)
  elseif method ~= 0 then
    return refuse("protocol", ("the proxy chose method %d, which was not offered"):format(method))
  end
  local address = ipv4(host)
  local where
  if address then
    where = string.pack(">BI4", 1, address)
  elseif host:find(":", 1, true) then
    where = proxy.ipv6(host)
    if not where then return refuse("protocol", ("%s is no address"):format(host)) end
    where = "\4" .. where
  else
    where = string.pack("Bs1", 3, host)
  end
  ok, err = stream:write("\5\1\0", where, string.pack(">I2", port))
  local head
  if ok then
    head, err = stream:read(4)
  end
  if not head then return nil, err end
  local code, kind = head:byte(2), head:byte(4)
  if head:byte(1) ~= 5 then return refuse("protocol", "the proxy's reply is not SOCKS5") end
  if code ~= 0 then
    local words = REPLIES[code] or ("reply %d"):format(code)
    return refuse(code == 2 and "refused" or "connect", ("no tunnel to %s: %s"):format(authority(host, port), words), code)
  end
  -- The address it uses is of no interest, but must be taken off.
  local size = kind == 1 and 6 or kind == 4 and 18 or nil
  if kind == 3 then
    local length
    length, err = stream:read(1)
    if not length then return nil, err end
    size = length:byte() + 2
  end
  if not size then return refuse("protocol", ("the proxy's reply has an address of type %d"):format(kind)) end
  local rest
  rest, err = stream:read(size)
  if not rest then return nil, err end
  return true
end

--- The sixteen bytes of an IPv6 address.
---@param text string
---@return string?
function proxy.ipv6(text)
  local function groups(part)
    local made = {}
    if part == "" then return made end
    for group in (part .. ":"):gmatch("([^:]*):") do
      local v4 = ipv4(group)
      if v4 then
        made[#made + 1], made[#made + 2] = v4 >> 16, v4 & 0xFFFF
      elseif group:match("^%x%x?%x?%x?$") then
        made[#made + 1] = tonumber(group, 16)
      else
        return nil
      end
    end
    return made
  end
  local front, back = text:match("^(.-)::(.*)$")
  local head = groups(front or text)
  local tail = groups(back or "")
  if not head or not tail then return nil end
  local missing = 8 - #head - #tail
  if front and missing < 1 or not front and missing ~= 0 then return nil end
  for _ = 1, missing do head[#head + 1] = 0 end
  table.move(tail, 1, #tail, #head + 1, head)
  local bytes = {}
  for i, group in ipairs(head) do bytes[i] = string.pack(">I2", group) end
  return table.concat(bytes)
end

--- A stream through a proxy to `host:port`; with `tunnel` false, only to the proxy.
---@async
---@param through http.Proxy
---@param host string
---@param port integer
---@param tunnel boolean
---@param options cosocket.ConnectOptions `tls` is for a proxy of scheme `https`.
---@return cosocket.Stream? stream
---@return cosocket.Error? err
function proxy.connect(through, host, port, tunnel, options)
  local err ---@type cosocket.Error?
  for _ = 1, TRIES_MAX do
    local stream, ok, again
    stream, err = cosocket.connect(through.host, through.port, options)
    if not stream then
      ---@cast err cosocket.Error
      return nil, cosocket.error(err.kind, "http.proxy", "no way to the proxy: " .. err.message, { code = err.code, cause = err })
    end
    if not tunnel then return stream end
    trace.attach(stream, through.scheme == "socks5" and "socks5" or "http", "client")
    if through.scheme == "socks5" then
      ok, err = connect_socks(stream, through, host, port)
    else
      ok, err, again = connect_tunnel(stream, through, host, port)
    end
    if ok then return stream end
    stream:close()
    if not again then break end
  end
  ---@cast err cosocket.Error
  if err.op == "http.proxy" then return nil, err end
  local message = ("the proxy opened no tunnel to %s: %s"):format(authority(host, port), err.message)
  return nil, cosocket.error(err.kind, "http.proxy", message, { code = err.code, cause = err })
end

return proxy
