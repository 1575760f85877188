-- Random arguments and random call orders: whatever comes, a call answers, or raises an error table that says what
-- was wrong with it. A failing test names the seed.

local cosocket = require("cosocket")
local test = require("test")

--- Names of every method of each kind of object.
local METHODS = {
  stream = {
    "read", "read_line", "read_until", "read_all", "fill", "turn", "wake", "write", "try_write", "try_flush", "flush",
    "shutdown", "close", "peer_address", "local_address", "progress", "set_option", "start_tls", "tls_info", "handshake",
  },
  listener = { "accept", "local_address", "close" },
  udp = { "send", "send_to", "receive", "join", "leave", "local_address", "close" },
  buffer = {
    "append", "peek", "take", "skip", "find", "line", "clear", "append_uint", "append_int", "peek_uint", "peek_int",
    "take_uint", "take_int", "set_uint", "len",
  },
  queue = { "put", "get", "try_put", "try_get", "close" },
  semaphore = { "acquire", "try_acquire" },
  permit = { "release" },
  event = { "set", "clear", "is_set", "wait" },
  task = { "join", "cancel", "name", "status" },
}

local MAKERS = {
  stream = function() return (cosocket.pair()) end,
  listener = function() return (cosocket.listen("tcp://127.0.0.1:0")) end,
  udp = function() return (cosocket.udp({ bind = "127.0.0.1:0" })) end,
  buffer = function() return cosocket.buffer("some bytes") end,
  queue = function() return cosocket.queue(2) end,
  semaphore = function() return cosocket.semaphore(1) end,
  permit = function() return (cosocket.semaphore(1):acquire()) end,
  event = function() return cosocket.event() end,
  task = function() return cosocket.spawn(function() return cosocket.deadline(0.01, cosocket.sleep, 1) end) end,
}

local FUNCTIONS = {
  "error", "is_error", "connect", "listen", "pair", "resolve", "udp", "spawn", "group", "deadline", "sleep", "now",
  "tasks", "on_stop", "queue", "semaphore", "event", "select", "buffer",
}

