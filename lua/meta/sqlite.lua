---@meta sqlite

--- An embedded database (SQLite): one file, whose work is done on a thread of its own, never on the loop.
---
--- ```lua
--- local db <close> = assert(sqlite.open("readings.db", {
---   schema = { "CREATE TABLE reading(id INTEGER PRIMARY KEY, at REAL, value REAL)" },
--- }))
--- assert(db:exec("INSERT INTO reading(at, value) VALUES (?, ?)", os.time(), 21.5))
--- for _, row in ipairs(assert(db:query("SELECT * FROM reading WHERE value > ?", 20))) do print(row.at, row.value) end
--- ```
---
--- When a call has answered, what it changed is on the disk: it survives a killed process and, with
--- `synchronous = "full"`, a loss of power. What several tasks change at the same time shares one commit,
--- in which a statement that fails does not undo the others'.
---
--- | Lua | SQLite | and back |
--- |---|---|---|
--- | `nil` | NULL | absent |
--- | boolean | INTEGER 0 or 1 | integer |
--- | integer, float | INTEGER, REAL | the same |
--- | string of UTF-8 without zero bytes | TEXT | string, the same bytes |
--- | any other string, `cosocket.Buffer` | BLOB | string, the same bytes |
---
--- Of a string its bytes alone decide, so that equal strings are equal in SQL. A column of a STRICT table that is
--- a BLOB takes buffers only. NaN is refused: SQLite would store NULL.
---
--- What SQLite reports is an error of kind `io` whose `code` is its name: `"SQLITE_FULL"`, `"SQLITE_READONLY"`,
--- `"SQLITE_CORRUPT"`, `"SQLITE_NOTADB"`, `"SQLITE_BUSY"`, `"SQLITE_CONSTRAINT"`, `"SQLITE_ERROR"` (the SQL is wrong) ...
--- A wrong number of values raises.
---
--- A task that is cancelled, or whose deadline passes, gives up the answer and not the work: what it asked for is
--- done, or fails, as if it still waited, unless the process ends first. Whole statements and transactions only, in any
--- case.
local sqlite = {}

---@alias sqlite.Value nil|boolean|integer|number|string|cosocket.Buffer

---@class sqlite.OpenOptions
---@field schema? string[] SQL from nothing to version 1, from 1 to 2, ... Missing steps are run at opening, all or none; the version is SQLite's `user_version`. Steps that have been published stay as they are.
---@field application_id? integer Marks the file as this program's (1 to 2147483647); a file with another mark is refused.
---@field synchronous? "full"|"normal"|"off" What a commit waits for. Default "full": what was answered survives a loss of power. "normal": the last commits may be lost then, and the rest is whole. "off": the file may be damaged then.
---@field read_only? boolean Default `false`.
---@field exclusive? boolean Keeps everybody else out until it is closed, other processes and this one. Default `false`.
---@field busy_timeout? number Seconds to wait for another process that has the file. Default 5.
---@field check? boolean Reads all of the file at opening and refuses it when it is damaged anywhere. Default `false`: damage is found where it is met.
---@field mode? integer Permissions of a new file. Default `tonumber("600", 8)`.
---@field queue_max? integer Calls that may wait for the thread; one more is a `limit` error. Default 1024.
---@field result_max? integer Bytes of a result; a larger one is a `limit` error. Default 64 MiB.

--- Opens a database, and makes it if there is none; `":memory:"` is one without a file. It is kept with a
--- write-ahead log beside it (`-wal`), which belongs to it.
---
--- Refused, and left byte for byte as they are: a file that is no database (`SQLITE_NOTADB`), a damaged or truncated one
--- (`SQLITE_CORRUPT`), one that a newer program made (code `newer_version`) or another application (`other_application`),
--- one that may not be written (`SQLITE_READONLY`), and one in use (`SQLITE_BUSY`).
---@async
---@param path string
---@param options? sqlite.OpenOptions
---@return sqlite.Database? db
---@return cosocket.Error? err
function sqlite.open(path, options) end

--- An open database. `local db <close> = ...` closes it at the block's end; one that is collected closes, too.
---@class sqlite.Database
local Database = {}

--- Runs a statement; `?` in it stand for `values`. Without values it may be several statements. Rows that it
--- answers are passed over.
---
--- Transactions are made with `transaction`: BEGIN, COMMIT and the like raise, since tasks share the connection.
---@async
---@param sql string
---@param ... sqlite.Value
---@return integer? changes Rows inserted, updated or deleted.
---@return cosocket.Error? err
function Database:exec(sql, ...) end

--- Runs one statement and answers its rows (also those of `INSERT ... RETURNING`), by column name.
---@async
---@param sql string
---@param ... sqlite.Value
---@return table<string, integer|number|string>[]? rows Columns that are NULL are absent.
---@return cosocket.Error? err
function Database:query(sql, ...) end

--- Runs all statements, or none if one fails.
---@async
---@param statements (string|[string, ...])[] `{sql, value, value}` each; values that are missing at the end are NULL.
---@return (integer|table[])[]? results Of each statement: its rows, or the number of changes if it has none.
---@return cosocket.Error? err Begins with the place of the statement that failed.
function Database:transaction(statements) end

--- Closes, once everything asked for before is done; waits for that. Later calls answer a `closed` error.
---@async
---@return true? ok
---@return cosocket.Error? err
function Database:close() end

return sqlite
