-- JSON-RPC over WebSocket through a network that fails: our server behind the fault proxy.

local cosocket = require("cosocket")
local proxy = require("conformance.faults.proxy")
local test = require("test")
local timed = require("conformance.faults.timed")
local wsrpc = require("wsrpc")

--- Seconds of silence after which a side is asked for a sign of life, and may take to give one.
local ALIVE = { keep_alive = 0.3, keep_alive_timeout = 0.3 }
local PATIENCE, SLACK = 0.4, 0.8
local RECONNECT = { delay_min = 0.01, delay_max = 0.05 }

--- A server whose streams and calls are counted, and a peer of it behind a proxy.
---@param faults? faults.Options
---@param options? wsrpc.ConnectOptions
---@return wsrpc.Peer peer
---@return faults.Proxy way
---@return {running: integer, emitted: integer} seen
---@return wsrpc.Server server
local function through(faults, options)
  local seen = { running = 0, emitted = 0 }
  local server = assert(wsrpc.serve("tcp://127.0.0.1:0", {
    echo = function(value) return value end,
    slowly = function(value, seconds)
      cosocket.sleep(seconds)
      return value
    end,
    count = {
      function(emit, pause)
        seen.running = seen.running + 1
        local running <close> = setmetatable({}, { __close = function() seen.running = seen.running - 1 end })
        local n = 0
        repeat
          n = n + 1
          seen.emitted = seen.emitted + 1
          if pause > 0 then cosocket.sleep(pause) end
        until not emit(n)
      end,
      stream = true,
    },
  }, ALIVE))
  local way = proxy.start(("ws://%s/rpc"):format(server:address()), faults)
  local all = { reconnect = RECONNECT, call_timeout = 5 }
  for name, value in pairs(ALIVE) do all[name] = value end
  for name, value in pairs(options or {}) do all[name] = value end
  return assert(wsrpc.connect(way.url, all)), way, seen, server
end

--- Waits until something is so.
local function soon(what, is_so)
  local patience = cosocket.now() + 5
  while not is_so() do
    if cosocket.now() > patience then error(what .. ": not within 5 s", 2) end
    cosocket.sleep(0.01)
  end
end

