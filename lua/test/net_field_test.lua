local codec = require("http.codec")
local condition = require("http.server.condition")
local cookie = require("http.cookie")
local field = require("net.field")
local handshake = require("websocket.handshake")
local test = require("test")

--- As much as a head may hold.
local SPACES = (" "):rep(65000)
--- Seconds of the processor: a thousand times what it takes, and a small part of what looking twice takes.
local MOMENT = 2

--- Fails when `fn` thinks for long.
local function quick(fn, ...)
  local began = os.clock()
  local answers = table.pack(fn(...))
  test.truthy(os.clock() - began < MOMENT, ("%.1f s of thinking"):format(os.clock() - began))
  return table.unpack(answers, 1, answers.n)
end

return {
  ["white space is taken off both ends, and only there"] = function()
    for text, wanted in pairs({
      [""] = "", [" "] = "", [" \t "] = "", ["a"] = "a", [" a"] = "a", ["a "] = "a", ["\ta b\t"] = "a b", ["\0 "] = "\0",
    }) do
      test.equal(field.trim(text), wanted)
    end
  end,

  ["a list has its members, and no empty ones"] = function()
    test.equal(field.members(nil), {})
    test.equal(field.members(" ,, ,"), {})
    test.equal(field.members("a, b c ,d"), { "a", "b c", "d" })
  end,

  ["a pair is cut at its first equals sign"] = function()
    test.equal({ field.pair(" a = b = c ") }, { "a", "b = c" })
    test.equal({ field.pair("=") }, { "", "" })
    test.equal({ field.pair("a") }, { nil, "" })
  end,

  ["a field of nothing but spaces keeps nobody waiting"] = function()
    test.equal(quick(field.trim, SPACES), "")
    test.equal(quick(field.trim, "a" .. SPACES .. "b"), "a" .. SPACES .. "b")
    local jar = cookie.jar()
    quick(jar.receive, jar, "http://example.com/", "a=b; " .. SPACES .. "x")
    quick(jar.receive, jar, "http://example.com/", "a=b; x=y" .. SPACES .. "x")
    quick(jar.receive, jar, "http://example.com/", SPACES .. "x")
    test.equal(jar:header("http://example.com/"), "a=b")
    local range = codec.headers({ Range = "bytes=1" .. SPACES .. "x" })
    test.equal(quick(condition.ranges, "GET", range, {}, 100), nil)
    local accept = codec.headers({ ["Accept-Encoding"] = "gzip;" .. SPACES .. "q" .. SPACES .. "=x" })
    quick(condition.accepts_coding, accept, "gzip")
    local _, refused = quick(handshake.check_request, "GET", "1.1", function() return "a" .. SPACES .. "b" end, {})
    test.equal(refused.status, 426)
  end,
}
