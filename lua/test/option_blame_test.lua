-- Whatever is wrong in the options of a stack, however deep in them, is refused by name where it was written, and before
-- anything is connected.
local cosocket = require("cosocket")
local http = require("http")
local mqtt = require("mqtt")
local smtp = require("smtp")
local test = require("test")
local websocket = require("websocket")
local wsrpc = require("wsrpc")

local broker = require("mqtt.broker")
local sink = require("smtp.sink")

local WRONG_TLS = { sever_name = "x" }
local TLS = 'unknown option "tls.sever_name"; did you mean "server_name"'
local WRONG_SERVER_TLS = { certificate = "c", key = "k", client_cas = "x" }
local SERVER_TLS = 'unknown option "tls.client_cas"; did you mean "client_ca"'
local MESSAGE = { from = "a@b", to = "c@d", text = "x" }

local function nothing() end

--- Runs each call, and looks at what it raises. The mistakes of a call stand in the line where it begins.
local function refused(cases)
  for i = 1, #cases, 2 do
    local pattern, call = cases[i], cases[i + 1]
    local line = debug.getinfo(call, "S").linedefined
    local ok, err = pcall(call)
    local message = cosocket.is_error(err) and err.message or tostring(err)
    if ok then error(("line %d: nothing was raised"):format(line), 0) end
    local place = ("option_blame_test.lua:%d: "):format(line)
    if not message:find(place, 1, true) then error(("line %d was not blamed: %s"):format(line, message), 0) end
    if not message:find(pattern) then error(("line %d: no %q in %s"):format(line, pattern, message), 0) end
  end
end

