-- Files that arrive whole although connections break, servers forget and devices restart.
local base64 = require("base64")
local crypto = require("crypto")
local hex = require("hex")
local json = require("json")
local peer = require("test.http_peer")
local test = require("test")
local tus = require("http.resumable.tus")
local tus_peer = require("test.tus_peer")

local http = peer.http
local answer, source_of, content, write = tus_peer.answer, tus_peer.source_of, tus_peer.content, tus_peer.write
local methods, arrived = tus_peer.methods, tus_peer.arrived

local TEXT = tus_peer.TEXT
local SUM = "sha256:" .. hex.encode(crypto.sha256(TEXT))

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
    test.equal(test.fails("io", http.upload(server.url, path, { state = "/no/such/folder/state" })).code, "ENOENT")
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

  ["an upload that somebody else has made is gone on with, and never made anew"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ cut = { nil, 70000 } })
    server.uploads["/made/7"] = { length = #TEXT, data = TEXT:sub(1, 10) }
    local url = server.url:gsub("//", "//user:secret@") .. "/made/7?key=1"
    local uploaded = assert(http.upload(url, path, { created = true, chunk_size = 100000, checksum = SUM }))
    arrived(server, TEXT, "/made/7")
    test.equal({ methods(server), uploaded.url }, { "HEAD PATCH PATCH HEAD PATCH PATCH", server.url .. "/made/7?key=1" })
    test.equal({ server.requests[2].target, server.requests[2].headers.Authorization }, { "/made/7?key=1", "Basic " .. base64.encode("user:secret") })
    test.equal(content(path .. ".upload"), nil)
    test.equal(http.cancel_upload(url, path, { created = true }), true)
    test.equal(server.deleted, { "/made/7" })
    local _, err = http.upload(url, path, { created = true })
    test.equal({ err.kind, err.code, server.counts.POST }, { "refused", 404 })
    test.raises("`metadata` cannot be said", function() http.upload(url, path, { created = true, metadata = {} }) end)
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

local words = {
  ["values of fields are judged as the protocol says"] = function()
    test.equal(tus.metadata({}), nil)
    test.equal(tus.metadata({ b = "x", a = "" }), "a,b eA==")
    test.equal(tus.checksum("sha1", "x"), "sha1 eA==")
    test.equal(tus.append(1 << 40)["Upload-Offset"], "1099511627776")
  end,
}

return { goes = goes, later = later, words = words }
