-- Our side of the benchmark's contract: the least a script needs for each row.
--
--   moonwire bench/contestant.lua port=P [cert=F key=F]      echo and idle: serve until SIGTERM
--   moonwire bench/contestant.lua hello                      load the network library, print, end
--   moonwire bench/contestant.lua tlshs port=P n=N ver=1.3   N full handshakes, one after another
--   moonwire bench/contestant.lua smtp port=P n=N mode=reuse size=1000    N messages over one connection; mode=new: one each
--   moonwire bench/contestant.lua lines port=P               echo line by line, for pipelined lines
--   moonwire bench/contestant.lua mqttpub port=P qos=Q n=N size=S window=W
--                                                            publish N messages of S bytes, W at a time unacknowledged
--   moonwire bench/contestant.lua mqttsub port=P qos=Q n=N topic=T
--                                                            subscribe to T and receive N messages; timed from the first
--   moonwire bench/contestant.lua mqttidle port=P n=N        connect one MQTT client and, after a line of input, N more;
--                                                            hold them until the next line
--   moonwire bench/contestant.lua wsecho port=P              says WebSocket messages back, for idle ones
--   moonwire bench/contestant.lua ws port=P n=N size=S kind=text|binary window=W
--                                                            N messages of S bytes to a server that says them back, W under way
--   moonwire bench/contestant.lua wsrpcserve port=P          serves the JSON-RPC method `sum`
--   moonwire bench/contestant.lua wsrpc port=P n=N window=W  N calls of `sum` over one connection, W of them under way
--   moonwire bench/contestant.lua http port=P n=N conc=C     N GETs over C connections (url=U for any server)
--   moonwire bench/contestant.lua httpstream port=P          a body of 256 MiB, counted piece by piece
--
-- A client prints one line of JSON: how many, in how many seconds, how many bytes.

local cosocket = require "cosocket"

local row, options = "echo", {}
for _, word in ipairs(arg) do
  local name, value = word:match("^(%w+)=(.*)$")
  if name then options[name] = value else row = word end
end

local function serve(handle)
  local tls = options.cert and { certificate = options.cert, key = options.key }
  local listener = assert(cosocket.listen("127.0.0.1", tonumber(options.port), { tls = tls or nil }))
  while true do cosocket.spawn(handle, assert(listener:accept())) end
end

--- Tells how many there were since `started`, of how many bytes.
local function tell(count, started, bytes)
  print(('{"n":%d,"secs":%.6f,"bytes":%d}'):format(count, cosocket.now() - started, bytes))
end

local rows = {}

function rows.echo()
  serve(function(stream)
    while true do
      local bytes = stream:read()
      if not bytes then break end
      stream:write(bytes)
    end
    stream:close()
  end)
end

function rows.lines()
  serve(function(stream)
    while true do
      local line = stream:read_line()
      if not line then break end
      stream:write(line, "\n")
    end
    stream:close()
  end)
end

function rows.hello()
  print("hello")
end

function rows.tlshs()
  assert(options.ver == "1.3", "only TLS 1.3 can be asked for")
  local count = tonumber(options.n)
  local tls = { insecure = true, server_name = "localhost", min_version = options.ver }
  local started = cosocket.now()
  for _ = 1, count do
    assert(cosocket.connect("127.0.0.1", tonumber(options.port), { tls = tls })):close()
  end
  tell(count, started, 0)
end

function rows.mqttpub()
  local qos, count, size = tonumber(options.qos), tonumber(options.n), tonumber(options.size)
  local client <close> = assert(require "mqtt".connect("mqtt://127.0.0.1:" .. options.port))
  local payload, settings = ("x"):rep(size), { qos = qos }
  local started = cosocket.now()
  if qos == 0 then
    for _ = 1, count do assert(client:publish("bench/t", payload)) end
    client:close()
  else
    local window, tickets = tonumber(options.window), {}
    for i = 1, count + window do
      local oldest = tickets[i % window]
      if oldest then assert(oldest:wait()) end
      tickets[i % window] = i <= count and assert(client:publish_nowait("bench/t", payload, settings))
    end
  end
  tell(count, started, count * size)
end

function rows.mqttsub()
  local qos, count = tonumber(options.qos), tonumber(options.n)
  -- The sink that sends does not count what is unacknowledged.
  local settings = { receive_maximum = 65535 }
  local client <close> = assert(require "mqtt".connect("mqtt://127.0.0.1:" .. options.port, settings))
  assert(client:subscribe(options.topic, { qos = qos }))
  local received, bytes, started = 0, 0, nil
  for message in client:messages(options.topic) do
    started = started or cosocket.now()
    received, bytes = received + 1, bytes + #message.payload
    if received == count then break end
  end
  tell(received, started, bytes)
