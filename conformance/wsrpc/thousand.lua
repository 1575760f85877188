-- Many peers at once, each with a stream of ten values a second: is any lost, how late do they come, does memory grow?
--
--   moonwire thousand.lua serve                            prints where it listens
--   moonwire thousand.lua watch url=U peers=N seconds=S    prints what came of it, as a line of JSON
--   moonwire thousand.lua both peers=N seconds=S           the same in one process
--
-- A value carries the time at which it was due, so that a server that is late counts as well. It has come when the turn
-- of the loop in which it came is over: the clock stands still within one.
local arguments = require("conformance.arguments")
local cosocket = require("cosocket")
local json = require("json")
local wsrpc = require("wsrpc")

--- Seconds between two values of a stream.
local PERIOD = 0.1
--- Questions from whose quickest answer the other clock is told.
local QUESTIONS = 200
--- Milliseconds of a step in which delays are counted: counts take the same memory however long it runs.
local STEP = 0.1
--- Peers that connect at a time.
local CONNECTING = 50

local options = arguments(arg)

--- KiB of this process that are in memory.
local function resident()
  for line in io.lines("/proc/self/status") do
    local kib = line:match("^VmRSS:%s*(%d+) kB")
    if kib then return tonumber(kib) end
  end
end

local function serve()
  local server = assert(wsrpc.serve("ws://127.0.0.1:0", {
    now = cosocket.now,
    resident = resident,
    ticks = {
      function(emit, start, count)
        for i = 1, count do
          local due = start + i * PERIOD
          cosocket.sleep(math.max(0, due - cosocket.now()))
          assert(emit({ i, due }))
        end
      end,
      stream = true,
      params = { "start", "count" },
    },
  }))
  server:on("peers", function() return server:peer_count() end)
  return server
end

--- What is to be added to the time here for the time there.
local function offset(peer)
  local best, between = math.huge, nil
  for _ = 1, QUESTIONS do
    local asked = cosocket.now()
    local there = assert(peer:call("now"))
    local answered = cosocket.now()
    if answered - asked < best then best, between = answered - asked, there - (asked + answered) / 2 end
  end
  return between
end

local function watch(url)
  local count, seconds = tonumber(options.peers), tonumber(options.seconds)
  local each = math.floor(seconds / PERIOD)
  local peers, connecting = {}, {}
  -- Not in a group, which would wait for the end of the connections.
  for task = 1, CONNECTING do
    connecting[task] = cosocket.spawn("connect", function()
      for i = task, count, CONNECTING do peers[i] = assert(wsrpc.connect(url, { reconnect = false })) end
    end)
  end
  for _, task in ipairs(connecting) do task:join() end
  local first = peers[1]
  local ahead = offset(first)
  -- All have subscribed before the first value is due.
  local start = cosocket.now() + ahead + 2 + count / 1000
  local delays, received, out_of_order, slowest, memory = {}, 0, 0, 0, {}
  -- What comes later than in ten seconds is counted with what takes ten.
  local steps = 10000 // STEP
  for step = 0, steps do delays[step] = 0 end
  cosocket.group(function()
    cosocket.spawn("memory", function()
      for at, share in ipairs({ 1 / 6, 1 / 2, 1 }) do
        cosocket.sleep(math.max(0, start - ahead + seconds * share - PERIOD - cosocket.now()))
        memory[at] = { server = assert(first:call("resident")), client = resident() }
      end
      memory.peers = assert(first:call("peers"))
    end)
    for i, peer in ipairs(peers) do
      cosocket.spawn("watch", function()
        local expected = 1
        for value in peer:stream("ticks", { start + i / count * PERIOD, each }) do
          -- The end of this turn.
          cosocket.sleep(0)
          if value[1] ~= expected then out_of_order = out_of_order + 1 end
          expected = value[1] + 1
          received = received + 1
          local delay = (cosocket.now() + ahead - value[2]) * 1000
          local step = math.floor(math.min(math.max(delay // STEP, 0), steps))
          delays[step] = delays[step] + 1
          slowest = math.max(slowest, delay)
        end
      end)
    end
  end)
  --- The delay that so many of all values did not exceed.
  local function at(share)
    local seen = 0
    for step = 0, steps do
      seen = seen + delays[step]
      if seen >= received * share then return (step + 1) * STEP end
    end
  end
  print(json.encode({
    peers = memory.peers,
    seconds = seconds,
    expected = count * each,
    received = received,
    out_of_order = out_of_order,
    delay_ms = { p50 = at(0.5), p99 = at(0.99), p999 = at(0.999), max = slowest },
    server_kib = { memory[1].server, memory[2].server, memory[3].server },
    client_kib = { memory[1].client, memory[2].client, memory[3].client },
  }))
  for _, peer in ipairs(peers) do peer:start_close() end
end

if arg[1] == "serve" then
  print("listening on " .. serve():address())
elseif arg[1] == "watch" then
  watch(options.url)
else
  local server <close> = serve()
  watch(("ws://%s/rpc"):format(server:address()))
end
