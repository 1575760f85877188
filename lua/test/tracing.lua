-- Support for tests of what `moonwire --trace` shows: a tracer that is told what passed, and what it made of that.
local tracer = require("net.trace.tracer")

local tracing = {}

--- Tells a tracer of one connection.
---@param protocol string
---@param side "client"|"server"
---@param script {[1]: ">"|"<", [2]: string}[] What is sent and received.
---@param options? net.TraceOptions|{cut: integer?, open: boolean?} `cut`: bytes that come at once. `open`: the connection is not closed.
---@return string[] lines Without the first, which says where it goes, and the last, which says that it is closed.
---@return {sent: string, received: string} captured
function tracing.hear(protocol, side, script, options)
  options = options or {}
  local lines, captured = {}, { sent = "", received = "" }
  local one = assert(tracer.new({
    protocols = options.protocols,
    bytes = options.bytes,
    time = "none",
    write = function(line) lines[#lines + 1] = line end,
  }))
  one.capture = {
    bytes = function(_, _, direction, bytes) captured[direction] = captured[direction] .. bytes end,
    part = function() end,
    close = function() end,
    flush = function() end,
  }
  one:hear(1, "opened", "127.0.0.1:50000", "127.0.0.1:1000")
  one:hear(1, "spoken", protocol, side)
  for _, step in ipairs(script) do
    local cut = options.cut or #step[2]
    for at = 1, #step[2], math.max(cut, 1) do
      one:hear(1, step[1] == ">" and "sent" or "received", step[2]:sub(at, at + cut - 1))
    end
  end
  if not options.open then one:hear(1, "closed") end
  one:hear(0, "played")
  if lines[#lines] == "#1 * closed" then lines[#lines] = nil end
  if lines[1] and lines[1]:find("^#1 %* ") then table.remove(lines, 1) end
  return lines, captured
end

--- The bytes of one direction of a script.
---@param script {[1]: string, [2]: string}[]
---@param mark ">"|"<"
---@return string
function tracing.bytes(script, mark)
  local parts = {}
  for _, step in ipairs(script) do
    if step[1] == mark then parts[#parts + 1] = step[2] end
  end
  return table.concat(parts)
end

return tracing
