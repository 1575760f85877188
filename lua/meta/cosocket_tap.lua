---@meta cosocket.tap

--- Hears what passes on streams and in datagrams (native): the plaintext both ways, under TLS too. `net.trace` is made
--- with it; nothing is heard, and nothing it costs, until somebody attaches a tap.
local tap = {}

---@alias cosocket.TapEvent
---| "opened" # `a` and `b` are the addresses of this side and of the other, empty when there is none
---| "spoken" # `a` is the protocol and `b` the side that were told to `attach`
---| "secured" # `a` names the version and cipher of TLS
---| "sent" # `a` is what the system has taken; of a datagram, `b` is whom it went to
---| "received" # `a` is what has come; of a datagram, `b` is whom it came from
---| "ended" # the other side has ended its direction
---| "failed" # `a` says why
---| "closed" # this side has closed the stream
---| "played" # all that was heard has been told, until the next turn

--- Takes what is heard, instead of who did before; `nil` ends it. `listener` is called by the loop, after each task's turn,
--- and may wait for nothing. One that raises an error is told so on standard error, and called no more.
---@param listener fun(tap: integer, event: cosocket.TapEvent, a: string?, b: string?)?
function tap.listen(listener) end

--- Whether every stream, and every socket of datagrams, that is made from now on is heard.
---@param streams boolean
---@param datagrams boolean
function tap.everything(streams, datagrams) end

--- Has a stream, or a socket of datagrams, heard, and says what is spoken on it from now on. One that is heard already is told the new protocol.
---@param stream cosocket.Stream|cosocket.Udp
---@param protocol string
---@param side? string
---@return true? ok
---@return cosocket.Error? err `closed`
function tap.attach(stream, protocol, side) end

--- Seconds since 1970.
---@return number
function tap.clock() end

return tap
