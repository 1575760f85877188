-- The gate between a session and its stream: nothing leaves before what it rests on is on disk.
local cosocket = require("cosocket")
local gates = require("mqtt.gate")
local log = require("log")
local mqtt = require("mqtt")
local mqtt_peer = require("test.mqtt_peer")
local session = require("mqtt.session")
local store = require("mqtt.store")
local test = require("test")

log.level("off")

local packets = mqtt_peer.packets

--- A journal whose commits end when the test says so.
local function slow_journal()
  local journal = { last_seq = 0, noted = {}, commits = 0, dirty = false }
  for _, name in ipairs({ "add", "sent", "unsent", "released", "remove", "received", "forget", "forget_received" }) do
    journal[name] = function(self, first)
      self.noted[#self.noted + 1] = name .. " " .. tostring(type(first) == "table" and first.seq or first)
      self.dirty = true
    end
  end
  function journal:is_clean() return not self.dirty end
  function journal:commit()
    self.dirty, self.commits = false, self.commits + 1
    self.go = cosocket.event()
    self.go:wait()
    if self.failure then
      self.dirty = true
      return nil, self.failure
    end
    return true
  end
  function journal:close() self.closed = true end
  --- Lets the commit that is under way end.
  function journal:finish(failure)
    self.failure = failure
    self.go:set()
    cosocket.sleep(0)
    cosocket.sleep(0)
  end
  return journal
end

--- A connected session behind a gate.
local function gated()
  local client, journal = session.new({ client_id = "c" }), slow_journal()
  local woken = 0
  local gate = gates.new(client, journal, function() woken = woken + 1 end)
  client.outgoing.journal = journal
  client:make_incoming().journal = journal
  cosocket.spawn(gate.run, gate)
  assert(client:connect(0, false))
  gate:receive(cosocket.buffer(mqtt_peer.wire(5, { type = "connack" })), 0)
  client:resume(0)
  gate:pump()
  -- The server knows nothing of us, and what was received before is forgotten.
  cosocket.sleep(0)
  if journal.go then journal:finish() end
  gate.output:clear()
  journal.noted, journal.commits = {}, 0
  return client, gate, journal, function() return woken end
end

local function publish(client, gate, payload, qos)
  local ticket = assert(client:publish("t", payload, qos, false, nil, 0))
  gate:note(ticket)
  gate:pump()
  cosocket.sleep(0)
  return ticket
end

local function said(gate)
  local list = {}
  for i, packet in ipairs(packets(gate.output, 5)) do
    list[i] = packet.type .. " " .. (packet.payload or packet.packet_id or "")
  end
  return list
end

local function hear(gate, ...)
  local event, err = gate:receive(cosocket.buffer(mqtt_peer.wire(5, ...)), 0)
  cosocket.sleep(0)
  return event, err
end

local FULL = cosocket.error("io", "mqtt.store", "the disk is full", { code = "SQLITE_FULL" })

return {
  ["a message leaves when it is on disk, and wakes who sends"] = function()
    local client, gate, journal, woken = gated()
    local before = woken()
    local ticket = publish(client, gate, "1", 1)
    test.equal({ said(gate), ticket.stored }, { {}, nil })
    test.equal(journal.noted, { "add 1", "sent 1" })
    journal:finish()
    test.equal({ said(gate), ticket.stored, woken() }, { { "publish 1" }, true, before + 1 })
    test.equal(gate:wait_stored(ticket), true)
    gate:close()
  end,

  ["what comes during a commit waits for the next one, together"] = function()
    local client, gate, journal = gated()
    publish(client, gate, "1", 1)
    publish(client, gate, "2", 1)
    publish(client, gate, "3", 2)
    client:publish("t", "0", 0, false, nil, 0)
    gate:pump()
    journal:finish()
    test.equal(said(gate), { "publish 1" })
    test.equal(journal.commits, 2)
    journal:finish()
    test.equal(said(gate), { "publish 2", "publish 3", "publish 0" })
    test.equal(journal.commits, 2)
    gate:close()
  end,

  ["PUBREL does not overtake the record that PUBREC came, nor PUBREC that of its message"] = function()
    local client, gate, journal = gated()
    publish(client, gate, "1", 2)
    journal:finish()
    said(gate)
    hear(gate, { type = "pubrec", packet_id = 1 })
    test.equal({ said(gate), journal.noted[#journal.noted] }, { {}, "released 1" })
    journal:finish()
    test.equal(said(gate), { "pubrel 1" })
    local message = hear(gate, { type = "publish", topic = "t", qos = 2, packet_id = 9 })
    client:acknowledge(message, 0)
    gate:pump()
    cosocket.sleep(0)
    test.equal({ said(gate), journal.noted[#journal.noted] }, { {}, "received 9" })
    journal:finish()
    test.equal(said(gate), { "pubrec 9" })
    gate:close()
  end,

  ["what rests on nothing leaves at once"] = function()
    local client, gate = gated()
    client:publish("t", "0", 0, false, nil, 0)
    gate:pump()
    test.equal(said(gate), { "publish 0" })
    gate:close()
  end,

  ["when nothing can be written down the message is refused, and the connection ends"] = function()
    local client, gate, journal = gated()
    local one = publish(client, gate, "1", 1)
    local two = publish(client, gate, "2", 2)
    journal:finish(FULL)
    test.equal(test.fails("io", gate:wait_stored(one)).code, "SQLITE_FULL")
    test.equal(test.fails("io", two:wait()).code, "SQLITE_FULL")
    test.equal({ said(gate), client.outgoing:is_idle(), client.outgoing.in_flight }, { {}, true, 0 })
    test.fails("io", gate:receive(cosocket.buffer(), 0))
    -- The next connection tries again first.
    local recovered
    cosocket.spawn(function() recovered = { gate:recover() } end)
    cosocket.sleep(0)
    journal:finish(FULL)
    test.equal(recovered[2].code, "SQLITE_FULL")
    cosocket.spawn(function() recovered = { gate:recover() } end)
    cosocket.sleep(0)
    journal:finish()
    test.equal(recovered, { true })
    gate:close()
  end,

  ["what one connection had to say is not said on the next"] = function()
    local client, gate, journal = gated()
    publish(client, gate, "1", 1)
    client:disconnected()
    gate:disconnected()
    client:connect(0, false)
    packets(client.output)
    journal:finish()
    test.equal(said(gate), {})
    gate:receive(cosocket.buffer(mqtt_peer.wire(5, { type = "connack", session_present = true })), 0)
    client:resume(0)
    gate:pump()
    cosocket.sleep(0)
    if journal.dirty or not journal.go:is_set() then journal:finish() end
    test.equal(said(gate), { "publish 1" })
    gate:close()
  end,

  ["a client goes on where the last one with its store ended"] = function()
    local folder = os.tmpname()
    os.remove(folder)
    local path = folder .. ".db"
    local seen = {}
    local url = mqtt_peer.listening(function(server, number)
      seen[number] = { clean = server.connect.clean_start, id = server.connect.client_id }
      server:accept({ session_present = number > 1 })
      for i = 1, 3 do
        local packet = server:next()
        while packet and packet.type ~= "publish" do packet = server:next() end
        if not packet then return end
        seen[number][i] = ("%s %d %s%s"):format(packet.payload, packet.packet_id, packet.qos, packet.dup and " dup" or "")
      end
      if number == 1 then
        server:send({ type = "puback", packet_id = 1 }, { type = "pubrec", packet_id = 3 })
        server:expect("pubrel")
      end
    end)
    local options = { store = path, reconnect = false, version = 5 }
    local client = assert(mqtt.connect(url, options))
    for i = 1, 3 do assert(client:publish_nowait("t", tostring(i), { qos = (i + 1) // 2, expiry = 1000 })) end
    for _ in client:messages() do end
    -- Its file is free again.
    client:close()
    local journal = assert(store.open(path))
    local kept = journal:load().outgoing
    test.equal({ #kept, kept[1].state, kept[1].payload, kept[2].state }, { 2, "sent", "2", "released" })
    journal:close()
    client = assert(mqtt.connect(url, options))
    assert(client:publish_nowait("t", "4", { qos = 1 }))
    cosocket.sleep(0.2)
    client:close()
    test.equal(seen[1], { clean = true, id = seen[1].id, "1 1 1", "2 2 1", "3 3 2" })
    test.matches(seen[1].id, "^moonwire%-%x+$")
    test.equal(seen[2], { clean = false, id = seen[1].id, "2 2 1 dup", "4 4 1" })
    os.remove(path)
  end,
}
