-- SASL mechanisms against the examples of their standards, and against servers that cheat.
local base64 = require("base64")
local crypto = require("crypto")
local sasl = require("smtp.sasl")
local test = require("test")

--- A server's side of SCRAM, which knows the password.
local function scram_server(algorithm, password, options)
  options = options or {}
  local first, nonce, auth_message
  local salt, rounds = options.salt or "salt of the server", options.rounds or 4096
  local salted = crypto.pbkdf2(algorithm, password, salt, math.min(rounds, 5000))
  local server = {}
  function server.first(message)
    first = message:match("^n,[^,]*,(.*)$")
    nonce = (options.nonce or first:match("r=(.*)$")) .. (options.more or "more")
    auth_message = ("r=%s,s=%s,i=%d"):format(nonce, base64.encode(salt), rounds)
    return auth_message
  end
  function server.final(message)
    local without_proof = message:match("^(.*),p=")
    local all = first .. "," .. auth_message .. "," .. without_proof
    local key = crypto.hmac(algorithm, salted, "Client Key")
    local signature = crypto.hmac(algorithm, crypto[algorithm](key), all)
    local proof, expected = base64.decode(message:match(",p=(.*)$")), {}
    for i = 1, #key do expected[i] = string.char(key:byte(i) ~ signature:byte(i)) end
    test.equal(proof, table.concat(expected))
    return "v=" .. base64.encode(crypto.hmac(algorithm, crypto.hmac(algorithm, salted, "Server Key"), all))
  end
  return server
end

local function scram(options)
  local mechanism = assert(sasl.new("SCRAM-SHA-256", { username = "user", password = "pencil" }))
  local server = scram_server("sha256", "pencil", options)
  return mechanism, server
end

