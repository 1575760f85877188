---@meta cosocket

--- Cosockets: sequential code on non-blocking sockets.
---
--- A function marked `@async` may park the calling task until the network, a
--- timer or another task wakes it; every other function answers at once.
---
--- Answers have one shape: a value, or `nil` and an error of the outside world.
--- Success with nothing to say is `true`. Wrong arguments (a type, an unknown
--- option) raise an error of kind `argument`, which blames the line that called.
---
--- Parking functions end early with a `timeout` error when an enclosing
--- `cosocket.deadline` passes; a timed-out read has consumed nothing. When the
--- task is cancelled they raise an error of kind `cancelled`, so that the task
--- unwinds and its `<close>` variables run.
---
--- Parking is possible wherever Lua can yield: in `pcall`, metamethods, iterators,
--- coroutines inside a task. In a `table.sort` comparator, a `string.gsub` callback
--- or a finaliser it is not, and the error says so.
local cosocket = {}

---@alias cosocket.ErrorKind
---| "closed"    # the other side ended the connection, or this side did
---| "refused"   # the other side said no
---| "protocol"  # the other side broke its protocol
---| "timeout"   # a deadline of ours passed
---| "cancelled" # the task was cancelled
---| "limit"     # a limit of ours was reached
---| "resolve"   # the name has no address
---| "connect"   # no address could be reached
---| "tls"       # the handshake or the certificate failed; `cause` is another kind when the connection did not live through it
---| "io"        # the system said no; `code` has its name
---| "argument"  # the caller made a mistake; raised, never returned

--- What the outside world did. `tostring(err)` is one line that says what to do.
---@class cosocket.Error
---@field kind cosocket.ErrorKind Branch on this.
---@field op string The operation, e.g. `"connect"` or `"read_line"`.
---@field message string What happened, in words.
---@field cause any? The error below this one.
---@field code (string|integer)? The system's or the protocol's own code, e.g. `"ECONNREFUSED"`.

--- Makes an error of the shape above; for stacks.
---@param kind cosocket.ErrorKind
---@param op string
---@param message string
---@param fields? {cause: any, code: any, [string]: any} Merged into the error. A number as the `code` of an `io` error, which `io.open` and its like answer third, becomes its name: `"ENOENT"`.
---@return cosocket.Error
function cosocket.error(kind, op, message, fields) end

--- Whether `value` is an error made by this module (of kind `kind`, if given).
---@param value any
---@param kind? cosocket.ErrorKind
---@return boolean
function cosocket.is_error(value, kind) end

--- Checks a table of options, for stacks: unknown keys (with the nearest known one), wrong types
--- and negative numbers raise, and blame the caller of the function that calls this.
---@param op string The function the options belong to.
---@param given table?
---@param known table<string, string> The type of each option: `"number"`, `"integer"`, or several as `"boolean|table"`. `"tls"` and `"tls_server"` are tables of `TlsOptions` and `TlsServerOptions`, which are checked, too.
---@param level? integer Calls between the mistake and this one. Default 2.
---@return table options `given`, or an empty table.
function cosocket.check_options(op, given, known, level) end

--- Checks options of TLS that are used later: names, types and values that make no sense raise, and blame the caller's
--- caller. Files are not read yet.
---@param op string
---@param given cosocket.TlsOptions|cosocket.TlsServerOptions|nil
---@param side "client"|"server" Whose options they are.
---@param level? integer Calls between the mistake and this one. Default 2.
---@return table options `given`, or an empty table.
function cosocket.check_tls_options(op, given, side, level) end

--- Raises when a method was called with a dot, or on something that has no such method, for stacks: blames the caller of the
--- function that calls this.
---@param self any What the method got as its first argument.
---@param object string What it should be, in a word: `"client"`.
---@param method string
---@param level? integer Calls between the mistake and this one. Default 2.
function cosocket.check_self(self, object, method, level) end

-- Connections -----------------------------------------------------------------

