-- A device that watches a temperature and mails an alarm with a picture of the last readings, drawn on the device.
--
--     moonwire examples/alarm_mail.lua
--
-- SMTP_URL   the mail server: smtp://user:password@host, smtps://..., with TLS as it should be. Without it a small one
--            is started in this process, and what it was sent is shown.
-- SMTP_TO    who is alarmed. Default: service@example.org

local base64 = require("base64")
local cosocket = require("cosocket")
local sink = require("smtp.sink")
local smtp = require("smtp")

local LIMIT = 80.0
local TO = os.getenv("SMTP_TO") or "service@example.org"

-- The picture -----------------------------------------------------------------

local WIDTH, HEIGHT = 320, 120
local WHITE, GREY, BLUE, RED = 0, 1, 2, 3
local PALETTE = "\xff\xff\xff\xc0\xc0\xc0\x20\x50\xa0\xd0\x20\x20"

--- The check of a PNG's chunks (ISO 3309).
local crc_table = {}
for byte = 0, 255 do
  local crc = byte
  for _ = 1, 8 do crc = crc & 1 == 1 and 0xedb88320 ~ crc >> 1 or crc >> 1 end
  crc_table[byte] = crc
end

local function crc32(bytes)
  local crc = 0xffffffff
  for i = 1, #bytes do crc = crc_table[(crc ~ bytes:byte(i)) & 0xff] ~ crc >> 8 end
  return crc ~ 0xffffffff
end

local function adler32(bytes)
  local a, b = 1, 0
  for i = 1, #bytes do
    a = (a + bytes:byte(i)) % 65521
    b = (b + a) % 65521
  end
  return b << 16 | a
end

--- A PNG of rows of colours, four pixels in a byte, not compressed.
local function png(rows)
  local function chunk(kind, data)
    return string.pack(">I4", #data) .. kind .. data .. string.pack(">I4", crc32(kind .. data))
  end
  local lines = {}
  for y, row in ipairs(rows) do
    local line = { "\0" }
    for x = 1, WIDTH, 4 do
      line[#line + 1] = string.char(row[x] << 6 | row[x + 1] << 4 | row[x + 2] << 2 | row[x + 3])
    end
    lines[y] = table.concat(line)
  end
  local raw = table.concat(lines)
  local stored = "\x78\x01\x01" .. string.pack("<I2I2", #raw, #raw ~ 0xffff) .. raw .. string.pack(">I4", adler32(raw))
  return "\x89PNG\r\n\26\n"
    .. chunk("IHDR", string.pack(">I4I4BBBBB", WIDTH, HEIGHT, 2, 3, 0, 0, 0))
    .. chunk("PLTE", PALETTE) .. chunk("IDAT", stored) .. chunk("IEND", "")
end

--- A plot of readings, with a line at the limit.
local function plot(readings)
  local least, most = math.huge, LIMIT
  for _, value in ipairs(readings) do least, most = math.min(least, value), math.max(most, value) end
  local function row_of(value) return HEIGHT - 4 - math.floor((value - least) / (most - least) * (HEIGHT - 9)) end
  local rows = {}
  for y = 1, HEIGHT do
    local row = {}
    for x = 1, WIDTH do row[x] = (x % 32 == 0 or y % 24 == 0) and GREY or WHITE end
    rows[y] = row
  end
  for x = 1, WIDTH do rows[row_of(LIMIT)][x] = RED end
  local before
  for x = 1, WIDTH do
    local y = row_of(readings[(x - 1) * #readings // WIDTH + 1])
    for at = math.min(y, before or y), math.max(y, before or y) do rows[at][x] = BLUE end
    rows[y + 1][x] = BLUE
    before = y
  end
  return png(rows)
end

-- The alarm -------------------------------------------------------------------

--- Readings of a pump that runs hot.
local readings = {}
for i = 1, 80 do readings[i] = 60 + 5 * math.sin(i / 6) + math.max(0, i - 60) end
local last = readings[#readings]
print(("pump 7 is at %.1f °C, and %.1f °C is the limit"):format(last, LIMIT))

local url, options, server = os.getenv("SMTP_URL"), nil, nil
if not url then
  server = assert(sink.listen("tcp://127.0.0.1:0"))
  url, options = "smtp://" .. server:address(), { starttls = "off" }
  print("SMTP_URL is not set: using a development server in this process")
end

local picture = plot(readings)
local result, err = cosocket.deadline(30, smtp.send, url, {
  from = "Hall 3 <hall3@example.org>",
  to = TO,
  subject = ("Alarm: pump 7 at %.1f °C"):format(last),
  priority = "high",
  text = ("Pump 7 is at %.1f °C. The limit is %.1f °C.\n"):format(last, LIMIT),
  html = ('<p>Pump 7 is at <b>%.1f °C</b>. The limit is %.1f °C.</p><p><img src="cid:plot"></p>\n'):format(last, LIMIT),
  inline = { { cid = "plot", content = picture, name = "plot.png" } },
}, options)
if not result then
  io.stderr:write("alarm_mail: ", tostring(err), "\n")
  os.exit(1)
end
print(("sent to %s: %d %s"):format(table.concat(result.accepted, ", "), result.code, result.text))

if server then
  local data = server.messages[1].data
  local encoded = data:match("\nContent%-ID: <plot>.-\r\n\r\n(.-)\r\n%-%-"):gsub("%s", "")
  local arrived = assert(base64.decode(encoded))
  print(("picture: %d bytes of PNG, %s"):format(#arrived, arrived == picture and "as it was drawn" or "damaged"))
end
os.exit(0)
