-- The native module `sqlite`: values, transactions, shared commits, and what is refused.
local cosocket = require("cosocket")
local sqlite = require("sqlite")
local test = require("test")

--- A path that nothing is at; gone with its companions when the block ends.
local function new_path()
  local path = os.tmpname()
  os.remove(path)
  return setmetatable({ name = path }, {
    __close = function()
      for _, suffix in ipairs({ "", "-wal", "-shm", "-journal" }) do os.remove(path .. suffix) end
    end,
  })
end

local function bytes_of(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local bytes = file:read("a")
  file:close()
  return bytes
end

local function write(path, bytes)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(bytes))
end

local function code_of(value, err)
  test.fails("io", value, err)
  return err.code
end

--- A database in memory with the table t(id, v).
local function in_memory()
  return assert(sqlite.open(":memory:", { schema = { "CREATE TABLE t(id INTEGER PRIMARY KEY, v)" } }))
end

--- A database in a file, closed, with rows in t; more rows are in its log when `leave_log`.
local function made(path, options)
  local db <close> = assert(sqlite.open(path, options or { schema = { "CREATE TABLE t(id INTEGER PRIMARY KEY, v)" } }))
  for i = 1, 300 do assert(db:exec("INSERT INTO t VALUES (?, ?)", i, ("x"):rep(200) .. i)) end
end

