--- Which handler a request is for.
---
--- | pattern | matches | parameters |
--- |---|---|---|
--- | `/things` | that path | |
--- | `/things/:id` | one segment, not empty | `id` |
--- | `/files/*path` | the rest, perhaps empty | `path` |
---
--- A path without parameters comes before all patterns, and those that match a rest come last, the longest first; else
--- patterns come in the order they were added. Segments are decoded one by one, so that `%2F` in a parameter is a slash
--- and never divides.

local url = require("url")

local decode = url.decode

---@alias http.Handler fun(request: http.ServerRequest, response: http.ServerResponse)

---@class http.Route
---@field private pattern string
---@field private handlers table<string, http.Handler> By method; `"*"` is any.
---@field private segments string[]? Of a pattern with parameters: literal text, or a parameter with its `:` or `*`.

---@class http.Routes
---@field private exact table<string, http.Route>
---@field private patterns http.Route[]
---@field private by_pattern table<string, http.Route>
local Routes = {}
Routes.__index = Routes

local route = {}

--- Where a pattern stands among others: the smaller comes first.
---@param segments string[]
---@return number
local function rank(segments)
  local has_rest = segments[#segments]:sub(1, 1) == "*"
  return has_rest and -#segments or -math.huge
end

---@param path string
---@return string[]
local function split(path)
  local segments = {}
  for segment in path:gmatch("/([^/]*)") do segments[#segments + 1] = segment end
  return segments
end

--- Adds a handler; raises for a pattern that is none.
---@param method string Or `"*"`.
---@param pattern string
---@param handler http.Handler
function Routes:add(method, pattern, handler)
  if type(pattern) ~= "string" or pattern:sub(1, 1) ~= "/" then
    error(("route: a pattern begins with a slash, %q does not"):format(tostring(pattern)), 3)
  end
  if type(handler) ~= "function" then
    error(("route: the handler must be a function, not a %s"):format(type(handler)), 3)
  end
  local found = self.by_pattern[pattern]
  if not found then
    found = { pattern = pattern, handlers = {} }
    self.by_pattern[pattern] = found
    local segments, has_parameters = split(pattern), false
    for at, segment in ipairs(segments) do
      local first = segment:sub(1, 1)
      has_parameters = has_parameters or first == ":" or first == "*"
      if segment == ":" then error(("route: %q has a parameter without a name"):format(pattern), 3) end
      if first == "*" and at < #segments then error(("route: in %q something follows the rest"):format(pattern), 3) end
    end
    if has_parameters then
      found.segments = segments
      local at = #self.patterns + 1
      while at > 1 and rank(self.patterns[at - 1].segments) > rank(segments) do at = at - 1 end
      table.insert(self.patterns, at, found)
    else
      self.exact[pattern] = found
    end
  end
  if found.handlers[method] then error(("route: %s %s is there already"):format(method, pattern), 3) end
  found.handlers[method] = handler
end

--- The parameters of a path, if it fits.
---@param wanted string[]
---@param given string[]
---@return table<string, string>?
local function match(wanted, given)
  local count = #wanted
  local rest = wanted[count]:sub(1, 1) == "*"
  if #given ~= count and not (rest and #given >= count) then return nil end
  local parameters = {}
  for at = 1, count do
    local segment, text = wanted[at], given[at]
    local first = segment:sub(1, 1)
    if first == ":" then
      local value = text ~= "" and decode(text)
      if not value then return nil end
      parameters[segment:sub(2)] = value
    elseif first == "*" then
      local values = {}
      for i = at, #given do
        local value = decode(given[i])
        if not value then return nil end
        values[#values + 1] = value
      end
      parameters[segment == "*" and "*" or segment:sub(2)] = table.concat(values, "/")
    elseif segment ~= text then
      return nil
    end
  end
  return parameters
end

--- The handler of one route for a method. HEAD is answered by GET, whose body is left out (RFC 9110, 9.3.2).
---@param handlers table<string, http.Handler>
---@param method string
---@return http.Handler?
local function choose(handlers, method)
  return handlers[method] or (method == "HEAD" and handlers.GET) or handlers["*"]
end

--- The handler for a request.
---@param method string
---@param path string Still encoded.
---@return http.Handler? handler
---@return table<string, string>? parameters Of a pattern that has some.
---@return string? allow Without a handler: the methods this path has, as an Allow field; `nil` when there is no such path.
function Routes:find(method, path)
  local exact = self.exact[path]
  if exact then
    local handler = choose(exact.handlers, method)
    if handler then return handler end
  end
  local given
  local allowed = exact and { exact.handlers } or nil
  for _, candidate in ipairs(self.patterns) do
    given = given or split(path)
    local parameters = match(candidate.segments --[[@as string[] ]], given)
    if parameters then
      local handler = choose(candidate.handlers, method)
      if handler then return handler, parameters end
      allowed = allowed or {}
      allowed[#allowed + 1] = candidate.handlers
    end
  end
  if not allowed then return nil end
  local methods, list = { OPTIONS = true }, {}
  for _, handlers in ipairs(allowed) do
    for name in pairs(handlers) do methods[name] = true end
  end
  if methods.GET then methods.HEAD = true end
  for name in pairs(methods) do list[#list + 1] = name end
  table.sort(list)
  return nil, nil, table.concat(list, ", ")
end

---@return http.Routes
function route.new()
  return setmetatable({ exact = {}, patterns = {}, by_pattern = {} }, Routes)
end

return route
