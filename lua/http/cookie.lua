--- Cookies (RFC 6265): who set which for whom, and until when. Nothing here asks a clock or a socket.

local cosocket = require("cosocket")
local date = require("http.date")
local field_of = require("net.field")
local json = require("json")
local public_suffix = require("public_suffix")
local url = require("url")

--- Bytes of a name and its value together (RFC 6265, 6.1).
local SIZE_MAX = 4096
--- Bytes of one attribute's value.
local ATTRIBUTE_MAX = 1024
--- Cookies of one domain.
local DOMAIN_MAX = 180
--- Cookies in all.
local COUNT_MAX = 3000
--- Seconds after which a cookie ends at the latest.
local AGE_MAX = 400 * 86400
--- Bytes of a saved jar.
local FILE_MAX = 16 * 1024 * 1024

---@class http.Cookie
---@field name string
---@field value string
---@field domain string In small letters, without a leading dot.
---@field path string
---@field host_only boolean Only for `domain` itself, not for names below it.
---@field secure boolean
---@field http_only boolean
---@field same_site string? As it was sent; a script is no page, so that it changes nothing.
---@field expires integer? Seconds since 1970; `nil`: with the session.
---@field created integer A number that grows from cookie to cookie.

---@class http.Jar
---@field private domains table<string, http.Cookie[]>
---@field private count integer
---@field private created integer
local Jar = {}
Jar.__index = Jar
Jar.__name = "http.Jar"

local cookie = {}

--- An empty jar.
---@return http.Jar
function cookie.jar()
  return setmetatable({ domains = {}, count = 0, created = 0 }, Jar)
end

---@param host string
---@return boolean
local function is_address(host)
  return host:find(":", 1, true) ~= nil or host:find("^%d+%.%d+%.%d+%.%d+$") ~= nil
end

