--- What clients and single requests may be told: checked, with defaults.

local codec = require("http.codec")
local cosocket = require("cosocket")
local proxies = require("http.proxy")

--- Bytes of a body that is not streamed.
local BODY_MAX = 16 * 1024 * 1024
--- Bytes of a head, and fields in it.
local HEAD_MAX = 65536
local FIELDS_MAX = 128
--- Redirects of one request.
local REDIRECTS_MAX = 10
--- Seconds for the way there; without a byte.
local CONNECT_TIMEOUT = 15
local IDLE_TIMEOUT = 30

--- What is sent unless a request says otherwise.
local ACCEPT_ENCODING = "gzip, deflate, br, zstd"
local USER_AGENT = "moonwire"

--- What a single request may say; a client's own are the defaults.
---@class http.RequestOptions
---@field headers? http.Fields Sent as they are; those of the client are sent, too, but for names given here.
---@field query? {[1]: url.Scalar, [2]: url.Scalar}[]|table<string, url.Scalar|url.Scalar[]> Appended to the URL's own.
---@field body? string|cosocket.Buffer|file*|http.Upload|fun(): string?, any A function answers piece after piece, then `nil`; `nil` and an error give up.
---@field length? integer Bytes a function will answer in all. Without, the body is chunked.
---@field json? any Sent as JSON.
---@field form? {[1]: url.Scalar, [2]: url.Scalar}[]|table<string, url.Scalar|url.Scalar[]> Sent as application/x-www-form-urlencoded.
---@field multipart? http.Part[]|table<string, string|http.Part> Sent as multipart/form-data.
---@field trailers? table<string, string>|fun(): table<string, string> Sent after the body, which is then chunked.
---@field compress? boolean Send the body compressed with gzip. Default `false`.
---@field expect? boolean|number Ask whether the body is wanted before it is sent, and wait so many seconds for the answer (`true`: 1). Default `false`.
---@field stream? boolean Answer with the head; the body is for `response:read()`. Default `false`.
---@field timeout? number Seconds for everything, redirects and body included. Default 60; with `stream` no limit.
---@field connect_timeout? number Seconds for name, connection, proxy and TLS. Default 15.
---@field idle_timeout? number Seconds without a byte either way. Default 30.
---@field auth? http.AuthOptions|false Credentials for the URL's origin, and no other.
---@field redirects_max? integer Redirects that are followed; with 0, they are answers. Default 10.
---@field body_max? integer Bytes of a body that is not streamed, decoded. Default 16 MiB.
---@field head_max? integer Bytes of a head. Default 64 KiB.
---@field fields_max? integer Lines of a head. Default 128.
---@field decompress? boolean Ask for compressed bodies, and decode them. Default `true`.
---@field ratio_max? integer How many bytes may be decoded from one, as in `compress.decoder`. Default 200.
---@field tls? cosocket.TlsOptions Connections are shared by requests that give the same table.
---@field proxy? string|false `http://`, `https://` or `socks5://`, with user and password if needed; `false`: none. Default: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
---@field proxy_auth? http.AuthOptions Credentials for the proxy. Default: user and password of its URL, with Basic, or with Digest when it asks for that.
---@field unix? string Path of a unix socket to connect to, whatever the URL's host.
---@field connect? http.Connect Makes streams in place of `cosocket.connect`, and of proxies: through a tunnel of your own, say.
---@field cookies? http.Jar|boolean `true`: a new jar for this client. Default `false`.
---@field user_agent? string|false Default "moonwire".
---@field on_informational? fun(status: integer, headers: http.Headers) Called for each interim answer (1xx).

---@class http.ClientOptions: http.RequestOptions
---@field base_url? string What relative URLs are relative to.
---@field connections_max? integer To one origin; who needs more waits. Default 16.
---@field idle_max? integer Idle connections that are kept, in all. Default 32.
---@field keep_alive? number Seconds that an idle connection is kept. Default 60.

local REQUEST_OPTIONS = {
  headers = "table|userdata",
  query = "table",
  body = "string|userdata|table|function",
  length = "integer",
  json = "string|number|boolean|table|userdata",
  form = "table",
  multipart = "table",
  trailers = "table|function",
  compress = "boolean",
  expect = "boolean|number",
  stream = "boolean",
  timeout = "number",
  connect_timeout = "number",
  idle_timeout = "number",
  auth = "table|boolean",
  redirects_max = "integer",
  body_max = "integer",
  head_max = "integer",
  fields_max = "integer",
  decompress = "boolean",
  ratio_max = "integer",
  tls = "tls",
  proxy = "string|boolean",
  proxy_auth = "table",
  unix = "string",
  connect = "function",
  cookies = "table|boolean",
  user_agent = "string|boolean",
  on_informational = "function",
}

local CLIENT_OPTIONS = { base_url = "string", connections_max = "integer", idle_max = "integer", keep_alive = "number" }
for name, kind in pairs(REQUEST_OPTIONS) do CLIENT_OPTIONS[name] = kind end
-- What only one request can have.
for _, name in ipairs({ "query", "body", "length", "json", "form", "multipart", "trailers" }) do CLIENT_OPTIONS[name] = nil end

local options = {}

