-- WebSocket through a network that fails: Python websockets, which says everything back, behind the fault proxy.

local cosocket = require("cosocket")
local proxy = require("conformance.faults.proxy")
local test = require("test")
local timed = require("conformance.faults.timed")
local websocket = require("websocket")

local URL = os.getenv("MOONWIRE_WEBSOCKET_URL") or "ws://127.0.0.1:1"

--- Seconds that who waits is willing to, and how much later it may know.
local PATIENCE, SLACK = 0.4, 0.8

--- A connection through a proxy.
---@param faults? faults.Options
---@param options? websocket.ConnectOptions
---@return websocket.Connection
---@return faults.Proxy
local function through(faults, options)
  local way = proxy.start(URL, faults)
  return assert(websocket.connect(way.url, options)), way
end

--- How many bytes come down for the handshake, and for it and an echo of `text`.
local function sizes(text)
  local connection <close>, way = through()
  local handshake = way.passed.down
  assert(connection:send(text))
  assert(connection:receive())
  return handshake, way.passed.down
end

--- That a connection has ended, and how.
local function ended(connection, kind, code)
  local took, message, err = timed(connection.receive, connection)
  test.fails(kind, message, err)
  test.equal(err.code, code)
  test.equal(connection.close_code, code)
  return took
end

return {
  ["[RFC 6455 5.2] messages in slices of one byte are the same messages, compressed and not"] = function()
    for _, compression in ipairs({ false, { threshold = 0 } }) do
      local connection <close> = through({ up = { slice = 1 }, down = { slice = 1 } }, { compression = compression })
      for _, size in ipairs({ 0, 1, 125, 126, 700 }) do
        local text = ("aß€ "):rep(size // 7) .. ("x"):rep(size % 7)
        assert(connection:send(text))
        test.equal(connection:receive(), text)
      end
      local bytes = test.random():bytes(1000)
      assert(connection:send_binary(bytes))
      local got, kind = connection:receive()
      assert(got == bytes and kind == "binary", "other bytes came back")
    end
  end,

  ["[RFC 6455 5.2] a large message in slices of any size is the same message"] = function()
    local bytes = test.random():bytes(100000)
    for _, slice in ipairs({ 997, 4096 }) do
      local connection <close> = through({ up = { slice = slice }, down = { slice = slice } })
      assert(connection:send_binary(bytes))
      assert(connection:receive() == bytes, "other bytes came back")
    end
  end,

  ["with latency and jitter messages keep their order, and do not wait for each other"] = function()
    local way = { latency = 0.1, jitter = 0.05 }
    local connection <close> = through({ up = way, down = way })
    local began = cosocket.now()
    for i = 1, 100 do assert(connection:send(tostring(i))) end
    for i = 1, 100 do test.equal(connection:receive(), tostring(i)) end
    test.truthy(cosocket.now() - began < 5)
  end,

  ["[RFC 6455 4.1] a handshake that ends, is reset or stalls after any byte is no connection"] = function()
    local handshake = sizes("x")
    for after = 0, handshake - 1 do
      for _, fault in ipairs(after % 10 == 0 and { "end", "reset", "stall" } or { "end" }) do
        local way = proxy.start(URL, { down = { after = after, fault = fault } })
        local connection, err = websocket.connect(way.url, { timeout = fault == "stall" and 0.15 or 5 })
        test.fails(fault == "stall" and "timeout" or "closed", connection, err)
      end
    end
  end,

  ["[RFC 6455 7.1.5] a message that is cut after any byte is an abnormal closure (1006), never a short message"] = function()
    local text = ("0123456789"):rep(20)
    local handshake, whole = sizes(text)
    for after = handshake, whole - 1, 3 do
      for _, fault in ipairs({ "end", "reset" }) do
        local way = proxy.start(URL, { down = { after = after, fault = fault } })
        local connection <close> = assert(websocket.connect(way.url))
        connection:send(text)
        ended(connection, "closed", 1006)
      end
    end
  end,

  ["[RFC 6455 5.5.2] a way that loses everything, or what comes, is noticed by a Ping without an answer"] = function()
    for _, directions in ipairs({ { "down" }, { "up", "down" } }) do
      local connection <close>, way = through(nil, { keep_alive = 0.3, keep_alive_timeout = 0.3 })
      assert(connection:send("before"))
      test.equal(connection:receive(), "before")
      for _, direction in ipairs(directions) do way:lose(direction) end
      local took = ended(connection, "timeout", 1006)
      test.truthy(took > 0.3 and took < 0.6 + SLACK, took)
    end
  end,

  ["[RFC 6455 5.5.2] who keeps sending notices it just as well"] = function()
    local connection <close>, way = through(nil, { keep_alive = 0.3, keep_alive_timeout = 0.3 })
    local sender = cosocket.spawn("sending", function()
      while connection:send("into the void") do cosocket.sleep(0.02) end
    end)
    cosocket.sleep(0.1)
    way:lose()
    local began = cosocket.now()
    while connection:receive() do end
    local took = cosocket.now() - began
    test.truthy(took < 0.6 + SLACK, took)
    sender:join()
  end,

  ["[RFC 6455 5.5.2] a message that takes longer to leave than a Ping may stay unanswered arrives, on one connection"] = function()
    local slow = { bandwidth = 100000, buffer = 8192 }
    local connection <close>, way = through({ up = slow }, { keep_alive = 0.3, keep_alive_timeout = 0.5 })
    local bytes = test.random():bytes(300000)
    assert(connection:send_binary(bytes))
    local took, got, err = timed(connection.receive, connection)
    assert(got == bytes, err)
    test.truthy(took > 2, took)
    test.equal(way.connections, 1)
  end,

  ["a connection lives through a stall that is shorter than its keep alive"] = function()
    local connection <close>, way = through(nil, { keep_alive = 0.3, keep_alive_timeout = 1 })
    way:stall("down")
    assert(connection:send("late"))
    test.fails("timeout", cosocket.deadline(PATIENCE, connection.receive, connection))
    way:resume()
    test.equal(connection:receive(), "late")
  end,

  ["[RFC 6455 7.1.1] closing ends in time on a way that loses everything"] = function()
    local connection, way = through(nil, { close_timeout = PATIENCE })
    way:lose()
    local took = timed(connection.close, connection, 1000, "enough")
    test.truthy(took < PATIENCE + SLACK, took)
  end,

  ["a receiver that takes nothing holds a sender back, who ends by its deadline"] = function()
    local connection <close>, way = through(nil, { keep_alive = 0, close_timeout = 0.2 })
    way:stall("up")
    local sent, bytes = 0, ("x"):rep(1048576)
    local took, ok, err = timed(cosocket.deadline, 1, function()
      while true do
        local fine, why = connection:send_binary(bytes)
        if not fine then return nil, why end
        sent = sent + 1
      end
    end)
    test.fails("timeout", ok, err)
    -- A megabyte is masked between two looks at the clock.
    test.truthy(took >= 0.95 and took < 3, took)
    test.truthy(sent < 32, sent)
  end,

  ["a reset while nothing is going on is known to who waits, and to who sends next"] = function()
    local connection <close>, way = through()
    local waiting = cosocket.spawn("receiving", function() return ended(connection, "closed", 1006) end)
    cosocket.sleep(0.05)
    way:reset()
    waiting:join()
    test.fails("closed", connection:send("too late"))
  end,

  ["a server that refuses, or accepts and stays silent, is an error in time"] = function()
    local url = proxy.refused(URL)
    local connection, err = websocket.connect(url)
    test.fails("connect", connection, err)
    test.equal(err.code, "ECONNREFUSED")
    local took
    took, connection, err = timed(websocket.connect, proxy.start(URL, { accept = "silent" }).url, { timeout = PATIENCE })
    test.fails("timeout", connection, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
  end,

  ["whatever happens at whatever place, connections end with an error in time, and nothing is left"] = function()
    local random = test.random()
    local function round(count)
      local way = proxy.start(URL, {
        connection = function()
          local one = { after = random(0, 3000), fault = random:pick({ "stall", "lose", "end", "cut", "reset" }) }
          if random(2) == 1 then one.slice = random(20, 200) end
          return { [random:pick({ "up", "down" })] = one }
        end,
      })
      local tasks = {}
      for i = 1, count do
        tasks[i] = cosocket.spawn(function()
          local began = cosocket.now()
          local options = { timeout = 1, keep_alive = 0.3, keep_alive_timeout = 0.3, close_timeout = 0.3 }
          local connection = websocket.connect(way.url, options)
          for n = 1, connection and 100 or 0 do
            local text = ("%d "):format(n):rep(50)
            if not connection:send(text) then break end
            local got = connection:receive()
            if not got then break end
            test.equal(got, text)
          end
          if connection then connection:close() end
          local took = cosocket.now() - began
          test.truthy(took < 9, took)
        end)
      end
      for _, task in ipairs(tasks) do task:join() end
      way:refuse()
      cosocket.sleep(0.05)
      for _ = 1, 2 do collectgarbage() end
      return #cosocket.tasks()
    end
    local tasks = round(10)
    test.equal(round(60), tasks)
  end,
}
