--- A request as a handler sees it.

local bodies = require("http.body")
local codec = require("http.codec")
local cosocket = require("cosocket")
local json = require("json")
local url = require("url")

--- Set in the flags of a request of HTTP/1.0, besides the codec's.
local OLD = 1 << 16
--- Most names and values of a form.
local FORM_MAX = 1000

---@class http.ServerRequest
---@field method string
---@field target string As it was sent.
---@field path string Without the query; still encoded, so that no `%2F` is taken for a slash.
---@field query_string string? What follows the `?`, still encoded.
---@field query table<string, string> The first value of each name of the query.
---@field headers http.Headers
---@field version "1.0"|"1.1"
---@field params table<string, string> Of the route.
---@field peer string? The client's address.
---@field tls cosocket.TlsInfo?
---@field body_length http.Length
---@field trailers http.Headers? After the end of a chunked body.
---@field private connection http.ServerConnection
---@field private reader http.Reader?
---@field private flags integer
local Request = {}

--- Fields that few handlers ask for are made when they are asked for.
---@type table<string, fun(request: table): any>
local LAZY = {
  query = function(self)
    local text = self.query_string
    if not text then return {} end
    local _, first = url.parse_query(text)
    return type(first) == "table" and not cosocket.is_error(first) and first or {}
  end,
  peer = function(self) return self.connection.stream:peer_address() end,
  tls = function(self) return self.connection.stream:tls_info() end,
  version = function(self) return self.flags & OLD ~= 0 and "1.0" or "1.1" end,
  trailers = function(self) return self.reader and self.reader.trailers end,
}

function Request.__index(self, name)
  local method = Request[name]
  if method ~= nil then return method end
  local make = LAZY[name]
  if not make then return nil end
  local value = make(self)
  -- Trailers may come later.
  if value ~= nil then rawset(self, name, value) end
  return value
end

Request.__name = "http.ServerRequest"

--- Whole bodies come from here: what went wrong ends the request with this status, if the handler lets it.
---@param err cosocket.Error
---@param status integer
---@return nil
---@return cosocket.Error
local function with_status(err, status)
  err.code = err.code or status
  return nil, err
end

--- The whole body.
---@async
---@param max? integer Most bytes. Default: the server's `body_max`.
---@return string? body Empty when there is none, and when it has been read.
---@return cosocket.Error? err `limit`, `timeout`, `closed`, `protocol`; `code` is the status that fits.
function Request:body(max)
  local reader = self.reader
  if not reader then return "" end
  local text, err = reader:read_all(max or self.connection.server.options.body_max)
  if text then return text end
  ---@cast err cosocket.Error
  self.connection.keep_alive = false
  return with_status(err, err.kind == "limit" and 413 or err.kind == "timeout" and 408 or 400)
end

--- The next piece of the body.
---@async
---@return string? piece `nil` without an error at the end.
---@return cosocket.Error? err
function Request:read()
  local reader = self.reader
  if not reader then return nil end
  local piece, err = reader:read()
  if err then self.connection.keep_alive = false end
  return piece, err
end

--- `for piece in request:chunks() do`: the body in pieces as they arrive; an error is raised.
---@async
---@return fun(): string?
function Request:chunks()
  return bodies.pieces(self)
end

--- Whether the body is said to be of this media type, whatever its parameters.
---@param wanted string
---@return boolean
function Request:is_type(wanted)
  local given = self.headers:get("content-type")
  return given ~= nil and given:match("^%s*([^%s;]*)"):lower() == wanted
end

--- The body as JSON. Answer a failure with `response:fail(err)`, or raise it: it has the status.
---@async
---@return any value
---@return cosocket.Error? err `protocol` for what is no JSON (400), and what `body` fails with.
function Request:json()
  local text, err = self:body()
  if not text then return nil, err end
  local value, why = json.decode(text)
  if why then return with_status(why, 400) end
  return value
end

--- The body as a form, `application/x-www-form-urlencoded`.
---@async
---@return table<string, string>? first The first value of each name.
---@return {[1]: string, [2]: string}[]|cosocket.Error pairs All, in order.
function Request:form()
  if not self:is_type("application/x-www-form-urlencoded") then
    local text = "the body is not of the type application/x-www-form-urlencoded"
    return nil, cosocket.error("protocol", "http.form", text, { code = 415 })
  end
  local text, err = self:body()
  if not text then return nil, err --[[@as cosocket.Error]] end
  local _, count = text:gsub("&", "&", FORM_MAX)
  if count >= FORM_MAX then
    return nil, cosocket.error("limit", "http.form", ("the form has more than %d fields"):format(FORM_MAX), { code = 413 })
  end
  local pairs, first = url.parse_query(text)
  if not pairs then
    return with_status(first --[[@as cosocket.Error]], 400)
  end
  return first --[[@as table<string, string>]], pairs
end

--- Whether the client offers to go on with another protocol (RFC 9110, 7.8).
---@param protocol string Such as `"websocket"`; case does not count.
---@return boolean
function Request:offers(protocol)
  if self.flags & codec.UPGRADE == 0 then return false end
  for name in (self.headers:get("upgrade") or ""):gmatch("[^,%s]+") do
    if name:lower() == protocol:lower() then return true end
  end
  return false
end

--- Ends HTTP on this connection: answers 101, and hands over the stream with what has arrived unread. From here on the
--- stream belongs to the caller, who closes it; it is also closed when the handler raises.
---@async
---@param protocol string
---@param headers? http.Fields Besides `Connection` and `Upgrade`.
---@return cosocket.Stream? stream
---@return cosocket.Buffer|cosocket.Error unread `protocol` when the client does not offer it, or has sent a body.
function Request:upgrade(protocol, headers)
  if not self:offers(protocol) then
    local text = ("the client does not offer to upgrade to %s"):format(protocol)
    return nil, cosocket.error("protocol", "http.upgrade", text, { code = 426, upgrade = protocol })
  end
  return self.connection:upgrade(self, protocol, headers)
end

--- The parameters of a route without any; all requests share them.
---@type table<string, string>
local NONE = setmetatable({}, { __newindex = function() error("request.params: a route without parameters has none to set", 2) end })

local request = {}

---@param connection http.ServerConnection
---@param method string
---@param target string
---@param minor integer
---@param headers http.Headers
---@param length http.Length
---@param flags integer
---@return http.ServerRequest
function request.new(connection, method, target, minor, headers, length, flags)
  local path, query = target, nil
  local mark = target:find("?", 1, true)
  if mark then path, query = target:sub(1, mark - 1), target:sub(mark + 1) end
  if path:byte() ~= 47 and method ~= "CONNECT" and path ~= "*" then
    -- 3.2.2: a proxy's form, taken by every server.
    path = path:match("^[^:]*://[^/]*(.*)$") or path
    if path == "" then path = "/" end
  end
  local made = setmetatable({
    connection = connection,
    method = method,
    target = target,
    path = path,
    headers = headers,
    body_length = length,
    flags = minor == 0 and flags | OLD or flags,
    params = NONE,
  }, Request)
  -- Eight fields fit where nine would take twice the room.
  if query then made.query_string = query end
  return made
end

return request
