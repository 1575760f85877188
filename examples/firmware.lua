-- A device that fetches its firmware over a line that breaks: the download goes on where it broke off, and the file
-- appears under its name only when its checksum is right.
--
--     moonwire examples/firmware.lua [URL sha256:HEX]
--
-- With a URL and a checksum it fetches that. Without, it serves a file to itself, over a line that breaks twice.

local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local http = require("http")

--- Bytes of the firmware, and after how many of them the line breaks.
local SIZE, BREAKS = 3000000, { 1000000, 1200000 }

--- Serves a folder with the firmware in it.
local function serve(folder)
  local block = crypto.sha256("firmware"):rep(1000)
  local firmware = block:rep(SIZE // #block + 1):sub(1, SIZE)
  local file = assert(io.open(folder .. "/firmware.bin", "wb"))
  file:write(firmware)
  file:close()
  local server = http.server.new({ access_log = false })
  server:static("/", folder)
  assert(server:listen("tcp://127.0.0.1:0"))
  return server, "sha256:" .. hex.encode(crypto.sha256(firmware))
end

--- A line to `address` that breaks after so many bytes, and then no more.
local function bad_line(address)
  local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
  local lines = 0
  cosocket.spawn("line", function()
    while true do
      local near = listener:accept()
      if not near then return end
      lines = lines + 1
      local left = BREAKS[lines] or math.huge
      cosocket.spawn(function()
        local far <close> = assert(cosocket.connect("tcp://" .. address))
        local _ <close> = near
        local back = cosocket.spawn(function()
          for request in function() return near:read() end do far:write(request) end
        end)
        while left > 0 do
          local bytes = far:read()
          if not bytes then break end
          bytes = bytes:sub(1, math.min(#bytes, left))
          left = left - #bytes
          if not near:write(bytes) then break end
        end
        near:flush()
        back:cancel()
      end)
    end
  end)
  return listener
end

local url, checksum, server, line = arg[1], arg[2], nil, nil
local folder = os.tmpname()
os.remove(folder)
if not url then
  assert(os.execute("mkdir " .. folder))
  server, checksum = serve(folder)
  line = bad_line(server:address())
  url = ("http://%s/firmware.bin"):format(line:local_address())
end

local target = server and folder .. "/device.bin" or "firmware.bin"
local saved, err = http.save(url, target, { checksum = checksum, retry_delay = 0.01, progress = true })
if saved then
  local how = saved.resumed > 0 and "going on where it broke off" or "in one go"
  print(("%d bytes, %d requests, %s"):format(saved.size, saved.attempts, how))
  print("the checksum is right")
else
  print("no firmware: " .. tostring(err))
end

-- What is not the file that was meant is not kept.
if server then
  local _, wrong = http.save(url, folder .. "/wrong.bin", { checksum = "sha256:" .. ("0"):rep(64) })
  print(wrong and wrong.code, io.open(folder .. "/wrong.bin") == nil)
  line:close()
  server:stop()
  os.execute("rm -r " .. folder)
  cosocket.stop()
elseif err then
  os.exit(1)
end
