--- A client: what requests have in common (connections, defaults, cookies, credentials), and how one request becomes an
--- answer, over redirects and challenges.

local codec = require("http.codec")
local cosocket = require("cosocket")
local json = require("json")
local pools = require("http.pool")
local proxies = require("http.proxy")
local redirect = require("http.redirect")
local responses = require("http.response")
local targets = require("http.target")
local uploads = require("http.upload")
local url = require("url")

-- What only some requests need (credentials, cookies, forms with files, downloads) is loaded when it is needed.

local now = cosocket.now
local HUGE <const> = math.huge
local new_response = responses.new

local KEEP_ALIVE <const> = codec.KEEP_ALIVE

--- Bytes of a body that is not streamed.
local BODY_MAX = 16 * 1024 * 1024
--- Bytes of a head, and fields in it.
local HEAD_MAX = 65536
local FIELDS_MAX = 128
--- Redirects of one request.
local REDIRECTS_MAX = 10
--- Bytes of an answer that nobody wants, read so that the connection can be used again.
local DISCARD_MAX = 65536
--- URLs that are kept taken apart.
local TARGETS_MAX = 256
--- Credentials that are kept, by origin.
local AUTHS_MAX = 64
--- Seconds for a request, unless it is streamed; for the way there; without a byte.
local TIMEOUT = 60
local CONNECT_TIMEOUT = 15
local IDLE_TIMEOUT = 30
--- Seconds to wait for 100.
local EXPECT = 1
--- Connections to one origin; idle ones in all; seconds that they are kept.
local CONNECTIONS_MAX = 16
local IDLE_MAX = 32
local KEEP = 60

--- What is sent unless a request says otherwise.
local ACCEPT_ENCODING = "gzip, deflate, br, zstd"
local USER_AGENT = "moonwire"

--- RFC 9110, 9.2.2: sent twice, they do what they do once.
local IDEMPOTENT = { GET = true, HEAD = true, OPTIONS = true, TRACE = true, PUT = true, DELETE = true }
--- Methods whose requests say that they have no body (RFC 9110, 8.6).
local BODY_EXPECTED = { POST = true, PUT = true, PATCH = true }

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
  tls = "table",
  proxy = "string|boolean",
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

--- Options that change what stands in the head of a plain GET, or where it goes.
local HEAD_OPTIONS = { "headers", "decompress", "user_agent", "cookies", "auth", "query" }
local ROUTE_OPTIONS = { "tls", "proxy", "unix", "connect" }

---@class http.Client
---@field jar http.Jar?
---@field private settings table Defaults of requests.
---@field private inherit table Metatable of a request's settings.
---@field private pool http.Pool
---@field private base url.Url?
---@field private fields http.Headers What every request says, without Host.
---@field private proxies http.ProxySettings?
---@field private targets table<string, http.Target>
---@field private target_count integer
---@field private auths table<string, http.Auth>
---@field private auth_count integer
---@field private plain boolean Whether plain requests have the head `fields` makes.
local Client = {}
Client.__index = Client
Client.__name = "http.Client"

local client = {}

--- What one call is about, over redirects and challenges; and what its next exchange is.
---@class http.Call: http.Exchange
---@field op string
---@field settings table
---@field given http.RequestOptions?
---@field plain boolean The head is that of a plain GET.
---@field headers http.Headers? Of the script.
---@field auth http.Auth?
---@field auth_origin string?
---@field own_route boolean The way is not that of the client's own options.
---@field followed boolean? It was redirected: `headers` are all there are.

-- Making ----------------------------------------------------------------------

---@param op string
---@param name string
---@param level integer
local function wrong(op, name, level)
  error(("%s: %s"):format(op, name), level + 1)
end

--- Fields that a script gave, checked.
---@param op string
---@param given http.Fields
---@param level integer
---@return http.Headers
local function headers_of(op, given, level)
  local ok, made = pcall(codec.headers, given)
  if not ok then wrong(op, tostring(made):match("headers: [^\n]*") or "headers: names and their values are wanted", level) end
  return made
