--- smtp: mail from a device, delivered safely.
---
---     local smtp = require("smtp")
---
---     assert(smtp.send("smtp://device:secret@mail.example", {
---       from = "Hall 3 <hall3@example.org>",
---       to = "service@example.org",
---       subject = "Störung",
---       text = "Pump 7 does not answer.",
---       attachments = { "/var/log/pump7.log" },
---     }))
---
--- `smtp://` is TLS by STARTTLS (port 587) unless told otherwise, `smtps://` is TLS from the first byte (port 465). A
--- password is never sent without TLS. Errors have the server's own words: `code` (550), `status` ("5.1.1"), `reason`;
--- `retry` says whether the same may go well later.

local address = require("smtp.address")
local connect = require("smtp.connect")
local messages = require("smtp.message")

local smtp = {}

--- Connects, begins TLS, and logs in.
---@async
---@param where string|smtp.Dial `smtp://user:password@host:port`, `smtps://...`, a connected stream, or a function that connects.
---@param options? smtp.Options
---@return smtp.Client? client
---@return cosocket.Error? err `resolve`, `connect`, `tls`, `timeout`, `refused` with `code` and `status`, `protocol`
function smtp.connect(where, options)
  local target = connect.target("smtp.connect", where, options)
  return connect.open(target)
end

--- Sends one message over a connection of its own.
---@async
---@param where string|smtp.Dial
---@param message smtp.Message
---@param options? smtp.Options
---@return smtp.Result? result
---@return cosocket.Error? err
function smtp.send(where, message, options)
  local aim = connect.target("smtp.send", where, options)
  -- What is wrong with a message is told before anybody is asked, and whether or not the server is there.
  messages.check(message, 2)
  local composed, err = messages.compose(message, { dkim = aim.options.dkim or nil })
  if not composed then return nil, err end
  local one, result
  one, err = connect.open(aim)
  if not one then return nil, err end
  result, err = one:send_ready(composed, {}, true)
  one:close()
  return result, err
end

--- Connections that are opened when they are needed, kept, and opened again when the server has closed them.
---@param where string|fun(): cosocket.Stream?, cosocket.Error?
---@param options? smtp.PoolOptions
---@return smtp.Pool
function smtp.pool(where, options)
  -- Loaded when it is wanted: most scripts send a mail and are done.
  return require("smtp.pool").new(where, options)
end

--- Messages that are kept in a file until the server has them.
---@async
---@param path string
---@param where string|fun(): cosocket.Stream?, cosocket.Error?
---@param options? smtp.OutboxOptions
---@return smtp.Outbox? outbox
---@return cosocket.Error? err
function smtp.outbox(path, where, options)
  return require("smtp.outbox").open(path, where, options)
end

--- Takes an address apart, and checks it: `"Jo Doe <jo@example.org>"`.
smtp.parse_address = address.parse

return smtp
