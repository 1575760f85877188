-- Our client and the development broker, end to end: what only shows when both sides do their part.
local broker = require("mqtt.broker")
local cosocket = require("cosocket")
local crypto = require("crypto")
local log = require("log")
local mqtt = require("mqtt")
local test = require("test")

-- Lost connections are told, on purpose.
log.level("off")

local QUICK = { delay_min = 0.001, delay_max = 0.002 }

local function listen(options)
  return assert(broker.listen("tcp://127.0.0.1:0", options))
end

local function connect(one, options)
  local all = { reconnect = QUICK }
  for name, value in pairs(options or {}) do all[name] = value end
  return assert(mqtt.connect(one:url(), all))
end

--- A challenge that only who knows the secret can answer.
local function challenge(secret)
  return function(exchange)
    local nonce = crypto.random_bytes(16)
    local answer, err = exchange:ask(nonce)
    if not answer then return nil, err end
    return answer == crypto.hmac("sha256", secret, nonce), "welcome"
  end
end

local function answering(secret, seen)
  return {
    method = "HMAC",
    data = "let me in",
    answer = function(data, done)
      seen[#seen + 1] = done and tostring(data) or "challenge"
      if not done then return crypto.hmac("sha256", secret, data) end
    end,
  }
end

return {
  ["a client authenticates by challenge and response, and again while it is connected"] = function()
    local one <close> = listen({ auth = { HMAC = challenge("secret") } })
    local seen = {}
    local client <close> = connect(one, { authentication = answering("secret", seen) })
    test.equal(seen, { "challenge", "welcome" })
    test.equal(client:reauthenticate(), true)
    test.equal(seen, { "challenge", "welcome", "challenge", "welcome" })
    test.equal(client:publish("t", "x", { qos = 1 }), 0x10)
    local refused, err = mqtt.connect(one:url(), { authentication = answering("wrong", {}), reconnect = false })
    test.equal({ refused, err and err.kind, err and err.code }, { nil, "refused", 0x87 })
  end,

  ["a client follows the reference of a broker that has moved, when it may"] = function()
    local new <close> = listen()
    local old <close> = listen({
      authenticate = function(client_id)
        if client_id == "moved" then return 0x9D, { server_reference = new:address() } end
        return true
      end,
    })
    local client <close> = connect(old, { client_id = "moved", follow_reference = true })
    test.equal(new:clients()[1].client_id, "moved")
    local staying, err = mqtt.connect(old:url(), { client_id = "moved", reconnect = false })
    test.equal({ staying, err and err.code, err and err.server_reference }, { nil, 0x9D, new:address() })
    -- And one that is told later.
    local later <close> = connect(old, { client_id = "later", follow_reference = true })
    local back = cosocket.event()
    local watcher <close> = connect(new, { client_id = "watcher" })
    assert(watcher:subscribe("later", function() back:set() end))
    old:disconnect("later", 0x9C, { server_reference = new:address() })
    assert(later:publish("later", "here", { qos = 1 }))
    assert(back:wait())
  end,

  ["a request is answered on a topic that the broker chose"] = function()
    local one <close> = listen({ response_information = "answers/7" })
    local responder <close> = connect(one)
    local topics = {}
    assert(responder:subscribe("double", function(message)
      topics[1] = message.properties.response_topic
      responder:respond(message, tostring(2 * tonumber(message.payload)))
    end))
    local asker <close> = connect(one, { request_response_information = true })
    local answer = assert(asker:request("double", "21", 5))
    test.equal(answer.payload, "42")
    test.equal(topics[1]:sub(1, 9), "answers/7")
  end,

  ["topic aliases save bytes both ways, and the topics stay the same"] = function()
    local bytes, aliases = { send = 0, receive = 0 }, { send = 0, receive = 0 }
    local one <close> = listen({
      topic_alias_maximum = 5,
      on_packet = function(packet, direction, _, raw)
        if packet.type ~= "publish" then return nil end
        bytes[direction] = bytes[direction] + #raw
        if packet.topic == "" then aliases[direction] = aliases[direction] + 1 end
      end,
    })
    local client <close> = connect(one, { version = 5 })
    local topic, count, all_here = ("long/"):rep(20) .. "topic", 0, cosocket.event()
    assert(client:subscribe("#", { qos = 1 }, function(message)
      test.equal(message.topic, topic)
      count = count + 1
      if count == 50 then all_here:set() end
    end))
    for i = 1, 50 do assert(client:publish(topic, tostring(i), { qos = i % 2 })) end
    assert(all_here:wait())
    assert(aliases.send >= 45 and aliases.receive >= 45)
    assert(bytes.send < 25 * #topic and bytes.receive < 25 * #topic)
  end,

  ["a client keeps to the limits that a broker announces, and says so"] = function()
    local one <close> = listen({
      maximum_qos = 1,
      retain_available = false,
      wildcard_subscription_available = false,
      shared_subscription_available = false,
      packet_max = 1000,
    })
    local client <close> = connect(one, { version = 5 })
    test.equal(test.fails("refused", client:publish("t", "x", { qos = 2 })).code, 0x9B)
    test.equal(test.fails("refused", client:publish("t", "x", { retain = true })).code, 0x9A)
    test.equal(test.fails("refused", client:subscribe("t/#")).code, 0xA2)
    test.equal(test.fails("refused", client:subscribe("$share/g/t")).code, 0x9E)
    test.fails("limit", client:publish("t", ("x"):rep(1000)))
    test.equal(client:subscribe("t", { qos = 2 }), 1)
    test.equal(client:status().connections, 1)
  end,

  ["workers share what comes, and one that dies leaves its work to the others"] = function()
    for _, version in ipairs({ 5, "3.1.1" }) do
      local one <close> = listen()
      local done, all_done, count = {}, cosocket.event(), 0
      local workers = {}
      for i = 1, 3 do
        workers[i] = connect(one, { version = version, client_id = "w" .. i })
        assert(workers[i]:subscribe("$share/fleet/jobs", { qos = 1 }, function(message)
          -- The second never gets round to it.
          if i == 2 then return cosocket.event():wait() end
          if not done[message.payload] then
            done[message.payload], count = i, count + 1
            if count == 30 then all_done:set() end
          end
        end))
      end
      for i = 1, 30 do one:publish("jobs", tostring(i), { qos = 1 }) end
      cosocket.sleep(0.1)
      test.equal(count, 20)
      -- Its session ends here, for good.
      local again = { version = version, client_id = "w2", clean_start = true, reconnect = false }
      local last <close> = assert(mqtt.connect(one:url(), again))
      assert(all_done:wait())
      for i = 1, 3 do workers[i]:close() end
    end
  end,

  ["a will is published when a client is lost, and not when it closes or comes back in time"] = function()
    local one <close> = listen()
    local watcher <close> = connect(one, { client_id = "watcher" })
    local wills = cosocket.queue(8)
    assert(watcher:subscribe("will/+", { qos = 1 }, function(message) wills:put(message.topic) end))
    local function with_will(name, delay)
      local will = { topic = "will/" .. name, payload = "", qos = 1, delay = delay }
      return connect(one, { client_id = name, will = will, version = 5 })
    end
    with_will("closing"):close()
    local patient <close> = with_will("patient", 60)
    one:drop("patient")
    assert(patient:publish("t", "", { qos = 1 }))
    test.equal(patient:status().connections, 2)
    local lost <close> = with_will("lost")
    one:drop("lost")
    test.equal(wills:get(), "will/lost")
    test.equal(#wills, 0)
  end,
}
