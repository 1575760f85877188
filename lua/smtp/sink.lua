--- smtp.sink: a small mail server for development and tests. It takes what it is sent, keeps it in memory, and delivers
--- nothing anywhere.
---
---     local sink = require("smtp.sink")
---     local server = assert(sink.listen("tcp://127.0.0.1:0"))
---     smtp.send("smtp://" .. server:address(), message, { starttls = "off" })
---     print(server.messages[1].data)

local acceptor = require("net.acceptor")
local base64 = require("base64")
local cosocket = require("cosocket")
local listening = require("net.listening")
local log = require("log").new("smtp.sink")
local trace = require("net.trace")

--- Bytes of a command line.
local LINE_MAX = 4096
--- Bytes of a message, unless an option says otherwise.
local SIZE_MAX = 64 * 1024 * 1024
--- Messages that are kept; the oldest goes.
local KEPT = 1000

---@class smtp.sink.Options
---@field tls? cosocket.TlsServerOptions With it STARTTLS is offered, or TLS is spoken at once on `tls://`.
---@field users? table<string, string> Names and passwords: AUTH PLAIN and LOGIN are offered, and needed.
---@field extensions? string[] What EHLO offers besides STARTTLS and AUTH. Default: PIPELINING, SIZE, 8BITMIME, SMTPUTF8, CHUNKING, DSN, ENHANCEDSTATUSCODES.
---@field size_max? integer Bytes of a message. Default 67108864.
---@field keep? boolean Keep messages in `messages`. Default `true`.
---@field on_message? fun(message: smtp.sink.Message): string? May answer a reply of its own, such as "451 4.3.0 later".
---@field on_command? fun(verb: string, line: string): string? The same for any command.

---@class smtp.sink.Message
---@field sender string
---@field recipients string[]
---@field parameters string Of MAIL.
---@field data string The message, with CRLF and without doubled dots.
---@field tls boolean
---@field user string?

---@class smtp.sink.Server
---@field messages smtp.sink.Message[]
---@field connections integer How many there have been.
---@field private listener cosocket.Listener?
---@field private options smtp.sink.Options
local Server = {}
Server.__index = Server

local EXTENSIONS = { "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES" }

---@class smtp.sink.Peer
---@field server smtp.sink.Server
---@field stream cosocket.Stream
---@field tls boolean
---@field user string?
---@field sender string?
---@field parameters string
---@field recipients string[]
---@field chunks cosocket.Buffer
local Peer = {}
Peer.__index = Peer

---@param peer smtp.sink.Peer
local function forget(peer)
  peer.sender, peer.parameters, peer.recipients = nil, "", {}
  peer.chunks:clear()
end

