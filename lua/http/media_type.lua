--- Media types of files as they are served: text is UTF-8, and the web has types of its own.

local media_types = require("net.media_type")

local OF_THE_WEB = {
  ico = "image/vnd.microsoft.icon",
  lua = "text/plain",
  map = "application/json",
  mjs = "text/javascript",
  otf = "font/otf",
  pem = "application/x-pem-file",
  ttf = "font/ttf",
  wasm = "application/wasm",
  webm = "video/webm",
  webmanifest = "application/manifest+json",
  woff = "font/woff",
  woff2 = "font/woff2",
  zst = "application/zstd",
}

local media_type = {}

--- The media type of a file; what nobody knows is `application/octet-stream`.
---@param name string
---@return string
function media_type.of(name)
  local found = media_types.of(name, OF_THE_WEB)
  return found:find("^text/") and found .. "; charset=utf-8" or found
end

return media_type
