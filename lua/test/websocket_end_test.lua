-- How connections end, on pairs of streams and on scripted peers, when several tasks use one or something goes wrong.
local codec = require("websocket.codec")
local connection = require("websocket.connection")
local cosocket = require("cosocket")
local session = require("websocket.session")
local test = require("test")
require("websocket.stream")

--- Both ends of a connection, and their streams.
local function pair(options, agreed)
  local near, far = cosocket.pair()
  local client = connection.new(assert(near, far), session.config("client", options, agreed))
  local server = connection.new(far, session.config("server", options, agreed))
  return client, server, near, far
end

--- A client whose server plays steps.
local function scripted(steps, options)
  local stream = test.stream(steps)
  return connection.new(stream, session.config("client", options)), stream
end

--- A step: waits for one frame of a client, and checks what it is and says.
local function frame(kind, payload, code)
  local rules = codec.rules({ role = "server" })
  return function(far, input)
    local found, what, _, extra
    repeat
      found, what, _, extra = codec.decode(input, rules)
      if not found and not what then assert(far:fill(input)) end
    until found or what
    test.equal({ what, found, extra }, { kind, payload, code })
  end
end

--- Runs functions as tasks, and waits for all.
local function together(...)
  local tasks = { ... }
  cosocket.group(function()
    for _, fn in ipairs(tasks) do cosocket.spawn(fn) end
  end)
end

return {
  ["why the other side has closed is not forgotten when a task closes meanwhile"] = function()
    -- The other side leaves the stream open for longer than this side waits.
    local client = scripted({ { send = "\x88\x05\x0f\xa1bye" }, frame("close", "", 4001), { expect_close = true } })
    together(function()
      test.equal(select(2, client:receive()).code, 4001)
    end, function()
      cosocket.sleep(0.5)
      client:close()
      test.equal({ client.close_code, client.close_reason, client.err.kind }, { 4001, "bye", "closed" })
    end)
  end,

  ["a task that is cancelled during the last words loses the connection, and nobody waits for it"] = function()
    local client = scripted({ { send = "\x88\x02\x0f\xa1" }, frame("close", "", 4001), { expect_close = true } })
    local receives = cosocket.spawn(client.receive, client)
    cosocket.sleep(0.5)
    receives:cancel()
    test.equal(cosocket.deadline(5, client.close, client), true)
    test.equal(client.close_code, 4001)
  end,

  ["an answer to a Close that is late is not waited for, however much else comes"] = function()
    local near, far = cosocket.pair()
    local client = connection.new(assert(near), session.config("client", { close_timeout = 1 }))
    -- It is there, but behind more than is taken at once.
    assert(far:write(("\x82\x7e\x10\x00" .. ("x"):rep(4096)):rep(36), "\x88\x02\x03\xe8"))
    client:start_close()
    cosocket.sleep(2)
    client:close()
    test.equal({ client.close_code, client.err.kind }, { 1006, "timeout" })
  end,

  ["an answer to a Close that has come is heard, even late"] = function()
    local client, server = pair({ close_timeout = 1 })
    client:start_close()
    test.fails("closed", server:receive())
    cosocket.sleep(2)
    client:close()
    test.equal(client.close_code, 1000)
  end,

  ["a Close behind what leaves slowly is answered when it has arrived"] = function()
    local client, server, near = pair({ close_timeout = 4 })
    local began, total = cosocket.now(), 0
    together(function()
      assert(client:send_binary(("x"):rep(2000000)))
      client:close()
      test.equal(client.close_code, 1000)
    end, function()
      near:set_option("queue_max", 4194304)
      for piece in function()
        cosocket.sleep(0.5)
        return (server:receive_piece())
      end do
        total = total + #piece
      end
    end)
    test.equal(total, 2000000)
    test.truthy(cosocket.now() - began > 8)
  end,

  ["a peer that does not read is noticed by a task that only sends"] = function()
    local client, _, near = pair({ keep_alive = 30, keep_alive_timeout = 20 })
    near:set_option("queue_max", 4096)
    local began = cosocket.now()
    local err = test.fails("timeout", client:send_binary(("x"):rep(16777216)))
    test.equal(err.code, 1006)
    test.near(cosocket.now() - began, 50, 6)
  end,

  ["a task that closes waits while another sends, which does not hear the answer"] = function()
    local client, server, near = pair({ close_timeout = 5 })
    near:set_option("queue_max", 4096)
    together(function()
      assert(client:send_binary(("x"):rep(16777216)))
    end, function()
      cosocket.sleep(1)
      client:shutdown("write")
      cosocket.sleep(1)
      test.equal(cosocket.deadline(20, client.close, client), true)
      test.equal(client.close_code, 1000)
    end, function()
      cosocket.sleep(3)
      repeat until not server:receive_piece()
    end)
  end,

  ["a deadline that passes within a message in pieces closes the connection"] = function()
    local client, server, near = pair()
    near:set_option("queue_max", 4096)
    local ok, err = cosocket.deadline(1, client.send_stream, client, "binary", function() return ("x"):rep(65536) end)
    test.equal({ ok, err.kind }, { nil, "timeout" })
    test.equal(client:status().state, "closed")
    test.fails("timeout", client:send("half of another message came before"))
    test.fails("closed", cosocket.deadline(5, function()
      local piece, why
      repeat piece, why = server:receive_piece() until not piece
      return piece, why
    end))
  end,

  ["a deadline that passes when a message in pieces is on its way harms nothing"] = function()
    local client, server, near = pair()
    near:set_option("queue_max", 4096)
    local long, at = ("x"):rep(16777216), 0
    local ok, err = cosocket.deadline(1, client.send_stream, client, "binary", function()
      at = at + 1
      return at == 1 and long or nil
    end)
    test.equal({ ok, err.kind }, { nil, "timeout" })
    together(function()
      assert(client:send("next"))
    end, function()
      test.equal(#server:receive(), #long)
      test.equal(server:receive(), "next")
    end)
  end,
}
