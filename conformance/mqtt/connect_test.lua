-- Connecting, being refused, leaving, being replaced.

local broker = require("broker")
local test = require("test")

--- What says no to who a client is: either code of its version will do (3.2.2.2; 3.2.2.3 in version 3.1.1).
local REFUSALS = broker.version == 5 and { [0x86] = "bad user name or password", [0x87] = "not authorized" }
  or { [4] = "bad user name or password", [5] = "not authorized" }

return broker.cases({
  ["[MQTT-3.2.0-1] a client is connected once the broker has acknowledged it"] = function()
    local client <close> = broker.connect()
    test.equal(client:status().state, "connected")
  end,

  ["[5: MQTT-3.2.2-16] a client without an identifier learns the one it is given"] = function()
    local one <close> = broker.connect()
    local other <close> = broker.connect()
    test.matches(one:status().client_id, "^.+$")
    test.not_equal(one:status().client_id, other:status().client_id)
  end,

  ["[3.1.1: MQTT-3.1.3-6] two clients without identifiers are two clients"] = function()
    local one <close> = broker.connect()
    local other <close> = broker.connect()
    local topic = broker.topic()
    local inboxes = { broker.inbox(one, topic), broker.inbox(other, topic) }
    broker.publish(one, topic, "to both")
    for _, inbox in ipairs(inboxes) do test.equal(broker.next(inbox).payload, "to both") end
  end,

  ["[5: MQTT-3.1.2-4; 3.1.1: MQTT-3.1.2-6] a clean start begins without the subscriptions of before"] = function()
    local topic, client_id = broker.topic(), broker.client_id()
    local before = broker.connect({ client_id = client_id })
    broker.inbox(before, topic)
    before:close()
    local client <close> = broker.connect({ client_id = client_id, clean_start = true })
    test.equal(client:status().session_present, false)
  end,

  ["[5: MQTT-3.2.2-3; 3.1.1: MQTT-3.2.2-2] a session that is resumed brings what came meanwhile"] = function()
    local topic, client_id = broker.topic(), broker.client_id()
    local remembered = { client_id = client_id, clean_start = false }
    if broker.version == 5 then remembered.session_expiry = 60 end
    local before = broker.connect(remembered)
    test.equal(before:status().session_present, false)
    broker.inbox(before, topic)
    before:close()
    broker.publish_elsewhere(topic, "meanwhile")
    local client <close> = broker.connect(remembered)
    test.equal(client:status().session_present, true)
    test.equal(broker.soon("a message", client:messages()).payload, "meanwhile")
    -- The broker need not remember it any longer.
    client:close()
    broker.connect({ client_id = client_id }):close()
  end,

  ["[5: MQTT-3.1.2-17; 3.1.1: MQTT-3.1.2-19] the right user name and password are accepted"] = function()
    local client <close> = broker.connect({
      url = broker.needs(broker.urls.password, "a listener with passwords"),
      username = broker.user,
      password = broker.password,
    })
    test.equal(client:status().state, "connected")
  end,

  ["[5: MQTT-3.2.2-7; 3.1.1: MQTT-3.2.2-5] a wrong password is refused, with the reason"] = function()
    local err = test.fails(
      "refused",
      broker.try_connect({
        url = broker.needs(broker.urls.password, "a listener with passwords"),
        username = broker.user,
        password = "wrong",
      })
    )
    test.matches(tostring(err):lower(), assert(REFUSALS[err.code], err))
  end,

  ["[5: MQTT-3.1.4-2; 3.1.1: MQTT-3.1.4-5] nobody is let in without the user name that is asked for"] = function()
    local url = broker.needs(broker.urls.password, "a listener with passwords")
    local err = test.fails("refused", broker.try_connect({ url = url }))
    assert(REFUSALS[err.code], err)
  end,

  ["[5: MQTT-3.1.4-3; 3.1.1: MQTT-3.1.4-2] a second client with the same identifier takes over"] = function()
    local client_id, topic = broker.client_id(), broker.topic()
    local first = broker.connect({ client_id = client_id })
    local second <close> = broker.connect({ client_id = client_id })
    test.equal(broker.wait_for_end(first).kind, "closed")
    local inbox = broker.inbox(second, topic)
    broker.publish(second, topic, "still here")
    test.equal(broker.next(inbox).payload, "still here")
  end,

  ["[5: MQTT-3.1.4-3] who is taken over from hears that"] = function()
    local client_id = broker.client_id()
    local first = broker.connect({ client_id = client_id })
    local second <close> = broker.connect({ client_id = client_id })
    local err = broker.wait_for_end(first)
    test.equal(err.code, 0x8E)
    test.matches(tostring(err), "session taken over")
    test.equal(second:status().state, "connected")
  end,

  ["[5: MQTT-3.14.4-2; 3.1.1: MQTT-3.14.4-1] a client that has left is closed, and says so"] = function()
    local client = broker.connect()
    client:close()
    test.fails("closed", client:publish(broker.topic(), "too late", { qos = 1 }))
  end,
})
