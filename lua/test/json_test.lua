local cosocket = require("cosocket")
local json = require("json")
local test = require("test")

--- `text` decoded and encoded again.
local function round(text)
  return assert(json.encode(assert(json.decode(text))))
end

local function message_of(_, err)
  return err.message
end

return {
  ["numbers keep their type and every bit"] = function()
    for _, integer in ipairs { 0, 1, -1, 2 ^ 53 | 0, (2 ^ 53 | 0) + 1, math.maxinteger, math.mininteger } do
      local text = assert(json.encode(integer))
      test.equal(text, tostring(integer))
      test.equal(math.type(json.decode(text)), "integer")
      test.equal(json.decode(text), integer)
    end
    for _, float in ipairs { 1.0, -0.0, 0.1, 1 / 3, 1e300, 5e-324, 1.7976931348623157e308, 2 ^ 63, 123456789012345680.0 } do
      local text = assert(json.encode(float))
      test.equal(math.type(json.decode(text)), "float")
      test.equal(string.pack(">d", json.decode(text)), string.pack(">d", float))
    end
  end,

  ["a number is an integer by how it is written"] = function()
    for text, kind in pairs { ["1"] = "integer", ["1.0"] = "float", ["1e2"] = "float", ["0"] = "integer", ["-0"] = "float" } do
      test.equal(math.type(json.decode(text)), kind)
    end
    test.equal(json.encode(1), "1")
    test.equal(json.encode(1.0), "1.0")
    test.equal(json.encode(-0.0), "-0.0")
  end,

  ["integers beyond 64 signed bits become the nearest float"] = function()
    test.equal(json.decode("9223372036854775807"), math.maxinteger)
    test.equal(math.type(json.decode("9223372036854775808")), "float")
    test.equal(json.decode("9223372036854775808"), 2.0 ^ 63)
    test.equal(json.decode("-9223372036854775808"), math.mininteger)
    test.equal(json.decode("-9223372036854775809"), -(2.0 ^ 63))
    test.equal(json.decode("18446744073709551615"), 2.0 ^ 64)
    test.equal(json.decode("123456789012345678901234567890"), 1.2345678901234568e29)
  end,

  ["a number too large for a float is refused"] = function()
    test.fails("protocol", json.decode("1e400"))
    test.fails("protocol", json.decode("-1e400"))
    test.equal(json.decode("1e-400"), 0.0)
  end,

  ["numbers that only look like numbers are refused"] = function()
    for _, text in ipairs { "01", "+1", ".5", "1.", "1e", "1e+", "-", "0x10", "NaN", "Infinity", "-Infinity", "1_000", "--1" } do
      test.fails("protocol", json.decode(text))
    end
  end,

  ["a codec keeps to its options in both directions"] = function()
    local codec = json.codec({ depth_max = 2, size_max = 20, sort_keys = false })
    test.equal(codec.decode('{"a":[1,null]}'), { a = json.array({ 1, json.null }) })
    test.equal(json.is_array(codec.decode("[]")), true)
    test.equal(codec.encode({ a = { 1, json.null } }), '{"a":[1,null]}')
    test.fails("limit", codec.decode("[[[]]]"))
    test.fails("limit", codec.encode({ { {} } }))
    test.fails("limit", codec.decode((" "):rep(21)))
    test.fails("limit", codec.encode(("x"):rep(20)))
    test.fails("protocol", codec.decode("{"))
    test.fails("protocol", codec.encode(print))
    test.equal(json.codec({ indent = 1 }).encode({ 1 }), "[\n 1\n]")
    test.raises("depth_mx", json.codec, { depth_mx = 1 })
    test.raises("257", json.codec, { depth_max = 257 })
  end,

  ["null is a value of its own, at any place"] = function()
    test.equal(json.decode("null"), json.null)
    test.equal(json.decode("[null,1]")[1], json.null)
    test.equal(json.decode('{"a":null}').a, json.null)
    test.equal(json.encode { a = json.null }, '{"a":null}')
    test.equal(round("[null,null]"), "[null,null]")
  end,

  ["arrays and objects stay what they are"] = function()
    test.equal(round("[]"), "[]")
    test.equal(round("{}"), "{}")
    test.equal(round('{"a":[],"b":{},"c":[[],{}]}'), '{"a":[],"b":{},"c":[[],{}]}')
    test.equal(json.encode {}, "{}")
    test.equal(json.encode(json.array {}), "[]")
    test.equal(json.encode(json.array()), "[]")
    test.equal(json.encode { 1, 2 }, "[1,2]")
    test.equal(json.is_array(json.decode("[]")), true)
    test.equal(json.is_array(json.decode("{}")), false)
    test.equal(json.is_array({ 1 }), false)
    test.equal(json.is_array("x"), false)
  end,

  ["an array that was emptied or filled is still an array"] = function()
    local list = json.decode("[1]")
    list[1] = nil
    test.equal(json.encode(list), "[]")
    for i = 1, 100 do list[i] = i end
    test.equal(#assert(json.decode(assert(json.encode(list)))), 100)
  end,

  ["an array is written in order however it is stored"] = function()
    local list = {}
    for i = 40, 1, -1 do list[i] = i end
    local expected = {}
    for i = 1, 40 do expected[i] = i end
    test.equal(json.encode(list), "[" .. table.concat(expected, ",") .. "]")
  end,

  ["keys are sorted, so that equal tables are equal texts"] = function()
    test.equal(json.encode { b = 1, a = 2, ["a!"] = 3, A = 4, [""] = 5, ab = 6 }, '{"":5,"A":4,"a":2,"a!":3,"ab":6,"b":1}')
    test.equal(json.encode { z = { y = 1, x = { 2, { w = 3, v = 4 } } }, a = 0 }, '{"a":0,"z":{"x":[2,{"v":4,"w":3}],"y":1}}')
    local unsorted = assert(json.encode({ a = 1, b = 2, c = 3 }, { sort_keys = false }))
    test.equal(round(unsorted), '{"a":1,"b":2,"c":3}')
  end,

  ["an indented text has one value a line"] = function()
    local value = { b = { 1, { c = true } }, a = json.array(), d = {} }
    test.equal(json.encode(value, { indent = 2 }), [[
{
  "a": [],
  "b": [
    1,
    {
      "c": true
    }
  ],
  "d": {}
}]])
    test.equal(json.encode(value, { indent = 0 }), json.encode(value))
  end,

  ["strings come back byte for byte"] = function()
    local text = 'quote " backslash \\ slash / newline \n tab \t nul \0 del \127 ü € 😀 \u{2028}'
    test.equal(json.decode(assert(json.encode(text))), text)
    test.equal(json.encode("\0\1\b\t\n\f\r\31\"\\/\127"), [["\u0000\u0001\b\t\n\f\r\u001f\"\\/]] .. '\127"')
  end,

  ["escapes of every kind are understood"] = function()
    test.equal(json.decode([["\"\\\/\b\f\n\r\t\u0041\u00fc\u20ac"]]), '"\\/\b\f\n\r\tAü€')
    test.equal(json.decode([["\ud83d\ude00"]]), "😀")
    test.equal(json.decode([["\u0000"]]), "\0")
    test.equal(json.decode([[{"\u0061\n":1}]])["a\n"], 1)
  end,

  ["half a surrogate pair is refused"] = function()
    for _, text in ipairs { [["\ud83d"]], [["\ude00"]], [["\ud83d\u0041"]], [["\ud83dx"]], [["\ud83d\ud83d"]] } do
      test.fails("protocol", json.decode(text))
    end
  end,

  ["broken strings are refused"] = function()
    for _, text in ipairs { '"', '"a', '"\\', '"\\x41"', '"\\u12"', '"\\u12g4"', '"a\nb"', '"a\0b"', "'a'" } do
      test.fails("protocol", json.decode(text))
    end
  end,

  ["what is not UTF-8 is refused, with its place"] = function()
    for _, bytes in ipairs { "\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82" } do
      test.fails("protocol", json.decode('"' .. bytes .. '"'))
    end
    test.equal(message_of(json.decode('[1,\n "\xff"]')), "line 2, column 3: not UTF-8")
  end,

  ["one byte order mark before the text is passed over"] = function()
    test.equal(json.decode("\u{feff}[1]")[1], 1)
    test.fails("protocol", json.decode("\u{feff}\u{feff}[1]"))
    test.fails("protocol", json.decode("[1]\u{feff}"))
  end,

  ["the place of an error is told by line and column"] = function()
    test.equal(message_of(json.decode('{\n  "a": 1,\n  "b" 2\n}')), "line 3, column 7: expected `:`")
    test.equal(message_of(json.decode("[1 2]")), "line 1, column 4: expected `,` or `]`")
    test.equal(message_of(json.decode("")), "line 1, column 0: the text ends inside a value")
    test.equal(message_of(json.decode('[1, {"a"')), "line 1, column 8: the text ends inside an object")
    test.equal(message_of(json.decode("[1]x")), "line 1, column 4: trailing characters")
    local _, err = json.decode("[")
    test.equal(err.op, "json.decode")
  end,

  ["what JSON does not have is refused"] = function()
    for _, text in ipairs {
      " ", "[1,]", "[,1]", '{"a":1,}', "{a:1}", "{1:1}", "[1]]", "{} {}", "nul", "True", "// x\n1", "/* */1", "[1;2]", "undefined",
    } do
      test.fails("protocol", json.decode(text))
    end
  end,

  ["white space of the four kinds may stand between, and no other"] = function()
    test.equal(round(' \t\r\n[ \t\r\n1 \t\r\n, \t\r\n{ \t\r\n"a" \t\r\n: \t\r\n2 } ] \t\r\n'), '[1,{"a":2}]')
    test.fails("protocol", json.decode("[1,\f2]"))
    test.fails("protocol", json.decode("[1,\u{a0}2]"))
  end,

  ["every cut of a text is refused"] = function()
    local text = [[{"a":[1,-2.5e3,true,false,null,"x\u00e9\ud83d\ude00"],"b":{"c":"é"}}]]
    assert(json.decode(text))
    for n = 0, #text - 1 do test.fails("protocol", json.decode(text:sub(1, n))) end
  end,

  ["of a repeated key the last value counts"] = function()
    test.equal(json.decode('{"a":1,"b":2,"a":3}').a, 3)
  end,

  ["nesting is limited both ways"] = function()
    local function nested(depth) return ("["):rep(depth) .. ("]"):rep(depth) end
    test.equal(round(nested(128)), nested(128))
    test.fails("limit", json.decode(nested(129)))
    test.fails("limit", json.decode(('{"a":'):rep(129) .. "1" .. ("}"):rep(129)))
    test.fails("limit", json.decode(("["):rep(1000000)))
    local deep = assert(json.decode(nested(256), { depth_max = 256 }))
    test.equal(json.encode(deep, { depth_max = 256 }), nested(256))
    test.fails("limit", json.encode(deep))
    test.fails("limit", json.decode("[[1]]", { depth_max = 1 }))
    test.equal(message_of(json.decode("[\n[1]]", { depth_max = 1 })), "line 2, column 1: nested deeper than 1 levels (depth_max)")
  end,

  ["size is limited both ways"] = function()
    test.equal(json.decode("[1]", { size_max = 3 })[1], 1)
    test.fails("limit", json.decode("[10]", { size_max = 3 }))
    test.equal(json.encode({ 1 }, { size_max = 3 }), "[1]")
    test.fails("limit", json.encode({ 10 }, { size_max = 3 }))
    test.fails("limit", json.encode({ a = "1234567890" }, { size_max = 10 }))
    test.fails("limit", json.encode({ ["1234567890"] = 1 }, { size_max = 10 }))
    test.fails("limit", json.decode('"' .. ("x"):rep(16 * 1024 * 1024) .. '"'))
  end,

  ["a table shared many times over is stopped by the size"] = function()
    local value = { 1, 1 }
    for _ = 1, 60 do value = { value, value } end
    test.fails("limit", json.encode(value))
    local object = { a = 1 }
    for _ = 1, 60 do object = { b = object, a = object } end
    test.fails("limit", json.encode(object, { size_max = 100000 }))
  end,

  ["a table inside itself is refused, with its path"] = function()
    local value = { name = {} }
    value.name.list = { 1, value }
    local text, err = json.encode(value)
    test.fails("protocol", text, err)
    test.equal(err.message:find("^name%.list%[2%]%.name%.list%[2%].*: the table contains itself$") ~= nil, true)
  end,

  ["what has no JSON form is refused, with its path"] = function()
    local function says(value, expected)
      local text, err = json.encode(value)
      test.fails("protocol", text, err)
      test.equal(err.message, expected)
      test.equal(err.op, "json.encode")
    end
    says(0 / 0, "NaN has no JSON form")
    says({ a = { 1, { ["b c"] = 1 / 0 } } }, 'a[2]["b c"]: infinity has no JSON form')
    says({ 1, -1 / 0 }, "[2]: infinity has no JSON form")
    says(nil, "nil has no JSON form; json.null is null")
    says({ f = print }, "f: a function has no JSON form")
    says({ coroutine.create(print) }, "[1]: a thread has no JSON form")
    says({ x = io.stdout }, "x: a userdata has no JSON form")
    says({ readings = { { name = "a\xffb" } } }, "readings[1].name: a string is not UTF-8 at its byte 2")
    says({ a = { ["\xff"] = 1 } }, "a: a key is not UTF-8 at its byte 1")
    says({ a = { 1, 2, x = 3 } }, 'a: an array also has the key "x"')
    says({ 1, 2, [4] = 4 }, "4 is a key but not all before it are; json.null fills gaps")
    says({ [0] = 1 }, "the key 0 is neither a string nor a position")
    says({ [1.5] = 1 }, "the key 1.5 is neither a string nor a position")
    says({ [true] = 1 }, "the key true is neither a string nor a position")
    says(json.array { x = 1 }, 'an array also has the key "x"')
  end,

  ["a huge position does not make a huge text"] = function()
    test.fails("protocol", json.encode { [math.maxinteger] = 1 })
    test.fails("protocol", json.encode { 1, [1 << 40] = 1 })
  end,

  ["a failed text leaves nothing behind"] = function()
    test.fails("protocol", json.encode { b = { d = 1, c = { print } }, a = 1 })
    test.equal(json.encode { b = { d = 1, c = { 2 } }, a = 1 }, '{"a":1,"b":{"c":[2],"d":1}}')
  end,

  ["a buffer is decoded and keeps its bytes"] = function()
    local buffer = cosocket.buffer('{"a":[1,2]}')
    test.equal(json.decode(buffer).a[2], 2)
    test.equal(#buffer, 11)
  end,

  ["metatables are not asked"] = function()
    local function loud() error("asked") end
    local proxy = setmetatable({ a = 1 }, { __index = loud, __pairs = loud, __len = loud, __tostring = loud })
    test.equal(json.encode(proxy), '{"a":1}')
    test.raises("metatable of its own", json.array, proxy)
  end,

  ["wrong arguments raise"] = function()
    test.raises("cosocket.Buffer", json.decode, 5)
    test.raises("cosocket.Buffer", json.decode)
    test.raises("cosocket.Buffer", json.decode, {})
    test.raises("cosocket.Buffer", json.decode, io.stdout)
    test.raises('json.encode: unknown option "indnet"; did you mean "indent"?', json.encode, {}, { indnet = 2 })
    test.raises('json.decode: unknown option "max"; known: depth_max, size_max', json.decode, "1", { max = 2 })
    test.raises('option "indent" must be an integer, not string', json.encode, {}, { indent = "2" })
    test.raises('option "indent" must be from 0 to 16, not 17', json.encode, {}, { indent = 17 })
    test.raises('option "depth_max" must be from 1 to 256, not 0', json.decode, "1", { depth_max = 0 })
    test.raises('option "sort_keys" must be a boolean, not integer', json.encode, {}, { sort_keys = 1 })
    test.raises('unknown option "[1]"', json.encode, {}, { 1 })
  end,
}
