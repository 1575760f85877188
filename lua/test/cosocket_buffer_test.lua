local cosocket = require("cosocket")
local test = require("test")

--- Calls `fn`, which must raise an `argument` error.
local function mistaken(fn, ...)
  local ok, err = pcall(fn, ...)
  if ok or not cosocket.is_error(err, "argument") then error(("no argument error: %s"):format(tostring(err)), 2) end
end

return {
  ["bytes are added at the end and taken off the front"] = function()
    local buffer = cosocket.buffer("ab")
    test.equal(buffer:append("cd", 1, 2.5, cosocket.buffer("ef")), buffer)
    test.equal(#buffer, 10)
    test.equal(buffer:take(3), "abc")
    test.equal(buffer:take(100), nil)
    test.equal(buffer:take(0), "")
    test.equal(buffer:take(), "d12.5ef")
    test.equal({ #buffer, buffer:take() }, { 0, "" })
  end,

  ["a buffer may be added to itself"] = function()
    local buffer = cosocket.buffer("ab")
    test.equal(buffer:append(buffer, buffer):take(), "abababab")
  end,

  ["peek looks and takes nothing"] = function()
    local buffer = cosocket.buffer("hello")
    test.equal({ buffer:peek(), buffer:peek(2), buffer:peek(2, 3), buffer:peek(9, 3), buffer:peek(1, 9) },
      { "hello", "he", "lo", "lo", "" })
    test.equal(#buffer, 5)
  end,

  ["skip drops, at most what is there"] = function()
    local buffer = cosocket.buffer("hello")
    buffer:skip(2)
    test.equal(buffer:peek(), "llo")
    buffer:skip(100)
    test.equal(#buffer, 0)
    buffer:append("x"):clear()
    test.equal(#buffer, 0)
  end,

  ["find looks for plain bytes from an offset on"] = function()
    local buffer = cosocket.buffer("a.b.c")
    test.equal({ buffer:find("."), buffer:find(".", 2), buffer:find("x") or false, buffer:find(".", 4) or false },
      { 1, 3, false, false })
    test.equal(buffer:find("."), 1)
    test.equal({ buffer:find(""), buffer:find("", 5), buffer:find("", 6) or false }, { 0, 5, false })
  end,

  ["a line split at any byte is one line"] = function()
    test.every_cut("hello\r\n", function(first, second)
      local buffer = cosocket.buffer(first)
      test.equal(buffer:line(), nil)
      test.equal(buffer:append(second):line(), "hello")
      test.equal(#buffer, 0)
    end)
    local buffer = cosocket.buffer("\n\r\na\rb\n")
    test.equal({ buffer:line(), buffer:line(), buffer:line(), buffer:line() }, { "", "", "a\rb" })
  end,

  ["integers of every size go in and come out in both orders"] = function()
    local random = test.random()
    for size = 1, 8 do
      for _, order in ipairs({ "big", "little" }) do
        local sign = order == "big" and ">" or "<"
        for _ = 1, 20 do
          local value = size == 8 and random(math.mininteger, math.maxinteger) or random(0, (1 << (8 * size)) - 1)
          local buffer = cosocket.buffer()
          buffer:append_uint(value, size, order)
          test.equal(buffer:peek(), string.pack(sign .. (size == 8 and "i8" or "I" .. size), value))
          test.equal(buffer:peek_uint(size, 0, order), value)
          test.equal(buffer:take_uint(size, order), value)
          test.equal(#buffer, 0)
          local low = size == 8 and math.mininteger or -(1 << (8 * size - 1))
          value = random(low, -low - 1)
          buffer:append("x"):append_int(value, size, order)
          test.equal(buffer:peek(nil, 1), string.pack(sign .. "i" .. size, value))
          test.equal(buffer:peek_int(size, 1, order), value)
          buffer:skip(1)
          test.equal(buffer:take_int(size, order), value)
        end
      end
    end
  end,

  ["an integer that is not all here is nil"] = function()
    local buffer = cosocket.buffer("\1\2\3")
    test.equal(buffer:take_uint(4), nil)
    test.equal(buffer:peek_uint(2, 2), nil)
    test.equal(buffer:peek_int(1, math.maxinteger), nil)
    test.equal(buffer:take_uint(2), 258)
    test.equal(#buffer, 1)
  end,

  ["set_uint overwrites what is there"] = function()
    local buffer = cosocket.buffer("\0\0rest")
    buffer:set_uint(0, 4, 2)
    test.equal(buffer:peek(), "\0\4rest")
    buffer:set_uint(4, 0x0102, 2, "little")
    test.equal(buffer:peek(), "\0\4re\2\1")
    mistaken(buffer.set_uint, buffer, 5, 1, 2)
    mistaken(buffer.set_uint, buffer, math.maxinteger, 1, 8)
  end,

  ["what does not fit is refused, and nothing is added"] = function()
    local buffer = cosocket.buffer()
    for _, arguments in ipairs({
      { 256, 1 }, { -1, 1 }, { 1 << 32, 4 }, { 1, 0 }, { 1, 9 }, { 1.5, 2 }, { "x", 2 }, { 1 }, { 1, 2, "middle" },
      { 1, 2, 5 }, {},
    }) do
      mistaken(buffer.append_uint, buffer, table.unpack(arguments))
    end
    mistaken(buffer.append_int, buffer, 128, 1)
    mistaken(buffer.append_int, buffer, -129, 1)
    test.equal(#buffer, 0)
  end,

  ["wrong arguments are the caller's mistake"] = function()
    local buffer = cosocket.buffer("hello")
    for name, arguments in pairs({
      append = { {} }, peek = { -1 }, take = { "x" }, skip = { -1 }, find = { nil }, take_uint = { 0 },
      peek_uint = { 1, -1 }, take_int = { 2, "up" },
    }) do
      mistaken(buffer[name], buffer, table.unpack(arguments, 1, 3))
    end
    for _, name in ipairs({ "append", "peek", "take", "skip", "find", "line", "clear", "len", "take_uint" }) do
      mistaken(buffer[name])
      mistaken(buffer[name], "no buffer")
      mistaken(buffer[name], io.stdout)
    end
    for _, value in ipairs({ {}, true, print, buffer }) do mistaken(cosocket.buffer, value) end
    test.equal(buffer:take(), "hello")
  end,

  ["a random order of calls keeps to a string that does the same"] = function()
    local random = test.random()
    for _ = 1, 30 do
      local buffer, text = cosocket.buffer(), ""
      for _ = 1, 100 do
        local what, n = random(6), random(0, 40)
        if what <= 2 then
          local bytes = random:bytes(n)
          buffer:append(bytes)
          text = text .. bytes
        elseif what == 3 then
          test.equal(buffer:take(n), n <= #text and text:sub(1, n) or nil)
          if n <= #text then text = text:sub(n + 1) end
        elseif what == 4 then
          buffer:skip(n)
          text = text:sub(n + 1)
        elseif what == 5 then
          local line = text:match("^([^\n]*)\n")
          test.equal(buffer:line(), line and line:gsub("\r$", "") or nil)
          if line then text = text:sub(#line + 2) end
        else
          local at = text:find("a", n + 1, true)
          test.equal(buffer:find("a", n), at and at - 1 or nil)
        end
        test.equal(#buffer, #text)
      end
      test.equal(buffer:peek(), text)
    end
  end,
}
