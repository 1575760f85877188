-- What devices live through: servers that die in the middle, and many failures at once.
-- trace: none
local cosocket = require("cosocket")
local http = require("http")
local test = require("test")
local web = require("web")

local SIZE = 1 << 30
--- The most memory all of this may take, in KiB.
local PEAK_MAX = 40 * 1024

local OK = "HTTP/1.1 200 OK\r\n"

--- Each way to fail, and the error it has to be.
local FAILURES = {
  { "", "then=stall", "timeout" },
  { "HTTP/1.1 200", "then=stall", "timeout" },
  { OK .. "Content-Length: 100\r\n\r\nhalf", "then=stall", "timeout" },
  { OK .. "Content-Length: 100\r\n\r\nhalf", "then=reset", "closed" },
  { "", "then=reset", "closed" },
  { OK .. "Content-Length: 100\r\n\r\nhalf", "then=close", "closed" },
  { OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhel", "then=close", "closed" },
  { OK .. "Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", "then=stall", "protocol" },
  { OK .. "Content-Length: 99999999999\r\n\r\n", "then=stall", "limit" },
  { OK .. "Content-Length: 2\r\n\r\nhi and much more than that", "then=stall", nil },
}

return {
  ["200 requests at once to a server that stalls, resets, cuts and lies end as they must, and nothing is left"] = function()
    local function round()
      local client = http.client({ connections_max = 300, timeout = 4 })
      local tasks, wrong = {}, {}
      for i = 1, 200 do
        local bytes, how, kind = table.unpack(FAILURES[i % #FAILURES + 1], 1, 3)
        tasks[i] = cosocket.spawn(function()
          local answer, err = client:get(web.odd(bytes, how))
          local got = err and err.kind or (answer.body == "hi" and "hi" or "another body")
          if got ~= (kind or "hi") then wrong[#wrong + 1] = ("%s %s: %s"):format(kind, how, err or got) end
        end)
      end
      for _, task in ipairs(tasks) do task:join() end
      test.equal(wrong, {})
      test.equal({ client:connections() }, { 0, 0 })
      client:close()
    end
    -- The first round makes what is made once.
    round()
    collectgarbage()
    collectgarbage()
    local descriptors, heap = web.descriptors(), collectgarbage("count")
    round()
    collectgarbage()
    collectgarbage()
    -- What was closed may take the loop a moment to let go of.
    local patience = cosocket.now() + 5
    while web.descriptors() > descriptors and cosocket.now() < patience do cosocket.sleep(0.1) end
    test.equal(web.descriptors(), descriptors)
    test.truthy(collectgarbage("count") - heap < 100, ("%.0f KiB are left"):format(collectgarbage("count") - heap))
  end,

  ["1 GiB comes whole from a server that is killed twice"] = function()
    local sum = assert(http.get(web.url("large", "/sum"), { timeout = 120, idle_timeout = 120 })).body
    local path = web.folder .. "/state/download"
    local saved = assert(http.save(web.url("large", "/file"), path, { checksum = "sha256:" .. sum, retry_delay = 0.2, attempts = 20 }))
    os.remove(path)
    test.equal(saved.size, SIZE)
    test.truthy(saved.attempts >= 3 and saved.resumed >= 300 << 20, ("%d attempts, %d resumed"):format(saved.attempts, saved.resumed))
    local peak = web.memory()
    test.truthy(peak < PEAK_MAX, ("a peak of %d KiB"):format(peak))
  end,
}
