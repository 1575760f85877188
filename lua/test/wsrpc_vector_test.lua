-- The examples of the JSON-RPC 2.0 specification, section 7, as a server and as a client sees them.
local json = require("json")
local session = require("wsrpc.session")
local test = require("test")

--- The specification's server: what its examples call.
local METHODS = {
  subtract = function(params)
    if json.is_array(params) then return params[1] - params[2] end
    return params.minuend - params.subtrahend
  end,
  sum = function(params)
    local sum = 0
    for _, value in ipairs(params) do sum = sum + value end
    return sum
  end,
  get_data = function() return json.array({ "hello", 5 }) end,
  update = function() return json.null end,
  notify_hello = function() return json.null end,
  notify_sum = function() return json.null end,
}

--- What a server of those methods answers to a text: texts, decoded.
local function serve(text)
  local server = session.new()
  for _, event in ipairs(assert(server:receive(text, 0))) do
    test.equal(event.kind, "call")
    local call = event.call
    local fn = METHODS[call.method]
    if fn then
      assert(server:answer(call, fn(call.params)))
    else
      server:fail(call, { code = -32601, message = "Method not found" })
    end
  end
  local answers = {}
  for sent in function() return server:take() end do answers[#answers + 1] = assert(json.decode(sent)) end
  return answers
end

--- One answer, compared as JSON: the order of members does not count.
local function expect(text, answer)
  local answers = serve(text)
  if answer == nil then return test.equal(answers, {}) end
  test.equal(#answers, 1)
  test.equal(json.encode(answers[1]), json.encode(assert(json.decode(answer))))
end

--- A client that has called, and is answered.
local function answered(calls, text)
  local client = session.new()
  for i, call in ipairs(calls) do
    local id = assert(client:request(call[1], call[2], "call " .. i))
    test.equal(id, i)
  end
  local sent = {}
  for one in function() return client:take() end do sent[#sent + 1] = assert(json.decode(one)) end
  return assert(client:receive(text, 0)), sent
end

return {
  ["7: rpc call with positional parameters"] = function()
    expect(
      '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
      '{"jsonrpc": "2.0", "result": 19, "id": 1}'
    )
    expect(
      '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
      '{"jsonrpc": "2.0", "result": -19, "id": 2}'
    )
  end,

  ["7: rpc call with named parameters"] = function()
    expect(
      '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
      '{"jsonrpc": "2.0", "result": 19, "id": 3}'
    )
    expect(
      '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
      '{"jsonrpc": "2.0", "result": 19, "id": 4}'
    )
  end,

  ["7: a notification"] = function()
    expect('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', nil)
    expect('{"jsonrpc": "2.0", "method": "foobar"}', nil)
  end,

  ["7: rpc call of non-existent method"] = function()
    expect(
      '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
      '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}'
    )
  end,

  ["7: rpc call with invalid JSON"] = function()
    expect(
      '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
      '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}'
    )
  end,

  ["7: rpc call with invalid Request object"] = function()
    expect(
      '{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
      '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}'
    )
  end,

  ["7: rpc call Batch, invalid JSON"] = function()
    expect(
      '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]',
      '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}'
    )
  end,

  ["7: rpc call with an empty Array"] = function()
    expect("[]", '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}')
  end,

  ["7: rpc call with an invalid Batch (but not empty)"] = function()
    expect("[1]", '[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]')
  end,

  ["7: rpc call with invalid Batch"] = function()
    local one = '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}'
    expect("[1,2,3]", ("[%s,%s,%s]"):format(one, one, one))
  end,

  ["7: rpc call Batch"] = function()
    local answers = serve([[ [
      {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
      {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
      {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
      {"foo": "boo"},
      {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
      {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ] ]])
    test.equal(#answers, 1)
    -- 6: in any order
    local seen = {}
    for _, answer in ipairs(answers[1]) do seen[answer.id] = json.encode(answer) end
    local wanted = assert(json.decode([[ [
      {"jsonrpc": "2.0", "result": 7, "id": "1"},
      {"jsonrpc": "2.0", "result": 19, "id": "2"},
      {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
      {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
      {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
    ] ]]))
    test.equal(#answers[1], #wanted)
    for _, answer in ipairs(wanted) do test.equal(seen[answer.id], json.encode(answer)) end
  end,

  ["7: rpc call Batch (all notifications)"] = function()
    expect(
      [[ [
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
      ] ]],
      nil
    )
  end,

  ["7, as a client: what is sent is what the examples send"] = function()
    local _, sent = answered({
      { "subtract", { 42, 23 } },
      { "subtract", { subtrahend = 23, minuend = 42 } },
      { "foobar" },
    }, '{"jsonrpc": "2.0", "result": 19, "id": 1}')
    local texts = {
      '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
      '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 2}',
      '{"jsonrpc": "2.0", "method": "foobar", "id": 3}',
    }
    for i, text in ipairs(texts) do test.equal(json.encode(sent[i]), json.encode(assert(json.decode(text)))) end
    local client = session.new()
    assert(client:notify("update", { 1, 2, 3, 4, 5 }))
    local notification = assert(json.decode(client:take()))
    test.equal(
      json.encode(notification),
      json.encode(assert(json.decode('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}')))
    )
  end,

  ["7, as a client: results and errors reach whoever called"] = function()
    local events = answered({ { "subtract", { 42, 23 } } }, '{"jsonrpc": "2.0", "result": 19, "id": 1}')
    test.equal(events, { { kind = "answer", owner = "call 1", value = 19 } })
    events = answered(
      { { "foobar" } },
      '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": 1}'
    )
    test.equal(events, {
      { kind = "answer", owner = "call 1", error = { code = -32601, message = "Method not found" } },
    })
  end,

  ["7, as a client: an error without an id is nobody's, and harms no call"] = function()
    local events = answered(
      { { "foobar" } },
      '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}'
    )
    test.equal(#events, 1)
    test.equal(events[1].kind, "stray")
    test.equal(events[1].owner, nil)
  end,

  ["7, as a client: the answers to a batch may come in any order"] = function()
    local client = session.new()
    local ids = assert(client:batch({
      { method = "sum", params = { 1, 2, 4 }, owner = "sum" },
      { method = "notify_hello", params = { 7 } },
      { method = "subtract", params = { 42, 23 }, owner = "subtract" },
      { method = "foo.get", params = { name = "myself" }, owner = "foo.get" },
      { method = "get_data", owner = "get_data" },
    }))
    test.equal(ids, { 1, 2, 3, 4 })
    local sent = assert(json.decode(client:take()))
    test.equal(#sent, 5)
    test.equal(sent[2].id, nil)
    local events = assert(client:receive([[ [
      {"jsonrpc": "2.0", "result": ["hello", 5], "id": 4},
      {"jsonrpc": "2.0", "result": 19, "id": 2},
      {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
      {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": 3},
      {"jsonrpc": "2.0", "result": 7, "id": 1}
    ] ]], 0))
    local got = {}
    for _, event in ipairs(events) do
      if event.kind == "answer" then got[event.owner] = event.error and event.error.code or event.value end
    end
    test.equal(got.sum, 7)
    test.equal(got.subtract, 19)
    test.equal(got["foo.get"], -32601)
    test.equal(json.encode(got.get_data), '["hello",5]')
    test.equal(client:take(), nil)
  end,

  ["7, as a client: an answered call is answered once"] = function()
    local client = session.new()
    assert(client:request("get_data", nil, "owner"))
    local text = '{"jsonrpc": "2.0", "result": ["hello", 5], "id": 1}'
    test.equal(#assert(client:receive(text, 0)), 1)
    test.equal(#assert(client:receive(text, 0)), 0)
  end,
}
