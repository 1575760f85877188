--- mqtt.store: the journal of a session, in a file that survives a killed process and a loss of power.
---
--- The session notes what it does (`add`, `sent`, `remove` ...), which costs memory only; `commit` brings everything
--- noted before it to the disk, all of it or nothing. What is noted and taken back between two commits never
--- gets there. It reads no clock and knows no packet.

local cosocket = require("cosocket")
local sqlite = require("sqlite")
local values = require("mqtt.store.value")

--- Marks the file as a session of MQTT ("MWMQ").
local APPLICATION_ID = 0x4D574D51
--- Seconds to wait for a program that is about to let go of the file.
local BUSY_TIMEOUT = 1
--- Messages read at once when a journal is opened.
local PAGE = 1000
--- Pages that lie unused before an opened file is made smaller: 10 MiB.
local UNUSED_MAX = 2560

--- From nothing to version 1, from 1 to 2, ...: steps that have been published stay as they are.
local SCHEMA = {
  [[
    CREATE TABLE session(id INTEGER PRIMARY KEY CHECK (id = 1), client_id NOT NULL);
    CREATE TABLE outgoing(
      seq INTEGER PRIMARY KEY, packet_id INTEGER, state INTEGER NOT NULL, topic NOT NULL, payload NOT NULL,
      qos INTEGER NOT NULL, retain INTEGER NOT NULL, properties, expires_at REAL
    );
    CREATE TABLE received(packet_id INTEGER PRIMARY KEY);
  ]],
}

local STATES = { [0] = "waiting", [1] = "sent", [2] = "released" }
local NUMBERS = { waiting = 0, sent = 1, released = 2 }

-- All of them may be run again: whether a commit that was given up has happened is not known.
local ADD = "INSERT OR REPLACE INTO outgoing VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
local SENT = "UPDATE outgoing SET state = ?, packet_id = ? WHERE seq = ?"
local RELEASED = [[
  UPDATE outgoing SET state = 2, payload = '', properties = NULL, packet_id = coalesce(?, packet_id) WHERE seq = ?
]]
local REMOVE = "DELETE FROM outgoing WHERE seq = ?"
local RECEIVED = "INSERT OR IGNORE INTO received VALUES (?)"
local FORGET = "DELETE FROM received WHERE packet_id = ?"
local FORGET_ALL = "DELETE FROM received"
local IDENTIFY = "INSERT OR REPLACE INTO session VALUES (1, ?)"

-- The journal -------------------------------------------------------------------

--- A message that is not done with.
---@class mqtt.JournalEntry
---@field seq integer Its place in the order.
---@field packet_id integer?
---@field state "waiting"|"sent"|"released"? Not given to `add`, which notes a message that waits.
---@field topic string
---@field payload string Empty once released.
---@field qos mqtt.Qos
---@field retain boolean
---@field properties mqtt.Properties?
---@field expires_at number? Seconds since 1970.

--- What has been noted since the last commit began.
---@class mqtt.JournalNotes
---@field outgoing table<integer, table> By `seq`: an entry to add, a change of one, or its removal.
---@field received table<integer, boolean> By packet identifier: to be kept, or to be forgotten.
---@field forget_all boolean Everything received before these notes is to be forgotten first.
---@field client_id string?

---@class mqtt.Journal
---@field client_id string? Whose session it is; `nil` in a new file.
---@field last_seq integer The largest `seq` so far; 0 in a new file.
---@field private db sqlite.Database
---@field private loaded {outgoing: mqtt.JournalEntry[], received: integer[]}?
---@field private notes mqtt.JournalNotes
---@field private on_disk table<integer, true> The `seq` of messages that are, or may be, in the file.
---@field private received_on_disk table<integer, true> The same for packet identifiers.
---@field private noted integer Counts what was noted.
---@field private stored integer What `noted` was when the last commit that succeeded began.
---@field private round table? The commit that is under way.
local Journal = {}
Journal.__index = Journal

