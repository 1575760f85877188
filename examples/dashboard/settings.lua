--- What outlives the program: numbers by name, and the last entries of the log, in one SQLite file.

local sqlite = require("sqlite")

local SCHEMA = {
  [[
    CREATE TABLE setting(name TEXT PRIMARY KEY, value REAL NOT NULL) STRICT;
    CREATE TABLE entry(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL) STRICT;
  ]],
}

---@class dashboard.Entry
---@field id integer Of a later entry, larger.
---@field at integer Seconds since 1970.
---@field kind string
---@field text string

---@class dashboard.Settings
local Settings = {}
Settings.__index = Settings

---@param name string
---@return number?
function Settings:get(name) return self.values[name] end

--- Changes settings, all or none. They are on the disk when this answers.
---@async
---@param changes table<string, number>
---@return true? ok
---@return cosocket.Error? err
function Settings:set(changes)
  local statements = {}
  for name, value in pairs(changes) do
    statements[#statements + 1] = { "INSERT OR REPLACE INTO setting(name, value) VALUES (?, ?)", name, value }
  end
  local results, err = self.db:transaction(statements)
  if not results then return nil, err end
  for name, value in pairs(changes) do self.values[name] = value end
  return true
end

--- The entries that are kept, oldest first.
---@async
---@return dashboard.Entry[]
function Settings:entries()
  return assert(self.db:query("SELECT * FROM entry ORDER BY id"))
end

--- Adds an entry to the log. A full disk is no reason to keep it from those who look on now.
---@async
---@param kind string
---@param text string
---@return dashboard.Entry
function Settings:note(kind, text)
  local entry = { id = self.last_id + 1, at = os.time(), kind = kind, text = text }
  self.last_id = entry.id
  self.db:transaction({
    { "INSERT INTO entry(id, at, kind, text) VALUES (?, ?, ?, ?)", entry.id, entry.at, kind, text },
    { "DELETE FROM entry WHERE id <= ?", entry.id - self.keep },
  })
  return entry
end

local settings = {}

---@async
---@param path string
---@param keep integer Entries of the log that are kept.
---@return dashboard.Settings? settings
---@return cosocket.Error? err
function settings.open(path, keep)
  local db, err = sqlite.open(path, { schema = SCHEMA })
  if not db then return nil, err end
  local self = setmetatable({ db = db, keep = keep, values = {}, last_id = 0 }, Settings)
  for _, row in ipairs(assert(db:query("SELECT * FROM setting"))) do self.values[row.name] = row.value end
  for _, row in ipairs(assert(db:query("SELECT max(id) AS id FROM entry"))) do self.last_id = row.id or 0 end
  return self
end

return settings
