-- Our client makes the calls of the JSON-RPC 2.0 specification's examples (7); `vectors.py serve` sees that what comes is
-- what they send, and answers as they do: `moonwire vectors.lua url=U`. Prints "passed NAME" or "failed NAME: why".
local arguments = require("conformance.arguments")
local case = require("conformance.case")
local json = require("json")
local wsrpc = require("wsrpc")

local url = arguments(arg).url

--- Each example on a connection of its own.
local function example(name, fn)
  case("(7) " .. name, function()
    local peer <close> = assert(wsrpc.connect(url, { call_timeout = 10, reconnect = false }))
    fn(peer)
    -- Whatever came, the connection goes on.
    assert(peer:call("get_data")[2] == 5)
  end)
end

example("rpc call with positional parameters", function(peer)
  assert(assert(peer:call("subtract", { 42, 23 })) == 19)
  assert(assert(peer:call("subtract", { 23, 42 })) == -19)
end)

example("rpc call with named parameters", function(peer)
  assert(assert(peer:call("subtract", { subtrahend = 23, minuend = 42 })) == 19)
end)

example("a Notification", function(peer)
  assert(peer:notify("update", { 1, 2, 3, 4, 5 }))
  assert(peer:notify("foobar"))
  local seen = json.encode(assert(peer:call("notified")))
  assert(seen == '[{"jsonrpc":"2.0","method":"update","params":[1,2,3,4,5]},{"jsonrpc":"2.0","method":"foobar"}]', seen)
end)

example("rpc call of non-existent method", function(peer)
  local result, err = peer:call("foobar")
  assert(result == nil and err.code == -32601 and err.message == "Method not found", err)
end)

example("an error without an id harms no call", function(peer)
  assert(assert(peer:call("parse error")) == "unharmed")
end)

example("rpc call Batch", function(peer)
  local answers = assert(peer:batch({
    { "sum", { 1, 2, 4 } },
    { "notify_hello", { 7 }, notify = true },
    { "subtract", { 42, 23 } },
    { "foo.get", { name = "myself" } },
    { "get_data" },
  }))
  assert(#answers == 4)
  assert(answers[1].result == 7 and answers[2].result == 19 and answers[3].error.code == -32601)
  assert(json.encode(answers[4].result) == '["hello",5]')
end)

example("rpc call Batch (all notifications)", function(peer)
  local answers = assert(peer:batch({ { "notify_sum", { 1, 2, 4 }, notify = true }, { "notify_hello", { 7 }, notify = true } }))
  assert(#answers == 0)
  assert(#assert(peer:call("notified")) == 1)
end)
