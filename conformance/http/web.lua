--- Where the servers of the suite are, as the harness tells.

local base64 = require("base64")

local web = { ports = {} }

for name, port in (os.getenv("MOONWIRE_HTTP_PORTS") or ""):gmatch("(%w+_?%w*)=(%d+)") do web.ports[name] = port end

web.folder = os.getenv("MOONWIRE_HTTP_FOLDER") or ""
web.user, web.password = os.getenv("MOONWIRE_HTTP_USER"), os.getenv("MOONWIRE_HTTP_PASSWORD")

---@param name string
---@return string path
function web.certificate(name)
  return ("%s/%s.pem"):format(os.getenv("MOONWIRE_HTTP_CERTIFICATES"), name)
end

---@param name string
---@return string path
function web.key(name)
  return ("%s/%s.key"):format(os.getenv("MOONWIRE_HTTP_CERTIFICATES"), name)
end

---@param server string
---@param path? string
---@return string url
function web.url(server, path)
  return ("http://127.0.0.1:%s%s"):format(web.ports[server], path or "/")
end

---@param server string
---@param path? string
---@return string url
function web.secure_url(server, path)
  return ("https://localhost:%s%s"):format(web.ports[server], path or "/")
end

--- A URL whose answer are these bytes. `how`: `cut=1`, `then=close`, `then=reset`, `then=stall`, `then=keep`.
---@param bytes string
---@param how? string
---@return string url
function web.odd(bytes, how)
  return ("%s?%s"):format(web.url("odd", "/" .. base64.encode(bytes, { url = true })), how or "")
end

---@param path string
---@return string
function web.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

--- How many descriptors this process has. (Not by `io.popen`, whose pipe may be seen with both of its ends.)
---@return integer
function web.descriptors()
  local path = os.tmpname()
  assert(os.execute(("ls /proc/$PPID/fd > %s"):format(path)))
  local _, count = web.read(path):gsub("\n", "")
  os.remove(path)
  return count
end

--- The most memory this process has had, and what it has now, in KiB.
---@return integer peak
---@return integer now
function web.memory()
  local text = web.read("/proc/self/status")
  return tonumber(text:match("VmHWM:%s*(%d+)")), tonumber(text:match("VmRSS:%s*(%d+)"))
end

return web
