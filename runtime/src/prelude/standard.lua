-- What Lua's own functions must know of tasks and of the runtime: coroutines, a `require` that may wait, `os.exit`,
-- `collectgarbage`.

local native, cosocket, ours = ...

local assert, error, ipairs, setmetatable, type = assert, error, ipairs, setmetatable, type
local blame, mistake, current = ours.blame, ours.mistake, native.current

local stock_status, stock_close = coroutine.status, coroutine.close

function coroutine.status(co)
  local status = stock_status(co)
  if status == "suspended" and native.is_busy(co) then return "normal" end
  return status
end

function coroutine.close(co)
  if native.is_busy(co) then
    error("cannot close a coroutine that waits for the network; cancel its task", 2)
  end
  return stock_close(co)
end

--- Modules that are being loaded: by which task, and an event for its end.
local loading = {}
--- Which module a task waits for, that another task loads.
local awaited = {}

--- Whether waiting for the load `other` would be waiting for oneself, through other tasks or not.
local function is_loop(other)
  while other do
    if other.task == current() then return true end
    other = loading[awaited[other.task]]
  end
  return false
end

--- Waits until another task has loaded a module, or failed to.
local function await(name, other)
  local me = current()
  if not me then error(("module '%s' is being loaded by a task, which this code is not"):format(name), 3) end
  local mark <close> = setmetatable({}, { __close = function() awaited[me] = nil end })
  awaited[me] = name
  assert(other.done:wait())
end

--- Finds the loader of a module, as `require` of the manual does.
local function search(name)
  local tried = {}
  for _, searcher in ipairs(package.searchers) do
    local loader, extra = searcher(name)
    if type(loader) == "function" then return loader, extra end
    if type(loader) == "string" then tried[#tried + 1] = "\n\t" .. loader:gsub("^\n\t", "") end
  end
  error(("module '%s' not found:%s"):format(name, table.concat(tried)), 3)
end

function require(name)
  if type(name) ~= "string" then mistake("require", "require wants the name of a module", 2) end
  local value = package.loaded[name]
  if value then return value end
  local other = loading[name]
  if other then
    if is_loop(other) then
      error(("module '%s' is required while it loads (a loop of requires)"):format(name), 2)
    end
    await(name, other)
    value = package.loaded[name]
    if value then return value end
    return require(name)
  end
  local mark <close> = setmetatable({ task = current(), done = cosocket.event() }, {
    __close = function(mark)
      loading[name] = nil
      mark.done:set()
    end,
  })
  loading[name] = mark
  local loader, extra = search(name)
  value = loader(name, extra)
  if value ~= nil then package.loaded[name] = value end
  if package.loaded[name] == nil then package.loaded[name] = true end
  return package.loaded[name], extra
end

local preload, by_path = package.searchers[1], package.searchers[2]
package.searchers = {
  preload,
  by_path,
  function(name)
    local source = native.embedded(name)
    if not source then return ("\n\tno embedded module '%s'"):format(name) end
    return assert(load(source, "@" .. name:gsub("%.", "/") .. ".lua")), ":embedded:"
  end,
}
package.cpath = ""

function dofile(path)
  return assert(loadfile(path))()
end

function os.exit(status)
  if status == nil or status == true then status = 0 end
  if status == false then status = 1 end
  return blame(1, native.exit(status))
end

local stock_collectgarbage = collectgarbage

--- A mode that the script sets stays.
function collectgarbage(how, ...)
  if how == "incremental" or how == "generational" then native.leave_collector() end
  return stock_collectgarbage(how, ...)
end
