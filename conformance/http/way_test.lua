-- The way to a server: TLS that must be refused, proxies.
local http = require("http")
local test = require("test")
local web = require("web")

local CA = { ca = web.certificate("ca") }

--- A case for a server that must not be trusted.
local function refuses(server, tls, pattern)
  return function()
    local answer, err = http.get(web.secure_url(server, "/small.txt"), { tls = tls })
    test.fails("tls", answer, err)
    test.matches(tostring(err):lower(), pattern)
  end
end

local function proxy(listener, login)
  local scheme = listener:find("socks") and "socks5" or "http"
  return ("%s://%s127.0.0.1:%s"):format(scheme, login and ("%s:%s@"):format(web.user, login) or "", web.ports[listener])
end

return {
  ["TLS: a good certificate is taken, and the connection kept"] = function()
    local client <close> = http.client({ tls = CA })
    for _ = 1, 3 do test.equal(assert(client:get(web.secure_url("tls", "/small.txt"))).body, "small\n") end
    test.equal({ client:connections() }, { 0, 1 })
  end,
  ["TLS: an expired certificate is refused"] = refuses("expired", CA, "expired"),
  ["TLS: a certificate for another name is refused"] = refuses("wrong_name", CA, "name"),
  ["TLS: a certificate that signed itself is refused"] = refuses("self_signed", CA, "unknown"),
  ["TLS: an authority that is not known is refused"] = refuses("tls", { ca = web.certificate("other_ca") }, "unknown"),
  ["TLS: the platform's authorities do not know this one"] = refuses("tls", nil, "unknown"),
  ["TLS: another key than the pinned one is refused"] = refuses("tls", { ca = CA.ca, pin_sha256 = ("00"):rep(32) }, "pin"),
  ["TLS 1.1 is refused"] = refuses("tls11", { ca = web.folder .. "/self.pem" }, ""),
  ["TLS 1.2 is taken, but not where 1.3 is the least"] = function()
    local url, root = web.secure_url("chain", "/small.txt"), web.folder .. "/root.pem"
    test.equal(assert(http.get(url, { tls = { ca = root } })).status, 200)
    test.fails("tls", http.get(url, { tls = { ca = root, min_version = "1.3" } }))
    test.equal(assert(http.get(web.secure_url("tls", "/small.txt"), { tls = { ca = CA.ca, min_version = "1.3" } })).status, 200)
  end,
  ["[RFC 8446 4.4.2] TLS: a chain in the wrong order is put in order"] = function()
    local tls = { ca = web.folder .. "/root.pem" }
    test.equal(assert(http.get(web.secure_url("chain", "/small.txt"), { tls = tls })).body, "small\n")
  end,
  ["TLS: a client's certificate lets in, and without one there is no answer"] = function()
    local tls = { ca = CA.ca, certificate = web.certificate("client"), key = web.key("client") }
    test.equal(assert(http.get(web.secure_url("mutual", "/small.txt"), { tls = tls })).body, "small\n")
    local answer, err = http.get(web.secure_url("mutual", "/small.txt"), { tls = CA })
    -- nginx answers 400 on a connection that it has accepted.
    test.truthy(err and err.kind == "tls" or answer.status == 400)
  end,

  ["[RFC 9112 3.2.2] a proxy forwards, and wants its login"] = function()
    local options = { proxy = proxy("proxy", web.password) }
    test.equal(assert(http.get(web.url("nginx", "/small.txt"), options)).body, "small\n")
    -- The proxy may end the connection that the first request went over just when the next is under way, and a POST is
    -- not sent twice: it gets a connection of its own.
    local client <close> = http.client(options)
    test.equal(assert(client:post(web.url("strict", "/echo"), { body = "through" })).body, "through")
    test.equal(assert(http.get(web.url("nginx", "/small.txt"), { proxy = proxy("proxy") })).status, 407)
  end,
  ["[RFC 9110 9.3.6] a proxy opens a tunnel, with TLS from end to end"] = function()
    local options = { proxy = proxy("proxy", web.password), tls = CA }
    test.equal(assert(http.get(web.secure_url("tls", "/small.txt"), options)).body, "small\n")
    local answer, err = http.get(web.secure_url("tls"), { proxy = proxy("proxy"), tls = CA })
    test.fails("refused", answer, err)
    test.equal(err.code, 407)
    answer, err = http.get(web.secure_url("tls"), { proxy = proxy("proxy", "wrong"), tls = CA })
    test.fails("refused", answer, err)
    test.falsy(tostring(err):find("wrong", 1, true), "a password is shown")
  end,
  ["[RFC 1928] a SOCKS5 proxy opens a tunnel to names and addresses"] = function()
    local options = { proxy = proxy("socks"), tls = CA }
    test.equal(assert(http.get(web.url("nginx", "/small.txt"), options)).body, "small\n")
    test.equal(assert(http.get(web.secure_url("tls", "/small.txt"), options)).body, "small\n")
    test.fails("connect", http.get("http://127.0.0.1:1/", options))
    test.fails("connect", http.get("http://no-such-host.invalid/", options))
  end,
  ["[RFC 1929] a SOCKS5 proxy wants its login"] = function()
    local url = web.url("nginx", "/small.txt")
    test.equal(assert(http.get(url, { proxy = proxy("socks_password", web.password) })).body, "small\n")
    test.fails("refused", http.get(url, { proxy = proxy("socks_password", "wrong") }))
    test.fails("refused", http.get(url, { proxy = proxy("socks_password") }))
  end,
  ["a proxy that is not there is no way"] = function()
    test.fails("connect", http.get(web.url("nginx"), { proxy = "http://127.0.0.1:1" }))
    test.fails("connect", http.get(web.url("nginx"), { proxy = "socks5://127.0.0.1:1" }))
  end,
}
