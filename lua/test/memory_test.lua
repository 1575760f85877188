-- Memory outside of Lua, of which the collector knows nothing: it goes back when its owner ends, not when there happens to
-- be a collection. The collector is stopped meanwhile.
local asker = require("test.http_asker")
local compress = require("compress")
local cosocket = require("cosocket")
local peer = require("test.http_peer")
local session = require("websocket.session")
local test = require("test")

local MIB = 1048576
--- What one owner holds, how many there are one after another, and how much may be left of all in the end.
local HELD, OWNERS, LEFT = 8 * MIB, 32, 48 * MIB

--- Bytes of memory the system has given this process.
local function resident()
  local file = io.open("/proc/self/statm")
  if not file then test.skip("there is no /proc") end
  local pages = file:read("a"):match("^%d+ (%d+)")
  file:close()
  return tonumber(pages) * 4096
end

--- Fails when so many calls of `fn` leave more memory than a few would.
local function gives_back(fn)
  fn(0)
  collectgarbage()
  collectgarbage("stop")
  local _ <close> = setmetatable({}, { __close = function() collectgarbage("restart") end })
  local before = resident()
  for i = 1, OWNERS do fn(i) end
  local left = resident() - before
  test.truthy(left < LEFT, ("%d MiB are left of %d times %d MiB"):format(left // MIB, OWNERS, HELD // MIB))
end

--- A zstd frame whose window is `HELD`, full of one byte.
local function zeros()
  local block = 131072
  local count = HELD // block
  local parts = { "\x28\xB5\x2F\xFD\x00\x68" }
  for i = 1, count do parts[#parts + 1] = string.pack("<I3B", block << 3 | 1 << 1 | (i == count and 1 or 0), 0) end
  return table.concat(parts)
end

--- Decodes `bytes`, all but the last if `cut`.
local function decode(bytes, cut)
  local decoder = compress.decoder("zstd", { ratio_max = 1000000 })
  local input, output, size = cosocket.buffer(cut and bytes:sub(1, -2) or bytes), cosocket.buffer(), 0
  repeat
    local drained, err = decoder:decode(input, output)
    assert(drained ~= nil, err)
    size = size + #output
    output:clear()
  until drained
  -- It holds a window back until more comes than that.
  test.truthy(cut or size == HELD, size)
  return decoder
end

return {
  ["a decoder's goes back with the end of its body"] = function()
    local bytes = zeros()
    gives_back(function() assert(decode(bytes):finish()) end)
  end,

  ["a decoder's goes back when it is closed"] = function()
    local bytes = zeros()
    gives_back(function()
      local decoder = decode(bytes, true)
      decoder:close()
      test.fails("closed", decoder:finish())
    end)
  end,

  ["a response's goes back when it is closed in the middle"] = function()
    local bytes = zeros()
    local server = peer.serve(function() return peer.response(bytes, "Content-Encoding: zstd\r\n") end)
    local client = peer.http.client({ ratio_max = 1000000 })
    gives_back(function()
      local answer = assert(client:get(server.url, { stream = true }))
      assert(answer:read())
      answer:close()
    end)
  end,

  ["a request's goes back when its client ends in the middle"] = function()
    local one = asker.new({ access_log = false })
    local half = ("x"):rep(HELD)
    gives_back(function()
      local client = asker.connect(one)
      client.stream:write(("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"):format(2 * HELD), half)
      client.stream:flush()
      cosocket.sleep(1)
      client.stream:close()
      cosocket.sleep(1)
      test.equal(one:count(), 0)
    end)
  end,

  ["half a message's goes back with its connection"] = function()
    local config = session.config("client", {})
    local part = ("x"):rep(HELD // 64)
    gives_back(function()
      local one = session.new(config, 0)
      local input = cosocket.buffer("\x82\x7F" .. string.pack(">I8", HELD + 1))
      for _ = 1, 64 do
        input:append(part)
        test.equal(one:receive(input, 0), nil)
      end
      one:finish()
    end)
  end,
}
