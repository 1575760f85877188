-- What both sides say of compression, and agree on.
local codec = require("websocket.codec")
local extension = require("websocket.extension")
local handshake = require("websocket.handshake")
local test = require("test")

--- A header lookup on a table.
local function header(values)
  return function(name) return values[name] end
end

local REQUEST = {
  upgrade = "websocket",
  connection = "keep-alive, Upgrade",
  host = "device.local:8080",
  ["sec-websocket-version"] = "13",
  ["sec-websocket-key"] = "dGhlIHNhbXBsZSBub25jZQ==",
}

--- The request with other headers; `false` takes one away.
local function request(changes)
  local values = {}
  for name, value in pairs(REQUEST) do values[name] = value end
  for name, value in pairs(changes or {}) do values[name] = value or nil end
  return header(values)
end

--- The headers of an answer, by name.
local function by_name(list)
  local values = {}
  for _, pair in ipairs(list) do values[pair[1]:lower()] = pair[2] end
  return values
end

return {
  ["a header of extensions is taken apart"] = function()
    test.equal(extension.parse("foo, bar; a; b=1;c=\"x y\" ,permessage-deflate; server_max_window_bits=10"), {
      { name = "foo", parameters = {} },
      { name = "bar", parameters = { a = true, b = "1", c = "x y" } },
      { name = "permessage-deflate", parameters = { server_max_window_bits = "10" } },
    })
    for _, wrong in ipairs({ "", ",", "a,", "a;", "a; =1", "a; b=", "a b", 'a; b="', "a; b; b", "a;b=1;B=2", "\0" }) do
      test.equal(extension.parse(wrong), nil, wrong)
    end
    test.equal(extension.parse(("a,"):rep(16) .. "a"), nil)
    test.equal(extension.parse("a" .. (";b%d"):rep(17):gsub("%%d", "x")), nil)
  end,

  ["an offer says what is wanted"] = function()
    test.equal(extension.offer({}), "permessage-deflate; client_max_window_bits")
    test.equal(
      extension.offer({
        server_no_context_takeover = true,
        client_no_context_takeover = true,
        server_max_window_bits = 10,
        client_max_window_bits = 9,
      }),
      "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; "
        .. "client_max_window_bits=9"
    )
  end,

  ["a client agrees to what answers its offer"] = function()
    local agreed = assert(extension.accepted("permessage-deflate", {}))
    test.equal(agreed.inflate, { window_bits = 15, takeover = true })
    test.equal(agreed.deflate, { window_bits = 15, takeover = true })
    local answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
      .. "server_max_window_bits=9; client_max_window_bits=10"
    agreed = assert(extension.accepted(answer, { client_max_window_bits = 12 }))
    test.equal(agreed.inflate, { window_bits = 9, takeover = false })
    test.equal(agreed.deflate, { window_bits = 10, takeover = false })
    -- We cannot compress with a window of 8 bits, and need not; we can read such.
    agreed = assert(extension.accepted("permessage-deflate; client_max_window_bits=8; server_max_window_bits=8", {}))
    test.equal(agreed.deflate, nil)
    test.equal(agreed.inflate.window_bits, 9)
  end,

  ["a client refuses answers that it did not ask for"] = function()
    local function refused(answer, options)
      local agreed, mistake = extension.accepted(answer, options)
      test.equal(agreed, nil, answer)
      test.equal(type(mistake), "string")
    end
    refused("permessage-deflate", nil)
    refused("x-webkit-deflate-frame", {})
    refused("permessage-deflate, permessage-deflate", {})
    refused("permessage-deflate; unknown", {})
    refused("permessage-deflate; server_no_context_takeover=1", {})
    for _, bits in ipairs({ "7", "16", "015", "x", "9.0", "-9", "1e1" }) do
      refused("permessage-deflate; server_max_window_bits=" .. bits, {})
      refused("permessage-deflate; client_max_window_bits=" .. bits, {})
    end
    refused("permessage-deflate; client_max_window_bits", {})
    refused("permessage-deflate", { server_no_context_takeover = true })
    refused("permessage-deflate", { server_max_window_bits = 10 })
    refused("permessage-deflate; server_max_window_bits=11", { server_max_window_bits = 10 })
  end,

  ["a server takes the first offer that it can keep"] = function()
    local function choose(offer, options)
      local agreed = extension.choose(offer, options or {})
      return agreed and agreed.header, agreed
    end
    test.equal(choose("permessage-deflate"), "permessage-deflate")
    test.equal(choose("other, permessage-deflate; client_max_window_bits"), "permessage-deflate")
    test.equal(choose("other"), nil)
    -- A window of 8 bits is more than we can promise; the next offer will do.
    test.equal(choose("permessage-deflate; server_max_window_bits=8"), nil)
    test.equal(choose("permessage-deflate; server_max_window_bits=8, permessage-deflate"), "permessage-deflate")
    for _, wrong in ipairs({ "x", "server_max_window_bits", "client_max_window_bits=7", "server_no_context_takeover=1" }) do
      test.equal(choose("permessage-deflate; " .. wrong), nil, wrong)
    end
    local answer, agreed = choose("permessage-deflate; server_max_window_bits=10; server_no_context_takeover")
    test.equal(answer, "permessage-deflate; server_no_context_takeover; server_max_window_bits=10")
    test.equal(agreed.deflate, { window_bits = 10, takeover = false })
    test.equal(agreed.inflate, { window_bits = 15, takeover = true })
    answer, agreed = choose("permessage-deflate; client_max_window_bits=12; client_no_context_takeover", {
      client_max_window_bits = 11,
      server_max_window_bits = 9,
    })
    test.equal(
      answer,
      "permessage-deflate; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=11"
    )
    test.equal(agreed.inflate, { window_bits = 11, takeover = false })
    -- A client that has not said it can cannot be limited.
    answer, agreed = choose("permessage-deflate", { client_max_window_bits = 9 })
    test.equal(answer, "permessage-deflate")
    test.equal(agreed.inflate.window_bits, 15)
    local nothing, mistake = extension.choose("permessage-deflate;;", {})
    test.equal(nothing, nil)
    test.equal(type(mistake), "string")
  end,

  ["what one side offers and the other answers is one agreement"] = function()
    for client_bits = 9, 15 do
      for server_bits = 9, 15 do
        local options = {
          client_max_window_bits = client_bits,
          server_max_window_bits = server_bits,
          client_no_context_takeover = client_bits % 2 == 0,
          server_no_context_takeover = server_bits % 2 == 0,
        }
        local server = assert(extension.choose(extension.offer(options), {}))
        local client = assert(extension.accepted(server.header, options))
        test.equal(client.inflate, server.deflate)
        test.equal(client.deflate, server.inflate)
      end
    end
  end,

  ["a request as the standard has it is answered as it says"] = function()
    local headers = assert(handshake.check_request("GET", "1.1", request(), { subprotocols = {} }))
    -- RFC 6455, 1.3
    test.equal(by_name(headers), {
      upgrade = "websocket",
      connection = "Upgrade",
      ["sec-websocket-accept"] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    })
  end,

  ["what one side asks the other side answers"] = function()
    local list, offer = handshake.request({ "mqtt", "chat" }, {}, "http://device.local:8080")
    local values = by_name(list)
    values.host = "device.local:8080"
    local terms = { subprotocols = { "chat", "mqtt" }, compression = {} }
    local answer, agreed = handshake.check_request("GET", "1.1", header(values), terms)
    test.equal(agreed.subprotocol, "chat")
    local ours = assert(handshake.check_response(header(by_name(assert(answer))), offer))
    test.equal(ours.subprotocol, "chat")
    test.equal(ours.compression.deflate, agreed.compression.inflate)
  end,

  ["a request that is none is refused with the status that says why"] = function()
    local function status(changes, method, version)
      local headers, refusal = handshake.check_request(method or "GET", version or "1.1", request(changes), {
        subprotocols = {},
        compression = {},
      })
      test.equal(headers, nil)
      return refusal.status, refusal.headers
    end
    local code, headers = status({ upgrade = false })
    test.equal({ code, headers.Upgrade }, { 426, "websocket" })
    test.equal(status({ upgrade = "h2c" }), 426)
    test.equal(status({ connection = "keep-alive" }), 426)
    code, headers = status({ ["sec-websocket-version"] = "8" })
    test.equal({ code, headers["Sec-WebSocket-Version"] }, { 426, "13" })
    test.equal(status({ ["sec-websocket-version"] = false }), 426)
    test.equal(status({ ["sec-websocket-key"] = false }), 400)
    test.equal(status({ ["sec-websocket-key"] = "c2hvcnQ=" }), 400)
    test.equal(status({ ["sec-websocket-key"] = "not base64 at all!!!!!!!" }), 400)
    test.equal(status({ host = false }), 400)
    test.equal(status({}, "POST"), 405)
    test.equal(status({}, "GET", "1.0"), 400)
    test.equal(status({ ["sec-websocket-extensions"] = "a;;" }), 400)
    test.equal(status({ origin = "http://elsewhere.example" }), 403)
  end,

  ["pages of this server may connect, others only when they are named"] = function()
    local allows = handshake.allows
    test.truthy(allows("http://device.local", "device.local"))
    test.truthy(allows("HTTP://Device.local:80", "device.local"))
    test.truthy(allows("https://device.local", "device.local:443"))
    test.truthy(allows("http://device.local:8080", "device.local:8080"))
    test.falsy(allows("http://device.local:8080", "device.local"))
    test.falsy(allows("http://device.local.example", "device.local"))
    test.falsy(allows("null", "device.local"))
    test.falsy(allows("null", "null"))
    test.falsy(allows("file://", nil))
    test.falsy(allows("http://device.local", "device.local", { "https://app.example" }))
    test.truthy(allows("https://APP.example", "device.local", { "https://app.example" }))
    test.truthy(allows("null", "device.local", "*"))
  end,

  ["an answer that does not answer our request is refused"] = function()
    local _, offer = handshake.request({ "mqtt" }, nil, nil)
    local right = {
      upgrade = "WebSocket",
      connection = "upgrade",
      ["sec-websocket-accept"] = codec.accept_key(offer.key),
    }
    test.equal(handshake.check_response(header(right), offer), {})
    for name, value in pairs({
      upgrade = "h2c",
      connection = "close",
      ["sec-websocket-accept"] = codec.accept_key("other"),
      ["sec-websocket-protocol"] = "chat",
      ["sec-websocket-extensions"] = "permessage-deflate",
    }) do
      local values = {}
      for key, given in pairs(right) do values[key] = given end
      values[name] = value
      local agreed, mistake = handshake.check_response(header(values), offer)
      test.equal(agreed, nil, name)
      test.equal(type(mistake), "string")
    end
  end,
}
