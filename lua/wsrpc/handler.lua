--- Runs what the other side calls, and what becomes of values and errors. Each stream has a task. Calls that end without
--- having waited share one: many small calls that come together cost one task and not one each. Only errors made with `wsrpc.error` are told in their words; others are logged here, because they may name paths and
--- addresses.

local cosocket = require("cosocket")
local log = require("log").new("wsrpc")
local message = require("wsrpc.message")
local method = require("wsrpc.method")

local code, fault = message.code, message.fault
local null = require("json").null

--- Calls that a task runs before others have their turn.
local BURST = 32
--- In `running`: the call waits for a task.
local DUE = true

local handler = {}

--- An error that is told to the other side as it is.
---@param number integer
---@param text string
---@param data? any
---@return cosocket.Error
function handler.error(number, text, data)
  return cosocket.error("refused", "wsrpc", text, { code = number, data = data, told = true })
end

---@param err any
local function with_traceback(err)
  return type(err) == "string" and debug.traceback(err, 2) or err
end

--- What the other side is told of an error.
---@param err any
---@param raised boolean
---@return wsrpc.Fault
local function told(err, raised)
  if type(err) == "table" then
    if err.told and message.is_fault(err) then return fault(err.code, err.message, err.data) end
    if cosocket.is_error(err, "timeout") then return fault(code.timeout) end
  end
  return fault(raised and code.internal_error or code.server_error)
end

--- Logs what the other side is not told.
---@param peer wsrpc.Peer
---@param name string
---@param err any
---@param raised boolean
local function note(peer, name, err, raised)
  -- The end of the connection ends what runs for it.
  if type(err) == "table" and err.told or cosocket.is_error(err, "cancelled") then return end
  local fields = { method = name, peer = peer:address(), error = tostring(err) }
  if raised then
    log.error("a method failed", fields)
  else
    log.warn("a method answered an error", fields)
  end
end

--- The function, with its time.
---@async
---@param one wsrpc.Method
---@param seconds number
---@param ... any
---@return boolean ok
---@return any result
---@return any err
local function invoke(one, seconds, ...)
  if seconds > 0 then return cosocket.deadline(seconds, xpcall, one.fn, with_traceback, ...) end
  return xpcall(one.fn, with_traceback, ...)
end

--- Runs one call.
---@async
---@param peer wsrpc.Peer
---@param session wsrpc.Session
---@param call wsrpc.InboundCall
---@return boolean goes_on `false`: the call was cancelled, and this task with it.
local function run_call(peer, session, call)
  local one, list, count = call.runs, call.arguments, call.argument_count
  ---@cast one wsrpc.Method
  ---@cast list table
  local seconds = one.timeout or peer.handler_timeout
  local ok, result, err
  if one.with_peer then
    ok, result, err = invoke(one, seconds, peer, table.unpack(list, 1, count))
  elseif count == 0 then
    ok, result, err = invoke(one, seconds)
  else
    ok, result, err = invoke(one, seconds, table.unpack(list, 1, count))
  end
  local running = peer.running
  -- Cancelled: it has been answered for.
  if running[call] == nil then return false end
  running[call] = nil
  if not ok then
    note(peer, call.method, result, true)
    session:fail(call, told(result, true))
  elseif result == nil and err ~= nil then
    note(peer, call.method, err, false)
    session:fail(call, told(err, false))
  else
    if result == nil then result = null end
    local answered, why = session:answer(call, result)
    if not answered then note(peer, call.method, why, true) end
  end
  peer:flush()
  peer:wait_for_room()
  return true
end

--- Calls that wait for a task, from `first` to `last`.
---@class wsrpc.Due
---@field first integer
---@field last integer
---@field standby cosocket.Task? Will look for calls when it has its turn.

