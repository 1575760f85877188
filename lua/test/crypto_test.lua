local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local test = require("test")

local ALGORITHMS = { "md5", "sha1", "sha256", "sha512", "sha512_256" }

--- The digest of `data` in hex, by the function of that name.
local function digest(algorithm, data)
  return hex.encode(crypto[algorithm](data))
end

local function hmac(algorithm, key, data)
  return hex.encode(crypto.hmac(algorithm, key, data))
end

local MILLION = ("a"):rep(1000000)

return {
  ["the vectors of RFC 1321 for md5"] = function()
    test.equal(digest("md5", ""), "d41d8cd98f00b204e9800998ecf8427e")
    test.equal(digest("md5", "a"), "0cc175b9c0f1b6a831c399e269772661")
    test.equal(digest("md5", "abc"), "900150983cd24fb0d6963f7d28e17f72")
    test.equal(digest("md5", "message digest"), "f96b697d7cb7938d525a2f31aaf161d0")
    test.equal(digest("md5", ("1234567890"):rep(8)), "57edf4a22be3c955ac49da2e2107b67a")
  end,

  ["the vectors of RFC 6234, 8.5, for sha1"] = function()
    test.equal(digest("sha1", "abc"), "a9993e364706816aba3e25717850c26c9cd0d89d")
    test.equal(digest("sha1", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), "84983e441c3bd26ebaae4aa1f95129e5e54670f1")
    test.equal(digest("sha1", MILLION), "34aa973cd4c4daa4f61eeb2bdbad27316534016f")
    test.equal(digest("sha1", ("01234567"):rep(80)), "dea356a2cddd90c7a7ecedc5ebb563934f460452")
  end,

  ["the vectors of RFC 6234, 8.5, for sha256"] = function()
    test.equal(digest("sha256", "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    test.equal(
      digest("sha256", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    )
    test.equal(digest("sha256", MILLION), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
    test.equal(digest("sha256", ""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
  end,

  ["the vectors of RFC 6234, 8.5, for sha512"] = function()
    test.equal(
      digest("sha512", "abc"),
      "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
    )
    test.equal(
      digest("sha512", MILLION),
      "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973ebde0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"
    )
  end,

  ["the vectors of FIPS 180-4 for sha512_256"] = function()
    test.equal(digest("sha512_256", "abc"), "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23")
    test.equal(
      digest(
        "sha512_256",
        "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"
      ),
      "3928e184fb8690f840da3988121d31be65cb9d3ef83ee6146feac861e19b563a"
    )
  end,

  ["the vectors of RFC 4231 for hmac"] = function()
    local long_key = ("\xaa"):rep(131)
    test.equal(hmac("sha256", ("\x0b"):rep(20), "Hi There"), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")
    test.equal(
      hmac("sha512", ("\x0b"):rep(20), "Hi There"),
      "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"
    )
    test.equal(
      hmac("sha256", "Jefe", "what do ya want for nothing?"),
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    test.equal(
      hmac("sha256", long_key, "Test Using Larger Than Block-Size Key - Hash Key First"),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    )
  end,

  ["the vectors of RFC 2202 for hmac"] = function()
    test.equal(hmac("md5", ("\x0b"):rep(16), "Hi There"), "9294727a3638bb1c13f48ef8158bfc9d")
    test.equal(hmac("md5", "Jefe", "what do ya want for nothing?"), "750c783e6ab0b503eaa86e310a5db738")
    test.equal(hmac("sha1", ("\x0b"):rep(20), "Hi There"), "b617318655057264e28bc0b6fb378c8ef146be00")
    test.equal(hmac("sha1", "Jefe", "what do ya want for nothing?"), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")
  end,

  ["the vectors of RFC 6070 for pbkdf2"] = function()
    local function derive(...) return hex.encode(assert(crypto.pbkdf2("sha1", ...))) end
    test.equal(derive("password", "salt", 1, 20), "0c60c80f961f0e71f3a9b524af6012062fe037a6")
    test.equal(derive("password", "salt", 2, 20), "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957")
    test.equal(derive("password", "salt", 4096, 20), "4b007901b765489abead49d926f721d065a429c1")
    test.equal(
      derive("passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096, 25),
      "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"
    )
    test.equal(derive("pass\0word", "sa\0lt", 4096, 16), "56fa6aa75548099dcc37d7f03425e0c3")
  end,

  ["the vector of RFC 7914, 11, for pbkdf2 with sha256"] = function()
    test.equal(
      hex.encode(assert(crypto.pbkdf2("sha256", "passwd", "salt", 1, 64))),
      "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"
    )
  end,

  ["the derived key is one digest long unless asked"] = function()
    test.equal(#crypto.pbkdf2("md5", "p", "s", 1), 16)
    test.equal(#crypto.pbkdf2("sha512", "p", "s", 1), 64)
    test.equal(#crypto.pbkdf2("sha1", "p", "s", 1, 1024), 1024)
  end,

  ["more rounds than a second takes are refused"] = function()
    test.fails("limit", crypto.pbkdf2("sha256", "p", "s", 2000001))
    test.fails("limit", crypto.pbkdf2("sha256", "p", "s", 4294967295))
    test.fails("limit", crypto.pbkdf2("sha256", "p", "s", 1000001, 64))
  end,

  ["a digest in pieces is the digest of the whole"] = function()
    for _, algorithm in ipairs(ALGORITHMS) do
      local text = ("The quick brown fox "):rep(20)
      for cut = 0, #text, 7 do
        local pieces = crypto.new_digest(algorithm):update(text:sub(1, cut), text:sub(cut + 1))
        test.equal(pieces:finish(), crypto[algorithm](text))
      end
      test.equal(crypto.new_digest(algorithm):finish(), crypto[algorithm](""))
      local buffered = crypto.new_digest(algorithm):update(cosocket.buffer("ab")):update("c")
      test.equal(buffered:finish(), crypto[algorithm]("abc"))
    end
  end,

  ["a finished digest is of no more use"] = function()
    local done = crypto.new_digest("sha1")
    done:finish()
    test.raises("already been called", done.finish, done)
    test.raises("already been called", done.update, done, "x")
  end,

  ["two digests do not mix"] = function()
    local one, other = crypto.new_digest("sha256"), crypto.new_digest("sha256")
    one:update("a")
    other:update("b")
    test.equal(one:finish(), crypto.sha256("a"))
    test.equal(other:finish(), crypto.sha256("b"))
  end,

  ["equal is about bytes"] = function()
    test.equal(crypto.equal("", ""), true)
    test.equal(crypto.equal("abc", "abc"), true)
    test.equal(crypto.equal("abc", "abd"), false)
    test.equal(crypto.equal("xbc", "abc"), false)
    test.equal(crypto.equal("abc", "ab"), false)
    test.equal(crypto.equal("a\0b", "a\0c"), false)
    test.equal(crypto.equal(cosocket.buffer("abc"), "abc"), true)
  end,

  ["one buffer may be several arguments"] = function()
    local buffer = cosocket.buffer("abc")
    test.equal(crypto.equal(buffer, buffer), true)
    test.equal(crypto.hmac("sha256", buffer, buffer), crypto.hmac("sha256", "abc", "abc"))
    test.equal(crypto.pbkdf2("sha256", buffer, buffer, 1), crypto.pbkdf2("sha256", "abc", "abc", 1))
    test.equal(crypto.new_digest("md5"):update(buffer, buffer):finish(), crypto.md5("abcabc"))
  end,

  ["random bytes are as many as asked, and others each time"] = function()
    for _, count in ipairs { 0, 1, 16, 1000, 1048576 } do test.equal(#crypto.random_bytes(count), count) end
    test.equal(crypto.random_bytes(16) ~= crypto.random_bytes(16), true)
    local seen, kinds = {}, 0
    for byte in crypto.random_bytes(10000):gmatch(".") do
      if not seen[byte] then seen[byte], kinds = true, kinds + 1 end
    end
    -- A byte that is missing from 10000 random ones comes once in 10^14 runs.
    test.equal(kinds >= 255, true)
  end,

  ["wrong arguments raise"] = function()
    test.raises('crypto.hmac: unknown algorithm "sha265"; did you mean "sha256"?', crypto.hmac, "sha265", "", "")
    test.raises("unknown algorithm", crypto.new_digest, "crc32")
    test.raises("unknown algorithm", crypto.pbkdf2, "SHA256", "", "", 1)
    test.raises("cosocket.Buffer", crypto.sha256, 5)
    test.raises("cosocket.Buffer", crypto.hmac, "sha256", "key")
    test.raises("iterations must be from 1", crypto.pbkdf2, "sha1", "", "", 0)
    test.raises("length must be from 1 to 1024, not 1025", crypto.pbkdf2, "sha1", "", "", 1, 1025)
    test.raises("the count must be from 0 to 1048576, not %-1", crypto.random_bytes, -1)
    test.raises("the count must be from 0 to 1048576, not 1048577", crypto.random_bytes, 1048577)
  end,
}
