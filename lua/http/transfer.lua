--- What downloads and uploads of files have in common: how progress is told, which failures pass, how long one waits, and
--- how a checksum is written.

local cosocket = require("cosocket")
local date = require("http.date")
local log = require("log")

--- Attempts in a row that bring nothing before one gives up.
local ATTEMPTS = 5
--- Seconds before the second attempt; twice as many before each further one, up to the second number.
local DELAY, DELAY_MAX = 1, 30
--- Seconds that a server may have us wait: its refusal is the answer when it asks for more.
local RETRY_AFTER_MAX = 3600
--- Times a second that progress is told.
local TELLS = 10

--- Hex digits of a checksum.
local DIGITS = { md5 = 32, sha1 = 40, sha256 = 64, sha512 = 128 }

--- Failures after which it is worth trying again.
local PASSING = { closed = true, timeout = true, connect = true, resolve = true, io = true }
local PASSING_STATUS = { [408] = true, [429] = true, [500] = true, [502] = true, [503] = true, [504] = true }

---@class http.TransferOptions
---@field resume? boolean Go on where an earlier attempt broke off; those of earlier runs included. Default `true`.
---@field attempts? integer How often in a row nothing may come of it before one gives up. Default 5.
---@field retry_delay? number Seconds before the second attempt; twice as many before each further one, up to 30. Default 1.
---@field on_progress? fun(done: integer, total: integer?, speed: number) Called up to ten times a second, and at the end. `speed` is in bytes a second.
---@field progress? boolean Draw a bar on stderr. Default `false`; nothing is drawn where stderr is no terminal.

local transfer = {}

--- The options above, for `cosocket.check_options`.
---@param more table<string, string>
---@return table<string, string>
function transfer.options(more)
  more.resume, more.attempts, more.retry_delay = "boolean", "integer", "number"
  more.on_progress, more.progress = "function", "boolean"
  return more
end

--- Takes a checksum like `"sha256:HEX"` apart; raises for what is none.
---@param op string
---@param text string
---@param level integer As of `error`, from the caller.
---@return crypto.Algorithm algorithm
---@return string digits In small letters.
function transfer.checksum(op, text, level)
  local algorithm, digits = text:match("^(%w+):(%x+)$")
  if not algorithm or #digits ~= DIGITS[algorithm] then
    error(("%s: checksum must be like \"sha256:\" and hex digits (md5, sha1, sha256, sha512)"):format(op), level + 1)
  end
  return algorithm, digits:lower()
end

-- Progress --------------------------------------------------------------------

---@param bytes number
---@return string
local function readable(bytes)
  for _, unit in ipairs({ "B", "KiB", "MiB" }) do
    if bytes < 1024 then return unit == "B" and ("%d B"):format(bytes // 1) or ("%.1f %s"):format(bytes, unit) end
    bytes = bytes / 1024
  end
  return ("%.1f GiB"):format(bytes)
end

--- One line: `[#########           ]  45%  4.5 MiB of 10.0 MiB  1.2 MiB/s`.
---@param done integer
---@param total integer?
---@param speed number
---@return string
function transfer.bar(done, total, speed)
  if not total then return ("%s  %s/s"):format(readable(done), readable(speed)) end
  local share = total > 0 and math.min(done / total, 1) or 1
  local filled = math.floor(share * 30)
  return ("[%s%s] %3d%%  %s of %s  %s/s"):format(
    ("#"):rep(filled), (" "):rep(30 - filled), share * 100 // 1, readable(done), readable(total), readable(speed)
  )
end

--- Tells how far a transfer is.
---@class http.Progress
---@field private on_progress (fun(done: integer, total: integer?, speed: number))?
---@field private draws boolean
---@field private told number
---@field private began number
---@field private moved integer
local Progress = {}
Progress.__index = Progress

---@param options http.TransferOptions
---@return http.Progress
function transfer.progress(options)
  return setmetatable({
    on_progress = options.on_progress,
    draws = options.progress and log.is_terminal() or false,
    told = -math.huge,
    began = cosocket.now(),
    moved = 0,
  }, Progress)
end

--- So many bytes more have come, or gone; `done` of `total` have now.
---@param bytes integer
---@param done integer
---@param total integer?
---@param last? boolean
function Progress:tell(bytes, done, total, last)
  self.moved = self.moved + bytes
  if not self.on_progress and not self.draws then return end
  local at = cosocket.now()
  if not last and at - self.told < 1 / TELLS then return end
  self.told = at
  local speed = self.moved / math.max(at - self.began, 1e-3)
  if self.on_progress then self.on_progress(done, total, speed) end
  if self.draws then io.stderr:write("\r\27[K", transfer.bar(done, total, speed), last and "\n" or "") end
end

-- Trying again ----------------------------------------------------------------

--- Counts the failures in a row, and waits between attempts.
---@class http.Patience
---@field private most integer
---@field private delay number
---@field private failures integer
local Patience = {}
Patience.__index = Patience

---@param options http.TransferOptions
---@return http.Patience
function transfer.patience(options)
  return setmetatable({ most = options.attempts or ATTEMPTS, delay = options.retry_delay or DELAY, failures = 0 }, Patience)
end

--- Whether a request that failed so may do better a second time.
---@param err cosocket.Error
---@param statuses? table<integer, boolean> More that pass.
---@return boolean
function transfer.passes(err, statuses)
  -- A handshake that the connection did not live through is as good as no connection.
  local kind = err.kind == "tls" and cosocket.is_error(err.cause) and err.cause.kind or err.kind
  if kind == "refused" then return (PASSING_STATUS[err.code] or statuses and statuses[err.code]) == true end
  return PASSING[kind] == true
end

--- Something has come of an attempt.
function Patience:reward()
  self.failures = 0
end

--- Nothing has come of an attempt: whether there may be another one.
---@return boolean
function Patience:try()
  self.failures = self.failures + 1
  return self.failures < self.most
end

--- Waits before the next attempt, for as long as the server asks at least.
---@async
---@param err? cosocket.Error Why another one is needed.
---@return true? ok
---@return cosocket.Error? err That of `sleep`, or `err` when the server asks for too much.
function Patience:wait(err)
  local field = err and err.response and err.response.headers["Retry-After"]
  local asked = field and date.retry_after(field) or 0
  if asked > RETRY_AFTER_MAX then return nil, err end
  return cosocket.sleep(math.max(asked, err and math.min(self.delay * 2 ^ (math.max(self.failures, 1) - 1), DELAY_MAX) or 0))
end

return transfer
