-- One side of the suite `mqtt_restart`: publishes numbered messages of QoS 1 and 2, receives those of others, and says
-- line by line what has happened, so that whoever kills it or the broker knows what was promised.
--
--     moonwire conformance/mqtt_restart/peer.lua URL VERSION NAME [STORE]
--
-- PEER_PUBLISH    what its topics begin with; PEER_COUNT messages of each QoS from the number PEER_FIRST on
-- PEER_SUBSCRIBE  the filter of what it receives
-- PEER_QOS        publish this QoS only
-- PEER_SECONDS    keep alive, and the time that a connection may take to come about
--
-- URL may be several, with commas between them.
--
--     connected NAME CONNECTION PORT         its number of this connection, from 1, and where the broker is
--     subscribed                             its subscription is made
--     accepted TOPIC NUMBER                  the client has taken the message (with a store: it is on disk)
--     acknowledged TOPIC NUMBER CONNECTION   PUBACK or PUBCOMP came
--     owned TOPIC NUMBER CONNECTION          PUBREC had come when the connection was lost
--     forgotten TOPIC NUMBER                 the broker knows nothing of a message whose PUBREC it had sent
--     published                              everything was acknowledged
--     received TOPIC NUMBER CONNECTION       a message came
--     failed WHY                             what must not happen

local cosocket = require("cosocket")
local mqtt = require("mqtt")

--- Messages of one topic on their way at a time.
local WINDOW = 20
--- Packet Identifier not found.
local NOT_FOUND = 0x92

local url, version, name, store = table.unpack(arg)
local prefix, filter = os.getenv("PEER_PUBLISH"), os.getenv("PEER_SUBSCRIBE")
local count, first = tonumber(os.getenv("PEER_COUNT")), tonumber(os.getenv("PEER_FIRST")) or 1

local only_qos, seconds = tonumber(os.getenv("PEER_QOS")), tonumber(os.getenv("PEER_SECONDS"))
local urls = {}
for each in url:gmatch("[^,]+") do urls[#urls + 1] = each end

local function say(...)
  io.stdout:write(table.concat({ ... }, " "), "\n")
  io.stdout:flush()
end

---@type table<mqtt.Ticket, string>
local on_their_way = {}

local client = assert(mqtt.connect(urls, {
  version = version == "5" and 5 or version,
  client_id = name,
  store = store,
  clean_start = false,
  session_expiry = 3600,
  keep_alive = seconds or 10,
  timeout = seconds,
  receive_maximum = 10000,
  wait = false,
  reconnect = { delay_min = 0.02, delay_max = 0.1 },
  on_connected = function(client)
    local status = client:status()
    say("connected", name, status.connections, status.address:match("%d+$"))
  end,
  on_disconnected = function(client)
    for ticket, what in pairs(on_their_way) do
      if ticket.state == "released" then say("owned", what, client:status().connections) end
    end
  end,
}))

if filter then
  assert(client:subscribe(filter, { qos = 2 }, function(message)
    say("received", message.topic, message.payload, client:status().connections)
  end))
  say("subscribed")
end

--- Publishes the messages of one topic, in their order.
local function publish(topic, qos, numbers)
  local window = cosocket.semaphore(WINDOW)
  for _, number in ipairs(numbers) do
    local permit = assert(window:acquire())
    local what = topic .. " " .. number
    local ticket, err = client:publish_nowait(topic, tostring(number), { qos = qos })
    if not ticket then return say("failed", what, tostring(err)) end
    say("accepted", what)
    on_their_way[ticket] = what
    cosocket.spawn("acknowledgement", function()
      local code, why = ticket:wait()
      on_their_way[ticket] = nil
      permit:release()
      if code then
        say("acknowledged", what, client:status().connections)
      elseif why.code == NOT_FOUND then
        say("forgotten", what)
      else
        say("failed", what, tostring(why))
      end
    end)
  end
end

if prefix then
  cosocket.group(function()
    for qos = only_qos or 1, only_qos or 2 do
      -- Two topics of each, every other number.
      local numbers = { {}, {} }
      for number = first, count do table.insert(numbers[number % 2 + 1], number) end
      for half = 1, 2 do
        cosocket.spawn("publishing", publish, ("%s/qos%d/%d"):format(prefix, qos, half), qos, numbers[half])
      end
    end
  end)
  say("published")
  if not filter then client:close() end
end
