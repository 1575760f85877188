-- Deliveries: results for each recipient, sizes, extensions, connections that are used again.
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local server = require("server")
local smtp = require("smtp")
local test = require("test")

local MEGABYTES_25 = 25 * 1024 * 1024

local function message(fields)
  local all = { from = "a@example.test", to = "b@example.test", subject = "x", message_id = server.identifier(), text = "x\n" }
  for name, value in pairs(fields or {}) do all[name] = value end
  return all
end

--- A file of so many bytes, and their digest.
local function large(size)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  local digest = crypto.new_digest("sha256")
  local piece = crypto.random_bytes(1024 * 1024)
  for _ = 1, size // #piece do
    file:write(piece)
    digest:update(piece)
  end
  file:close()
  return path, hex.encode(digest:finish())
end

local cases = {
  ["[RFC 5321, 3.3] who is refused is told, and the others get it"] = function()
    for _, way in ipairs({ "plain", "sink", "bare" }) do
      local client <close> = server.client(way)
      local sent = message({ to = { "nobody@example.test", "b@example.test", "full@example.test", "c@example.test" } })
      local result = assert(client:send(sent))
      test.equal(result.accepted, { "b@example.test", "c@example.test" })
      test.equal(#result.refused, 2)
      test.equal({ result.refused[1].address, result.refused[1].code, result.refused[1].retry }, { "nobody@example.test", 550, false })
      test.equal({ result.refused[2].address, result.refused[2].code, result.refused[2].retry }, { "full@example.test", 452, true })
      test.equal(server.arrived(sent.message_id).recipients, { "b@example.test", "c@example.test" })
    end
  end,

  ["[RFC 5321, 4.2] when all are refused it is an error, and the next message goes"] = function()
    for _, way in ipairs({ "plain", "sink", "bare" }) do
      local client <close> = server.client(way)
      local err = test.fails("refused", client:send(message({ to = "nobody@example.test" })))
      test.equal({ err.code, err.retry }, { 550, false })
      err = test.fails("refused", client:send(message({ to = "full@example.test, nobody@example.test" })))
      test.equal(err.retry, true)
      local sent = message()
      assert(client:send(sent))
      server.arrived(sent.message_id)
    end
  end,

  ["[RFC 5321, 4.2.1] 4yz and 5yz for a message are told apart"] = function()
    local client <close> = server.client("sink")
    local err = test.fails("refused", client:send(message({ headers = { ["X-Refuse"] = "now" } })))
    test.equal({ err.code, err.status, err.retry }, { 554, "5.6.0", false })
    err = test.fails("refused", client:send(message({ headers = { ["X-Refuse"] = "later" } })))
    test.equal({ err.code, err.status, err.retry }, { 451, "4.3.0", true })
    assert(client:send(message()))
  end,

  ["[RFC 1870, 6] a message that is too large is refused before it is sent"] = function()
    local client <close> = assert(smtp.connect(os.getenv("MOONWIRE_SMTP_SMALL_URL"), { starttls = "off" }))
    test.equal(client:status().extensions.SIZE, "100000")
    local err = test.fails("refused", client:send(message({ text = ("x\n"):rep(100000) })))
    test.equal({ err.code, err.status, err.retry }, { 552, "5.3.4", false })
    assert(client:send(message()))
  end,

  ["a message that grows too large on its way is refused"] = function()
    local client <close> = assert(smtp.connect(os.getenv("MOONWIRE_SMTP_SMALL_URL"), { starttls = "off" }))
    local left = 40
    local err = test.fails("refused", client:send(message({
      attachments = { { stream = function()
        left = left - 1
        return left >= 0 and ("x"):rep(10000) or nil
      end } },
    })))
    test.equal({ err.code, err.retry }, { 552, false })
  end,

  ["[RFC 3461, 4] reports are asked for"] = function()
    local client <close> = server.client("plain")
    local sent = message()
    assert(client:send(sent, { notify = "NEVER", ret = "HDRS", envid = "id+1", recipients = {
      { address = "b@example.test", notify = "SUCCESS,FAILURE", orcpt = "x+y@example.test" }, "c@example.test",
    } }))
    test.equal(server.arrived(sent.message_id).recipients, { "b@example.test", "c@example.test" })
    local bare <close> = server.client("bare")
    test.equal(test.fails("refused", bare:send(message(), { notify = "NEVER" })).code, 555)
  end,

  ["[RFC 6531, 3.4] addresses that are not ASCII go with SMTPUTF8, and are refused without it"] = function()
    for _, way in ipairs({ "sink", "plain" }) do
      local client <close> = server.client(way)
      local sent = message({ to = "Jörg <jörg@example.test>", subject = "Grüße 🚰", from = "Ü <übung@example.test>" })
      assert(client:send(sent))
      local arrived = server.arrived(sent.message_id)
      test.equal(arrived.recipients, { "jörg@example.test" })
      test.equal(arrived.sender, "übung@example.test")
      test.equal({ arrived.subject, arrived.ascii_headers }, { "Grüße 🚰", false })
      test.equal(arrived.to, { { "Jörg", "jörg@example.test" } })
    end
    local bare <close> = server.client("bare")
    test.equal(test.fails("refused", bare:send(message({ to = "jörg@example.test" }))).status, "5.6.7")
  end,

  ["[RFC 5891] domains that are not ASCII need no extension"] = function()
    local client <close> = server.client("sink")
    local sent = message({ to = "b@bücher.example" })
    assert(client:send(sent))
    test.equal(server.arrived(sent.message_id).recipients, { "b@xn--bcher-kva.example" })
  end,

  ["[RFC 6152] a ready message of 8 bits arrives byte by byte, or is refused"] = function()
    local id = server.identifier()
    local raw = ("From: a@example.test\r\nTo: b@example.test\r\nBcc: c@example.test\r\nMessage-ID: <%s>\r\n"):format(id)
      .. "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"
      .. "\r\nGr\xfc\xdfe\r\n.\r\n..x\r\n\r\n"
    for _, way in ipairs({ "sink", "plain" }) do
      local client <close> = server.client(way)
      local text = raw:gsub("<[^>]+>", ("<%s.%s>"):format(way, id))
      assert(client:send({ raw = text }))
      local arrived = server.arrived(way .. "." .. id)
      test.equal(arrived.body_sha256, hex.encode(crypto.sha256("Gr\xfc\xdfe\r\n.\r\n..x\r\n\r\n")))
      test.equal(arrived.recipients, { "b@example.test", "c@example.test" })
    end
    local bare <close> = server.client("bare")
    test.equal(test.fails("refused", bare:send({ raw = raw })).status, "5.6.3")
  end,

  ["[RFC 5321, 4.5.5] the return path may be empty"] = function()
    local client <close> = server.client("sink")
    local sent = message()
    assert(client:send(sent, { sender = "" }))
    test.equal(server.arrived(sent.message_id).sender, "<>")
  end,

  ["many messages from many tasks share a few connections"] = function()
    local pool = smtp.pool(server.urls.plain, { starttls = "off", connections = 3 })
    local ids, tasks = {}, {}
    for i = 1, 60 do
      local sent = message()
      ids[i] = sent.message_id
      tasks[i] = cosocket.spawn(function() assert(pool:send(sent)) end)
    end
    for _, task in ipairs(tasks) do task:join() end
    for _, id in ipairs(ids) do server.arrived(id) end
    pool:close()
  end,
}

server.only_straight(cases, {
  "[RFC 5321, 4.2.1] 4yz and 5yz for a message are told apart",
  "[RFC 5891] domains that are not ASCII need no extension",
  "[RFC 5321, 4.5.5] the return path may be empty",
})

for _, way in ipairs({ "submission", table.unpack(server.ways) }) do
  for _, chunking in ipairs({ true, false }) do
    if way ~= "sink" or not chunking then
      local title = ("an attachment of 25 MiB arrives byte by byte at %s%s"):format(way, chunking and " in chunks" or "")
      cases[title] = function()
        local path, digest = large(MEGABYTES_25)
        local client
        if way == "submission" then
          client = assert(smtp.connect(server.urls.submission, server.login({ chunking = chunking })))
        else
          client = server.client(way, { chunking = chunking })
        end
        local sent = message({ attachments = { { path = path, name = "large.bin" } } })
        local result, err = client:send(sent)
        os.remove(path)
        assert(result, tostring(err))
        client:close()
        local arrived = server.arrived(sent.message_id)
        test.equal({ arrived.parts[2].size, arrived.parts[2].sha256 }, { MEGABYTES_25, digest })
      end
    end
  end
end

return cases
