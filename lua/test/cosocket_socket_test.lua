local cosocket = require("cosocket")
local test = require("test")

--- Waits for the next connection while `connect` makes one.
local function meet(listener, address, options)
  local accepting = cosocket.spawn(function() return assert(listener:accept()) end)
  local near = assert(cosocket.connect(address or "tcp://" .. listener:local_address(), options))
  return near, accepting:join()
end

--- A path for a unix socket that nothing uses.
local function free_path()
  local path = os.tmpname()
  os.remove(path)
  return path .. ".sock"
end

--- Calls `fn`, which must raise an `argument` error with `pattern` in its message.
local function mistaken(pattern, fn, ...)
  local ok, err = pcall(fn, ...)
  if ok or not cosocket.is_error(err, "argument") then error(("no argument error: %s"):format(tostring(err)), 2) end
  test.matches(err.message, pattern)
end

local function exchange(near, far)
  near:write("ping\n")
  test.equal(far:read_line(), "ping")
  far:write("pong\n")
  test.equal(near:read_line(), "pong")
end

local function mode_of(path)
  local pipe = assert(io.popen(("stat -c '%%a %%F' '%s'"):format(path)))
  local text = pipe:read("l")
  pipe:close()
  return text
end

return {
  ["TCP"] = {
    ["listens at a free port for 0, and says which"] = function()
      local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local port = test.matches(listener:local_address(), "^127%.0%.0%.1:(%d+)$")
      assert(tonumber(port) > 0)
      local near, far = meet(listener)
      test.equal(near:peer_address(), listener:local_address())
      test.equal(far:local_address(), listener:local_address())
      test.equal(near:local_address(), far:peer_address())
      exchange(near, far)
    end,

    ["takes host, port and options as well as an address, with and without a scheme"] = function()
      local listener <close> = assert(cosocket.listen("127.0.0.1", 0, { backlog = 5 }))
      local port = math.tointeger(tonumber(listener:local_address():match("%d+$")))
      for _, arguments in ipairs({
        { "127.0.0.1", port },
        { "127.0.0.1", port, { nodelay = false, keepalive = 30 } },
        { ("127.0.0.1:%d"):format(port), { timeout = 5 } },
        { ("tcp://127.0.0.1:%d"):format(port) },
      }) do
        local accepting = cosocket.spawn(function() return assert(listener:accept()) end)
        local near = assert(cosocket.connect(table.unpack(arguments)))
        exchange(near, accepting:join())
      end
    end,

    ["speaks IPv6"] = function()
      local listener <close>, err = cosocket.listen("tcp://[::1]:0")
      if not listener then test.skip("no IPv6 here: " .. tostring(err)) end
      local port = test.matches(listener:local_address(), "^%[::1%]:(%d+)$")
      exchange(meet(listener))
      exchange(meet(listener, ("tcp://[::1]:%s"):format(port)))
    end,

    ["tries every address of a name"] = function()
      -- The listener speaks one family; the name has both.
      local addresses = assert(cosocket.resolve("localhost"))
      assert(#addresses >= 1)
      for _, host in ipairs({ "127.0.0.1", "::1" }) do
        local listener <close> = cosocket.listen(host, 0)
        local is_known = host == "127.0.0.1" or table.concat(addresses, " "):find("::1", 1, true)
        if listener and is_known then
          local port = listener:local_address():match("%d+$")
          exchange(meet(listener, ("tcp://localhost:%s"):format(port)))
        end
      end
    end,

    ["names every address when none can be reached"] = function()
      local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local port = listener:local_address():match("%d+$")
      listener:close()
      local err = test.fails("connect", cosocket.connect("tcp://localhost:" .. port))
      test.equal(err.code, "ECONNREFUSED")
      test.equal(err.op, "connect")
      test.matches(err.message, "cannot connect to .*127%.0%.0%.1:" .. port .. ": connection refused")
      test.matches(tostring(err), "^connect: cannot connect .*%(connect, ECONNREFUSED%)$")
    end,

    ["connects from a given address"] = function()
      local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local near = meet(listener, nil, { local_address = "127.0.0.2" })
      test.matches(near:local_address(), "^127%.0%.0%.2:%d+$")
      local taken = near:local_address()
      test.fails("connect", cosocket.connect("tcp://" .. listener:local_address(), { local_address = "192.0.2.1" }))
      local other <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
      test.matches(meet(other, nil, { local_address = taken }):local_address(), "^127%.0%.0%.2:%d+$")
      mistaken("local_address", cosocket.connect, listener:local_address(), { local_address = "here" })
    end,

    ["gives up after the timeout"] = function()
      -- A full backlog does not answer: connections stay half open.
      local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0", { backlog = 1 }))
      local address, streams = "tcp://" .. listener:local_address(), {}
      local err
      for i = 1, 20 do
        local stream
        stream, err = cosocket.connect(address, { timeout = 0.05 })
        if not stream then break end
        streams[i] = stream
      end
      test.fails("timeout", nil, err)
      test.matches(err.message, "no connection to 127%.0%.0%.1:%d+ within 0%.05 s")
    end,

    ["takes options on a live stream, each of them"] = function()
      local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local near, far = meet(listener)
      for _, option in ipairs({
        { "nodelay", true }, { "nodelay", false }, { "keepalive", true }, { "keepalive", 10 }, { "keepalive", 0.5 },
        { "keepalive", false }, { "queue_max", 1 }, { "queue_max", 1000000 }, { "receive_buffer", 65536 },
        { "send_buffer", 65536 }, { "keepalive_interval", 5 }, { "keepalive_interval", 0.5 }, { "keepalive_count", 4 },
      }) do
        test.equal(near:set_option(table.unpack(option)), true, option[1])
      end
      exchange(near, far)
      local one = cosocket.pair()
      test.equal(one:set_option("nodelay", true), true)
      test.equal(one:set_option("keepalive", true), true)
      test.equal(one:set_option("keepalive_interval", 5), true)
      test.equal(one:set_option("keepalive_count", 5), true)
    end,

    ["refuses an address in use"] = function()
      local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local err = test.fails("io", cosocket.listen("tcp://" .. listener:local_address()))
      test.equal(err.code, "EADDRINUSE")
      test.matches(err.message, "cannot listen at 127%.0%.0%.1:%d+: address already in use")
      test.equal(test.fails("io", cosocket.listen("tcp://192.0.2.1:0")).code, "EADDRNOTAVAIL")
    end,

    ["shares a port between listeners that both want it"] = function()
      local one <close> = assert(cosocket.listen("tcp://127.0.0.1:0", { reuse_port = true }))
      local other <close> = assert(cosocket.listen("tcp://" .. one:local_address(), { reuse_port = true }))
      test.equal(one:local_address(), other:local_address())
    end,

    ["a second task that accepts is told, and a closed listener says so"] = function()
      local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local first = cosocket.spawn("the first", function() return listener:accept() end)
      cosocket.sleep(0)
      test.matches(test.fails("io", listener:accept()).message, "another task %(the first%)")
      listener:close()
      test.fails("closed", first:join())
      test.fails("closed", listener:accept())
      test.fails("closed", listener:local_address())
      test.equal(listener:close(), true)
    end,

    ["a client that resets before it is accepted does no harm"] = function()
      local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local address = "tcp://" .. listener:local_address()
      for _ = 1, 5 do assert(cosocket.connect(address)):close() end
      local last = assert(cosocket.connect(address))
      last:write("alive")
      last:flush()
      local seen
      for _ = 1, 6 do seen = assert(listener:accept()):read() or seen end
      test.equal(seen, "alive")
    end,

    ["a dial that is cancelled leaves nothing behind"] = function()
      local before = #cosocket.tasks()
      for _ = 1, 5 do
        local task = cosocket.spawn(cosocket.connect, "tcp://192.0.2.1:9", { timeout = 100 })
        cosocket.sleep(0)
        task:cancel()
        pcall(task.join, task)
      end
      test.equal(#cosocket.tasks(), before)
    end,
  },

  ["unix sockets"] = {
    ["connect by path, and the file goes with the listener"] = function()
      local path = free_path()
      local listener = assert(cosocket.listen("unix://" .. path))
      test.equal(listener:local_address(), path)
      local near, far = meet(listener, "unix://" .. path)
      test.equal(near:peer_address(), path)
      exchange(near, far)
      listener:close()
      test.equal(test.fails("connect", cosocket.connect("unix://" .. path)).code, "ENOENT")
    end,

    ["have the permissions asked for"] = function()
      local path = free_path()
      local listener <close> = assert(cosocket.listen("unix://" .. path, { mode = tonumber("600", 8) }))
      test.equal(mode_of(path), "600 socket")
    end,

    ["leave the file of a server that has taken their path"] = function()
      local path = free_path()
      local listener = assert(cosocket.listen("unix://" .. path))
      assert(os.remove(path))
      local successor <close> = assert(cosocket.listen("unix://" .. path))
      listener:close()
      exchange(meet(successor, "unix://" .. path))
    end,

    ["replace what a dead server has left, and no live one"] = function()
      local path = free_path()
      local listener = assert(cosocket.listen("unix://" .. path))
      test.equal(test.fails("io", cosocket.listen("unix://" .. path)).code, "EADDRINUSE")
      assert(listener:accept()):close() -- the other one's look whether somebody serves
      exchange(meet(listener, "unix://" .. path))
      -- A copy of the name outlives the listener that removes its own: a socket nobody serves.
      local stale = path .. ".stale"
      assert(os.execute(("ln '%s' '%s'"):format(path, stale)))
      listener:close()
      test.equal(test.fails("connect", cosocket.connect("unix://" .. stale)).code, "ECONNREFUSED")
      local replaced <close> = assert(cosocket.listen("unix://" .. stale))
      exchange(meet(replaced, "unix://" .. stale))
    end,

    ["never replace a file that is no socket"] = function()
      local path = os.tmpname()
      test.equal(test.fails("io", cosocket.listen("unix://" .. path)).code, "EADDRINUSE")
      assert(io.open(path)):close()
      os.remove(path)
    end,

    ["refuse paths that cannot be"] = function()
      test.fails("io", cosocket.listen("unix:///nowhere/at/all.sock"))
      test.fails("io", cosocket.listen("unix:///tmp/" .. ("x"):rep(200)))
      test.fails("connect", cosocket.connect("unix:///tmp/" .. ("x"):rep(200)))
      test.fails("connect", cosocket.connect("unix://"))
      test.fails("connect", cosocket.connect("unix:///tmp/a\0b"))
    end,
  },

  ["UDP"] = {
    ["sends to an address and tells where data came from"] = function()
      local one <close> = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      local other <close> = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      test.equal(one:send_to("hello", other:local_address()), true)
      test.equal({ other:receive() }, { "hello", one:local_address() })
      test.equal(other:send_to(cosocket.buffer("answer"), one:local_address()), true)
      test.equal({ one:receive() }, { "answer", other:local_address() })
    end,

    ["keeps the borders of datagrams, empty and largest ones too"] = function()
      local one <close> = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      local other <close> = assert(cosocket.udp({ connect = one:local_address() }))
      local largest = ("x"):rep(65507)
      for _, data in ipairs({ "a", "", "bb", largest }) do
        assert(other:send(data))
        assert(one:receive() == data)
      end
      test.equal(test.fails("io", other:send(largest .. "y")).code, "EMSGSIZE")
    end,

    ["connected takes only its peer's datagrams"] = function()
      local peer <close> = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      local stranger <close> = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      local mine <close> = assert(cosocket.udp({ bind = "127.0.0.1:0", connect = peer:local_address() }))
      stranger:send_to("from a stranger", mine:local_address())
      peer:send_to("from the peer", mine:local_address())
      test.equal({ mine:receive() }, { "from the peer", peer:local_address() })
      test.fails("timeout", cosocket.deadline(0.02, mine.receive, mine))
    end,

    ["tells that nobody listens"] = function()
      local gone = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      local address = gone:local_address()
      gone:close()
      local mine <close> = assert(cosocket.udp({ connect = address }))
      mine:send("anybody?")
      test.equal(test.fails("io", cosocket.deadline(1, mine.receive, mine)).code, "ECONNREFUSED")
      mine:close()
      test.fails("closed", mine:send("x"))
      test.fails("closed", mine:receive())
      test.fails("closed", mine:local_address())
    end,

    ["resolves a name in send_to, of its own family"] = function()
      local one <close> = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      local port = one:local_address():match("%d+$")
      local other <close> = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      test.equal(other:send_to("by name", "localhost:" .. port), true)
      test.equal((one:receive()), "by name")
    end,

    ["needs a peer to send without an address"] = function()
      local one <close> = assert(cosocket.udp())
      test.matches(test.fails("io", one:send("x")).message, "use send_to")
      test.fails("connect", one:send_to("x", "nonsense"))
      test.fails("connect", one:send_to("x", "127.0.0.1:99999"))
    end,

    ["broadcasts only when it may"] = function()
      local quiet <close> = assert(cosocket.udp({ bind = "0.0.0.0:0" }))
      test.equal(test.fails("io", quiet:send_to("x", "255.255.255.255:9")).code, "EACCES")
      local loud <close> = assert(cosocket.udp({ bind = "0.0.0.0:0", broadcast = true }))
      local ok, err = loud:send_to("x", "255.255.255.255:9")
      -- Without a network there is no way to go; the permission is what counts.
      assert(ok or err.code == "ENETUNREACH", tostring(err))
    end,

    ["joins and leaves a multicast group on the loopback"] = function()
      local group = "239.255.77.77"
      local one <close> = assert(cosocket.udp({ bind = "0.0.0.0:0", reuse_address = true, multicast_loop = true, ttl = 4, multicast_ttl = 1 }))
      local ok, err = one:join(group, "127.0.0.1")
      if not ok then test.skip("the system refuses to join: " .. tostring(err)) end
      local port = one:local_address():match("%d+$")
      local sender <close> = assert(cosocket.udp({ bind = "127.0.0.1:0", multicast_loop = true }))
      local sent, why = sender:send_to("to the group", group .. ":" .. port)
      if not sent then test.skip("the system refuses to send: " .. tostring(why)) end
      test.equal({ cosocket.deadline(0.5, one.receive, one) }, { "to the group", sender:local_address() })
      test.equal(one:leave(group, "127.0.0.1"), true)
      sender:send_to("to nobody", group .. ":" .. port)
      test.fails("timeout", cosocket.deadline(0.05, one.receive, one))
      test.fails("io", one:leave(group, "127.0.0.1"))
      test.fails("io", one:join("127.0.0.1"))
      test.fails("io", one:join("no address"))
      test.fails("io", one:join(group, "no interface"))
    end,

    ["a second reader is told"] = function()
      local one <close> = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      local first = cosocket.spawn(function() return one:receive() end)
      cosocket.sleep(0)
      test.equal(test.fails("io", one:receive()).code, "EBUSY")
      first:cancel()
    end,
  },

  ["names"] = {
    ["that are numbers need no resolver"] = function()
      test.equal(cosocket.resolve("127.0.0.1"), { "127.0.0.1" })
      test.equal(cosocket.resolve("::1"), { "::1" })
    end,

    ["that do not resolve are an error that says which"] = function()
      -- RFC 6761, 6.4: never resolves. Without a network the resolver may take its time to say so.
      local err = select(2, cosocket.deadline(10, cosocket.resolve, "name.invalid"))
      if err.kind == "timeout" then test.skip("the resolver of this machine does not answer") end
      test.fails("resolve", nil, err)
      test.matches(err.message, 'cannot resolve "name.invalid"')
      err = test.fails("resolve", cosocket.connect("tcp://name.invalid:1"))
      test.equal(err.op, "connect")
    end,

    ["asked for by many tasks are looked up once for all"] = function()
      local tasks = {}
      for i = 1, 50 do tasks[i] = cosocket.spawn(cosocket.resolve, "localhost") end
      for _, task in ipairs(tasks) do assert(#task:join() > 0) end
    end,
  },

  ["bad addresses are refused with the reason"] = function()
    for address, pattern in pairs({
      [""] = "no port",
      ["localhost"] = "no port",
      ["tcp://localhost"] = "no port",
      ["tcp://localhost:"] = "not a number from 0 to 65535",
      ["tcp://localhost:65536"] = "not a number from 0 to 65535",
      ["tcp://localhost:-1"] = "not a number from 0 to 65535",
      ["tcp://localhost:http"] = "not a number from 0 to 65535",
      ["tcp://:80"] = "no host",
      ["tcp://::1:80"] = "no port",
      ["tcp://[::1]"] = "no port",
      ["tcp://[::1:80"] = "no port",
      ["ftp://localhost:80"] = "unknown scheme",
      ["http://localhost:80"] = "a protocol's own module speaks it",
      ["udp://localhost:80"] = "by cosocket.udp",
      ["tcp://a b:80"] = "a character that no host has",
      ["tcp://user@host:80"] = "a character that no host has",
      ["tcp://" .. ("x"):rep(254) .. ":80"] = "longer than 253",
    }) do
      local err = test.fails("connect", cosocket.connect(address))
      test.matches(err.message, pattern)
      test.fails("connect", cosocket.listen(address, address:find("^tls") and {} or nil))
    end
    for _, port in ipairs({ -1, 65536, 1.5, 0 / 0, math.huge }) do
      test.matches(test.fails("connect", cosocket.connect("127.0.0.1", port)).message, "bad port")
    end
  end,

  ["unknown options are refused by name, with the nearest one"] = function()
    mistaken('unknown option "time_out"; did you mean "timeout"', cosocket.connect, "127.0.0.1:1", { time_out = 5 })
    mistaken('unknown option "nodely"; did you mean "nodelay"', cosocket.listen, "127.0.0.1:0", { nodely = true })
    mistaken('unknown option "braodcast"; did you mean "broadcast"', cosocket.udp, { braodcast = true })
    mistaken('unknown option "1"', cosocket.connect, "127.0.0.1:1", { "x" })
    local there_are = "; there are bind, broadcast, connect, mode, multicast_loop, multicast_ttl, reuse_address, ttl$"
    mistaken('unknown option "completely different"' .. there_are, cosocket.udp, { ["completely different"] = 1 })
  end,

  ["options may have metamethods that come back to the runtime"] = function()
    local asked = 0
    local options = setmetatable({}, { __index = function() asked = asked + (cosocket.now() and 1 or 0) end })
    local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0", options))
    local stream <close> = assert(cosocket.connect("tcp://" .. listener:local_address(), options))
    local udp <close> = assert(cosocket.udp(options))
    test.equal(asked > 10, true)
    local one, other = cosocket.pair()
    asked = 0
    for _, tls in ipairs({ { server = true, certificate = "x", key = "x" }, { ca = "x", server_name = "x" } }) do
      local ok, err = one:start_tls(setmetatable(tls, getmetatable(options)))
      test.equal({ ok, err.kind, err.op }, { nil, "tls", "start_tls" })
    end
    local ok, err = cosocket.listen("tls://127.0.0.1:0", { tls = setmetatable({ certificate = "x", key = "x" }, getmetatable(options)) })
    test.equal({ ok, err.kind, err.op }, { nil, "tls", "listen" })
    test.equal(asked > 5, true)
    one:close()
    other:close()
  end,

  ["options of a wrong type or value are the caller's mistake"] = function()
    local listen, connect, udp = cosocket.listen, cosocket.connect, cosocket.udp
    mistaken('"timeout" must be a number, not a string', connect, "127.0.0.1:1", { timeout = "5" })
    mistaken("must not be negative", connect, "127.0.0.1:1", { timeout = -1 })
    mistaken("must not be negative", connect, "127.0.0.1:1", { timeout = 0 / 0 })
    mistaken("must be a boolean or a number", connect, "127.0.0.1:1", { keepalive = "yes" })
    mistaken("keepalive_count says nothing without keepalive", connect, "127.0.0.1:1", { keepalive_count = 5 })
    mistaken("keepalive_interval says", connect, "127.0.0.1:1", { keepalive = false, keepalive_interval = 5 })
    mistaken("must be an integer, not a float", connect, "127.0.0.1:1", { queue_max = 1.5 })
    mistaken("the options must be a table", connect, "127.0.0.1", 1, 5)
    mistaken("wants options or a port %(a number%), not a string", connect, "127.0.0.1", "1")
    mistaken("wants an address, not a table", connect, { host = "127.0.0.1" })
    mistaken("wants an address, not nil", connect)
    mistaken("must be a boolean or a number", listen, "127.0.0.1:0", { keepalive = "yes" })
    mistaken("keepalive_count says nothing without keepalive", listen, "127.0.0.1:0", { keepalive_count = 5 })
    mistaken("keepalive_interval says", listen, "127.0.0.1:0", { keepalive = false, keepalive_interval = 5 })
    mistaken("keepalive_count\" must be an integer", listen, "127.0.0.1:0", { keepalive = true, keepalive_count = 1.5 })
    mistaken("backlog", listen, "127.0.0.1:0", { backlog = 1 << 40 })
    mistaken("mode", listen, "unix:///tmp/never.sock", { mode = 1 << 40 })
    mistaken('"tls" must be a table', listen, "127.0.0.1:0", { tls = true })
    mistaken("ttl", udp, { ttl = 1 << 40 })
    mistaken("both unix:///path, or both address:port", udp, { bind = "unix:///tmp/x", connect = "127.0.0.1:1" })
    mistaken("ttl goes with address:port", udp, { bind = "unix:///tmp/x", ttl = 1 })
    mistaken("mode goes with bind = \"unix:///path\"", udp, { bind = "127.0.0.1:0", mode = 1 })
    mistaken("the options must be a table", udp, "127.0.0.1:0")
    mistaken("resolve wants a name", cosocket.resolve, 5)
    test.matches(test.fails("connect", udp({ bind = "nonsense" })).message, "write host:port")
    test.fails("io", udp({ bind = "192.0.2.1:0" }))
  end,

  ["options of TLS that are used later are checked where they are given"] = function()
    local check = function(...) return cosocket.check_tls_options(...) end
    mistaken('unknown option "sever_name"; did you mean "server_name"', check, "op", { sever_name = "x" }, "client")
    mistaken('"ca" must be a string or a table', check, "op", { ca = 5 }, "client")
    mistaken("certificate needs", check, "op", { certificate = "c.pem" }, "client")
    mistaken("is not a SHA%-256", check, "op", { pin_sha256 = "x" }, "client")
    mistaken("min_version is above max_version", check, "op", { min_version = "1.3", max_version = "1.2" }, "client")
    mistaken("is no name to verify", check, "op", { server_name = "not a name" }, "client")
    mistaken('unknown option "ca"', check, "op", { certificate = "c.pem", key = "k.pem", ca = "x" }, "server")
    mistaken("a TLS server needs certificate and key", check, "op", {}, "server")
    mistaken('unknown option "name"; did you mean "names"', check, "op", { certificates = { { name = {} } } }, "server")
    mistaken('the side is "client" or "server"', check, "op", {}, "peer")
    test.equal(cosocket.check_tls_options("op", nil, "client"), {})
    -- Files are read when a connection is made.
    local given = { ca = "/nowhere/at/all.pem" }
    test.truthy(rawequal(cosocket.check_tls_options("op", given, "client"), given))
    local function connects(options) cosocket.check_tls_options("connects", options.tls, "client") end
    local function asks(options) cosocket.check_tls_options("asks", options.tls, "client", 3) end
    local function asking(options) asks(options) end
    for _, call in ipairs({ function() connects({ tls = { a = 1 } }) end, function() asking({ tls = { a = 1 } }) end }) do
      local _, err = pcall(call)
      test.matches(err.message, ":" .. debug.getinfo(call, "S").linedefined .. ": unknown option")
    end
  end,

  ["what is wrong in a table of TLS options is told with the table's name"] = function()
    local connect, listen = cosocket.connect, cosocket.listen
    mistaken('unknown option "tls.pin_sha265"; did you mean "pin_sha256"', connect, "127.0.0.1:1", { tls = { pin_sha265 = "" } })
    mistaken('unknown option "tls.verify"; there are alpn, ca, ', connect, "127.0.0.1:1", { tls = { verify = false } })
    mistaken('"tls.key" must be a string, not a boolean', listen, "tls://127.0.0.1:0", { tls = { key = true } })
    mistaken('"tls" must be a boolean or a table, not a string', connect, "127.0.0.1:1", { tls = "yes" })
  end,

  ["a dot where a colon belongs is told with the method, and the other way round"] = function()
    local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local near <close> = assert(cosocket.pair())
    local task = cosocket.spawn(function() end)
    mistaken("call this with a colon, on a socket: socket:accept%(%)", function() listener.accept() end)
    mistaken("call this with a colon, on a socket: socket:write%(%)", function() near.write("x") end)
    mistaken("call this with a colon, on a task: task:cancel%(%)", function() task.cancel() end)
    mistaken("call this with a colon, on a buffer: buffer:append%(%)", function() cosocket.buffer().append("x") end)
    mistaken("call this with a dot: cosocket.connect%(address%)", function() cosocket:connect("127.0.0.1:1") end)
    mistaken("call this with a dot: cosocket.listen%(address%)", function() cosocket:listen("127.0.0.1:0") end)
  end,

  ["a wrong argument is told with what was given in its place"] = function()
    local near <close> = assert(cosocket.pair())
    local udp <close> = assert(cosocket.udp())
    mistaken("a function is wanted, got no value", function() cosocket.spawn() end)
    mistaken("a number is wanted, got no value", function() cosocket.sleep() end)
    mistaken("a number of seconds, 0 or more, is wanted, got %-1", function() cosocket.sleep(-1) end)
    mistaken("a size from 1 to 1073741824 is wanted, got %-1", function() near:read(-1) end)
    mistaken("#2 to 'write': a string or a buffer is wanted, got nil", function() near:write("x", nil) end)
    mistaken("an address %(host:port%), not nil", function() udp:send_to("x") end)
    test.matches(test.fails("connect", udp:send_to("x", "127.0.0.1")).message, "no port; write host:port")
  end,

  ["an address is one value, which a list takes"] = function()
    local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local addresses = {}
    table.insert(addresses, listener:local_address())
    test.equal(#addresses, 1)
  end,

  ["a mistake is blamed on the line that made it"] = function()
    local here = "cosocket_socket_test.lua:" .. debug.getinfo(1, "l").currentline + 2
    local ok, err = pcall(function()
      cosocket.connect("127.0.0.1:1", { time_out = 5 })
    end)
    test.equal(ok, false)
    test.matches(err.message, here .. ": unknown option")
    for _, call in ipairs({
      function() cosocket.connect("127.0.0.1:1", { local_address = "x" }) end,
      function() cosocket.listen("127.0.0.1:0", { backlog = 1 << 40 }) end,
      function() cosocket.udp({ ttl = 1 << 40 }) end,
      function() cosocket.connect(5) end,
      function() cosocket.connect("\xff:1") end,
      function() cosocket.resolve("\xff") end,
      function() cosocket.stop("now") end,
      function() cosocket.select() end,
      function() cosocket.sleep("x") end,
      function() cosocket.spawn(5) end,
      function() cosocket.queue().put(5) end,
      function() cosocket.deadline(1) end,
      function() cosocket.udp():send_to({}, "x") end,
      function() cosocket.udp():join({}) end,
      function() cosocket.udp():join() end,
      function() cosocket.buffer({}) end,
      function() cosocket.buffer():take(-1) end,
      function() cosocket.buffer():append_uint(256, 1) end,
    }) do
      ok, err = pcall(call)
      local line = debug.getinfo(call, "S").linedefined
      assert(not ok and cosocket.is_error(err, "argument"), ("line %d: %s"):format(line, tostring(err)))
      test.matches(err.message, "cosocket_socket_test.lua:" .. line .. ": ")
    end
  end,
}
