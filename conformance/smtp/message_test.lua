-- A table of messages: each is sent to aiosmtpd, and to a server that passes it on; what arrives is read by Python's
-- `email` package and compared with what was given.
local cosocket = require("cosocket")
local crypto = require("crypto")
local hex = require("hex")
local server = require("server")
local test = require("test")

local FROM = { name = "Halle 3", address = "hall3@example.test" }

local function repeated(text, count) return text:rep(count) end

--- Bytes of every value, in an order that is nobody's.
local function bytes(count)
  local made, state = {}, 12345
  for i = 1, count do
    state = (state * 1103515245 + 12345) & 0x7fffffff
    made[i] = string.char(state >> 16 & 0xff)
  end
  return table.concat(made)
end

local function recipients(count)
  local list = {}
  for i = 1, count do list[i] = ("user%d@example.test"):format(i) end
  return list
end

local KILOBYTES = bytes(100000)

--- By what is special about it. `check` sees what arrived, besides what is always compared.
---@type table<string, table>
local MESSAGES = {
  -- Bodies
  ["an empty body"] = { text = "" },
  ["no body at all"] = {},
  ["one line without an end"] = { text = "one line" },
  ["one line"] = { text = "one line\n" },
  ["lines that end in LF"] = { text = "one\ntwo\n\nfour\n" },
  ["lines that end in CRLF"] = { text = "one\r\ntwo\r\n" },
  ["lines that end in CR"] = { text = "one\rtwo\r" },
  ["empty lines at the end"] = { text = "one\n\n\n\n" },
  ["empty lines at the beginning"] = { text = "\n\n\none\n" },
  ["only empty lines"] = { text = "\n\n\n" },
  ["a dot"] = { text = ".\n" },
  ["a dot without an end"] = { text = "." },
  ["dots at line starts"] = { text = ".one\n..two\n...three\n.\n..\nend.\n" },
  ["dots and encoded text"] = { text = ".ü\n..ä\n.\n" },
  ["lines that begin with From"] = { text = "From here\n>From there\nFrom nowhere\n" },
  ["spaces at line ends"] = { text = "one  \ntwo\t\n   \nthree" },
  ["a line of 998 bytes"] = { text = repeated("x", 998) .. "\n" },
  ["a line of 999 bytes"] = { text = repeated("x", 999) .. "\n" },
  ["a line of 100,000 bytes"] = { text = repeated("0123456789", 10000) .. "\n" },
  ["a line of 100,000 spaces"] = { text = repeated(" ", 100000) .. "\n" },
  ["equals signs and soft breaks"] = { text = "a=b=c=\n=\n==3D=20\nü=\n" },
  ["what looks like a boundary"] = { text = "--=_\n--\n--=_x--\nü\n", attachments = { { content = "x", name = "x.txt" } } },
  ["control characters"] = { text = "a\1b\27[31mc\127\n" },
  ["a NUL"] = { text = "a\0b\n" },
  ["many lines"] = { text = repeated("a line that is as long as lines are\n", 20000) },

  -- Scripts
  ["German"] = { subject = "Störung an Pumpe 7", text = "Größe überschritten: 7 °C\n" },
  ["Russian"] = { subject = "Авария насоса", text = "Насос не отвечает.\n" },
  ["Greek"] = { subject = "Βλάβη αντλίας", text = "Η αντλία δεν αποκρίνεται.\n" },
  ["Chinese"] = { subject = "水泵故障", text = "七号水泵没有响应。\n" },
  ["Japanese"] = { subject = "ポンプの異常", text = "七号ポンプが応答しません。\n" },
  ["Korean"] = { subject = "펌프 고장", text = "7번 펌프가 응답하지 않습니다.\n" },
  ["Thai"] = { subject = "ปั๊มขัดข้อง", text = "ปั๊มไม่ตอบสนอง\n" },
  ["Hindi"] = { subject = "पंप की खराबी", text = "पंप उत्तर नहीं दे रहा।\n" },
  ["Arabic, right to left"] = { subject = "عطل في المضخة", text = "المضخة لا تستجيب.\n" },
  ["Hebrew, right to left"] = { subject = "תקלה במשאבה", text = "המשאבה אינה מגיבה.\n" },
  ["emoji"] = { subject = "🚨 Pump 7 🔥", text = "👩🏽‍🔧 is on her way 🏳️‍🌈\n" },
  ["combining letters"] = { subject = "e\u{301}e\u{301}", text = "n\u{303}\u{323}\n" },
  ["letters beyond the first plane"] = { subject = "𝔓𝔲𝔪𝔭 𒀀𓀀", text = "𝔓\n" },
  ["a script for every word"] = { subject = "Pump насос 水泵 مضخة 🚰 pump", text = "mixed\n" },

  -- Subjects and headers
  ["an empty subject"] = { subject = "" },
  ["no subject"] = { text = "x" },
  ["a long subject"] = { subject = repeated("a subject that goes on ", 30) .. "end" },
  ["a long subject that is not ASCII"] = { subject = repeated("Störung ", 60) .. "Ende" },
  ["a long word in the subject"] = { subject = repeated("x", 300) },
  ["a long word that is not ASCII in the subject"] = { subject = repeated("ß", 300) },
  ["emoji without a space in the subject"] = { subject = repeated("🔥", 100) },
  ["what looks like an encoded word"] = { subject = "=?utf-8?Q?no?= and =?x" },
  ["quotes and commas in the subject"] = { subject = [["a", b; c: <d> (e) \f]] },
  ["headers of one's own"] = {
    headers = { { "X-Device", "Gerät 7" }, { "X-Line", repeated("a long value ", 20) .. "end" }, { "X-Empty", "x" } },
    check = function(arrived)
      local found = {}
      for _, pair in ipairs(arrived.headers) do found[pair[1]] = pair[2] end
      test.equal(found["X-Device"], "Gerät 7")
      test.equal(found["X-Line"], repeated("a long value ", 20) .. "end")
    end,
  },
  ["priority and replies"] = {
    priority = "high",
    in_reply_to = "one@example.test",
    references = { "zero@example.test", "one@example.test" },
    check = function(arrived)
      local found = {}
      for _, pair in ipairs(arrived.headers) do found[pair[1]] = pair[2] end
      test.equal(found["In-Reply-To"], "<one@example.test>")
      test.equal(found["References"], "<zero@example.test> <one@example.test>")
      test.equal({ found["X-Priority"], found["Importance"] }, { "1", "high" })
    end,
  },
  ["a date of long ago"] = { date = 951782400, text = "leap day\n" },

  -- People
  ["a name with a comma"] = { to = { { name = "Doe, Jo", address = "jo@example.test" } } },
  ["a name with quotes and backslashes"] = { to = { { name = [[Jo "the \ one" Doe]], address = "jo@example.test" } } },
  ["a name in another script"] = { to = { { name = "山田太郎", address = "yamada@example.test" } } },
  ["a name that is long and not ASCII"] = {
    to = { { name = repeated("Jörg-Müller ", 12) .. "Ende", address = "jo@example.test" } },
  },
  ["a name with brackets and parentheses"] = { to = { { name = "Jo <x> (y) [z]", address = "jo@example.test" } } },
  ["a name like an address"] = { to = { { name = "jo@example.test", address = "jo@example.test" } } },
  ["a name with emoji"] = { from = { name = "Pump 🚰", address = "pump@example.test" } },
  ["an address with a quoted local part"] = { to = { '"jo doe"@example.test' } },
  ["an address with every sign of an atom"] = { to = { "!#$%&'*+/=?^_`{|}~-@example.test" } },
  ["several in every field"] = {
    to = { "a@example.test", "B <b@example.test>" },
    cc = "c@example.test, D <d@example.test>",
    bcc = { "e@example.test" },
    reply_to = "r@example.test, S <s@example.test>",
  },
  ["100 recipients"] = { to = recipients(100) },
  ["100 recipients, all hidden"] = { to = "list@example.test", bcc = recipients(99) },

  -- Parts
  ["text and HTML"] = { text = "plain ü\n", html = "<p>html ü</p>\n" },
  ["HTML only"] = { html = "<html><body>" .. repeated("<p>ü</p>", 500) .. "</body></html>" },
  ["HTML with pictures"] = {
    text = "see the picture\n",
    html = '<img src="cid:plot@device"><img src="cid:logo">\n',
    inline = {
      { cid = "plot@device", content = "<svg xmlns='http://www.w3.org/2000/svg'/>", name = "plot.svg" },
      { cid = "logo", content = bytes(5000), name = "logo.png" },
    },
  },
  ["an attachment of every byte"] = { text = "x\n", attachments = { { content = KILOBYTES, name = "data.bin" } } },
  ["an attachment without a text"] = { attachments = { { content = "a;b\n", name = "readings.csv" } } },
  ["an empty attachment"] = { text = "x\n", attachments = { { content = "", name = "empty.txt" } } },
  ["attachments of every length around a line"] = {
    text = "x\n",
    attachments = {
      { content = bytes(55), name = "55" }, { content = bytes(56), name = "56" }, { content = bytes(57), name = "57" },
      { content = bytes(58), name = "58" }, { content = bytes(113), name = "113" }, { content = bytes(114), name = "114" },
    },
  },
  ["an attachment with a name that is not ASCII"] = {
    text = "x\n",
    attachments = { { content = "x", name = "Übersicht für März.csv" }, { content = "y", name = "報告書.pdf" } },
  },
  ["an attachment with a long name"] = {
    text = "x\n",
    attachments = { { content = "x", name = repeated("ein-langer-name-", 12) .. ".txt" }, { content = "y", name = repeated("日本", 60) .. ".txt" } },
  },
  ["an attachment with a name full of signs"] = {
    text = "x\n",
    attachments = { { content = "x", name = [[a "b" \ c; d=e, 'f' (g) %20 *.txt]] } },
  },
  ["a description, and a type of its own"] = {
    text = "x\n",
    attachments = { { content = "x", name = "x.dat", type = "application/x-readings", description = "Messwerte März" } },
  },
  ["an invitation"] = {
    text = "come\n",
    calendar = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nMETHOD:REQUEST\r\nEND:VCALENDAR\r\n",
    check = function(arrived)
      local part = arrived.parts[2]
      test.equal({ part.type, part.method }, { "text/calendar", "REQUEST" })
    end,
  },
  ["a message in a message"] = {
    text = "see below\n",
    attachments = {
      { content = "From: x@example.test\r\nSubject: inside\r\n\r\n.one\r\n\r\ntwo\r\n", name = "inside.eml" },
    },
  },
  ["everything at once"] = {
    text = "text ü\n",
    html = "<b>ü</b><img src='cid:x'>",
    inline = { { cid = "x", content = bytes(3000), name = "x.png" } },
    alternatives = { { type = "text/x-amp-html", content = "<html ⚡>\n" } },
    calendar = "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n",
    attachments = { { content = bytes(100), name = "a.bin" }, { content = bytes(200), name = "b.bin" } },
  },
}

