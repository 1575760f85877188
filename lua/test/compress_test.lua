local base64 = require("base64")
local compress = require("compress")
local cosocket = require("cosocket")
local public_suffix = require("public_suffix")
local test = require("test")

--- Forty lines, and what other programs made of them.
local lines = {}
for i = 1, 40 do lines[i] = ("line %d of a page that compresses well\n"):format(i) end
local TEXT = table.concat(lines)

local ENCODED = {
  gzip = "H4sIAAAAAAACA43UzQ3CQAxE4TtVuATGE/7KWSEHkBYSsZFoH1EB7/5O88nuj1eFYpmjxdpuFdu9bXFdnuu7xqgRn+p9139VosqomlB1QNURVSdUnVF1QZX2LGPri80vtr8YgJiAGIGYgRiCmEIyhYQ3wBSSKSRTSKaQTCGZQjKFZApmCmYKhq+IKZgpmCmYKZgpmCmYKUx/Fb40iZogDwYAAA==",
  zlib = "eNqN1M0NwkAMROE7VbgExhP+ylkhB5AWErGRaB9RAe/+TvPJ7o9XhWKZo8XabhXbvW1xXZ7ru8aoEZ/qfdd/VaLKqJpQdUDVEVUnVJ1RdUGV9ixj64vNL7a/GICYgBiBmIEYgphCMoWEN8AUkikkU0imkEwhmUIyhWQKZgpmCoaviCmYKZgpmCmYKZgpmClMfxW+IPUYkw==",
  raw = "jdTNDcJADEThO1W4BMYT/spZIQeQFhKxkWgfUQHv/k7zye6PV4VimaPF2m4V271tcV2e67vGqBGf6n3Xf1WiyqiaUHVA1RFVJ1SdUXVBlfYsY+uLzS+2vxiAmIAYgZiBGIKYQjKFhDfAFJIpJFNIppBMIZlCMoVkCmYKZgqGr4gpmCmYKZgpmCmYKZgpTH8Vvg==",
  br = "Gw4GoBSh0lU68xMKYJP+hgebDoYCOwD6rBDSwCKMEio1HlcWNq0FF4jvxcUu9H2tn+dHdJ+oq3uPnr169+n7gQYQCDgIkKBAg+k7QQYIBBwESFCgwfSd4AYIBBwESFCgwfQdCgM=",
  zstd = "KLUv/QQILQMAEoUQEaBvIGBBr55UNQy2JJUbv1U8QRxTyBDvHf6YQoZ47+DHFDLEe4c+ppAh3sF76nJVtSo6oUxsUbOsGJqMeEluVtG9KKgRoLv/Z/A1AxE0BP//DcEf/vXt/90/vgKEuuEEJDUL1W7k",
  zstd_many = "KLUv/WC8AWUDAKQDbGluZSAxIG9mIGEgcGFnZSB0aGF0IGNvbXByZXNzZXMgd2VsbAoyMzQ1Njc4OTEwMTExMTExMTExORIAEfeRh/tcw33Ywn0k4T53cB9WcB8ZuM+ltR4EHgY8AjwHPAx4BHgOeBjwwulST1MqTRgFAAAAaGVsbG8otS/9BACVAgDSww0SgNsBQBjY0DQdiYWH3XVx0F1YoaiEjilkiEBUQscUMkQY7wkjiLHzb9/btkrKjtfDb7fq1xt9FagQ6Ov/GfA1AxD+/28EP/7ve1/mlZAytEh6xg==",
  gzip_many = "H4sIAAAAAAACA43RywmAMBQF0b1VvBK8/i0nyPMD0QQj2L7YwezPaiYel5ssrRYsh83t2cNjSzrz7aV4sddjrOKvGqRapDqkeqQGpEakJqRmpFQzxuqL5RfrLzZA7IDYArEHYhM0f7VrB1e8AgAAH4sIAAAAAAACA43RuQ2AMBBFwZwqtgTgc5ZjoeWQDFjYEu1TAi+fbOxeLVgKm1vZQ7HlPtPjOXu212Os4nG5tbUh1jDWMibGOsZ6xgbGRsYmxmbExBbEFsQWxBbEFsQWxBbEFsQWxBa634UPTYH7HlMDAAA=",
}
--- No bytes, as a frame with a checksum.
local ZSTD_EMPTY = "KLUv/QQAAQAAmenYUQ=="
--- 64 MiB of zeros.
local BROTLI_BOMB = "y///PwAkAOKxQHLv//j//weABEAcFoDu/R////8AkACIwwLQvf/j//8fABIAcVgAuvd//P//A0ACIA4LQPf+j///fwBIAMRhAeje//H//w8ACYA4LADd+z/+//8BIAEQhwWge/83"

