-- What a native function refuses becomes a mistake of its caller: an error of kind `argument` with the caller's line.
local words_of = ...
local error, pcall = error, pcall

--- Called in place of the function that calls it, so that the next level is the caller's.
local function answer(module, name, first, ok, ...)
  if ok then return ... end
  local message = words_of(name, (...))
  if not message then error((...), 0) end
  if first == module then message = ("call this with a dot: %s()"):format(name) end
  local caller = debug.getinfo(2, "Sl")
  if caller and caller.currentline > 0 then
    message = ("%s:%d: %s"):format(caller.short_src, caller.currentline, message)
  end
  error(require("cosocket").error("argument", name, message), 0)
end

return function(module, name, native)
  return function(first, ...)
    return answer(module, name, first, pcall(native, first, ...))
  end
end