--- Options that change what stands in the head of a plain GET, or where it goes.
options.HEAD = { "headers", "decompress", "user_agent", "cookies", "auth", "query" }
options.ROUTE = { "tls", "proxy", "proxy_auth", "unix", "connect" }

--- Raises for an option that is wrong.
---@param op string
---@param message string
---@param level integer As of `error`, from the caller.
function options.wrong(op, message, level)
  error(("%s: %s"):format(op, message), level + 1)
end

--- Fields that a script gave, checked.
---@param op string
---@param given http.Fields
---@param level integer
---@return http.Headers
function options.headers(op, given, level)
  local ok, made = pcall(codec.headers, given)
  if not ok then options.wrong(op, tostring(made):match("headers: [^\n]*") or "headers: names and their values are wanted", level) end
  return made
end

--- Checks what both clients and requests may say.
---@param op string
---@param given table
---@param level integer
local function check_common(op, given, level)
  if given.auth then
    if given.auth == true then options.wrong(op, "auth must be a table or false", level) end
    require("http.auth").check(op, given.auth, level + 1)
  end
  if given.proxy_auth then require("http.auth").check(op, given.proxy_auth, level + 1, "proxy_auth") end
  if given.proxy == true then options.wrong(op, "proxy must be a URL or false", level) end
  if given.proxy then
    local parsed, err = proxies.parse(given.proxy, given.proxy_auth)
    if not parsed then options.wrong(op, err.message, level) end
  end
  if given.user_agent == true then options.wrong(op, "user_agent must be a string or false", level) end
  if given.user_agent then options.headers(op, { ["User-Agent"] = given.user_agent }, level + 1) end
  if type(given.trailers) == "table" then options.headers(op, given.trailers, level + 1) end
  local jar = given.cookies
  if type(jar) == "table" and type(jar.receive) ~= "function" then options.wrong(op, "cookies must be a jar (http.jar()) or a boolean", level) end
end

--- Options of which some are `known` to the caller, and the others are a request's.
---@param op string
---@param given table?
---@param known table<string, string>
---@param level integer As of `error`, from the caller.
---@return table own
---@return http.RequestOptions request
function options.split(op, given, known, level)
  local all = {}
  for name, kind in pairs(REQUEST_OPTIONS) do all[name] = kind end
  for name, kind in pairs(known) do all[name] = kind end
  cosocket.check_options(op, given, all, level + 1)
  local own, request = {}, {}
  for name, value in pairs(given or {}) do
    if known[name] then own[name] = value else request[name] = value end
  end
  check_common(op, request, level + 2)
  if request.headers then options.headers(op, request.headers, level + 2) end
  return own, request
end

--- The proxies that an option names, or the environment.
---@param settings {proxy: string|false|nil, proxy_auth: http.AuthOptions?}
---@return http.ProxySettings? settings
---@return cosocket.Error? err
function options.proxies(settings)
  local text = settings.proxy
  if text == false then return nil end
  if text then return proxies.for_all(text, settings.proxy_auth) end
  return proxies.from_environment(nil, settings.proxy_auth)
end

--- The fields that every request has, but Host: that is where the request goes, and goes first.
---@param settings table
---@return http.Headers
function options.fields(settings)
  local fields = codec.headers()
  local given = settings.headers and codec.headers(settings.headers)
  if settings.user_agent and not (given and given["User-Agent"]) then fields:add("User-Agent", settings.user_agent) end
  if not (given and given.Accept) then fields:add("Accept", "*/*") end
  if settings.decompress and not (given and given["Accept-Encoding"]) then fields:add("Accept-Encoding", ACCEPT_ENCODING) end
  if given then
    for name, value in pairs(given) do fields:add(name, value) end
    fields:del("Host")
  end
  return fields
end

--- A client's options, checked; and what they make of a request that says nothing.
---@param op string
---@param given http.ClientOptions?
---@param level integer
---@return http.ClientOptions given
---@return table settings
function options.client(op, given, level)
  given = cosocket.check_options(op, given, CLIENT_OPTIONS, level + 1)
  check_common(op, given, level + 2)
  local settings = {
    connect_timeout = CONNECT_TIMEOUT,
    idle_timeout = IDLE_TIMEOUT,
    redirects_max = REDIRECTS_MAX,
    body_max = BODY_MAX,
    head_max = HEAD_MAX,
    fields_max = FIELDS_MAX,
    decompress = true,
    user_agent = USER_AGENT,
  }
  for name, value in pairs(given) do settings[name] = value end
  if given.headers then settings.headers = options.headers(op, given.headers, level + 2) end
  return given, settings
end

--- Raises when a request's options are wrong.
---@param op string
---@param given http.RequestOptions
---@param level integer
function options.check(op, given, level)
  cosocket.check_options(op, given, REQUEST_OPTIONS, level + 1)
  check_common(op, given, level + 2)
end

--- Raises for what a protocol that begins as HTTP was told of the request, if it is wrong.
---@param op string
---@param given http.RequestOptions Nothing but what a request may have.
---@param level integer As of `error`, from the caller.
function options.check_upgrade(op, given, level)
  check_common(op, given, level + 2)
  if given.headers then options.headers(op, given.headers, level + 2) end
end

return options
