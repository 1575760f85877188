-- What client.mjs talks to. Prints its address; `restart` ends the server and starts another at the same place.
local cosocket = require("cosocket")
local wsrpc = require("wsrpc")

local restart = cosocket.event()
local cancelled = 0

local methods = {
  add = function(a, b) return a + b end,
  sub = { function(a, b) return a - b end, params = { "a", "b" } },
  name_of_caller = { function(peer) return assert(peer:call("name")) end, with_peer = true },
  code_of_failure = {
    function(peer)
      local _, err = peer:call("boom")
      return { code = err.code, message = err.message }
    end,
    with_peer = true,
  },
  fail = function() return nil, wsrpc.error(-7, "no such sensor", { sensor = 1 }) end,
  slow = function()
    local guard <close> = setmetatable({}, { __close = function() cancelled = cancelled + 1 end })
    cosocket.sleep(1000)
  end,
  cancelled = function() return cancelled end,
  count = {
    function(emit, last)
      for i = 1, last do
        if not emit(i) then return end
      end
    end,
    stream = true,
  },
  broken = { function(emit) emit(1) return nil, wsrpc.error(-9, "the sensor is gone") end, stream = true },
  started = { function(emit) emit(cosocket.now()) cosocket.event():wait() end, stream = true },
  restart = function() restart:set() end,
}

local function start(address) return assert(wsrpc.serve("tcp://" .. address, methods, { token = "sec/ret?>" })) end

local server = start("127.0.0.1:0")
local address = server:address()
print(address)
io.stdout:flush()
restart:wait()
server:close()
server = start(address)
cosocket.event():wait()