--- Runs calls that are due, one after another: a task. Whether a call will wait cannot be known, so while more are due
--- another task stands by, which goes on with them as soon as this one waits.
---@async
---@param peer wsrpc.Peer
---@param session wsrpc.Session
---@param due wsrpc.Due
local function run_calls(peer, session, due)
  local me, running = due.standby, peer.running
  due.standby = nil
  for _ = 1, BURST do
    local first = due.first
    local call = due[first]
    if not call then return end
    due[first], due.first = nil, first + 1
    if first == due.last then
      due.first, due.last = 1, 0
    else
      due.standby = due.standby or cosocket.spawn("rpc", run_calls, peer, session, due)
    end
    if running[call] == DUE then
      running[call] = me
      if not run_call(peer, session, call) then return end
    end
  end
end

--- A call has come.
---@param peer wsrpc.Peer
---@param session wsrpc.Session
---@param call wsrpc.InboundCall
function handler.call(peer, session, call)
  local name = call.method
  local one = peer:method(name)
  if not one or one.stream then return session:fail(call, fault(code.method_not_found)) end
  local list, count = method.arguments(one, call.params)
  if not list then return session:fail(call, fault(code.invalid_params, nil, count)) end
  call.runs, call.arguments, call.argument_count = one, list, count --[[@as integer]]
  peer.running[call] = DUE
  local due = peer.due or { first = 1, last = 0 }
  peer.due = due
  due.last = due.last + 1
  due[due.last] = call
  due.standby = due.standby or cosocket.spawn("rpc", run_calls, peer, session, due)
end

---@class wsrpc.Publishing
---@field task cosocket.Task?
---@field credit cosocket.Event Set when the subscriber takes more.

--- What a stream's function sends its values with.
---@param peer wsrpc.Peer
---@param session wsrpc.Session
---@param publication wsrpc.Publication
---@param state wsrpc.Publishing
---@return async fun(value: any): true?, cosocket.Error?
local function emitter(peer, session, publication, state)
  return function(value)
    if value == nil then value = null end
    while true do
      local sent, err = session:emit(publication, value)
      if sent == nil then return nil, err end
      if sent then
        peer:flush()
        return peer:wait_for_room()
      end
      state.credit:clear()
      local ok, why = state.credit:wait()
      if not ok then return nil, why end
    end
  end
end

---@async
---@param peer wsrpc.Peer
---@param session wsrpc.Session
---@param publication wsrpc.Publication
---@param one wsrpc.Method
---@param emit function
---@param list table
---@param count integer
local function run_stream(peer, session, publication, one, emit, list, count)
  local ok, result, err
  if one.with_peer then
    ok, result, err = invoke(one, one.timeout or 0, peer, emit, table.unpack(list, 1, count))
  else
    ok, result, err = invoke(one, one.timeout or 0, emit, table.unpack(list, 1, count))
  end
  if peer.running[publication] == nil then return end
  peer.running[publication] = nil
  local wrong
  if not ok then
    note(peer, publication.name, result, true)
    wrong = told(result, true)
  elseif result == nil and err ~= nil then
    note(peer, publication.name, err, false)
    wrong = told(err, false)
  end
  session:end_stream(publication, wrong)
  peer:flush()
end

--- The other side subscribes.
---@param peer wsrpc.Peer
---@param session wsrpc.Session
---@param publication wsrpc.Publication
function handler.subscribe(peer, session, publication)
  local one = peer:method(publication.name)
  if not one or not one.stream then
    return session:reject(publication, fault(code.method_not_found, "Stream not found"))
  end
  local list, count = method.arguments(one, publication.params)
  if not list then return session:reject(publication, fault(code.invalid_params, nil, count)) end
  if not session:accept(publication) then return end
  ---@cast count integer
  local state = { credit = cosocket.event() }
  peer.running[publication] = state
  local emit = emitter(peer, session, publication, state)
  state.task = cosocket.spawn(one.task, run_stream, peer, session, publication, one, emit, list, count)
end

--- Ends the task of a call or a stream, whose end nobody wants to hear of.
---@param peer wsrpc.Peer
---@param what wsrpc.InboundCall|wsrpc.Publication
function handler.cancel(peer, what)
  local running = peer.running[what]
  if not running then return end
  peer.running[what] = nil
  if running == DUE then return end
  local task = running.credit and running.task or running
  task:cancel()
end

return handler
