---@meta websocket.codec

--- The codec of WebSocket (RFC 6455) with permessage-deflate (RFC 7692), native. It knows no socket and no clock.
---
--- A connection without a message under way needs no memory here: what outlasts a call is answered, to be handed to
--- the next call, and is `nil` when there is nothing to remember.
local codec = {}

---@alias websocket.Role "client"|"server"
---@alias websocket.Kind "text"|"binary"

--- How one direction is compressed (RFC 7692, 7.1).
---@class websocket.Compression
---@field window_bits? integer 9 to 15. Default 15.
---@field takeover? boolean Whether a message may refer to those before it. Default `true`.

---@class websocket.RulesOptions
---@field role websocket.Role Our side.
---@field frame_max? integer Longest payload of a frame that is taken. Default: `message_max`.
---@field message_max? integer Longest message that is taken, decompressed. Default 16777216.
---@field inflate? websocket.Compression How the other side may compress. Default: not at all.
---@field deflate? websocket.Compression How we compress. Default: not at all.
---@field level? integer 1 to 9. Default 6.
---@field threshold? integer Shorter messages are not compressed. Default 64.

--- What both sides agreed on, and our limits; connections may share it.
---@class websocket.Rules
local Rules = {}

--- A message on its way in, or what the next one refers to.
---@class websocket.Reading
local Reading = {}

--- A message on its way out, or what the next one refers to.
---@class websocket.Writing
local Writing = {}

--- Raises when a field is wrong.
---@param options websocket.RulesOptions
---@return websocket.Rules
function codec.rules(options) end

--- Takes frames off the front of `buffer` until a message is whole or a control frame has come. What breaks the
--- protocol is refused with the first byte that tells, text that is not UTF-8 included.
---@param buffer cosocket.Buffer
---@param rules websocket.Rules
---@param reading? websocket.Reading What the last call answered.
---@param pieces? boolean Hand data over as it comes, without a limit on its length. No piece cuts a character of a text.
---@return string? payload `nil` without an error: more has to come. Of a Close frame: its reason.
---@return websocket.Kind|"ping"|"pong"|"close"|cosocket.Error|nil kind Or why what came is refused: `protocol` or `limit`; `code` is the status code that says it to the other side.
---@return websocket.Reading? reading For the next call.
---@return integer|boolean|nil extra The code of a Close frame, if it has one. Whether a piece is the last of its message.
function codec.decode(buffer, rules, reading, pieces) end

--- Appends a message, or a Ping or Pong of at most 125 bytes.
---@param buffer cosocket.Buffer
---@param rules websocket.Rules
---@param kind websocket.Kind|"ping"|"pong"
---@param payload string
---@param writing? websocket.Writing What the last call answered.
---@return true? ok
---@return websocket.Writing|cosocket.Error|nil writing For the next call. Or the caller's mistake: a text that is not UTF-8.
function codec.encode(buffer, rules, kind, payload, writing) end

--- Appends part of a message. Until the last part no other message can be encoded; a Ping or Pong can.
---@param buffer cosocket.Buffer
---@param rules websocket.Rules
---@param kind websocket.Kind? With the first part only.
---@param payload string
---@param last boolean
---@param writing? websocket.Writing
---@return true? ok
---@return websocket.Writing|cosocket.Error|nil writing
function codec.encode_piece(buffer, rules, kind, payload, last, writing) end

--- Appends a Close frame. Raises for a code that may not be sent (7.4.1), a reason without a code, one of more than
--- 123 bytes or one that is not UTF-8.
---@param buffer cosocket.Buffer
---@param rules websocket.Rules
---@param code? integer
---@param reason? string
---@return true
function codec.encode_close(buffer, rules, code, reason) end

--- Whether a Close frame may carry this code (7.4).
---@param code integer
---@return boolean
function codec.valid_code(code) end
--- Gives back what half a message holds, megabytes perhaps, without waiting for the collector.
---@param reading? websocket.Reading
---@param writing? websocket.Writing
---@return true
function codec.drop(reading, writing) end

--- A new `Sec-WebSocket-Key` (4.1).
---@return string
function codec.generate_key() end

--- The `Sec-WebSocket-Accept` that answers a key (4.2.2).
---@param key string
---@return string
function codec.accept_key(key) end

return codec
