--- A client: what requests have in common (connections, defaults, cookies, credentials), and how one request becomes an
--- answer, over redirects and challenges.

local calls = require("http.call")
local codec = require("http.codec")
local cosocket = require("cosocket")
local options = require("http.options")
local pools = require("http.pool")
local redirect = require("http.redirect")
local responses = require("http.response")
local targets = require("http.target")

-- What only some requests need (credentials, cookies, downloads) is loaded when it is needed.

local now = cosocket.now
local new_response = responses.new

local KEEP_ALIVE <const>, ENCODED <const> = codec.KEEP_ALIVE, codec.ENCODED

--- Bytes of an answer that nobody wants, read so that the connection can be used again.
local DISCARD_MAX = 65536
--- How often a challenge is answered.
local TRIES_MAX = 3
--- URLs that are kept taken apart.
local TARGETS_MAX = 256
--- Seconds for the answer to a request to upgrade.
local UPGRADE_TIMEOUT = 60
--- Connections to one origin; idle ones in all; seconds that they are kept.
local CONNECTIONS_MAX = 16
local IDLE_MAX = 32
local KEEP = 60

--- RFC 9110, 9.2.2: sent twice, they do what they do once.
local IDEMPOTENT = { GET = true, HEAD = true, OPTIONS = true, TRACE = true, PUT = true, DELETE = true }

---@class http.Client
---@field jar http.Jar?
---@field package settings table Defaults of requests.
---@field package inherit table Metatable of a request's settings.
---@field package pool http.Pool
---@field private base url.Url?
---@field package fields http.Headers What every request says, without Host.
---@field package host string? What every request says as Host, if that is not where it goes.
---@field private proxies http.ProxySettings?
---@field package targets table<string, http.Target>
---@field private target_count integer
---@field package auths table<string, http.Auth>
---@field package auth_count integer
---@field package calls table Metatable of calls.
local Client = {}
Client.__index = Client
Client.__name = "http.Client"

local client = {}

-- Making ----------------------------------------------------------------------

--- Makes a client.
---@param op string
---@param given? http.ClientOptions
---@return http.Client
function client.new(op, given)
  -- Whoever calls this does it with a tail call: its caller is who made the mistake.
  local level = 2
  local settings
  given, settings = options.client(op, given, level)
  local base
  if given.base_url then
    local made, err = targets.of(given.base_url)
    if not made then options.wrong(op, "base_url: " .. err.message, level) end
    base = made.url
  end
  local through, err = options.proxies(given)
  if err then options.wrong(op, err.message, level) end
  local jar = given.cookies
  if jar == true then jar = require("http.cookie").jar() end
  local self = setmetatable({
    settings = settings,
    inherit = { __index = settings },
    pool = pools.new(
      given.connections_max or CONNECTIONS_MAX,
      given.idle_max or IDLE_MAX,
      given.keep_alive or KEEP
    ),
    base = base,
    fields = options.fields(settings),
    host = settings.headers and settings.headers.Host or nil,
    proxies = through,
    jar = jar or nil,
    targets = {},
    target_count = 0,
    auths = {},
    auth_count = 0,
  }, Client)
  self.calls = calls.metatable(self)
  return self
end

-- One request -----------------------------------------------------------------

--- The target of a URL; those asked for before are remembered.
---@package
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
  local answer, err, seen, unsent = connection:exchange(exchange)
  done = true
  return answer, err, seen, unsent
end

--- The way of a call to a target.
---@param self http.Client
---@param call http.Call
---@param to http.Target
---@return http.Route? route
---@return cosocket.Error? err
local function route_of(self, call, to)
  local settings, through = call.settings, self.proxies
  if not call.own_route then
    to.route = targets.route(to, settings, through)
    return to.route
  end
  if rawget(settings, "proxy") ~= nil or rawget(settings, "proxy_auth") then
    local err
    through, err = options.proxies(settings)
    if err then return nil, err end
  end
  return targets.route(to, settings, through)
end

