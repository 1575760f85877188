--- What may be called: functions by name, with what is said about them. Nothing else can be reached by name.

local cosocket = require("cosocket")
local json = require("json")
local message = require("wsrpc.message")

local is_array, null = message.is_array, json.null

--- Arguments that a method may be given by position.
local ARGUMENTS_MAX = 200

---@class wsrpc.Parameter
---@field name string
---@field description? string
---@field required? boolean Default `true`.
---@field schema? table JSON Schema. Its `type` is checked here; the rest is for readers of `rpc.discover`.

---@class wsrpc.Definition
---@field [1] fun(...): ... The function. Positional params are its arguments; so are named ones, if `params` says their order. Other named params come as one table. `null` comes as `nil`.
---@field params? (wsrpc.Parameter|string)[] What it takes, in order. Calls that do not fit get error -32602.
---@field result? {name: string?, description: string?, schema: table?}
---@field summary? string A line for `rpc.discover`.
---@field description? string
---@field deprecated? boolean
---@field timeout? number Seconds it may take. Default: the option `handler_timeout`. 0 is no limit.
---@field with_peer? boolean Whether the first argument is the peer that calls. Default `false`.
---@field stream? boolean Whether it is a stream to subscribe to instead of a method to call: then it gets a function `emit(value)`, before the other arguments, and the stream ends when it returns. Default `false`.

---@class wsrpc.Method
---@field fn fun(...): ...
---@field params wsrpc.Parameter[]?
---@field positions table<string, integer>?
---@field definition wsrpc.Definition
---@field stream boolean
---@field with_peer boolean
---@field timeout number?
---@field task string Name of the tasks of its streams. Calls have none of their own: they share tasks called "rpc".

local KNOWN = {
  params = "table",
  result = "table",
  summary = "string",
  description = "string",
  deprecated = "boolean",
  timeout = "number",
  with_peer = "boolean",
  stream = "boolean",
}

---@type table<string, fun(value: any): boolean>
local TYPES = {
  null = function(value) return value == null end,
  boolean = function(value) return type(value) == "boolean" end,
  number = function(value) return type(value) == "number" end,
  integer = function(value) return type(value) == "number" and math.tointeger(value) ~= nil end,
  string = function(value) return type(value) == "string" end,
  array = function(value) return type(value) == "table" and is_array(value) end,
  object = function(value) return type(value) == "table" and not is_array(value) end,
}

local method = {}

--- Checks a definition; raises for what is none.
---@param op string
---@param name string
---@param given wsrpc.Definition|fun(...): ...
---@param level integer
---@return wsrpc.Method
function method.new(op, name, given, level)
  level = level + 1
  if type(name) ~= "string" or name == "" then error(op .. ": the name of a method must be a string", level) end
  -- 4, 8: names that begin with rpc. are for extensions of the protocol
  if name:sub(1, 4) == "rpc." or name:sub(1, 2) == "$/" then
    error(("%s: %q is reserved for the protocol itself"):format(op, name), level)
  end
  local definition = type(given) == "function" and { given } or given
  if type(definition) ~= "table" or type(definition[1]) ~= "function" then
    error(("%s: method %q must be a function, or a table with the function first"):format(op, name), level)
  end
  local rest = {}
  for key, value in pairs(definition) do
    if key ~= 1 then rest[key] = value end
  end
  cosocket.check_options(op, rest, KNOWN, level)
  local params, positions
  if definition.params then
    params, positions = {}, {}
    for i, one in ipairs(definition.params) do
      if type(one) == "string" then one = { name = one } end
      if type(one) ~= "table" or type(one.name) ~= "string" then
        error(("%s: parameter %d of %q has no name"):format(op, i, name), level)
      end
      local kinds = one.schema and one.schema.type
      for _, kind in ipairs(type(kinds) == "table" and kinds or { kinds }) do
        if not TYPES[kind] then error(("%s: %q is not a type of JSON Schema"):format(op, tostring(kind)), level) end
      end
      params[i], positions[one.name] = one --[[@as wsrpc.Parameter]], i
    end
  end
  return {
    fn = definition[1],
    params = params,
    positions = positions,
    definition = definition --[[@as wsrpc.Definition]],
    stream = definition.stream or false,
    with_peer = definition.with_peer or false,
    timeout = definition.timeout,
    task = "rpc " .. name,
  }