return {
  ["values of every kind come back as they went"] = function()
    local db <close> = in_memory()
    local every_byte = {}
    for i = 0, 255 do every_byte[#every_byte + 1] = string.char(i) end
    local values = {
      1, -1, 0, math.maxinteger, math.mininteger, 1.5, -0.0, 1e300, math.huge, -math.huge, 2.0,
      "", "text", "caf\u{e9} \u{1F600}", "a\0b", "\xff", table.concat(every_byte), ("long\0"):rep(100000),
    }
    for i, value in ipairs(values) do
      test.equal(db:exec("INSERT INTO t VALUES (?, ?)", i, value), 1)
      local row = assert(db:query("SELECT v FROM t WHERE id = ?", i))[1]
      test.equal(row.v, value)
      test.equal(math.type(row.v), math.type(value), "the subtype of number " .. i)
      -- Equal strings are equal in SQL.
      test.equal(#assert(db:query("SELECT id FROM t WHERE id = ? AND v = ?", i, value)), 1)
    end
    assert(db:exec("INSERT INTO t VALUES (100, ?), (101, ?), (102, ?)", nil, true, false))
    local rows = assert(db:query("SELECT v, typeof(v) AS kind FROM t WHERE id >= 100 ORDER BY id"))
    test.equal(rows, { { kind = "null" }, { v = 1, kind = "integer" }, { v = 0, kind = "integer" } })
  end,

  ["text is what is UTF-8 without zero bytes, and buffers are blobs"] = function()
    local db <close> = in_memory()
    local function kind(value) return assert(db:query("SELECT typeof(?) AS kind", value))[1].kind end
    test.equal(kind("caf\u{e9}"), "text")
    test.equal(kind("a\0b"), "blob")
    test.equal(kind("\xff"), "blob")
    test.equal(kind(cosocket.buffer("text")), "blob")
    test.equal(assert(db:query("SELECT ? AS v", cosocket.buffer("te\0xt")))[1].v, "te\0xt")
    assert(db:exec("CREATE TABLE strict_one(b BLOB) STRICT"))
    test.equal(code_of(db:exec("INSERT INTO strict_one VALUES (?)", "text")), "SQLITE_CONSTRAINT")
    test.equal(db:exec("INSERT INTO strict_one VALUES (?)", cosocket.buffer("text")), 1)
  end,

  ["exec answers how many rows it changed, and runs several statements without values"] = function()
    local db <close> = in_memory()
    test.equal(db:exec("INSERT INTO t(v) VALUES (1), (2), (3)"), 3)
    test.equal(db:exec("UPDATE t SET v = 0 WHERE v > 1"), 2)
    test.equal(db:exec("CREATE TABLE u(v)"), 0)
    test.equal(db:exec("SELECT * FROM t"), 0)
    test.equal(db:exec("DELETE FROM t WHERE v = 17"), 0)
    test.equal(db:exec("CREATE TABLE w(v); INSERT INTO w VALUES (1), (2); DELETE FROM w; -- end"), 4)
    test.equal(db:exec(""), 0)
    test.equal(db:exec("-- nothing"), 0)
    -- All of several, or none.
    test.equal(code_of(db:exec("INSERT INTO t(v) VALUES (7); INSERT INTO nowhere VALUES (1)")), "SQLITE_ERROR")
    test.equal(assert(db:query("SELECT count(*) AS n FROM t WHERE v = 7"))[1].n, 0)
  end,

  ["rows are tables by column name, and a statement may both change and answer"] = function()
    local db <close> = in_memory()
    test.equal(db:query("INSERT INTO t(v) VALUES ('a'), ('b') RETURNING id, v"), { { id = 1, v = "a" }, { id = 2, v = "b" } })
    test.equal(db:query("SELECT id AS number, v || '!' AS loud FROM t ORDER BY id DESC LIMIT 1"), { { number = 2, loud = "b!" } })
    test.equal(db:query("SELECT * FROM t WHERE id > 100"), {})
    test.equal(db:query("DELETE FROM t"), {})
    test.equal(#assert(db:query("PRAGMA table_info(t)")), 2)
  end,

  ["a transaction is all or nothing, and says which statement failed"] = function()
    local db <close> = in_memory()
    local results = assert(db:transaction({
      { "INSERT INTO t VALUES (?, ?)", 1, "a" },
      { "INSERT INTO t VALUES (?, ?)", 2, nil },
      "INSERT INTO t VALUES (3, 'c')",
      { "SELECT id FROM t WHERE v IS NULL OR v = ?", "a" },
      { "DELETE FROM t WHERE id < ?", 3 },
    }))
    test.equal(results, { 1, 1, 1, { { id = 1 }, { id = 2 } }, 2 })
    local value, err = db:transaction({ { "INSERT INTO t VALUES (9, 9)" }, { "INSERT INTO t VALUES (3, ?)", "again" } })
    test.equal(code_of(value, err), "SQLITE_CONSTRAINT")
    test.matches(err.message, "^statement 2: UNIQUE constraint failed: t%.id")
    test.equal(db:query("SELECT * FROM t"), { { id = 3, v = "c" } })
    test.equal(db:transaction({}), {})
    -- A gap among the values is NULL.
    assert(db:transaction({ { "INSERT INTO t VALUES (?, coalesce(?, ?))", 4, nil, "third" } }))
    test.equal(db:query("SELECT v FROM t WHERE id = 4"), { { v = "third" } })
  end,

  ["tasks that write at the same time are all answered, and one that fails harms no other"] = function()
    local path <close> = new_path()
    local db <close> = assert(sqlite.open(path.name, { schema = { "CREATE TABLE t(id INTEGER PRIMARY KEY, v)" } }))
    local answers = {}
    cosocket.group(function()
      for i = 1, 200 do
        cosocket.spawn(function()
          if i % 10 == 0 then
            answers[i] = code_of(db:transaction({
              { "INSERT INTO t VALUES (?, 'half')", 1000 + i },
              { "INSERT INTO t VALUES (?, 'whole')", i // 10 * 10 - 9 },
              { "INSERT INTO nowhere VALUES (1)" },
            }))
          elseif i % 10 == 5 then
            answers[i] = #assert(db:query("SELECT 1 AS one"))
          else
            answers[i] = assert(db:exec("INSERT INTO t VALUES (?, ?)", i, "x"))
          end
        end)
      end
    end)
    local expected = {}
    for i = 1, 200 do expected[i] = i % 10 == 0 and answers[i] or 1 end
    test.equal(answers, expected)
    for i = 10, 200, 10 do test.truthy(answers[i] == "SQLITE_CONSTRAINT" or answers[i] == "SQLITE_ERROR", answers[i]) end
    test.equal(db:query("SELECT count(*) AS n, sum(v = 'x') AS x FROM t"), { { n = 160, x = 160 } })
  end,

  ["a table that an earlier job of the same commit makes can be used by a later one"] = function()
    local db <close> = in_memory()
    local tasks = {}
    for i, sql in ipairs({ "SELECT 1", "CREATE TABLE a(v)", "INSERT INTO a VALUES (1)", "SELECT * FROM a" }) do
      tasks[i] = cosocket.spawn(db.query, db, sql)
    end
    test.equal(tasks[4]:join(), { { v = 1 } })
  end,

  ["a full database tells those whose work has no room, and keeps that of the others"] = function()
    local path <close> = new_path()
    local db <close> = assert(sqlite.open(path.name, { schema = { "CREATE TABLE t(id INTEGER PRIMARY KEY, v)" } }))
    assert(db:query("PRAGMA max_page_count = 64"))
    local answers = {}
    cosocket.group(function()
      for i = 1, 40 do
        cosocket.spawn(function()
          -- A few are larger than the whole file may become.
          local value, err = db:exec("INSERT INTO t VALUES (?, ?)", i, ("x"):rep(i % 4 == 0 and 400000 or 100))
          answers[i] = value or code_of(value, err)
          if err then test.matches(err.message, "no room to write .* free some space") end
        end)
      end
    end)
    for i = 1, 40 do test.equal(answers[i], i % 4 == 0 and "SQLITE_FULL" or 1, i) end
    test.equal(db:query("SELECT count(*) AS n, max(length(v)) AS long FROM t"), { { n = 30, long = 100 } })
    test.equal(db:exec("DELETE FROM t"), 30, "it goes on working")
  end,

  ["what was committed is there when it is opened again, with full synchronisation and a log"] = function()
    local path <close> = new_path()
    do
      local db <close> = assert(sqlite.open(path.name, { schema = { "CREATE TABLE t(v)" } }))
      assert(db:exec("INSERT INTO t VALUES (?)", "kept"))
      test.equal(db:query("PRAGMA journal_mode"), { { journal_mode = "wal" } })
      test.equal(db:query("PRAGMA synchronous"), { { synchronous = 2 } }, "2 is FULL")
      test.equal(#bytes_of(path.name .. "-wal") > 0, true)
    end
    test.equal(bytes_of(path.name .. "-wal"), nil, "closing puts the log away")
    local db <close> = assert(sqlite.open(path.name, { synchronous = "normal" }))
    test.equal(db:query("SELECT * FROM t"), { { v = "kept" } })
    test.equal(db:query("PRAGMA synchronous"), { { synchronous = 1 } })
  end,

  ["missing steps of the schema are run, all or none"] = function()
    local path <close> = new_path()
    local steps = { "CREATE TABLE t(v)", "ALTER TABLE t ADD COLUMN w; UPDATE t SET w = v * 2" }
    do
      local db <close> = assert(sqlite.open(path.name, { schema = { steps[1] } }))
      assert(db:exec("INSERT INTO t VALUES (4)"))
    end
    local value, err = sqlite.open(path.name, { schema = { steps[1], steps[2], "CREATE TABLE t(again)" } })
    test.equal(code_of(value, err), "SQLITE_ERROR")
    test.matches(err.message, "^step 3 of the schema failed: table t already exists")
    test.equal(code_of(sqlite.open(path.name, { schema = steps, read_only = true })), "older_version")
    do
      local db <close> = assert(sqlite.open(path.name, { schema = { steps[1] } }))
      test.equal(db:query("SELECT * FROM t"), { { v = 4 } }, "nothing of the failed steps is there")
    end
    local db <close> = assert(sqlite.open(path.name, { schema = steps }))
    test.equal(db:query("SELECT * FROM t"), { { v = 4, w = 8 } })
    test.equal(db:query("PRAGMA user_version"), { { user_version = 2 } })
  end,

  ["a newer, a foreign, a damaged, a truncated and a nonsensical file are refused and left as they are"] = function()
    local path <close> = new_path()
    local options = { schema = { "CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "CREATE TABLE u(v)" }, application_id = 77 }
    made(path.name, options)
    local whole = bytes_of(path.name)
    local function refused(bytes, code, pattern, given)
      write(path.name, bytes)
      local value, err = sqlite.open(path.name, given)
      test.equal(code_of(value, err), code)
      test.matches(err.message, pattern)
      test.equal(bytes_of(path.name) == bytes, true, "the file is as it was")
      os.remove(path.name .. "-wal")
      os.remove(path.name .. "-shm")
    end
    refused(whole, "newer_version", "newer program %(version 2, this one knows 1%)", { schema = { "SELECT 1" } })
    refused(whole, "other_application", "another application", { application_id = 78 })
    refused(whole:sub(1, #whole - 4096), "SQLITE_CORRUPT", "is damaged", options)
    refused(whole:sub(1, 5000), "SQLITE_CORRUPT", "is damaged", options)
    refused(whole:sub(1, #whole - 1), "SQLITE_CORRUPT", "its end is missing", options)
    refused(whole:sub(1, 50), "SQLITE_CORRUPT", "is damaged", options)
    refused("x" .. whole:sub(2), "SQLITE_NOTADB", "is not a database", options)
    refused(("no database "):rep(1000), "SQLITE_NOTADB", "is not a database", options)
    local checked = { schema = options.schema, application_id = 77, check = true }
    local broken = whole:sub(1, 4096 * 5) .. ("\xaa"):rep(4096) .. whole:sub(4096 * 6 + 1)
    test.equal(#broken, #whole)
    refused(broken, "SQLITE_CORRUPT", "is damaged", checked)
    write(path.name, whole)
    assert(sqlite.open(path.name, checked)):close()
  end,

  ["whatever happens to its bytes, a file is opened or refused, and a refused one is left as it is"] = function()
    local random = test.random()
    local path <close> = new_path()
    made(path.name, { schema = { "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE INDEX i ON t(v)" }, application_id = 5 })
    local whole, refused = bytes_of(path.name), 0
    for _ = 1, 80 do
      local bytes = whole
      for _ = 1, random(3) do
        -- Often in the head, or in the head of a page.
        local at = random(3) == 1 and random(100) or (random(#whole // 4096) - 1) * 4096 + random(random(2) == 1 and 16 or 4096)
        local size = random(2) == 1 and 1 or math.min(random(300), #bytes - at + 1)
        local junk = {}
        for i = 1, size do junk[i] = string.char(random(0, 255)) end
        bytes = bytes:sub(1, at - 1) .. table.concat(junk) .. bytes:sub(at + size)
      end
      write(path.name, bytes)
      local db, err = sqlite.open(path.name, { application_id = 5, check = random(2) == 1, schema = { "SELECT 1" } })
      if db then
        -- What is met later is an error, too.
        local _, why = db:query("SELECT count(*), max(v), sum(length(v)) FROM t")
        if why then test.equal(why.kind, "io") end
        db:exec("DELETE FROM t WHERE id % 3 = 0")
        db:close()
      else
        refused = refused + 1
        test.equal(err.kind, "io")
        test.equal(bytes_of(path.name) == bytes, true, "the file is as it was")
      end
      for _, suffix in ipairs({ "-wal", "-shm", "-journal" }) do os.remove(path.name .. suffix) end
    end
    test.truthy(refused > 20, refused)
  end,

  ["a refused database keeps its log, too"] = function()
    local path <close> = new_path()
    made(path.name)
    local db = assert(sqlite.open(path.name))
    assert(db:exec("INSERT INTO t VALUES (1000, 'in the log')"))
    -- As a killed process leaves them.
    local main, log = bytes_of(path.name), bytes_of(path.name .. "-wal")
    db:close()
    write(path.name, main)
    write(path.name .. "-wal", log)
    test.equal(code_of(sqlite.open(path.name, { application_id = 5 })), "other_application")
    test.equal(bytes_of(path.name) == main, true)
    test.equal(bytes_of(path.name .. "-wal") == log, true)
    local again <close> = assert(sqlite.open(path.name))
    test.equal(again:query("SELECT v FROM t WHERE id = 1000"), { { v = "in the log" } })
  end,

  ["a log whose database is empty or gone is not thrown away"] = function()
    local path <close> = new_path()
    write(path.name .. "-wal", "all there is")
    local value, err = sqlite.open(path.name)
    test.equal(code_of(value, err), "SQLITE_CORRUPT")
    test.matches(err.message, "is gone, but its log")
    test.equal(bytes_of(path.name), nil)
    write(path.name, "")
    value, err = sqlite.open(path.name)
    test.equal(code_of(value, err), "SQLITE_CORRUPT")
    test.equal(bytes_of(path.name .. "-wal"), "all there is")
  end,

  ["an exclusive database is nobody else's until it is closed"] = function()
    local path <close> = new_path()
    local first = assert(sqlite.open(path.name, { exclusive = true, schema = { "CREATE TABLE t(v)" } }))
    for _, options in ipairs({ { busy_timeout = 0 }, { exclusive = true, busy_timeout = 0 }, { read_only = true, busy_timeout = 0 } }) do
      local value, err = sqlite.open(path.name, options)
      test.equal(code_of(value, err), "SQLITE_BUSY")
      test.matches(err.message, "is in use")
    end
    test.equal(first:exec("INSERT INTO t VALUES (1)"), 1)
    first:close()
    local second <close> = assert(sqlite.open(path.name, { exclusive = true, busy_timeout = 0 }))
    test.equal(second:query("SELECT * FROM t"), { { v = 1 } })
  end,

  ["two handles on a shared database take turns, and one that must not wait is told"] = function()
    local path <close> = new_path()
    local one <close> = assert(sqlite.open(path.name, { schema = { "CREATE TABLE t(v)" } }))
    local other <close> = assert(sqlite.open(path.name, { busy_timeout = 30 }))
    cosocket.group(function()
      for i = 1, 20 do
        cosocket.spawn(function() test.equal(one:exec("INSERT INTO t VALUES (?)", i), 1) end)
        cosocket.spawn(function() test.equal(other:exec("INSERT INTO t VALUES (?)", i), 1) end)
      end
    end)
    test.equal(one:query("SELECT count(*) AS n FROM t"), { { n = 40 } })
  end,

  ["a read-only handle reads, makes nothing and changes nothing"] = function()
    local path <close> = new_path()
    test.equal(code_of(sqlite.open(path.name, { read_only = true })), "ENOENT")
    test.equal(bytes_of(path.name), nil)
    made(path.name)
    local before = bytes_of(path.name)
    do
      local db <close> = assert(sqlite.open(path.name, { read_only = true }))
      test.equal(db:query("SELECT count(*) AS n FROM t"), { { n = 300 } })
      local value, err = db:exec("DELETE FROM t")
      test.equal(code_of(value, err), "SQLITE_READONLY")
      test.matches(err.message, "may only be read")
    end
    test.equal(bytes_of(path.name) == before, true)
  end,

  ["a path that cannot be is refused with the system's reason"] = function()
    local value, err = sqlite.open("/no/such/folder/x.db")
    test.equal(code_of(value, err), "ENOENT")
    test.equal(err.message, "cannot open /no/such/folder/x.db: no such file or directory")
    local folder
    value, folder = sqlite.open("/tmp")
    test.fails("io", value, folder)
    test.matches(folder.message, "cannot open /tmp: is a directory")
  end,

  ["wrong arguments raise at the caller"] = function()
    local db <close> = in_memory()
    test.raises("the path must be a string, not a nil", sqlite.open)
    test.raises("sqlite_test%.lua:%d+: the path must not be empty", function()
      local _ = sqlite.open("")
    end)
    test.raises('unknown option "sycnhronous"; did you mean "synchronous"', sqlite.open, "x", { sycnhronous = "full" })
    test.raises('option "synchronous" must be "full"', sqlite.open, "x", { synchronous = "extra" })
    test.raises('option "schema" must be a list of SQL', sqlite.open, "x", { schema = { 1 } })
    test.raises('option "schema" must have the SQL', sqlite.open, "x", { schema = {} })
    test.raises('option "application_id" must be from 1', sqlite.open, "x", { application_id = 0 })
    test.raises('option "busy_timeout" must be from 0', sqlite.open, "x", { busy_timeout = -1 })
    test.raises('option "check" must be a boolean', sqlite.open, "x", { check = 1 })
    test.raises('option "mode" must be an integer', sqlite.open, "x", { mode = "600" })
    test.raises("contradict each other", sqlite.open, "x", { read_only = true, exclusive = true })
    test.raises("call this with a colon", db.exec, "SELECT 1")
    test.raises("the SQL must be a string, not a nil", db.exec, db)
    test.raises("the SQL is not UTF%-8", db.exec, db, "SELECT '\xff'")
    test.raises("the SQL has a zero byte", db.exec, db, "SELECT 1\0")
    test.raises("the SQL has room for 1 values, and 0 were given", db.query, db, "SELECT ?")
    test.raises("the SQL has room for 1 values, and 2 were given", db.query, db, "SELECT ?", 1, nil)
    test.raises("value 2 is a table", db.exec, db, "SELECT ?, ?", 1, {})
    test.raises("value 1 is an object", db.exec, db, "SELECT ?", db)
    test.raises("value 1 is NaN", db.exec, db, "SELECT ?", 0 / 0)
    test.raises("values go to one statement", db.exec, db, "SELECT ?; SELECT 1", 1)
    test.raises("values go to one statement", db.query, db, "SELECT 1; SELECT 2")
    test.raises("statement 2 must be", db.transaction, db, { "SELECT 1", 5 })
    test.raises("statement 1 has no SQL", db.transaction, db, { {} })
    test.raises("statement 1: value 1 is a function", db.transaction, db, { { "SELECT ?", print } })
    test.raises("unknown field sql", db.transaction, db, { { "SELECT 1", sql = 1 } })
    for _, sql in ipairs({ "BEGIN", " commit", "/* x */ ROLLBACK", "SAVEPOINT x", "END", "RELEASE job" }) do
      test.raises("use db:transaction", db.exec, db, sql)
      test.raises("use db:transaction", db.transaction, db, { "SELECT 1", sql })
    end
    test.raises("use db:transaction", db.exec, db, "CREATE TABLE z(v); COMMIT; BEGIN")
    test.equal(db:query("SELECT name FROM sqlite_schema"), { { name = "t" } })
  end,

  ["what needs to stand alone does"] = function()
    local path <close> = new_path()
    local db <close> = assert(sqlite.open(path.name, { schema = { "CREATE TABLE t(v)" } }))
    local tasks = {}
    for i, sql in ipairs({ "INSERT INTO t VALUES (1)", "VACUUM", "PRAGMA cache_size = 100", "INSERT INTO t VALUES (2)" }) do
      tasks[i] = cosocket.spawn(db.exec, db, sql)
    end
    for i, expected in ipairs({ 1, 0, 0, 1 }) do test.equal(tasks[i]:join(), expected) end
    test.equal(db:query("PRAGMA cache_size"), { { cache_size = 100 } })
    assert(db:exec("VACUUM; BEGIN; INSERT INTO t VALUES (3)"))
    test.equal(db:exec("INSERT INTO t VALUES (4)"), 1, "no transaction was left open")
    test.equal(db:query("SELECT v FROM t ORDER BY v"), { { v = 1 }, { v = 2 }, { v = 4 } })
  end,

  ["a result or a queue that grows too large is a limit error"] = function()
    local db <close> = assert(sqlite.open(":memory:", { result_max = 1000, queue_max = 5 }))
    local value, err = db:query("SELECT zeroblob(2000) AS v")
    test.fails("limit", value, err)
    test.matches(err.message, "larger than 1000 bytes.*LIMIT")
    test.fails("limit", db:query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"))
    test.equal(db:query("SELECT 1 AS one"), { { one = 1 } })
    -- The first may have been taken by the thread; of twenty at once some are too many.
    local counts = { ok = 0, limit = 0 }
    cosocket.group(function()
      cosocket.spawn(db.query, db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) SELECT max(i) AS m FROM n")
      for _ = 1, 20 do
        cosocket.spawn(function()
          local rows, why = db:query("SELECT 1 AS one")
          local kind = rows and "ok" or why.kind
          counts[kind] = counts[kind] + 1
        end)
      end
    end)
    test.equal(counts.ok + counts.limit, 20)
    test.truthy(counts.limit >= 10, counts.limit)
  end,

  ["a closed database says so, and closing waits for what was asked before"] = function()
    local path <close> = new_path()
    local db = assert(sqlite.open(path.name, { schema = { "CREATE TABLE t(v)" } }))
    local writing = cosocket.spawn(db.exec, db, "INSERT INTO t VALUES (1)")
    cosocket.sleep(0)
    test.equal(db:close(), true)
    test.equal(writing:join(), 1)
    test.equal(db:close(), true, "twice is fine")
    local value, err = db:query("SELECT 1")
    test.fails("closed", value, err)
    test.matches(err.message, "closed by this side")
    test.matches(tostring(db), "^sqlite%.Database %(.*, closed%)$")
  end,

  ["leaving the block closes, also when the task is cancelled there"] = function()
    local path <close> = new_path()
    local db
    local task = cosocket.spawn(function()
      local inner <close> = assert(sqlite.open(path.name, { exclusive = true, schema = { "CREATE TABLE t(v)" } }))
      db = inner
      cosocket.sleep(1000)
    end)
    cosocket.sleep(1)
    task:cancel()
    cosocket.sleep(0)
    test.fails("closed", db:query("SELECT 1"))
    -- The thread may be a moment behind: nobody waits for it.
    local again <close> = assert(sqlite.open(path.name, { exclusive = true, busy_timeout = 30 }))
    test.equal(again:query("SELECT * FROM t"), {})
  end,

  ["a database that is forgotten is closed by the collector"] = function()
    local path <close> = new_path()
    do
      local db = assert(sqlite.open(path.name, { exclusive = true }))
      db = nil
    end
    collectgarbage()
    collectgarbage()
    assert(sqlite.open(path.name, { exclusive = true, busy_timeout = 30 })):close()
  end,

  ["a cancelled task's work is done all the same, and the database goes on"] = function()
    local path <close> = new_path()
    local db <close> = assert(sqlite.open(path.name, { schema = { "CREATE TABLE t(v)" } }))
    for i = 1, 50 do
      local task = cosocket.spawn(db.exec, db, "INSERT INTO t VALUES (?)", i)
      cosocket.sleep(0)
      test.equal(task:status(), "waiting")
      task:cancel()
    end
    test.equal(db:query("SELECT count(*) AS n, sum(v) AS sum FROM t"), { { n = 50, sum = 1275 } })
  end,

  ["a task that waits for a database is listed with its path"] = function()
    local db <close> = in_memory()
    local task = cosocket.spawn("writer", db.exec, db, "INSERT INTO t VALUES (1, 1)")
    cosocket.sleep(0)
    for _, entry in ipairs(cosocket.tasks()) do
      if entry.name == "writer" then test.equal(entry.waits_for, "sqlite:exec, :memory:") end
    end
    task:join()
  end,

  ["a new file is its owner's only, unless told otherwise"] = function()
    for _, case in ipairs({ { nil, "rw%-%-%-%-%-%-%-" }, { tonumber("640", 8), "rw%-r%-%-%-%-%-" } }) do
      local path <close> = new_path()
      local db <close> = assert(sqlite.open(path.name, { mode = case[1], schema = { "CREATE TABLE t(v)" } }))
      local listing <close> = assert(io.popen("ls -l " .. path.name .. "*"))
      local lines = 0
      for line in listing:lines() do
        lines = lines + 1
        test.matches(line, "^%-" .. case[2])
      end
      test.equal(lines, 3, "the file, its log and its index")
    end
  end,
}
