--- Where stacks say what they speak, so that `moonwire --trace` can show it.
---
---     trace.attach(stream, "mqtt", "client")
---
--- is all a stack does when it has opened or accepted a stream; it costs nothing while nothing is traced. What passes is
--- then decoded by `lua/trace/NAME.lua`, a module with
---
--- | | |
--- |---|---|
--- | `follow(lane)` | reads one direction of one connection, in a coroutine of its own, from the beginning to the end (`net.trace.lane`) |
--- | `port` | where a capture says the server is, so that other programs know the protocol; optional |
--- | `carries` | `true` when other protocols may run within |
--- | `alone` | `true` when it never runs within another: for its sake, nothing that `carries` is decoded |
---
--- and nothing is registered anywhere: a file `trace/NAME.lua` beside a script, or in a folder of MOONWIRE_PATH, makes NAME a
--- protocol. WebSocket uses the one that is called like the subprotocol.

local trace = {}

--- Says what is spoken on a stream from now on. Only streams of the system are heard; what runs over WebSocket is shown by
--- the decoder of WebSocket, and datagrams are shown without anybody saying what they are.
---@param stream any
---@param protocol string
---@param side? "client"|"server" Ours. Default: the client's.
---@diagnostic disable-next-line: unused-local
function trace.attach(stream, protocol, side) end

---@class net.TraceOptions
---@field protocols? string What to show: names between commas, or `all`. Default "all".
---@field bytes? integer Bytes of a payload, a body or a dump that are shown. Default 256.
---@field time? "clock"|"elapsed"|"none" What each line begins with. Default "clock".
---@field colour? boolean Default `false`.
---@field file? string Written to: a capture when the name ends in `.pcapng` or `.pcap`, else the text.
---@field write? fun(line: string) Takes each line, without its end, instead of standard error.

--- Starts to trace all connections made from now on.
---@param options? net.TraceOptions
---@return net.Tracer? tracer
---@return cosocket.Error? err `io` when the file cannot be written. Raises for a protocol that nothing decodes.
function trace.start(options)
  local tap = require("cosocket.tap")
  local tracer, err = require("net.trace.tracer").new(options)
  if not tracer then return nil, err end
  tap.listen(function(...) tracer:hear(...) end)
  tap.everything(tracer:wants_everything())
  -- What is heard already is told of whatever follows: a proxy's protocol ends where that of the server begins.
  local heard = setmetatable({}, { __mode = "k" })
  trace.attach = function(stream, protocol, side)
    if type(stream) ~= "userdata" or not (heard[stream] or tracer:wants(protocol)) then return end
    heard[stream] = true
    tap.attach(stream, protocol, side)
  end
  return tracer
end

return trace
