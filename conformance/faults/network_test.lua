-- The system's own faults: Mosquitto and nginx in a network namespace, behind rules of its firewall and its queues. This
-- side runs in a namespace, too, and a cable is all they have in common.

local cosocket = require("cosocket")
local http = require("http")
local mqtt = require("mqtt")
local test = require("test")
local timed = require("conformance.faults.timed")
local web = require("conformance.http.web")

---@param name string
---@return string
local function setting(name)
  return os.getenv("MOONWIRE_NETWORK_" .. name) or ""
end

local HTTP, MQTT = setting("HTTP_URL"), setting("MQTT_URL")
local IPTABLES, TC = setting("IPTABLES"), setting("TC")
local PORTS = { http = HTTP:match("%d+$"), mqtt = MQTT:match("%d+$") }

--- Seconds that who waits is willing to, and how much later it may know.
local PATIENCE, SLACK = 0.5, 0.8
--- The shortest keep alive there is, and when a client has noticed at the latest that nobody answers.
local KEEP_ALIVE, NOTICED = 1, 2.5
local PAGE_SIZE = 440000

---@param command string
---@return boolean
local function run(command)
  return (os.execute(command .. " >/dev/null 2>&1")) == true
end

--- Takes all rules away.
local function heal()
  assert(run(IPTABLES .. " -w -F"), "the rules stay")
end

--- The time in which there are rules: they are gone with it.
---@return any
local function rules()
  return setmetatable({}, { __close = heal })
end

--- Adds a rule: what comes to the servers (`INPUT`) or leaves them (`OUTPUT`) by this port.
---@param chain "INPUT"|"OUTPUT"
---@param port string
---@param words string
local function rule(chain, port, words)
  local side = chain == "INPUT" and "--dport" or "--sport"
  local command = ("%s -w -A %s -p tcp %s %s %s"):format(IPTABLES, chain, side, port, words)
  assert(run(command), command)
end

--- A client that comes back by itself, and queues of its connections and losses.
local function client_of(options)
  local connections, losses = cosocket.queue(100), cosocket.queue(100)
  local all = {
    client_id = ("network%d"):format(test.random()(1 << 40)),
    clean_start = false,
    session_expiry = 60,
    timeout = 1,
    reconnect = { delay_min = 0.02, delay_max = 0.1 },
    on_connected = function(_, connack) connections:put(connack) end,
    on_disconnected = function(_, err) losses:put(err) end,
  }
  for name, value in pairs(options or {}) do all[name] = value end
  local client = assert(mqtt.connect(MQTT, all))
  connections:get()
  return client, connections, losses
end

--- Publishes 1 to `count` at QoS 2 and says what arrived at another client.
local function exactly_once(count)
  local topic = ("network/%d"):format(test.random()(1 << 40))
  local sender <close> = client_of({ timeout = 20 })
  local receiver <close> = client_of({ timeout = 20 })
  local inbox = cosocket.queue(1000)
  assert(receiver:subscribe(topic, { qos = 2 }, function(message) inbox:put(message.payload) end))
  local tickets = {}
  for i = 1, count do tickets[i] = assert(sender:publish_nowait(topic, tostring(i), { qos = 2 })) end
  for _, ticket in ipairs(tickets) do assert(ticket:wait()) end
  for i = 1, count do test.equal(inbox:get(), tostring(i)) end
  test.equal(inbox:try_get(), nil)
end

--- Whether the system has a kind of queue.
local function queue(words)
  local link = TC .. " qdisc replace dev cable_end root " .. words
  if not run(link) then test.skip("the system has no such queue: tc qdisc add ... " .. words:match("^%a+")) end
  return setmetatable({}, { __close = function() run(TC .. " qdisc del dev cable_end root") end })
end

--- A GET by a client of its own: on no connection that another case has left.
local function get(url, options)
  local client <close> = http.client()
  return client:get(url, options)
end

local function save(options)
  local client <close> = http.client()
  local path = os.tmpname()
  local saved, err = client:save(HTTP .. "/page.txt", path, options)
  os.remove(path)
  os.remove(path .. ".part")
  os.remove(path .. ".part.info")
  return saved, err
end

