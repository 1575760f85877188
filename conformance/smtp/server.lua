--- The servers under test: where they are, and what arrived behind them. The harness says it in the environment.

local base64 = require("base64")
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local json = require("json")
local smtp = require("smtp")

---@param name string
---@return string
local function setting(name)
  return os.getenv("MOONWIRE_SMTP_" .. name) or error("the harness does not say " .. name, 0)
end

--- The server between us and the sink.
local name = setting("SERVER")

local server = {
  --- The ways of a message: straight to the sink, which is proved once, and through the server.
  ways = name == "Postfix" and { "sink", "plain" } or { "plain" },
  name = name,
  --- The best mechanism that it knows.
  mechanism = name == "Exim" and "CRAM-MD5" or "SCRAM-SHA-256",
  --- Whether its own words have codes as of RFC 2034.
  enhanced = name ~= "Exim",
  urls = {
    --- aiosmtpd, which the others hand their mail to.
    sink = setting("SINK_URL"),
    --- The server without TLS.
    plain = setting("PLAIN_URL"),
    --- The server with STARTTLS and a login.
    submission = setting("SUBMISSION_URL"),
    --- The server with TLS at once.
    smtps = setting("SMTPS_URL"),
    --- The server without extensions.
    bare = setting("BARE_URL"),
    --- The server with certificates that nobody should take.
    expired = setting("EXPIRED_URL"),
    wrong_name = setting("WRONG_NAME_URL"),
  },
  ca = setting("CA"),
  user = setting("USER"),
  password = setting("PASSWORD"),
  folder = setting("FOLDER"),
}

--- Takes out what goes to the sink alone, where that was proved with another server.
---@param cases table<string, function>
---@param titles string[]
function server.only_straight(cases, titles)
  for _, title in ipairs(titles) do
    assert(cases[title], title)
    if #server.ways == 1 then cases[title] = nil end
  end
end

--- A message identifier that nobody else uses.
---@return string
function server.identifier()
  return hex.encode(crypto.random_bytes(10)) .. "@moonwire.test"
end

--- What the other side of the sink says to a question.
---@async
---@param question table
---@return any
function server.ask(question)
  local stream <close> = assert(cosocket.connect("tcp://" .. setting("REPORT")))
  assert(stream:write(json.encode(question), "\n"))
  return assert(json.decode(assert(stream:read_line(8 * 1024 * 1024))))
end

--- The only copy of a message that arrived, as Python's `email` reads it.
---@async
---@param identifier string
---@param keys? table<string, string> DKIM's records in the DNS.
---@return table
function server.arrived(identifier, keys)
  local copies = server.ask({ message_id = identifier, keys = keys or json.null })
  if #copies ~= 1 then error(("%d copies of %s arrived"):format(#copies, identifier), 2) end
  return copies[1]
end

--- The bytes of a part that arrived.
---@param part table
---@return string
function server.content(part)
  return assert(base64.decode(part.content))
end

--- The options of a listener that asks for a login.
---@param options? smtp.Options
---@return smtp.Options
function server.login(options)
  local all = { username = server.user, password = server.password, tls = { ca = server.ca } }
  for name, value in pairs(options or {}) do all[name] = value end
  return all
end

--- A client of aiosmtpd or of the server without TLS.
---@async
---@param name "sink"|"plain"|"bare"
---@param options? smtp.Options
---@return smtp.Client
function server.client(name, options)
  local all = { starttls = "off" }
  for key, value in pairs(options or {}) do all[key] = value end
  return assert(smtp.connect(server.urls[name], all))
end

return server
