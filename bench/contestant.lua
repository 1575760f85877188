-- Our side of the benchmark's contract: the least a script needs for each row.
--
--   moonwire bench/contestant.lua port=P [cert=F key=F]      echo and idle: serve until SIGTERM
--   moonwire bench/contestant.lua hello                      load the network library, print, end
--   moonwire bench/contestant.lua tlshs port=P n=N ver=1.3   N full handshakes, one after another
--   moonwire bench/contestant.lua lines port=P               echo line by line, for pipelined lines
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
  print(('{"n":%d,"secs":%.6f,"bytes":0}'):format(count, cosocket.now() - started))
end

rows[row]()
