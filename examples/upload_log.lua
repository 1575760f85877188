-- A device that sends its log to a server that fails in the middle, and is switched off meanwhile: the upload goes on where
-- it was, and what was told as sent is what is there.
--
--     moonwire examples/upload_log.lua [URL FILE]
--
-- With a URL of a tus server and a file it sends that. Without, it sends to a small server in the same process.

local crypto = require("crypto")
local hex = require("hex")
local http = require("http")

-- The server ------------------------------------------------------------------

--- After how many bytes of which request the server fails.
local FAILS = { 400000, 500000 }

--- A server with one upload in memory; of tus 1.0.0 what the device asks for.
local function serve()
  local server = http.server.new({ access_log = false, body_max = 10000000 })
  local upload = { pieces = {}, size = 0, requests = 0 }

  local function answer(response, status, fields)
    fields["Tus-Resumable"] = "1.0.0"
    response:send({ status = status, headers = fields, body = status ~= 204 and "" or nil })
  end

  server:post("/logs", function(request, response)
    upload.length = tonumber(request.headers["Upload-Length"])
    answer(response, 201, { Location = "/logs/1" })
  end)

  server:head("/logs/1", function(_, response)
    answer(response, 200, { ["Upload-Offset"] = tostring(upload.size), ["Upload-Length"] = tostring(upload.length) })
  end)

  server:patch("/logs/1", function(request, response)
    if tonumber(request.headers["Upload-Offset"]) ~= upload.size then return answer(response, 409, {}) end
    upload.requests = upload.requests + 1
    local left = FAILS[upload.requests] or math.huge
    for piece in request:chunks() do
      piece = piece:sub(1, math.min(#piece, left))
      left = left - #piece
      table.insert(upload.pieces, piece)
      upload.size = upload.size + #piece
      if left == 0 then return answer(response, 503, {}) end
    end
    answer(response, 204, { ["Upload-Offset"] = tostring(upload.size) })
  end)

  assert(server:listen("tcp://127.0.0.1:0"))
  return server, upload
end

-- The device ------------------------------------------------------------------

--- Whether a file is there.
local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- Sends a log. What is written to while it is sent would never arrive: so it gets another name first, unless an earlier
--- one still waits.
local function send(url, log, attempts)
  local closed = log .. ".1"
  if not exists(closed) then assert(os.rename(log, closed)) end
  local sent, err = http.upload(url, closed, {
    attempts = attempts,
    retry_delay = 0.01,
    checksum = "sha256",
    metadata = { filename = "device-7.log", filetype = "text/plain" },
    progress = true,
  })
  if sent then os.remove(closed) end
  return sent, err
end

local url, log = arg[1], arg[2]
if url and log then
  print(assert(send(url, log)).checksum)
  return
end

local server, upload = serve()
url = ("http://%s/logs"):format(server:address())
log = os.tmpname()
local file = assert(io.open(log, "wb"))
for i = 1, 40000 do file:write(("%06d temperature 21.5 C, all is well\n"):format(i)) end
print(("the log has %d bytes"):format(file:seek()))
file:close()

-- The server fails, and before it is back the device is switched off.
local _, err = send(url, log, 1)
print(("day 1: the server fails (%s)"):format(err and err.code))
print(("the server has %d bytes"):format(upload.size))

-- It finds the upload again by `LOG.1.upload`, a small file; and goes on when the server fails once more.
local sent = assert(send(url, log))
print(("day 2: %d bytes had not to be sent again"):format(sent.resumed))
print(("the server has %d bytes"):format(upload.size))
local there = "sha256:" .. hex.encode(crypto.sha256(table.concat(upload.pieces)))
print(there == sent.checksum and "the checksum is right" or "the checksum is wrong")
print(not exists(log .. ".1") and "the device has room again" or "the log is still there")

server:stop()
