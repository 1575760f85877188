-- Uploads that go on where they broke off, to the reference server of tus and to one that verifies checksums.
-- trace: none
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local http = require("http")
local json = require("json")
local proxy = require("conformance.faults.proxy")
local test = require("test")
local web = require("web")

local MIB <const> = 1 << 20
--- The most memory that an upload of any size may take, in KiB.
local PEAK_MAX = 40 * 1024

--- A source of so many MiB, what its checksum is, and something that removes it and what else lies beside it.
---@param mib integer
---@return string path
---@return string checksum
---@return table clean
local function source_of(mib)
  local path = web.folder .. "/state/source"
  local digest = crypto.new_digest("sha256")
  local file = assert(io.open(path, "wb"))
  for i = 1, mib do
    local block = crypto.sha256(("%d %d"):format(mib, i)):rep(MIB // 32)
    digest:update(block)
    file:write(block)
  end
  file:close()
  local clean = setmetatable({}, { __close = function()
    for _, ending in ipairs({ "", ".upload" }) do os.remove(path .. ending) end
  end })
  return path, "sha256:" .. hex.encode(digest:finish()), clean
end

--- The file that the reference server has made of an upload.
---@param url string
---@return string path
local function stored(url)
  return ("%s/state/%s"):format(web.folder, url:match("//[^/]*/(.*)$"))
end

--- That the server has what was sent, byte for byte.
---@param path string
---@param url string
local function arrived(path, url)
  test.truthy(os.execute(("cmp -s '%s' '%s'"):format(path, stored(url))), "the server has something else")
  os.remove(stored(url))
end

---@param path string
---@return boolean
local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- A way to a server whose first connection is reset after so many bytes.
---@param server string
---@param after integer
---@return faults.Proxy
local function breaking(server, after)
  return proxy.start(web.url(server, ""), { connection = function(number)
    return { up = number == 1 and { after = after, fault = "reset" } or nil }
  end })
end

--- A way to a server on which the first `times` connections damage the byte behind the first `after`.
---@param server string
---@param after integer
---@param times number
---@return string url
local function damaging(server, after, times)
  local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
  local target, connections = ("tcp://127.0.0.1:%s"):format(web.ports[server]), 0
  cosocket.spawn("damage", function()
    while true do
      local near = listener:accept()
      if not near then return end
      connections = connections + 1
      local left = connections <= times and after or math.huge
      cosocket.spawn(function()
        local _ <close> = near
        local far <close> = assert(cosocket.connect(target))
        local back = cosocket.spawn(function()
          for bytes in function() return far:read() end do near:write(bytes) end
          near:close()
        end)
        for bytes in function() return near:read() end do
          if left < #bytes then
            bytes = bytes:sub(1, left) .. string.char(bytes:byte(left + 1) ~ 1) .. bytes:sub(left + 2)
            left = math.huge
          end
          left = left - #bytes
          if not far:write(bytes) then break end
        end
        back:cancel()
      end)
    end
  end)
  return "http://" .. listener:local_address()
end

--- A device that is killed once it has sent so many bytes.
local DEVICE = [[
local http = require("http")
local url, path, dies = arg[1], arg[2], tonumber(arg[3])
http.upload(url, path, { on_progress = function(done)
  -- The shell's parent is this program.
  if done >= dies then os.execute("kill -9 $PPID") end
end })
]]

return {
  ["[tus 1.0.0] 1 GiB goes whole to a server that is killed twice"] = function()
    local path, checksum, clean <close> = source_of(1024)
    local uploaded = assert(http.upload(web.url("tus", "/dying"), path, { checksum = checksum, retry_delay = 0.2, attempts = 20 }))
    test.equal({ uploaded.size, uploaded.checksum }, { 1024 * MIB, checksum })
    test.truthy(uploaded.resumed >= 600 * MIB, ("%d requests, %d resumed"):format(uploaded.attempts, uploaded.resumed))
    arrived(path, uploaded.url)
    local peak = web.memory()
    test.truthy(peak < PEAK_MAX, ("a peak of %d KiB"):format(peak))
  end,

  ["[tus 1.0.0] a device that is killed in the middle goes on when it starts again"] = function()
    local path, checksum, clean <close> = source_of(256)
    local script = web.folder .. "/state/device.lua"
    local file = assert(io.open(script, "wb"))
    file:write(DEVICE)
    file:close()
    local url = web.url("tus", "/files")
    test.falsy(os.execute(("\"$(readlink /proc/$PPID/exe)\" %s %s %s %d"):format(script, url, path, 100 * MIB)))
    local uploaded = assert(http.upload(url, path, { checksum = checksum }))
    test.truthy(uploaded.resumed >= 50 * MIB and uploaded.resumed < 256 * MIB, ("%d resumed"):format(uploaded.resumed))
    arrived(path, uploaded.url)
    test.falsy(exists(path .. ".upload"))
  end,

  ["[tus 1.0.0, Expiration] an upload that has expired is begun anew"] = function()
    local path, checksum, clean <close> = source_of(4)
    for _, knows in ipairs({ true, false }) do
      local way = breaking("tus", 2 * MIB)
      local url = way.url .. "/expiring"
      test.fails("closed", http.upload(url, path, { attempts = 1 }))
      local file = assert(io.open(path .. ".upload", "rb"))
      local state = json.decode(file:read("a"))
      file:close()
      -- The date has no fractions of a second.
      while os.time() <= state.expires do cosocket.sleep(0.1) end
      if not knows then
        -- As on a device whose clock is wrong: it has to be told by the server.
        state.expires = nil
        file = assert(io.open(path .. ".upload", "wb"))
        file:write(json.encode(state))
        file:close()
      end
      local uploaded = assert(http.upload(url, path, { checksum = checksum }))
      test.equal({ uploaded.resumed, uploaded.attempts, uploaded.url ~= state.upload }, { 0, knows and 2 or 3, true })
      arrived(path, uploaded.url)
    end
  end,

  ["[tus 1.0.0, Creation] file name and type arrive"] = function()
    local path, _, clean <close> = source_of(1)
    local uploaded = assert(http.upload(web.url("tus", "/files"), path, { metadata = { filename = "gr\u{fc}n.txt", device = "7" } }))
    local about = json.decode(web.read(stored(uploaded.url) .. ".json"))
    test.equal(about.metadata, { filename = "gr\u{fc}n.txt", filetype = "application/octet-stream", device = "7" })
    arrived(path, uploaded.url)
  end,

  ["[tus 1.0.0, Creation With Upload] a small file goes in one request"] = function()
    local path, checksum, clean <close> = source_of(1)
    for _, server in ipairs({ "tus", "checked" }) do
      local uploaded = assert(http.upload(web.url(server, "/files"), path, { creation_with_upload = true, checksum = checksum }))
      test.equal({ uploaded.attempts, uploaded.response.status }, { 1, 201 })
      if server == "tus" then arrived(path, uploaded.url) end
    end
  end,

  ["[tus 1.0.0, Core Protocol] an upload that somebody else has made is gone on with"] = function()
    local path, checksum, clean <close> = source_of(4)
    local headers = { ["Tus-Resumable"] = "1.0.0", ["Upload-Length"] = tostring(4 * MIB) }
    local made = assert(http.post(web.url("tus", "/files"), { headers = headers }))
    local uploaded = assert(http.upload(made.headers.Location, path, { created = true, checksum = checksum }))
    test.equal({ uploaded.url, uploaded.attempts }, { made.headers.Location, 2 })
    arrived(path, uploaded.url)
  end,

  ["[tus 1.0.0, Creation] a file that is too large is refused before it is sent"] = function()
    local path, _, clean <close> = source_of(1)
    local _, err = http.upload(web.url("tus", "/small"), path)
    test.equal({ err.kind, err.code }, { "limit", 413 })
  end,

  ["[tus 1.0.0] a chunk that is too large says which option to set"] = function()
    local path, checksum, clean <close> = source_of(4)
    local _, err = http.upload(web.url("checked", "/files"), path)
    test.equal({ err.kind, err.code }, { "limit", 413 })
    test.matches(err.message, "chunk_size")
    local uploaded = assert(http.upload(web.url("checked", "/files"), path, { chunk_size = MIB, checksum = checksum }))
    -- It goes on with what the first attempt has made.
    test.equal(uploaded.attempts, 1 + 4)
    test.equal(assert(http.get(uploaded.url)).body == web.read(path), true)
  end,

  ["[tus 1.0.0, Checksum] 460: what comes damaged is sent again, until that is too often"] = function()
    local path, checksum, clean <close> = source_of(4)
    local options = { chunk_checksum = "sha256", chunk_size = MIB, checksum = checksum, retry_delay = 0.1, attempts = 3 }
    local uploaded = assert(http.upload(damaging("checked", 2 * MIB, 1) .. "/files", path, options))
    test.truthy(uploaded.attempts >= 8, ("%d requests"):format(uploaded.attempts))
    test.equal(assert(http.get(web.url("checked", uploaded.url:match("//[^/]*(.*)$")))).body == web.read(path), true)
    -- With the wrong checksum for good, as if every way were damaged.
    local _, err = http.upload(web.url("checked", "/files"), path, {
      chunk_size = MIB,
      headers = { ["Upload-Checksum"] = "sha1 " .. ("A"):rep(27) .. "=" },
      attempts = 2,
      retry_delay = 0.1,
    })
    test.equal({ err.kind, err.code }, { "refused", 460 })
  end,

  ["[tus 1.0.0, Checksum] a server that does not verify is not trusted to"] = function()
    local path, _, clean <close> = source_of(1)
    local _, err = http.upload(web.url("tus", "/files"), path, { chunk_checksum = "sha1" })
    test.equal(err.kind, "protocol")
    test.matches(err.message, "verifies no checksums")
    _, err = http.upload(web.url("checked", "/files"), path, { chunk_checksum = "md5" })
    test.matches(err.message, "by md5, but by: sha1")
  end,

  ["[tus 1.0.0, Termination] what is given up is gone at the server"] = function()
    local path, _, clean <close> = source_of(4)
    for _, server in ipairs({ "tus", "checked" }) do
      local url = breaking(server, server == "tus" and 2 * MIB or 2 * MIB + 5000).url .. "/files"
      local options = { attempts = 1, chunk_size = MIB }
      test.falsy((http.upload(url, path, options)))
      local state = json.decode(web.read(path .. ".upload"))
      test.equal(assert(http.head(state.upload, { headers = { ["Tus-Resumable"] = "1.0.0" } })).status, 200)
      test.equal(http.cancel_upload(url, path), true)
      test.equal(assert(http.head(state.upload, { headers = { ["Tus-Resumable"] = "1.0.0" } })).status, 404)
      test.equal(http.cancel_upload(url, path), false)
    end
  end,

  ["a source that changes while it is sent never becomes whole, and is gone at the server"] = function()
    local path, _, clean <close> = source_of(64)
    local state
    local _, err = http.upload(web.url("tus", "/files"), path, { on_progress = function(done)
      if state or done < 10 * MIB then return end
      state = json.decode(web.read(path .. ".upload"))
      local file = assert(io.open(path, "ab"))
      file:write("more")
      file:close()
    end })
    test.equal({ err.kind, err.code }, { "io", "changed" })
    test.equal({ exists(path .. ".upload"), exists(stored(state.upload)) }, { false, false })
  end,
}
