--- WebSocket (RFC 6455): a line for each frame, and what runs within. Compressed messages are shown, and captured, inflated.

local close_code = require("websocket.close_code")
local codec = require("websocket.codec")
local cosocket = require("cosocket")
local mask = require("net.trace.mask")
local secret = require("net.trace.secret")
local text = require("net.trace.text")

--- Bytes of a frame that is looked at whole; a longer one passes piece by piece.
local WHOLE_MAX = 256 * 1024
--- Bytes of a message that is inflated.
local INFLATED_MAX = 1024 * 1024

local NAMES = { [0] = "continuation", "text", "binary", [8] = "close", [9] = "ping", [10] = "pong" }

--- Subprotocols that are called otherwise than what decodes them.
local PROTOCOLS = { jsonrpc = "wsrpc", mqttv31 = "mqtt" }

local websocket = { port = 80, carries = true }

---@class net.trace.Frame
---@field fin boolean
---@field compressed boolean RSV1.
---@field reserved integer RSV2 and RSV3.
---@field opcode integer
---@field key string? Of the mask.
---@field head integer Bytes before the payload.
---@field length integer

-- Frames --------------------------------------------------------------------------

--- Waits for the head of a frame (5.2).
---@param lane net.trace.Lane
---@return net.trace.Frame?
local function read_head(lane)
  if not lane:need(2) then return nil end
  local first, second = lane:peek(2):byte(1, 2)
  local length, head = second & 0x7F, 2
  if length == 126 then head = 4 elseif length == 127 then head = 10 end
  local is_masked = second & 0x80 ~= 0
  if is_masked then head = head + 4 end
  if not lane:need(head) then return nil end
  if length == 126 then
    length = string.unpack(">I2", lane:peek(2, 2))
  elseif length == 127 then
    length = string.unpack(">I8", lane:peek(8, 2))
  end
  return {
    fin = first & 0x80 ~= 0,
    compressed = first & 0x40 ~= 0,
    reserved = first >> 4 & 3,
    opcode = first & 0x0F,
    key = is_masked and lane:peek(4, head - 4) or nil,
    head = head,
    length = length,
  }
end