--- RFC 6265, 5.1.3
---@param host string
---@param domain string
---@return boolean
local function domain_matches(host, domain)
  if host == domain then return true end
  return host:sub(-#domain - 1) == "." .. domain and not is_address(host)
end

--- RFC 6265, 5.1.4
---@param path string
---@param of string
---@return boolean
local function path_matches(path, of)
  if path == of then return true end
  if path:sub(1, #of) ~= of then return false end
  return of:sub(-1) == "/" or path:sub(#of + 1, #of + 1) == "/"
end

---@param path string
---@return string
local function default_path(path)
  return path:match("^(/.*)/[^/]*$") or "/"
end

---@param where string|url.Url
---@return url.Url
local function parsed(where)
  if type(where) == "table" then return where end
  local made, err = url.parse(where)
  if not made then error(err, 3) end
  return made
end

--- Whether a URL is one whose cookies may be `Secure`.
---@param where url.Url
---@return boolean
local function is_secure(where)
  return where.scheme == "https" or where.scheme == "wss"
end

---@private
---@param found http.Cookie
function Jar:remove(found)
  local list = self.domains[found.domain]
  for i, other in ipairs(list) do
    if other == found then
      table.remove(list, i)
      self.count = self.count - 1
      break
    end
  end
  if #list == 0 then self.domains[found.domain] = nil end
end

--- Of a list, the cookie that goes first: one that has ended, else the oldest.
---@param list http.Cookie[]
---@param now integer
---@return http.Cookie
local function least(list, now)
  local worst = list[1]
  for _, other in ipairs(list) do
    if other.expires and other.expires <= now then return other end
    if other.created < worst.created then worst = other end
  end
  return worst
end

---@private
---@param made http.Cookie
---@param now integer
function Jar:put(made, now)
  local list = self.domains[made.domain]
  for _, other in ipairs(list or {}) do
    if other.name == made.name and other.path == made.path and other.host_only == made.host_only then
      made.created = other.created
      self:remove(other)
      break
    end
  end
  if made.expires and made.expires <= now then return end
  list = self.domains[made.domain]
  if list and #list >= DOMAIN_MAX then self:remove(least(list, now)) end
  if self.count >= COUNT_MAX then
    local worst
    for _, others in pairs(self.domains) do
      local one = least(others, now)
      if not worst or one.created < worst.created then worst = one end
    end
    self:remove(worst)
  end
  list = self.domains[made.domain]
  if not list then
    list = {}
    self.domains[made.domain] = list
  end
  list[#list + 1] = made
  self.count = self.count + 1
end

--- Takes one `Set-Cookie` field of a response from `where` (RFC 6265, 5.2 and 5.3). What is not allowed is passed over.
---@param where string|url.Url
---@param field string
---@param now? integer Seconds since 1970. Default: the system's.
---@return boolean taken
function Jar:receive(where, field, now)
  local from = parsed(where)
  local host = from.host and from.host:lower()
  if not host then return false end
  now = now or os.time()
  local pair, rest = field:match("^([^;]*);?(.*)$")
  local name, value = field_of.pair(pair)
  -- RFC 6265, 5.2: without a name there is no cookie. Control characters would begin other lines.
  if not name or name == "" or #name + #value > SIZE_MAX or pair:find("[%z\1-\8\10-\31\127]") then return false end
  local expires, max_age, domain, path, same_site
  local secure, http_only = false, false
  for attribute in rest:gmatch("[^;]+") do
    local key, given = field_of.pair(attribute)
    if not key then key = field_of.trim(attribute) end
    key = key:lower()
    if #given > ATTRIBUTE_MAX then
      key = "" -- too long to be meant
    elseif key == "expires" then
      expires = date.parse(given) or expires
    elseif key == "max-age" then
      if given:find("^-?%d+$") then max_age = math.max(-1, math.min(tonumber(given), AGE_MAX)) end
    elseif key == "domain" then
      domain = given:gsub("^%.", ""):lower()
    elseif key == "path" then
      path = given:sub(1, 1) == "/" and given or nil
    elseif key == "secure" then
      secure = true
    elseif key == "httponly" then
      http_only = true
    elseif key == "samesite" then
      same_site = given
    end
  end
  local host_only = true
  if domain and domain ~= "" and domain ~= host then
    -- RFC 6265, 5.3, 5: nobody sets a cookie for everybody below "co.uk"; and only for a domain that one is in.
    if not domain_matches(host, domain) or not public_suffix.registrable(domain) then return false end
    host_only = false
  elseif domain == host and not is_address(host) and public_suffix.registrable(host) then
    host_only = false
  end
  -- What comes in the clear may have been changed on its way, and must not pass for what came over TLS.
  if secure and not is_secure(from) then return false end
  local prefix = name:lower()
  if prefix:find("^__secure%-") and not secure then return false end
  if prefix:find("^__host%-") and not (secure and host_only and not (domain and domain ~= "") and path == "/") then return false end
  local at = default_path(from.path)
  if not secure and not is_secure(from) then
    -- Nor may it stand before such a one, where both are sent.
    local own = host_only and host or domain --[[@as string]]
    for known, list in pairs(self.domains) do
      if domain_matches(own, known) or not host_only and domain_matches(known, own) then
        for _, other in ipairs(list) do
          if other.secure and other.name == name and path_matches(path or at, other.path) then return false end
        end
      end
    end
  end
  if max_age then
    expires = max_age <= 0 and 0 or math.tointeger(now + max_age)
  elseif expires then
    expires = math.min(expires, now + AGE_MAX)
  end
  self.created = self.created + 1
  self:put({
    name = name,
    value = value,
    domain = host_only and host or domain,
    path = path or at,
    host_only = host_only,
    secure = secure,
    http_only = http_only,
    same_site = same_site,
    expires = expires,
    created = self.created,
  }, now)
  return true
end

--- The cookies for a URL, in the order they are sent: longer paths first, then older ones (RFC 6265, 5.4).
---@param where string|url.Url
---@param now? integer
---@return http.Cookie[]
function Jar:matching(where, now)
  local to = parsed(where)
  local found, over = {}, {}
  local host, path = to.host and to.host:lower() or "", to.path == "" and "/" or to.path
  now = now or os.time()
  for domain, list in pairs(self.domains) do
    if domain_matches(host, domain) then
      for _, one in ipairs(list) do
        if one.expires and one.expires <= now then
          over[#over + 1] = one
        elseif (not one.host_only or one.domain == host) and path_matches(path, one.path) and (not one.secure or is_secure(to)) then
          found[#found + 1] = one
        end
      end
    end
  end
  for _, one in ipairs(over) do self:remove(one) end
  table.sort(found, function(one, other)
    if #one.path ~= #other.path then return #one.path > #other.path end
    return one.created < other.created
  end)
  return found
end

--- The value of the `Cookie` field for a request, if there are cookies for it.
---@param where string|url.Url
---@param now? integer
---@return string?
function Jar:header(where, now)
  if self.count == 0 then return nil end
  local parts = {}
  for i, one in ipairs(self:matching(where, now)) do parts[i] = one.name .. "=" .. one.value end
  return parts[1] and table.concat(parts, "; ") or nil
end

--- Sets a cookie by hand, as a server at `where` would: `jar:set(url, "sid=1; Path=/")`.
---@param where string|url.Url
---@param field string
---@param now? integer
---@return true? ok
---@return cosocket.Error? err `protocol`: that server may not set it.
function Jar:set(where, field, now)
  if self:receive(where, field, now) then return true end
  return nil, cosocket.error("protocol", "http.jar", "no cookie that this URL may set")
end

--- The value of a cookie that would be sent to a URL.
---@param where string|url.Url
---@param name string
---@return string?
function Jar:get(where, name)
  for _, one in ipairs(self:matching(where)) do
    if one.name == name then return one.value end
  end
end

--- Every cookie, in the order of their making.
---@return http.Cookie[]
function Jar:all()
  local list = {}
  for _, cookies in pairs(self.domains) do table.move(cookies, 1, #cookies, #list + 1, list) end
  table.sort(list, function(one, other) return one.created < other.created end)
  return list
end

--- Forgets cookies: those of one domain, those with a name there, or all.
---@param domain? string
---@param name? string
function Jar:clear(domain, name)
  for _, one in ipairs(self:all()) do
    if (not domain or one.domain == domain:lower()) and (not name or one.name == name) then self:remove(one) end
  end
end

--- All cookies as text, which `load` takes. They are as good as passwords: mind who reads it.
---@param options? {session: boolean} With those that end with the session? Default `true`.
---@return string
function Jar:dump(options)
  local keep_session = not options or options.session ~= false
  local list = json.array({})
  for _, one in ipairs(self:all()) do
    if one.expires or keep_session then list[#list + 1] = one end
  end
  return (assert(json.encode({ version = 1, cookies = list })))
end

local FIELDS = { name = "string", value = "string", domain = "string", path = "string" }

--- Adds what `dump` made. Cookies that have ended are passed over.
---@param text string
---@param now? integer
---@return true? ok
---@return cosocket.Error? err `protocol`
function Jar:load(text, now)
  local function refuse(why)
    return nil, cosocket.error("protocol", "http.jar", "not a saved jar: " .. why)
  end
  local saved, err = json.decode(text, { size_max = FILE_MAX })
  if saved == nil then
    ---@cast err cosocket.Error
    return refuse(err.message)
  end
  if type(saved) ~= "table" or saved.version ~= 1 or not json.is_array(saved.cookies) then return refuse("no version 1") end
  for _, one in ipairs(saved.cookies) do
    for field, kind in pairs(FIELDS) do
      if type(one) ~= "table" or type(one[field]) ~= kind then return refuse(("a cookie without `%s`"):format(field)) end
    end
    if (one.name .. one.value):find("[%z\1-\8\10-\31\127;]") then return refuse("a cookie with control characters") end
  end
  now = now or os.time()
  for _, one in ipairs(saved.cookies) do
    self.created = self.created + 1
    self:put({
      name = one.name,
      value = one.value,
      domain = one.domain:lower(),
      path = one.path,
      host_only = one.host_only == true,
      secure = one.secure == true,
      http_only = one.http_only == true,
      same_site = type(one.same_site) == "string" and one.same_site or nil,
      expires = math.type(one.expires) == "integer" and one.expires or nil,
      created = self.created,
    }, now)
  end
  return true
end

--- Writes the jar to a file, whole or not at all.
---@param path string
---@param options? {session: boolean}
---@return true? ok
---@return cosocket.Error? err `io`
function Jar:save(path, options)
  local part = path .. ".part"
  local file, why, code = io.open(part, "wb")
  local ok = file ~= nil
  if file then
    ok, why, code = file:write(self:dump(options))
    local closed, reason, number = file:close()
    if ok and not closed then
      ok, why, code = nil, reason, number
    end
  end
  if ok then
    ok, why, code = os.rename(part, path)
  end
  if ok then return true end
  os.remove(part)
  return nil, cosocket.error("io", "http.jar", tostring(why), { code = code })
end

--- The jar of a file that `save` wrote; an empty one when there is no such file.
---@param path string
---@return http.Jar? jar
---@return cosocket.Error? err `io`, `protocol`
function cookie.open(path)
  local jar = cookie.jar()
  local file, why, code = io.open(path, "rb")
  if not file then
    if code == 2 then return jar end
    return nil, cosocket.error("io", "http.jar", tostring(why), { code = code })
  end
  local text, reason, number = file:read(FILE_MAX + 1)
  file:close()
  if not text then
    if reason then return nil, cosocket.error("io", "http.jar", reason, { code = number }) end
    text = ""
  end
  local ok, err = jar:load(text)
  if not ok then return nil, err end
  return jar
end

return cookie