---@class cosocket.TlsOptions
---@field ca? string|string[] Trusted authorities: PEM text, a file's path, or a list of either. Default: the platform's roots.
---@field certificate? string Own certificate chain: PEM text or a file's path. Needs `key`.
---@field key? string Own private key: PEM text or a file's path.
---@field server_name? string Name to ask for and verify. Default: the host connected to.
---@field alpn? string[] Protocols offered, best first.
---@field pin_sha256? string|string[] SHA-256 of acceptable certificates' public keys (SPKI), hex or base64, checked besides the chain.
---@field min_version? "1.2"|"1.3" The oldest version to speak. Default "1.2".
---@field max_version? "1.2"|"1.3" The newest. Default "1.3".
---@field insecure? boolean `true` turns verification off. Default `false`.

---@class cosocket.TlsServerOptions
---@field certificate string Chain: PEM text or a file's path.
---@field key string
---@field certificates? {certificate: string, key: string, names?: string[]}[] More certificates, chosen by SNI.
---@field client_ca? string|string[] Ask clients for a certificate of these authorities.
---@field client_certificate? "require"|"optional" Default "require" when `client_ca` is given.
---@field alpn? string[] Protocols accepted, best first.
---@field min_version? "1.2"|"1.3" The oldest version to speak. Default "1.2".
---@field max_version? "1.2"|"1.3" The newest. Default "1.3".
---@field handshake_timeout? number Seconds a client may take. Default 10.

---@class cosocket.ConnectOptions
---@field tls? boolean|cosocket.TlsOptions TLS after connecting; implied by `tls://`.
---@field timeout? number Seconds for name, connection and handshake together. Default 30.
---@field local_address? string Address (and port) to connect from.
---@field nodelay? boolean TCP_NODELAY. Default `true`.
---@field keepalive? boolean|number TCP keep-alive: seconds of silence, from 1 to 32767, after which the system asks whether the other side is there; `true` is 60. Default `false`.
---@field keepalive_interval? number Seconds between such questions while none is answered. Default: a third of the idle time, at least 1 and at most 75.
---@field keepalive_count? integer Unanswered questions, from 1 to 127, after which the connection is over: reads and writes answer `ETIMEDOUT`. Default 3: a peer that is gone is noticed after some twice the idle time, sooner where that is long.
---@field queue_max? integer Bytes that may wait to be sent before `write` parks. Default 262144.

--- Connects a stream: `"tcp://host:port"`, `"tls://host:port"`, `"unix:///path"`,
--- or host, port and options. All addresses of a name are tried (RFC 8305).
---@async
---@param address string
---@param options? cosocket.ConnectOptions
---@return cosocket.Stream? stream
---@return cosocket.Error? err `resolve`, `connect`, `tls`, `timeout`
---@overload fun(host: string, port: integer, options?: cosocket.ConnectOptions): cosocket.Stream?, cosocket.Error?
function cosocket.connect(address, options) end

---@class cosocket.ListenOptions
---@field tls? cosocket.TlsServerOptions Needed for `tls://`.
---@field backlog? integer Default 4096.
---@field reuse_port? boolean SO_REUSEPORT. Default `false`.
---@field mode? integer Permissions of a unix socket's file, e.g. `tonumber("600", 8)`.
---@field nodelay? boolean TCP_NODELAY of accepted streams. Default `true`.
---@field keepalive? boolean|number TCP keep-alive of accepted streams, as in `connect`: a client that is gone without a word is noticed although the server only waits for it. Default `false`.
---@field keepalive_interval? number As in `connect`.
---@field keepalive_count? integer As in `connect`.
---@field queue_max? integer As in `connect`, for accepted streams.

--- Listens: `"tcp://host:port"`, `"tls://host:port"`, `"unix:///path"`, or host, port and options.
--- Port 0 picks a free one; `local_address` says which.
---@async
---@param address string
---@param options? cosocket.ListenOptions
---@return cosocket.Listener? listener
---@return cosocket.Error? err
---@overload fun(host: string, port: integer, options?: cosocket.ListenOptions): cosocket.Listener?, cosocket.Error?
function cosocket.listen(address, options) end

