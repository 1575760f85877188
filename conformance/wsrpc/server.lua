-- The server under test: `moonwire server.lua [cert=F key=F]`. It offers what every server here offers (`jsonrpsee/`,
-- `peer.py`): the methods of the specification's examples (JSON-RPC 2.0, 7), some more, and a subscription as Ethereum's
-- nodes and jsonrpsee know it. Others have small limits, allow few messages a second, or take long ones. Prints where
-- they listen.
local arguments = require("conformance.arguments")
local cosocket = require("cosocket")
local json = require("json")
local wsrpc = require("wsrpc")

local options = arguments(arg)

local null = json.null
local heard, subscriptions = 0, {}
--- Why peers were cut off that were too slow.
local cut = cosocket.queue(100)

--- Named params are the names in order; positional ones may be as many as one likes.
local function subtract(minuend, subtrahend)
  return minuend - subtrahend
end

local integer = { type = "integer" }

--- How many subscriptions a peer has.
local function count_of(peer)
  local count = 0
  for _ in pairs(subscriptions[peer] or {}) do count = count + 1 end
  return count
end

local methods = {
  subtract = { subtract, params = { { name = "minuend", schema = integer }, { name = "subtrahend", schema = integer } } },
  sum = function(...)
    local sum = 0
    for i = 1, select("#", ...) do sum = sum + select(i, ...) end
    return sum
  end,
  get_data = function() return json.array({ "hello", 5 }) end,
  update = function()
    heard = heard + 1
    return null
  end,
  notify_hello = function() return null end,
  notify_sum = function() return null end,
  heard = function() return heard end,
  echo = { function(value) return value end, params = { "value" } },
  slow = {
    function(milliseconds, value)
      cosocket.sleep(milliseconds / 1000)
      return value
    end,
    params = { { name = "milliseconds", schema = { type = "number" } }, "value" },
  },
  fail = function() return nil, wsrpc.error(-7, "no such sensor", { sensor = 3 }) end,
  raise = function() error("secret: " .. arg[0]) end,
  subscribe_count = {
    function(peer, last)
      local own = subscriptions[peer] or {}
      subscriptions[peer] = own
      local id = #own + 1
      while own[id] do id = id + 1 end
      own[id] = cosocket.spawn("count", function()
        for value = 1, last do assert(peer:notify("count", { subscription = id, result = value })) end
      end)
      return id
    end,
    params = { { name = "last", schema = integer } },
    with_peer = true,
  },
  unsubscribe_count = {
    function(peer, id)
      local own = subscriptions[peer] or {}
      local task = own[id]
      if not task then return false end
      task:cancel()
      own[id] = nil
      return true
    end,
    params = { { name = "subscription", schema = integer } },
    with_peer = true,
  },
  subscriptions = { count_of, with_peer = true },
  cut = function() return cut:get() end,
  -- Streams of ours.
  flood = {
    function(emit, size)
      local text = ("x"):rep(size)
      while emit(text) do end
    end,
    stream = true,
    params = { { name = "size", schema = integer } },
  },
}

local function forget(peer, err)
  subscriptions[peer] = nil
  if err.kind == "limit" and err.message:find("too slow") then cut:try_put(err.message) end
end

local function serve(name, limits)
  limits.on_disconnect = forget
  limits.tls = options.cert and { certificate = options.cert, key = options.key } or nil
  local server = assert(wsrpc.serve(options.cert and "wss://127.0.0.1:0" or "ws://127.0.0.1:0", methods, limits))
  return ("%s=%s"):format(name, server:address())
end

print("listening on " .. table.concat({
  serve("main", {}),
  serve("small", { calls_max = 4, subscriptions_max = 2, batch_max = 3, send_timeout = 1, token = "secret" }),
  serve("hasty", { rate = 10 }),
  serve("long", { message_max = 16777216 }),
}, " "))
