--- What a script says about a message, as properties of MQTT 5.

local cosocket = require("cosocket")

local publication = {}

local OPTIONS = {
  qos = "integer",
  retain = "boolean",
  expiry = "number",
  content_type = "string",
  response_topic = "string",
  correlation = "string",
  utf8 = "boolean",
  user = "table",
}

--- User properties as a list of pairs. Named ones are sorted, so that the same table is the same bytes.
---@param op string
---@param user [string, string][]|table<string, string>|nil
---@param level? integer Whose mistakes they are; 2 is the caller. Default 3.
---@return [string, string][]?
function publication.user_properties(op, user, level)
  if user == nil then return nil end
  if user[1] ~= nil then
    for _, pair in ipairs(user) do
      if type(pair) ~= "table" or type(pair[1]) ~= "string" or type(pair[2]) ~= "string" then
        error(("%s: `user` is a list of pairs of strings, or a table of strings by their names"):format(op), level or 3)
      end
    end
    return user
  end
  local names, pairs_ = {}, {}
  for name, value in pairs(user) do
    if type(name) ~= "string" or type(value) ~= "string" then
      error(("%s: names and values in `user` are strings"):format(op), level or 3)
    end
    names[#names + 1] = name
  end
  table.sort(names)
  for i, name in ipairs(names) do pairs_[i] = { name, user[name] } end
  return pairs_
end

--- Checks the options of a message; mistakes blame the caller's caller.
---@param op string
---@param options mqtt.PublishOptions
---@param level? integer Whose mistakes they are; 2 is the caller. Default 3.
---@return mqtt.Qos qos
---@return boolean retain
---@return mqtt.Properties? properties
function publication.check(op, options, level)
  level = level or 3
  local properties
  -- Most say one thing.
  if type(options) == "table" and next(options) == "qos" and next(options, "qos") == nil then
    local qos = options.qos
    if qos == 0 or qos == 1 or qos == 2 then return qos, false, nil end
  end
  if type(options) ~= "table" then cosocket.check_options(op, options, OPTIONS, level) end
  for name, value in next, options do
    local wanted = OPTIONS[name]
    if name == "qos" then
      if value ~= 0 and value ~= 1 and value ~= 2 then error(op .. ": qos must be 0, 1 or 2", level) end
    elseif type(value) ~= wanted then
      cosocket.check_options(op, options, OPTIONS, level)
    elseif name ~= "retain" then
      properties = properties or {}
    end
  end
  if properties then
    local expiry = options.expiry
    if expiry and (expiry < 0 or expiry > 0xFFFFFFFF or expiry ~= expiry) then
      error(op .. ": expiry must be from 0 to 4294967295 seconds", level)
    end
    properties.message_expiry_interval = expiry and math.ceil(expiry)
    properties.content_type = options.content_type
    properties.response_topic = options.response_topic
    properties.correlation_data = options.correlation
    properties.payload_format_indicator = options.utf8 and 1 or nil
    properties.user_property = publication.user_properties(op, options.user, level + 1)
  end
  return options.qos or 0, options.retain or false, properties
end

return publication
