-- Whom we trust, and who trusts us.
-- run for: version

local broker = require("broker")
local test = require("test")

--- The address of a listener that shows a certificate.
---@param name string
---@return string
local function listener(name)
  if not broker.urls[name] then broker.requires("certificates of a listener's own") end
  return broker.needs(broker.urls[name], "brokers with certificates of the harness")
end

--- Connects, and shows that messages pass.
---@param options table
local function works(options)
  local client <close> = broker.connect(options)
  local topic = broker.topic()
  local inbox = broker.inbox(client, topic)
  broker.publish(client, topic, "through")
  test.equal(broker.next(inbox).payload, "through")
end

return broker.cases({
  ["[RFC 5280 6.1] a broker whose certificate our authority signed is trusted"] = function()
    works({ url = listener("tls") })
  end,

  ["[RFC 5280 6.1] the authority may be given as text"] = function()
    local url = listener("tls")
    local file <close> = assert(io.open(broker.ca))
    works({ url = url, ca = file:read("a") })
  end,

  ["[RFC 5280 6.1] without our authority the broker is refused: nobody known signed it"] = function()
    local err = test.fails("tls", broker.try_connect({ url = listener("tls"), ca = false }))
    test.matches(tostring(err):lower(), "authority")
  end,

  ["[RFC 5280 6.1] with another authority the broker is refused: nobody known signed it"] = function()
    local err = test.fails("tls", broker.try_connect({ url = listener("tls"), ca = broker.other_ca }))
    test.matches(tostring(err):lower(), "authority")
  end,

  ["[RFC 5280 6.1.3] an expired certificate is refused, and that is said"] = function()
    local err = test.fails("tls", broker.try_connect({ url = listener("expired") }))
    test.matches(tostring(err):lower(), "expired")
  end,

  ["[RFC 6125 6.4] a certificate for another name is refused, and both names are said"] = function()
    local err = test.fails("tls", broker.try_connect({ url = listener("wrong_name") }))
    test.matches(tostring(err), "localhost")
    test.matches(tostring(err), "elsewhere%.example")
  end,

  ["[RFC 6125 6.4] a name that was asked for is verified instead of the address"] = function()
    works({ url = listener("wrong_name"), tls = { server_name = "elsewhere.example" } })
  end,

  ["[RFC 8446 4.4.2.4] a client certificate of the broker's authority is accepted"] = function()
    works({ url = listener("client_certificate"), tls = { certificate = broker.certificate, key = broker.key } })
  end,

  ["[RFC 8446 4.4.2.4] a client without a certificate is refused where one is required, and hears why"] = function()
    local err = test.fails("tls", broker.try_connect({ url = listener("client_certificate") }))
    test.matches(tostring(err):lower(), "certificate")
  end,

  ["[RFC 8446 4.4.2.4] a client certificate of an unknown authority is refused, and the client hears why"] = function()
    local tls = { certificate = broker.other_certificate, key = broker.other_key }
    local err = test.fails("tls", broker.try_connect({ url = listener("client_certificate"), tls = tls }))
    test.matches(tostring(err):lower(), "unknown ca")
  end,

  ["verification is turned off by a word that says so"] = function()
    works({ url = listener("expired"), ca = false, tls = { insecure = true } })
  end,
})
