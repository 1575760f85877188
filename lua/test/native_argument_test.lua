local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local json = require("json")
local log = require("log")
local test = require("test")
local url = require("url")

--- Calls `fn` on this line, which must be blamed, in an `argument` error of the operation `op`.
local function mistaken(pattern, op, fn)
  local ok, err = pcall(fn)
  test.equal(ok, false)
  test.equal(cosocket.is_error(err, "argument"), true)
  test.equal(err.op, op)
  local here = debug.getinfo(2, "l").currentline
  test.matches(tostring(err), ("native_argument_test.lua:%d: %s"):format(here, pattern))
end

return {
  ["a native function that is given something else blames the line that called"] = function()
    mistaken("bad argument #1 to 'json.decode': a string or cosocket.Buffer is wanted, got nil", "json.decode", function() json.decode(nil) end)
    mistaken("bad argument #1 to 'hex.encode': a string or cosocket.Buffer is wanted, got table", "hex.encode", function() hex.encode({}) end)
    mistaken("bad argument #2 to 'log.info': a table is wanted, got string", "log.info", function() log.info("x", "y") end)
    mistaken("bad argument #2 to 'log.warn': a table is wanted", "log.warn", function() log.new("x").warn("x", 5) end)
    mistaken("bad argument #1 to 'crypto.random_bytes': an integer is wanted, got string", "crypto.random_bytes", function() crypto.random_bytes("x") end)
    mistaken("bad argument #1 to 'url.parse': a string is wanted, got nil", "url.parse", function() url.parse(nil) end)
  end,

  ["so does one whose argument has the right type and the wrong value"] = function()
    mistaken("crypto.hmac: unknown algorithm \"sha%-256\"; did you mean \"sha256\"", "crypto.hmac", function() crypto.hmac("sha-256", "k", "d") end)
    mistaken("json.encode: unknown option \"indnet\"; did you mean \"indent\"", "json.encode", function() json.encode(1, { indnet = 2 }) end)
  end,

  ["a module that is called with a colon says that a dot is meant"] = function()
    mistaken("call this with a dot: json.decode%(%)", "json.decode", function() json:decode("{}") end)
    mistaken("call this with a dot: log.info%(%)", "log.info", function() log:info("x") end)
  end,

  ["the number that io.open answers becomes the name of the system's error, and other codes stay"] = function()
    local _, why, code = io.open("/no/such/file")
    local function code_of(...) return cosocket.error(...).code end
    test.equal(code_of("io", "x", why, { code = code }), "ENOENT")
    test.equal(code_of("io", "x", "", { code = "SQLITE_FULL" }), "SQLITE_FULL")
    test.equal(code_of("io", "x", "", { code = 99999 }), 99999)
    test.equal(code_of("refused", "x", "", { code = 2 }), 2)
    test.equal(code_of("io", "x", "", {}), nil)
  end,

  ["an answer has as many values as before"] = function()
    test.equal(select("#", json.decode("1")), 1)
    test.equal(select("#", log.debug("x")), 0)
    test.equal(select("#", json.decode("{")), 2)
  end,
}
