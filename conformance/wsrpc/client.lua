-- Our client against a server (`jsonrpsee/`, `peer.py server`, or ours with TLS): `moonwire client.lua url=U [count=yes]
-- [ca=F]`, where `count` says that the server has subscriptions, and `ca` is the authority that signed for it. Prints
-- "passed NAME" or "failed NAME: why" for each case.
local arguments = require("conformance.arguments")
local case = require("conformance.case")
local cosocket = require("cosocket")
local json = require("json")
local wsrpc = require("wsrpc")

local options = arguments(arg)

local url = options.url
local peer <close> = assert(wsrpc.connect(url, {
  call_timeout = 20,
  message_max = 2000000,
  tls = options.ca and { ca = options.ca } or nil,
}))

local function refused(code, result, err)
  assert(result == nil and err.kind == "refused" and err.code == code, ("%s, %s"):format(result, err))
  return err
end

case("params come by position and by name", function()
  assert(assert(peer:call("subtract", { 42, 23 })) == 19)
  assert(assert(peer:call("subtract", { subtrahend = 23, minuend = 42 })) == 19)
  assert(assert(peer:call("sum", { 1, 2, 4 })) == 7)
  local data = assert(peer:call("get_data"))
  assert(json.is_array(data) and data[1] == "hello" and data[2] == 5)
end)

case("values of every kind come back the same", function()
  for _, value in ipairs({
    json.null, true, false, 0, -1, math.maxinteger, 0.1, 1.5e300, "", "aß€😀\0\"\\\n", json.array(), {}, { 1, { {} } },
    { [""] = { a = json.array({ 1, 2.5, "x" }) } }, ("x"):rep(500000),
  }) do
    local came = peer:call("echo", { value })
    assert(json.encode(came) == json.encode(value), json.encode(came))
  end
end)

case("errors have their code, message and data", function()
  local err = refused(-7, peer:call("fail"))
  assert(err.message == "no such sensor" and err.data.sensor == 3)
  refused(-32601, peer:call("foobar"))
  refused(-32602, peer:call("subtract", { "a", "b" }))
end)

case("notifications are heard and not answered", function()
  local before = assert(peer:call("heard"))
  for i = 1, 10 do assert(peer:notify("update", { i })) end
  assert(peer:notify("foobar", { 1 }))
  assert(assert(peer:call("heard")) == before + 10)
end)

case("slow calls are overtaken by fast ones", function()
  local slow = cosocket.spawn("slow", function() return peer:call("slow", { 2000, "slow" }) end)
  local began = cosocket.now()
  for i = 1, 100 do assert(assert(peer:call("echo", { i })) == i) end
  assert(cosocket.now() - began < 1.9)
  assert(slow:join() == "slow")
end)

case("a thousand calls, two hundred at once, are all answered", function()
  cosocket.group(function()
    for caller = 1, 200 do
      cosocket.spawn("caller", function()
        for i = caller, 1000, 200 do assert(assert(peer:call("slow", { i * 7 % 13, i })) == i) end
      end)
    end
  end)
end)

case("a call that is given up leaves the others alone", function()
  local result, err = peer:call("slow", { 500, "late" }, 0.05)
  assert(result == nil and err.kind == "timeout", err)
  assert(peer:call("slow", { 600, "next" }) == "next")
end)

case("a batch is answered in its order, errors included", function()
  local answers = assert(peer:batch({
    { "slow", { 50, "first" } },
    { "foobar" },
    { "update", { 1 }, notify = true },
    { "echo", { "third" } },
  }))
  assert(#answers == 3 and answers[1].result == "first" and answers[3].result == "third")
  assert(answers[2].error.code == -32601)
end)

if options.ca then
  case("a server of an authority that nobody named is not spoken to", function()
    local stranger, err = wsrpc.connect(url, { reconnect = false })
    assert(not stranger and err.kind == "tls", err)
  end)
end

if options.count then
  -- A subscription as this server knows it: a call answers its id, and notifications bring its values.
  local values = cosocket.queue(10000)
  peer:on("count", function(params) values:put(params) end)

  local function subscribe(last)
    return assert(peer:call("subscribe_count", { last }))
  end

  case("a subscription brings its values in order until it is ended", function()
    local id = subscribe(500)
    for right = 1, 500 do
      local came = assert(values:get())
      assert(came.subscription == id and came.result == right)
    end
    assert(peer:call("unsubscribe_count", { id }) == true)
    assert(peer:call("unsubscribe_count", { id }) == false)
  end)

  case("ten subscriptions at once are kept apart", function()
    local ids, seen, left = {}, {}, 0
    for last = 1, 10 do
      ids[last] = subscribe(last)
      left = left + last
    end
    for _ = 1, left do
      local came = assert(values:get())
      seen[came.subscription] = (seen[came.subscription] or 0) + 1
      assert(came.result == seen[came.subscription])
    end
    for last, id in ipairs(ids) do
      assert(seen[id] == last)
      assert(peer:call("unsubscribe_count", { id }) == true)
    end
  end)

  case("a subscription that is refused says why", function()
    refused(-32602, peer:call("subscribe_count", { "x" }))
  end)
end
