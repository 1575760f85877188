--- MQTT 3.1.1 and 5, a line for each packet.

local codec = require("mqtt.codec")
local cosocket = require("cosocket")
local secret = require("net.trace.secret")
local text = require("net.trace.text")

--- Bytes of a packet that is decoded whole; of a longer one, only its beginning is.
local WHOLE_MAX = 256 * 1024
--- Bytes of a longer one that are looked at.
local HEAD = 4096

local TYPES = {
  "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK",
  "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

local mqtt = { port = 1883 }

--- Properties in the order of their names.
---@param lane net.trace.Lane
---@param properties mqtt.Properties?
---@param words string[]
local function add_properties(lane, properties, words)
  local names = {}
  for name in pairs(properties or {}) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local value = properties[name] ---@type any
    if name == "authentication_data" then
      value = secret.short(#value)
    elseif name == "user_property" then
      local pairs_of = {}
      for i, pair in ipairs(value) do
        local shown = secret.is_name(pair[1]) and secret.short(#pair[2]) or lane:quote(pair[2])
        pairs_of[i] = ("%s=%s"):format(lane:quote(pair[1]), shown)
      end
      value = "{" .. table.concat(pairs_of, ", ") .. "}"
    elseif type(value) == "table" then
      value = table.concat(value, ",")
    elseif type(value) == "string" then
      value = lane:quote(value)
    end
    words[#words + 1] = ("%s=%s"):format(name, tostring(value))
  end
end

---@param code integer
---@param version integer
---@return string
local function reason(code, version)
  local words = codec.reason(code, version --[[@as mqtt.codec.Version]])
  return words and ("0x%02x %s"):format(code, words) or ("0x%02x"):format(code)
end

---@type table<string, fun(lane: net.trace.Lane, packet: any, words: string[], version: integer)>
local SHOW = {}

function SHOW.connect(lane, packet, words)
  words[#words + 1] = packet.protocol_version == 5 and "MQTT 5" or "MQTT 3.1.1"
  words[#words + 1] = "client_id=" .. lane:quote(packet.client_id)
  if packet.clean_start then words[#words + 1] = packet.protocol_version == 5 and "clean_start" or "clean_session" end
  words[#words + 1] = "keep_alive=" .. packet.keep_alive
  if packet.username then words[#words + 1] = "username=" .. lane:quote(packet.username) end
  if packet.password then words[#words + 1] = "password=***" end
  local will = packet.will
  if will then
    local inner = { "topic=" .. lane:quote(will.topic), "qos=" .. will.qos }
    if will.retain then inner[#inner + 1] = "retain" end
    add_properties(lane, will.properties, inner)
    inner[#inner + 1] = ("payload %s %s"):format(text.size(#will.payload), lane:quote(will.payload))
    words[#words + 1] = ("will(%s)"):format(table.concat(inner, " "))
  end
end

function SHOW.connack(_, packet, words, version)
  words[#words + 1] = reason(packet.reason_code, version)
  if packet.session_present then words[#words + 1] = "session_present" end
end

function SHOW.publish(lane, packet, words)
  if packet.packet_id then words[#words + 1] = "id=" .. packet.packet_id end
  words[#words + 1] = "qos=" .. packet.qos
  if packet.dup then words[#words + 1] = "dup" end
  if packet.retain then words[#words + 1] = "retain" end
  words[#words + 1] = "topic=" .. lane:quote(packet.topic)
end

local function acknowledgement(_, packet, words, version)
  words[#words + 1] = "id=" .. packet.packet_id
  if version == 5 then words[#words + 1] = reason(packet.reason_code, version) end
end
SHOW.puback, SHOW.pubrec, SHOW.pubrel, SHOW.pubcomp = acknowledgement, acknowledgement, acknowledgement, acknowledgement

function SHOW.subscribe(lane, packet, words, version)
  words[#words + 1] = "id=" .. packet.packet_id
  for _, subscription in ipairs(packet.subscriptions) do
    local part = ("%s qos=%d"):format(lane:quote(subscription.filter), subscription.qos)
    if subscription.no_local then part = part .. " no_local" end
    if subscription.retain_as_published then part = part .. " retain_as_published" end
    if version == 5 and subscription.retain_handling ~= 0 then part = part .. " retain_handling=" .. subscription.retain_handling end
    words[#words + 1] = part
  end
end

function SHOW.unsubscribe(lane, packet, words)
  words[#words + 1] = "id=" .. packet.packet_id
  for _, filter in ipairs(packet.filters) do words[#words + 1] = lane:quote(filter) end
end

function SHOW.suback(_, packet, words, version)
  words[#words + 1] = "id=" .. packet.packet_id
  local codes = {}
  for i, code in ipairs(packet.reason_codes) do codes[i] = reason(code, version) end
  words[#words + 1] = table.concat(codes, ", ")
end
SHOW.unsuback = SHOW.suback

function SHOW.disconnect(_, packet, words, version)
  if version == 5 then words[#words + 1] = reason(packet.reason_code, version) end
end
SHOW.auth = SHOW.disconnect

--- Masks a string wherever it stands behind `mark`.
---@param bytes string
---@param mark string
---@param value string
---@return string
local function without(bytes, mark, value)
  local field = mark .. string.pack(">s2", value)
  local from = bytes:find(field, 1, true)
  while from do
    bytes = bytes:sub(1, from + #mark + 1) .. secret.same(#value) .. bytes:sub(from + #field)
    from = bytes:find(field, from + #field, true)
  end
  return bytes
end

--- A packet without its secrets.
---@param bytes string
---@param packet any
---@return string
local function masked(bytes, packet)
  if packet.type == "connect" and packet.password then
    -- The password is what CONNECT ends with (3.1.3.6).
    local size = #packet.password
    bytes = bytes:sub(1, #bytes - size) .. secret.same(size)
  end
  for _, properties in ipairs({ packet.properties or {}, packet.will and packet.will.properties or {} }) do
    local data = properties.authentication_data
    if data then bytes = without(bytes, "\x16", data) end
    for _, pair in ipairs(properties.user_property or {}) do
      if secret.is_name(pair[1]) then bytes = without(bytes, "\x26" .. string.pack(">s2", pair[1]), pair[2]) end
    end
  end
  return secret.text(bytes, secret.same)
end

--- A packet that is here.
---@param lane net.trace.Lane
---@param name string
---@param first integer
---@param total integer
---@param head integer Bytes before what its type begins with.
local function whole(lane, name, first, total, head)
  local bytes = lane:peek(total)
  local version = lane.state.version
  -- The version stands behind the name of the protocol (3.1.2.2).
  if first >> 4 == 1 then version = nil end
  local packet, err = codec.decode(cosocket.buffer(bytes), version, total)
  if not packet then
    -- What cannot be understood may hold a secret, where these packets do.
    local safe = (name == "CONNECT" or name == "AUTH") and bytes:sub(1, 2) .. secret.same(total - 2) or secret.text(bytes, secret.same)
    lane:take(total, safe)
    -- What follows may be right all the same.
    local level = name == "CONNECT" and bytes:match("^\0\4MQTT([\4\5])", head + 1)
    if level then lane.state.version = level:byte() end
    local why = err and err.message or "there was no CONNECT before it"
    lane:say(("%s is not right: %s (%s)"):format(name, why, text.size(total)))
    if name ~= "CONNECT" and name ~= "AUTH" then lane:dump(safe) end
    return
  end
  if packet.type == "connect" then lane.state.version = packet.protocol_version end
  version = lane.state.version or 4
  lane:take(total, masked(bytes, packet))
  local words = { name }
  if SHOW[packet.type] then SHOW[packet.type](lane, packet, words, version) end
  add_properties(lane, packet.properties, words)
  if packet.type == "publish" then
    words[#words + 1] = ("payload %s"):format(text.size(#packet.payload))
    if #packet.payload > 0 then words[#words + 1] = lane:quote(packet.payload) end
  end
  words[#words + 1] = ("(%s)"):format(text.size(total))
  lane:say(table.concat(words, " "))
end

--- A packet of which only the beginning is looked at.
---@param lane net.trace.Lane
---@param name string
---@param first integer
---@param head integer Bytes before the topic.
---@param total integer
local function long(lane, name, first, head, total)
  local words = { name }
  lane:need(HEAD)
  if name == "PUBLISH" then
    words[#words + 1] = "qos=" .. (first >> 1 & 3)
    local beginning = lane:peek(HEAD, head)
    local topic = #beginning >= 2 and string.unpack(">I2", beginning) + 2 <= #beginning and string.unpack(">s2", beginning)
    if topic then words[#words + 1] = "topic=" .. lane:quote(topic) end
  end
  words[#words + 1] = ("(%s)"):format(text.size(total))
  lane:say(table.concat(words, " "))
  -- A CONNECT so long is nobody's; its password would be at its end.
  if name ~= "PUBLISH" then
    local left = total
    while left > 0 and lane:need(1) do
      local size = math.min(left, lane:count())
      lane:take(size, secret.same(size))
      left = left - size
    end
  else
    lane:pass(total)
  end
end

---@param lane net.trace.Lane
function mqtt.follow(lane)
  while lane:need(2) do
    local first = lane:peek(1):byte()
    local name = TYPES[first >> 4] or ("packet of type %d"):format(first >> 4)
    -- Remaining Length (2.1.4): seven bits a byte, at most four.
    local remaining, size = 0, 0
    repeat
      size = size + 1
      if not lane:need(1 + size) then return end
      local byte = lane:peek(1, size):byte()
      remaining = remaining | (byte & 0x7F) << 7 * (size - 1)
    until byte < 0x80 or size == 4
    if lane:peek(1, size):byte() >= 0x80 then
      lane:say(name .. " has a length of more than four bytes; the rest is not decoded")
      return
    end
    local total = 1 + size + remaining
    if total > WHOLE_MAX then
      long(lane, name, first, 1 + size, total)
    elseif lane:need(total) then
      whole(lane, name, first, total, 1 + size)
    else
      return
    end
  end
end

return mqtt
