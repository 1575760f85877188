-- Our client and the development broker on connections that break at any packet, and a broker that dies and comes
-- back: what was promised still holds.
local broker = require("mqtt.broker")
local cosocket = require("cosocket")
local log = require("log")
local mqtt = require("mqtt")
local test = require("test")

-- Lost connections are told, on purpose.
log.level("off")

--- Messages of each quality of service.
local COUNT = 60
--- One packet in so many breaks its connection.
local SHARE = 30
--- Messages on their way at a time: so few that some get through between two breaks.
local WINDOW = 10

local QUICK = { delay_min = 0.001, delay_max = 0.005 }

--- Breaks a connection now and then.
local function unreliable(random)
  return function(packet)
    if packet.type == "connect" or packet.type == "connack" or random(SHARE) > 1 then return nil end
    return random:pick({ "close", "close_after" })
  end
end

--- Publishes from one client to another through all of that. Answers the payloads of each quality of service as
--- they came.
local function run(version, random, restarts)
  local options = { on_packet = unreliable(random), in_flight_max = WINDOW }
  local one = assert(broker.listen("tcp://127.0.0.1:0", options))
  local address, url = one:address(), one:url()
  local function connect(client_id)
    return assert(mqtt.connect(url, {
      version = version,
      client_id = client_id,
      clean_start = false,
      reconnect = QUICK,
      in_flight_max = WINDOW,
    }))
  end
  local seen, ended = { {}, {} }, cosocket.queue(2)
  local from <close> = connect("from")
  local to <close> = connect("to")
  for qos = 1, 2 do
    assert(to:subscribe("qos/" .. qos, { qos = 2 }, function(message)
      if message.payload == "end" then
        ended:put(qos)
      else
        table.insert(seen[qos], tonumber(message.payload))
      end
    end))
  end
  for i = 1, COUNT do
    for qos = 1, 2 do assert(from:publish_nowait("qos/" .. qos, tostring(i), { qos = qos })) end
    if i % 10 == 0 then cosocket.sleep(random() / 50) end
    if restarts and i % 20 == 0 then
      options.state = one:snapshot()
      one:kill()
      one = assert(broker.listen("tcp://" .. address, options))
    end
  end
  -- They come behind everything else, and so behind what comes twice.
  for qos = 1, 2 do assert(from:publish_nowait("qos/" .. qos, "end", { qos = 2 })) end
  assert(cosocket.deadline(50, function()
    for _ = 1, 2 do assert(ended:get()) end
    return true
  end))
  local connections = from:status().connections + to:status().connections
  from:close()
  to:close()
  one:close()
  return seen, connections
end

--- Each number is there, in the order of the first time it came; with `once` it came one time only.
local function check(numbers, once)
  local last, seen = 0, {}
  for _, number in ipairs(numbers) do
    if seen[number] then
      assert(not once, ("%d came twice"):format(number))
    else
      assert(number == last + 1, ("%d came after %d"):format(number, last))
      seen[number], last = true, number
    end
  end
  test.equal(last, COUNT)
end

local function each_version(fn)
  for _, version in ipairs({ 5, "3.1.1" }) do fn(version) end
end

return {
  ["every QoS 1 message arrives and every QoS 2 message once, in order, however often connections break"] = function()
    local random = test.random()
    each_version(function(version)
      local seen, connections = run(version, random, false)
      check(seen[1], false)
      check(seen[2], true)
      assert(connections > 6, connections)
    end)
  end,

  ["and when the broker dies and goes on from what it knew"] = function()
    local random = test.random()
    each_version(function(version)
      local seen = run(version, random, true)
      check(seen[1], false)
      check(seen[2], true)
    end)
  end,
}