--- Two streams joined back to back (a socketpair).
---@return cosocket.Stream? one
---@return cosocket.Stream|cosocket.Error other
function cosocket.pair() end

--- The addresses of a name, in the order they would be tried.
---@async
---@param host string
---@return string[]? addresses
---@return cosocket.Error? err
function cosocket.resolve(host) end

---@class cosocket.Listener
local Listener = {}
--- Waits for the next connection. A TLS handshake is not waited for: it happens
--- with the first read or write, or in `stream:handshake()`.
---@async
---@return cosocket.Stream? stream
---@return cosocket.Error? err
function Listener:accept() end
---@return string address `"127.0.0.1:1883"`, `"[::1]:1883"`, or a path
function Listener:local_address() end
---@return true
function Listener:close() end

--- A connected byte stream: TCP, unix or TLS, client or server. One task reads at a
--- time; any task may write. `local s <close> = ...` closes it at the block's end.
---@class cosocket.Stream
local Stream = {}

--- Without `n`: whatever has arrived, at least one byte. With `n`: exactly `n` bytes.
---@async
---@param n? integer
---@return string? data
---@return cosocket.Error? err `closed` at the end of the stream
function Stream:read(n) end
--- One line without its LF or CRLF.
---@async
---@param max? integer Longest line in bytes. Default 65536.
---@return string? line
---@return cosocket.Error? err `limit` when longer; nothing is consumed then
function Stream:read_line(max) end
--- Everything up to and including `pattern` (plain bytes).
---@async
---@param pattern string
---@param max? integer Default 65536.
---@return string? data
---@return cosocket.Error? err
function Stream:read_until(pattern, max) end
--- Everything until the other side ends.
---@async
---@param max? integer Default 16777216.
---@return string? data
---@return cosocket.Error? err
function Stream:read_all(max) end
--- Reads whatever has arrived onto the end of `buffer`, at least one byte.
---@async
---@param buffer cosocket.Buffer
---@return integer? count
---@return cosocket.Error? err
function Stream:fill(buffer) end
--- Sends all arguments, in order. Small writes are gathered until the task parks.
--- Parks while more than `queue_max` bytes wait to leave.
---@async
---@param ... string|cosocket.Buffer|integer|number
---@return true? ok
---@return cosocket.Error? err
function Stream:write(...) end
--- As `write`, but never parks: takes all, or answers `nil` and a `limit` error.
---@param ... string|cosocket.Buffer|integer|number
---@return true? ok
---@return cosocket.Error? err
function Stream:try_write(...) end
--- Moves the front of `buffer` on its way, as much as may wait; never parks.
---@param buffer cosocket.Buffer
---@return true? ok
---@return cosocket.Error? err
function Stream:try_flush(buffer) end
--- Waits until everything written has been given to the system.
---@async
---@return true? ok
---@return cosocket.Error? err
function Stream:flush() end
--- Sends from `output` and reads onto `input`; parks once, on either direction, if
--- neither moves. Answers `true` after any progress, or when `wake` was called.
---@async
---@param input? cosocket.Buffer Without: nothing is read, and the other side is held back by its own full buffers.
---@param output cosocket.Buffer
---@param deadline? number Absolute, on the scale of `cosocket.now()`.
---@return true? ok
---@return cosocket.Error? err `timeout` when `deadline` passed, `closed` at the end of the stream
function Stream:turn(input, output, deadline) end
--- Makes the `turn` another task is parked in answer `true`.
function Stream:wake() end
--- Ends one direction: the other side reads the end after what was written.
---@async
---@param direction? "write"
---@return true? ok
---@return cosocket.Error? err
function Stream:shutdown(direction) end
--- Closes. What was written is sent first if the system takes it; whoever waits on the stream gets `closed`.
---@return true
function Stream:close() end
--- Closes at once, with RST: the other side gets an error instead of the stream's end. What was written and has not been
--- sent is dropped, and what was sent may be. For those who have to tell a failure from an end, and for tests.
---@return true
function Stream:reset() end
--- How far what was written has come: bytes that the other side's system has acknowledged, and bytes that it has not,
--- which wait here or are on their way. While the first grows, the line is slow and not dead. What has been acknowledged
--- has reached a machine, which may be a proxy's, and need not have been read. Under TLS the first may be a little too
--- small while something is on its way. Of unix sockets, and where the system does not tell (it does on Linux and macOS),
--- what the system has taken counts as acknowledged.
---@return integer? delivered
---@return integer|cosocket.Error waiting
function Stream:progress() end
---@return string?
function Stream:peer_address() end
---@return string?
function Stream:local_address() end
--- Changes an option of `connect`, or the size of a buffer of the system's. `keepalive` sets the interval and the count of
--- its questions, too, to their defaults; what shall be other is set after it. Keep-alive asks in silence: while something
--- we sent is not acknowledged the system sends that again, for minutes, and protocols have deadlines of their own.
---@param name "nodelay"|"keepalive"|"keepalive_interval"|"keepalive_count"|"queue_max"|"receive_buffer"|"send_buffer"
---@param value boolean|integer|number
---@return true? ok
---@return cosocket.Error? err
function Stream:set_option(name, value) end
--- Turns the stream into TLS: as client (`TlsOptions`), or as server when
--- `options.server` is `true` (`TlsServerOptions`). Refused while unread bytes
--- have arrived: they came before TLS and cannot be trusted.
---@async
---@param options? cosocket.TlsOptions|cosocket.TlsServerOptions|{server: boolean}
---@return true? ok
---@return cosocket.Error? err
function Stream:start_tls(options) end
--- Waits for the TLS handshake of an accepted stream.
---@async
---@return true? ok
---@return cosocket.Error? err
function Stream:handshake() end

