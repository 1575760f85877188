--- What a server needs to know of TLS before it listens.

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

return listening
