-- The protocol without sockets: what is refused and how, limits, cancelling, streams.
local json = require("json")
local session = require("wsrpc.session")
local test = require("test")

local function new(limits) return session.new(session.config(limits)) end

--- The texts a session wants to send, decoded.
local function sent(one)
  local list = {}
  for text in function() return one:take() end do list[#list + 1] = assert(json.decode(text)) end
  return list
end

--- The one answer to a text: its code and its id.
local function code_of(text, limits)
  local server = new(limits)
  test.equal(#assert(server:receive(text, 0)), 0)
  local list = sent(server)
  test.equal(#list, 1)
  return list[1].error.code, list[1].id
end

--- Carries everything from one to the other: the events there.
local function carry(from, to)
  local all = {}
  for text in function() return from:take() end do
    for _, event in ipairs(assert(to:receive(text, 0))) do all[#all + 1] = event end
  end
  return all
end

local function request(id, method) return ('{"jsonrpc":"2.0","id":%s,"method":"%s"}'):format(id, method or "m") end

return {
  ["an id is a string, a number or null, and comes back the same"] = function()
    for _, id in ipairs({ '"x"', '""', "0", "-7", "1.5", "null", "9223372036854775807" }) do
      local server = new()
      local events = assert(server:receive(request(id), 0))
      test.equal(events[1].kind, "call")
      assert(server:answer(events[1].call, true))
      test.truthy(server:take():find('"id":' .. id .. ",", 1, true))
    end
  end,

  ["what cannot be an id makes the request invalid, and the answer's id null"] = function()
    for _, id in ipairs({ "true", "[]", "{}", "[1]", '"' .. ("x"):rep(257) .. '"' }) do
      local code, answered = code_of(request(id))
      test.equal(code, -32600)
      test.equal(answered, json.null)
    end
  end,

  ["an invalid request with an id that can be told is answered with it"] = function()
    for _, text in ipairs({
      '{"jsonrpc":"1.0","id":7,"method":"m"}',
      '{"jsonrpc":2.0,"id":7,"method":"m"}',
      '{"id":7,"method":"m"}',
      '{"jsonrpc":"2.0","id":7,"method":null}',
      '{"jsonrpc":"2.0","id":7}',
      '{"jsonrpc":"2.0","id":7,"method":"m","params":"text"}',
    }) do
      local code, id = code_of(text)
      test.equal(code, -32600)
      test.equal(id, 7)
    end
  end,

  ["params that are null are none"] = function()
    local server = new()
    local events = assert(server:receive('{"jsonrpc":"2.0","id":7,"method":"m","params":null}', 0))
    test.equal({ events[1].kind, events[1].call.params }, { "call", nil })
    events = assert(server:receive('{"jsonrpc":"2.0","method":"m","params":null}', 0))
    test.equal({ events[1].kind, events[1].call.id, events[1].call.params }, { "call" })
    local text = '{"jsonrpc":"2.0","id":8,"method":"rpc.subscribe","params":{"subscription":1,"name":"s","credit":1,"params":null}}'
    events = assert(server:receive(text, 0))
    test.equal({ events[1].kind, events[1].publication.params }, { "subscribe" })
    test.equal(server:take(), nil)
  end,

  ["what is no JSON is a parse error, and so is what nests too deep or holds a number that is none"] = function()
    for _, text in ipairs({ "", "{", "nonsense", "1e400", '{"jsonrpc":"2.0","id":1e999,"method":"m"}', "\xff" }) do
      local code, id = code_of(text)
      test.equal(code, -32700)
      test.equal(id, json.null)
    end
    test.equal(code_of(("["):rep(65) .. ("]"):rep(65)), -32700)
    test.equal(code_of(("["):rep(100000)), -32700)
    test.equal(code_of(("["):rep(5) .. ("]"):rep(5), { depth_max = 4 }), -32700)
  end,

  ["values that are no objects are invalid requests"] = function()
    for _, text in ipairs({ "1", '"text"', "null", "true", "{}" }) do test.equal(code_of(text), -32600) end
  end,

  ["an id that is in use is refused until its call has ended"] = function()
    local server = new()
    local events = assert(server:receive(request(1), 0))
    test.equal(assert(server:receive(request(1), 0)), {})
    test.equal(sent(server)[1].error.code, -32600)
    -- The number 1 and the text "1" are two ids, and null is none.
    test.equal(#assert(server:receive(request('"1"'), 0)), 1)
    test.equal(#assert(server:receive(request("null"), 0)), 1)
    test.equal(#assert(server:receive(request("null"), 0)), 1)
    assert(server:answer(events[1].call, true))
    test.equal(#assert(server:receive(request(1), 0)), 1)
  end,

  ["calls beyond the limit are refused, and take their turn when others have ended"] = function()
    local server = new({ calls_max = 2 })
    local first = assert(server:receive(request(1), 0))[1].call
    assert(server:receive('{"jsonrpc":"2.0","method":"m"}', 0))
    test.equal(#assert(server:receive(request(3), 0)), 0)
    test.equal(sent(server)[1].error.code, -32002)
    test.equal(#assert(server:receive('{"jsonrpc":"2.0","method":"m"}', 0)), 0)
    test.equal(sent(server), {})
    assert(server:answer(first, 1))
    test.equal(#assert(server:receive(request(4), 0)), 1)
  end,

  ["a batch beyond the limit is refused whole"] = function()
    local list = { request(1), request(2), request(3) }
    local server = new({ batch_max = 2 })
    test.equal(#assert(server:receive("[" .. table.concat(list, ",") .. "]", 0)), 0)
    local answers = sent(server)
    test.equal(#answers, 1)
    test.equal(answers[1].error.code, -32600)
    local client = new({ batch_max = 2 })
    local three = { { method = "m", owner = 1 }, { method = "m", owner = 2 }, { method = "m", owner = 3 } }
    test.fails("limit", client:batch(three))
    test.equal(client:take(), nil)
  end,

  ["a batch is answered when the last of its calls is"] = function()
    local server = new()
    local events = assert(server:receive("[" .. request(1) .. "," .. request(2) .. ",3]", 0))
    test.equal(server:take(), nil)
    server:answer(events[2].call, "second")
    test.equal(server:take(), nil)
    server:fail(events[1].call, { code = -5, message = "first" })
    local answers = sent(server)
    test.equal(#answers, 1)
    test.equal(#answers[1], 3)
  end,

  ["answers to a batch that are too long together become errors"] = function()
    local server = new({ message_max = 1000 })
    local events = assert(server:receive("[" .. request(1) .. "," .. request(2) .. "]", 0))
    server:answer(events[1].call, ("x"):rep(600))
    server:answer(events[2].call, ("x"):rep(600))
    local answers = sent(server)[1]
    test.equal(#answers[1].result, 600)
    test.equal(answers[2].error.code, -32603)
  end,

  ["a result that has no JSON form, or is too long, is an internal error here and there"] = function()
    local server = new({ message_max = 1000 })
    for id, value in ipairs({ 0 / 0, print, ("x"):rep(2000), "\xff" }) do
      local call = assert(server:receive(request(id), 0))[1].call
      local ok, err = server:answer(call, value)
      test.equal(ok, nil)
      test.truthy(err)
      test.equal(sent(server)[1].error.code, -32603)
    end
  end,

  ["no message is longer than the other side takes, whatever stands around a value"] = function()
    local client, server = new({ message_max = 200 }), new({ message_max = 200 })
    local sent_longest = { request = 0, notify = 0, result = 0, value = 0 }
    assert(client:subscribe("s", nil, 1000, "owner"))
    local publication = carry(client, server)[1].publication
    server:accept(publication)
    carry(server, client)
    for length = 1, 210 do
      local text = ("x"):rep(length)
      local calls = assert(server:receive(request(length), 0))
      server:answer(calls[1].call, text)
      for kind, try in pairs({
        request = function() return client:request("m", { text }, "owner") end,
        notify = function() return client:notify("m", { text }) end,
        value = function() return server:emit(publication, text) end,
      }) do
        local before = server:take()
        if before then sent_longest.result = math.max(sent_longest.result, #before) end
        local ok, err = try()
        if not ok then test.equal(err.kind, "limit") end
        local made = client:take() or server:take()
        if made then sent_longest[kind] = math.max(sent_longest[kind], #made) end
      end
    end
    test.equal(sent_longest, { request = 200, notify = 200, result = 200, value = 200 })
  end,

  ["messages beyond the rate are refused, and those who go on are cut off"] = function()
    local server = new({ rate = 10 })
    for id = 1, 10 do
      local events = assert(server:receive(request(id), 0))
      server:answer(events[1].call, true)
    end
    sent(server)
    for id = 11, 20 do test.equal(#assert(server:receive(request(id), 0)), 0) end
    for _, answer in ipairs(sent(server)) do test.equal(answer.error.code, -32003) end
    -- A tenth of a second later there is room for one.
    test.equal(#assert(server:receive(request(21), 0.1)), 1)
    test.equal(#assert(server:receive(request(22), 0.1)), 0)
    local ended
    for id = 23, 40 do
      local events, err = server:receive(request(id), 0.1)
      if not events then ended = err break end
    end
    test.equal(ended.kind, "limit")
    test.equal(ended.code, 1008)
  end,

  ["a cancelled call is answered with its code, and its end is not answered again"] = function()
    local client, server = new(), new()
    local id = assert(client:request("slow", nil, "owner"))
    local call = carry(client, server)[1].call
    client:cancel(id)
    local events = carry(client, server)
    test.equal(#events, 1)
    test.equal(events[1].kind, "cancel")
    test.equal(events[1].call, call)
    server:answer(call, "late")
    local answers = {}
    for text in function() return server:take() end do answers[#answers + 1] = text end
    test.equal(#answers, 1)
    test.matches(answers[1], "%-32800")
    -- Whoever cancelled does not hear of it.
    test.equal(client:receive(answers[1], 0), {})
    -- Cancelling what has ended, or never was, does nothing.
    for _, params in ipairs({ '{"id":1}', '{"id":"x"}', "{}", "[1]", '{"id":null}', '{"id":{}}' }) do
      local text = '{"jsonrpc":"2.0","method":"$/cancelRequest","params":' .. params .. "}"
      test.equal(assert(server:receive(text, 0)), {})
    end
    test.equal(sent(server), {})
  end,

  ["an answer that is no response fails its call as a breach of protocol"] = function()
    for _, text in ipairs({
      '{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":"m"}}',
      '{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":"m"}}',
      '{"jsonrpc":"2.0","id":1,"error":"text"}',
      '{"jsonrpc":"1.0","id":1,"result":1}',
      '{"id":1,"result":1}',
    }) do
      local client = new()
      assert(client:request("m", nil, "owner"))
      client:take()
      local events = assert(client:receive(text, 0))
      test.equal(events[1].error.kind, "protocol")
      test.equal(client:take(), nil)
    end
  end,

  ["more calls than may wait are refused here"] = function()
    local client = new({ pending_max = 2 })
    assert(client:request("m", nil, 1))
    assert(client:request("m", nil, 2))
    test.fails("limit", client:request("m", nil, 3))
    test.equal(#sent(client), 2)
  end,

  ["a stream gives as many values as its subscriber takes, in order, and a clean end"] = function()
    local client, server = new(), new()
    local feed = assert(client:subscribe("s", { 1 }, 2, "owner"))
    local publication = carry(client, server)[1].publication
    test.equal({ publication.name, publication.credit }, { "s", 2 })
    server:accept(publication)
    test.equal(server:emit(publication, "a"), true)
    test.equal(server:emit(publication, json.null), true)
    test.equal(server:emit(publication, "c"), false)
    local events = carry(server, client)
    test.equal({ events[1].kind, events[1].value }, { "answer", true })
    test.equal({ events[2].kind, events[2].value }, { "next", "a" })
    test.equal({ events[3].kind, events[3].value }, { "next", json.null })
    client:grant(feed, 1)
    test.equal(carry(client, server)[1].kind, "credit")
    test.equal(server:emit(publication, "c"), true)
    server:end_stream(publication)
    events = carry(server, client)
    test.equal({ events[1].value, events[2].kind, events[2].error }, { "c", "end", nil })
    test.fails("closed", server:emit(publication, "d"))
    client:unsubscribe(feed)
    test.equal(client:take(), nil)
  end,

  ["a subscriber that wants no more is heard, and what was on its way is passed over"] = function()
    local client, server = new(), new()
    local feed = assert(client:subscribe("s", nil, 5, "owner"))
    local publication = carry(client, server)[1].publication
    server:accept(publication)
    carry(server, client)
    server:emit(publication, 1)
    client:unsubscribe(feed)
    test.equal(carry(server, client), {})
    local events = carry(client, server)
    test.equal({ events[1].kind, events[1].publication }, { "unsubscribe", publication })
    test.fails("closed", server:emit(publication, 2))
  end,

  ["a publisher that sends more than it may is left"] = function()
    local client = new()
    assert(client:subscribe("s", nil, 1, "owner"))
    client:take()
    local value = '{"jsonrpc":"2.0","method":"rpc.next","params":{"subscription":1,"value":1}}'
    test.equal(assert(client:receive(value, 0))[1].kind, "next")
    local event = assert(client:receive(value, 0))[1]
    test.equal({ event.kind, event.error.kind }, { "end", "protocol" })
    test.equal(sent(client)[1].method, "rpc.unsubscribe")
    test.equal(assert(client:receive(value, 0)), {})
  end,

  ["an end with an error says so, and the refusal of a subscription ends it"] = function()
    local client, server = new(), new()
    assert(client:subscribe("s", nil, 1, "one"))
    local publication = carry(client, server)[1].publication
    server:accept(publication)
    server:end_stream(publication, { code = -7, message = "broken" })
    local events = carry(server, client)
    test.equal({ events[2].kind, events[2].error.code, events[2].error.message }, { "end", -7, "broken" })
    assert(client:subscribe("s", nil, 1, "two"))
    server:reject(carry(client, server)[1].publication, { code = -32601, message = "Stream not found" })
    events = carry(server, client)
    test.equal({ events[1].kind, events[1].owner, events[1].error.code }, { "answer", "two", -32601 })
    test.equal(client:finish(), {})
  end,

  ["subscriptions that make no sense are invalid params, and too many are refused"] = function()
    local function subscribe(params, limits)
      return code_of('{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":' .. params .. "}", limits)
    end
    for _, params in ipairs({
      "{}",
      "[]",
      '{"subscription":1,"name":"s"}',
      '{"subscription":1,"name":"s","credit":0}',
      '{"subscription":1,"name":"s","credit":-1}',
      '{"subscription":1,"name":"s","credit":1.5}',
      '{"subscription":1,"name":7,"credit":1}',
      '{"subscription":null,"name":"s","credit":1}',
      '{"subscription":{},"name":"s","credit":1}',
      '{"subscription":1.5,"name":"s","credit":1}',
      '{"subscription":1,"name":"s","credit":1,"params":7}',
    }) do
      test.equal(subscribe(params), -32602)
    end
    local ok = '{"subscription":1,"name":"s","credit":1}'
    test.equal(subscribe(ok, { subscriptions_max = 0 }), -32002)
    local server = new()
    local text = '{"jsonrpc":"2.0","id":%d,"method":"rpc.subscribe","params":' .. ok .. "}"
    assert(server:receive(text:format(1), 0))
    test.equal(assert(server:receive(text:format(2), 0)), {})
    test.equal(sent(server)[1].error.code, -32602)
    local client = new({ subscriptions_max = 1 })
    assert(client:subscribe("s", nil, 1, 1))
    test.fails("limit", client:subscribe("s", nil, 1, 2))
  end,

  ["random texts are answered or passed over, and never raise"] = function()
    local random = test.random()
    local pieces = {
      '{"jsonrpc":"2.0"', ',"id":', ',"method":', ',"params":', '"rpc.subscribe"', '"$/cancelRequest"', '"rpc.next"',
      '"rpc.credit"', '"rpc.end"', '{"subscription":1', ',"credit":', ',"name":"s"', ',"error":', ',"result":',
      "1", "null", "[]", "{}", "}", "[", "]", "1e99", '"__gc"', "-1", ",", '"x"', "true",
    }
    for _ = 1, 3000 do
      local server, parts = new(), {}
      for i = 1, random(1, 12) do parts[i] = random:pick(pieces) end
      local text = table.concat(parts)
      local events = assert(server:receive(text, 0))
      for _, event in ipairs(events) do
        if event.kind == "call" then server:answer(event.call, 1) end
      end
      for answer in function() return server:take() end do assert(json.decode(answer)) end
    end
  end,
}
