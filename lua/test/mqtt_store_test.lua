-- The journal of a session: what was committed is there again, whatever happened in between.
local cosocket = require("cosocket")
local sqlite = require("sqlite")
local store = require("mqtt.store")
local test = require("test")

--- A path that nothing is at; gone with its companions when the block ends.
local function new_path()
  local path = os.tmpname()
  os.remove(path)
  return setmetatable({ name = path }, {
    __close = function()
      for _, suffix in ipairs({ "", "-wal", "-shm" }) do os.remove(path .. suffix) end
    end,
  })
end

local function bytes_of(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("a")
  file:close()
  return bytes
end

local function write(path, bytes)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(bytes))
end

local function entry(seq, fields)
  local made = { seq = seq, topic = "t/" .. seq, payload = "payload " .. seq, qos = 1, retain = false }
  for name, value in pairs(fields or {}) do made[name] = value end
  return made
end

--- What a journal at `path` holds.
local function kept_at(path)
  local journal <close> = setmetatable({ it = assert(store.open(path)) }, { __close = function(self) self.it:close() end })
  return journal.it:load(), journal.it
end

--- A stand-in for a database: answers as told, and keeps what it was asked.
local function scripted(journal)
  local real, script = journal.db, { asked = {}, answers = {} }
  journal.db = setmetatable({
    transaction = function(_, statements)
      script.asked[#script.asked + 1] = statements
      local answer = table.remove(script.answers, 1)
      if answer then return answer(real, statements) end
      return real:transaction(statements)
    end,
  }, { __close = function() real:close() end })
  return script
end

local function failing()
  return nil, cosocket.error("io", "sqlite:transaction", "no room", { code = "SQLITE_FULL" })
end

return {
  ["a new journal is empty, clean and nobody's"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    test.equal({ journal.client_id, journal.last_seq, journal:is_clean() }, { nil, 0, true })
    test.equal(journal:load(), { outgoing = {}, received = {} })
    test.raises("has handed over", journal.load, journal)
    test.equal(journal:commit(), true)
    local listing <close> = assert(io.popen("ls -l " .. path.name))
    test.matches(listing:read("l"), "^%-rw%-%-%-%-%-%-%-", "its owner's only")
    journal:close()
  end,

  ["every field of a message comes back, binary ones and properties in order among them"] = function()
    local path <close> = new_path()
    local every_byte = {}
    for i = 0, 255 do every_byte[#every_byte + 1] = string.char(i) end
    every_byte = table.concat(every_byte)
    local entries = {
      entry(1, { qos = 1, retain = true, expires_at = 1790000000.25 }),
      entry(2, { qos = 2, payload = every_byte, packet_id = 65535 }),
      entry(3, { qos = 2, payload = "", topic = "caf\u{e9}/\u{1F600}", expires_at = 1790000000 }),
      entry(4, { qos = 1, payload = "12", properties = {
        payload_format_indicator = 1, message_expiry_interval = 4294967295, content_type = "text/plain",
        response_topic = "r", correlation_data = every_byte, request_problem_information = true, topic_alias = 0,
        retain_available = false, subscription_identifier = { 1, 268435455 },
        user_property = { { "b", "1" }, { "a", "2" }, { "b", "1" }, { "", "" } },
      } }),
    }
    local journal = assert(store.open(path.name))
    for _, one in ipairs(entries) do journal:add(one) end
    test.equal(journal.last_seq, 4)
    test.equal(journal:is_clean(), false)
    assert(journal:commit())
    test.equal(journal:is_clean(), true)
    journal:close()
    local kept = kept_at(path.name)
    for i, one in ipairs(entries) do
      one.state = "waiting"
      test.equal(kept.outgoing[i], one)
    end
    test.equal(#kept.outgoing, 4)
  end,

  ["where each message stood is where it stands"] = function()
    for _, each in ipairs({ false, true }) do
      local path <close> = new_path()
      local journal = assert(store.open(path.name))
      -- All in one commit, or one after every note.
      local function step(method, ...)
        journal[method](journal, ...)
        if each then assert(journal:commit()) end
      end
      for seq = 1, 6 do step("add", entry(seq, { qos = 2, properties = { content_type = "x" } })) end
      step("sent", 2, 20)
      step("sent", 3, 30)
      step("released", 3)
      step("sent", 4, 40)
      step("unsent", 4)
      step("sent", 5, 50)
      step("remove", 5)
      step("remove", 6)
      for _, id in ipairs({ 7, 8, 9, 65535 }) do step("received", id) end
      step("forget", 8)
      step("forget", 1000)
      step("identify", "device 1")
      assert(journal:commit())
      journal:close()
      local kept, again = kept_at(path.name)
      local seen = {}
      for i, one in ipairs(kept.outgoing) do
        seen[i] = { one.seq, one.state, one.packet_id or "none", one.payload, one.properties and "properties" or "none" }
      end
      test.equal(seen, {
        { 1, "waiting", "none", "payload 1", "properties" },
        { 2, "sent", 20, "payload 2", "properties" },
        { 3, "released", 30, "", "none" },
        { 4, "waiting", "none", "payload 4", "properties" },
      })
      test.equal(kept.received, { 7, 9, 65535 })
      test.equal({ again.client_id, again.last_seq }, { "device 1", 4 })
    end
  end,

  ["what is noted and taken back before a commit costs nothing on the disk"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    local script = scripted(journal)
    for seq = 1, 100 do
      journal:add(entry(seq))
      journal:sent(seq, seq)
      journal:received(seq)
      journal:forget(seq)
      journal:remove(seq)
      test.equal(journal:is_clean(), true)
    end
    journal:received(1)
    journal:forget_received()
    test.equal(journal:is_clean(), true)
    test.equal(journal:commit(), true)
    test.equal(#script.asked, 0)
    test.equal(journal.last_seq, 100)
    -- Several notes about one message are one statement.
    journal:add(entry(101, { qos = 2 }))
    journal:sent(101, 1)
    journal:released(101)
    assert(journal:commit())
    test.equal(#script.asked[1], 1)
    journal:identify("a")
    assert(journal:commit())
    journal:identify("a")
    test.equal(journal:is_clean(), true, "nothing new")
    journal:close()
  end,

  ["received identifiers are forgotten all at once, and new ones kept"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    for id = 1, 1000 do journal:received(id) end
    assert(journal:commit())
    journal:forget_received()
    journal:received(500)
    journal:received(2000)
    journal:forget(2000)
    assert(journal:commit())
    journal:close()
    test.equal(kept_at(path.name).received, { 500 })
  end,

  ["commits that are asked for while one is under way share the next"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    local script = scripted(journal)
    local gate = cosocket.event()
    script.answers[1] = function(real, statements)
      gate:wait()
      return real:transaction(statements)
    end
    local tasks = {}
    for seq = 1, 50 do
      tasks[seq] = cosocket.spawn(function()
        journal:add(entry(seq))
        return journal:commit()
      end)
    end
    cosocket.sleep(1)
    test.equal(#script.asked, 1)
    test.equal(journal:is_clean(), false)
    gate:set()
    for _, task in ipairs(tasks) do test.equal(task:join(), true) end
    test.equal(#script.asked, 2)
    test.equal(#script.asked[1] + #script.asked[2], 50)
    test.equal(journal:is_clean(), true)
    journal:close()
    test.equal(#kept_at(path.name).outgoing, 50)
  end,

  ["after a failure everything noted stays noted, and what has changed meanwhile counts"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    for seq = 1, 3 do journal:add(entry(seq, { qos = 2 })) end
    journal:received(1)
    journal:received(2)
    assert(journal:commit())
    local script = scripted(journal)
    -- During the commit that fails, and after it.
    script.answers[1] = function()
      journal:sent(4, 40)
      journal:sent(5, 50)
      journal:remove(6)
      journal:released(2)
      journal:forget(3)
      return failing()
    end
    journal:identify("me")
    for seq = 4, 8 do journal:add(entry(seq)) end
    journal:sent(2, 20)
    journal:remove(3)
    journal:forget(1)
    journal:received(3)
    journal:received(4)
    local ok, err = journal:commit()
    test.fails("io", ok, err)
    test.equal({ err.op, err.code }, { "mqtt.store", "SQLITE_FULL" })
    test.equal(journal:is_clean(), false)
    journal:remove(7)
    journal:unsent(5)
    test.equal(journal:commit(), true)
    test.equal(journal:is_clean(), true)
    journal:close()
    local kept, again = kept_at(path.name)
    local seen = {}
    for i, one in ipairs(kept.outgoing) do seen[i] = { one.seq, one.state, one.packet_id or "none" } end
    test.equal(seen, {
      { 1, "waiting", "none" }, { 2, "released", 20 }, { 4, "sent", 40 }, { 5, "waiting", "none" },
      { 8, "waiting", "none" },
    })
    test.equal(kept.received, { 2, 4 })
    test.equal(again.client_id, "me")
  end,

  ["a failure is told to everybody who waited for that commit, and a deadline to its task alone"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    local script = scripted(journal)
    local gate = cosocket.event()
    local function commit(seq)
      return cosocket.spawn(function()
        journal:add(entry(seq))
        return journal:commit()
      end)
    end
    script.answers[1] = function()
      gate:wait()
      return failing()
    end
    journal:add(entry(1))
    local first, second = cosocket.spawn(journal.commit, journal), cosocket.spawn(journal.commit, journal)
    cosocket.sleep(1)
    gate:set()
    for _, task in ipairs({ first, second }) do
      test.fails("io", task:join())
    end
    script.answers[1] = function() return nil, cosocket.error("timeout", "sqlite:transaction", "late") end
    first, second = commit(2), commit(3)
    test.fails("timeout", first:join())
    test.equal(second:join(), true, "it has tried by itself")
    journal:close()
    test.equal(#kept_at(path.name).outgoing, 3)
  end,

  ["a task that is cancelled in its commit takes nothing with it"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    for seq = 1, 60, 2 do
      local first = cosocket.spawn(function()
        journal:add(entry(seq))
        journal:commit()
      end)
      local second = cosocket.spawn(function()
        journal:add(entry(seq + 1))
        return journal:commit()
      end)
      cosocket.sleep(0)
      first:cancel()
      test.equal(second:join(), true)
      test.equal(journal:is_clean(), true)
      -- Removed, whether or not the commit that was given up has happened.
      if seq % 4 == 1 then journal:remove(seq) end
    end
    assert(journal:commit())
    journal:close()
    local kept = kept_at(path.name).outgoing
    test.equal(#kept, 45)
    for _, one in ipairs(kept) do test.not_equal(one.seq % 4, 1) end
  end,

  ["the client identifier must be that of the file"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name, "one"))
    test.equal(journal.client_id, nil, "a new file knows none")
    journal:identify("one")
    assert(journal:commit())
    journal:close()
    local value, err = store.open(path.name, "other")
    test.fails("io", value, err)
    test.equal({ err.op, err.code }, { "mqtt.store", "other_client_id" })
    test.matches(err.message, 'holds the session of client "one", not of "other": use that client_id')
    for _, id in ipairs({ false, "one" }) do
      journal = assert(store.open(path.name, id or nil))
      test.equal(journal.client_id, "one")
      journal:close()
    end
  end,

  ["one journal has the file at a time"] = function()
    local path <close> = new_path()
    local first = assert(store.open(path.name))
    local value, err = store.open(path.name)
    test.fails("io", value, err)
    test.equal({ err.op, err.code }, { "mqtt.store", "SQLITE_BUSY" })
    test.matches(err.message, "is in use")
    first:close()
    assert(store.open(path.name)):close()
  end,

  ["closing lets go of the file also where nothing can wait"] = function()
    local path <close> = new_path()
    local journal
    local task = cosocket.spawn(function()
      local guard <close> = setmetatable({}, { __close = function() journal:close() end })
      journal = assert(store.open(path.name))
      cosocket.sleep(1000)
    end)
    cosocket.sleep(1)
    task:cancel()
    cosocket.sleep(0)
    journal:add(entry(1))
    test.fails("closed", journal:commit())
    assert(store.open(path.name)):close()
  end,

  ["files that are not ours, damaged, newer or cut are refused and left as they are"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    for seq = 1, 500 do journal:add(entry(seq, { payload = ("x"):rep(100) })) end
    assert(journal:commit())
    journal:close()
    local whole = bytes_of(path.name)
    local function refused(bytes, code)
      write(path.name, bytes)
      local value, err = store.open(path.name)
      test.equal(value and "opened" or err.code, code)
      test.equal(err.op, "mqtt.store")
      test.equal(bytes_of(path.name) == bytes, true, "the file is as it was")
    end
    refused(("# not a store\n"):rep(100), "SQLITE_NOTADB")
    for _, size in ipairs({ 100, 4096, 4097, #whole // 2, #whole - 1 }) do
      refused(whole:sub(1, size), "SQLITE_CORRUPT")
    end
    for page = 1, #whole // 4096 - 1 do
      refused(whole:sub(1, page * 4096) .. ("\x55"):rep(4096) .. whole:sub((page + 1) * 4096 + 1), "SQLITE_CORRUPT")
    end
    os.remove(path.name)
    assert(sqlite.open(path.name, { schema = { "CREATE TABLE mine(v)" } })):close()
    refused(bytes_of(path.name), "other_application")
    os.remove(path.name)
    local steps = { "CREATE TABLE a(v)", "CREATE TABLE b(v)" }
    assert(sqlite.open(path.name, { application_id = 0x4D574D51, schema = steps })):close()
    refused(bytes_of(path.name), "newer_version")
    write(path.name, whole)
    test.equal(#kept_at(path.name).outgoing, 500)
  end,

  ["properties that are no properties are damage"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    journal:add(entry(1, { properties = { user_property = { { "a", "b" } } } }))
    assert(journal:commit())
    local good = assert(journal.db:query("SELECT properties FROM outgoing"))[1].properties
    journal:close()
    local random, bytes = test.random(), { "", "x", good .. "T", "t\255\255\255\255", ("t\1\0\0\0s\0\0\0\0"):rep(100) .. "T" }
    for cut = 1, #good - 1 do bytes[#bytes + 1] = good:sub(1, cut) end
    for _ = 1, 30 do
      local at = random(#good)
      bytes[#bytes + 1] = good:sub(1, at - 1) .. string.char(random(0, 255)) .. good:sub(at + 1)
    end
    local db <close> = assert(sqlite.open(":memory:"))
    for i, one in ipairs(bytes) do
      local file <close> = new_path()
      write(file.name, bytes_of(path.name))
      do
        local changed <close> = assert(sqlite.open(file.name))
        assert(changed:exec("UPDATE outgoing SET properties = ?", one))
      end
      local value, err = store.open(file.name)
      if value then
        -- One byte of a text may be any other.
        test.truthy(i > #good + 4, "cut properties were taken")
        value:close()
      else
        test.equal(err.code, "SQLITE_CORRUPT")
        test.matches(err.message, "message 1 cannot be read")
      end
    end
  end,

  ["a full disk is told, what was there stays, and with room it goes on"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    journal:add(entry(1))
    assert(journal:commit())
    assert(journal.db:query("PRAGMA max_page_count = 20"))
    for seq = 2, 40 do journal:add(entry(seq, { payload = ("x"):rep(5000) })) end
    local ok, err = journal:commit()
    test.fails("io", ok, err)
    test.equal(err.code, "SQLITE_FULL")
    test.matches(err.message, "free some space")
    for seq = 6, 40 do journal:remove(seq) end
    test.equal(journal:commit(), true, "the rest has room")
    assert(journal.db:query("PRAGMA max_page_count = 1000000"))
    journal:add(entry(41))
    assert(journal:commit())
    journal:close()
    local seen = {}
    for i, one in ipairs(kept_at(path.name).outgoing) do seen[i] = one.seq end
    test.equal(seen, { 1, 2, 3, 4, 5, 41 })
  end,

  ["ten thousand messages come back in order, and the file shrinks when they are gone"] = function()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    for seq = 1, 10000 do journal:add(entry(seq, { payload = ("\0\xff"):rep(600) .. seq })) end
    assert(journal:commit())
    journal:close()
    journal = assert(store.open(path.name))
    test.equal(journal.last_seq, 10000)
    local kept = journal:load().outgoing
    test.equal(#kept, 10000)
    for seq, one in ipairs(kept) do
      if one.seq ~= seq or one.payload ~= ("\0\xff"):rep(600) .. seq then test.equal(one, entry(seq)) end
    end
    for seq = 1, 9999 do journal:remove(seq) end
    assert(journal:commit())
    journal:close()
    test.truthy(#bytes_of(path.name) > 10000000)
    local left = kept_at(path.name).outgoing
    test.equal({ #left, left[1].seq }, { 1, 10000 })
    test.truthy(#bytes_of(path.name) < 100000)
  end,

  ["whatever is noted in whatever order, the file says what the notes say"] = function()
    local random = test.random()
    local path <close> = new_path()
    local journal = assert(store.open(path.name))
    local script = scripted(journal)
    local messages, received, seq = {}, {}, 0
    local function any(list)
      local keys = {}
      for key in pairs(list) do keys[#keys + 1] = key end
      table.sort(keys)
      return keys[random(math.max(#keys, 1))]
    end
    local function note()
      local what, one = random(9), any(messages)
      if what <= 2 or not one then
        seq = seq + 1
        messages[seq] = { state = "waiting" }
        journal:add(entry(seq, { qos = 2, packet_id = nil }))
      elseif what == 3 and messages[one].state == "waiting" then
        messages[one] = { state = "sent", id = seq }
        journal:sent(one, seq)
      elseif what == 4 and messages[one].state == "sent" then
        messages[one].state = "released"
        journal:released(one)
      elseif what == 5 and messages[one].state == "sent" then
        messages[one] = { state = "waiting" }
        journal:unsent(one)
      elseif what == 6 then
        messages[one] = nil
        journal:remove(one)
      elseif what == 7 then
        local id = random(20)
        received[id] = true
        journal:received(id)
      elseif what == 8 then
        local id = random(20)
        received[id] = nil
        journal:forget(id)
      elseif random(20) == 1 then
        received = {}
        journal:forget_received()
      end
    end
    for _ = 1, 40 do
      for _ = 1, random(40) do note() end
      local fate = random(4)
      script.answers[1] = function(real, statements)
        for _ = 1, random(0, 20) do note() end
        if fate == 1 then return failing() end
        -- Given up, and done all the same.
        local ok, err = real:transaction(statements)
        if fate == 2 then return nil, cosocket.error("timeout", "x", "late") end
        return ok, err
      end
      journal:commit()
      script.answers = {}
      if fate > 2 then
        assert(journal:commit())
        test.equal(journal:is_clean(), true)
        journal:close()
        journal = assert(store.open(path.name))
        local kept = journal:load()
        script = scripted(journal)
        local seen, expected = {}, {}
        for _, one in ipairs(kept.outgoing) do seen[one.seq] = { state = one.state, id = one.packet_id } end
        test.equal(seen, messages)
        for id in pairs(received) do expected[#expected + 1] = id end
        table.sort(expected)
        test.equal(kept.received, expected)
      end
    end
    journal:close()
  end,
}