end

--- Checks what both clients and requests may say.
---@param op string
---@param options table
---@param level integer
local function check_common(op, options, level)
  if options.auth then
    if options.auth == true then wrong(op, "auth must be a table or false", level) end
    require("http.auth").check(op, options.auth, level + 1)
  end
  if options.proxy == true then wrong(op, "proxy must be a URL or false", level) end
  if options.user_agent == true then wrong(op, "user_agent must be a string or false", level) end
  local jar = options.cookies
  if type(jar) == "table" and type(jar.receive) ~= "function" then wrong(op, "cookies must be a jar (http.jar()) or a boolean", level) end
end

--- Options of which some are `known` to the caller, and the others are a request's.
---@param op string
---@param given table?
---@param known table<string, string>
---@param level integer As of `error`, from the caller.
---@return table options
---@return http.RequestOptions request
function client.split(op, given, known, level)
  local all = {}
  for name, kind in pairs(REQUEST_OPTIONS) do all[name] = kind end
  for name, kind in pairs(known) do all[name] = kind end
  cosocket.check_options(op, given, all, level + 1)
  local options, request = {}, {}
  for name, value in pairs(given or {}) do
    if known[name] then options[name] = value else request[name] = value end
  end
  check_common(op, request, level + 2)
  return options, request
end

---@param text string|false|nil
---@return http.ProxySettings? settings
---@return cosocket.Error? err
local function proxies_of(text)
  if text == false then return nil end
  if text then return proxies.for_all(text) end
  return proxies.from_environment()
end

--- The fields that every request has, but Host.
---@param settings table
---@return http.Headers
local function common_fields(settings)
  local fields = codec.headers()
  local given = settings.headers and codec.headers(settings.headers)
  if settings.user_agent and not (given and given["User-Agent"]) then fields:add("User-Agent", settings.user_agent) end
  if not (given and given.Accept) then fields:add("Accept", "*/*") end
  if settings.decompress and not (given and given["Accept-Encoding"]) then fields:add("Accept-Encoding", ACCEPT_ENCODING) end
  if given then
    for name, value in pairs(given) do fields:add(name, value) end
  end
  return fields
end

--- Makes a client.
---@param op string
---@param options? http.ClientOptions
---@return http.Client
function client.new(op, options)
  -- Whoever calls this does it with a tail call: its caller is who made the mistake.
  local level = 2
  options = cosocket.check_options(op, options, CLIENT_OPTIONS, level)
  check_common(op, options, level + 1)
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
  for name, value in pairs(options) do settings[name] = value end
  if options.headers then settings.headers = headers_of(op, options.headers, level + 1) end
  local base
  if options.base_url then
    local made, err = targets.of(options.base_url)
    if not made then wrong(op, "base_url: " .. err.message, level) end
    base = made.url
  end
  local through, err = proxies_of(options.proxy)
  if err then wrong(op, err.message, level) end
  local jar = options.cookies
  if jar == true then jar = require("http.cookie").jar() end
  return setmetatable({
    settings = settings,
    inherit = { __index = settings },
    pool = pools.new(
      options.connections_max or CONNECTIONS_MAX,
      options.idle_max or IDLE_MAX,
      options.keep_alive or KEEP
    ),
    base = base,
    fields = common_fields(settings),
    proxies = through,
    jar = jar or nil,
    targets = {},
    target_count = 0,
    auths = {},
    auth_count = 0,
    plain = not options.auth and not jar,
  }, Client)
end

-- One request -----------------------------------------------------------------

--- The target of a URL; those asked for before are remembered.
---@private
---@param address string
---@return http.Target? target
---@return cosocket.Error? err
function Client:target(address)
  local known = self.targets[address]
  if known then return known end
  local made, err = targets.of(address, self.base)
  if not made then return nil, err end
  if self.target_count >= TARGETS_MAX then
    self.targets, self.target_count = {}, 0
  end
  self.targets[address], self.target_count = made, self.target_count + 1
  return made
end

