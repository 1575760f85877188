-- Says a few words to a server, so that what is traced of them can be looked at.
--
--   moonwire --trace-file FILE conformance/trace/talk.lua URL CA    the password is in TALK_PASSWORD

local url, ca = ...
local user, password = "moonwire", assert(os.getenv("TALK_PASSWORD"))
local tls = { ca = ca }
local scheme = url:match("^%a+")

if scheme == "mqtts" or scheme == "wss" then
  local mqtt = require("mqtt")
  local options = { client_id = "traced", username = user, password = password, tls = tls }
  local client <close> = assert(mqtt.connect(url, options))
  assert(client:subscribe("moonwire/traced", { qos = 1 }))
  assert(client:publish("moonwire/traced", "hello", { qos = 2 }))
  client:close()
elseif scheme == "https" then
  local http = require("http")
  local client = http.client({ tls = tls })
  assert(client:get(url .. "?access_token=" .. password:gsub(" ", "+"), { auth = { username = user, password = password } }))
  assert(client:get(url))
  client:close()
else
  local smtp = require("smtp")
  local message = { from = "a@example.test", to = "b@example.test", subject = "traced", text = "hello\n.\nworld\n" }
  assert(smtp.send(url, message, { username = user, password = password, auth = "PLAIN", tls = tls, chunking = false }))
end
