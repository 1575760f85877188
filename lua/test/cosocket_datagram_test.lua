local cosocket = require("cosocket")
local test = require("test")

--- An address for a unix socket that nothing uses.
local function free_address()
  local path = os.tmpname()
  os.remove(path)
  return "unix://" .. path .. ".sock", path .. ".sock"
end

local function is_there(path) return select(2, io.open(path)) ~= path .. ": No such file or directory" end

return {
  ["unix sockets"] = {
    ["datagrams arrive whole, with the path to answer at"] = function()
      local address, path = free_address()
      local mine, my_path = free_address()
      local server <close> = assert(cosocket.udp({ bind = address }))
      test.equal(server:local_address(), path)
      local client <close> = assert(cosocket.udp({ bind = mine, connect = address }))
      for _, text in ipairs({ "one", "", ("x"):rep(60000) }) do
        assert(client:send(text))
        local data, from = server:receive()
        test.equal(data, text)
        test.equal(from, my_path)
      end
      assert(server:send_to("answer", my_path))
      local data, from = client:receive()
      test.equal(data, "answer")
      test.equal(from, path)
      assert(server:send_to("again", mine))
      test.equal((client:receive()), "again")
    end,

    ["one without a path can be heard and not be answered"] = function()
      local address = free_address()
      local server <close> = assert(cosocket.udp({ bind = address }))
      local client <close> = assert(cosocket.udp({ connect = address }))
      assert(client:send("x"))
      local data, from = server:receive()
      test.equal(data, "x")
      test.equal(from, "")
      test.equal(client:local_address(), "")
    end,

    ["a task waits for a datagram, and a deadline takes none away"] = function()
      local address = free_address()
      local server <close> = assert(cosocket.udp({ bind = address }))
      local client <close> = assert(cosocket.udp({ connect = address }))
      test.fails("timeout", cosocket.deadline(1, server.receive, server))
      local waiting = cosocket.spawn(function() return (server:receive()) end)
      cosocket.sleep(0)
      assert(client:send("late"))
      test.equal(waiting:join(), "late")
      test.equal(select(2, cosocket.select(server, 1)), 2)
      assert(client:send("seen"))
      test.equal(select(2, cosocket.select(server, 1)), 1)
      test.equal((server:receive()), "seen")
    end,

    ["a sender waits while its fixed peer takes no more, and another is told"] = function()
      local address = free_address()
      local server <close> = assert(cosocket.udp({ bind = address }))
      local client <close> = assert(cosocket.udp({ connect = address }))
      local count, sent, got = 2000, 0, 0
      local sender = cosocket.spawn(function()
        for _ = 1, count do
          assert(client:send("x"))
          sent = sent + 1
        end
      end)
      cosocket.sleep(0)
      assert(sent < count, "nobody reads, and everything was taken")
      local stranger <close> = assert(cosocket.udp({ bind = "unix://@moonwire-" .. address:match("[^/]*$") }))
      test.equal(test.fails("io", stranger:send_to("y", address)).code, "ENOBUFS")
      while got < count do
        assert(server:receive())
        got = got + 1
      end
      sender:join()
    end,

    ["the file goes with the socket, and that of a dead one is taken over"] = function()
      local address, path = free_address()
      local first = assert(cosocket.udp({ bind = address }))
      test.equal(test.fails("io", cosocket.udp({ bind = address })).code, "EADDRINUSE")
      -- As a killed process leaves it: renamed away, it outlives its socket.
      assert(os.rename(path, path .. ".dead"))
      first:close()
      assert(os.rename(path .. ".dead", path))
      local second = assert(cosocket.udp({ bind = address, mode = tonumber("600", 8) }))
      test.equal(is_there(path), true)
      second:close()
      cosocket.sleep(0)
      test.equal(is_there(path), false)
    end,

    ["nobody there, no path, another family: the error says so"] = function()
      local address = free_address()
      local err = test.fails("io", cosocket.udp({ connect = address }))
      test.equal(err.code, "ENOENT")
      test.matches(err.message, "cannot open a datagram socket at /")
      test.fails("io", cosocket.udp({ bind = "unix:///nowhere/at/all.sock" }))
      test.fails("io", cosocket.udp({ bind = "unix://@" }))
      local udp <close> = assert(cosocket.udp())
      test.equal(test.fails("io", udp:send_to("x", address)).code, "EAFNOSUPPORT")
      local unix <close> = assert(cosocket.udp({ bind = address }))
      test.equal(test.fails("io", unix:send_to("x", "127.0.0.1:9")).code, "EAFNOSUPPORT")
      test.equal(test.fails("io", unix:join("224.0.0.1")).code, "EINVAL")
      test.matches(test.fails("io", unix:send("x")).message, "no fixed peer")
    end,
  },
}
