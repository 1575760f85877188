--- Media types by the ending of a file's name.

local TYPES = {
  avif = "image/avif",
  bin = "application/octet-stream",
  bmp = "image/bmp",
  css = "text/css",
  csv = "text/csv",
  doc = "application/msword",
  docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
  eml = "message/rfc822",
  gif = "image/gif",
  gz = "application/gzip",
  htm = "text/html",
  html = "text/html",
  ics = "text/calendar",
  jpeg = "image/jpeg",
  jpg = "image/jpeg",
  js = "text/javascript",
  json = "application/json",
  log = "text/plain",
  md = "text/markdown",
  mp3 = "audio/mpeg",
  mp4 = "video/mp4",
  odt = "application/vnd.oasis.opendocument.text",
  ods = "application/vnd.oasis.opendocument.spreadsheet",
  ogg = "audio/ogg",
  pdf = "application/pdf",
  png = "image/png",
  rtf = "application/rtf",
  svg = "image/svg+xml",
  tar = "application/x-tar",
  tif = "image/tiff",
  tiff = "image/tiff",
  txt = "text/plain",
  vcf = "text/vcard",
  wav = "audio/wav",
  webp = "image/webp",
  xls = "application/vnd.ms-excel",
  xlsx = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
  xml = "application/xml",
  yaml = "application/yaml",
  yml = "application/yaml",
  zip = "application/zip",
}

local media_type = {}

--- The type of a file of this name; `application/octet-stream` when its ending says nothing.
---@param name string?
---@return string
function media_type.of(name)
  local ending = name and name:match("%.([%w]+)$")
  return ending and TYPES[ending:lower()] or "application/octet-stream"
end

return media_type
