-- Logins at Postfix, checked by Dovecot, or at Exim; TLS as it should be, and as it should not.
local server = require("server")
local smtp = require("smtp")
local test = require("test")

local MECHANISMS = { "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256" }

local function message()
  return { from = "a@example.test", to = "b@example.test", subject = "login", message_id = server.identifier(), text = "x\n" }
end

local cases = {
  ["[RFC 4954, 4] the best mechanism that both know is used"] = function()
    for _, url in ipairs({ server.urls.submission, server.urls.smtps }) do
      local client <close> = assert(smtp.connect(url, server.login()))
      local status = client:status()
      test.equal({ status.tls, status.mechanism }, { true, server.mechanism })
    end
  end,

  ["[RFC 3207, 4.2] what the server offers is asked again after TLS"] = function()
    local client <close> = assert(smtp.connect(server.urls.submission, server.login()))
    local extensions = client:status().extensions
    test.equal(extensions.STARTTLS, nil)
    assert(extensions.AUTH)
  end,

  ["a password is not sent without TLS"] = function()
    local client, err = smtp.connect(server.urls.submission, server.login({ starttls = "off", tls = {} }))
    test.fails("tls", client, err)
    test.matches(err.message, "auth_without_tls")
  end,

  ["a server that wants a login says so in its own words"] = function()
    local client <close> = assert(smtp.connect(server.urls.smtps, { tls = { ca = server.ca } }))
    local err = test.fails("refused", client:send(message()))
    test.equal({ err.code, err.status }, { 554, "5.7.1" })
  end,

  ["[RFC 3207, 4.1] a server without STARTTLS is refused unless TLS is optional"] = function()
    local client, err = smtp.connect(server.urls.plain, {})
    test.fails("tls", client, err)
    client = assert(smtp.connect(server.urls.plain, { starttls = "optional" }))
    test.equal(client:status().tls, false)
    client:close()
  end,

  ["a certificate of an authority nobody trusts is refused"] = function()
    for _, url in ipairs({ server.urls.submission, server.urls.smtps }) do
      local client, err = smtp.connect(url, { username = "x", password = "never-sent" })
      test.fails("tls", client, err)
      test.matches(err.message, "authority")
      assert(not tostring(err):find("never%-sent"))
    end
  end,

  ["an expired certificate is refused"] = function()
    local client, err = smtp.connect(server.urls.expired, { tls = { ca = server.ca } })
    test.fails("tls", client, err)
    test.matches(err.message, "expired")
  end,

  ["a certificate for another name is refused"] = function()
    local client, err = smtp.connect(server.urls.wrong_name, { tls = { ca = server.ca } })
    test.fails("tls", client, err)
    test.matches(err.message, "elsewhere%.example")
  end,

  ["a certificate for another name is refused when TLS is optional, too"] = function()
    local client, err = smtp.connect(server.urls.wrong_name, { starttls = "optional", tls = { ca = server.ca } })
    test.fails("tls", client, err)
  end,

  ["insecure takes any certificate, by its name"] = function()
    local client = assert(smtp.connect(server.urls.wrong_name, { tls = { insecure = true } }))
    test.equal(client:status().tls, true)
    client:close()
  end,

  ["a name and password in the address are used and may be encoded"] = function()
    local url = server.urls.smtps:gsub("//", function()
      return ("//%s:%s@"):format(server.user, (server.password:gsub(" ", "%%20")))
    end)
    local client <close> = assert(smtp.connect(url, { tls = { ca = server.ca } }))
    assert(client:send(message()))
  end,
}

for _, mechanism in ipairs(MECHANISMS) do
  cases[("%s lets us in, and a message through"):format(mechanism)] = function()
    for _, url in ipairs({ server.urls.submission, server.urls.smtps }) do
      local client <close> = assert(smtp.connect(url, server.login({ auth = mechanism })))
      test.equal(client:status().mechanism, mechanism)
      local sent = message()
      assert(client:send(sent))
      test.equal(server.arrived(sent.message_id).subject, "login")
    end
  end

  cases[("%s with a wrong password is refused, and nothing is told"):format(mechanism)] = function()
    local options = server.login({ auth = mechanism, password = "wrong-secret" })
    local client, err = smtp.connect(server.urls.submission, options)
    test.fails("refused", client, err)
    test.equal({ err.op, err.code, err.retry, err.mechanism }, { "smtp.auth", 535, false, mechanism })
    test.equal(err.status, server.enhanced and "5.7.8" or nil)
    assert(not tostring(err):find("wrong%-secret"))
  end
end

return cases