--- A URL with more in its query.
---@param to http.Target
---@param query table
---@return http.Target? target
---@return cosocket.Error? err
local function with_query(to, query)
  local more = url.query(query)
  if more == "" then return to end
  local front, fragment = to.href:match("^([^#]*)(.*)$")
  local mark = not to.url.query and "?" or (to.url.query == "" and "" or "&")
  return targets.of(front .. mark .. more .. fragment)
end

--- What the request sends as its body, and how its head calls that.
---@param op string
---@param given table
---@param level integer
---@return http.Upload? upload
---@return cosocket.Error? err
local function upload_of(op, given, level)
  local made, kind, count = nil, nil, 0
  if given.body ~= nil then
    made, count = uploads.of(given.body), count + 1
    if not made then wrong(op, ("body must be a string, a buffer, a function or an open file, not a %s"):format(io.type(given.body) or type(given.body)), level) end
  end
  if given.form ~= nil then
    made, kind, count = uploads.of_text(url.query(given.form)), "application/x-www-form-urlencoded", count + 1
  end
  if given.multipart ~= nil then
    local parts, err = require("http.multipart").new(given.multipart, level + 1)
    if not parts then return nil, err end
    made, kind, count = parts, parts.type, count + 1
  end
  if given.json ~= nil then
    local text, err = json.encode(given.json)
    if not text then return nil, err end
    made, kind, count = uploads.of_text(text), "application/json", count + 1
  end
  if count > 1 then wrong(op, "only one of `body`, `json`, `form` and `multipart` can be sent", level) end
  if not made then return nil end
  made.type = kind or made.type
  if given.length then made = uploads.sized(made, given.length) end
  if given.compress then made = uploads.gzip(made) end
  return made
end

--- Why nobody answered, in words that say who.
---@param err cosocket.Error
---@param call http.Call
---@param to http.Target
---@param seen boolean
---@return cosocket.Error
local function no_answer(err, call, to, seen)
  local kind, how = err.kind, nil
  if kind == "closed" then
    how = seen and "the connection ended in the middle of the answer's head" or "the connection ended before an answer came"
  elseif kind == "timeout" then
    how = seen and "the rest of the answer's head did not come in time" or "no answer came in time"
  else
    return err
  end
  local message = ("%s %s: %s"):format(call.method, to.origin, how)
  return cosocket.error(kind, call.op, message, { cause = err, code = err.code })
end

