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
