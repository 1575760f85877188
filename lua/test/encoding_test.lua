local base64 = require("base64")
local cosocket = require("cosocket")
local hex = require("hex")
local test = require("test")

return {
  ["the vectors of RFC 4648, 10, for base64"] = function()
    local vectors = { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=", foobar = "Zm9vYmFy" }
    for data, text in pairs(vectors) do
      test.equal(base64.encode(data), text)
      test.equal(base64.decode(text), data)
      local bare = text:gsub("=", "")
      test.equal(base64.encode(data, { padding = false }), bare)
      test.equal(base64.decode(bare, { padding = false }), data)
    end
  end,

  ["the alphabet for URLs has - and _ and no padding unless asked"] = function()
    local data = "\xfb\xff\xbf\xff"
    test.equal(base64.encode(data), "+/+//w==")
    test.equal(base64.encode(data, { url = true }), "-_-__w")
    test.equal(base64.encode(data, { url = true, padding = true }), "-_-__w==")
    test.equal(base64.decode("-_-__w", { url = true }), data)
    test.equal(base64.decode("-_-__w==", { url = true, padding = true }), data)
    test.fails("protocol", base64.decode("+/+//w", { url = true }))
    test.fails("protocol", base64.decode("-_-__w=="))
  end,

  ["every byte and length comes back"] = function()
    local all = {}
    for byte = 0, 255 do all[#all + 1] = string.char(byte) end
    local data = table.concat(all)
    for n = 0, #data do
      local piece = data:sub(1, n)
      test.equal(base64.decode(base64.encode(piece)), piece)
      test.equal(base64.decode(base64.encode(piece, { url = true }), { url = true }), piece)
      test.equal(hex.decode(hex.encode(piece)), piece)
    end
  end,

  ["base64 that is not exactly what would be written is refused"] = function()
    for _, text in ipairs { "Z", "Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "Zm9vYg==\n", "Zm9v Yg==", "Zg==Zg==", "====", "Zm$v", "\0\0\0\0" } do
      test.fails("protocol", base64.decode(text))
    end
    test.fails("protocol", base64.decode("Zg==", { padding = false }))
  end,

  ["the vectors of RFC 4648, 10, for hex"] = function()
    test.equal(hex.encode("foobar"), "666f6f626172")
    test.equal(hex.decode("666F6f626172"), "foobar")
    test.equal(hex.decode(""), "")
  end,

  ["broken hex is refused, with its position"] = function()
    for _, text in ipairs { "0", "0g", "0x00", " 00", "00 ", "é" } do test.fails("protocol", hex.decode(text)) end
    local _, err = hex.decode("00zz")
    test.equal(tostring(err.message), '"z" at position 3 is not in the alphabet')
    test.equal(err.op, "hex.decode")
  end,

  ["buffers are taken like strings"] = function()
    test.equal(base64.encode(cosocket.buffer("foo")), "Zm9v")
    test.equal(base64.decode(cosocket.buffer("Zm9v")), "foo")
    test.equal(hex.encode(cosocket.buffer("foo")), "666f6f")
  end,

  ["wrong arguments raise"] = function()
    test.raises("cosocket.Buffer", base64.encode, 5)
    test.raises("cosocket.Buffer", hex.decode, {})
    test.raises('unknown option "urll"; did you mean "url"?', base64.encode, "", { urll = true })
    test.raises('option "padding" must be a boolean', base64.decode, "", { padding = 1 })
  end,
}