--- The fields of a request that is not plain: first what every request has, then what this one has.
---@private
---@param call http.Call
---@param to http.Target
---@param route http.Route
---@return http.Headers base
---@return http.Headers more
---@return cosocket.Error? err
function Client:compose(call, to, route)
  local settings, more = call.settings, codec.headers(call.headers)
  local base = codec.headers({ { "Host", more.Host or to.url.authority } })
  more:del("Host")
  local fields = self.fields
  if call.followed or (settings ~= self.settings and (rawget(settings, "decompress") ~= nil or rawget(settings, "user_agent") ~= nil)) then
    fields = common_fields({
      headers = not call.followed and self.settings.headers or nil,
      user_agent = settings.user_agent,
      decompress = settings.decompress,
    })
  end
  for name, value in pairs(fields) do
    if more[name] == nil then base:add(name, value) end
  end
  local upload = call.upload
  if upload then
    if upload.type and not more["Content-Type"] then more:add("Content-Type", upload.type) end
    if settings.compress and not more["Content-Encoding"] then more:add("Content-Encoding", "gzip") end
    if call.expect then more:set("Expect", "100-continue") end
    local trailers = settings.trailers
    if type(trailers) == "table" and not more.Trailer then
      local names = {}
      for name in pairs(codec.headers(trailers)) do names[#names + 1] = name end
      more:add("Trailer", table.concat(names, ", "))
    end
  end
  local auth = call.auth
  if auth and call.auth_origin == to.origin and not more.Authorization then
    local body = upload and upload.text
    local value = auth:header(call.method, route.forward and to.href:match("^[^#]*") or to.path, not upload and "" or body)
    if value then more:add("Authorization", value) end
  end
  local jar = settings.cookies ~= false and (type(settings.cookies) == "table" and settings.cookies or self.jar)
  if jar and not more.Cookie then
    local value = jar:header(to.url)
    if value then more:add("Cookie", value) end
  end
  if route.forward and route.proxy.authorization then more:set("Proxy-Authorization", route.proxy.authorization) end
  return base, more
end

--- An exchange that calls functions of the script, which may raise: the connection is not lost then.
---@async
---@param pool http.Pool
---@param connection http.Connection
---@param exchange http.Exchange
local function careful_exchange(pool, connection, exchange)
  local done = false
  local _ <close> = setmetatable({}, {
    __close = function()
      if not done then pool:release(connection, false) end
    end,
  })
  local status, reason, minor, headers, length, flags, unsent = connection:exchange(exchange)
  done = true
  return status, reason, minor, headers, length, flags, unsent
end

--- Sends the request to one target and waits for the head of the answer.
---@private
---@async
---@param call http.Call
---@param to http.Target
---@return http.Response? response
---@return cosocket.Error? err
function Client:send(call, to)
  local settings = call.settings
  local route
  if settings == self.settings or not call.own_route then
    route = to.route
    if not route then
      route = targets.route(to, settings, self.proxies)
      to.route = route
    end
  else
    local through, err = self.proxies, nil
    if rawget(settings, "proxy") ~= nil then
      through, err = proxies_of(settings.proxy)
      if err then return nil, err end
    end
    route = targets.route(to, settings, through)
  end

  if call.plain and not route.forward then
    local wire = to.wire
    if not wire then
      local err
      wire, err = targets.wire(to, self.fields)
      if not wire then return nil, err end
      to.wire = wire
    end
    call.wire = wire
  else
    call.wire = nil
    call.base, call.fields = self:compose(call, to, route)
    call.target = route.forward and to.href:match("^[^#]*") or to.path
  end

  local pool, fresh = self.pool, call.upgrade
  while true do
    local connection, err = pool:acquire(route.key, call.deadline, to, route, settings.connect_timeout, fresh, not call.plain)
    if not connection then return nil, err end
    local reused = connection.reused
    local status, reason, minor, headers, length, flags, unsent
    if call.upload or call.on_informational then
      status, reason, minor, headers, length, flags, unsent = careful_exchange(pool, connection, call)
    else
      status, reason, minor, headers, length, flags, unsent = connection:exchange(call)
    end
    if status then
      return self:answer(call, to, connection, status, reason --[[@as string]], minor --[[@as integer]], headers, length, flags, unsent)
    end
    pool:release(connection, false)
    ---@cast reason cosocket.Error
    -- The server closed a connection that was idle just when this request was on its way (RFC 9112, 9.3.1): it has not
    -- been seen, or does no harm twice.
    local again = reused and not fresh and not minor and reason.kind == "closed" and IDEMPOTENT[call.method]
    if again and call.upload then again = call.upload.rewind and call.upload:rewind() end
    if not again then return nil, no_answer(reason, call, to, minor == true) end
    fresh = true
  end
end

--- Makes the response of what came.
---@private
---@param call http.Call
---@param to http.Target
---@param connection http.Connection
---@param status integer
---@param reason string
---@param minor integer
---@param headers http.Headers
---@param length integer
---@param flags integer
---@param unsent boolean?
---@return http.Response? response
---@return cosocket.Error? err
function Client:answer(call, to, connection, status, reason, minor, headers, length, flags, unsent)
  local settings = call.settings
  local keep = flags & KEEP_ALIVE ~= 0 and not unsent
  if keep and not connection.keep_alive then pools.note_keep_alive(connection, headers["Keep-Alive"]) end
  local made = new_response({
    status = status,
    reason = reason,
    ok = status >= 200 and status < 300,
    version = minor == 0 and "1.0" or "1.1",
    headers = headers,
    url = to.href,
    method = call.method,
    connection = connection,
    client = self,
    request = call.given,
    pool = self.pool,
    length = length,
    keep = keep,
    deadline = call.deadline,
    idle = settings.idle_timeout,
    body_max = settings.body_max,
  })
  local jar = settings.cookies ~= false and (type(settings.cookies) == "table" and settings.cookies or self.jar)
  if jar and headers["Set-Cookie"] then
    for _, field in ipairs(headers:get_all("Set-Cookie")) do jar:receive(to.url, field) end
  end
  if settings.decompress and length ~= 0 and status ~= 101 then
    local codings = headers["Content-Encoding"]
    if codings then
      local ok, err = responses.decode(made, codings, { ratio_max = settings.ratio_max })
      if not ok then return nil, err end
    end
  end
  return made
end

--- Reads what is left of an answer that nobody wants; a long one costs the connection instead.
---@async
---@param answer http.Response
local function discard(answer)
  if answer.length >= 0 and answer.length <= DISCARD_MAX then
    answer.decode = nil
    answer:read_all(DISCARD_MAX)
  end
  answer:close()
end

--- Whether a challenge can be answered, so that the request is sent again.
---@private
---@async
---@param call http.Call
---@param to http.Target
---@param answer http.Response
---@return boolean
function Client:challenged(call, to, answer)
  local auth = call.auth
  if not auth or call.auth_origin ~= to.origin or (call.headers and call.headers.Authorization) then return false end
  local upload = call.upload
  local challenges = require("http.auth").parse(answer.headers:get_all("WWW-Authenticate"))
  local known = not upload or upload.text ~= nil
  if not auth:challenge(challenges, known) then
    auth:forget()
    return false
  end
  return not upload or (upload.rewind ~= nil and upload:rewind())
end

--- Runs a call to its end: redirects and challenges are followed. The answer's body has not been read.
---@private
---@async
---@param call http.Call
---@param to http.Target
---@return http.Response? answer
---@return cosocket.Error? err
function Client:run(call, to)
  local passed, tries = nil, 0 ---@type string[]?, integer
  while true do
    local answer, err = self:send(call, to)
    if not answer then return nil, err end
    local status = answer.status
    local auth = call.auth
    if auth then
      auth:sent()
      local info = answer.headers["Authentication-Info"]
      if info then auth:info(info) end
    end
    if status < 300 then
      answer.redirects = passed
      return answer
    end
    if status == 401 and auth and tries < 3 and self:challenged(call, to, answer) then
      tries = tries + 1
      discard(answer)
    elseif status == 417 and call.expect and (not call.upload.rewind or call.upload:rewind()) then
      -- RFC 9110, 10.1.1: without the expectation, then.
      call.expect = nil
      discard(answer)
    else
      local location = redirect.is_one(status) and call.settings.redirects_max > 0 and answer.headers.Location
      if not location then
        answer.redirects = passed
        return answer
      end
      discard(answer)
      passed = passed or {}
      if #passed >= call.settings.redirects_max then
        local message = ("more than %d redirects, the last to %s"):format(call.settings.redirects_max, location:sub(1, 200))
        return nil, cosocket.error("limit", call.op, message, { code = status })
      end
      passed[#passed + 1] = to.href
      local following, broken = self:follow(call, to, status, location)
      if not following then return nil, broken end
      to = following
    end
  end
end

--- Turns the call into that of a redirect.
---@private
---@param call http.Call
---@param to http.Target
---@param status integer
---@param location string
---@return http.Target? target
---@return cosocket.Error? err
function Client:follow(call, to, status, location)
  local where, err = redirect.target(to.url, location)
  local following
  if where then
    following, err = targets.of(where)
  end
  if not following then
    ---@cast err cosocket.Error
    return nil, cosocket.error("protocol", call.op, "the redirect leads nowhere: " .. err.message, { code = status })
  end
  local method = redirect.method(status, call.method)
  local same_method, same_origin = method == call.method, following.origin == to.origin
  call.method = method
  if not same_method then
    if call.upload and call.upload.close then call.upload:close() end
    call.upload, call.length, call.expect = nil, BODY_EXPECTED[method] and 0 or nil, nil
  elseif call.upload and not (call.upload.rewind and call.upload:rewind()) then
    local message = ("the server redirects (%d), but the body can only be sent once"):format(status)
    return nil, cosocket.error("protocol", call.op, message, { code = status })
  end
  -- Fields of the client's own are as secret as those of the request.
  local all = codec.headers(self.settings.headers)
  if call.headers then
    for name in pairs(call.headers) do all:del(name) end
    for name, value in pairs(call.headers) do all:add(name, value) end
  end
  redirect.strip(all, same_origin, same_method)
  call.headers, call.plain, call.followed = all, false, true
  return following
end

local NO_OPTIONS = {}

--- What a call begins with.
---@private
---@param op string
---@param method string
---@param address string
---@param given? http.RequestOptions
---@param level integer
---@return http.Call? call
---@return http.Target|cosocket.Error to
function Client:begin(op, method, address, given, level)
  if type(address) ~= "string" then wrong(op, ("the URL must be a string, not a %s"):format(type(address)), level) end
  local to, err = self:target(address)
  if not to then return nil, err --[[@as cosocket.Error]] end
  local settings, plain, own_route = self.settings, self.plain and method == "GET", false
  local upload
  if given then
    cosocket.check_options(op, given, REQUEST_OPTIONS, level)
    check_common(op, given, level + 1)
    settings = setmetatable({}, self.inherit)
    for name, value in pairs(given) do settings[name] = value end
    if settings.cookies == true then settings.cookies = nil end
    upload, err = upload_of(op, settings, level + 1)
    if err then return nil, err end
    if given.query then
      to, err = with_query(to, given.query)
      if not to then return nil, err --[[@as cosocket.Error]] end
    end
    for _, name in ipairs(HEAD_OPTIONS) do plain = plain and given[name] == nil end
    for _, name in ipairs(ROUTE_OPTIONS) do own_route = own_route or given[name] ~= nil end
    plain = plain and not upload
  end
  local length
  if upload then
    length = settings.trailers and codec.CHUNKED or upload.length or codec.CHUNKED
  elseif BODY_EXPECTED[method] then
    length = 0
  end
  local timeout = settings.timeout or (not settings.stream and TIMEOUT) or nil
  ---@type http.Call
  local call = {
    op = op,
    method = method,
    settings = settings,
    plain = plain,
    own_route = own_route,
    given = given,
    headers = given and given.headers and headers_of(op, given.headers, level + 1) or nil,
    upload = upload,
    length = length,
    trailers = settings.trailers,
    deadline = timeout and now() + timeout or HUGE,
    idle = settings.idle_timeout,
    head_max = settings.head_max,
    fields_max = settings.fields_max,
    on_informational = settings.on_informational,
  }
  local wait = settings.expect
  if upload and wait then call.expect = wait == true and EXPECT or wait --[[@as number]] end
  local auth = settings.auth
  if auth == nil and to.url.username then
    auth = { username = to.url.username, password = to.url.password }
  end
  if auth then
    call.auth, call.auth_origin, call.plain = self:auth_for(to.origin, auth), to.origin, false
  end
  return call, to
end

--- What is known of credentials for an origin.
---@private
---@param origin string
---@param options http.AuthOptions
---@return http.Auth
function Client:auth_for(origin, options)
  local known = self.auths[origin]
  if known and known:is_for(options) then return known end
  if self.auth_count >= AUTHS_MAX then
    self.auths, self.auth_count = {}, 0
  end
  known = require("http.auth").new(options)
  self.auths[origin], self.auth_count = known, self.auth_count + 1
  return known
end

---@param call http.Call
local function let_go_of_upload(call)
  local upload = call.upload
  if upload and upload.close then upload:close() end
end

--- One request, for `request` and its short forms.
---@private
---@async
---@param op string
---@param method string
---@param address string
---@param options? http.RequestOptions
---@return http.Response? response
---@return cosocket.Error? err
function Client:perform(op, method, address, options)
  local call, to = self:begin(op, method, address, options, 3)
  if not call then return nil, to --[[@as cosocket.Error]] end
  local answer, err = self:run(call, to --[[@as http.Target]])
  if call.upload then let_go_of_upload(call) end
  if not answer then return nil, err end
  if not call.settings.stream or answer.length == 0 then
    local ok
    ok, err = responses.collect(answer)
    if not ok then return nil, err end
  end
  return answer
end

--- Asks the server to speak another protocol (RFC 9110, 7.8). `options.headers` has `Upgrade` and `Connection`, and what
--- the protocol wants. Redirects are followed only with `redirects_max`.
---@async
---@param address string `http`, `https`, `ws` or `wss`
---@param options? http.RequestOptions
---@return cosocket.Stream? stream It is the caller's now.
---@return cosocket.Buffer|cosocket.Error leftover What has come behind the answer's head. On failure: `refused` with `code`, the status, and `response`; and what a request fails with.
---@return http.Response? response
function Client:upgrade(address, options)
  local op = "http.upgrade"
  local given = {}
  for name, value in pairs(options or NO_OPTIONS) do given[name] = value end
  given.redirects_max = given.redirects_max or 0
  given.stream = true
  local call, to = self:begin(op, "GET", address, given, 3)
  if not call then return nil, to --[[@as cosocket.Error]] end
  call.upgrade = true
  -- Streams are for ever, but an answer has its time.
  if call.deadline == math.huge then call.deadline = now() + TIMEOUT end
  local answer, err = self:run(call, to --[[@as http.Target]])
  if not answer then return nil, err --[[@as cosocket.Error]] end
  if answer.status ~= 101 then
    local ok
    ok, err = responses.collect(answer)
    if not ok then return nil, err --[[@as cosocket.Error]] end
    local message = ("%s did not change protocols: %d %s"):format(answer.url, answer.status, answer.reason)
    return nil, cosocket.error("refused", op, message, { code = answer.status, reason = answer.reason, response = answer })
  end
  local connection = answer.connection --[[@as http.Connection]]
  answer.connection = nil
  self.pool:give_up(connection)
  return connection.stream, connection.input, answer
end

-- What scripts call -----------------------------------------------------------

--- Sends a request and waits for the answer. Any status is an answer: see `response.ok` and `response:check()`.
---@async
---@param method string
---@param address string
---@param options? http.RequestOptions
---@return http.Response? response
---@return cosocket.Error? err `resolve`, `connect`, `tls`: there was no way; `closed`, `timeout`, `protocol`, `limit`: the answer did not come, or not whole
function Client:request(method, address, options)
  if type(method) ~= "string" or not method:find("^[%w!#$%%&'*+.^_`|~-]+$") then
    error(("http.request: %s is not a method"):format(tostring(method)), 2)
  end
  return self:perform("http.request", method, address, options)
end

for _, name in ipairs({ "get", "post", "put", "patch", "delete", "head", "options" }) do
  local op, method = "http." .. name, name:upper()
  Client[name] = function(self, address, options)
    return self:perform(op, method, address, options)
  end
end

--- Fetches a file. It goes on after failures, and where an earlier run broke off; it appears under its name when it is
--- whole and its checksum is right.
---@async
---@param address string
---@param path string
---@param options? http.SaveOptions|http.RequestOptions `timeout` is for each attempt.
---@return http.Saved? saved
---@return cosocket.Error? err `refused` with `code` for a status that is not 2xx, `protocol` for a wrong checksum, `limit`, `io`, and what a request fails with
function Client:save(address, path, options)
  return require("http.download").save(self, address, path, options)
end

--- Reads a stream of server-sent events: `for event in client:events(url) do`. It reconnects.
---@param address string
---@param options? http.EventsOptions|http.RequestOptions
---@return http.Events
function Client:events(address, options)
  return require("http.events").new(self, address, options)
end

--- How many connections are open: in use, and idle.
---@return integer busy
---@return integer idle
function Client:connections()
  return self.pool:count()
end

--- Closes idle connections now and others when they are done. Later requests fail.
function Client:close()
  self.pool:close()
end

Client.__close = Client.close

return client
