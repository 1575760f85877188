local cosocket = require("cosocket")

function equal(actual, expected, note)
  if actual ~= expected then
    error(("expected %s, got %s%s"):format(tostring(expected), tostring(actual), note and " (" .. note .. ")" or ""), 2)
  end
end

function matches(text, pattern)
  if type(text) ~= "string" or not text:find(pattern) then
    error(("no %q in %s"):format(pattern, tostring(text)), 2)
  end
end

--- The answer is `nil` and an error of `kind`, with `code` if given.
function fails(kind, value, err, code)
  if value ~= nil then error(("did not fail: %s"):format(tostring(value)), 2) end
  if not cosocket.is_error(err, kind) then error(("not a %s error: %s"):format(kind, tostring(err)), 2) end
  if code and err.code ~= code then error(("the code is %s, not %s: %s"):format(err.code, code, err), 2) end
  return err
end

--- Calls `fn`, which must raise an `argument` error.
function mistaken(fn, ...)
  local ok, err = pcall(fn, ...)
  if ok or not cosocket.is_error(err, "argument") then error(("no argument error: %s"):format(tostring(err)), 2) end
  return err.message
end

--- Options of a server with one of the certificates.
function serving(name, options)
  local tls = { certificate = certs[name].certificate, key = certs[name].key }
  for key, value in pairs(options or {}) do tls[key] = value end
  return tls
end

--- Options of a client that trusts the authority.
function trusting(options)
  local tls = { ca = certs.ca.certificate }
  for key, value in pairs(options or {}) do tls[key] = value end
  return tls
end

--- A TLS connection over the loopback. Answers what `connect` did, and the other side: its stream and how its
--- handshake ended.
function meet(server, client, host)
  local listener <close> = assert(cosocket.listen("tls://127.0.0.1:0", { tls = server }))
  local port = listener:local_address():match(":(%d+)$")
  local far, ok, why
  local accepting = cosocket.spawn(function()
    far = assert(listener:accept())
    ok, why = far:handshake()
  end)
  local near, err = cosocket.connect(host or "127.0.0.1", tonumber(port), { tls = client, timeout = 10 })
  accepting:join()
  return near, err, far, ok, why
end
