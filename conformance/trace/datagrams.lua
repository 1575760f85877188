-- Sends datagrams to itself, so that what is traced of them can be looked at: STUN (RFC 8489), which is known by its first
-- bytes at any port.
--
--   moonwire --trace-file FILE conformance/trace/datagrams.lua    the password is in TALK_PASSWORD

local cosocket = require("cosocket")

local password = assert(os.getenv("TALK_PASSWORD"))
local BINDING_REQUEST, BINDING_RESPONSE, COOKIE = 0x0001, 0x0101, 0x2112A442
local SOFTWARE = 0x8022

--- A message with one attribute, a text.
local function message(kind, words)
  local attribute = string.pack(">I2s2", SOFTWARE, words) .. ("\0"):rep(-#words % 4)
  return string.pack(">I2I2I4", kind, #attribute, COOKIE) .. "transaction1" .. attribute
end

for _, host in ipairs({ "127.0.0.1", "[::1]" }) do
  local server <close> = assert(cosocket.udp({ bind = host .. ":0" }))
  local client <close> = assert(cosocket.udp({ connect = server:local_address() }))
  assert(client:send(message(BINDING_REQUEST, "password=" .. password:gsub(" ", "+"))))
  local asked, from = assert(server:receive())
  assert(#asked > 20)
  assert(server:send_to(message(BINDING_RESPONSE, "moonwire"), from))
  assert(client:receive())
end