--- Keeps a message that has come.
---@param peer smtp.sink.Peer
---@param data string
---@return string reply
local function take(peer, data)
  local server = peer.server
  local options = server.options
  if #data > (options.size_max or SIZE_MAX) then
    forget(peer)
    return "552 5.3.4 the message is too large"
  end
  ---@type smtp.sink.Message
  local message = {
    sender = peer.sender --[[@as string]],
    recipients = peer.recipients,
    parameters = peer.parameters,
    data = data,
    tls = peer.tls,
    user = peer.user,
  }
  forget(peer)
  local reply = options.on_message and options.on_message(message)
  if reply then return reply end
  if options.keep ~= false then
    local messages = server.messages
    messages[#messages + 1] = message
    if #messages > KEPT then table.remove(messages, 1) end
  end
  return "250 2.0.0 taken"
end

---@param peer smtp.sink.Peer
---@param name string?
---@param password string?
---@return string
local function log_in(peer, name, password)
  local users = peer.server.options.users or {}
  if not name or users[name] == nil or users[name] ~= password then return "535 5.7.8 wrong name or password" end
  peer.user = name
  return "235 2.7.0 welcome"
end

---@type table<string, fun(peer: smtp.sink.Peer, argument: string): string?>
local COMMANDS = {}

function COMMANDS.EHLO(peer)
  forget(peer)
  local options = peer.server.options
  local lines = { "sink" }
  for _, extension in ipairs(options.extensions or EXTENSIONS) do
    lines[#lines + 1] = extension == "SIZE" and ("SIZE %d"):format(options.size_max or SIZE_MAX) or extension
  end
  if options.tls and not peer.tls then lines[#lines + 1] = "STARTTLS" end
  if options.users then lines[#lines + 1] = "AUTH PLAIN LOGIN" end
  for i, line in ipairs(lines) do lines[i] = (i < #lines and "250-" or "250 ") .. line end
  return table.concat(lines, "\r\n")
end

function COMMANDS.HELO(peer)
  forget(peer)
  return "250 sink"
end

function COMMANDS.STARTTLS(peer)
  local options = peer.server.options
  if not options.tls or peer.tls then return "502 5.5.1 no TLS here" end
  peer.stream:write("220 2.0.0 go ahead\r\n")
  local tls = { server = true }
  for name, value in pairs(options.tls) do tls[name] = value end
  if not peer.stream:start_tls(tls) then return nil end
  forget(peer)
  peer.tls = true
  return ""
end

function COMMANDS.AUTH(peer, argument)
  local mechanism, initial = argument:match("^(%S+) ?(%S*)$")
  local function ask(challenge)
    peer.stream:write("334 ", base64.encode(challenge), "\r\n")
    local line = peer.stream:read_line(LINE_MAX)
    return line and base64.decode(line)
  end
  mechanism = (mechanism or ""):upper()
  if mechanism == "PLAIN" then
    local response = initial ~= "" and base64.decode(initial) or ask("")
    return log_in(peer, (response or ""):match("^[^\0]*\0([^\0]*)\0(.*)$"))
  elseif mechanism == "LOGIN" then
    local name = initial ~= "" and base64.decode(initial) or ask("Username:")
    return log_in(peer, name, ask("Password:"))
  end
  return "504 5.5.4 no such mechanism"
end

function COMMANDS.MAIL(peer, argument)
  if peer.server.options.users and not peer.user then return "530 5.7.0 log in first" end
  if peer.sender then return "503 5.5.1 one sender is enough" end
  local sender, parameters = argument:match("^[Ff][Rr][Oo][Mm]:<(.-)>(.*)$")
  if not sender then return "501 5.5.4 MAIL FROM:<address>" end
  peer.sender, peer.parameters = sender, parameters:match("^ ?(.*)$")
  return "250 2.1.0 go on"
end

function COMMANDS.RCPT(peer, argument)
  local recipient = argument:match("^[Tt][Oo]:<(.+)>")
  if not peer.sender then return "503 5.5.1 MAIL comes first" end
  if not recipient then return "501 5.5.4 RCPT TO:<address>" end
  table.insert(peer.recipients, recipient)
  return "250 2.1.5 go on"
end

function COMMANDS.DATA(peer)
  if #peer.recipients == 0 then return "554 5.5.1 for nobody" end
  peer.stream:write("354 end with a dot\r\n")
  -- The dot may be the first line, and no line end is before it then.
  local most = (peer.server.options.size_max or SIZE_MAX) + LINE_MAX
  local data = peer.stream:read(3)
  if not data then return nil end
  if data == ".\r\n" then
    data = ""
  else
    local rest = peer.stream:read_until("\r\n.\r\n", most)
    if not rest then return nil end
    data = (data .. rest):sub(1, -4)
  end
  return take(peer, (("\r\n" .. data):gsub("\r\n%.", "\r\n"):sub(3)))
end

function COMMANDS.BDAT(peer, argument)
  local size, last = argument:match("^(%d+)( ?%a*)$")
  size = math.tointeger(tonumber(size or ""))
  if not size or size > (peer.server.options.size_max or SIZE_MAX) then return nil end
  local data = size > 0 and peer.stream:read(size) or ""
  if not data then return nil end
  if #peer.recipients == 0 then return "503 5.5.1 for nobody" end
  peer.chunks:append(data)
  if #peer.chunks > (peer.server.options.size_max or SIZE_MAX) then return nil end
  if last:upper() ~= " LAST" then return "250 2.0.0 go on" end
  return take(peer, peer.chunks:take() or "")
end

function COMMANDS.RSET(peer)
  forget(peer)
  return "250 2.0.0 forgotten"
end

function COMMANDS.NOOP()
  return "250 2.0.0 still here"
end

--- Serves a stream that is connected to a client, until it ends.
---@async
---@param stream cosocket.Stream
---@param tls? boolean It is TLS already.
function Server:serve(stream, tls)
  trace.attach(stream, "smtp", "server")
  local peer = setmetatable({ server = self, stream = stream, tls = tls or false, chunks = cosocket.buffer() }, Peer)
  forget(peer)
  self.connections = self.connections + 1
  stream:write("220 sink\r\n")
  while true do
    local line = stream:read_line(LINE_MAX)
    if not line then break end
    local verb, argument = line:match("^(%a+) ?(.*)$")
    verb = (verb or ""):upper()
    local hook = self.options.on_command
    local reply = hook and hook(verb, line)
    if not reply and verb == "QUIT" then
      stream:write("221 2.0.0 bye\r\n")
      break
    end
    if not reply then
      local command = COMMANDS[verb]
      if command then
        reply = command(peer, argument)
      else
        reply = "500 5.5.1 what?"
      end
    end
    if not reply then break end
    if reply ~= "" then stream:write(reply, "\r\n") end
    -- RFC 5321, 3.8: with it the server goes.
    if reply:find("^421") then break end
  end
  stream:close()
end

---@return string
function Server:address()
  return (self.listener --[[@as cosocket.Listener]]):local_address()
end

--- Listens no more; connections go on to their end.
function Server:close()
  if self.listener then self.listener:close() end
end

local OPTIONS = {
  tls = "tls_server",
  users = "table",
  extensions = "table",
  size_max = "integer",
  keep = "boolean",
  on_message = "function",
  on_command = "function",
}

local sink = {}

--- Makes a server.
---@param address string?
---@param options smtp.sink.Options?
---@param level integer As of `error`, from the caller.
---@return smtp.sink.Server
local function make(address, options, level)
  options = cosocket.check_options("smtp.sink", options, OPTIONS, level + 1)
  listening.check("smtp.sink", address, options.tls, level + 1)
  return setmetatable({ messages = {}, connections = 0, options = options }, Server)
end

--- A server that listens nowhere: give it streams with `serve`.
---@param options? smtp.sink.Options
---@return smtp.sink.Server
function sink.new(options)
  local server = make(nil, options, 2)
  return server
end

--- Listens: `"tcp://127.0.0.1:0"`, or `"tls://..."` for TLS at once.
---@async
---@param address string
---@param options? smtp.sink.Options
---@return smtp.sink.Server? server
---@return cosocket.Error? err
function sink.listen(address, options)
  local server = make(address, options, 2)
  local implicit = address:find("^tls://") ~= nil
  local listener, err = cosocket.listen(address, { tls = implicit and server.options.tls or nil })
  if not listener then return nil, err end
  server.listener = listener
  cosocket.spawn("mail sink", acceptor.take_all, listener, log, function(_, stream)
    cosocket.spawn("mail sink's client", server.serve, server, stream, implicit)
  end, server)
  return server
end

return sink
