--- What is wrong with a server's options can be said before it listens, at the line of its caller.

local listening = {}

--- Raises for an address of TLS without options of it.
---@param op string
---@param address any
---@param tls cosocket.TlsServerOptions?
---@param level integer As of `error`, from the caller.
function listening.check(op, address, tls, level)
  local scheme = type(address) == "string" and address:match("^(%a+)://")
  scheme = scheme and scheme:lower()
  if not tls and (scheme == "tls" or scheme == "wss" or scheme == "https") then
    error(("%s: a %s:// address needs tls = {certificate = ..., key = ...}"):format(op, scheme), level + 1)
  end
end

--- Raises for options of TCP keep-alive where it is off.
---@param op string
---@param options {keepalive: boolean|number|nil, keepalive_interval: number?, keepalive_count: integer?}
---@param level integer As of `error`, from the caller.
function listening.check_keepalive(op, options, level)
  for _, name in ipairs({ "keepalive_interval", "keepalive_count" }) do
    if options[name] and not options.keepalive then
      error(("%s: %s says nothing without keepalive"):format(op, name), level + 1)
    end
  end
end

return listening