---@class cosocket.Certificate
---@field subject string
---@field issuer string
---@field names string[] Subject alternative names: DNS names, addresses, URIs, mail addresses.
---@field not_before number Seconds since 1970.
---@field not_after number
---@field sha256 string Hex.
---@field spki_sha256 string Hex, what `pin_sha256` compares.
---@class cosocket.TlsInfo
---@field version "1.2"|"1.3"
---@field cipher string
---@field alpn string?
---@field server_name string?
---@field resumed boolean
---@field peer_certificate cosocket.Certificate?
---@return cosocket.TlsInfo? info `nil` when the stream is not TLS or still shaking hands
function Stream:tls_info() end

---@class cosocket.UdpOptions
---@field bind? string `"0.0.0.0:5353"`, or `"unix:///run/log.sock"`. Default: any address, any port.
---@field connect? string Fixes the peer: then `send` works and only its datagrams arrive.
---@field mode? integer Permissions of a unix socket's file, e.g. `tonumber("660", 8)`.
---@field broadcast? boolean
---@field reuse_address? boolean
---@field ttl? integer
---@field multicast_ttl? integer
---@field multicast_loop? boolean

--- Opens a socket for datagrams: UDP, or a unix socket, as the system's log and systemd have them. A unix socket that is
--- not bound has no address to be answered at; of a path `@name` no file is made. `send` waits while a fixed peer takes no
--- more, `send_to` to a path answers an error then (`ENOBUFS`).
---@async
---@param options? cosocket.UdpOptions
---@return cosocket.Udp? socket
---@return cosocket.Error? err
function cosocket.udp(options) end

---@class cosocket.Udp
local Udp = {}
---@async
---@param data string|cosocket.Buffer
---@return true? ok
---@return cosocket.Error? err
function Udp:send(data) end
---@async
---@param data string|cosocket.Buffer
---@param address string `"192.0.2.1:514"`, or `"unix:///path"`.
---@return true? ok
---@return cosocket.Error? err
function Udp:send_to(data, address) end
---@async
---@return string? data One datagram, which may be empty. Of one over a unix socket 65,024 bytes at most.
---@return string|cosocket.Error address As `send_to` takes it; of a unix socket its path, or an empty text.
function Udp:receive() end
---@param group string
---@param interface? string
---@return true? ok
---@return cosocket.Error? err
function Udp:join(group, interface) end
---@param group string
---@param interface? string
---@return true? ok
---@return cosocket.Error? err
function Udp:leave(group, interface) end
---@return string
function Udp:local_address() end
---@return true
function Udp:close() end