--- Sends the request to one target and waits for the head of the answer.
---@private
---@async
---@param call http.Call
---@param to http.Target
---@return http.Response? response
---@return cosocket.Error? err
function Client:send(call, to)
  local route, err = to.route, nil
  if not route or call.own_route then
    route, err = route_of(self, call, to)
    if not route then return nil, err end
  end
  if call.plain and not route.forward then
    local wire = to.wire
    if not wire then
      wire, err = targets.wire(to, self.fields, self.host)
      if not wire then return nil, err end
      to.wire = wire
    end
    call.wire = wire
  else
    call.wire, call.forwarder = nil, route.forward and route.proxy or nil
    call.base, call.fields = call:compose(self, to, route)
    call.target = route.forward and to.href:match("^[^#]*") or to.path
  end

  local pool, simple = self.pool, call.wire ~= nil
  local fresh = not simple and call.upgrade
  while true do
    local connection
    connection, err = pool:acquire(route, call, to, fresh, not simple)
    if not connection then return nil, err end
    local reused, answer, seen, unsent = connection.reused, nil, nil, nil
    if not simple and (call.upload or call.on_informational) then
      answer, err, seen, unsent = careful_exchange(pool, connection, call)
    else
      answer, err, seen, unsent = connection:exchange(call)
    end
    if answer then
      local keep = answer.flags & KEEP_ALIVE ~= 0 and not unsent
      local made = new_response(answer, call, to.href, connection, keep)
      local jar = not simple and call.jar
      if jar then
        for _, field in ipairs(made.headers:get_all("Set-Cookie")) do jar:receive(to.url, field) end
      end
      if answer.flags & ENCODED ~= 0 and not answer.body and answer.length ~= 0 and answer.status ~= 101 and call.settings.decompress then
        local ok
        ok, err = responses.decode(made)
        if not ok then return nil, err end
      end
      return made
    end
    ---@cast err cosocket.Error
    pool:release(connection, false)
    -- The server closed a connection that was idle just when this request was on its way (RFC 9112, 9.3.1): it has not
    -- been seen, or does no harm twice.
    local again = reused and not fresh and not seen and err.kind == "closed" and IDEMPOTENT[call.method]
    if again and call.upload then again = call.upload.rewind and call.upload:rewind() end
    if not again then return nil, call:no_answer(err, to, seen) end
    fresh = true
  end
end

--- Reads what is left of an answer that nobody wants; a long one costs the connection instead.
---@async
---@param answer http.Response
local function discard(answer)
  if answer.body then return end
  if answer.length >= 0 and answer.length <= DISCARD_MAX then
    answer.decode = nil
    answer:read_all(DISCARD_MAX)
  end
  answer:close()
end

--- Whether the challenge of a 401, or of the 407 of a proxy that forwards, can be answered: the request is sent again.
---@async
---@param call http.Call
---@param to http.Target
---@param answer http.Response
---@return boolean
local function is_challenged(call, to, answer)
  local auth, name = call.auth, "WWW-Authenticate"
  if answer.status == 407 then
    auth, name = call.forwarder and call.forwarder.auth, "Proxy-Authenticate"
  elseif call.auth_origin ~= to.origin or (call.headers and call.headers.Authorization) then
    return false
  end
  local upload = call.upload
  if not auth or not auth:challenged(answer.headers:get_all(name), not upload or upload.text ~= nil) then return false end
  return not upload or (upload.rewind ~= nil and upload:rewind())
end

--- Notes what an answer says of credentials that went out.
---@param call http.Call
---@param headers http.Headers
local function note_credentials(call, headers)
  local auth, through = call.auth, call.forwarder and call.forwarder.auth
  if auth then
    auth:sent()
    auth:info(headers["Authentication-Info"])
  end
  if through then
    through:sent()
    through:info(headers["Proxy-Authentication-Info"])
  end
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
    if not call.wire and (call.auth or call.forwarder) then note_credentials(call, answer.headers) end
    if status < 300 then
      if passed then answer.redirects = passed end
      return answer
    end
    if (status == 401 or status == 407) and tries < TRIES_MAX and is_challenged(call, to, answer) then
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
      local following, broken = call:follow(self, to, status, location)
      if not following then return nil, broken end
      to = following
    end
  end
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
---@param given? http.RequestOptions
---@return http.Response? response
---@return cosocket.Error? err
function Client:perform(op, method, address, given)
  local call, to = calls.begin(self, op, method, address, given, 3)
  if not call then return nil, to --[[@as cosocket.Error]] end
  local answer, err = self:run(call, to --[[@as http.Target]])
  if not call.wire and call.upload then let_go_of_upload(call) end
  if not answer then return nil, err end
  if not answer.body and (not call.settings.stream or answer.length == 0) then
    local ok
    ok, err = responses.collect(answer, call.settings.body_max)
    if not ok then return nil, err end
  end
  return answer