---@return mqtt.JournalNotes
local function new_notes()
  return { outgoing = {}, received = {}, forget_all = false }
end

--- What was in the file when it was opened. It is handed over: once.
---@return {outgoing: mqtt.JournalEntry[], received: integer[]} kept Messages in their order, and identifiers of QoS 2.
function Journal:load()
  local loaded = self.loaded
  if not loaded then error("the journal has handed over what it held", 2) end
  self.loaded = nil
  return loaded
end

---@private
function Journal:note(seq, change)
  self.noted = self.noted + 1
  self.notes.outgoing[seq] = change
end

--- Whose session it is.
---@param client_id string
function Journal:identify(client_id)
  if client_id == self.client_id then return end
  self.client_id, self.notes.client_id = client_id, client_id
  self.noted = self.noted + 1
end

--- A message of QoS 1 or 2 was accepted. Its properties are not to be changed before the next commit.
---@param entry mqtt.JournalEntry `seq` is larger than any before.
function Journal:add(entry)
  if entry.seq > self.last_seq then self.last_seq = entry.seq end
  self:note(entry.seq, {
    entry = entry,
    state = "waiting",
    packet_id = entry.packet_id,
  })
end

--- Notes where a message stands.
local function change(journal, seq, state, packet_id)
  local note = journal.notes.outgoing[seq]
  if note and not note.removed then
    if state == "released" then packet_id = packet_id or note.packet_id end
    journal:note(seq, { entry = note.entry, state = state, packet_id = packet_id })
  elseif not note then
    journal:note(seq, { state = state, packet_id = packet_id })
  end
end

--- A message was sent, under a packet identifier.
---@param seq integer
---@param packet_id integer
function Journal:sent(seq, packet_id)
  change(self, seq, "sent", packet_id)
end

--- A message is as if it had never been sent.
---@param seq integer
function Journal:unsent(seq)
  change(self, seq, "waiting", nil)
end

--- The other side owns a message of QoS 2; PUBREL is what is left to do. Its payload is dropped.
---@param seq integer
function Journal:released(seq)
  change(self, seq, "released", nil)
end

--- A message is done with.
---@param seq integer
function Journal:remove(seq)
  if self.on_disk[seq] then
    self:note(seq, { removed = true })
  else
    self.notes.outgoing[seq] = nil
  end
end

--- A message of QoS 2 was received under this identifier, and is not to be taken for a new one again.
---@param packet_id integer
function Journal:received(packet_id)
  self.noted = self.noted + 1
  self.notes.received[packet_id] = true
end

--- The identifier means nothing any more.
---@param packet_id integer
function Journal:forget(packet_id)
  if self.received_on_disk[packet_id] then
    self.noted = self.noted + 1
    self.notes.received[packet_id] = false
  else
    self.notes.received[packet_id] = nil
  end
end

--- No identifier means anything any more.
function Journal:forget_received()
  self.notes.received = {}
  if next(self.received_on_disk) and not self.notes.forget_all then
    self.noted = self.noted + 1
    self.notes.forget_all = true
  end
end

local function is_empty(notes)
  return not (next(notes.outgoing) or next(notes.received) or notes.forget_all or notes.client_id)
end

--- Whether everything noted is on the disk.
---@return boolean
function Journal:is_clean()
  return not self.round and is_empty(self.notes)
end

