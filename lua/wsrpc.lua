--- JSON-RPC 2.0 over WebSocket: both sides call each other on one connection, and stream values to each other.
---
---     local wsrpc = require("wsrpc")
---
---     local server = assert(wsrpc.serve("tcp://127.0.0.1:8080", {
---       add = function(a, b) return a + b end,
---       clock = { function(emit) while emit(os.time()) do cosocket.sleep(1) end end, stream = true },
---     }))
---
---     local peer <close> = assert(wsrpc.connect("ws://127.0.0.1:8080/rpc"))
---     print(assert(peer:call("add", { 1, 2 })))
---     for time in peer:stream("clock") do print(time) end
---
--- Only what is registered can be called. Calls run as tasks, concurrently, and are answered in any order. A method's value
--- is the result; `nil, err` and errors become error objects that tell nothing but a code, unless they were made with
--- `wsrpc.error`.
---
--- | room | knows |
--- |---|---|
--- | `wsrpc.session`, `wsrpc.message`, `wsrpc.limit` | the protocol, without sockets and tasks; what it adds to JSON-RPC stands there |
--- | `wsrpc.peer`, `wsrpc.stream`, `wsrpc.failure` | one side of a connection, for scripts |
--- | `wsrpc.handler`, `wsrpc.method` | what is called here |
--- | `wsrpc.client`, `wsrpc.server`, `wsrpc.group` | connecting, serving, telling many |
--- | `wsrpc/wsrpc.js` | the same for browsers |

local client = require("wsrpc.client")
local group = require("wsrpc.group")
local handler = require("wsrpc.handler")
local json = require("json")
local message = require("wsrpc.message")

local wsrpc = {}

--- Codes of errors, by name.
wsrpc.code = message.code
--- What JSON calls null.
wsrpc.null = json.null

wsrpc.connect = client.connect
wsrpc.error = handler.error
wsrpc.group = group.new

--- Serves `methods`; see `wsrpc.server`. Loaded when it is first used: a program that only connects does without it.
---@async
---@param where string|http.Server
---@param methods table<string, wsrpc.Definition|fun(...): ...>
---@param options? wsrpc.ServeOptions
---@return wsrpc.Server? server
---@return cosocket.Error? err
function wsrpc.serve(where, methods, options)
  return require("wsrpc.server").serve(where, methods, options)
end

return wsrpc