return {
  ["SCRAM-SHA-1 is the example of RFC 5802"] = function()
    local mechanism = assert(sasl.new("SCRAM-SHA-1", {
      username = "user",
      password = "pencil",
      nonce = "fyko+d2lbbFgONRv9qkxdawL",
    }))
    test.equal(mechanism.initial, "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL")
    test.equal(
      mechanism.respond("r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"),
      "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
    )
    test.fails("protocol", mechanism.finish())
    test.equal(mechanism.respond("v=rmF9pqV8S7suAoZWja4dJRkFsKQ="), "")
    test.equal(mechanism.finish(), true)
  end,

  ["SCRAM-SHA-256 is the example of RFC 7677"] = function()
    local mechanism = assert(sasl.new("SCRAM-SHA-256", {
      username = "user",
      password = "pencil",
      nonce = "rOprNGfwEbeRWgbNEkqO",
    }))
    test.equal(mechanism.initial, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    test.equal(
      mechanism.respond("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
      "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    test.equal(mechanism.respond("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), "")
    test.equal(mechanism.finish(), true)
  end,

  ["CRAM-MD5 is the example of RFC 2195"] = function()
    local mechanism = assert(sasl.new("CRAM-MD5", { username = "tim", password = "tanstaaftanstaaf" }))
    test.equal(mechanism.initial, nil)
    test.fails("protocol", mechanism.finish())
    test.equal(
      mechanism.respond("<1896.697170952@postoffice.reston.mci.net>"),
      "tim b913a602c7eda7a495b4e6e7334d3890"
    )
    test.equal(mechanism.finish(), true)
    test.fails("protocol", mechanism.respond("again"))
  end,

  ["PLAIN and LOGIN say name and password"] = function()
    local credentials = { username = "tim", password = "tanstaaf" }
    test.equal(sasl.new("PLAIN", credentials).initial, "\0tim\0tanstaaf")
    test.equal(sasl.new("PLAIN", { username = "a", password = "b", authorize_as = "c" }).initial, "c\0a\0b")
    local login = sasl.new("LOGIN", credentials)
    test.equal({ login.respond("Username:"), login.respond("whatever") }, { "tim", "tanstaaf" })
    test.fails("protocol", login.respond("more"))
  end,

  ["tokens are the examples of RFC 7628 and of Google"] = function()
    local bearer = sasl.new("OAUTHBEARER", {
      username = "user@example.com",
      token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==",
      host = "server.example.com",
      port = 143,
    })
    test.equal(
      bearer.initial,
      "n,a=user@example.com,\1host=server.example.com\1port=143\1auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\1\1"
    )
    test.equal(bearer.respond('{"status":"invalid_token","scope":"example_scope"}'), "\1")
    test.equal(bearer.reason, "invalid_token")
    local xoauth2 = sasl.new("XOAUTH2", { username = "a@example.org", token = "ya29" })
    test.equal(xoauth2.initial, "user=a@example.org\1auth=Bearer ya29\1\1")
    test.equal(xoauth2.respond('{"status":"401"}'), "")
    test.fails("protocol", xoauth2.respond("{}"))
  end,

  ["SCRAM with a server that knows the password"] = function()
    for _, algorithm in ipairs({ "sha1", "sha256" }) do
      local name = algorithm == "sha1" and "SCRAM-SHA-1" or "SCRAM-SHA-256"
      local mechanism = assert(sasl.new(name, { username = "a=b,c", password = "пароль" }))
      test.matches(mechanism.initial, "^n,,n=a=3Db=2Cc,r=")
      local server = scram_server(algorithm, "пароль")
      local proof = assert(mechanism.respond(server.first(mechanism.initial)))
      test.equal(mechanism.respond(server.final(proof)), "")
      test.equal(mechanism.finish(), true)
    end
  end,

  ["a server that does not know the password is found out"] = function()
    local mechanism, server = scram()
    local proof = mechanism.respond(server.first(mechanism.initial))
    assert(proof)
    local err = test.fails("protocol", mechanism.respond("v=" .. base64.encode(("x"):rep(32))))
    test.matches(err.message, "does not know the password")
    test.fails("protocol", mechanism.finish())
  end,

  ["a server that lets us in without its signature is found out"] = function()
    local mechanism, server = scram()
    assert(mechanism.respond(server.first(mechanism.initial)))
    test.fails("protocol", mechanism.finish())
    test.fails("refused", mechanism.respond("e=invalid-proof"))
  end,

  ["a nonce that is not ours, or adds nothing, is refused"] = function()
    local mechanism, server = scram({ nonce = "somebody else's" })
    test.fails("protocol", mechanism.respond(server.first(mechanism.initial)))
    mechanism, server = scram({ more = "" })
    test.fails("protocol", mechanism.respond(server.first(mechanism.initial)))
  end,

  ["too many rounds, and too few, are refused before they are made"] = function()
    local mechanism, server = scram({ rounds = 999999999 })
    test.fails("limit", mechanism.respond(server.first(mechanism.initial)))
    mechanism = scram()
    local nonce = mechanism.initial:match("r=(.*)$")
    test.fails("limit", mechanism.respond(("r=%sx,s=AAAA,i=99999999999999999999"):format(nonce)))
    mechanism, server = scram({ rounds = 1 })
    test.fails("protocol", mechanism.respond(server.first(mechanism.initial)))
    mechanism = assert(sasl.new("SCRAM-SHA-256", { username = "user", password = "pencil", iterations_max = 5000 }))
    nonce = mechanism.initial:match("r=(.*)$")
    test.fails("limit", mechanism.respond(("r=%sx,s=AAAA,i=5001"):format(nonce)))
  end,

  ["extensions and other words of a SCRAM server are refused"] = function()
    for _, words in ipairs({ "m=ext,r=x,s=AAAA,i=4096", "r=x", "x", "r=x,s=????,i=4096", "r=x,s=AAAA,i=-1" }) do
      local mechanism = scram()
      test.fails("protocol", mechanism.respond(words))
    end
  end,

  ["two nonces are never the same"] = function()
    local one, other = scram(), scram()
    test.not_equal(one.initial, other.initial)
  end,

  ["the best that both know is chosen"] = function()
    local offered = { PLAIN = true, LOGIN = true, ["CRAM-MD5"] = true, ["SCRAM-SHA-256"] = true, XOAUTH2 = true }
    local with_password = { username = "a", password = "b" }
    test.equal(sasl.suitable(offered, with_password), { "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN" })
    test.equal(sasl.suitable(offered, with_password, { "LOGIN", "PLAIN", "SCRAM-SHA-1" }), { "LOGIN", "PLAIN" })
    test.equal(sasl.suitable(offered, { username = "a", token = "t" }), { "XOAUTH2" })
    test.equal(sasl.suitable({ OAUTHBEARER = true, XOAUTH2 = true }, { token = "t" }), { "OAUTHBEARER" })
    test.equal(sasl.suitable({ GSSAPI = true }, with_password), {})
  end,

  ["no error shows the password"] = function()
    local secret = "s3cr3t-word"
    for _, name in ipairs({ "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN" }) do
      local mechanism = assert(sasl.new(name, { username = "user", password = secret }))
      for _ = 1, 4 do
        local _, err = mechanism.respond("nonsense")
        assert(not tostring(err or ""):find(secret, 1, true), name)
      end
    end
  end,
}
