local cosocket = require("cosocket")
local test = require("test")

return {
  ["a queue"] = {
    ["hands values out in the order they came, false among them"] = function()
      local queue = cosocket.queue(3)
      for _, value in ipairs({ "a", false, 3 }) do test.equal(queue:put(value), true) end
      test.equal(#queue, 3)
      test.equal({ queue:get(), queue:get(), queue:get() }, { "a", false, 3 })
      test.equal(table.pack(queue:try_get()), { n = 1 })
    end,

    ["parks the putter while full and the getter while empty"] = function()
      local queue, log = cosocket.queue(2), {}
      cosocket.spawn(function()
        for i = 1, 5 do
          queue:put(i)
          log[#log + 1] = "put " .. i
        end
      end)
      cosocket.sleep(1)
      test.equal(log, { "put 1", "put 2" })
      for i = 1, 5 do test.equal(queue:get(), i) end
      cosocket.sleep(0)
      test.equal(#log, 5)
      local getter = cosocket.spawn(function() return queue:get() end)
      cosocket.sleep(1)
      test.equal(getter:status(), "waiting")
      queue:put("x")
      test.equal(getter:join(), "x")
    end,

    ["says full to try_put and empty to try_get"] = function()
      local queue = cosocket.queue(1)
      test.equal(queue:try_put(1), true)
      test.matches(test.fails("limit", queue:try_put(2)).message, "capacity is 1")
      test.equal(queue:try_get(), 1)
      test.equal(queue:try_get(), nil)
    end,

    ["serves getters and putters in the order they came"] = function()
      local queue, log = cosocket.queue(1), {}
      for i = 1, 20 do
        cosocket.spawn(function()
          queue:get()
          log[#log + 1] = i
        end)
      end
      cosocket.sleep(0)
      for i = 1, 20 do
        queue:put(i)
        cosocket.sleep(0)
      end
      for i = 1, 20 do test.equal(log[i], i) end
      log = {}
      queue:put("full")
      for i = 1, 20 do cosocket.spawn(function() queue:put(i) end) end
      cosocket.sleep(0)
      test.equal(queue:get(), "full")
      for i = 1, 20 do test.equal(queue:get(), i) end
    end,

    ["closed gives out what it holds, then says closed"] = function()
      local queue = cosocket.queue(2)
      queue:put(1)
      queue:put(2)
      local putter = cosocket.spawn(function() return queue:put(3) end)
      cosocket.sleep(0)
      queue:close()
      test.fails("closed", putter:join())
      test.fails("closed", queue:put(4))
      test.fails("closed", queue:try_put(4))
      test.equal({ queue:get(), queue:try_get() }, { 1, 2 })
      test.fails("closed", queue:get())
      test.fails("closed", queue:try_get())
      queue:close()
    end,

    ["is iterated until it is closed"] = function()
      local queue, seen = cosocket.queue(), {}
      cosocket.spawn(function()
        for i = 1, 5 do
          queue:put(i)
          cosocket.sleep(1)
        end
        queue:close()
      end)
      for value in queue do seen[#seen + 1] = value end
      test.equal(seen, { 1, 2, 3, 4, 5 })
    end,

    ["raises in an iteration when a deadline passes"] = function()
      local queue = cosocket.queue()
      test.fails("timeout", cosocket.deadline(1, function()
        for _ in queue do end
      end))
    end,

    ["loses nothing to a getter that times out"] = function()
      local queue = cosocket.queue()
      test.fails("timeout", cosocket.deadline(1, queue.get, queue))
      queue:put("kept")
      test.equal(queue:get(), "kept")
    end,

    ["loses nothing to a getter that is cancelled while a value is on its way"] = function()
      for round = 1, 4 do
        local queue = cosocket.queue()
        local got
        local getter = cosocket.spawn(function() got = queue:get() end)
        cosocket.sleep(0)
        if round % 2 == 1 then getter:cancel() end
        queue:put("value")
        if round % 2 == 0 then getter:cancel() end
        cosocket.sleep(0)
        test.equal(got or queue:try_get(), "value", ("round %d"):format(round))
      end
    end,

    ["loses nobody who lines up behind one who has just given up"] = function()
      -- The producer's turn comes first: it meets the place of a getter whose time is up but who has not run yet.
      local queue, got = cosocket.queue(), {}
      local consumer
      cosocket.spawn("producer", function()
        cosocket.sleep(1)
        queue:put("first")
        test.equal(queue:get(), "first")
        consumer = cosocket.event()
        got[1] = cosocket.deadline(5, queue.get, queue)
      end)
      cosocket.spawn("impatient", function()
        cosocket.deadline(1, queue.get, queue)
      end)
      cosocket.sleep(2)
      queue:put("second")
      cosocket.sleep(0)
      test.equal(got, { "second" })
    end,

    ["keeps every value once, whoever times out or is cancelled"] = function()
      local random = test.random()
      for _ = 1, 20 do
        local queue = cosocket.queue(random(4))
        local put, got, count = 0, {}, 0
        local tasks = {}
        for _ = 1, 10 do
          tasks[#tasks + 1] = cosocket.spawn(function()
            for _ = 1, 20 do
              local value = cosocket.deadline(random() * 0.1, queue.get, queue)
              if value then
                assert(not got[value], "twice")
                got[value] = true
                count = count + 1
              end
              if random(3) == 1 then cosocket.sleep(random() * 0.1) end
            end
          end)
        end
        for _ = 1, 3 do
          tasks[#tasks + 1] = cosocket.spawn(function()
            for _ = 1, 60 do
              local value = put + 1
              put = value
              local ok = cosocket.deadline(random() * 0.1, queue.put, queue, value)
              if not ok then got[value] = got[value] or "refused" end
              if random(4) == 1 then cosocket.sleep(random() * 0.05) end
            end
          end)
        end
        for _, task in ipairs(tasks) do task:join() end
        for value = 1, put do
          if not got[value] then
            local held = queue:try_get()
            assert(held and not got[held], "a value was lost")
            got[held] = true
          end
        end
        test.equal(#queue, 0)
      end
    end,

    ["wakes 10,000 parked getters when it is closed"] = function()
      local queue, woken = cosocket.queue(), 0
      for _ = 1, 10000 do
        cosocket.spawn(function()
          local value, err = queue:get()
          if value == nil and err.kind == "closed" then woken = woken + 1 end
        end)
      end
      cosocket.sleep(0.1)
      queue:close()
      cosocket.sleep(0.1)
      test.equal(woken, 10000)
    end,

    ["wakes 10,000 parked putters when it is closed"] = function()
      local queue, woken = cosocket.queue(1), 0
      queue:put(0)
      for i = 1, 10000 do
        cosocket.spawn(function()
          local ok, err = queue:put(i)
          if not ok and err.kind == "closed" then woken = woken + 1 end
        end)
      end
      cosocket.sleep(0.1)
      queue:close()
      cosocket.sleep(0.1)
      test.equal(woken, 10000)
    end,

    ["refuses nil and a capacity that is none"] = function()
      test.raises("nil cannot be put into a queue", function() cosocket.queue():put(nil) end)
      for _, capacity in ipairs({ 0, -1, 1.5, "many", false }) do
        local ok, err = pcall(cosocket.queue, capacity)
        assert(not ok and cosocket.is_error(err, "argument"), tostring(err))
      end
    end,

    ["is closed by <close>"] = function()
      local kept
      do
        local queue <close> = cosocket.queue()
        kept = queue
      end
      test.fails("closed", kept:get())
    end,
  },

  ["a semaphore"] = {
    ["lets so many in at once, in the order they came"] = function()
      local semaphore = cosocket.semaphore(2)
      local inside, most, order = 0, 0, {}
      cosocket.group(function()
        for i = 1, 10 do
          cosocket.spawn(function()
            local permit <close> = assert(semaphore:acquire())
            order[#order + 1] = i
            inside = inside + 1
            most = math.max(most, inside)
            cosocket.sleep(1)
            inside = inside - 1
          end)
        end
      end)
      test.equal(most, 2)
      test.equal(order, { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 })
    end,

    ["takes a permit back once"] = function()
      local semaphore = cosocket.semaphore(1)
      local permit = semaphore:acquire()
      permit:release()
      permit:release()
      test.truthy(semaphore:try_acquire())
      test.equal(semaphore:try_acquire(), nil)
    end,

    ["loses no permit to one who times out or is cancelled as it comes"] = function()
      for round = 1, 3 do
        local semaphore = cosocket.semaphore(1)
        local permit = semaphore:acquire()
        local waiter = cosocket.spawn(function()
          local mine <close> = semaphore:acquire()
          cosocket.sleep(100)
        end)
        cosocket.sleep(0)
        if round == 1 then waiter:cancel() end
        permit:release()
        if round == 2 then waiter:cancel() end
        cosocket.sleep(0)
        if round == 3 then waiter:cancel() end
        cosocket.sleep(0)
        test.truthy(semaphore:try_acquire(), ("round %d"):format(round))
      end
      local semaphore = cosocket.semaphore(1)
      local permit = semaphore:acquire()
      test.fails("timeout", cosocket.deadline(1, semaphore.acquire, semaphore))
      permit:release()
      test.truthy(semaphore:try_acquire())
    end,

    ["refuses a number of permits that is none"] = function()
      for _, count in ipairs({ 0, -1, 1.5, "x" }) do
        local ok, err = pcall(cosocket.semaphore, count)
        assert(not ok and cosocket.is_error(err, "argument"), tostring(err))
      end
    end,
  },

  ["an event"] = {
    ["wakes all who wait, and lets those pass who come later"] = function()
      local event, woken = cosocket.event(), 0
      for _ = 1, 10 do
        cosocket.spawn(function()
          assert(event:wait())
          woken = woken + 1
        end)
      end
      cosocket.sleep(1)
      test.equal(woken, 0)
      event:set()
      event:set()
      cosocket.sleep(0)
      test.equal(woken, 10)
      test.equal(event:wait(), true)
      test.equal(event:is_set(), true)
      event:clear()
      test.equal(event:is_set(), false)
      test.fails("timeout", cosocket.deadline(1, event.wait, event))
    end,

    ["set and cleared at once still wakes those who waited"] = function()
      local event = cosocket.event()
      local waiter = cosocket.spawn(function() return event:wait() end)
      cosocket.sleep(0)
      event:set()
      event:clear()
      test.equal(waiter:join(), true)
    end,
  },

  ["select"] = {
    ["answers the first that is ready and its position, and consumes nothing"] = function()
      local queue, event = cosocket.queue(), cosocket.event()
      queue:put("value")
      local ready, index = cosocket.select(event, queue)
      test.equal(index, 2)
      assert(ready == queue)
      test.equal(queue:get(), "value")
      event:set()
      test.equal(select(2, cosocket.select(event, queue)), 1)
    end,

    ["waits for a queue, an event, a task, a stream, a listener and time"] = function()
      local queue, event = cosocket.queue(), cosocket.event()
      local one, other = cosocket.pair()
      local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local task = cosocket.spawn(function() cosocket.sleep(1000) end)
      local starts = {
        function() queue:put(1) end,
        function() event:set() end,
        function()
          other:write("x")
          other:flush()
        end,
        function() assert(cosocket.connect("tcp://" .. listener:local_address())) end,
        function() task:cancel() end,
      }
      local things = { queue, event, one, listener, task }
      for i, start in ipairs(starts) do
        local left = { table.unpack(things, i) }
        cosocket.spawn(function()
          cosocket.sleep(1)
          start()
        end)
        local ready, index = cosocket.select(table.unpack(left))
        test.equal(index, 1, ("thing %d"):format(i))
        assert(ready == things[i])
      end
      local began = cosocket.now()
      local ready, index = cosocket.select(cosocket.queue(), 2.5, 5)
      test.equal({ ready, index }, { 2.5, 2 })
      test.near(cosocket.now() - began, 2.5, 1e-6)
    end,

    ["waits as long as asked, whatever the number"] = function()
      local random = test.random()
      for _ = 1, 300 do
        local time = random() * 3
        local began = cosocket.now()
        test.equal({ cosocket.select(cosocket.event(), time) }, { time, 2 })
        test.near(cosocket.now() - began, time, 1e-6)
      end
    end,

    ["sees a stream that has ended, and a closed queue"] = function()
      local one, other = cosocket.pair()
      cosocket.spawn(function()
        cosocket.sleep(1)
        other:close()
      end)
      test.equal(select(2, cosocket.select(one, 5)), 1)
      test.fails("closed", one:read())
      local queue = cosocket.queue()
      cosocket.spawn(function()
        cosocket.sleep(1)
        queue:close()
      end)
      test.equal(select(2, cosocket.select(queue, 5)), 1)
    end,

    ["leaves the connection and the datagram it has seen to those who take them"] = function()
      local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
      local udp <close> = assert(cosocket.udp({ bind = "127.0.0.1:0" }))
      test.equal(select(2, cosocket.select(listener, udp, 0.01)), 3)
      local near <close> = assert(cosocket.connect("tcp://" .. listener:local_address()))
      near:write("hello")
      near:flush()
      for _ = 1, 3 do test.equal(select(2, cosocket.select(udp, listener, 5)), 2) end
      local far <close> = assert(listener:accept())
      test.equal(far:read(), "hello")
      test.equal(select(2, cosocket.select(listener, 0.01)), 2)
      udp:send_to("datagram", udp:local_address())
      for _ = 1, 3 do test.equal(select(2, cosocket.select(listener, udp, 5)), 2) end
      test.equal((udp:receive()), "datagram")
      test.equal(select(2, cosocket.select(udp, 0.01)), 2)
    end,

    ["leaves a stream to others when it is over"] = function()
      local one, other = cosocket.pair()
      test.equal(select(2, cosocket.select(one, 1)), 2)
      other:write("hello")
      local reader = cosocket.spawn(function() return one:read() end)
      test.equal(reader:join(), "hello")
    end,

    ["tells that another task reads the stream already"] = function()
      local one = cosocket.pair()
      local reader = cosocket.spawn(function() one:read() end)
      cosocket.sleep(0)
      local err = test.fails("io", cosocket.select(cosocket.event(), one))
      test.equal(err.code, "EBUSY")
      reader:cancel()
    end,

    ["answers a timeout when a deadline passes, and ends when cancelled"] = function()
      local event = cosocket.event()
      test.fails("timeout", cosocket.deadline(1, cosocket.select, event, 10))
      local task = cosocket.spawn(cosocket.select, event)
      cosocket.sleep(0)
      task:cancel()
      test.fails("cancelled", task:join())
    end,

    ["refuses what cannot be waited for"] = function()
      test.raises("something to wait for", cosocket.select)
      for _, value in ipairs({ "x", {}, print, false }) do
        local ok, err = pcall(cosocket.select, cosocket.event(), value)
        assert(not ok and cosocket.is_error(err, "argument"), tostring(err))
      end
    end,
  },
}
