-- Addresses: what is one, what is not, and its two forms.
local address = require("smtp.address")
local test = require("test")

local function parsed(text)
  local one = assert(address.parse(text))
  return { one.name, one.address, one.ascii }
end

return {
  ["an address is taken apart"] = function()
    test.equal(address.parse("jo@example.org"), {
      local_part = "jo",
      domain = "example.org",
      address = "jo@example.org",
      ascii = "jo@example.org",
      smtputf8 = false,
    })
    test.equal(parsed("Jo Doe <jo.doe+tag@example.org>"), { "Jo Doe", "jo.doe+tag@example.org", "jo.doe+tag@example.org" })
    test.equal(address.parse("<jo@example.org>").name, nil)
    test.equal(address.parse({ name = "Doe, Jo", address = "jo@example.org" }).name, "Doe, Jo")
  end,

  ["names may be quoted, have dots, commas, comments, and any script"] = function()
    test.equal(address.parse('"Doe, \\"Jo\\"" <jo@example.org>').name, 'Doe, "Jo"')
    test.equal(address.parse("J. R. Doe <jo@example.org>").name, "J. R. Doe")
    test.equal(address.parse("Jörg Müller <jo@example.org>").name, "Jörg Müller")
    test.equal(address.parse("Jo (the (old) one) Doe <jo@example.org> (at home)").name, "Jo Doe")
    test.equal(address.parse("山田 <jo@example.org>").name, "山田")
  end,

  ["local parts may be quoted, and are written so only where they must be"] = function()
    local one = assert(address.parse('"jo doe"@example.org'))
    test.equal({ one.local_part, one.address }, { "jo doe", '"jo doe"@example.org' })
    test.equal(address.parse('"jo"@example.org').address, "jo@example.org")
    test.equal(address.parse('"a\\"b"@example.org').address, '"a\\"b"@example.org')
    test.equal(address.parse('".a"@example.org').address, '".a"@example.org')
    test.equal(address.parse('""@example.org'), nil)
  end,

  ["domains have a form for the DNS"] = function()
    test.equal(parsed("jo@Bücher.example"), { nil, "jo@Bücher.example", "jo@xn--bcher-kva.example" })
    test.equal(address.parse("jo@EXAMPLE.org").ascii, "jo@example.org")
    test.equal(address.parse("jo@[192.0.2.1]").ascii, "jo@[192.0.2.1]")
    test.equal(address.parse("jo@[IPv6:2001:db8::1]").ascii, "jo@[IPv6:2001:db8::1]")
  end,

  ["a local part that is not ASCII needs SMTPUTF8"] = function()
    local one = assert(address.parse("jörg@bücher.example"))
    test.equal({ one.smtputf8, one.ascii, one.address }, { true, nil, "jörg@bücher.example" })
  end,

  ["lists are separated by commas that are in no name"] = function()
    local list = assert(address.list('"Doe, Jo" <a@example.org>, b@example.org, C <c@example.org>'))
    test.equal({ #list, list[1].name, list[2].address, list[3].name }, { 3, "Doe, Jo", "b@example.org", "C" })
    list = assert(address.list({ "a@example.org", { name = "B", address = "b@example.org" }, "c@x.org, d@x.org" }))
    test.equal(#list, 4)
    test.equal(#assert(address.list({ name = "B", address = "b@example.org" })), 1)
  end,

  ["what is no address is refused"] = function()
    for _, text in ipairs({
      "", "jo", "jo@", "@example.org", "jo@@example.org", "jo doe@example.org", "jo@exa mple.org", "a..b@example.org",
      ".a@example.org", "a.@example.org", "jo@-example.org", "jo@example..org", "<jo@example.org", "Jo jo@example.org>",
      '"jo@example.org', "jo@[300]", "jo@[IPv6:xyz]", "Jo (never <jo@example.org>", "a@b.org b@c.org", "Jo <>",
      "jo@example.org\r\nBcc: x@y.org", "jo@exam\0ple.org", "jo\1@example.org", "\xff@example.org",
      ("x"):rep(65) .. "@example.org", "jo@" .. ("x"):rep(64) .. ".org", "jo@" .. ("x."):rep(130) .. "org",
    }) do
      local err = test.fails("protocol", address.parse(text))
      test.equal(err.op, "smtp.address")
      assert(#err.message < 400, err.message)
    end
  end,

  ["groups and routes are refused, and the error says so"] = function()
    local _, err = address.list("friends: a@example.org, b@example.org;")
    test.matches(tostring(err), "groups")
    _, err = address.parse("Jo <@relay.org:jo@example.org>")
    test.matches(tostring(err), "routes")
  end,

  ["one address is one"] = function()
    test.fails("protocol", address.parse("a@example.org, b@example.org"))
    test.raises("a string or a table is wanted, not a nil", address.parse, nil)
    test.raises("the field address must be a string", address.parse, { name = "x" })
  end,

  ["no text makes the parser raise"] = function()
    local random = test.random()
    local letters = { "a", "@", ".", "<", ">", '"', "\\", "(", ")", ",", ";", ":", " ", "ü", "[", "]", "\xff", "-" }
    for _ = 1, 3000 do
      local made = {}
      for i = 1, random(20) do made[i] = random:pick(letters) end
      local text = table.concat(made)
      local list, err = address.list(text)
      assert(list or err.kind == "protocol", text)
      for _, one in ipairs(list or {}) do
        -- What was understood can be written and understood again.
        local again = assert(address.parse(one.address))
        test.equal(again.local_part, one.local_part)
        test.equal(again.ascii, one.ascii)
      end
    end
  end,
}