-- Tasks -----------------------------------------------------------------------

---@class cosocket.Task
local Task = {}
--- Waits for the end. Answers what the function returned; raises what it raised.
---@async
---@return any ...
function Task:join() end
--- Ends the task: its wait raises a `cancelled` error, its `<close>` variables run (and may wait no more), and the
--- sockets it has opened or reads are closed. To give up a wait and keep the socket, use a deadline.
function Task:cancel() end
--- The task's name, as listings and errors show it; `new` changes it.
---@param new? string
---@return string
function Task:name(new) end
---@return "ready"|"running"|"waiting"|"done"|"failed"|"cancelled"
function Task:status() end

--- Starts `fn(...)` as a task of the innermost group of the caller.
---@param fn fun(...): ...
---@return cosocket.Task
---@overload fun(name: string, fn: (fun(...): ...), ...): cosocket.Task
function cosocket.spawn(fn, ...) end

--- Starts a task that runs `fn(object, ...)`, and then `after(object, ok, err, traceback)`, which may wait, too: what `pcall`
--- around `fn` would do, with nothing on the task's stack but the object while `fn` runs. For thousands of them.
---@generic T
---@param after fun(object: T, ok: boolean, err: any, traceback: string?)
---@param fn fun(object: T, ...)
---@param object T
---@param ... any
---@return cosocket.Task
function cosocket.spawn_then(after, fn, object, ...) end

--- Makes a method that keeps the stack of its caller small, for objects that thousands of tasks wait on. Called with an object
--- and an argument, it calls `step(object, argument)` on a stack that all share, until that answers
---
--- - `false` and up to seven values: these are the answer;
--- - `true, stream, input, output, deadline`: it waits as `stream:turn` does, and then calls `step(object, argument, ok, err,
---   input, deadline)`;
--- - a function and its arguments: this is called on the caller's own stack, and its answer is the answer.
---
--- A step cannot wait itself.
---@param step fun(object: any, argument: any, ok: true?, err: cosocket.Error?, input: cosocket.Buffer?, deadline: number?): ...
---@return async fun(object: any, argument: any): ...
function cosocket.aside(step) end
--- Runs `fn(...)`; tasks it spawns, and tasks they spawn, are children. Returns what `fn` returned once they have all
--- ended. The first error cancels the rest and is raised here.
---@async
---@param fn fun(...): ...
---@return any ...
function cosocket.group(fn, ...) end
--- Runs `fn(...)`, in which every wait ends with a `timeout` error `seconds` from now; nested ones keep the earlier,
--- and groups opened inside hand it to their children. A wait that is over in time is not touched: what it got stays.
---@async
---@param seconds number
---@param fn fun(...): ...
---@return any ... What `fn` returned; `nil` and the timeout when that was nothing, or when `fn` raised the timeout.
function cosocket.deadline(seconds, fn, ...) end
---@async
---@param seconds number
---@return true? ok
---@return cosocket.Error? err
function cosocket.sleep(seconds) end
--- Monotonic seconds.
---@return number
function cosocket.now() end
--- Seconds since 1970 with their fraction, by the clock of the system: somebody may set it, and it does not jump in tests.
--- To measure, and for deadlines, there is `now`.
---@return number
function cosocket.time() end
--- Every live task.
---@return {id: integer, name: string, status: string, waits_for: string?, since: number?, line: string?}[]
function cosocket.tasks() end
--- Runs `fn` when the program is asked to stop, before tasks are cancelled. Returns a function that takes it back.
---@param fn fun()
---@return fun()
function cosocket.on_stop(fn) end
--- Asks the program to stop, as SIGTERM does.
---@param status? integer Exit status. Default 0.
function cosocket.stop(status) end