end

--- A table of methods.
---@param op string
---@param methods table<string, wsrpc.Definition|fun(...): ...>
---@param level integer
---@return table<string, wsrpc.Method>
function method.all(op, methods, level)
  local known = {}
  for name, given in pairs(methods) do known[name] = method.new(op, name, given, level + 1) end
  return known
end

---@param value any
---@param parameter wsrpc.Parameter
---@return boolean
local function fits(value, parameter)
  local kinds = parameter.schema and parameter.schema.type
  if not kinds then return true end
  if type(kinds) == "string" then return TYPES[kinds](value) end
  for _, kind in ipairs(kinds) do
    if TYPES[kind](value) then return true end
  end
  return false
end

--- The arguments of a call. The params are used up.
---@param one wsrpc.Method
---@param params table|nil
---@return table? arguments
---@return integer|string count How many there are, or why the params do not fit.
function method.arguments(one, params)
  local known = one.params
  local by_name = params ~= nil and not is_array(params)
  if not known then
    if params == nil then return {}, 0 end
    if by_name then return { params }, 1 end
    local count = #params
    if count > ARGUMENTS_MAX then return nil, ("at most %d params"):format(ARGUMENTS_MAX) end
    for i = 1, count do
      if params[i] == null then params[i] = nil end
    end
    return params, count
  end
  local given = params or {}
  if by_name then
    given = {}
    for name, value in pairs(params --[[@as table]]) do
      local at = one.positions[name]
      if not at then return nil, "a param has an unknown name" end
      given[at] = value
    end
  elseif #given > #known then
    return nil, ("%d params at most"):format(#known)
  end
  for i, parameter in ipairs(known) do
    local value = given[i]
    if value == nil then
      if parameter.required ~= false then return nil, ("%s is missing"):format(parameter.name) end
    elseif not fits(value, parameter) then
      return nil, ("%s is of the wrong type"):format(parameter.name)
    elseif value == null then
      given[i] = nil
    end
  end
  return given, #known
end

--- A parameter or result for readers.
---@param one {name: string?, description: string?, schema: table?, required: boolean?}
---@param is_parameter boolean
local function described(one, is_parameter)
  local required
  if is_parameter then required = one.required ~= false end
  return {
    name = one.name or "result",
    description = one.description,
    schema = one.schema or {},
    required = required,
  }
end

--- The OpenRPC document of methods (https://spec.open-rpc.org, 1.3.2). Streams, which OpenRPC has no word for, stand in
--- `x-streams`.
---@param title string
---@param version string
---@param ... table<string, wsrpc.Method> Of a name in several, the first counts.
---@return table
function method.discover(title, version, ...)
  local names, found = {}, {}
  for _, methods in ipairs({ ... }) do
    for name, one in pairs(methods) do
      if not found[name] then
        found[name] = one
        names[#names + 1] = name
      end
    end
  end
  table.sort(names)
  local callable, streams = json.array(), json.array()
  for _, name in ipairs(names) do
    local one = found[name]
    local definition, params = one.definition, json.array()
    for i, parameter in ipairs(one.params or {}) do params[i] = described(parameter, true) end
    local entry = {
      name = name,
      summary = definition.summary,
      description = definition.description,
      deprecated = definition.deprecated,
      params = params,
      result = definition.result and described(definition.result, false)
        or { name = "result", schema = {} },
    }
    local list = one.stream and streams or callable
    list[#list + 1] = entry
  end
  local document = { openrpc = "1.3.2", info = { title = title, version = version }, methods = callable }
  if #streams > 0 then document["x-streams"] = streams end
  return document
end

return method
