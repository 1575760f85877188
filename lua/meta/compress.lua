---@meta compress

--- Content codings (RFC 9110, 8.4.1), piece by piece from one buffer to another.
local compress = {}

---@alias compress.Coding "gzip"|"deflate"|"br"|"zstd"

---@class compress.DecoderOptions
---@field size_max? integer Bytes that may come out in all. Default: no limit.
---@field ratio_max? integer Bytes that may come out for each that went in, counted once more than 1 MiB came out. Default 200.

--- A decoder for one body. `deflate` takes zlib and, as some servers send it, raw deflate. A window is at most 32 KiB
--- (gzip, deflate), 16 MiB (br) or 8 MiB (zstd, RFC 9659); with zstd, what came last is held back until as much as a
--- window follows, or the end.
---@param coding compress.Coding
---@param options? compress.DecoderOptions
---@return compress.Decoder
function compress.decoder(coding, options) end

---@class compress.Decoder
local Decoder = {}
--- Takes from the front of `input` and appends at most `room` bytes to `output`.
---@param input cosocket.Buffer
---@param output cosocket.Buffer
---@param room? integer 1 to 16777216. Default 65536.
---@return boolean? drained `true`: all of `input` is decoded; `false`: there is more, call again with new room.
---@return cosocket.Error? err `protocol`: the data is broken; `limit`: `size_max` or `ratio_max`. From then on always.
function Decoder:decode(input, output, room) end
--- Whether the body may end here.
---@return true? ok
---@return cosocket.Error? err `protocol`: it was cut
function Decoder:finish() end
--- Gives the decoder's memory back, which may be megabytes, without waiting for the collector. The end of a body and an
--- error do it, too.
---@return true
function Decoder:close() end

---@class compress.EncoderOptions
---@field level? integer 0 (none) to 9 (smallest). Default 6.

---@param coding "gzip"
---@param options? compress.EncoderOptions
---@return compress.Encoder
function compress.encoder(coding, options) end

---@class compress.Encoder
local Encoder = {}
--- Encodes `data` onto `output`; what is held back comes with later calls, or now with `flush`.
---@param data string|cosocket.Buffer It keeps its bytes.
---@param output cosocket.Buffer
---@param flush? boolean Default `false`.
---@return true? ok
---@return cosocket.Error? err `io`
function Encoder:encode(data, output, flush) end
--- Appends the end. The encoder is of no use afterwards.
---@param output cosocket.Buffer
---@return true? ok
---@return cosocket.Error? err `io`
function Encoder:finish(output) end

return compress
