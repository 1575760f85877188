-- The tracer itself: which connections it hears, what lines look like, captures; and stacks that are traced for real.
local capture = require("net.trace.capture")
local cosocket = require("cosocket")
local test = require("test")
local trace = require("net.trace")
local tracer = require("net.trace.tracer")
local tracing = require("test.tracing")

--- A tracer that writes into a list.
local function listening(options)
  local lines = {}
  options = options or {}
  options.write = function(line) lines[#lines + 1] = line end
  return assert(tracer.new(options)), lines
end

--- Traces what `fn` does, for real.
local function traced(options, fn)
  local lines, attach = {}, trace.attach
  options.write = function(line) lines[#lines + 1] = line end
  local restore <close> = setmetatable({}, {
    __close = function()
      local tap = require("cosocket.tap")
      tap.listen(nil)
      tap.everything(false, false)
      trace.attach = attach
    end,
  })
  assert(trace.start(options))
  fn()
  -- What was heard is told when a task parks.
  cosocket.sleep(1)
  return lines
end

--- The packets of a capture, whole, with time and comment.
local function whole_packets(bytes)
  local found, at = {}, 1
  while at <= #bytes do
    local kind, size = string.unpack("<I4I4", bytes, at)
    if kind == 6 then
      local _, high, low, captured = string.unpack("<I4I4I4I4", bytes, at + 8)
      local rest = bytes:sub(at + 28 + captured + -captured % 4, at + size - 5)
      found[#found + 1] = {
        all = bytes:sub(at + 28, at + 27 + captured),
        micros = high << 32 | low,
        comment = #rest > 0 and rest:sub(5, 4 + string.unpack("<I2", rest, 3)) or nil,
      }
    end
    test.equal(string.unpack("<I4", bytes, at + size - 4), size)
    at = at + size
  end
  return found
end

--- The packets of a capture of connections: direction by ports, flags, bytes, comment.
local function packets(bytes)
  local found = whole_packets(bytes)
  for _, packet in ipairs(found) do
    local head = packet.all:byte() >> 4 == 6 and 40 or 20
    local from, to, seq, ack, _, flags = string.unpack(">I2I2I4I4BB", packet.all, head + 1)
    packet.from, packet.to, packet.seq, packet.ack, packet.flags = from, to, seq, ack, flags
    packet.bytes, packet.ip = packet.all:sub(head + 21), packet.all:sub(1, head)
  end
  return found
end

--- A file in memory.
local function paper()
  local parts = {}
  return {
    write = function(_, ...)
      for _, part in ipairs({ ... }) do parts[#parts + 1] = part end
    end,
    flush = function() end,
  }, parts
end

return {
  ["a line has its time, its connection, its direction and its protocol"] = function()
    local one, lines = listening({ time = "elapsed" })
    one:hear(1, "opened", "127.0.0.1:5000", "127.0.0.1:25")
    one:hear(1, "secured", "TLS 1.3, X")
    one:hear(1, "spoken", "smtp", "client")
    cosocket.sleep(1.5)
    one:hear(1, "received", "220 hi\r\n")
    one:hear(1, "ended")
    one:hear(1, "failed", "Connection reset")
    one:hear(1, "closed")
    test.equal(lines, {
      "0.000000 #1 * smtp to 127.0.0.1:25, TLS 1.3, X",
      "1.500000 #1 < smtp 220 hi",
      "1.500000 #1 * the other side ended",
      "1.500000 #1 * failed: Connection reset",
      "1.500000 #1 * closed",
    })
  end,

  ["a clock is that of the day"] = function()
    local one, lines = listening({ time = "clock" })
    one:hear(1, "opened", "", "")
    one:hear(1, "spoken", "smtp", "server")
    test.matches(lines[1], "^%d%d:%d%d:%d%d%.%d%d%d #1 %* smtp from nowhere$")
  end,

  ["without times, nothing in a line is another in each run"] = function()
    local one, lines = listening({ time = "none" })
    one:hear(7, "opened", "127.0.0.1:80", "127.0.0.1:51234")
    one:hear(7, "spoken", "http", "server")
    test.equal(lines, { "#1 * http from 127.0.0.1 at 127.0.0.1:80" })
  end,

  ["TLS that comes later is told of"] = function()
    local one, lines = listening({ time = "none" })
    one:hear(1, "opened", "", "127.0.0.1:25")
    one:hear(1, "spoken", "smtp", "client")
    one:hear(1, "secured", "TLS 1.2, Y")
    test.equal(lines, { "#1 * smtp to 127.0.0.1:25", "#1 * TLS 1.2, Y" })
  end,

  ["connections are counted as they are shown"] = function()
    local one, lines = listening({ time = "none", protocols = "smtp" })
    for id, protocol in ipairs({ "http", "smtp", "mqtt", "smtp" }) do
      one:hear(id, "opened", "", "")
      one:hear(id, "spoken", protocol, "client")
      one:hear(id, "closed")
    end
    test.equal(lines, { "#1 * smtp to nowhere", "#1 * closed", "#2 * smtp to nowhere", "#2 * closed" })
    one:reset()
    one:hear(9, "received", "of before")
    one:hear(10, "opened", "", "")
    one:hear(10, "spoken", "smtp", "client")
    test.equal(lines[5], "#1 * smtp to nowhere")
  end,

  ["faint colours are for terminals"] = function()
    local one, lines = listening({ time = "none", colour = true })
    one:hear(1, "opened", "", "")
    one:hear(1, "spoken", "smtp", "client")
    one:hear(1, "sent", "NOOP\r\n")
    test.equal(lines, { "\27[2m#1 * smtp to nowhere\27[0m", "\27[2m#1 > \27[0msmtp NOOP" })
  end,

  ["what is wanted must be something that is decoded"] = function()
    test.raises('"nonsense" is no protocol that is decoded here', trace.start, { protocols = "mqtt,nonsense" })
    test.raises('"%.%./x" is no protocol', trace.start, { protocols = "../x" })
    test.raises("protocols names nothing", trace.start, { protocols = "," })
    test.raises("time must be", trace.start, { time = "later" })
    test.raises('"bytes" must not be negative', trace.start, { bytes = -1 })
    test.raises("bytes must be from 0 to", trace.start, { bytes = 1 << 40 })
    test.raises("unknown option", trace.start, { byte = 1 })
    local _, err = trace.start({ file = "/nowhere/at/all" })
    test.equal(test.fails("io", nil, err).code, "ENOENT")
  end,

  ["a connection that nobody names is dumped, without what looks like a secret"] = function()
    local one, lines = listening({ time = "none", bytes = 48 })
    one:hear(1, "opened", "", "127.0.0.1:9")
    one:hear(1, "sent", "password=geheim\r\nAUTH PLAIN abcd\r\n")
    test.equal(lines, {
      "#1 * tcp to 127.0.0.1:9",
      "#1 > tcp 0000  70 61 73 73 77 6f 72 64 3d 2a 2a 2a 2a 2a 2a 0d  |password=******.|",
      "#1 > tcp 0010  0a 41 55 54 48 20 50 4c 41 49 4e 20 2a 2a 2a 2a  |.AUTH PLAIN ****|",
      "#1 > tcp 0020  0d 0a                                            |..|",
    })
  end,

  ["a decoder that fails is told of, and what it was at is not shown"] = function()
    package.loaded["trace.broken"] = {
      follow = function(lane)
        if lane:need(3) then error("oops", 0) end
      end,
    }
    local lines, captured = tracing.hear("broken", "client", { { ">", "s3cret" }, { ">", "more" } })
    package.loaded["trace.broken"] = nil
    test.equal(lines, {
      "#1 > broken the decoder failed: oops",
      "#1 > broken 0000  6d 6f 72 65                                      |more|",
    })
    test.equal(captured.sent, "******more")
  end,

  ["a decoder that waits for what does not come is given up"] = function()
    package.loaded["trace.patient"] = {
      follow = function(lane) lane:wait(function() return false end) end,
    }
    local lines = tracing.hear("patient", "client", { { ">", ("x"):rep(1100000) } }, { cut = 65536, bytes = 0 })
    package.loaded["trace.patient"] = nil
    test.matches(lines[1], "wait for what does not come; the rest is not decoded$")
  end,

  ["a capture is TCP around what was said"] = function()
    local out, parts = paper()
    local made = capture.new(out, "pcapng")
    local connection = { side = "client", number = 1, port = 1883, local_address = "10.0.0.1:5000", peer_address = "10.0.0.2:8883", tls = "TLS 1.3, X" }
    made:bytes(connection, "sent", "hello", 1700000000.25)
    made:bytes(connection, "received", ("y"):rep(40000), 1700000000.5)
    made:close(connection, 1700000001)
    local found = packets(table.concat(parts))
    local flags, sizes = {}, {}
    for i, packet in ipairs(found) do
      flags[i], sizes[i] = packet.flags, #packet.bytes
    end
    test.equal(flags, { 0x02, 0x12, 0x10, 0x18, 0x18, 0x18, 0x11, 0x11, 0x10 })
    test.equal(sizes, { 0, 0, 0, 5, 32768, 7232, 0, 0, 0 })
    test.equal({ found[1].from, found[1].to, found[1].micros }, { 5000, 1883, 1700000000250000 })
    test.equal(found[1].comment, "connection #1, in truth port 8883, under TLS 1.3, X")
    test.equal({ found[4].seq, found[4].ack, found[4].bytes }, { 1, 1, "hello" })
    test.equal({ found[6].seq, found[6].ack }, { 1 + 32768, 6 })
    -- RFC 791: the sum over a header with its checksum is all ones.
    local sum = 0
    for at = 1, 20, 2 do sum = sum + string.unpack(">I2", found[4].ip, at) end
    test.equal((sum & 0xFFFF) + (sum >> 16), 0xFFFF)
  end,

  ["what follows STARTTLS is a connection of its own in the capture"] = function()
    local out, parts = paper()
    local made = capture.new(out, "pcapng")
    local connection = { side = "client", number = 1, port = 25, local_address = "10.0.0.1:5000", peer_address = "10.0.0.2:587" }
    made:part(connection, 1)
    made:bytes(connection, "sent", "STARTTLS", 1)
    connection.tls = "TLS 1.3, X"
    made:part(connection, 2)
    made:bytes(connection, "sent", "EHLO", 3)
    made:close(connection, 4)
    local said = {}
    for _, packet in ipairs(packets(table.concat(parts))) do
      if packet.flags == 0x02 or #packet.bytes > 0 then said[#said + 1] = { packet.from, packet.bytes, packet.comment or "" } end
    end
    test.equal(said, {
      { 5000, "", "connection #1, in truth port 587" },
      { 5000, "STARTTLS", "" },
      { 5001, "", "connection #1, in truth port 587, in truth from port 5000, under TLS 1.3, X" },
      { 5001, "EHLO", "" },
    })
  end,

  ["both ends of a connection in one process are two connections in the capture"] = function()
    local out, parts = paper()
    local made = capture.new(out, "pcapng")
    local client = { side = "client", number = 1, port = 80, local_address = "[::1]:5000", peer_address = "[::1]:8080" }
    local server = { side = "server", number = 2, port = 80, local_address = "[::1]:8080", peer_address = "[::1]:5000" }
    made:bytes(client, "sent", "a", 1)
    made:bytes(server, "received", "a", 1)
    local found = packets(table.concat(parts))
    test.equal({ found[1].from, found[1].to, found[5].from, found[5].to }, { 5000, 80, 5001, 80 })
    test.equal(found[5].comment, "connection #2, in truth port 8080, in truth from port 5000")
    test.equal(found[1].ip:sub(9), ("\0"):rep(15) .. "\1" .. ("\0"):rep(15) .. "\1")
  end,

  ["only what was asked for is heard, and what it may run within"] = function()
    for protocols, wanted in pairs({
      smtp = "smtp",
      socks5 = "socks5",
      http = "http",
      udp = "udp",
      websocket = "http websocket",
      mqtt = "http mqtt websocket",
      wsrpc = "http websocket wsrpc",
      ["smtp,mqtt"] = "http mqtt smtp websocket",
      tcp = "http mqtt smtp socks5 tcp udp websocket wsrpc",
      all = "http mqtt smtp socks5 tcp udp websocket wsrpc",
    }) do
      local one, wants = assert(tracer.new({ protocols = protocols, write = function() end })), {}
      for _, name in ipairs({ "http", "mqtt", "smtp", "socks5", "tcp", "udp", "websocket", "wsrpc" }) do
        if one:wants(name) then wants[#wants + 1] = name end
      end
      test.equal(table.concat(wants, " "), wanted, protocols)
    end
    local streams, datagrams = assert(tracer.new({ protocols = "udp", write = function() end })):wants_everything()
    test.equal({ streams, datagrams }, { false, true })
  end,

  ["a protocol of one's own is looked for within others"] = function()
    package.loaded["trace.echo"] = { follow = function() end }
    test.truthy(assert(tracer.new({ protocols = "echo", write = function() end })):wants("http"))
    package.loaded["trace.echo"] = nil
  end,

  ["what follows what was asked for is not decoded"] = function()
    local websocket, decoded = require("trace.websocket"), 0
    package.loaded["trace.websocket"] = {
      carries = true,
      follow = function(lane)
        decoded = decoded + 1
        return websocket.follow(lane)
      end,
    }
    local restore <close> = setmetatable({}, { __close = function() package.loaded["trace.websocket"] = websocket end })
    for protocols, times in pairs({ http = 0, ["http,websocket"] = 2 }) do
      decoded = 0
      local one, lines = listening({ time = "none", protocols = protocols })
      one:hear(1, "opened", "", "")
      one:hear(1, "spoken", "http", "client")
      one:hear(1, "sent", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
      one:hear(1, "received", "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\2hi")
      one:hear(1, "sent", "\x81\2hi")
      one:hear(1, "closed")
      test.equal(decoded, times)
      local last = times == 0 and { "#1 < http Connection: upgrade", "#1 * closed" } or { '#1 > websocket text 2 bytes fin "hi"', "#1 * closed" }
      test.equal({ lines[#lines - 1], lines[#lines] }, last)
    end
  end,

  ["what a stream speaks after what is shown is not shown as that"] = function()
    local lines = traced({ protocols = "socks5", time = "none" }, function()
      local one, other = assert(cosocket.pair())
      trace.attach(one, "socks5", "client")
      one:write("\5\1\0")
      other:write("\5\0")
      one:read(2)
      one:write("\5\1\0\1\127\0\0\1\0\25")
      other:write("\5\0\0\1\127\0\0\1\0\25")
      one:read(10)
      trace.attach(one, "smtp", "client")
      other:read(13)
      one:write("AUTH PLAIN s3cret\r\n")
      other:read_line()
      one:close()
      other:close()
    end)
    test.equal(lines[#lines - 1], "#1 < socks5 reply 0 127.0.0.1:25")
    test.falsy(table.concat(lines):find("AUTH", 1, true))
  end,

  ["datagrams are lines with their addresses, without what looks like a secret"] = function()
    local one, lines = listening({ time = "none", bytes = 32, protocols = "udp" })
    one:hear(1, "opened", "0.0.0.0:5000", "")
    one:hear(1, "received", "token=abc", "10.0.0.2:40000")
    one:hear(1, "sent", "", "10.0.0.2:40000")
    one:hear(1, "closed")
    one:hear(2, "opened", "10.0.0.1:4000", "10.0.0.2:53")
    one:hear(2, "sent", ("x"):rep(40), "10.0.0.2:53")
    one:hear(3, "opened", "10.0.0.1:4000", "10.0.0.2:53")
    one:hear(3, "closed")
    test.equal(lines, {
      "#1 * udp at 0.0.0.0",
      "#1 < udp 9 bytes from 10.0.0.2",
      "#1 < udp 0000  74 6f 6b 65 6e 3d 2a 2a 2a                       |token=***|",
      "#1 > udp 0 bytes to 10.0.0.2",
      "#1 * closed",
      "#2 * udp to 10.0.0.2:53",
      "#2 > udp 40 bytes to 10.0.0.2:53",
      "#2 > udp 0000  78 78 78 78 78 78 78 78 78 78 78 78 78 78 78 78  |xxxxxxxxxxxxxxxx|",
      "#2 > udp 0010  78 78 78 78 78 78 78 78 78 78 78 78 78 78 78 78  |xxxxxxxxxxxxxxxx|",
      "#2 > udp ... 8 bytes more",
    })
    one, lines = listening({ time = "elapsed", protocols = "udp" })
    one:hear(1, "opened", "0.0.0.0:5000", "")
    one:hear(1, "received", "", "10.0.0.2:40000")
    test.equal(lines, { "0.000000 #1 * udp at 0.0.0.0:5000", "0.000000 #1 < udp 0 bytes from 10.0.0.2:40000" })
  end,

  ["datagrams are no connections in the capture"] = function()
    local out, parts = paper()
    local made = capture.new(out, "pcapng")
    local four = { side = "client", number = 1, local_address = "0.0.0.0:5000", peer_address = "" }
    local six = { side = "client", number = 2, local_address = "[::]:5001", peer_address = "" }
    made:datagram(four, "sent", "hello", "10.0.0.2:53", 1700000000.25)
    made:datagram(four, "received", "", "127.0.0.1:53", 1700000000.25)
    made:datagram(six, "sent", "odd", "[::1]:53", 1700000000.25)
    made:datagram(six, "received", "even", "[fe80::1%2]:53", 1700000000.25)
    made:close(four, 1)
    local found = whole_packets(table.concat(parts))
    test.equal(#found, 4)
    test.equal({ string.unpack(">I2I2I2I2", found[1].all, 21) }, { 5000, 53, 13, 0, 29 })
    test.equal(found[1].all:sub(13, 20), "\0\0\0\0\10\0\0\2")
    test.equal(found[1].all:sub(29), "hello")
    test.equal(found[1].comment, "socket #1")
    test.equal(found[2].comment, nil)
    test.equal(found[2].all:sub(13), "\127\0\0\1\127\0\0\1" .. string.pack(">I2I2I2I2", 53, 5000, 8, 0))
    for i, bytes in pairs({ [3] = "odd", [4] = "even" }) do
      local all = found[i].all
      test.equal(all:byte(7), 17)
      -- RFC 8200, 8.1: the sum over the pseudo-header and the packet is all ones.
      local summed, sum = all:sub(9, 40) .. string.pack(">I4I4", #bytes + 8, 17) .. all:sub(41) .. (#bytes % 2 == 1 and "\0" or ""), 0
      for at = 1, #summed, 2 do sum = sum + string.unpack(">I2", summed, at) end
      while sum > 0xFFFF do sum = (sum & 0xFFFF) + (sum >> 16) end
      test.equal(sum, 0xFFFF)
    end
    test.equal(found[3].all:sub(9, 24), ("\0"):rep(15) .. "\1")
    test.equal(found[4].all:sub(9, 12), "\xfe\x80\0\0")
  end,

  ["sockets of datagrams are heard when datagrams are wanted"] = function()
    local function talk()
      local one <close> = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      local other <close> = assert(cosocket.udp({ connect = one:local_address() }))
      other:send("hi")
      local _, from = one:receive()
      one:send_to("password=s3cret", from)
      other:receive()
    end
    local lines = traced({ protocols = "udp", time = "none", bytes = 0 }, talk)
    for i, line in ipairs(lines) do lines[i] = line:gsub("0%.0%.1:%d+", "0.0.1:N") end
    test.equal(lines, {
      "#1 * udp to 127.0.0.1:N",
      "#1 > udp 2 bytes to 127.0.0.1:N",
      "#1 > udp ... 2 bytes more",
      "#2 * udp at 127.0.0.1",
      "#2 < udp 2 bytes from 127.0.0.1",
      "#2 < udp ... 2 bytes more",
      "#2 > udp 15 bytes to 127.0.0.1",
      "#2 > udp ... 15 bytes more",
      "#1 < udp 15 bytes from 127.0.0.1:N",
      "#1 < udp ... 15 bytes more",
      "#1 * closed",
      "#2 * closed",
    })
    test.equal(traced({ protocols = "smtp", time = "none" }, talk), {})
    -- One that is opened before can be named.
    lines = traced({ protocols = "smtp,udp", time = "none", bytes = 0 }, function()
      require("cosocket.tap").everything(false, false)
      local one <close> = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      trace.attach(one, "udp")
      one:send_to("hi", one:local_address())
      one:receive()
    end)
    test.equal(#lines, 6)
  end,

  ["streams of the system are heard, and others are left alone"] = function()
    local lines = traced({ protocols = "smtp", time = "none" }, function()
      local one, other = assert(cosocket.pair())
      trace.attach(one, "smtp", "client")
      trace.attach({}, "smtp", "client")
      one:write("NOOP\r\n")
      test.equal(other:read_line(), "NOOP")
      other:write("250 ok\r\n")
      test.equal(one:read_line(), "250 ok")
      one:close()
      other:close()
    end)
    test.equal(lines, { "#1 * smtp to nowhere", "#1 > smtp NOOP", "#1 < smtp 250 ok", "#1 * closed" })
  end,

  ["with tcp every stream is heard, from its first byte"] = function()
    local lines = traced({ protocols = "tcp", time = "none" }, function()
      local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local one <close> = assert(cosocket.connect("tcp://" .. listener:local_address()))
      local other <close> = assert(listener:accept())
      one:write("hi")
      test.equal(other:read(2), "hi")
    end)
    local said = {}
    for _, line in ipairs(lines) do
      if line:find("68 69", 1, true) then said[#said + 1] = line:sub(1, 11) end
    end
    test.equal(said, { "#1 > tcp 00", "#2 < tcp 00" })
  end,
}
