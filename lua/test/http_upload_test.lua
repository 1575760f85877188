-- Files that arrive whole although connections break, servers forget and devices restart.
local base64 = require("base64")
local certificate = require("test.certificate")
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local json = require("json")
local peer = require("test.http_peer")
local test = require("test")
local tus = require("http.resumable.tus")
local tus_peer = require("test.tus_peer")

local http = peer.http
local answer = tus_peer.answer

local TEXT = crypto.sha256("log"):rep(9000) .. "the end"
local SUM = "sha256:" .. hex.encode(crypto.sha256(TEXT))

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

local function content(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

--- A file with the text, and something that removes what was left there.
local function source_of(text)
  local path = os.tmpname()
  write(path, text or TEXT)
  return path, setmetatable({}, { __close = function()
    for _, ending in ipairs({ "", ".upload", ".upload.new", ".state" }) do os.remove(path .. ending) end
  end })
end

--- The methods of all requests, such as "POST PATCH".
local function methods(server)
  local all = {}
  for i, request in ipairs(server.requests) do all[i] = request.method end
  return table.concat(all, " ")
end

--- That the server has the text, in its only upload unless another one is named.
local function arrived(server, text, path)
  local upload = server.uploads[path or "/files/1"]
  test.truthy(upload ~= nil and upload.data == (text or TEXT), "the server has something else")
end

local goes = {
  ["a file goes in one request, and leaves nothing behind"] = function()
    local server = tus_peer.serve()
    local path, clean <close> = source_of()
    local uploaded = assert(http.upload(server.url .. "/files", path, { headers = { ["X-Key"] = "k" }, query = { a = "b" } }))
    test.equal({ uploaded.size, uploaded.attempts, uploaded.resumed, uploaded.checksum }, { #TEXT, 2, 0 })
    test.equal({ uploaded.url, uploaded.response.status }, { server.url .. "/files/1", 204 })
    arrived(server)
    test.equal(methods(server), "POST PATCH")
    local post, patch = server.requests[1], server.requests[2]
    test.equal({ post.target, post.headers["Upload-Length"], post.headers["Tus-Resumable"] }, { "/files?a=b", tostring(#TEXT), "1.0.0" })
    local name = path:match("[^/]*$")
    test.equal(post.headers["Upload-Metadata"], ("filename %s,filetype %s"):format(base64.encode(name), base64.encode("application/octet-stream")))
    test.equal({ patch.target, patch.headers["Upload-Offset"], patch.headers["Content-Length"] }, { "/files/1", "0", tostring(#TEXT) })
    test.equal({ patch.headers["Content-Type"], patch.headers["Tus-Resumable"] }, { "application/offset+octet-stream", "1.0.0" })
    test.equal({ post.headers["X-Key"], patch.headers["X-Key"], patch.connection }, { "k", "k", 1 })
    test.equal({ content(path .. ".upload") }, {})
  end,

  ["metadata says what the script says"] = function()
    local server = tus_peer.serve()
    local path, clean <close> = source_of("")
    assert(http.upload(server.url, path, { metadata = { filename = "l\u{f6}g.txt", device = "7", flag = "" } }))
    local said = ("device Nw==,filename %s,filetype YXBwbGljYXRpb24vb2N0ZXQtc3RyZWFt,flag"):format(base64.encode("l\u{f6}g.txt"))
    test.equal(server.requests[1].headers["Upload-Metadata"], said)
    assert(http.upload(server.url, path, { metadata = false }))
    test.equal(server.requests[2].headers["Upload-Metadata"], nil)
  end,

  ["an empty file needs no more than to be made"] = function()
    local server = tus_peer.serve()
    local path, clean <close> = source_of("")
    local uploaded = assert(http.upload(server.url, path, { checksum = "md5" }))
    test.equal({ methods(server), uploaded.size, uploaded.checksum }, { "POST", 0, "md5:d41d8cd98f00b204e9800998ecf8427e" })
    local _, err = http.upload(server.url, path, { checksum = "md5:" .. ("0"):rep(32) })
    test.equal({ err.kind, err.code, #server.requests }, { "protocol", "checksum", 1 })
  end,

  ["what breaks off goes on where the server says"] = function()
    local server = tus_peer.serve({ cut = { 1000, 70000, 1, 100000 } })
    local path, clean <close> = source_of()
    local uploaded = assert(http.upload(server.url, path, { checksum = SUM }))
    arrived(server)
    test.equal(methods(server), "POST PATCH HEAD PATCH HEAD PATCH HEAD PATCH HEAD PATCH")
    test.equal({ uploaded.attempts, uploaded.resumed, uploaded.checksum }, { 10, 171001, SUM })
    local offsets = {}
    for _, request in ipairs(server.requests) do
      if request.method == "PATCH" then offsets[#offsets + 1] = request.headers["Upload-Offset"] end
    end
    test.equal(offsets, { "0", "1000", "71000", "71001", "171001" })
  end,

  ["chunks are as large as the server wants them"] = function()
    local server = tus_peer.serve()
    local path, clean <close> = source_of()
    assert(http.upload(server.url, path, { chunk_size = 100000, checksum = SUM }))
    arrived(server)
    local sizes = {}
    for i = 2, #server.requests do sizes[#sizes + 1] = server.requests[i].headers["Content-Length"] end
    test.equal(sizes, { "100000", "100000", tostring(#TEXT - 200000) })
    -- One that takes less than was sent gets the rest.
    server = tus_peer.serve({ take = function(length) return math.min(length, 77777) end })
    assert(http.upload(server.url, path, { checksum = SUM }))
    arrived(server)
    test.equal(methods(server), "POST" .. (" PATCH"):rep(#TEXT // 77777 + 1))
  end,

  ["answers that come byte by byte are the same answers"] = function()
    local server = tus_peer.serve({ slow = true, cut = { 5 } })
    local path, clean <close> = source_of("0123456789")
    local uploaded = assert(http.upload(server.url, path, { chunk_size = 7 }))
    arrived(server, "0123456789")
    test.equal({ methods(server), uploaded.resumed }, { "POST PATCH HEAD PATCH", 5 })
  end,

  ["an open file goes from its place to its end, and stays open"] = function()
    local server = tus_peer.serve({ cut = { 3 } })
    local path, clean <close> = source_of("0123456789")
    local file <close> = assert(io.open(path, "rb"))
    file:seek("set", 2)
    local uploaded = assert(http.upload(server.url, file, { checksum = "sha1" }))
    arrived(server, "23456789")
    test.equal(uploaded.checksum, "sha1:" .. hex.encode(crypto.sha1("23456789")))
    test.equal({ io.type(file), server.requests[1].headers["Upload-Metadata"], content(path .. ".upload") }, { "file" })
  end,

  ["the first bytes can go with the request that makes the upload"] = function()
    local server = tus_peer.serve()
    local path, clean <close> = source_of("0123456789")
    assert(http.upload(server.url, path, { creation_with_upload = true }))
    arrived(server, "0123456789")
    test.equal({ methods(server), server.requests[1].headers["Content-Type"] }, { "POST", "application/offset+octet-stream" })
    server = tus_peer.serve({ take = function() return 4 end })
    assert(http.upload(server.url, path, { creation_with_upload = true, chunk_size = 6 }))
    test.equal(methods(server), "POST PATCH PATCH")
    arrived(server, "0123456789")
    -- A server that has not heard of that does not say what it has taken.
    server = tus_peer.serve({ ignores_creation_body = true })
    assert(http.upload(server.url, path, { creation_with_upload = true }))
    test.equal(methods(server), "POST HEAD PATCH")
    arrived(server, "0123456789")
  end,

  ["progress is told"] = function()
    local server = tus_peer.serve({ cut = { 1000 } })
    local path, clean <close> = source_of()
    local told = {}
    assert(http.upload(server.url, path, { progress = true, on_progress = function(...) told[#told + 1] = { ... } end }))
    test.equal({ told[1][1] <= #TEXT, told[1][2], told[#told][1] }, { true, #TEXT, #TEXT })
    test.truthy(told[#told][3] > 0)
  end,

  ["whatever a server does to it, a file arrives whole"] = function()
    local path, clean <close> = source_of()
    local random = test.random()
    for _ = 1, 10 do
      local server = tus_peer.serve({
        cut = setmetatable({}, { __index = function() return random() < 0.4 and random(1, #TEXT) or nil end }),
        take = function(length) return random() < 0.3 and random(1, length) or length end,
        answer = function(request)
          if request.method == "OPTIONS" or random() > 0.15 then return nil end
          return random() < 0.5 and "close" or answer(random:pick({ "503 Busy", "423 Locked", "500 Broken" }))
        end,
      })
      local options = { checksum = SUM, attempts = 50, chunk_size = random(20000, #TEXT), retry_delay = 0.1 }
      if random() < 0.5 then options.chunk_checksum = "sha1" end
      if random() < 0.5 then options.creation_with_upload = true end
      local uploaded = assert(http.upload(server.url, path, options))
      arrived(server, TEXT, uploaded.url:sub(#server.url + 1))
    end
  end,
}

local later = {
  ["a later run goes on with what an earlier one left"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ cut = { 50000 } })
    local url = server.url:gsub("http://", "http://user:secret@") .. "/files?token=hidden"
    test.fails("closed", http.upload(url, path, { attempts = 1, auth = nil }))
    local state = content(path .. ".upload")
    test.equal(json.decode(state).upload, server.url .. "/files/1")
    for _, secret in ipairs({ "user", "secret", "token", "hidden" }) do test.falsy(state:find(secret, 1, true), secret) end
    local uploaded = assert(http.upload(url, path, { checksum = "sha256" }))
    arrived(server)
    test.equal({ methods(server), uploaded.resumed, uploaded.checksum }, { "POST PATCH HEAD PATCH", 50000, SUM })
    test.equal(content(path .. ".upload"), nil)
    -- Name and password of the URL are for all of its origin.
    for _, request in ipairs(server.requests) do test.equal(request.headers.Authorization, "Basic " .. base64.encode("user:secret")) end
  end,

  ["what had arrived but for its last answer is not sent again"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ cut = { #TEXT } })
    test.fails("closed", http.upload(server.url, path, { attempts = 1 }))
    local uploaded = assert(http.upload(server.url, path, { checksum = SUM }))
    test.equal({ methods(server), uploaded.resumed, uploaded.checksum }, { "POST PATCH HEAD", #TEXT, SUM })
    -- That it is not what it should be is then seen too late, and only once.
    server = tus_peer.serve({ cut = { #TEXT } })
    test.fails("closed", http.upload(server.url, path, { attempts = 1 }))
    local _, err = http.upload(server.url, path, { checksum = "sha1:" .. ("0"):rep(40) })
    test.equal({ err.code, content(path .. ".upload") }, { "checksum" })
  end,

  ["a state of something else is none"] = function()
    local path, clean <close> = source_of()
    local server
    local function again(before, options)
      server = tus_peer.serve({ cut = { 1000 } })
      test.fails("closed", http.upload(server.url, path, { attempts = 1 }))
      if before then before() end
      assert(http.upload(server.url .. (options and options.more or ""), path, { resume = options and options.resume }))
      return methods(server)
    end
    test.equal(again(), "POST PATCH HEAD PATCH")
    test.equal(again(nil, { more = "/other" }), "POST PATCH POST PATCH")
    test.equal(again(nil, { resume = false }), "POST PATCH POST PATCH")
    test.equal(again(function() write(path, TEXT:sub(1, -2) .. "!") end), "POST PATCH POST PATCH")
    for _, text in ipairs({ "", "{", "[]", '{"upload":1}', ("x"):rep(70000) }) do
      test.equal(again(function() write(path .. ".upload", text) end), "POST PATCH POST PATCH")
    end
  end,

  ["the state can be elsewhere, and has to be writable there"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ cut = { 1000 } })
    local options = { attempts = 1, state = path .. ".state" }
    test.fails("closed", http.upload(server.url, path, options))
    test.equal({ content(path .. ".upload"), content(path .. ".state") ~= nil }, { nil, true })
    local file <close> = assert(io.open(path, "rb"))
    test.equal(assert(http.upload(server.url, file, options)).resumed, 0)
    test.fails("io", http.upload(server.url, path, { state = "/no/such/folder/state" }))
  end,

  ["an upload that has expired is begun anew"] = function()
    local path, clean <close> = source_of()
    for _, status in ipairs({ "404 Not Found", "410 Gone", "403 Forbidden" }) do
      local server = tus_peer.serve({ cut = { 50000 }, answer = function(request)
        if request.target == "/files/1" and request.number > 2 then return answer(status) end
      end })
      test.fails("closed", http.upload(server.url, path, { attempts = 1 }))
      local uploaded = assert(http.upload(server.url, path, { attempts = 1, checksum = SUM }))
      test.equal({ methods(server), uploaded.resumed, uploaded.url }, { "POST PATCH HEAD POST PATCH", 0, server.url .. "/files/2" })
      arrived(server, TEXT, "/files/2")
    end
    -- What the server said of its end need not be asked.
    local server = tus_peer.serve({ cut = { 50000 }, fields = function() return "Upload-Expires: Sun, 06 Nov 1994 08:49:37 GMT\r\n" end })
    test.fails("closed", http.upload(server.url, path, { attempts = 1 }))
    assert(http.upload(server.url, path))
    test.equal(methods(server), "POST PATCH POST PATCH")
  end,

  ["that it lasts longer now is written down"] = function()
    local path, clean <close> = source_of()
    local ends = { "Wed, 01 Jan 2098 00:00:00 GMT", "Wed, 01 Jan 2098 00:30:00 GMT", "Wed, 01 Jan 2098 02:00:00 GMT" }
    local server = tus_peer.serve({ cut = { nil, nil, 5 }, fields = function(request) return ("Upload-Expires: %s\r\n"):format(ends[request.number]) end })
    local seen = {}
    test.fails("closed", http.upload(server.url, path, { attempts = 1, chunk_size = 1000, on_progress = function()
      seen[#seen + 1] = json.decode(content(path .. ".upload")).expires
    end }))
    seen[#seen + 1] = json.decode(content(path .. ".upload")).expires
    test.equal({ seen[1], seen[#seen] - seen[1] }, { 4039372800, 7200 })
  end,

  ["a server that loses every upload is left alone"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ answer = function(request)
      if request.method == "PATCH" then return answer("404 Not Found") end
    end })
    local _, err = http.upload(server.url, path)
    test.equal({ err.kind, err.code, server.counts.POST }, { "refused", 404, 4 })
    _, err = http.upload(server.url, path, { renewals_max = 0, resume = false })
    test.equal({ err.code, server.counts.POST }, { 404, 5 })
  end,

  ["an upload can be given up"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ cut = { 50000 }, answer = function(request)
      if request.method == "DELETE" and request.headers["X-Answer"] then return answer(request.headers["X-Answer"]) end
    end })
    test.equal(http.cancel_upload(server.url, path), false)
    test.fails("closed", http.upload(server.url, path, { attempts = 1 }))
    test.equal(http.cancel_upload(server.url .. "/other", path), false)
    test.fails("refused", http.cancel_upload(server.url, path, { headers = { ["X-Answer"] = "503 Busy" } }))
    local state = content(path .. ".upload")
    -- The source may have gone.
    os.remove(path)
    test.equal(http.cancel_upload(server.url, path), true)
    test.equal({ server.deleted, content(path .. ".upload") }, { { "/files/1" } })
    for said, kind in pairs({ ["410 Gone"] = false, ["405 Not Allowed"] = "refused" }) do
      write(path .. ".upload", state)
      local cancelled, err = http.cancel_upload(server.url, path, { headers = { ["X-Answer"] = said } })
      test.equal({ cancelled, err and err.kind or false, content(path .. ".upload") }, { not kind or nil, kind })
    end
  end,
}

local refusals = {
  ["one gives up after so many attempts that bring nothing"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ cut = { 10 }, answer = function(request) return request.number > 3 and "close" or nil end })
    local started = cosocket.now()
    test.fails("closed", http.upload(server.url, path, { attempts = 3, retry_delay = 2 }))
    test.equal(methods(server), "POST PATCH HEAD PATCH HEAD HEAD")
    test.near(cosocket.now() - started, 2 + 2 + 4, 0.5)
    test.fails("connect", http.upload("http://127.0.0.1:1/", path, { attempts = 2 }))
  end,

  ["a status that passes is tried again when the server says"] = function()
    local path, clean <close> = source_of()
    local statuses = { "503 Busy", "423 Locked", "429 Often" }
    local server = tus_peer.serve({ answer = function(request)
      local status = statuses[request.number - 1]
      if status then return answer(status, "Retry-After: 20\r\n") end
    end })
    local started = cosocket.now()
    assert(http.upload(server.url, path))
    test.equal(methods(server), "POST PATCH HEAD HEAD HEAD PATCH")
    test.near(cosocket.now() - started, 60, 1)
  end,

  ["an offset that the server does not share is asked for again"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ answer = function(request, server)
      -- Another one has sent the first bytes.
      if request.number == 2 then server.uploads["/files/1"].data = TEXT:sub(1, 5) end
    end })
    local uploaded = assert(http.upload(server.url, path))
    test.equal({ methods(server), uploaded.resumed }, { "POST PATCH HEAD PATCH", 5 })
    arrived(server)
    -- So is one that cannot be, or does not move, until that is too often.
    for _, said in ipairs({ "Upload-Offset: 0\r\n", "Upload-Offset: 999999999\r\n", "Upload-Offset: -1\r\n", "Upload-Offset: 9e3\r\n",
      "Upload-Offset: 99999999999999999999999\r\n", "" }) do
      server = tus_peer.serve({ answer = function(request) return request.method == "PATCH" and answer("204 No Content", said) or nil end })
      local _, err = http.upload(server.url, path, { attempts = 2, resume = false })
      test.equal({ err.kind, err.op, methods(server) }, { "protocol", "http.upload", "POST PATCH HEAD PATCH" })
    end
  end,

  ["an upload of another length is not ours"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ cut = { 10 }, answer = function(request, server)
      if request.number == 3 then server.uploads["/files/1"].length = 7 end
    end })
    assert(http.upload(server.url, path))
    test.equal(methods(server), "POST PATCH HEAD POST PATCH")
  end,

  ["too large is said clearly"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ answer = function(request) return request.method == "PATCH" and answer("413 Large") or nil end })
    local _, err = http.upload(server.url, path)
    test.equal({ err.kind, err.code, methods(server) }, { "limit", 413, "POST PATCH" })
    test.matches(err.message, "takes no request of 288007 bytes: set `chunk_size` below that")
    server = tus_peer.serve({ answer = function() return answer("413 Large", "Tus-Max-Size: 1000\r\n") end })
    _, err = http.upload(server.url, path)
    test.equal({ err.kind, err.code }, { "limit", 413 })
    test.matches(err.message, "takes no upload of 288007 bytes, but of 1000 at most")
  end,

  ["what will not get better is not tried again"] = function()
    local path, clean <close> = source_of()
    for status, kind in pairs({ ["401 Who"] = "refused", ["403 No"] = "refused", ["404 None"] = "refused", ["412 Version"] = "protocol" }) do
      local server = tus_peer.serve({ answer = function() return answer(status, "Tus-Version: 0.2.2\r\n") end })
      local _, err = http.upload(server.url, path)
      test.equal({ err.kind, err.code, #server.requests }, { kind, tonumber(status:sub(1, 3)), 1 })
    end
    -- Servers that are none, such as what asks to log in to a wireless network.
    for _, bytes in ipairs({ peer.response("log in"), answer("201 Created"), answer("204 No Content", "Location: /x\r\n"), answer("201 Created", "Location: mailto:x\r\n") }) do
      local server = tus_peer.serve({ answer = function() return bytes end })
      local _, err = http.upload(server.url, path)
      test.equal({ err.kind, #server.requests }, { "protocol", 1 })
    end
    local server = tus_peer.serve({ cut = { 10 }, answer = function(request) return request.number == 3 and peer.response("log in") or nil end })
    test.fails("protocol", http.upload(server.url, path))
    -- It is gone on with when the network is what it was.
    test.equal(assert(http.upload(server.url, path)).resumed, 10)
  end,

  ["a source that changes never becomes whole at the server"] = function()
    -- More than waits on its way.
    local text = TEXT:rep(20)
    local changes = {
      function(path) write(path, text .. "more") end,
      function(path) write(path, text:sub(1, -2)) end,
      function(path) write(path, text) end,
      function(path) os.remove(path) end,
    }
    for _, change in ipairs(changes) do
      for _, chunk_size in ipairs({ 100000, 100000000 }) do
        local path, clean <close> = source_of(text)
        local server, changed
        server = tus_peer.serve({ on_piece = function(upload)
          if #upload.data > 1000 and not changed then
            changed = true
            change(path)
          end
        end })
        local _, err = http.upload(server.url, path, { chunk_size = chunk_size })
        test.equal({ err and err.kind, err and err.code, server.deleted, server.uploads }, { "io", "changed", { "/files/1" }, {} })
        test.equal(content(path .. ".upload"), nil)
      end
    end
    -- Of an open file, its length is watched.
    local path, clean <close> = source_of(text)
    local server = tus_peer.serve({ on_piece = function() write(path, "short") end })
    local file <close> = assert(io.open(path, "rb"))
    local _, err = http.upload(server.url, file)
    test.equal({ err.kind, err.code, server.deleted }, { "io", "changed", { "/files/1" } })
  end,

  ["a wrong checksum never becomes whole at the server"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve()
    local _, err = http.upload(server.url, path, { checksum = "sha256:" .. ("0"):rep(64), chunk_size = 100000 })
    test.equal({ err.kind, err.code, server.deleted, content(path .. ".upload") }, { "protocol", "checksum", { "/files/1" } })
    test.equal(server.counts, { POST = 1, PATCH = 3, DELETE = 1 })
    for _, request in ipairs(server.requests) do
      if request.headers["Upload-Offset"] == "200000" then test.truthy(request.received < #TEXT - 200000) end
    end
  end,

  ["chunks are verified by the server"] = function()
    local path, clean <close> = source_of()
    for _, algorithm in ipairs({ "sha1", "md5", "sha256", "sha512" }) do
      local server = tus_peer.serve()
      assert(http.upload(server.url, path, { chunk_checksum = algorithm, chunk_size = 100000, creation_with_upload = algorithm == "sha1" }))
      arrived(server)
      local last = server.requests[#server.requests]
      test.equal(last.headers["Upload-Checksum"], ("%s %s"):format(algorithm, base64.encode(crypto[algorithm](TEXT:sub(200001)))))
    end
    -- What comes damaged is sent again.
    local server = tus_peer.serve({ answer = function(request)
      if request.number == 3 then return answer("460 Checksum Mismatch") end
    end })
    assert(http.upload(server.url, path, { chunk_checksum = "sha1" }))
    test.equal(methods(server), "OPTIONS POST PATCH HEAD PATCH")
    server = tus_peer.serve({ answer = function(request) return request.method == "PATCH" and answer("460 Checksum Mismatch") or nil end })
    local _, err = http.upload(server.url, path, { chunk_checksum = "sha1", attempts = 3 })
    test.equal({ err.kind, err.code, server.counts.PATCH }, { "refused", 460, 3 })
  end,

  ["who cannot verify chunks gets none"] = function()
    local path, clean <close> = source_of()
    for fields, text in pairs({ ["Tus-Extension: creation\r\n"] = "verifies no checksums", [""] = "verifies no checksums",
      ["Tus-Extension: creation, checksum\r\nTus-Checksum-Algorithm: md5, crc32\r\n"] = "verifies no checksums by sha1, but by: md5, crc32" }) do
      local server = tus_peer.serve({ answer = function() return answer("204 No Content", fields) end })
      local _, err = http.upload(server.url, path, { chunk_checksum = "sha1" })
      test.equal({ err.kind, methods(server) }, { "protocol", "OPTIONS" })
      test.matches(err.message, text)
    end
    local server = tus_peer.serve({ answer = function() return answer("405 No") end })
    test.fails("refused", http.upload(server.url, path, { chunk_checksum = "sha1" }))
  end,

  ["a source that cannot be read is an error"] = function()
    test.fails("io", http.upload("http://h/", "/no/such/file"))
    test.fails("io", http.upload("http://h/", "/tmp"))
    local pipe <close> = assert(io.popen("echo x"))
    test.fails("io", http.upload("http://h/", pipe))
    local path, clean <close> = source_of()
    test.fails("protocol", http.upload("ftp://h/", path))
  end,

  ["it ends with the time it has"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ on_piece = function() cosocket.sleep(1000) end })
    local started = cosocket.now()
    test.fails("timeout", cosocket.deadline(7, http.upload, server.url, path))
    test.near(cosocket.now() - started, 7, 0.1)
    started = cosocket.now()
    test.fails("timeout", http.upload(server.url, path, { timeout = 5, attempts = 1 }))
    test.near(cosocket.now() - started, 5, 0.1)
    started = cosocket.now()
    test.fails("timeout", http.upload(server.url, path, { idle_timeout = 3, attempts = 1, resume = false }))
    test.near(cosocket.now() - started, 3, 0.1)
  end,

  ["wrong options raise"] = function()
    local path, clean <close> = source_of()
    test.raises("did you mean \"chunk_size\"?", function() http.upload("http://h/", path, { chunk_sice = 1 }) end)
    test.raises("chunk_size must be", function() http.upload("http://h/", path, { chunk_size = 0 }) end)
    test.raises("checksum must be", function() http.upload("http://h/", path, { checksum = "sha256:00" }) end)
    test.raises("chunk_checksum must be", function() http.upload("http://h/", path, { chunk_checksum = "crc32" }) end)
    test.raises("metadata must be", function() http.upload("http://h/", path, { metadata = true }) end)
    test.raises("is no name", function() http.upload("http://h/", path, { metadata = { ["a b"] = "x" } }) end)
    test.raises("must be a string, not a number", function() http.upload("http://h/", path, { metadata = { a = 1 } }) end)
    test.raises("`body` cannot be said", function() http.upload("http://h/", path, { body = "x" }) end)
    test.raises("the source must be", function() http.upload("http://h/", nil) end)
    test.raises("the source must be", function() http.upload("http://h/", "") end)
    test.raises("the URL must be", function() http.upload(nil, path) end)
  end,
}

local credentials = {
  ["credentials go to the origin they are for, and to no other"] = function()
    local path, clean <close> = source_of()
    local far = tus_peer.serve()
    local near = peer.serve(function() return answer("201 Created", ("Location: %s/files/1?key=1\r\n"):format(far.url)) end)
    far.uploads["/files/1"] = { length = #TEXT, data = "" }
    local client <close> = http.client({ headers = { Authorization = "Key client", ["X-Device"] = "7" }, cookies = true })
    local uploaded = assert(client:upload(near.url, path, { headers = { Cookie = "a=b", ["X-Run"] = "9" }, query = { q = "1" } }))
    test.equal(uploaded.url, far.url .. "/files/1?key=1")
    test.equal({ near.requests[1].headers.Authorization, near.requests[1].headers.Cookie, near.requests[1].target }, { "Key client", "a=b", "/?q=1" })
    local patch = far.requests[1]
    test.equal({ patch.headers.Authorization, patch.headers.Cookie, patch.headers["X-Device"], patch.headers["X-Run"], patch.target },
      { nil, nil, "7", "9", "/files/1?key=1" })
    far.uploads["/files/1"].data = ""
    assert(http.upload(near.url, path, { auth = { bearer = "t" } }))
    test.equal({ near.requests[2].headers.Authorization, far.requests[2].headers.Authorization }, { "Bearer t" })
  end,

  ["a name and password in a Location are not kept"] = function()
    local path, clean <close> = source_of()
    local server
    server = tus_peer.serve({ cut = { 10 }, location = function(at) return server.url:gsub("//", "//eve:pass@") .. at end })
    test.fails("closed", http.upload(server.url, path, { attempts = 1 }))
    test.falsy(content(path .. ".upload"):find("pass"))
    test.equal(server.requests[2].headers.Authorization, nil)
    assert(http.upload(server.url, path))
    arrived(server)
  end,

  ["what begins encrypted does not go on in the clear"] = function()
    local path, clean <close> = source_of()
    local servers = require("http.server")
    local location = "http://127.0.0.1:1/files/1"
    local server = assert(servers.listen("https://localhost:0", function(_, response)
      response:send({ status = 201, headers = { Location = location }, body = "" })
    end, { tls = { certificate = certificate.localhost, key = certificate.key }, access_log = false }))
    local url = "https://localhost:" .. server:address():match("(%d+)$")
    local options = { tls = { ca = certificate.ca }, attempts = 1 }
    local _, err = http.upload(url, path, options)
    test.equal({ err.kind, content(path .. ".upload") }, { "protocol" })
    test.matches(err.message, "is not encrypted")
    server:stop()
  end,

  ["redirects and challenges send the body again"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ answer = function(request)
      if request.method == "PATCH" and not request.target:find("moved") then
        return answer("307 There", ("Location: %s?moved\r\n"):format(request.target))
      elseif request.method == "PATCH" and not request.headers.Authorization then
        return answer("401 Who", "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\"\r\n")
      end
    end })
    local uploaded = assert(http.upload(server.url, path, { auth = { username = "u", password = "p", scheme = "digest" }, checksum = SUM }))
    arrived(server)
    test.equal({ methods(server), uploaded.checksum }, { "POST PATCH PATCH PATCH", SUM })
  end,
}

local words = {
  ["values of fields are judged as the protocol says"] = function()
    test.equal(tus.metadata({}), nil)
    test.equal(tus.metadata({ b = "x", a = "" }), "a,b eA==")
    test.equal(tus.checksum("sha1", "x"), "sha1 eA==")
    test.equal(tus.append(1 << 40)["Upload-Offset"], "1099511627776")
  end,
}

return { goes = goes, later = later, refusals = refusals, credentials = credentials, words = words }
