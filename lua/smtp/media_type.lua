--- Media types of files as they are attached: offices and calendars have types of their own.

local media_types = require("net.media_type")

local OF_MAIL = {
  doc = "application/msword",
  docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
  eml = "message/rfc822",
  ics = "text/calendar",
  log = "text/plain",
  odt = "application/vnd.oasis.opendocument.text",
  ods = "application/vnd.oasis.opendocument.spreadsheet",
  rtf = "application/rtf",
  tif = "image/tiff",
  tiff = "image/tiff",
  vcf = "text/vcard",
  xls = "application/vnd.ms-excel",
  xlsx = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}

local media_type = {}

--- The type of a file of this name; `application/octet-stream` when its ending says nothing.
---@param name string?
---@return string
function media_type.of(name)
  return media_types.of(name, OF_MAIL)
end

return media_type
