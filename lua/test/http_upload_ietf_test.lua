-- Uploads by the draft of Resumable Uploads for HTTP.
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local ietf = require("http.resumable.ietf")
local json = require("json")
local peer = require("test.http_peer")
local test = require("test")
local tus_peer = require("test.tus_peer")

local http = peer.http
local source_of, content, methods = tus_peer.source_of, tus_peer.content, tus_peer.methods

local TEXT = tus_peer.TEXT
local SUM = "sha256:" .. hex.encode(crypto.sha256(TEXT))

---@param status string
---@param fields? string
---@param text? string
---@return string
local function answer(status, fields, text)
  local length = status:find("^204") and "" or ("Content-Length: %d\r\n"):format(#(text or ""))
  return ("HTTP/1.1 %s\r\n%s%s\r\n%s"):format(status, fields or "", length, text or "")
end

--- A server with one upload. `options`: `cut[i]`, bytes after which the i-th PATCH ends its connection; `limit`, its
--- Upload-Limit; `answer(request, server)`, what is said instead; `final`, the last answer; `on_piece(stream)`.
local function serve(options)
  options = options or {}
  local server
  local limit = options.limit and ("Upload-Limit: %s\r\n"):format(options.limit) or ""
  local function take(request, reader)
    local cut = request.method == "PATCH" and options.cut and options.cut[server.counts.PATCH]
    local got = 0
    for piece in function() return (reader:read()) end do
      if cut then piece = piece:sub(1, cut - got) end
      got = got + #piece
      server.data = server.data .. piece
      if options.on_piece then options.on_piece(request.stream) end
      if cut and got >= cut then return false end
    end
    server.complete = request.headers["Upload-Complete"] == "?1"
    return true
  end
  local function respond(request, reader)
    local headers = request.headers
    if headers["Upload-Draft-Interop-Version"] ~= "8" then return answer("400 Draft") end
    if request.method == "POST" then
      server.data, server.complete, server.length = "", false, headers["Upload-Length"]
      if not take(request, reader) then return nil end
      if server.complete then return options.final or answer("200 OK", nil, "made") end
      return answer("201 Created", "Location: /uploads/1\r\n" .. limit)
    elseif not server.data then
      return answer("404 None")
    elseif request.method == "HEAD" then
      local fields = ("Upload-Offset: %d\r\nUpload-Complete: %s\r\nUpload-Length: %s\r\n%s"):format(#server.data, server.complete and "?1" or "?0", server.length, limit)
      return answer("204 No Content", fields)
    elseif request.method == "DELETE" then
      server.data = nil
      return answer("204 No Content")
    end
    if tonumber(headers["Upload-Offset"]) ~= #server.data or server.complete then
      return answer("409 Conflict", ("Upload-Offset: %d\r\n"):format(#server.data))
    elseif headers["Content-Type"] ~= "application/partial-upload" then
      return answer("415 Type")
    end
    if not take(request, reader) then return nil end
    if server.complete then return options.final or answer("200 OK", "Upload-Complete: ?1\r\n", "made") end
    return answer("204 No Content", "Upload-Complete: ?0\r\n")
  end
  server = peer.respond(function(request, reader)
    local bytes = options.answer and options.answer(request, server) or respond(request, reader)
    if bytes then reader:read_all() end
    return bytes
  end)
  return server
end

--- Uploads by this protocol.
local function upload(server, path, options)
  options = options or {}
  options.protocol = "ietf"
  return http.upload(server.url .. "/project", path, options)
end

local uploads = {
  ["an upload is made without content, and the last answer is that of the resource"] = function()
    local server = serve()
    local path, clean <close> = source_of()
    local uploaded = assert(upload(server, path, { checksum = SUM, metadata = { filename = "l\u{f6}g \"1\".txt", filetype = "text/plain" } }))
    test.equal({ server.data == TEXT, methods(server), uploaded.response.body, uploaded.checksum }, { true, "POST PATCH", "made", SUM })
    test.equal(uploaded.url, server.url .. "/uploads/1")
    local post, patch = server.requests[1].headers, server.requests[2].headers
    test.equal({ post["Upload-Complete"], post["Upload-Length"], post["Content-Length"], post["Content-Type"] }, { "?0", tostring(#TEXT), "0", "text/plain" })
    test.equal(post["Content-Disposition"], "inline; filename=\"l__g \\\"1\\\".txt\"; filename*=UTF-8''l%C3%B6g%20%221%22.txt")
    test.equal({ patch["Upload-Complete"], patch["Upload-Offset"], patch["Content-Length"] }, { "?1", "0", tostring(#TEXT) })
    test.equal({ patch["Tus-Resumable"], content(path .. ".upload") }, {})
  end,

  ["what breaks off goes on where the server says, in a later run, too"] = function()
    local server = serve({ cut = { 1000, 70000, #TEXT - 71000 } })
    local path, clean <close> = source_of()
    test.fails("closed", upload(server, path, { attempts = 1 }))
    -- An upload by the other protocol is another one.
    test.fails("protocol", http.upload(peer.serve(function() return peer.response("") end).url, path))
    local uploaded = assert(upload(server, path, { checksum = SUM }))
    test.equal({ server.data == TEXT, uploaded.resumed, uploaded.checksum }, { true, #TEXT, SUM })
    -- All had come when it broke off for the last time, but for the server's knowing that.
    test.equal(methods(server), "POST PATCH HEAD PATCH HEAD PATCH HEAD PATCH")
    test.equal({ server.requests[8].headers["Content-Length"], server.requests[8].headers["Upload-Complete"] }, { "0", "?1" })
  end,

  ["an empty file, and one that goes with the first request, need no second"] = function()
    local server = serve()
    local path, clean <close> = source_of("")
    local uploaded = assert(upload(server, path))
    test.equal({ methods(server), server.requests[1].headers["Upload-Complete"], uploaded.response.body }, { "POST", "?1", "made" })
    local other, clean_too <close> = source_of()
    server = serve()
    uploaded = assert(upload(server, other, { creation_with_upload = true }))
    test.equal({ methods(server), server.data == TEXT, uploaded.response.body }, { "POST", true, "made" })
    server = serve()
    assert(upload(server, other, { creation_with_upload = true, chunk_size = 200000 }))
    test.equal({ methods(server), server.data == TEXT, server.requests[2].headers["Upload-Offset"] }, { "POST PATCH", true, "200000" })
  end,

  ["limits that the server tells are kept to"] = function()
    local path, clean <close> = source_of()
    local server = serve({ limit = "max-size=1000000, max-append-size=100000, other=(1 2);x, max-age=3600" })
    local seen
    assert(upload(server, path, { chunk_size = 150000, on_progress = function()
      seen = seen or json.decode(content(path .. ".upload")).expires
    end }))
    test.equal({ server.data == TEXT, server.counts.PATCH }, { true, 3 })
    test.near(seen, os.time() + 3600, 5)
    server = serve({ limit = "min-append-size=200000" })
    assert(upload(server, path, { chunk_size = 1000 }))
    test.equal({ server.data == TEXT, server.counts.PATCH }, { true, 2 })
    server = serve({ limit = "max-size=1000" })
    local _, err = upload(server, path)
    test.equal({ err.kind, err.code, methods(server) }, { "limit", 413, "POST" })
  end,

  ["413 is answered with less, if the server says how much"] = function()
    local path, clean <close> = source_of()
    local large = function(request) return tonumber(request.headers["Content-Length"]) > 100000 and answer("413 Large", "Upload-Limit: max-append-size=100000\r\n") or nil end
    local server = serve({ limit = "max-append-size=100000", answer = function(request, server)
      -- What is in between has told nothing when the upload was made.
      if request.method == "POST" then
        server.data, server.length = "", request.headers["Upload-Length"]
        return answer("201 Created", "Location: /uploads/1\r\n")
      end
      return request.method == "PATCH" and large(request) or nil
    end })
    assert(upload(server, path))
    test.equal({ server.data == TEXT, methods(server) }, { true, "POST PATCH HEAD PATCH PATCH PATCH" })
    server = serve({ answer = function(request) return request.method == "PATCH" and answer("413 Large") or nil end })
    local _, err = upload(server, path, { resume = false })
    test.equal({ err.kind, err.code, methods(server) }, { "limit", 413, "POST PATCH" })
    test.matches(err.message, "chunk_size")
  end,

  ["what the server made of all of it is final"] = function()
    local path, clean <close> = source_of()
    for _, status in ipairs({ "422 Not that", "503 Busy" }) do
      local server = serve({ final = answer(status, "Upload-Complete: ?1\r\n") })
      local _, err = upload(server, path, { resume = false })
      test.equal({ err.kind, err.code, methods(server) }, { "refused", tonumber(status:sub(1, 3)), "POST PATCH" })
    end
  end,

  ["an offset that the server does not share is asked for, and an upload that is gone begun anew"] = function()
    local path, clean <close> = source_of()
    local server = serve({ answer = function(request, server)
      if request.number == 2 then server.data = TEXT:sub(1, 7) end
      if request.number == 4 then return answer("410 Gone") end
    end })
    local uploaded = assert(upload(server, path))
    test.equal({ server.data == TEXT, methods(server), uploaded.resumed }, { true, "POST PATCH HEAD PATCH POST PATCH", 0 })
  end,

  ["a server that knows nothing of this is an error"] = function()
    local path, clean <close> = source_of()
    for _, bytes in ipairs({ answer("200 OK"), answer("201 Created") }) do
      test.fails("protocol", upload(peer.serve(function() return bytes end), path))
    end
    for _, fields in ipairs({ "", "Upload-Offset: 5\r\n", "Upload-Offset: 5\r\nUpload-Complete: 1\r\n", "Upload-Offset: -5\r\nUpload-Complete: ?0\r\n",
      "Upload-Offset: 1234567890123456\r\nUpload-Complete: ?0\r\n" }) do
      local server = serve({ answer = function(request) return request.method == "HEAD" and answer("204 No Content", fields) or nil end })
      test.fails("protocol", upload(server, path, { created = true }))
    end
  end,

  ["a server may tell of progress as often as it takes some"] = function()
    local path, clean <close> = source_of(TEXT:rep(40))
    local told = 0
    local server = serve({ on_piece = function(stream)
      told = told + 1
      stream:write("HTTP/1.1 104 Upload Resumption Supported\r\nUpload-Offset: 1\r\n\r\n")
      stream:flush()
    end })
    assert(upload(server, path))
    test.truthy(told > 100, told)
    -- But not without.
    server = serve({ answer = function(request)
      if request.method == "PATCH" then
        for _ = 1, 1000 do request.stream:write("HTTP/1.1 104 Upload Resumption Supported\r\n\r\n") end
        request.stream:flush()
      end
    end })
    test.fails("limit", upload(server, path, { resume = false }))
  end,

  ["an upload can be given up, or be there already"] = function()
    local path, clean <close> = source_of()
    local server = serve({ cut = { 1000 } })
    test.fails("closed", upload(server, path, { attempts = 1 }))
    test.equal(http.cancel_upload(server.url .. "/project", path), false)
    test.equal(http.cancel_upload(server.url .. "/project", path, { protocol = "ietf" }), true)
    test.equal(server.data, nil)
    server.data, server.length = TEXT:sub(1, 9), tostring(#TEXT)
    local uploaded = assert(http.upload(server.url .. "/uploads/1", path, { protocol = "ietf", created = true }))
    test.equal({ server.data == TEXT, uploaded.resumed }, { true, 9 })
  end,

  ["wrong options raise"] = function()
    local path, clean <close> = source_of()
    test.raises("protocol must be", function() http.upload("http://h/", path, { protocol = "TUS" }) end)
    test.raises("extension of tus", function() http.upload("http://h/", path, { protocol = "ietf", chunk_checksum = "sha256" }) end)
    test.raises("cannot be told by this protocol", function() http.upload("http://h/", path, { protocol = "ietf", metadata = { device = "7" } }) end)
    test.raises("no media type", function() http.upload("http://h/", path, { protocol = "ietf", metadata = { filetype = "a\r\nb" } }) end)
  end,
}

local limits = {
  ["limits are a structured dictionary, and ignored when they are none"] = function()
    test.equal(ietf.limits(""), {})
    test.equal(ietf.limits("max-size=1"), { ["max-size"] = 1 })
    test.equal(ietf.limits("max-size=1;a;b=\"x,y\" ,\tmax-age=2,new=\"a, max-age=9\", flag, t=tok/en;q=0.5, b=:YQ==:, l=(1 \"2\")"), nil)
    test.equal(ietf.limits("max-size=1;a;b=\"x,y\" ,\tmax-age=2,new=\"a, max-age=9\", flag, t=tok/en;q=0.5, b=:YQ==:, l=(1 2);z"), { ["max-size"] = 1, ["max-age"] = 2 })
    test.equal(ietf.limits("max-size=1, max-size=2"), { ["max-size"] = 2 })
    for _, text in ipairs({ "max-size=-1", "max-size=1.5", "max-size=\"1\"", "max-size", "max-size=1,", ",", "max-size=1 max-age=2", "Max=1", "max-size=", "a=(1", "a=\"x",
      "max-size=1234567890123456", "max-size=1;", "a;B=1" }) do
      test.equal({ ietf.limits(text) }, {}, text)
    end
    test.every_cut("max-size=1, max-append-size=22;x=1, other=\"a\"", function(first) ietf.limits(first) end)
    local random = test.random()
    for _ = 1, 500 do ietf.limits((random:bytes(random(1, 40)):gsub("[^%w=,;\"() ?:-]", "="))) end
  end,
}

return { uploads = uploads, limits = limits }
