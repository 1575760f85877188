-- DKIM signatures, verified by dkimpy, straight and behind Postfix.
local server = require("server")
local test = require("test")

local function read(name)
  local file = assert(io.open(server.folder .. "/" .. name))
  local text = file:read("a")
  file:close()
  return text
end

local function signer(kind)
  return { domain = "example.test", selector = kind, key = server.folder .. ("/dkim_%s.pem"):format(kind) }
end

--- What the DNS says of the keys. The files are there when the server is: cases can be listed without it.
local function keys()
  return {
    ["rsa._domainkey.example.test"] = read("dkim_rsa.txt"),
    ["ed25519._domainkey.example.test"] = read("dkim_ed25519.txt"),
  }
end

local MESSAGES = {
  plain = { text = "one\n.two  \n\n\n" },
  empty = {},
  spaces = { subject = "a  b   c", text = "a  b \t c\t\n  \n\tx\n\n" },
  scripts = { subject = "Störung 水泵 🚰", from = "Jörg <a@example.test>", text = "Größe\n", html = "<b>ü</b>" },
  long = { subject = ("a long subject "):rep(30), text = ("x"):rep(5000), to = { "b@example.test", "c@example.test" } },
  files = { text = "x\n", attachments = { { content = ("\0\1\2"):rep(50000), name = "x.bin" } }, in_reply_to = "a@b", priority = "low" },
}

local cases = {}
for name, given in pairs(MESSAGES) do
  for _, way in ipairs(server.ways) do
    cases[("[RFC 6376; RFC 8463] both signatures of a message verify: %s, %s"):format(name, way)] = function()
      local client <close> = server.client(way, { dkim = { signer("rsa"), signer("ed25519") } })
      local message = { from = "a@example.test", to = "b@example.test", message_id = server.identifier() }
      for field, value in pairs(given) do message[field] = value end
      assert(client:send(message))
      local arrived = server.arrived(message.message_id, keys())
      test.equal(arrived.dkim, { true, true })
      test.equal(arrived.headers[1][1], way == "sink" and "DKIM-Signature" or "Received")
    end
  end
end

cases["a signature of a ready message verifies"] = function()
  local id = server.identifier()
  local client <close> = server.client("sink")
  local raw = ("From: A\n\t<a@example.test>\nTo: b@example.test\nSubject:  odd   spaces \nMessage-ID: <%s>\n\nbody\n\n\n"):format(id)
  assert(client:send({ raw = raw }, { dkim = signer("rsa") }))
  test.equal(server.arrived(id, keys()).dkim, { true })
end

cases["the verifier does not take everything"] = function()
  local client <close> = server.client("sink")
  local message = { from = "a@example.test", to = "b@example.test", message_id = server.identifier() }
  assert(client:send(message, { dkim = signer("rsa") }))
  local wrong = { ["rsa._domainkey.example.test"] = keys()["ed25519._domainkey.example.test"] }
  test.equal(server.arrived(message.message_id, wrong).dkim, { false })
end

server.only_straight(cases, { "a signature of a ready message verifies", "the verifier does not take everything" })

return cases
