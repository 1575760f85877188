---@meta log

--- Records for people, one line each, on stderr:
--- `2026-11-22T19:51:03.123Z INFO  mqtt: connected host=broker.local keepalive=30`
---
--- On a terminal the level is `info`, in a pipe `warn`. `MOONWIRE_LOG=debug` sets it, and
--- `MOONWIRE_LOG=warn,mqtt=debug` that of one name too; `mqtt` is also for `mqtt.session`. Colours appear
--- on a terminal only, and never with `NO_COLOR`. Nothing in a record can break its line: control characters
--- are escaped, and texts beyond 4 KiB are cut. On a terminal the lines of a traceback are lines, indented.
---@class log.Logger
local log = {}

---@alias log.Level "off"|"error"|"warn"|"info"|"debug"|"trace"
---@alias log.Fields table<string, any> Tables are shown by their `__tostring`, or as JSON.

---@param text any
---@param fields? log.Fields
function log.error(text, fields) end
---@param text any
---@param fields? log.Fields
function log.warn(text, fields) end
---@param text any
---@param fields? log.Fields
function log.info(text, fields) end
---@param text any
---@param fields? log.Fields
function log.debug(text, fields) end
---@param text any
---@param fields? log.Fields
function log.trace(text, fields) end

--- The level of this logger; with `new`, sets it first.
---@param new? log.Level
---@return log.Level
function log.level(new) end

--- Whether a record of `level` would be written: ask before building an expensive one.
---@param level log.Level
---@return boolean
function log.enabled(level) end

--- Whether stderr is a terminal, where somebody may look at a progress bar. Only of the module itself.
---@return boolean
function log.is_terminal() end

--- A logger that names itself, with the same functions: `local log = require("log").new("mqtt")`.
---@param name string
---@return log.Logger
function log.new(name) end

return log