return {
  ["without rules everything arrives"] = function()
    test.equal(#assert(get(HTTP .. "/page.txt")).body, PAGE_SIZE)
    exactly_once(20)
  end,

  ["where one packet of ten is lost either way, bodies and messages arrive whole, QoS 2 once"] = function()
    local healed <close> = rules()
    for _, port in pairs(PORTS) do
      for _, chain in ipairs({ "INPUT", "OUTPUT" }) do rule(chain, port, "-m statistic --mode random --probability 0.1 -j DROP") end
    end
    test.equal(assert(save({ timeout = 40, idle_timeout = 10, retry_delay = 0.01 })).size, PAGE_SIZE)
    exactly_once(20)
  end,

  ["a black hole at the door is a timeout of ours, and not of the system"] = function()
    local healed <close> = rules()
    for _, port in pairs(PORTS) do rule("INPUT", port, "-j DROP") end
    local took, answer, err = timed(get, HTTP, { connect_timeout = PATIENCE })
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
    took, answer, err = timed(cosocket.connect, "tcp://" .. HTTP:match("//(.+)$"), { timeout = PATIENCE })
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
    took, answer, err = timed(cosocket.deadline, PATIENCE, cosocket.connect, "tcp://" .. HTTP:match("//(.+)$"))
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
    took, answer, err = timed(mqtt.connect, MQTT, { timeout = PATIENCE })
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
  end,

  ["a door that refuses by RST or by ICMP is an error of connecting at once, with the system's own code and the address"] = function()
    for reject, code in pairs({
      ["tcp-reset"] = "ECONNREFUSED",
      ["icmp-port-unreachable"] = "ECONNREFUSED",
      ["icmp-host-unreachable"] = "EHOSTUNREACH",
      ["icmp-net-unreachable"] = "ENETUNREACH",
      ["icmp-admin-prohibited"] = "EHOSTUNREACH",
    }) do
      local healed <close> = rules()
      rule("INPUT", PORTS.http, "-j REJECT --reject-with " .. reject)
      local took, answer, err = timed(get, HTTP)
      test.fails("connect", answer, err)
      test.equal(err.code, code, reject)
      assert(tostring(err):find(HTTP:match("//(.+)$"), 1, true), tostring(err))
      test.truthy(took < SLACK, took)
    end
  end,

  ["a server behind a black hole or a rule that refuses is left for the next of the list"] = function()
    local healed <close> = rules()
    for reject, least in pairs({ DROP = PATIENCE, ["REJECT --reject-with tcp-reset"] = 0 }) do
      heal()
      rule("INPUT", "1884", "-j " .. reject)
      local took, client, err = timed(mqtt.connect, { (MQTT:gsub("%d+$", "1884")), MQTT }, { timeout = PATIENCE })
      assert(client, err)
      client:close()
      test.truthy(took >= least - 0.01 and took < least + SLACK, took)
    end
  end,

  ["a way that turns into a black hole in the middle of a body is a timeout, and the connection is left"] = function()
    local healed <close> = rules()
    rule("OUTPUT", PORTS.http, "-m connbytes --connbytes 100000: --connbytes-dir reply --connbytes-mode bytes -j DROP")
    local client <close> = http.client()
    local took, answer, err = timed(client.get, client, HTTP .. "/page.txt", { timeout = PATIENCE })
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
    test.equal({ client:connections() }, { 0, 0 })
    heal()
    test.equal(#assert(client:get(HTTP .. "/page.txt")).body, PAGE_SIZE)
  end,

  ["a download gets on where every connection turns into a black hole, or is reset, after so many bytes"] = function()
    for _, words in ipairs({ "DROP", "REJECT --reject-with tcp-reset" }) do
      local healed <close> = rules()
      local chain = words == "DROP" and "OUTPUT" or "INPUT"
      rule(chain, PORTS.http, "-m connbytes --connbytes 200000: --connbytes-dir reply --connbytes-mode bytes -j " .. words)
      local saved = assert(save({ idle_timeout = 0.3, retry_delay = 0.01, attempts = 10 }))
      test.equal(saved.size, PAGE_SIZE)
      test.truthy(saved.attempts >= 2 and saved.resumed > 0, saved.attempts)
    end
  end,

  ["a connection that is reset in the middle of a body is closed, and never a short success"] = function()
    local healed <close> = rules()
    rule("INPUT", PORTS.http, "-m connbytes --connbytes 50000: --connbytes-dir reply --connbytes-mode bytes -j REJECT --reject-with tcp-reset")
    local answer, err = get(HTTP .. "/page.txt", { timeout = 5 })
    test.fails("closed", answer, err)
    test.equal(err.code or err.cause and err.cause.code, "ECONNRESET")
  end,

  ["[RFC 2923 2.1] a way that loses large packets only lets small answers through, and large ones end in time"] = function()
    local healed <close> = rules()
    rule("OUTPUT", PORTS.http, "-m length --length 600: -j DROP")
    test.equal(assert(get(HTTP .. "/small.txt")).body, "small\n")
    local took, answer, err = timed(get, HTTP .. "/page.txt", { timeout = PATIENCE })
    test.fails("timeout", answer, err)
    test.near(took, PATIENCE + SLACK / 2, SLACK / 2 + 0.05)
  end,

  ["[MQTT 3.1.2.10] a client notices a black hole by its keep alive, and its messages arrive afterwards, QoS 2 once"] = function()
    local healed <close> = rules()
    local topic = ("network/%d"):format(test.random()(1 << 40))
    local watcher <close> = client_of({ keep_alive = 60 })
    local inbox = cosocket.queue(100)
    assert(watcher:subscribe(topic, { qos = 2 }, function(message) inbox:put(message.payload) end))
    local client <close>, connections, losses = client_of({ keep_alive = KEEP_ALIVE })
    for _, chain in ipairs({ "INPUT", "OUTPUT" }) do rule(chain, PORTS.mqtt, "-j DROP") end
    local tickets = {}
    for i = 1, 5 do tickets[i] = assert(client:publish_nowait(topic, tostring(i), { qos = 2 })) end
    local took, err = timed(losses.get, losses)
    test.equal(err.kind, "timeout")
    test.truthy(took < NOTICED, took)
    heal()
    test.equal(connections:get().session_present, true)
    for _, ticket in ipairs(tickets) do assert(ticket:wait()) end
    for i = 1, 5 do test.equal(inbox:get(), tostring(i)) end
    test.equal(inbox:try_get(), nil)
  end,

  ["a connection outlives an interruption that is shorter than its keep alive, with ICMP or without"] = function()
    local healed <close> = rules()
    local client <close> = client_of({ keep_alive = 10 })
    for _, words in ipairs({ "DROP", "REJECT --reject-with icmp-host-unreachable", "REJECT --reject-with icmp-port-unreachable" }) do
      rule("INPUT", PORTS.mqtt, "-j " .. words)
      local ticket = assert(client:publish_nowait("network/outlives", "x", { qos = 1 }))
      cosocket.sleep(0.3)
      heal()
      assert(ticket:wait())
    end
    test.equal(client:status().connections, 1)
  end,

  ["what was given up leaves no descriptor and no task behind"] = function()
    local healed <close> = rules()
    -- Names and addresses are asked for once.
    assert(get(HTTP .. "/small.txt"))
    for _ = 1, 2 do collectgarbage() end
    local descriptors, tasks = web.descriptors(), #cosocket.tasks()
    rule("INPUT", PORTS.http, "-j DROP")
    local all = {}
    for i = 1, 50 do
      all[i] = cosocket.spawn(function() test.fails("timeout", get(HTTP, { connect_timeout = 0.2 + i / 500 })) end)
    end
    for _, task in ipairs(all) do task:join() end
    all = nil
    for _ = 1, 2 do collectgarbage() end
    local patience = cosocket.now() + 2
    while web.descriptors() > descriptors and cosocket.now() < patience do cosocket.sleep(0.05) end
    test.equal({ web.descriptors(), #cosocket.tasks() }, { descriptors, tasks })
  end,

  ["a line of 2 Mbit/s is filled, and waited for (tbf)"] = function()
    local line <close> = queue("tbf rate 2mbit burst 16kb latency 200ms")
    local took, saved, err = timed(save, { timeout = 20 })
    test.equal(assert(saved, err).size, PAGE_SIZE)
    test.truthy(took > 1 and took < 6, took)
  end,

  ["delay, loss, duplicates and disorder by the system change nothing but the time (netem)"] = function()
    local line <close> = queue("netem delay 20ms 10ms loss 2% duplicate 2% reorder 10%")
    test.equal(assert(save({ timeout = 40 })).size, PAGE_SIZE)
    exactly_once(20)
  end,
}