local KINDS = {}
for kind in pairs(METHODS) do KINDS[#KINDS + 1] = kind end
table.sort(KINDS)

local OPTIONS = {
  "tls", "timeout", "local_address", "nodelay", "keepalive", "keepalive_interval", "keepalive_count", "queue_max",
  "backlog", "mode", "bind", "connect", "broadcast", "ttl", "ca", "certificate", "key", "alpn", "server", "server_name",
  "insecure", "min_version", "max_version", "x", 1,
}

--- A world of objects, and values for arguments from it.
local function new_world(random)
  local world = { kinds = {}, held = {} }
  for _, kind in ipairs(KINDS) do
    world.kinds[kind] = { MAKERS[kind](), MAKERS[kind]() }
  end

  function world.object()
    local kind = random:pick(KINDS)
    return random:pick(world.kinds[kind]), kind
  end

  local simple = {
    function() return nil end,
    function() return random(2) == 1 end,
    function() return random(-3, 20) end,
    function() return random:pick({ math.maxinteger, math.mininteger, 1 << 31, 1 << 32, 1 << 53, 65536, -1 }) end,
    function() return random:pick({ 0.5, -0.5, 1e300, -1e300, math.huge, -math.huge, 0 / 0, 2.0 ^ 53 }) end,
    function() return random:bytes(random(0, 12)) end,
    function()
      return random:pick({
        "", "x", "\0", "\n", "write", "big", "little", "nodelay", "queue_max", "keepalive", "keepalive_count",
        "keepalive_interval", "127.0.0.1:0",
        "127.0.0.1:1", "tcp://127.0.0.1:1", "tls://127.0.0.1:1", "unix:///nowhere/x", "[::1]:1", "127.0.0.1",
        "239.1.2.3", "::", "1.2", "timeout", "closed", "io", ("y"):rep(5000),
      })
    end,
    function() return (world.object()) end,
    function() return random:pick({ function() end, error, print == nil, cosocket.now, coroutine.yield, io.stdout, cosocket }) end,
    function() return coroutine.create(function() end) end,
  }

  function world.value(depth)
    if random(6) == 1 and (depth or 0) < 2 then
      local made = {}
      for _ = 1, random(0, 3) do made[random:pick(OPTIONS)] = world.value((depth or 0) + 1) end
      return made
    end
    return random:pick(simple)()
  end

  function world.values()
    local list = { n = random(0, 4) }
    for i = 1, list.n do list[i] = world.value() end
    return list
  end

  return world
end

--- What a call may lead to: anything but an error that is not one of ours.
local function check(what, ok, first, second)
  if ok then
    if first == nil and second ~= nil and cosocket.is_error(second) then
      assert(second.kind ~= "argument", ("%s answered a mistake of the caller: %s"):format(what, tostring(second)))
      assert(type(second.op) == "string" and type(second.message) == "string", what)
    end
    return
  end
  if not cosocket.is_error(first) then
    error(("%s raised %s"):format(what, type(first) == "string" and ("%q"):format(first) or tostring(first)), 0)
  end
end


local function call_in_a_task(what, fn, arguments)
  return cosocket.spawn(what, function()
    local answer = table.pack(pcall(cosocket.deadline, 0.01, function()
      local result = table.pack(pcall(fn, table.unpack(arguments, 1, arguments.n)))
      return table.unpack(result, 1, result.n)
    end))
    -- The deadline's own answer is `nil, timeout`.
    if answer[1] and answer[2] == nil then return end
    if answer[1] then check(what, table.unpack(answer, 2, 4)) else check(what, false, answer[2]) end
  end)
end

local function describe(arguments)
  local parts = {}
  for i = 1, arguments.n do
    local value = arguments[i]
    local text = type(value) == "string" and ("%q"):format(value):sub(1, 40) or tostring(value)
    if type(value) == "table" and not getmetatable(value) then
      local keys = {}
      for key, entry in pairs(value) do keys[#keys + 1] = ("%s = %s"):format(key, tostring(entry):sub(1, 30)) end
      text = "{" .. table.concat(keys, ", ") .. "}"
    end
    parts[i] = text
  end
  return table.concat(parts, ", ")
end

--- Bounds what the calls may have piled up.
local function trim(world)
  for _, buffer in ipairs(world.kinds.buffer) do
    if #buffer > 100000 then buffer:clear() end
  end
end

return {
  ["every method takes any arguments, in any order"] = function()
    local random = test.random()
    for _ = 1, 12 do
      local world = new_world(random)
      local tasks = {}
      for _ = 1, 200 do
        local object, kind = world.object()
        local name = random:pick(METHODS[kind])
        local arguments = world.values()
        local what = ("%s:%s(%s)"):format(kind, name, describe(arguments))
        table.insert(arguments, 1, object)
        arguments.n = arguments.n + 1
        tasks[#tasks + 1] = call_in_a_task(what, object[name], arguments)
        if random(4) == 1 then cosocket.sleep(0.001) end
        if random(10) == 1 then
          kind = random:pick(KINDS)
          world.kinds[kind][random(2)] = MAKERS[kind]()
        end
        if random(40) == 1 then collectgarbage("step", 50) end
        trim(world)
      end
      for _, task in ipairs(tasks) do task:join() end
    end
  end,

  ["every method takes any object for its own"] = function()
    local random = test.random()
    for _ = 1, 4 do
      local world = new_world(random)
      local tasks = {}
      for _, kind in ipairs(KINDS) do
        for _, name in ipairs(METHODS[kind]) do
          local arguments = world.values()
          local what = ("%s.%s(%s)"):format(kind, name, describe(arguments))
          tasks[#tasks + 1] = call_in_a_task(what, world.kinds[kind][1][name], arguments)
        end
        trim(world)
      end
      for _, task in ipairs(tasks) do task:join() end
    end
  end,

  ["every function takes any arguments"] = function()
    local random = test.random()
    for _ = 1, 8 do
      local world = new_world(random)
      local tasks = {}
      for _ = 1, 150 do
        local name = random:pick(FUNCTIONS)
        local arguments = world.values()
        -- Random text is not to be looked up in the world outside.
        if name == "resolve" and type(arguments[1]) == "string" then arguments[1] = "127.0.0.1" end
        local what = ("cosocket.%s(%s)"):format(name, describe(arguments))
        local calls_values = name == "spawn" or name == "group" or name == "deadline"
        local fn = cosocket[name]
        if calls_values then
          -- A function among the arguments may raise what it likes; here it raises nothing.
          for i = 1, arguments.n do
            if type(arguments[i]) == "function" then arguments[i] = function(...) return ... end end
          end
        end
        if name == "on_stop" then
          local on_stop = fn
          fn = function(...)
            local take_back = on_stop(...)
            take_back()
          end
        end
        tasks[#tasks + 1] = call_in_a_task(what, fn, arguments)
        if random(10) == 1 then cosocket.sleep(0.001) end
        trim(world)
      end
      for _, task in ipairs(tasks) do task:join() end
    end
  end,

  ["random bytes do no harm to any read"] = function()
    local random = test.random()
    for _ = 1, 150 do
      local one, other = cosocket.pair()
      cosocket.group(function()
        cosocket.spawn(function()
          for _ = 1, random(5) do
            other:write(random:bytes(random(0, 300)))
            other:flush()
            if random(2) == 1 then cosocket.sleep(0.001) end
          end
          other:close()
        end)
        local buffer = cosocket.buffer()
        for _ = 1, 200 do
          local what = random(6)
          local value, err = cosocket.deadline(random() * 0.003, function()
            if what == 1 then return one:read(random(0, 50)) end
            if what == 2 then return one:read_line(random(50)) end
            if what == 3 then return one:read_until(random:bytes(random(3)), random(50)) end
            if what == 4 then return one:fill(buffer) end
            if what == 5 then return one:turn(buffer, cosocket.buffer()) end
            return one:read()
          end)
          if value == nil then assert(cosocket.is_error(err)) end
        end
        one:close()
      end)
    end
  end,

  ["bytes are neither lost, doubled nor changed, however they are read"] = function()
    local random = test.random()
    for _ = 1, 30 do
      local one, other = cosocket.pair()
      local sent = random:bytes(random(1, 3000)):gsub("%z", "\n")
      local got = cosocket.buffer()
      cosocket.group(function()
        cosocket.spawn(function()
          local at = 1
          while at <= #sent do
            local size = random(400)
            assert(other:write(sent:sub(at, at + size - 1)))
            at = at + size
            if random(2) == 1 then cosocket.sleep(0.001) end
          end
          other:close()
        end)
        local ended = false
        while not ended do
          local what = random(5)
          local value, err = cosocket.deadline(random() * 0.003, function()
            if what == 1 then return one:read(random(100)) end
            if what == 2 then return one:read_until("\n", random(100)) end
            if what == 3 then return one:fill(got) end
            if what == 4 then return one:turn(got, cosocket.buffer()) end
            return one:read()
          end)
          if type(value) == "string" then got:append(value) end
          ended = value == nil and err.kind == "closed" and err.message:find("has closed") ~= nil
        end
      end)
      assert(got:take() == sent)
    end
  end,
}