local function addresses(given)
  local list = {}
  if given == nil then return list end
  for _, one in ipairs(type(given) == "table" and not given.address and given or { given }) do
    if type(one) == "table" then
      list[#list + 1] = { one.name or "", one.address }
    else
      for word in one:gmatch("[^,]+") do
        local name, address = word:match("^%s*(.-)%s*<(.+)>%s*$")
        list[#list + 1] = { name or "", address or word:match("^%s*(.-)%s*$") }
      end
    end
  end
  return list
end

--- What is wanted of the parts, in the order they are read.
local function wanted_parts(given)
  local list = {}
  local function text(content) list[#list + 1] = { content = content, text = true } end
  local function file(one) list[#list + 1] = { content = one.content, name = one.name, type = one.type, cid = one.cid } end
  local none = not (given.html or given.attachments)
  if given.text or none then text(given.text or "") end
  if given.html then text(given.html) end
  for _, one in ipairs(given.inline or {}) do file(one) end
  for _, one in ipairs(given.alternatives or {}) do text(one.content) end
  if given.calendar then text(given.calendar) end
  for _, one in ipairs(given.attachments or {}) do file(one) end
  return list
end

--- Line ends as they travel. A message ends with one, even if its text does not.
local function lines(text) return (text:gsub("\r\n", "\n"):gsub("\r", "\n")) end

local function compare(given, arrived, single)
  test.equal(arrived.defects, {})
  test.equal(arrived.ascii_headers, true)
  test.equal(arrived.bare, false)
  assert(arrived.line_max <= 998, arrived.line_max)
  test.equal(arrived.subject, given.subject)
  test.equal(arrived.from, addresses(given.from or FROM))
  test.equal(arrived.to, addresses(given.to or "to@example.test"))
  test.equal(arrived.cc, addresses(given.cc))
  test.equal(arrived.reply_to, addresses(given.reply_to))
  if given.date then test.equal(arrived.date, given.date) end
  for _, pair in ipairs(arrived.headers) do test.not_equal(pair[1]:lower(), "bcc") end
  local wanted = wanted_parts(given)
  test.equal(#arrived.parts, #wanted)
  for i, part in ipairs(arrived.parts) do
    local want = wanted[i]
    if want.text then
      local got = part.content and server.content(part)
      if got then
        got = lines(got)
        local expected = lines(want.content)
        if single and expected:sub(-1) ~= "\n" and got == expected .. "\n" then got = expected end
        test.equal(got, expected)
      else
        -- Too large to be sent back: its line ends are CRLF, or LF out of base64.
        local digests = { [hex.encode(crypto.sha256((lines(want.content):gsub("\n", "\r\n"))))] = true }
        assert(digests[part.sha256], "another text")
      end
    elseif part.type == "message/rfc822" then
      test.equal(lines(server.content(part)), lines(want.content))
    else
      test.equal(part.sha256, hex.encode(crypto.sha256(want.content)), "content of part " .. i)
      test.equal(part.filename, want.name)
      test.equal(part.disposition, want.cid and "inline" or "attachment")
      if want.type then test.equal(part.type, want.type) end
      if want.cid then test.equal(part.cid, "<" .. want.cid .. ">") end
    end
  end
  if given.check then given.check(arrived) end
end

local cases = {}
for name, given in pairs(MESSAGES) do
  for _, way in ipairs(server.ways) do
    local title = ("%s, %s"):format(name, way == "sink" and "straight" or "through " .. server.name)
    cases[title] = function()
      local client <close> = server.client(way)
      local message = { from = FROM, to = "to@example.test", message_id = server.identifier() }
      for field, value in pairs(given) do
        if field ~= "check" then message[field] = value end
      end
      local result = assert(client:send(message))
      test.equal(result.refused, {})
      local arrived = server.arrived(message.message_id)
      compare(given, arrived, #wanted_parts(given) == 1 and not given.attachments)
      local seen = {}
      for _, recipient in ipairs(arrived.recipients) do seen[recipient:lower()] = true end
      for _, recipient in ipairs(result.accepted) do assert(seen[recipient:lower()], recipient .. " is missing") end
    end
  end
end

cases["there are more than 60 messages"] = function()
  local count = 0
  for _ in pairs(MESSAGES) do count = count + 1 end
  assert(count >= 60, count)
end

cases["the same messages over one connection"] = function()
  local client <close> = server.client("plain")
  local names = {}
  for name in pairs(MESSAGES) do names[#names + 1] = name end
  table.sort(names)
  local began = cosocket.now()
  for _, name in ipairs(names) do
    local message = { from = FROM, to = "to@example.test", message_id = server.identifier() }
    for field, value in pairs(MESSAGES[name]) do
      if field ~= "check" then message[field] = value end
    end
    assert(client:send(message))
  end
  assert(cosocket.now() - began < 60)
end

return cases
