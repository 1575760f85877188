-- Enhanced authentication (MQTT 5, 4.12). Mosquitto knows no method by itself, so who is asked for one is the broker
-- in this process.
-- run for: version

local broker = require("broker")
local crypto = require("crypto")
local development = require("mqtt.broker")
local hex = require("hex")
local test = require("test")

local SECRET = "the secret of both"

--- A broker that asks a question, and whoever knows the secret can answer.
---@return mqtt.Broker
local function asking_broker()
  return assert(development.listen("tcp://127.0.0.1:0", {
    auth = {
      CHALLENGE = function(exchange)
        local challenge = hex.encode(crypto.random_bytes(8))
        local answer = exchange:ask(challenge)
        return answer == hex.encode(crypto.hmac("sha256", SECRET, challenge)), "welcome"
      end,
    },
  }))
end

--- Authenticates with `secret`; what the broker said is kept in `said`.
local function authentication(secret, said)
  return {
    method = "CHALLENGE",
    answer = function(data, done)
      said[#said + 1] = done and data or "?"
      if not done then return hex.encode(crypto.hmac("sha256", secret, data)) end
    end,
  }
end

return broker.cases({
  ["[5: MQTT-4.12.0-1] a broker that does not know the method refuses it"] = function()
    local method = { method = "MOONWIRE-NOBODY-KNOWS", answer = function() return "" end }
    local err = test.fails("refused", broker.try_connect({ authentication = method }))
    test.equal(err.code, 0x8C)
  end,

  ["[5: MQTT-4.12.0-4] a challenge is answered with AUTH until the broker is content"] = function()
    local own <close> = asking_broker()
    local said = {}
    local client <close> = broker.connect({ url = own:url(), authentication = authentication(SECRET, said) })
    test.equal(client:status().state, "connected")
    test.equal(said, { "?", "welcome" })
  end,

  ["[5: MQTT-4.12.0-4] a wrong answer is refused"] = function()
    local own <close> = asking_broker()
    local answers = authentication("a wrong one", {})
    local err = test.fails("refused", broker.try_connect({ url = own:url(), authentication = answers }))
    test.equal(err.code, 0x87)
  end,

  ["[5: 4.12.1] a client authenticates again on its connection"] = function()
    local own <close> = asking_broker()
    local said = {}
    local client <close> = broker.connect({ url = own:url(), authentication = authentication(SECRET, said) })
    assert(broker.soon("re-authentication", client.reauthenticate, client))
    test.equal(said, { "?", "welcome", "?", "welcome" })
    test.equal(client:status().connections, 1)
  end,
})
