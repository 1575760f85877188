-- Errors and the checks of arguments, which blame the line that called.
--
-- Each room of the prelude runs once per state: `native` is the table of primitives, `cosocket` what scripts see, and
-- `ours` what the rooms share.

local native, cosocket, ours = ...

local error, getmetatable, setmetatable, tostring, type = error, getmetatable, setmetatable, tostring, type

local Error = native.error_metatable
Error.__name = "cosocket.Error"
Error.__index = nil

function Error.__tostring(err)
  local text = tostring(err.op) .. ": " .. tostring(err.message)
  if err.kind == "argument" then return tostring(err.message) end
  if err.code ~= nil then return ("%s (%s, %s)"):format(text, err.kind, err.code) end
  return ("%s (%s)"):format(text, err.kind)
end

local KINDS = {
  closed = true, refused = true, protocol = true, timeout = true, cancelled = true, limit = true,
  resolve = true, connect = true, tls = true, io = true, argument = true,
}

--- Raises a mistake of the caller, `level` calls above this one.
local function mistake(op, message, level)
  local where = ""
  local info = debug.getinfo(level + 1, "Sl")
  if info and info.currentline > 0 then where = ("%s:%d: "):format(info.short_src, info.currentline) end
  error(setmetatable({ kind = "argument", op = op, message = where .. message }, Error), 0)
end

function cosocket.error(kind, op, message, fields)
  if not KINDS[kind] then mistake("error", ("unknown kind %q"):format(tostring(kind)), 2) end
  if fields ~= nil and type(fields) ~= "table" then mistake("error", "the fields must be a table", 2) end
  local err = setmetatable({ kind = kind, op = op, message = message }, Error)
  if fields then
    for name, value in pairs(fields) do err[name] = value end
  end
  -- Lua's own functions tell numbers of what the system says.
  if kind == "io" and math.type(err.code) == "integer" then err.code = native.errno_name(err.code) or err.code end
  return err
end

function cosocket.is_error(value, kind)
  return getmetatable(value) == Error and (kind == nil or value.kind == kind)
end

--- Edits between two words, to guess what a misspelt option was meant to be.
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      diagonal, row[j] = row[j], math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
    end
  end
  return row[#b]
end

local function nearest(name, known)
  local best, least
  for candidate in pairs(known) do
    local d = distance(name, candidate)
    if not least or d < least or (d == least and candidate < best) then best, least = candidate, d end
  end
  if least and least <= math.max(2, #name // 3) then return best end
end

--- Types as a sentence has them: `"a string or an integer"`.
local function in_words(types)
  local function with_article(one)
    if one == "nil" then return nil end
    if one:find("^tls") then one = "table" end
    return (one:find("^[aeiou]") and "an " or "a ") .. one
  end
  return (types:gsub("[%a_]+", with_article):gsub("|", " or "))
end

--- What checks tables that are options of many functions, by the word for such a table in `known`.
local shapes = {}

--- The most options that a message lists when none of them is like the one that was given.
local LISTED_MAX = 20

--- What to say of an option that nobody knows.
local function unknown_option(name, known, within)
  local names, hint = {}, type(name) == "string" and nearest(name, known)
  for one in pairs(known) do names[#names + 1] = one end
  table.sort(names)
  local what = ("unknown option %q"):format(within .. tostring(name))
  if hint then return ("%s; did you mean %q?"):format(what, hint) end
  if #names > LISTED_MAX then return what end
  return ("%s; there %s %s"):format(what, #names == 1 and "is only" or "are", table.concat(names, ", "))
end

--- As `check_options`, of a table. `within` comes before the names of options: `"tls."`.
local function check(op, given, known, level, within)
  for name, value in pairs(given) do
    local wanted = known[name]
    if not wanted then mistake(op, unknown_option(name, known, within), level) end
    local found = math.type(value) or type(value)
    local is_number = found == "integer" or found == "float"
    local fits = found == wanted or is_number and wanted == "number"
    if not fits then
      for one in wanted:gmatch("[^|]+") do
        local shape = found == "table" and shapes[one]
        if shape then shape(op, value, level + 1, within .. name .. ".") end
        fits = fits or shape or one == found or is_number and one == "number"
      end
    end
    if not fits then
      local what = ("option %q must be %s, not %s"):format(within .. name, in_words(wanted), in_words(found))
      mistake(op, what, level)
    end
    if type(value) == "number" and (value ~= value or value < 0) then
      mistake(op, ("option %q must not be negative"):format(within .. name), level)
    end
  end
end

--- Checks a table of options: unknown keys and wrong types raise, and blame the caller's caller.
---
--- `known` maps each option to its type: `"number"`, or several as `"boolean|table"`; or to the word for a table
--- whose options are checked, too: `"tls"`, `"tls_server"`.
local function check_options(op, given, known, level)
  level = (level or 2) + 1
  if given == nil then return {} end
  ours.check_table(op, given, level + 1)
  check(op, given, known, level + 1, "")
  return given
end

--- Raises unless `given` is a table of options.
function ours.check_table(op, given, level)
  if type(given) == "table" then return end
  mistake(op, ("the options must be a table, not %s"):format(in_words(type(given))), level)
end
cosocket.check_options = check_options

function cosocket.check_self(self, object, method, level)
  if type(self) == "table" and self[method] ~= nil then return end
  local op = ("%s:%s"):format(object, method)
  mistake(op, ("call this with a colon, on a %s: %s()"):format(object, op), (level or 2) + 1)
end

--- Raises what native code found to be the caller's mistake; passes everything else on. `level` counts the
--- calls above this one: a function that answers with `return blame(...)` is none.
function ours.blame(level, value, ...)
  if value == nil then
    local err = ...
    if err ~= nil and getmetatable(err) == Error and err.kind == "argument" then mistake(err.op, err.message, level + 1) end
  end
  -- As many values as came: `table.insert(list, listener:local_address())` takes no second one.
  return value, ...
end

ours.mistake, ours.check, ours.check_options = mistake, check, check_options
ours.in_words, ours.shapes = in_words, shapes
