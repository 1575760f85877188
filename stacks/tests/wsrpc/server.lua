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

  -- Streams of the page
  sum_of_page = {
    function(peer, last)
      local sum = 0
      for number in peer:stream("numbers", { last }, { window = 8 }) do sum = sum + number end
      return sum
    end,
    with_peer = true,
  },
  hold_page = {
    function(peer)
      local stream <close> = assert(peer:subscribe("endless", nil, { window = 5 }))
      while stream:waiting() < 5 do cosocket.sleep(0.001) end
      -- Whatever the page had sent before it answers would be here by then.
      local made = assert(peer:call("made"))
      return { waiting = stream:waiting(), made = made }
    end,
    with_peer = true,
  },
  page_fails = {
    function(peer, name)
      local stream, err = peer:subscribe(name)
      if not stream then return { code = err.code, message = err.message } end
      local first = stream:next()
      local _, why = stream:next()
      return { first = first, code = why.code, message = why.message }
    end,
    with_peer = true,
  },
  page_after_restart = {
    function(peer)
      local stream <close> = assert(peer:subscribe("numbers", { 1 }))
      return stream:next()
    end,
    with_peer = true,
  },
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
