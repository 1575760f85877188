--- What one call of a client is about, over redirects and challenges: its target, head and body.

local codec = require("http.codec")
local cosocket = require("cosocket")
local json = require("json")
local options = require("http.options")
local redirect = require("http.redirect")
local targets = require("http.target")
local uploads = require("http.upload")
local url = require("url")

-- What only some requests need (credentials, forms with files) is loaded when it is needed.

local now = cosocket.now
local wrong = options.wrong
local HUGE <const> = math.huge

--- Credentials that are kept, by origin.
local AUTHS_MAX = 64
--- Seconds for a request, unless it is streamed.
local TIMEOUT = 60
--- Seconds to wait for 100.
local EXPECT = 1

--- Methods whose requests say that they have no body (RFC 9110, 8.6).
local BODY_EXPECTED = { POST = true, PUT = true, PATCH = true }

--- What one call is about, over redirects and challenges; and what its next exchange is.
---@class http.Call: http.Exchange
---@field op string
---@field settings table
---@field given http.RequestOptions?
---@field plain boolean A GET whose head is that of any other, and whose answer concerns nobody else.
---@field headers http.Headers? Of the script.
---@field auth http.Auth?
---@field auth_origin string?
---@field credentials http.AuthOptions? What `auth` was made of.
---@field first_method string? Before it was redirected.
---@field own_route boolean The way is not that of the client's own options.
---@field client http.Client
---@field pool http.Pool
---@field jar http.Jar|false
---@field forwarder http.Proxy? A proxy that reads the request itself.
---@field followed boolean? It was redirected: `headers` are all there are.
local Call = {}
Call.__index = Call

local call = {}

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
  local made, err = targets.of(front .. mark .. more .. fragment)
  if made then made.login = to.login end
  return made, err
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
---@param to http.Target
---@param seen boolean
---@return cosocket.Error
function Call:no_answer(err, to, seen)
  local kind, how = err.kind, nil
  if kind == "closed" then
    how = seen and "the connection ended in the middle of the answer's head" or "the connection ended before an answer came"
  elseif kind == "timeout" then
    how = seen and "the rest of the answer's head did not come in time" or "no answer came in time"
  else
    return err
  end
  local message = ("%s %s: %s"):format(self.method, to.origin, how)
  return cosocket.error(kind, self.op, message, { cause = err, code = err.code })
end