return {
  ["calls and answers in slices of one byte are the same"] = function()
    local peer <close> = through({ up = { slice = 1 }, down = { slice = 1 } })
    for _, value in ipairs({ 1, "aß€", { a = { 1, 2, 3 } }, ("x"):rep(300) }) do
      test.equal(peer:call("echo", { value }), value)
    end
  end,

  ["[JSON-RPC 5] with latency and jitter each answer finds its call, though later calls are answered first"] = function()
    local way = { latency = 0.05, jitter = 0.05 }
    local peer <close> = through({ up = way, down = way })
    local began, tasks = cosocket.now(), {}
    for i = 1, 60 do
      tasks[i] = cosocket.spawn(function() test.equal(peer:call("slowly", { i, (60 - i) / 200 }), i) end)
    end
    for _, task in ipairs(tasks) do task:join() end
    test.truthy(cosocket.now() - began < 3)
  end,

  ["a call through a stall ends by its timeout, and its late answer is nobody else's"] = function()
    local peer <close>, way = through(nil, { keep_alive = 0 })
    way:stall("down")
    local took, answer, err = timed(peer.call, peer, "echo", { "late" }, PATIENCE)
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
    way:resume()
    test.equal(peer:call("echo", { "in time" }), "in time")
    test.equal(way.connections, 1)
  end,

  ["a reset, a cut and a way that loses everything end what was asked, and the next connection answers"] = function()
    for _, fault in ipairs({ "reset", "interrupt", "lose" }) do
      local lost = cosocket.queue()
      local peer <close>, way = through(nil, { on_disconnect = function(_, err) lost:put(err) end })
      local asking = cosocket.spawn("asking", function() return peer:call("slowly", { 1, 60 }) end)
      cosocket.sleep(0.05)
      way[fault](way)
      local err = lost:get()
      test.equal(err.kind, fault == "lose" and "timeout" or "closed")
      way:resume()
      local answer, why = asking:join()
      test.falsy(answer)
      test.truthy(why.kind == "closed" or why.kind == "timeout", tostring(why))
      assert(peer:wait_open())
      test.equal(peer:call("echo", { "again" }), "again")
      test.equal(way.connections, 2)
    end
  end,

  ["streams go on after resets, cuts and losses, and the server runs each once"] = function()
    local peer <close>, way, seen = through()
    local stream <close> = assert(peer:subscribe("count", { 0.005 }))
    for _, fault in ipairs({ "reset", "interrupt", "lose", "reset" }) do
      for _ = 1, 5 do test.truthy(stream:next()) end
      local before = way.connections
      way[fault](way)
      if fault == "lose" then cosocket.sleep(0.1) end
      way:resume()
      soon("another connection", function() return way.connections > before end)
      -- It begins anew: what had come before may still be taken.
      repeat
        local value = assert(stream:next())
      until value == 1
      soon("the end of the task of the lost connection", function() return seen.running == 1 end)
    end
  end,

  ["a call that takes longer to leave than anything may stay unanswered is answered, on one connection"] = function()
    local slow = { bandwidth = 300000, buffer = 32768 }
    local peer <close>, way = through({ up = slow }, { send_timeout = 0.5, keep_alive_timeout = 0.5 })
    local text = ("0123456789"):rep(90000)
    local took, answer, err = timed(peer.call, peer, "echo", { text }, 20)
    assert(answer == text, err)
    test.truthy(took > 2, took)
    test.equal(way.connections, 1)
  end,

  ["a subscriber that takes nothing holds the publisher back"] = function()
    local peer <close>, way, seen = through(nil, { keep_alive = 0 })
    local stream <close> = assert(peer:subscribe("count", { 0 }, { window = 16 }))
    way:stall("down")
    soon("a full window", function() return seen.emitted >= 16 end)
    cosocket.sleep(0.1)
    test.truthy(seen.emitted <= 40, seen.emitted)
    way:resume()
    for i = 1, 100 do test.equal(stream:next(), i) end
  end,

  ["the server notices a client that is lost, and ends what it ran for it"] = function()
    local peer, way, seen, server = through(nil, { reconnect = false })
    assert(peer:subscribe("count", { 0.05 }))
    soon("the stream", function() return seen.running == 1 end)
    way:lose()
    soon("the end of the stream", function() return seen.running == 0 end)
    test.equal(server:peer_count(), 0)
    peer:close()
  end,

  ["a connection that ends after any byte answers calls rightly or with an error, and the next one is used"] = function()
    local whole
    do
      local peer <close>, way = through()
      for i = 1, 3 do test.equal(peer:call("echo", { i }), i) end
      whole = way.passed
    end
    for _, direction in ipairs({ "up", "down" }) do
      -- A connection has to be made: its handshake is some 130 bytes down and 200 up.
      for after = 260, whole[direction] + 10, 5 do
        local peer <close> = through({
          connection = function(number)
            return { [direction] = number == 1 and { after = after, fault = after % 2 == 0 and "reset" or "end" } or nil }
          end,
        })
        local failed = 0
        for i = 1, 4 do
          local answer, err = peer:call("echo", { i })
          if answer == nil then
            test.equal(err.kind, "closed")
            failed = failed + 1
            assert(peer:wait_open())
          else
            test.equal(answer, i)
          end
        end
        test.truthy(failed <= 1, failed)
      end
    end
  end,

  ["a peer that is closed on a way that loses everything is closed in time"] = function()
    local peer, way = through()
    way:lose()
    local took = timed(peer.close, peer)
    test.truthy(took < 6, took)
    test.truthy(peer:is_closed())
  end,
}