local CODINGS = { zlib = "deflate", raw = "deflate", zstd_many = "zstd", gzip_many = "gzip" }

--- Decodes `pieces`, with so much room at once.
local function decode(coding, pieces, room, options)
  local decoder = compress.decoder(coding, options)
  local input, output = cosocket.buffer(), cosocket.buffer()
  for _, piece in ipairs(pieces) do
    input:append(piece)
    local drained, err
    repeat
      local before = #output
      drained, err = decoder:decode(input, output, room)
      if drained == nil then return nil, err end
      assert(#output - before <= (room or 65536), "more came out than there was room for")
    until drained
    assert(#input == 0, "drained means that all is used")
  end
  local ok, err = decoder:finish()
  if not ok then return nil, err end
  return output:take()
end

local function each(check)
  local names = {}
  for name in pairs(ENCODED) do names[#names + 1] = name end
  table.sort(names) -- so that a seed means the same each time
  for _, name in ipairs(names) do
    local text = ENCODED[name]
    check(CODINGS[name] or name, assert(base64.decode(text)), name)
  end
end

return {
  ["what other programs made is decoded"] = function()
    each(function(coding, bytes, name) test.equal(decode(coding, { bytes }), TEXT, name) end)
  end,

  ["a body cut at any byte is the same body"] = function()
    each(function(coding, bytes, name)
      test.every_cut(bytes, function(first, second)
        if decode(coding, { first, second }) ~= TEXT then test.equal("another text", TEXT, name) end
      end)
    end)
  end,

  ["bytes that come one by one into room for one make the same body"] = function()
    each(function(coding, bytes, name)
      local pieces = {}
      for i = 1, #bytes do pieces[i] = bytes:sub(i, i) end
      test.equal(decode(coding, pieces, 1), TEXT, name)
      test.equal(decode(coding, { bytes }, 1), TEXT, name)
    end)
  end,

  ["a body that was cut short is not whole"] = function()
    each(function(coding, bytes, name)
      for length = 0, #bytes - 1 do
        local whole, err = decode(coding, { bytes:sub(1, length) })
        -- Where a first member or frame ends is an end.
        if whole and whole ~= TEXT:sub(1, 700) then test.equal(whole, nil, name) end
        if not whole then test.equal(err.kind, "protocol") end
      end
    end)
  end,

  ["bytes after the end are refused"] = function()
    each(function(coding, bytes) test.fails("protocol", decode(coding, { bytes .. "x" })) end)
    each(function(coding, bytes) test.fails("protocol", decode(coding, { bytes, "more" })) end)
  end,

  ["a wrong checksum is noticed"] = function()
    for _, name in ipairs({ "gzip", "zlib", "zstd" }) do
      local bytes = base64.decode(ENCODED[name])
      local at = name == "gzip" and #bytes - 5 or #bytes
      local wrong = bytes:sub(1, at - 1) .. string.char(bytes:byte(at) ~ 1) .. bytes:sub(at + 1)
      test.fails("protocol", decode(CODINGS[name] or name, { wrong }))
    end
  end,

  ["random damage is an error or another text, and never more"] = function()
    local draw = test.random()
    each(function(coding, bytes)
      for _ = 1, 60 do
        local at = draw(#bytes)
        local damaged = bytes:sub(1, at - 1) .. string.char(draw(0, 255)) .. bytes:sub(at + 1)
        local text, err = decode(coding, { damaged }, 997, { size_max = 1 << 20 })
        test.truthy(text or err.kind == "protocol" or err.kind == "limit")
      end
    end)
    for _ = 1, 200 do
      local text, err = decode(draw:pick({ "gzip", "deflate", "br", "zstd" }), { draw:bytes(draw(100)) }, 100)
      test.truthy(text or err.kind)
    end
  end,

  ["no bytes at all are a body when encoded as such"] = function()
    test.equal(decode("zstd", { base64.decode(ZSTD_EMPTY) }), "")
    test.fails("protocol", decode("zstd", {}))
    test.fails("protocol", decode("gzip", {}))
  end,

  ["a decoder stops at size_max, and stays stopped"] = function()
    local decoder = compress.decoder("gzip", { size_max = 1000 })
    local input, output = cosocket.buffer(base64.decode(ENCODED.gzip)), cosocket.buffer()
    test.fails("limit", decoder:decode(input, output))
    test.fails("limit", decoder:decode(cosocket.buffer(), output))
    test.fails("limit", decoder:finish())
    test.equal(#decode("gzip", { base64.decode(ENCODED.gzip) }, nil, { size_max = #TEXT }), #TEXT)
  end,

  ["a bomb is stopped by its ratio long before it has gone off"] = function()
    local decoder = compress.decoder("br")
    local input, output = cosocket.buffer(base64.decode(BROTLI_BOMB)), cosocket.buffer()
    local drained, err
    repeat drained, err = decoder:decode(input, output, 65536) until drained ~= false
    test.fails("limit", drained, err)
    test.truthy(#output <= 2 << 20)
    local whole = decode("br", { base64.decode(BROTLI_BOMB) }, 1 << 24, { ratio_max = 10000000 })
    test.equal(#whole, 64 << 20)
  end,

  ["a window larger than RFC 9659 allows is refused"] = function()
    -- Magic number, a frame with a window descriptor of 2^(10+14) bytes, one empty last block.
    test.fails("protocol", decode("zstd", { "\x28\xB5\x2F\xFD\x00\x70\x01\x00\x00" }))
    test.equal(decode("zstd", { "\x28\xB5\x2F\xFD\x00\x68\x01\x00\x00" }), "")
  end,

  ["what the encoder makes is decoded"] = function()
    local draw = test.random()
    for level = 0, 9, 3 do
      local encoder, output = compress.encoder("gzip", { level = level }), cosocket.buffer()
      local parts = {}
      for i = 1, 20 do
        parts[i] = draw(2) == 1 and draw:bytes(draw(5000)) or ("x"):rep(draw(100000))
        assert(encoder:encode(parts[i], output, i % 5 == 0))
      end
      assert(encoder:finish(output))
      test.equal(decode("gzip", { output:take() }, 4096) == table.concat(parts), true)
    end
  end,

  ["flushed bytes can be decoded before the end"] = function()
    local encoder, wire, output = compress.encoder("gzip"), cosocket.buffer(), cosocket.buffer()
    assert(encoder:encode("a first event", wire, true))
    test.equal(compress.decoder("gzip"):decode(wire, output), true)
    test.equal(output:take(), "a first event")
  end,

  ["wrong arguments raise"] = function()
    test.raises("unknown coding", function() compress.decoder("lzw") end)
    test.raises("unknown option", function() compress.decoder("gzip", { size = 1 }) end)
    test.raises("ratio_max", function() compress.decoder("gzip", { ratio_max = 0 }) end)
    test.raises("room", function() compress.decoder("gzip"):decode(cosocket.buffer(), cosocket.buffer(), 0) end)
    test.raises("known: gzip", function() compress.encoder("br") end)
    test.raises("level", function() compress.encoder("gzip", { level = 10 }) end)
    local encoder = compress.encoder("gzip")
    encoder:finish(cosocket.buffer())
    test.raises("already", function() encoder:finish(cosocket.buffer()) end)
  end,

  ["public suffixes and the names registered below them are known"] = function()
    for name, known in pairs({
      ["www.example.com"] = { "com", "example.com" },
      ["example.co.uk"] = { "co.uk", "example.co.uk" },
      ["a.b.someone.github.io"] = { "github.io", "someone.github.io" },
      ["www.ck"] = { "ck", "www.ck" }, -- an exception to *.ck
      ["x.y.other.ck"] = { "other.ck", "y.other.ck" },
      ["device.lan"] = { "lan", "device.lan" },
    }) do
      test.equal({ public_suffix.of(name), public_suffix.registrable(name) }, known, name)
    end
    test.equal(public_suffix.registrable("com"), nil)
    test.equal(public_suffix.of("github.io"), "github.io")
    test.equal(public_suffix.registrable("github.io"), nil)
  end,
}
