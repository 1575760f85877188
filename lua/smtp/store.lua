--- The file of an outbox: messages as they are sent, in pieces, and what has to be known of each.

local json = require("json")
local sqlite = require("sqlite")

--- Marks the file as an outbox.
local APPLICATION_ID = 0x4d57534d

local SCHEMA = {
  [[
    CREATE TABLE message(
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      envelope BLOB NOT NULL,
      message_id TEXT,
      size INTEGER NOT NULL,
      put_at INTEGER NOT NULL,
      next_at INTEGER NOT NULL,
      attempts INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE piece(
      message INTEGER NOT NULL,
      position INTEGER NOT NULL,
      data BLOB NOT NULL,
      PRIMARY KEY(message, position)
    ) WITHOUT ROWID;
  ]],
}

---@class smtp.Stored
---@field id integer
---@field envelope smtp.Envelope
---@field message_id string?
---@field size integer
---@field put_at integer Seconds since 1970.
---@field next_at integer
---@field attempts integer

---@class smtp.Store
---@field private db sqlite.Database
local Store = {}
Store.__index = Store

--- Keeps a piece of a message that is not whole yet.
---@async
---@param id integer
---@param position integer From 1 on.
---@param data cosocket.Buffer
---@return integer? ok
---@return cosocket.Error? err
function Store:add_piece(id, position, data)
  return self.db:exec("INSERT INTO piece VALUES (?, ?, ?)", id, position, data)
end

--- Keeps the last piece of a message: with it, the message is there.
---@async
---@param stored smtp.Stored
---@param position integer
---@param data cosocket.Buffer
---@return table? ok
---@return cosocket.Error? err
function Store:add(stored, position, data)
  return self.db:transaction({
    { "INSERT INTO piece VALUES (?, ?, ?)", stored.id, position, data },
    {
      "INSERT INTO message(id, envelope, message_id, size, put_at, next_at) VALUES (?, ?, ?, ?, ?, ?)",
      stored.id, json.encode(stored.envelope), stored.message_id, stored.size, stored.put_at, stored.next_at,
    },
  })
end

--- Notes who is still to get it, and when.
---@async
---@param id integer
---@param envelope smtp.Envelope
---@param next_at integer
---@param attempts integer
---@return integer? ok
---@return cosocket.Error? err
function Store:update(id, envelope, next_at, attempts)
  local sql = "UPDATE message SET envelope = ?, next_at = ?, attempts = ? WHERE id = ?"
  return self.db:exec(sql, json.encode(envelope), next_at, attempts, id)
end

---@async
---@param id integer
---@return table? ok
---@return cosocket.Error? err
function Store:remove(id)
  return self.db:transaction({
    { "DELETE FROM message WHERE id = ?", id },
    { "DELETE FROM piece WHERE message = ?", id },
  })
end

--- A message as the client reads it; only one piece is in memory.
---@param id integer
---@return smtp.Reader
function Store:reader(id)
  local db, position = self.db, 0
  local reader = {}
  ---@async
  function reader.read(_, out)
    position = position + 1
    local rows, err = db:query("SELECT data FROM piece WHERE message = ? AND position = ?", id, position)
    if not rows then return nil, err end
    if not rows[1] then return nil end
    out:append(rows[1].data)
    return true
  end
  return setmetatable(reader, { __close = function() end })
end

--- Everything that is kept, oldest first, and the number that comes next. What a crash in the middle of adding has left
--- is forgotten.
---@async
---@return smtp.Stored[]? stored
---@return integer|cosocket.Error next_id
function Store:load()
  local db = self.db
  local ok, err = db:exec("DELETE FROM piece WHERE message NOT IN (SELECT id FROM message)")
  if not ok then return nil, err end
  local rows, sequence
  rows, err = db:query("SELECT * FROM message ORDER BY id")
  if not rows then return nil, err end
  sequence, err = db:query("SELECT seq FROM sqlite_sequence WHERE name = 'message'")
  if not sequence then return nil, err end
  local list = {}
  for _, row in ipairs(rows) do
    row.envelope = json.decode(row.envelope)
    if type(row.envelope) == "table" then list[#list + 1] = row end
  end
  return list, (sequence[1] and sequence[1].seq or 0) + 1
end

---@async
function Store:close() self.db:close() end

local store = {}

--- Opens a file, or makes it; nobody else may have it.
---@async
---@param path string
---@return smtp.Store? store
---@return cosocket.Error? err `io`
function store.open(path)
  local db, err = sqlite.open(path, { schema = SCHEMA, application_id = APPLICATION_ID, exclusive = true })
  if not db then return nil, err end
  return setmetatable({ db = db }, Store)
end

return store