end

--- Asks the server to speak another protocol (RFC 9110, 7.8). `wanted.headers` has `Upgrade` and `Connection`, and what
--- the protocol wants. Redirects are followed only with `redirects_max`.
---@async
---@param address string `http`, `https`, `ws` or `wss`
---@param wanted? http.RequestOptions
---@return cosocket.Stream? stream It is the caller's now.
---@return cosocket.Buffer|cosocket.Error leftover What has come behind the answer's head. On failure: `refused` with `code`, the status, and `response`; and what a request fails with.
---@return http.Response? response
function Client:upgrade(address, wanted)
  local op = "http.upgrade"
  local given = {}
  for name, value in pairs(wanted or {}) do given[name] = value end
  given.redirects_max = given.redirects_max or 0
  given.stream = true
  local call, to = calls.begin(self, op, "GET", address, given, 3)
  if not call then return nil, to --[[@as cosocket.Error]] end
  call.upgrade = true
  -- Streams are for ever, but an answer has its time.
  if call.deadline == math.huge then call.deadline = now() + UPGRADE_TIMEOUT end
  local answer, err = self:run(call, to --[[@as http.Target]])
  if not answer then return nil, err --[[@as cosocket.Error]] end
  if answer.status ~= 101 then
    local ok
    ok, err = responses.collect(answer, call.settings.body_max)
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
  cosocket.check_self(self, "client", "request")
  if type(method) ~= "string" or not method:find("^[%w!#$%%&'*+.^_`|~-]+$") then
    error(("http.request: %s is not a method"):format(tostring(method)), 2)
  end
  return self:perform("http.request", method, address, options)
end

for _, name in ipairs({ "get", "post", "put", "patch", "delete", "head", "options" }) do
  local op, method = "http." .. name, name:upper()
  Client[name] = function(self, address, options)
    if type(self) ~= "table" then cosocket.check_self(self, "client", name) end
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
  cosocket.check_self(self, "client", "save")
  return require("http.download").save(self, address, path, options)
end

--- Sends a file to a server that speaks tus 1.0.0 (or, with `protocol`, another one). It goes on after failures, and where an earlier run broke off: a file
--- beside the source, `SOURCE.upload`, remembers where the upload is until it is done. A source that changes while it is
--- sent never becomes whole at the server.
---@async
---@param address string Where uploads are made.
---@param source string|file* A path, or an open file, from its place to its end.
---@param options? http.UploadOptions|http.RequestOptions `timeout` is for each request. Default: none, but `idle_timeout`.
---@return http.Uploaded? uploaded
---@return cosocket.Error? err `refused` with `code` for a status that is not 2xx, `limit` for 413, `io` with the code `"changed"`, `protocol` with the code `"checksum"`, or for a server that does not speak tus; and what a request fails with
function Client:upload(address, source, options)
  cosocket.check_self(self, "client", "upload")
  return require("http.resumable").upload(self, address, source, options)
end

--- Gives up the upload that an earlier run left unfinished: the server drops what it has, and the file that remembers is
--- removed. What had become whole, but for our notice of it, is dropped, too.
---@async
---@param address string
---@param source string|file* The source, which need not exist any more.
---@param options? http.UploadOptions|http.RequestOptions As for `upload`.
---@return boolean? cancelled Whether there was one.
---@return cosocket.Error? err As of `upload`.
function Client:cancel_upload(address, source, options)
  cosocket.check_self(self, "client", "cancel_upload")
  return require("http.resumable").cancel(self, address, source, options)
end

--- Reads a stream of server-sent events: `for event in client:events(url) do`. It reconnects.
---@param address string
---@param options? http.EventsOptions|http.RequestOptions
---@return http.Events
function Client:events(address, options)
  cosocket.check_self(self, "client", "events")
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
