-- What ends an upload, what it waits for, and who gets to know its secrets.
local base64 = require("base64")
local certificate = require("test.certificate")
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local peer = require("test.http_peer")
local test = require("test")
local tus_peer = require("test.tus_peer")

local http = peer.http
local answer, source_of, content, write = tus_peer.answer, tus_peer.source_of, tus_peer.content, tus_peer.write
local methods, arrived = tus_peer.methods, tus_peer.arrived

local TEXT = tus_peer.TEXT
local SUM = "sha256:" .. hex.encode(crypto.sha256(TEXT))

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

  ["a server that asks to wait for days is not waited for"] = function()
    local path, clean <close> = source_of()
    local server = tus_peer.serve({ answer = function() return answer("503 Busy", "Retry-After: 3601\r\n") end })
    local started = cosocket.now()
    local _, err = http.upload(server.url, path)
    test.equal({ err.kind, err.code, #server.requests }, { "refused", 503, 1 })
    test.near(cosocket.now() - started, 0, 0.5)
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
    test.equal(test.fails("io", http.upload("http://h/", "/no/such/file")).code, "ENOENT")
    test.equal(test.fails("io", http.upload("http://h/", "/tmp")).code, "EISDIR")
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

return { refusals = refusals, credentials = credentials }
