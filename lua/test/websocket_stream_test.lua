-- A connection as a stream of bytes.
local connection = require("websocket.connection")
local cosocket = require("cosocket")
local drive = require("net.drive")
local session = require("websocket.session")
local test = require("test")
require("websocket.stream")

local function pair(options)
  local near, far = cosocket.pair()
  local client = connection.new(assert(near, far), session.config("client", options))
  return client, connection.new(far, session.config("server", options))
end

--- A session of lines, each of which is said back in capitals.
local function shouter()
  return {
    output = cosocket.buffer(),
    deadline = math.huge,
    receive = function(self, input)
      local line = input:line()
      if line then self.output:append(line:upper(), "\n") end
      return line
    end,
    expire = function() return true end,
  }
end

return {
  ["bytes are read wherever the borders of messages are"] = function()
    local client, server = pair()
    for _, message in ipairs({ "hel", "lo\r\nwor", "", "ld\nkey: value\r\n\r\n12345rest" }) do
      assert(client:send_binary(message))
    end
    test.equal(server:read_line(), "hello")
    test.equal(server:read_line(), "world")
    test.equal(server:read_until("\r\n\r\n"), "key: value\r\n\r\n")
    test.equal(server:read(5), "12345")
    test.equal(server:read(0), "")
    test.equal(server:read(), "rest")
    assert(client:write("a", 1, cosocket.buffer("bc"), 2.5))
    assert(client:write())
    test.equal(server:read(7), "a1bc2.5")
    local buffer = cosocket.buffer("x")
    assert(client:write("yz"))
    test.equal(server:fill(buffer), 2)
    test.equal(buffer:take(), "xyz")
    assert(client:write("the ", "end"))
    client:shutdown("write")
    test.equal(server:read_all(), "the end")
    test.fails("closed", server:read())
  end,

  ["what is too long is refused and stays"] = function()
    local client, server = pair()
    assert(client:write("0123456789\n"))
    test.fails("limit", server:read_line(9))
    test.fails("limit", server:read_until("9", 9))
    test.equal(server:read_line(10), "0123456789")
    assert(client:write("0123456789"))
    test.fails("limit", server:read_all(9))
    test.equal(server:read(10), "0123456789")
  end,

  ["nobody is kept waiting by try_write and try_flush"] = function()
    local client, server = pair()
    local output = cosocket.buffer("first")
    assert(client:try_flush(output))
    test.equal(#output, 0)
    assert(client:try_write("second"))
    local full, err
    for _ = 1, 1000 do
      full, err = client:try_write(("x"):rep(100000))
      if not full then break end
    end
    test.fails("limit", full, err)
    output:append("stays")
    assert(client:try_flush(output))
    test.equal(#output, 5)
    test.equal(server:read(11), "firstsecond")
    local task = cosocket.spawn(function() while server:read() do end end)
    assert(client:flush())
    assert(client:try_write("goes"))
    client:close()
    task:join()
  end,

  ["a text message is none of a stream"] = function()
    local client, server = pair()
    local task = cosocket.spawn(function()
      local err = test.fails("closed", client:receive())
      test.equal(err.code, 1003)
    end)
    assert(client:send("text"))
    test.fails("protocol", server:read())
    task:join()
    client, server = pair()
    task = cosocket.spawn(function() test.equal(select(2, client:receive()).code, 1003) end)
    assert(client:send("text"))
    test.fails("protocol", server:turn(cosocket.buffer(), cosocket.buffer()))
    task:join()
  end,

  ["a session is driven over messages as over bytes"] = function()
    local client, server = pair()
    local input, one = cosocket.buffer(), shouter()
    local task = cosocket.spawn(function()
      test.equal(drive.next_event(server, one, input), "hello")
      test.equal(drive.next_event(server, one, input), "world")
      assert(drive.flush(server, one, input))
      local err = test.fails("closed", drive.next_event(server, one, input))
      test.equal(err.code, 1000)
    end)
    assert(client:write("hel"))
    cosocket.sleep(1)
    assert(client:write("lo\nworld\n"))
    test.equal(client:read_line(), "HELLO")
    test.equal(client:read_line(), "WORLD")
    client:close()
    task:join()
  end,

  ["a turn ends at its deadline, when it is woken, and not for a ping"] = function()
    local client, server = pair()
    local input, output = cosocket.buffer(), cosocket.buffer()
    local began = cosocket.now()
    test.fails("timeout", server:turn(input, output, began + 5))
    test.near(cosocket.now() - began, 5, 0.01)
    local task = cosocket.spawn(function()
      cosocket.sleep(1)
      server:wake()
    end)
    test.equal(server:turn(input, output, began + 100), true)
    test.near(cosocket.now() - began, 6, 0.01)
    task:join()
    test.equal(#input, 0)
    output:append("out")
    test.equal(server:turn(input, output), true)
    test.equal(#output, 0)
    test.equal(client:read(), "out")
  end,

  ["much goes both ways at once"] = function()
    local client, server = pair()
    local size = 3000000
    local function both(one, letter)
      local input, output, got = cosocket.buffer(), cosocket.buffer(letter:rep(size)), 0
      while got < size or #output > 0 do
        assert(one:turn(input, output))
        got = got + #input
        input:clear()
      end
    end
    cosocket.group(function()
      cosocket.spawn(both, client, "a")
      cosocket.spawn(both, server, "b")
    end)
  end,

  ["what came before the end is read before it"] = function()
    local client, server = pair()
    assert(client:write("last"))
    local task = cosocket.spawn(client.close, client)
    cosocket.sleep(1)
    local input = cosocket.buffer()
    test.equal(server:turn(input, cosocket.buffer()), true)
    test.equal(input:take(), "last")
    test.fails("closed", server:turn(input, cosocket.buffer()))
    task:join()
  end,

  ["it tells of the stream below"] = function()
    local client = pair()
    test.equal(client:tls_info(), nil)
    test.equal(client:peer_address(), client.stream:peer_address())
    test.equal(client:local_address(), client.stream:local_address())
    assert(client:set_option("queue_max", 100000))
    test.raises("\"write\"", client.shutdown, client, "read")
  end,
}