end

function rows.mqttidle()
  local mqtt, clients = require "mqtt", {}
  for _, more in ipairs({ 1, tonumber(options.n) }) do
    local started = cosocket.now()
    for _ = 1, more do clients[#clients + 1] = assert(mqtt.connect("mqtt://127.0.0.1:" .. options.port)) end
    tell(more, started, 0)
    -- Nothing runs meanwhile: what is measured stays as it is.
    io.read()
  end
end

function rows.smtp()
  local smtp = require "smtp"
  local count = tonumber(options.n)
  local where, plain = ("smtp://127.0.0.1:%s"):format(options.port), { starttls = "off", name = "localhost" }
  local line = ("x"):rep(70) .. "\r\n"
  local body = line:rep(tonumber(options.size) // #line + 1):sub(1, tonumber(options.size) - 2)
  local message = { raw = "From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\n" .. body .. "\r\n" }
  local started
  if options.mode == "reuse" then
    local client = assert(smtp.connect(where, plain))
    started = cosocket.now()
    for _ = 1, count do assert(client:send(message)) end
    started = cosocket.now() - started
    client:close()
  else
    started = cosocket.now()
    for _ = 1, count do assert(smtp.send(where, message, plain)) end
    started = cosocket.now() - started
  end
  print(('{"n":%d,"secs":%.6f,"bytes":0}'):format(count, started))
end

function rows.wsecho()
  assert(require("websocket").listen("ws://127.0.0.1:" .. options.port, function(connection)
    for message, kind in connection:messages() do
      if kind == "text" then
        connection:send(message)
      else
        connection:send_binary(message)
      end
    end
  end, { connections_max = 20000 }))
end

function rows.ws()
  local count, window = tonumber(options.n), tonumber(options.window)
  local message, is_text = ("x"):rep(tonumber(options.size)), options.kind ~= "binary"
  local connection = assert(require("websocket").connect("ws://127.0.0.1:" .. options.port .. "/"))
  local function send()
    assert(is_text and connection:send(message) or not is_text and connection:send_binary(message))
  end
  local started = cosocket.now()
  for _ = 1, window do send() end
  for received = 1, count do
    assert(connection:receive())
    if received + window <= count then send() end
  end
  tell(count, started, count * #message)
  connection:close()
end

function rows.wsrpcserve()
  assert(require("wsrpc").serve("tcp://127.0.0.1:" .. options.port, { sum = function(a, b) return a + b end }))
end

function rows.wsrpc()
  local count, window = tonumber(options.n), tonumber(options.window)
  local peer <close> = assert(require("wsrpc").connect("ws://127.0.0.1:" .. options.port .. "/rpc"))
  local begun = 0
  local started = cosocket.now()
  cosocket.group(function()
    for _ = 1, window do
      cosocket.spawn(function()
        while begun < count do
          begun = begun + 1
          assert(assert(peer:call("sum", { 1, 2 })) == 3)
        end
      end)
    end
  end)
  tell(count, started, 0)
end

--- Another harness names the server by its URL.
local function http_url(path)
  return options.url or ("%s://localhost:%s%s"):format(options.tls and "https" or "http", options.port, path)
end

function rows.http()
  local count, concurrency, url = tonumber(options.n), tonumber(options.conc), http_url("/")
  local client = require("http").client({
    connections_max = concurrency,
    idle_max = concurrency,
    tls = { insecure = true },
  })
  local left, bytes = count, 0
  local function all(work)
    local tasks = {}
    for i = 1, concurrency do tasks[i] = cosocket.spawn(work) end
    for _, task in ipairs(tasks) do task:join() end
  end
  all(function() assert(client:get(url)) end)
  local started = cosocket.now()
  all(function()
    while left > 0 do
      left = left - 1
      local body = assert(client:get(url)).body
      bytes = bytes + #body
    end
  end)
  tell(count, started, bytes)
end

function rows.httpstream()
  local client = require("http").client({ tls = { insecure = true } })
  if options.port then assert(client:get(http_url("/"))) end
  local started, bytes = cosocket.now(), 0
  for piece in assert(client:get(http_url("/stream"), { stream = true })):chunks() do bytes = bytes + #piece end
  tell(bytes, started, bytes)
end

rows[row]()
