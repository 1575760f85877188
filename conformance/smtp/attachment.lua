-- Sends a file and prints the most memory that took, in KiB.
--
--   moonwire conformance/smtp/attachment.lua SUBMISSION|PLAIN FILE
local smtp = require("smtp")

local login = {
  username = os.getenv("MOONWIRE_SMTP_USER"),
  password = os.getenv("MOONWIRE_SMTP_PASSWORD"),
  tls = { ca = os.getenv("MOONWIRE_SMTP_CA") },
}
assert(smtp.send(os.getenv(("MOONWIRE_SMTP_%s_URL"):format(arg[1])), {
  from = "a@example.test",
  to = "b@example.test",
  text = "see the file\n",
  attachments = { arg[2] },
}, arg[1] == "PLAIN" and { starttls = "off" } or login))
for line in io.lines("/proc/self/status") do
  local kib = line:match("^VmHWM:%s+(%d+)")
  if kib then print(kib) end
end