return {
  ["HTTP: tls of a client and of any request"] = function()
    local client <close> = http.client()
    refused({
      TLS, function() http.client({ tls = WRONG_TLS }) end,
      TLS, function() http.get("https://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() http.get("http://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() http.request("GET", "https://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() client:get("https://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() client:request("GET", "https://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() client:upgrade("https://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() http.save("https://127.0.0.1:1", "/nowhere/x", { tls = WRONG_TLS }) end,
      TLS, function() client:save("https://127.0.0.1:1", "/nowhere/x", { tls = WRONG_TLS }) end,
      TLS, function() http.events("https://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() client:events("https://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() http.upload("https://127.0.0.1:1", "/nowhere/x", { tls = WRONG_TLS }) end,
      TLS, function() client:upload("https://127.0.0.1:1", "/nowhere/x", { tls = WRONG_TLS }) end,
      TLS, function() client:cancel_upload("https://127.0.0.1:1", "/nowhere/x", { tls = WRONG_TLS }) end,
      "insecure", function() http.client({ tls = { insecure = "yes" } }) end,
      "min_version", function() http.client({ tls = { min_version = "1.4" } }) end,
      "is not a SHA%-256", function() http.get("https://127.0.0.1:1", { tls = { pin_sha256 = "x" } }) end,
      SERVER_TLS, function() require("http.server").new({ tls = WRONG_SERVER_TLS }) end,
      SERVER_TLS, function() http.listen("tcp://127.0.0.1:0", nothing, { tls = WRONG_SERVER_TLS }) end,
      "needs certificate and key", function() http.listen("tls://127.0.0.1:0", nothing, { tls = {} }) end,
      "needs tls", function() http.listen("tls://127.0.0.1:0", nothing) end,
      "unknown option", function() http.listen("tcp://127.0.0.1:0", nothing, { tsl = {} }) end,
      "keepalive_count says nothing", function() http.listen("tcp://127.0.0.1:0", nothing, { keepalive_count = 2 }) end,
      "keepalive_interval says", function() require("http.server").new({ keepalive_interval = 2 }) end,
    })
  end,

  ["HTTP: credentials, proxies, cookies, fields, parts"] = function()
    local client <close> = http.client()
    refused({
      "unknown option", function() http.client({ auth = { user = "x" } }) end,
      "unknown option", function() http.get("http://127.0.0.1:1", { auth = { user = "x" } }) end,
      "unknown option", function() client:get("http://127.0.0.1:1", { proxy_auth = { user = "x" } }) end,
      "proxy_auth needs", function() http.client({ proxy_auth = {} }) end,
      "proxy", function() http.client({ proxy = true }) end,
      "a proxy is", function() http.client({ proxy = "gopher://x" }) end,
      "a proxy is", function() http.get("http://127.0.0.1:1", { proxy = "gopher://x" }) end,
      "cannot be read", function() client:get("http://127.0.0.1:1", { proxy = "http://[" }) end,
      "a proxy is", function() client:save("http://127.0.0.1:1", "/nowhere/x", { proxy = "gopher://x" }) end,
      "a proxy is", function() client:events("http://127.0.0.1:1", { proxy = "gopher://x" }) end,
      "cookies", function() http.client({ cookies = {} }) end,
      "cookies", function() http.get("http://127.0.0.1:1", { cookies = {} }) end,
      "headers", function() http.client({ headers = { ["a b"] = "c" } }) end,
      "headers", function() http.get("http://127.0.0.1:1", { headers = { a = "b\r\nc" } }) end,
      "headers", function() client:get("http://127.0.0.1:1", { user_agent = "a\nb" }) end,
      "headers", function() http.events("http://127.0.0.1:1", { headers = { a = "b\r\nc" } }) end,
      "headers", function() http.save("http://127.0.0.1:1", "/nowhere/x", { headers = { a = "b\r\nc" } }) end,
      "headers", function() http.post("http://127.0.0.1:1", { body = "x", trailers = { ["a b"] = "c" } }) end,
      "unknown option", function() http.post("http://127.0.0.1:1", { multipart = { { nam = "x" } } }) end,
      "unknown option", function() http.post("http://127.0.0.1:1", { multipart = { file = { nam = "x" } } }) end,
      "base_url", function() http.client({ base_url = "gopher://x" }) end,
    })
  end,

  ["WebSocket"] = function()
    refused({
      TLS, function() websocket.connect("wss://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() websocket.connect("ws://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() websocket.connect_stream("wss://127.0.0.1:1", { subprotocol = "mqtt", tls = WRONG_TLS }) end,
      SERVER_TLS, function() websocket.listen("tcp://127.0.0.1:0", nothing, { tls = WRONG_SERVER_TLS }) end,
      SERVER_TLS, function() websocket.listen("tls://127.0.0.1:0", nothing, { tls = WRONG_SERVER_TLS }) end,
      "needs tls", function() websocket.listen("wss://127.0.0.1:0", nothing) end,
      "unknown option", function() websocket.connect("ws://127.0.0.1:1", { compression = { windw_bits = 9 } }) end,
      "unknown option", function() websocket.listen("ws://127.0.0.1:0", nothing, { compression = { windw_bits = 9 } }) end,
      "unknown option", function() websocket.connect("ws://127.0.0.1:1", { auth = { user = "x" } }) end,
      "proxy", function() websocket.connect("ws://127.0.0.1:1", { proxy = true }) end,
      "a proxy is", function() websocket.connect("ws://127.0.0.1:1", { proxy = "gopher://x" }) end,
      "cookies", function() websocket.connect("ws://127.0.0.1:1", { cookies = {} }) end,
      "headers", function() websocket.connect("ws://127.0.0.1:1", { headers = { ["a b"] = "c" } }) end,
      "headers", function() websocket.connect("ws://127.0.0.1:1", { headers = { a = "b\r\nc" } }) end,
      "headers", function() websocket.connect("ws://127.0.0.1:1", { headers = { { "a" } } }) end,
      "origin", function() websocket.connect("ws://127.0.0.1:1", { origin = "a\r\nb" }) end,
      "subprotocol", function() websocket.connect("ws://127.0.0.1:1", { subprotocols = { "a b" } }) end,
      "subprotocol", function() websocket.connect_stream("ws://127.0.0.1:1", { subprotocol = "a b" }) end,
      "origins", function() websocket.listen("ws://127.0.0.1:0", nothing, { origins = "x" }) end,
      "origins", function() websocket.listen("ws://127.0.0.1:0", nothing, { origins = { 5 } }) end,
    })
  end,

  ["JSON-RPC over WebSocket"] = function()
    refused({
      TLS, function() wsrpc.connect("wss://127.0.0.1:1", { tls = WRONG_TLS }) end,
      SERVER_TLS, function() wsrpc.serve("tcp://127.0.0.1:0", {}, { tls = WRONG_SERVER_TLS }) end,
      SERVER_TLS, function() wsrpc.serve("wss://127.0.0.1:0", {}, { tls = WRONG_SERVER_TLS }) end,
      "needs tls", function() wsrpc.serve("wss://127.0.0.1:0", {}) end,
      "unknown option", function() wsrpc.connect("ws://127.0.0.1:1", { compression = { windw_bits = 9 } }) end,
      "unknown option", function() wsrpc.serve("ws://127.0.0.1:0", {}, { compression = { windw_bits = 9 } }) end,
      "unknown option", function() wsrpc.connect("ws://127.0.0.1:1", { reconnect = { delay = 9 } }) end,
      "delay_min", function() wsrpc.connect("ws://127.0.0.1:1", { reconnect = { delay_min = 0 } }) end,
      "unknown option", function() wsrpc.connect("ws://127.0.0.1:1", { methods = { a = { nothing, parms = {} } } }) end,
      "unknown option", function() wsrpc.serve("ws://127.0.0.1:0", { a = { nothing, parms = {} } }) end,
      "a proxy is", function() wsrpc.connect("ws://127.0.0.1:1", { proxy = "gopher://x" }) end,
      "headers", function() wsrpc.connect("ws://127.0.0.1:1", { headers = { a = "b\r\nc" } }) end,
      "token", function() wsrpc.connect("ws://127.0.0.1:1", { token = "a\r\nb" }) end,
      "origins", function() wsrpc.serve("ws://127.0.0.1:0", {}, { origins = "x" }) end,
      "token", function() wsrpc.serve("ws://127.0.0.1:0", {}, { token = { 5 } }) end,
    })
  end,

  ["MQTT"] = function()
    local one <close> = broker.new()
    refused({
      TLS, function() mqtt.connect("mqtts://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() mqtt.connect("wss://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() mqtt.connect("mqtts://127.0.0.1:1", { tls = WRONG_TLS, wait = false }) end,
      "tls goes with", function() mqtt.connect("mqtt://127.0.0.1:1", { tls = {} }) end,
      "unknown option", function() mqtt.connect("mqtt://127.0.0.1:1", { reconnect = { delay = 9 } }) end,
      "delay_min", function() mqtt.connect("mqtt://127.0.0.1:1", { reconnect = { delay_min = 0 } }) end,
      "unknown option", function() mqtt.connect("mqtt://127.0.0.1:1", { will = { topic = "a", paiload = "x" } }) end,
      "unknown option", function() mqtt.connect("mqtt://127.0.0.1:1", { authentication = { methd = "x" } }) end,
      "user", function() mqtt.connect("mqtt://127.0.0.1:1", { user = { { "a" } } }) end,
      "the options must be a table", function() broker.listen("tcp://127.0.0.1:0", 5) end,
      SERVER_TLS, function() broker.new({ tls = WRONG_SERVER_TLS }) end,
      SERVER_TLS, function() broker.listen("tcp://127.0.0.1:0", { tls = WRONG_SERVER_TLS }) end,
      SERVER_TLS, function() broker.listen("wss://127.0.0.1:0", { tls = WRONG_SERVER_TLS }) end,
      SERVER_TLS, function() one:listen("tls://127.0.0.1:0", { tls = WRONG_SERVER_TLS }) end,
      SERVER_TLS, function() one:listen("wss://127.0.0.1:0", { tls = WRONG_SERVER_TLS }) end,
      "needs tls", function() one:listen("tls://127.0.0.1:0") end,
      "needs tls", function() one:listen("wss://127.0.0.1:0") end,
      "needs tls", function() broker.listen("wss://127.0.0.1:0") end,
    })
  end,

  ["SMTP"] = function()
    refused({
      TLS, function() smtp.connect("smtps://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() smtp.connect("smtp://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() smtp.send("smtp://127.0.0.1:1", MESSAGE, { tls = WRONG_TLS }) end,
      TLS, function() smtp.pool("smtp://127.0.0.1:1", { tls = WRONG_TLS }) end,
      TLS, function() smtp.outbox("/nowhere/x.db", "smtp://127.0.0.1:1", { tls = WRONG_TLS }) end,
      SERVER_TLS, function() sink.new({ tls = WRONG_SERVER_TLS }) end,
      SERVER_TLS, function() sink.listen("tcp://127.0.0.1:0", { tls = WRONG_SERVER_TLS }) end,
      SERVER_TLS, function() sink.listen("tls://127.0.0.1:0", { tls = WRONG_SERVER_TLS }) end,
      "needs tls", function() sink.listen("tls://127.0.0.1:0") end,
      "unknown option", function() smtp.connect("smtp://127.0.0.1:1", { timeouts = { greting = 1 } }) end,
      "greeting", function() smtp.connect("smtp://127.0.0.1:1", { timeouts = { greeting = "x" } }) end,
      "unknown option", function() smtp.send("smtp://127.0.0.1:1", MESSAGE, { timeouts = { greting = 1 } }) end,
      "unknown option", function() smtp.pool("smtp://127.0.0.1:1", { timeouts = { greting = 1 } }) end,
      "unknown option", function() smtp.outbox("/nowhere/x.db", "smtp://127.0.0.1:1", { timeouts = { greting = 1 } }) end,
      "unknown option", function() smtp.connect("smtp://127.0.0.1:1", { dkim = { domian = "x" } }) end,
      "unknown option", function() smtp.send("smtp://127.0.0.1:1", MESSAGE, { dkim = { domian = "x" } }) end,
      "unknown option", function() smtp.pool("smtp://127.0.0.1:1", { dkim = { { domian = "x" } } }) end,
      "dkim needs domain", function() smtp.connect("smtp://127.0.0.1:1", { dkim = {} }) end,
      "dkim needs key", function() smtp.pool("smtp://127.0.0.1:1", { dkim = { domain = "a", selector = "b" } }) end,
      "dkim", function() smtp.outbox("/nowhere/x.db", "smtp://127.0.0.1:1", { dkim = { domain = "a b", selector = "b", key = "k" } }) end,
      "auth", function() smtp.connect("smtp://127.0.0.1:1", { auth = { "NTLM" } }) end,
      "local_address", function() smtp.connect("smtp://127.0.0.1:1", { local_address = "here" }) end,
      "local_address", function() smtp.pool("smtp://127.0.0.1:1", { local_address = "here" }) end,
      "unknown option", function() smtp.send("smtp://127.0.0.1:1", { form = "a@b" }) end,
      "unknown option", function() smtp.send("smtp://127.0.0.1:1", { from = "a@b", to = "c@d", attachments = { { nme = "x" } } }) end,
    })
  end,
}
