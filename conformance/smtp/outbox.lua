-- Puts messages into an outbox, delivers them, and ends when all are: whatever happens to it and to its server meanwhile.
--
--   moonwire conformance/smtp/outbox.lua FILE COUNT
--
-- It may be killed at any time and started again: which messages it has put, the outbox and a note beside it say.
local cosocket = require("cosocket")
local smtp = require("smtp")

--- Seconds between two messages: they are put while the server comes and goes.
local PAUSE = 0.03

local path, count = arg[1], tonumber(arg[2])
local url = os.getenv("MOONWIRE_SMTP_PLAIN_URL")

local in_doubt = 0
local outbox = assert(smtp.outbox(path, url, {
  starttls = "off",
  connections = 2,
  retry_delay = 0.2,
  retry_delay_max = 1,
  timeouts = { greeting = 10, command = 10, data = 10, done = 20 },
}))

--- How many have been put, as far as a note says: it is written after each, so that a kill costs one message twice put.
local note = path .. ".note"
local put = 0
local file = io.open(note)
if file then
  put = tonumber(file:read("a")) or 0
  file:close()
end
-- One that was put and not noted still waits, or has been delivered since.
for _, entry in ipairs(outbox:list()) do
  local number = tonumber(entry.message_id:match("^outbox%-(%d+)@"))
  if number and number > put then put = number end
end

for number = put + 1, count do
  assert(outbox:put({
    from = "device@example.test",
    to = "service@example.test",
    subject = ("Reading %d"):format(number),
    message_id = ("outbox-%d@moonwire.test"):format(number),
    text = ("x"):rep(1000),
  }))
  local new = assert(io.open(note .. ".new", "w"))
  new:write(number)
  new:close()
  assert(os.rename(note .. ".new", note))
  cosocket.sleep(PAUSE)
end
assert(outbox:wait_empty())
outbox:close()
print(("all %d are delivered"):format(count))
