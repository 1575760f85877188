-- Both sides on the loopback: calls, errors, batches, streams, cancelling, connecting again.
local cosocket = require("cosocket")
local json = require("json")
local test = require("test")
local websocket = require("websocket")
local wsrpc = require("wsrpc")

---@return wsrpc.Server server
---@return string url
local function serve(methods, options)
  local server = assert(wsrpc.serve("tcp://127.0.0.1:0", methods, options))
  return server, "ws://" .. server:address() .. "/rpc"
end

--- The code of a call's error.
local function code_of(result, err)
  test.equal(result, nil)
  test.equal(err.kind, "refused")
  return err.code, err
end

return {
  ["params come by position and by name, null as nil, and no result is null"] = function()
    local server <close>, url = serve({
      sub = { function(a, b) return a - b end, params = { "a", { name = "b", schema = { type = "number" } } } },
      say = { function(text, suffix) return text .. (suffix or "!") end, params = { "text", { name = "suffix", required = false } } },
      count = function(...) return select("#", ...) end,
      whole = function(params) return params.x end,
      nothing = function() end,
      no = function() return false end,
    })
    local peer <close> = assert(wsrpc.connect(url))
    test.equal(peer:call("sub", { 7, 2 }), 5)
    test.equal(peer:call("sub", { b = 2, a = 7 }), 5)
    test.equal(peer:call("say", { "hi" }), "hi!")
    test.equal(peer:call("say", { text = "hi", suffix = json.null }), "hi!")
    test.equal(peer:call("count", { 1, json.null, 3 }), 3)
    test.equal(peer:call("count"), 0)
    test.equal(peer:call("count", json.array()), 0)
    test.equal(peer:call("whole", { x = "y" }), "y")
    test.equal(peer:call("nothing"), json.null)
    test.equal(peer:call("no"), false)
    for _, params in ipairs({ { 1 }, { 1, 2, 3 }, { 1, "2" }, { a = 1 }, { a = 1, b = 2, c = 3 }, { 1, json.null } }) do
      test.equal(code_of(peer:call("sub", params)), -32602)
    end
    test.equal(code_of(peer:call("count", (function()
      local many = {}
      for i = 1, 201 do many[i] = i end
      return many
    end)())), -32602)
  end,

  ["nothing but what was registered can be called"] = function()
    local server <close>, url = serve({ known = function() return 1 end })
    local peer <close> = assert(wsrpc.connect(url))
    for _, name in ipairs({
      "__gc", "__index", "constructor", "__proto__", "toString", "hasOwnProperty", "os.execute", "print", "", "rpc.x",
      "known ", "KNOWN", "call", "close", ("x"):rep(100000),
    }) do
      test.equal(code_of(peer:call(name)), -32601)
    end
    test.equal(peer:call("known"), 1)
  end,

  ["errors tell a code, and the words only of those that were meant to be told"] = function()
    local server <close>, url = serve({
      raises = function() error("secret /etc/passwd") end,
      answers = function() return nil, "secret /etc/passwd" end,
      io = function() return io.open("/no/such/secret") end,
      told = function() return nil, wsrpc.error(-7, "no such sensor", { sensor = 3 }) end,
      throws = function() error(wsrpc.error(wsrpc.code.invalid_params, "too hot")) end,
      unprintable = function() return print end,
      circular = function() return nil, wsrpc.error(-8, "x", { print }) end,
    })
    local peer <close> = assert(wsrpc.connect(url))
    for name, code in pairs({ raises = -32603, answers = -32000, io = -32000, unprintable = -32603, circular = -8 }) do
      local got, err = code_of(peer:call(name))
      test.equal(got, code)
      test.falsy(tostring(err):find("secret") or err.data)
    end
    local code, err = code_of(peer:call("told"))
    test.equal({ code, err.message, err.data.sensor }, { -7, "no such sensor", 3 })
    code, err = code_of(peer:call("throws"))
    test.equal({ code, err.message }, { -32602, "too hot" })
  end,

  ["a hundred calls run at once and are answered as they end"] = function()
    local turns, running, all = {}, 0, cosocket.event()
    for i = 1, 100 do turns[i] = cosocket.event() end
    local server <close>, url = serve({
      wait = function(i)
        running = running + 1
        if running == 100 then all:set() end
        turns[i]:wait()
        return i
      end,
    })
    local peer <close> = assert(wsrpc.connect(url))
    local answered = cosocket.queue()
    cosocket.group(function()
      for i = 1, 100 do
        cosocket.spawn(function() answered:put(assert(peer:call("wait", { i }))) end)
      end
      assert(all:wait())
      for i = 100, 1, -1 do
        turns[i]:set()
        test.equal(answered:get(), i)
      end
    end)
  end,

  ["both sides call each other, even within a call"] = function()
    local server <close>, url = serve({
      double = { function(peer, n) return assert(peer:call("twice", { n })) end, with_peer = true },
    })
    local peer <close> = assert(wsrpc.connect(url, { methods = { twice = function(n) return 2 * n end } }))
    test.equal(peer:call("double", { 21 }), 42)
    peer:on("twice", function(n) return 3 * n end)
    test.equal(peer:call("double", { 2 }), 6)
    peer:on("twice", nil)
    test.equal(peer:call("double", { 2 }), 4)
  end,

  ["notifications reach the other side and are not answered"] = function()
    local got = cosocket.queue()
    local server <close>, url = serve({
      log = function(...) got:put({ ... }) end,
      fails = function() error("unheard") end,
    })
    local peer <close> = assert(wsrpc.connect(url))
    assert(peer:notify("fails"))
    assert(peer:notify("unknown"))
    assert(peer:notify("log", { 1, 2 }))
    test.equal(got:get(), { 1, 2 })
  end,

  ["a batch is answered in its order, errors included"] = function()
    local got
    local server <close>, url = serve({
      slow = function(x) cosocket.sleep(0.05) return x end,
      fast = function(x) return x end,
      log = function(x) got = x end,
    })
    local peer <close> = assert(wsrpc.connect(url))
    local answers = assert(peer:batch({ { "slow", { 1 } }, { "log", { "x" }, notify = true }, { "nope" }, { "fast", { 2 } } }))
    test.equal(#answers, 3)
    test.equal({ answers[1].result, answers[2].error.code, answers[3].result }, { 1, -32601, 2 })
    test.equal(got, "x")
    test.equal(peer:batch({ { "log", { "y" }, notify = true } }), {})
    test.fails("timeout", peer:batch({ { "slow", { 1 } }, { "fast" } }, 0.01))
    test.raises("a list of requests", peer.batch, peer, {})
  end,

  ["a call that is given up is cancelled over there"] = function()
    local begun, ended = cosocket.queue(), cosocket.queue()
    local server <close>, url = serve({
      slow = function()
        begun:put("begun")
        local guard <close> = setmetatable({}, { __close = function() ended:try_put("closed") end })
        cosocket.sleep(1000)
        ended:try_put("slept")
      end,
    })
    local peer <close> = assert(wsrpc.connect(url))
    local err = test.fails("timeout", peer:call("slow", nil, 0.05))
    test.matches(err.message, "slow was not answered within 0.05 s")
    test.equal(ended:get(), "closed")
    local task = cosocket.spawn(function() peer:call("slow") end)
    test.equal(begun:get(), "begun")
    test.equal(begun:get(), "begun")
    task:cancel()
    test.equal(ended:get(), "closed")
    test.fails("timeout", cosocket.deadline(0.05, peer.call, peer, "slow"))
    test.equal(ended:get(), "closed")
  end,

  ["a method's time ends its waits, and is told as such"] = function()
    local server <close>, url = serve({
      patient = { function() return assert(cosocket.sleep(1000)) end, timeout = 0.02 },
      general = function() return cosocket.sleep(1000) end,
      unlimited = { function() return cosocket.sleep(0.1) end, timeout = 0 },
    }, { handler_timeout = 0.04 })
    local peer <close> = assert(wsrpc.connect(url))
    test.equal(code_of(peer:call("patient")), wsrpc.code.timeout)
    test.equal(code_of(peer:call("general")), wsrpc.code.timeout)
    test.equal(peer:call("unlimited"), true)
  end,

  ["calls beyond the limit are refused, and a slow one holds none of the others"] = function()
    local begun, go_on = cosocket.queue(), cosocket.event()
    local server <close>, url = serve({
      slow = function()
        begun:put(true)
        go_on:wait()
        return "slow"
      end,
      fast = function() return "fast" end,
    }, { calls_max = 2 })
    local peer <close> = assert(wsrpc.connect(url))
    local one = cosocket.spawn(peer.call, peer, "slow")
    begun:get()
    for _ = 1, 10 do test.equal(peer:call("fast"), "fast") end
    local two = cosocket.spawn(peer.call, peer, "slow")
    begun:get()
    test.equal(code_of(peer:call("fast")), wsrpc.code.busy)
    go_on:set()
    test.equal({ one:join(), two:join() }, { "slow", "slow" })
    test.equal(peer:call("fast"), "fast")
  end,

  ["calls that end at once are within the limit, however many come together"] = function()
    local heard = 0
    local server <close>, url = serve({
      quick = function(i) return i end,
      news = function() heard = heard + 1 end,
    }, { calls_max = 2 })
    local peer <close> = assert(wsrpc.connect(url))
    cosocket.group(function()
      for i = 1, 200 do
        cosocket.spawn(function() test.equal(peer:call("quick", { i }), i) end)
        assert(peer:notify("news", { i }))
      end
    end)
    test.equal(heard, 200)
  end,

  ["of calls that come together one that waits holds none of the others"] = function()
    local begun, ended, go_on = {}, cosocket.queue(), cosocket.event()
    local server <close>, url = serve({
      work = function(i)
        begun[#begun + 1] = i
        -- Every third has to wait.
        if i % 3 == 0 then go_on:wait() end
        ended:put(i)
      end,
    })
    local peer <close> = assert(wsrpc.connect(url))
    local batch, all = {}, {}
    for i = 1, 100 do batch[i], all[i] = { "work", { i }, notify = true }, i end
    assert(peer:batch(batch))
    for i = 1, 100 do
      if i % 3 ~= 0 then test.equal(ended:get(), i) end
    end
    test.equal(begun, all, "they begin in the order in which they came")
    go_on:set()
    for i = 3, 100, 3 do test.equal(ended:get(), i) end
  end,

  ["a call that is cancelled before it begins never does"] = function()
    local begun = {}
    local server <close>, url = serve({ work = function(i) begun[#begun + 1] = i end })
    local connection <close> = assert(websocket.connect(url))
    local function request(id) return ('{"jsonrpc":"2.0","id":%d,"method":"work","params":[%d]}'):format(id, id) end
    local cancel = '{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":2}}'
    assert(connection:send("[" .. table.concat({ request(1), request(2), cancel, request(3) }, ",") .. "]"))
    local codes = {}
    for _, answer in ipairs(assert(json.decode((assert(connection:receive()))))) do
      codes[answer.id] = answer.error and answer.error.code or "done"
    end
    test.equal(codes, { "done", wsrpc.code.cancelled, "done" })
    test.equal(begun, { 1, 3 })
  end,

  ["a stream's values come in order, and its end ends the loop"] = function()
    local server <close>, url = serve({
      count = {
        function(emit, first, last)
          for i = first, last do assert(emit(i)) end
        end,
        stream = true,
        params = { "first", "last" },
      },
    })
    local peer <close> = assert(wsrpc.connect(url))
    local sum, last = 0, 0
    for value in peer:stream("count", { first = 1, last = 1000 }) do
      test.equal(value, last + 1)
      sum, last = sum + value, value
    end
    test.equal(sum, 500500)
    local one = assert(peer:subscribe("count", { 1, 2 }, { window = 1 }))
    test.equal({ one:next(), one:next() }, { 1, 2 })
    local value, err = one:next()
    test.equal({ value, err, one.err }, {})
    test.equal(code_of(peer:subscribe("count", { 1 })), -32602)
    test.equal(code_of(peer:subscribe("nope")), -32601)
    -- A stream is not a method.
    test.equal(code_of(peer:call("count", { 1, 2 })), -32601)
    test.raises("Stream not found", function()
      for _ in peer:stream("nope") do error("no value") end
    end)
  end,

  ["a publisher waits for a subscriber that does not take, and others go on"] = function()
    local emitted = 0
    local server <close>, url = serve({
      fast = {
        function(emit)
          while emit(emitted + 1) do emitted = emitted + 1 end
        end,
        stream = true,
      },
      ping = function() return "pong" end,
    })
    local peer <close> = assert(wsrpc.connect(url))
    local one <close> = assert(peer:subscribe("fast", nil, { window = 10 }))
    -- What was sent before the answer has come before it.
    test.equal(peer:call("ping"), "pong")
    test.equal({ emitted, one:waiting() }, { 10, 10 })
    for i = 1, 100 do test.equal(one:next(), i) end
    test.equal(peer:call("ping"), "pong")
    test.truthy(emitted >= 100 and emitted <= 110)
  end,

  ["leaving the loop ends the task over there"] = function()
    local ended = cosocket.event()
    local server <close>, url = serve({
      clock = {
        function(emit)
          local guard <close> = setmetatable({}, { __close = function() ended:set() end })
          while emit(cosocket.now()) do cosocket.sleep(0.01) end
        end,
        stream = true,
      },
    })
    local peer <close> = assert(wsrpc.connect(url))
    local seen = 0
    for _ in peer:stream("clock") do
      seen = seen + 1
      if seen == 3 then break end
    end
    assert(ended:wait())
    test.equal(seen, 3)
  end,

  ["a stream that fails raises in the loop, after the values that came"] = function()
    local server <close>, url = serve({
      told = { function(emit) emit(1) return nil, wsrpc.error(-9, "the sensor is gone") end, stream = true },
      broken = { function(emit) emit(1) error("secret") end, stream = true },
    })
    local peer <close> = assert(wsrpc.connect(url))
    for name, wanted in pairs({ told = "the sensor is gone", broken = "Internal error" }) do
      local seen = {}
      local ok, err = pcall(function()
        for value in peer:stream(name) do seen[#seen + 1] = value end
      end)
      test.equal({ ok, seen }, { false, { 1 } })
      test.equal(err.message, wanted)
    end
  end,

  ["a server's call and stream end with the connection"] = function()
    local ended, outcome = cosocket.queue(), cosocket.queue()
    local server <close>, url = serve({
      hang = function()
        local guard <close> = setmetatable({}, { __close = function() ended:try_put("call") end })
        cosocket.sleep(1000)
      end,
      clock = {
        function(emit)
          local guard <close> = setmetatable({}, { __close = function() ended:try_put("stream") end })
          while emit(1) do cosocket.sleep(0.01) end
        end,
        stream = true,
      },
    }, { on_disconnect = function(_, err) outcome:try_put(err.code) end })
    local peer = assert(wsrpc.connect(url))
    local call = cosocket.spawn(function() return select(2, peer:call("hang")) end)
    local one = assert(peer:subscribe("clock"))
    test.truthy(one:next())
    peer:close(3001, "enough")
    test.equal(outcome:get(), 3001)
    local what = { ended:get(), ended:get() }
    table.sort(what)
    test.equal(what, { "call", "stream" })
    test.equal(call:join().kind, "closed")
    repeat local value, err = one:next() until value == nil
    test.equal(one.err.kind, "closed")
    test.fails("closed", peer:call("hang"))
    test.equal(server:peer_count(), 0)
  end,

  ["a client connects again, and its streams go on"] = function()
    local first <close>, url = serve({
      name = function() return "first" end,
      clock = { function(emit) while emit("first") do cosocket.sleep(0.01) end end, stream = true },
    })
    local address = "tcp://" .. first:address()
    local connects, losses, lost = 0, 0, cosocket.event()
    local peer <close> = assert(wsrpc.connect(url, {
      reconnect = { delay_min = 0.01, delay_max = 0.05 },
      on_connect = function() connects = connects + 1 end,
      on_disconnect = function(_, err)
        losses = losses + 1
        lost:set()
        test.equal(err.code, 1001)
      end,
    }))
    local one <close> = assert(peer:subscribe("clock"))
    local left = assert(peer:subscribe("clock", nil, { resubscribe = false }))
    test.equal(one:next(), "first")
    first:close()
    assert(lost:wait())
    local second <close> = assert(wsrpc.serve(address, {
      name = function() return "second" end,
      clock = { function(emit) while emit("second") do cosocket.sleep(0.01) end end, stream = true },
    }))
    -- A call waits for the connection.
    test.equal(peer:call("name"), "second")
    local value
    repeat value = assert(one:next()) until value ~= "first"
    test.equal(value, "second")
    repeat value = left:next() until value == nil
    test.equal(left.err.code, 1001)
    test.equal({ connects, losses }, { 2, 1 })
    test.equal(second:peer_count(), 1)
  end,

  ["a client that is closed while it waits to connect again stays closed"] = function()
    local server, url = serve({})
    local lost, call = cosocket.event(), nil
    local peer = assert(wsrpc.connect(url, {
      reconnect = { delay_min = 10, delay_max = 100 },
      on_disconnect = function() lost:set() end,
    }))
    server:close()
    call = cosocket.spawn(function() return select(2, peer:call("x")) end)
    assert(lost:wait())
    test.equal(peer:is_open(), false)
    peer:close()
    test.equal(call:join().kind, "closed")
  end,

  ["without reconnecting the end is the end"] = function()
    local server, url = serve({ clock = { function(emit) while emit(1) do cosocket.sleep(0.01) end end, stream = true } })
    local peer = assert(wsrpc.connect(url, { reconnect = false }))
    local one = assert(peer:subscribe("clock"))
    server:close()
    assert(peer:wait_closed())
    repeat local value = one:next() until value == nil
    test.equal(one.err.code, 1001)
    test.fails("closed", peer:call("x"))
    test.fails("closed", peer:notify("x"))
    test.fails("closed", peer:subscribe("x"))
  end,

  ["what has no JSON form is the caller's mistake"] = function()
    local server <close>, url = serve({})
    local peer <close> = assert(wsrpc.connect(url))
    test.raises("NaN", peer.call, peer, "m", { 0 / 0 })
    test.raises("function", peer.notify, peer, "m", { print })
    test.raises("must be a string", peer.call, peer, 7)
    test.raises("params must be a table", peer.call, peer, "m", "text")
    test.fails("limit", peer:call("m", { ("x"):rep(2000000) }))
    test.raises("reserved", peer.on, peer, "rpc.mine", print)
    test.raises("must be a function", peer.on, peer, "mine", 7)
    test.raises("colour", wsrpc.connect, url, { colour = 1 })
    test.raises("not a type", peer.on, peer, "mine", { print, params = { { name = "x", schema = { type = "float" } } } })
  end,

  ["an answer that is no JSON-RPC fails the call alone"] = function()
    local raw <close> = assert(websocket.listen("ws://127.0.0.1:0", function(connection)
      connection:receive()
      connection:send('{"jsonrpc":"2.0","id":1,"result":1,"error":{}}')
      connection:receive()
      connection:send('{"jsonrpc":"2.0","id":2,"result":"fine"}')
      connection:receive()
    end))
    local peer <close> = assert(wsrpc.connect("ws://" .. raw:address(), { reconnect = false }))
    test.fails("protocol", peer:call("m"))
    test.equal(peer:call("m"), "fine")
  end,

  ["rpc.discover tells what there is"] = function()
    local server <close>, url = serve({
      add = {
        function(a, b) return a + b end,
        summary = "Adds.",
        description = "Two numbers.",
        params = { { name = "a", schema = { type = "number" } }, { name = "b", required = false } },
        result = { name = "sum", schema = { type = "number" } },
      },
      clock = { function() end, stream = true, summary = "Time." },
    }, { title = "thermostat", version = "1.2" })
    local peer <close> = assert(wsrpc.connect(url))
    local document = assert(peer:call("rpc.discover"))
    test.equal(document.openrpc, "1.3.2")
    test.equal(document.info, { title = "thermostat", version = "1.2" })
    test.equal(#document.methods, 1)
    local add = document.methods[1]
    test.equal({ add.name, add.summary, add.description }, { "add", "Adds.", "Two numbers." })
    test.equal({ add.params[1].name, add.params[1].required, add.params[1].schema.type }, { "a", true, "number" })
    test.equal({ add.params[2].name, add.params[2].required, json.encode(add.params[2].schema) }, { "b", false, "{}" })
    test.equal(add.result.schema.type, "number")
    test.equal(document["x-streams"][1].name, "clock")
    local silent <close>, there = serve({}, { discover = false })
    local other <close> = assert(wsrpc.connect(there))
    test.equal(code_of(other:call("rpc.discover")), -32601)
  end,
}