--- 5.3: the same there and back. `from` is where in the payload `bytes` begin.
---@param bytes string
---@param key string?
---@param from? integer
---@return string
local function unmask(bytes, key, from)
  if not key or key == "\0\0\0\0" then return bytes end
  local turn = (from or 0) % 4
  local word = string.unpack("<I4", key:sub(turn + 1) .. key:sub(1, turn))
  word = word | word << 32
  local whole, parts = bytes .. ("\0"):rep(-#bytes % 8), {}
  for at = 1, #whole, 8 do parts[#parts + 1] = string.pack("<i8", string.unpack("<i8", whole, at) ~ word) end
  return table.concat(parts):sub(1, #bytes)
end

--- A frame as it would have been without compression and secrets.
---@param frame net.trace.Frame
---@param payload string
---@return string
local function made(frame, payload)
  local first = (frame.fin and 0x80 or 0) | frame.reserved << 4 | frame.opcode
  local mask, length = frame.key and 0x80 or 0, #payload
  local head
  if length < 126 then
    head = string.char(first, mask | length)
  elseif length < 65536 then
    head = string.char(first, mask | 126) .. string.pack(">I2", length)
  else
    head = string.char(first, mask | 127) .. string.pack(">I8", length)
  end
  return head .. (frame.key or "") .. unmask(payload, frame.key)
end

--- What a line says of a frame.
---@param frame net.trace.Frame
---@param how? string
---@return string
local function describe(frame, how)
  local words = { NAMES[frame.opcode] or ("opcode %d"):format(frame.opcode), text.size(frame.length) }
  if frame.fin then words[#words + 1] = "fin" end
  if frame.compressed then words[#words + 1] = how or "compressed" end
  if frame.reserved ~= 0 then words[#words + 1] = ("reserved=%d"):format(frame.reserved) end
  if frame.key then words[#words + 1] = "masked" end
  return table.concat(words, " ")
end

-- Compression -----------------------------------------------------------------------

--- What inflates the messages of one direction (RFC 7692, 7.1).
---@param lane net.trace.Lane
---@return (fun(bytes: string): string?, string?)? inflate
local function inflater(lane)
  local extensions = lane.state.extensions
  local agreed = extensions and extensions:lower():match("permessage%-deflate([^,]*)")
  if not agreed then return nil end
  local sender = lane.is_client and "client" or "server"
  local bits = agreed:match(sender .. "_max_window_bits%s*=%s*\"?(%d+)")
  local rules = codec.rules({
    role = lane.is_client and "server" or "client",
    message_max = INFLATED_MAX,
    inflate = {
      window_bits = math.max(9, math.min(15, math.tointeger(bits) or 15)),
      takeover = not agreed:find(sender .. "_no_context_takeover", 1, true),
    },
  })
  local input, reading, why = cosocket.buffer(), nil, nil
  return function(bytes)
    if why then return nil, why end
    input:append(bytes)
    local payload = ""
    while true do
      local piece, kind, next_reading = codec.decode(input, rules, reading, true)
      reading = next_reading
      if not piece then
        if kind then
          why = kind.message --[[@as string]]
          return nil, why
        end
        return payload
      end
      payload = payload .. piece
    end
  end
end

-- What runs within --------------------------------------------------------------------

--- Frames that wait until what runs within has taken their bytes.
---@class net.trace.Within
---@field lane net.trace.Lane
---@field frames {[1]: net.trace.Frame, [2]: integer}[] And the bytes of their payload.
---@field bytes string

--- Hands frames on whose bytes are known to be harmless.
---@param outer fun(frame: net.trace.Frame, payload: string)
---@param within net.trace.Within
local function hand_on(outer, within)
  local frames = within.frames
  while frames[1] and #within.bytes >= frames[1][2] do
    local frame, size = frames[1][1], frames[1][2]
    table.remove(frames, 1)
    outer(frame, within.bytes:sub(1, size))
    within.bytes = within.bytes:sub(size + 1)
  end
end

--- What runs within, if it can be known: by the name of the subprotocol, or, without one, by its first message.
---@param lane net.trace.Lane
---@param payload string
---@param release fun(frame: net.trace.Frame, payload: string)
---@return net.trace.Within?
local function begin_within(lane, payload, release)
  local state = lane.state
  local name = state.subprotocol
  if not name then
    -- JSON-RPC is also spoken without a name.
    if not payload:find('^%s*[%[{]') or not payload:find('"jsonrpc"%s*:%s*"2%.0"') then return nil end
    name = "wsrpc"
  end
  name = name:lower()
  name = PROTOCOLS[name] or name
  state.within = state.within or {}
  local within = { frames = {}, bytes = "" }
  within.lane = lane:inner(name, state.within, function(bytes)
    within.bytes = within.bytes .. bytes
    hand_on(release, within)
  end)
  return within.lane and within --[[@as net.trace.Within?]]
end

-- Following ---------------------------------------------------------------------------

--- A frame that passes as it comes.
---@param lane net.trace.Lane
---@param frame net.trace.Frame
---@param masking net.trace.Mask? Of the message. `nil`: nobody knows what is in it.
local function long(lane, frame, masking)
  lane:take(frame.head)
  local first, passed = "", 0
  -- The sign of a 64-bit length is not its own (5.2).
  local length = frame.length < 0 and math.huge or frame.length
  while passed < length and lane:need(1) do
    local size = math.min(lane:count(), length - passed) --[[@as integer]]
    local bytes = unmask(lane:peek(size), frame.key, passed)
    local safe = masking and masking:feed(bytes) or secret.same(size)
    lane:take(size, unmask(safe, frame.key, passed))
    if #first < lane.limit then first = first .. safe:sub(1, lane.limit - #first) end
    passed = passed + size
  end
  lane:say(masking and ("%s %s..."):format(describe(frame), lane:quote(first)) or describe(frame))
end

---@param lane net.trace.Lane
---@param frame net.trace.Frame
---@param payload string
local function control(lane, frame, payload)
  local words = describe(frame)
  if frame.opcode == 8 and #payload >= 2 then
    local code = string.unpack(">I2", payload)
    local name
    for known, number in pairs(close_code) do
      if number == code then name = known end
    end
    words = ("%s %d%s"):format(words, code, name and " " .. name or "")
    if #payload > 2 then words = ("%s %s"):format(words, lane:quote(payload:sub(3))) end
  elseif payload ~= "" then
    words = ("%s %s"):format(words, lane:quote(payload))
  end
  lane:say(words)
end

---@param lane net.trace.Lane
function websocket.follow(lane)
  local inflate = inflater(lane)
  local within, was_tried, was_long = nil, false, false ---@type net.trace.Within?, boolean, boolean
  -- Of the message that is under way; `nil` when nobody knows what is in it.
  local masking = mask.new() ---@type net.trace.Mask?
  local is_under_way = false
  --- What leaves for captures in place of what was taken.
  local function release(frame, payload) lane:released(made(frame, payload)) end
  while true do
    local frame = read_head(lane)
    if not frame then
      if within then within.lane:finish() end
      return
    end
    if frame.length > WHOLE_MAX or frame.length < 0 then
      -- The message is not known whole: neither is what follows in its compression, or within.
      if frame.compressed or is_under_way and (inflate or within) then masking = nil end
      if within then within.lane:finish() end
      inflate, within, was_tried, was_long = nil, nil, true, true
      long(lane, frame, frame.opcode < 8 and masking or nil)
    else
      local total = frame.head + frame.length
      if not lane:need(total) then return end
      local bytes = lane:hold(total)
      local payload = unmask(bytes:sub(frame.head + 1), frame.key)
      if frame.opcode >= 8 then
        release(frame, secret.text(payload, secret.same))
        control(lane, frame, payload)
      else
        local why
        local was_compressed = frame.compressed or inflate and frame.opcode == 0
        local plain = payload
        if inflate then
          local inflated
          inflated, why = inflate(bytes)
          plain = inflated or payload
        elseif frame.compressed then
          why = was_long and "not inflated" or "no compression was agreed on"
        end
        if why and was_compressed then
          -- Nobody knows what is within.
          masking = nil
          lane:released(bytes:sub(1, frame.head) .. secret.same(frame.length))
          lane:say(("%s, %s"):format(describe(frame), why))
        else
          local how = frame.compressed and ("inflated to %s"):format(text.size(#plain)) or nil
          if not within and not was_tried then
            within = begin_within(lane, plain, release)
            was_tried = within ~= nil or lane.state.subprotocol ~= nil
          end
          if within then
            -- What runs within knows what of it is secret.
            lane:say(describe(frame, how))
            within.frames[#within.frames + 1] = { frame, #plain }
            within.lane:feed(plain, frame.fin)
            hand_on(release, within)
          else
            local safe = masking and masking:feed(plain, frame.fin) or secret.same(#plain)
            lane:say(("%s %s"):format(describe(frame, how), lane:quote(safe)))
            release(frame, safe)
          end
        end
      end
    end
    if frame.opcode < 8 then
      is_under_way = not frame.fin
      if frame.fin then masking = mask.new() end
    end
  end
end

return websocket
