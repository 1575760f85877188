-- A device that mails a report every day, and loses none while its network is away: an outbox keeps them in a file.
--
--     moonwire examples/daily_report.lua
--
-- Three days are played here in a moment. On the first the mail server is down; the report waits in the outbox, and the
-- device is switched off. On the second it starts again, and both reports arrive. On the third one of two people has
-- moved away, and the device hears of it.

local cosocket = require("cosocket")
local sink = require("smtp.sink")
local smtp = require("smtp")

local PATH = os.tmpname()
os.remove(PATH)

--- A day's readings, as a file that spreadsheets read.
local function readings_of(day)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write("hour;temperature;pressure\n")
  for hour = 0, 23 do
    file:write(("%02d;%.1f;%.2f\n"):format(hour, 20 + 5 * math.sin(hour / 4) + day, 1.01 + hour / 1000))
  end
  file:close()
  return path
end

local function open(url)
  return assert(smtp.outbox(PATH, url, {
    starttls = "off",
    retry_delay = 5,
    on_sent = function(entry, result)
      print(("  report %d is sent to %s"):format(entry.id, table.concat(result.accepted, ", ")))
    end,
    on_failed = function(entry, refused)
      for _, one in ipairs(refused) do
        print(("  report %d does not reach %s: %d %s"):format(entry.id, one.address, one.code, one.text))
      end
    end,
  }))
end

local function report(outbox, day)
  local path = readings_of(day)
  local id = assert(outbox:put({
    from = "Hall 3 <hall3@example.org>",
    to = { "Service <service@example.org>", "old@example.org" },
    subject = ("Report of day %d"):format(day),
    text = ("The readings of day %d are attached.\n"):format(day),
    attachments = { { path = path, name = ("readings-%d.csv"):format(day) } },
  }))
  -- It is in the outbox now: the file is not needed any more.
  os.remove(path)
  print(("  report %d is in the outbox"):format(id))
end

print("day 1: the mail server is down")
local nobody = assert(cosocket.listen("tcp://127.0.0.1:0"))
local dead = "smtp://" .. nobody:local_address()
nobody:close()
local outbox = open(dead)
report(outbox, 1)
cosocket.sleep(0.1)
print(("  %d waits"):format(outbox:status().waiting))
outbox:close()

print("day 2: it is back")
local moved = false
local server = assert(sink.listen("tcp://127.0.0.1:0", {
  on_command = function(_, line)
    return moved and line:find("^RCPT TO:<old@") and "550 5.1.6 has moved away" or nil
  end,
}))
outbox = open("smtp://" .. server:address())
assert(cosocket.deadline(30, outbox.wait_empty, outbox))
report(outbox, 2)
assert(cosocket.deadline(30, outbox.wait_empty, outbox))

print("day 3: somebody has moved away")
moved = true
report(outbox, 3)
assert(cosocket.deadline(30, outbox.wait_empty, outbox))
outbox:close()

print("what the server has:")
for _, message in ipairs(server.messages) do
  print(("  %s, with %s, for %d"):format(
    message.data:match("\nSubject: ([^\r]+)"),
    message.data:match('filename="([^"]+)"'),
    #message.recipients
  ))
end
for _, ending in ipairs({ "", "-wal", "-shm" }) do os.remove(PATH .. ending) end
os.exit(0)
