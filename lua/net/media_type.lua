--- Media types of files, by the ending of their names: those that every stack knows.

local TYPES = {
  avif = "image/avif",
  bin = "application/octet-stream",
  bmp = "image/bmp",
  css = "text/css",
  csv = "text/csv",
  gif = "image/gif",
  gz = "application/gzip",
  htm = "text/html",
  html = "text/html",
  jpeg = "image/jpeg",
  jpg = "image/jpeg",
  js = "text/javascript",
  json = "application/json",
  md = "text/markdown",
  mp3 = "audio/mpeg",
  mp4 = "video/mp4",
  ogg = "audio/ogg",
  pdf = "application/pdf",
  png = "image/png",
  svg = "image/svg+xml",
  tar = "application/x-tar",
  txt = "text/plain",
  wav = "audio/wav",
  webp = "image/webp",
  xml = "application/xml",
  yaml = "application/yaml",
  yml = "application/yaml",
  zip = "application/zip",
}

local media_type = {}

--- The media type of a file of this name; `application/octet-stream` when its ending says nothing.
---@param name string?
---@param more? table<string, string> What a stack knows besides, by the ending in lower case.
---@return string
function media_type.of(name, more)
  local ending = name and name:match("%.([%w]+)$")
  if not ending then return "application/octet-stream" end
  ending = ending:lower()
  return TYPES[ending] or more and more[ending] or "application/octet-stream"
end

return media_type