--- The fields of a request that is not plain: first what every request has, then what this one has.
---@param client http.Client
---@param to http.Target
---@param route http.Route
---@return http.Headers base
---@return http.Headers more
---@return cosocket.Error? err
function Call:compose(client, to, route)
  local settings, more = self.settings, codec.headers(self.headers)
  local base = codec.headers({ { "Host", more.Host or not self.followed and client.host or to.url.authority } })
  more:del("Host")
  local fields = client.fields
  if self.followed or (settings ~= client.settings and (rawget(settings, "decompress") ~= nil or rawget(settings, "user_agent") ~= nil)) then
    fields = options.fields({
      headers = not self.followed and client.settings.headers or nil,
      user_agent = settings.user_agent,
      decompress = settings.decompress,
    })
  end
  for name, value in pairs(fields) do
    if more[name] == nil then base:add(name, value) end
  end
  local upload = self.upload
  if upload then
    if upload.type and not more["Content-Type"] then more:add("Content-Type", upload.type) end
    if settings.compress and not more["Content-Encoding"] then more:add("Content-Encoding", "gzip") end
    if self.expect then more:set("Expect", "100-continue") end
    local trailers = settings.trailers
    if type(trailers) == "table" and not more.Trailer then
      local names = {}
      for name in pairs(codec.headers(trailers)) do names[#names + 1] = name end
      more:add("Trailer", table.concat(names, ", "))
    end
  end
  local auth = self.auth
  if auth and self.auth_origin == to.origin and not more.Authorization then
    local body = upload and upload.text
    local value = auth:header(self.method, route.forward and to.href:match("^[^#]*") or to.path, not upload and "" or body)
    if value then more:add("Authorization", value) end
  end
  local jar = self.jar
  if jar and not more.Cookie then
    local value = jar:header(to.url)
    if value then more:add("Cookie", value) end
  end
  local through = route.forward and route.proxy.auth
  if through then
    local value = through:header(self.method, to.href:match("^[^#]*"), not upload and "" or upload.text)
    if value then more:set("Proxy-Authorization", value) end
  end
  return base, more
end

--- Turns the call into that of a redirect.
---@param client http.Client
---@param to http.Target
---@param status integer
---@param location string
---@return http.Target? target
---@return cosocket.Error? err
function Call:follow(client, to, status, location)
  local where, err = redirect.target(to.url, location)
  local following
  if where then
    following, err = targets.of(where)
  end
  if not following then
    ---@cast err cosocket.Error
    return nil, cosocket.error("protocol", self.op, "the redirect leads nowhere: " .. err.message, { code = status })
  end
  local method = redirect.method(status, self.method)
  local same_method, same_origin = method == self.method, following.origin == to.origin
  self.first_method = self.first_method or self.method
  self.method = method
  if not same_method then
    if self.upload and self.upload.close then self.upload:close() end
    self.upload, self.length, self.expect = nil, BODY_EXPECTED[method] and 0 or nil, nil
  elseif self.upload and not (self.upload.rewind and self.upload:rewind()) then
    local message = ("the server redirects (%d), but the body can only be sent once"):format(status)
    return nil, cosocket.error("protocol", self.op, message, { code = status })
  end
  -- Fields of the client's own are as secret as those of the request; and what one redirect has taken away, the next
  -- does not bring back.
  local all = codec.headers(not self.followed and client.settings.headers or nil)
  if self.headers then
    for name in pairs(self.headers) do all:del(name) end
    for name, value in pairs(self.headers) do all:add(name, value) end
  end
  redirect.strip(all, same_origin, same_method)
  self.headers, self.plain, self.followed = all, false, true
  return following
end

--- What is known of credentials for an origin.
---@param client http.Client
---@param origin string
---@param given http.AuthOptions
---@return http.Auth
local function auth_for(client, origin, given)
  local known = client.auths[origin]
  if known and known:is_for(given) then return known end
  if client.auth_count >= AUTHS_MAX then
    client.auths, client.auth_count = {}, 0
  end
  known = require("http.auth").new(given)
  client.auths[origin], client.auth_count = known, client.auth_count + 1
  return known
end

--- The jar for a call.
---@param client http.Client
---@param settings table
---@return http.Jar|false
local function jar_of(client, settings)
  local cookies = settings.cookies
  return cookies ~= false and (type(cookies) == "table" and cookies or client.jar) or false
end

--- What calls of a client have in common: they look here for what they do not say themselves.
---@param client http.Client
---@return table metatable
function call.metatable(client)
  local settings = client.settings
  local jar = jar_of(client, settings)
  local common = {
    client = client,
    pool = client.pool,
    settings = settings,
    jar = jar,
    -- Of a GET without options.
    plain = not settings.auth and not jar and not settings.on_informational,
    own_route = false,
    upload = false,
    upgrade = false,
    auth = false,
    forwarder = false,
    idle = settings.idle_timeout,
    head_max = settings.head_max,
    fields_max = settings.fields_max,
    body_max = settings.stream and -1 or settings.body_max,
    on_informational = settings.on_informational or false,
    -- Seconds, for `begin`.
    timeout = settings.timeout or (settings.stream and HUGE or TIMEOUT),
  }
  return { __index = setmetatable(common, Call) }
end

--- What a call begins with.
---@param client http.Client
---@param op string
---@param method string
---@param address string
---@param given? http.RequestOptions
---@param level integer
---@return http.Call? call
---@return http.Target|cosocket.Error to
function call.begin(client, op, method, address, given, level)
  local to, err = client.targets[address], nil
  if not to then
    if type(address) ~= "string" then wrong(op, ("the URL must be a string, not a %s"):format(type(address)), level) end
    to, err = client:target(address)
    if not to then return nil, err --[[@as cosocket.Error]] end
  end
  -- With room for what most calls get.
  local self = setmetatable({ op = op, method = method, wire = nil, deadline = nil }, client.calls) --[[@as http.Call]]
  local plain = self.plain and method == "GET" and not to.login
  if plain and not given then
    -- What most calls are.
    self.deadline = now() + self.timeout
    return self, to
  end
  local settings, upload = self.settings, nil
  if given then
    options.check(op, given, level)
    settings = setmetatable({}, client.inherit)
    for name, value in pairs(given) do settings[name] = value end
    if settings.cookies == true then settings.cookies = nil end
    upload, err = upload_of(op, settings, level + 1)
    if err then return nil, err end
    if given.query then
      to, err = with_query(to, given.query)
      if not to then return nil, err --[[@as cosocket.Error]] end
    end
    for _, name in ipairs(options.HEAD) do plain = plain and given[name] == nil end
    for _, name in ipairs(options.ROUTE) do self.own_route = self.own_route or given[name] ~= nil end
    plain = plain and not upload and not given.on_informational
    self.settings, self.given, self.jar = settings, given, jar_of(client, settings)
    self.headers = given.headers and options.headers(op, given.headers, level + 1) or nil
    self.upload, self.trailers = upload, settings.trailers
    self.idle, self.head_max, self.fields_max = settings.idle_timeout, settings.head_max, settings.fields_max
    self.body_max = settings.stream and -1 or settings.body_max
    self.on_informational = settings.on_informational
  end
  self.plain = plain
  if upload then
    self.length = settings.trailers and codec.CHUNKED or upload.length or codec.CHUNKED
    local wait = settings.expect
    if wait then self.expect = wait == true and EXPECT or wait --[[@as number]] end
  elseif BODY_EXPECTED[method] then
    self.length = 0
  end
  self.deadline = now() + (settings.timeout or (settings.stream and HUGE or TIMEOUT))
  local auth = settings.auth
  if auth == nil and to.login then auth = to.login end
  if auth then
    self.auth, self.auth_origin, self.plain = auth_for(client, to.origin, auth), to.origin, false
    self.credentials = auth
  end
  return self, to
end

return call
