-- A server that breaks its protocol, on a real socket: nothing it does may hang the client, make it raise, or fool it.
local cosocket = require("cosocket")
local server = require("server")
local smtp = require("smtp")
local test = require("test")

--- What a good server says, in order: the greeting, and the answer to each line or message.
local GOOD = {
  "220-hello\r\n220 there\r\n",
  "250-mail.example\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250 PIPELINING\r\n",
  "250 2.1.0 sender\r\n",
  "250 2.1.5 recipient\r\n",
  "250 2.1.5 recipient\r\n",
  "354 go on\r\n",
  "250 2.0.0 queued as X1\r\n",
  "221 2.0.0 bye\r\n",
}
local MESSAGE = { from = "a@example.test", to = "b@example.test, c@example.test", text = "one\n.two\n" }
--- Seconds in which anything here is over.
local PATIENCE = 10

--- A server that says `replies`, each when the client has said something. `say(stream, bytes, step)` may do it otherwise.
local function serve(replies, say)
  local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
  local heard = {}
  cosocket.spawn("hostile server", function()
    local stream = listener:accept()
    listener:close()
    if not stream then return end
    say = say or function(one, bytes) return one:write(bytes) and one:flush() end
    if say(stream, replies[1], 1) then
      for step = 2, #replies do
        local line = stream:read_line()
        if not line then break end
        heard[#heard + 1] = line
        if replies[step - 1]:find("^354") then
          while line and line ~= "." do
            line = stream:read_line()
            heard[#heard + 1] = line
          end
          if not line then break end
        end
        if not say(stream, replies[step], step) then break end
      end
    end
    stream:close()
  end)
  return "smtp://" .. listener:local_address(), heard
end

--- What comes of sending one message to it.
local function send(url, options)
  local all = { starttls = "off", timeout = 5, timeouts = { command = 5, data = 5, block = 5, done = 5 } }
  for name, value in pairs(options or {}) do all[name] = value end
  local began = cosocket.now()
  local result, err = cosocket.deadline(PATIENCE, smtp.send, url, MESSAGE, all)
  assert(cosocket.now() - began < PATIENCE, "it hangs")
  if result == nil then assert(cosocket.is_error(err) and type(err.retry) == "boolean", tostring(err)) end
  return result, err
end

local function with(step, reply)
  local replies = {}
  for i, one in ipairs(GOOD) do replies[i] = i == step and reply or one end
  return replies
end

return {
  ["a good server is understood"] = function()
    local url, heard = serve(GOOD)
    local result = assert(send(url))
    test.equal({ result.accepted, result.text }, { { "b@example.test", "c@example.test" }, "queued as X1" })
    test.equal(heard[#heard], "QUIT")
  end,

  ["replies split at every byte are understood"] = function()
    assert(send((serve(GOOD, function(stream, bytes)
      for at = 1, #bytes do
        if not stream:write(bytes:sub(at, at)) or not stream:flush() then return false end
        cosocket.sleep(0)
      end
      return true
    end))))
  end,

  ["all replies at once do not confuse it"] = function()
    local result, err = send((serve({ table.concat(GOOD) })))
    assert(result and result.text == "queued as X1" or err.kind == "closed", tostring(err))
  end,

  ["a server that closes at any byte of its words ends it with an error, and nothing is taken twice"] = function()
    local whole = 0
    for _, reply in ipairs(GOOD) do whole = whole + #reply end
    local final = whole - #GOOD[8]
    for cut = 0, final - 1 do
      local left = cut
      local result, err = send((serve(GOOD, function(stream, bytes)
        local part = bytes:sub(1, left)
        left = left - #part
        if part ~= "" then
          stream:write(part)
          stream:flush()
        end
        return #part == #bytes
      end)))
      -- From the queueing reply's last byte on the message is the server's.
      test.falsy(result, ("cut after %d of %d"):format(cut, final))
      test.equal({ err.kind, err.retry }, { "closed", true }, ("cut after %d: %s"):format(cut, tostring(err)))
      test.equal(err.in_doubt or false, cut >= final - #GOOD[7], ("cut after %d"):format(cut))
    end
  end,

  ["an endless line is ended at every step"] = function()
    for step = 1, #GOOD - 1 do
      local _, err = send((serve(with(step, "250-" .. ("x"):rep(100000)))))
      test.equal(err.kind, "limit", ("step %d: %s"):format(step, tostring(err)))
    end
  end,

  ["an endless reply is ended at every step"] = function()
    for step = 1, #GOOD - 1 do
      local code = GOOD[step]:sub(1, 3)
      local _, err = send((serve(with(step, ("%s-x\r\n"):format(code):rep(5000)))))
      test.equal(err.kind, "limit", ("step %d: %s"):format(step, tostring(err)))
    end
  end,

  ["wrong codes at every step are errors with that code, or against the protocol"] = function()
    for step = 1, #GOOD - 1 do
      for _, code in ipairs({ 220, 235, 334, 354, 421, 451, 500, 550, 554 }) do
        if GOOD[step]:sub(1, 3) ~= tostring(code) then
          local result, err = send((serve(with(step, ("%d words\r\n"):format(code)))))
          local is_fine = code // 100 == 2 and step ~= 6 or result and #result.refused == 1
          -- EHLO that is refused is followed by HELO, which this server answers as it answers MAIL.
          if not result then
            local is_told = err.kind == "refused" or err.kind == "protocol" or err.kind == "closed"
            assert(is_told, ("%d at step %d: %s"):format(code, step, err))
          else
            assert(is_fine or step == 2, ("%d at step %d was taken"):format(code, step))
          end
        end
      end
    end
  end,

  ["what is no reply is against the protocol at every step"] = function()
    for step = 1, #GOOD - 1 do
      for _, words in ipairs({ "\r\n", "hello\r\n", "25 x\r\n", "2500 x\r\n", "999 x\r\n", "\0\0\0\r\n", "250_x\r\n" }) do
        local _, err = send((serve(with(step, words))))
        test.equal(err.kind, "protocol", ("step %d: %s"):format(step, tostring(err)))
      end
    end
  end,

  ["a server that is silent is left at every step"] = function()
    for step = 1, #GOOD - 1 do
      local _, err = send((serve(GOOD, function(stream, bytes, at)
        if at < step then return stream:write(bytes) and stream:flush() end
        repeat until not stream:read()
        return false
      end)), { timeout = 0.3, timeouts = { command = 0.3, data = 0.3, done = 0.3, quit = 0.3 } })
      test.equal({ err.kind, err.retry }, { "timeout", true }, ("step %d: %s"):format(step, tostring(err)))
    end
  end,

  ["a server that does not read is left"] = function()
    local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local stop = cosocket.event()
    cosocket.spawn(function()
      local stream = assert(listener:accept())
      stream:write(table.concat(GOOD, "", 1, 1))
      stream:read_line()
      stream:write(GOOD[2])
      for _ = 1, 4 do stream:read_line() end
      stream:write(GOOD[3], GOOD[4], GOOD[5], GOOD[6])
      stream:flush()
      stop:wait()
      stream:close()
    end)
    local url = "smtp://" .. listener:local_address()
    local result, err = smtp.send(url, {
      from = "a@example.test", to = "b@example.test, c@example.test",
      attachments = { { content = ("x"):rep(16 * 1024 * 1024) } },
    }, { starttls = "off", timeouts = { block = 0.5 } })
    stop:set()
    listener:close()
    test.fails("refused", result, err) -- 16 MiB are more than it says it takes
    test.equal(err.code, 552)
  end,

  ["a server that stops reading in the middle of a message is left"] = function()
    local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
    local stop = cosocket.event()
    cosocket.spawn(function()
      local stream = assert(listener:accept())
      stream:write("220 x\r\n")
      stream:read_line()
      stream:write("250-x\r\n250 PIPELINING\r\n")
      for _ = 1, 4 do stream:read_line() end
      stream:write(GOOD[3], GOOD[4], GOOD[5], GOOD[6])
      stream:flush()
      stop:wait()
      stream:close()
    end)
    local result, err = smtp.send("smtp://" .. listener:local_address(), {
      from = "a@example.test", to = "b@example.test, c@example.test",
      attachments = { { content = ("x"):rep(16 * 1024 * 1024) } },
    }, { starttls = "off", timeouts = { block = 0.5 } })
    stop:set()
    listener:close()
    test.fails("timeout", result, err)
    test.equal({ err.retry, err.in_doubt }, { true, nil })
  end,

  ["a server that answers before the end of a message is heard"] = function()
    local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
    cosocket.spawn(function()
      local stream = assert(listener:accept())
      stream:write("220 x\r\n")
      stream:read_line()
      stream:write("250-x\r\n250 PIPELINING\r\n")
      for _ = 1, 4 do stream:read_line() end
      stream:write(GOOD[3], GOOD[4], GOOD[5], GOOD[6])
      stream:read(100000)
      stream:write("552 5.3.4 enough\r\n")
      while stream:read() do end
      stream:close()
    end)
    local result, err = smtp.send("smtp://" .. listener:local_address(), {
      from = "a@example.test", to = "b@example.test, c@example.test",
      attachments = { { content = ("x"):rep(16 * 1024 * 1024) } },
    }, { starttls = "off" })
    listener:close()
    test.fails("refused", result, err)
    test.equal({ err.code, err.status, err.retry }, { 552, "5.3.4", false })
  end,

  starttls = {
    ["words put in before TLS are an attack, in one piece or behind"] = function()
      for _, injected in ipairs({ "250-evil\r\n250 AUTH PLAIN\r\n", "250 x\r\n", "x" }) do
        local replies = { "220 x\r\n", "250-x\r\n250 STARTTLS\r\n", "220 go\r\n" .. injected }
        local client, err = smtp.connect((serve(replies)), { username = "u", password = "never-sent", tls = { ca = server.ca } })
        test.fails("protocol", client, err)
        test.matches(err.message, "before TLS")
      end
    end,

    ["words put in a moment before TLS never count"] = function()
      local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local heard = ""
      cosocket.spawn(function()
        local stream = assert(listener:accept())
        stream:write("220 x\r\n")
        stream:read_line()
        stream:write("250-x\r\n250 STARTTLS\r\n")
        stream:read_line()
        stream:write("220 go\r\n")
        stream:flush()
        cosocket.sleep(0.05)
        stream:write("250-evil\r\n250 AUTH PLAIN\r\n")
        heard = stream:read_all() or ""
        stream:close()
      end)
      local url = "smtp://" .. listener:local_address()
      local client, err = smtp.connect(url, { username = "u", password = "never-sent", timeout = 3, tls = { ca = server.ca } })
      listener:close()
      test.falsy(client)
      assert(err.kind == "tls" or err.kind == "protocol" or err.kind == "closed", tostring(err))
      assert(not heard:find("never%-sent") and not heard:find("AUTH"))
    end,

    ["what a server said before TLS is forgotten"] = function()
      local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local commands = {}
      cosocket.spawn(function()
        local stream = assert(listener:accept())
        stream:write("220 x\r\n")
        stream:read_line()
        stream:write("250-x\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n")
        stream:read_line()
        stream:write("220 go\r\n")
        stream:flush()
        local ok = stream:start_tls({
          server = true,
          certificate = os.getenv("MOONWIRE_SMTP_CERTIFICATE"),
          key = os.getenv("MOONWIRE_SMTP_KEY"),
        })
        if ok then
          commands[1] = stream:read_line()
          stream:write("250 nothing\r\n")
          commands[2] = stream:read_line()
        end
        stream:close()
      end)
      local url = "smtp://localhost:" .. listener:local_address():match("%d+$")
      local client, err = smtp.connect(url, { username = "u", password = "never-sent", tls = { ca = server.ca } })
      listener:close()
      test.fails("refused", client, err)
      test.matches(err.message, "offers none")
      test.matches(commands[1], "^EHLO ")
      test.equal(commands[2], nil)
    end,

    ["a STARTTLS that was taken out is an error, and no password is sent"] = function()
      local replies = { "220 x\r\n", "250-x\r\n250-XXXXXXXA\r\n250 AUTH PLAIN LOGIN\r\n" }
      local url, heard = serve(replies)
      local client, err = smtp.connect(url, { username = "u", password = "never-sent" })
      test.fails("tls", client, err)
      for _, line in ipairs(heard) do assert(not line:find("AUTH")) end
      url, heard = serve(replies)
      client, err = smtp.connect(url, { username = "u", password = "never-sent", starttls = "optional" })
      test.fails("tls", client, err)
      for _, line in ipairs(heard) do assert(not line:find("AUTH")) end
    end,
  },
}