--- What brings notes to the disk, in the order of the messages.
local function statements_of(notes)
  local list = {}
  local function say(...) list[#list + 1] = { ... } end
  if notes.client_id then say(IDENTIFY, notes.client_id) end
  local order = {}
  for seq in pairs(notes.outgoing) do order[#order + 1] = seq end
  table.sort(order)
  for _, seq in ipairs(order) do
    local note = notes.outgoing[seq]
    local entry, is_released = note.entry, note.state == "released"
    if note.removed then
      say(REMOVE, seq)
    elseif entry then
      list[#list + 1] = {
        ADD, seq, note.packet_id, NUMBERS[note.state], entry.topic, is_released and "" or entry.payload, entry.qos,
        entry.retain, not is_released and entry.properties and values.pack(entry.properties) or nil, entry.expires_at,
      }
    elseif is_released then
      say(RELEASED, note.packet_id, seq)
    else
      say(SENT, NUMBERS[note.state], note.packet_id, seq)
    end
  end
  if notes.forget_all then say(FORGET_ALL) end
  for packet_id, keep in pairs(notes.received) do say(keep and RECEIVED or FORGET, packet_id) end
  return list
end

--- Puts notes whose commit has failed before those that have been made since.
local function put_back(journal, old)
  local new = journal.notes
  new.client_id = new.client_id or old.client_id
  for seq, before in pairs(old.outgoing) do
    local after = new.outgoing[seq]
    if not after then
      new.outgoing[seq] = before
    elseif not after.removed then
      after.entry = after.entry or before.entry
      if after.state == "released" then after.packet_id = after.packet_id or before.packet_id end
    end
  end
  if new.forget_all then return end
  new.forget_all = old.forget_all
  for packet_id, keep in pairs(old.received) do
    if new.received[packet_id] == nil then new.received[packet_id] = keep end
  end
end

local Round = {}

--- A commit has ended, well or not, or its task was cancelled.
function Round.__close(round)
  local journal, notes = round.journal, round.notes
  journal.round = nil
  if not round.ok then
    put_back(journal, notes)
  else
    journal.stored = round.upto
    for seq, note in pairs(notes.outgoing) do
      if note.removed then journal.on_disk[seq] = nil end
    end
    for packet_id, keep in pairs(notes.received) do
      if not keep then journal.received_on_disk[packet_id] = nil end
    end
  end
  round.done:set()
end

--- Writes what has been noted.
---@async
local function write(journal)
  local notes = journal.notes
  local round <close> = setmetatable({
    journal = journal, notes = notes, upto = journal.noted, done = cosocket.event(),
  }, Round)
  journal.round, journal.notes = round, new_notes()
  local statements = statements_of(notes)
  -- From now on they may be in the file, whatever becomes of the answer.
  for seq, note in pairs(notes.outgoing) do
    if note.entry then journal.on_disk[seq] = true end
  end
  if notes.forget_all then journal.received_on_disk = {} end
  for packet_id, keep in pairs(notes.received) do
    if keep then journal.received_on_disk[packet_id] = true end
  end
  local ok, err = true, nil
  if #statements > 0 then ok, err = journal.db:transaction(statements) end
  if ok then
    round.ok = true
    return true
  end
  err.op = "mqtt.store"
  -- A deadline is this task's own affair.
  if err.kind ~= "timeout" then round.err = err end
  return nil, err
end

--- Waits until everything noted before the call is on the disk. Calls at the same time share a commit.
---
--- After a failure everything noted stays noted, and a later commit tries again.
---@async
---@return true? ok
---@return cosocket.Error? err `io` with the code of `sqlite`, `closed`
function Journal:commit()
  local wanted = self.noted
  while self.stored < wanted do
    local round = self.round
    if not round then
      local ok, err = write(self)
      if not ok then return nil, err end
    else
      local ok, err = round.done:wait()
      if not ok then return nil, err end
      if round.err and round.upto >= wanted then return nil, round.err end
    end
  end
  return true
end

--- Closes the file. What was noted and not committed is lost. It may be called where nothing can wait, too.
---@async
---@return true
function Journal:close()
  -- Leaving a block closes even in a task that is cancelled.
  local db <close> = self.db
  return true
end

-- Opening -----------------------------------------------------------------------

local DAMAGED = "%s is damaged: message %d cannot be read; restore it from a copy, or move it away to begin a new one"
local OTHER_CLIENT = "%s holds the session of client %q, not of %q: use that client_id, or another file"

local function refusal(message, code)
  return cosocket.error("io", "mqtt.store", message, { code = code })
end

--- The message of a row.
---@return mqtt.JournalEntry? entry
local function entry_of(row)
  local properties
  if row.properties then
    properties = values.unpack(row.properties)
    if type(properties) ~= "table" then return nil end
  end
  local state = STATES[row.state]
  if not state or type(row.topic) ~= "string" or type(row.payload) ~= "string" then return nil end
  return {
    seq = row.seq,
    packet_id = row.packet_id,
    state = state,
    topic = row.topic,
    payload = row.payload,
    qos = row.qos,
    retain = row.retain ~= 0,
    properties = properties,
    expires_at = row.expires_at,
  }
end

--- Gives the system what a file holds and does not use; one that cannot be made smaller does as it is.
---@async
local function shrink(db)
  local unused, err = db:query("PRAGMA freelist_count")
  if not unused then return nil, err end
  if unused[1].freelist_count > UNUSED_MAX then db:exec("VACUUM") end
  return true
end

--- Reads everything.
---@async
---@return mqtt.Journal? journal
---@return cosocket.Error? err
local function read(db, path)
  local journal = setmetatable({
    db = db, last_seq = 0, notes = new_notes(), on_disk = {}, received_on_disk = {}, noted = 0, stored = 0,
  }, Journal)
  local ok, err = shrink(db)
  if not ok then return nil, err end
  local session, outgoing, received = nil, {}, {}
  session, err = db:query("SELECT client_id FROM session")
  if not session then return nil, err end
  journal.client_id = session[1] and session[1].client_id
  local rows
  local last = math.mininteger
  repeat
    rows, err = db:query("SELECT * FROM outgoing WHERE seq > ? ORDER BY seq LIMIT ?", last, PAGE)
    if not rows then return nil, err end
    for _, row in ipairs(rows) do
      local entry = entry_of(row)
      if not entry then
        return nil, refusal(DAMAGED:format(path, row.seq), "SQLITE_CORRUPT")
      end
      outgoing[#outgoing + 1] = entry
      journal.on_disk[row.seq] = true
      last = row.seq
    end
  until #rows < PAGE
  rows, err = db:query("SELECT packet_id FROM received ORDER BY packet_id")
  if not rows then return nil, err end
  for i, row in ipairs(rows) do
    received[i] = row.packet_id
    journal.received_on_disk[row.packet_id] = true
  end
  if #outgoing > 0 then journal.last_seq = math.max(0, last) end
  journal.loaded = { outgoing = outgoing, received = received }
  return journal
end

local store = {}

--- Opens the journal at `path`, and makes it if there is none. One program has it open at a time. A file that cannot be
--- used is refused and left as it is: see `sqlite.open`.
---@async
---@param path string
---@param client_id? string Whose session it must be, unless the file is new.
---@return mqtt.Journal? journal
---@return cosocket.Error? err `io`; its `code` is that of `sqlite.open`, or `"other_client_id"`
function store.open(path, client_id)
  local db, err = sqlite.open(path, {
    application_id = APPLICATION_ID,
    schema = SCHEMA,
    exclusive = true,
    check = true,
    busy_timeout = BUSY_TIMEOUT,
    result_max = math.maxinteger,
  })
  local journal
  if db then
    -- Whatever goes wrong, the file is let go.
    local guard <close> = setmetatable({}, {
      __close = function()
        if not journal then local closing <close> = db end
      end,
    })
    local found
    found, err = read(db, path)
    local known = found and found.client_id
    if client_id and known and known ~= client_id then
      err = refusal(OTHER_CLIENT:format(path, known, client_id), "other_client_id")
    else
      journal = found
    end
  end
  if not journal then
    err.op = "mqtt.store"
    return nil, err
  end
  return journal
end

return store