---@class cosocket.Queue
---@operator len: integer
local Queue = {}
---@param capacity? integer Default 128.
---@return cosocket.Queue
function cosocket.queue(capacity) end
--- Adds a value; parks while full.
---@async
---@param value any not nil
---@return true? ok
---@return cosocket.Error? err `closed`
function Queue:put(value) end
--- Takes the oldest value; parks while empty. `for value in queue do` does the same until closed.
---@async
---@return any value
---@return cosocket.Error? err `closed` once closed and drained
function Queue:get() end
---@return true? ok
---@return cosocket.Error? err `limit` when full, `closed`
function Queue:try_put(value) end
---@return any value `nil` without an error: empty
---@return cosocket.Error? err `closed`
function Queue:try_get() end
function Queue:close() end

---@class cosocket.Semaphore
local Semaphore = {}
---@param n integer
---@return cosocket.Semaphore
function cosocket.semaphore(n) end
--- Waits for a permit: `local permit <close> = assert(semaphore:acquire())`.
---@async
---@return cosocket.Permit? permit
---@return cosocket.Error? err
function Semaphore:acquire() end
---@return cosocket.Permit? permit
function Semaphore:try_acquire() end
---@class cosocket.Permit
local Permit = {}
--- Gives it back; once is enough.
function Permit:release() end

---@class cosocket.Event
local Event = {}
---@return cosocket.Event
function cosocket.event() end
function Event:set() end
function Event:clear() end
---@return boolean
function Event:is_set() end
---@async
---@return true? ok
---@return cosocket.Error? err
function Event:wait() end

--- Waits until one of the arguments is ready, and answers it and its position. A stream is ready when
--- it has bytes or has ended, a UDP socket when it has a datagram or an error, a listener when someone waits, a queue when it has a value or is closed, an event
--- when set, a task when ended, a number after that many seconds. Nothing is consumed.
---@async
---@param ... cosocket.Stream|cosocket.Udp|cosocket.Listener|cosocket.Queue|cosocket.Event|cosocket.Task|number
---@return any ready
---@return integer|cosocket.Error index
function cosocket.select(...) end

-- Buffer ----------------------------------------------------------------------

--- Mutable bytes: filled at the end, taken from the front. `#buffer` is their count.
---@class cosocket.Buffer
---@operator len: integer
local Buffer = {}
---@param bytes? string
---@return cosocket.Buffer
function cosocket.buffer(bytes) end
---@param ... string|cosocket.Buffer|integer|number
---@return cosocket.Buffer self
function Buffer:append(...) end
--- A copy of `n` bytes (default: all) from `offset` (default 0). Fewer when there are fewer.
---@param n? integer
---@param offset? integer
---@return string
function Buffer:peek(n, offset) end
--- Takes `n` bytes off the front (default: all); `nil` when there are fewer.
---@param n? integer
---@return string?
function Buffer:take(n) end
--- Drops `n` bytes off the front.
---@param n integer
function Buffer:skip(n) end
--- Offset of `bytes` (plain), from `offset` on.
---@param bytes string
---@param offset? integer
---@return integer?
function Buffer:find(bytes, offset) end
--- Takes one line without its LF or CRLF; `nil` when none is complete.
---@return string?
function Buffer:line() end
function Buffer:clear() end
--- Appends an integer of `size` (1 to 8) bytes. Raises when it does not fit.
---@param value integer
---@param size integer
---@param order? "big"|"little" Default "big".
function Buffer:append_uint(value, size, order) end
function Buffer:append_int(value, size, order) end
---@param size integer
---@param offset? integer
---@param order? "big"|"little"
---@return integer? value `nil` when not all of it is here
function Buffer:peek_uint(size, offset, order) end
function Buffer:peek_int(size, offset, order) end
---@param size integer
---@param order? "big"|"little"
---@return integer?
function Buffer:take_uint(size, order) end
function Buffer:take_int(size, order) end
--- Overwrites at `offset`: for lengths known afterwards.
function Buffer:set_uint(offset, value, size, order) end

return cosocket
