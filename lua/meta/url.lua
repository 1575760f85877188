---@meta url

--- URLs by the WHATWG standard, of any scheme.
local url = {}

--- What `parse` answers: a plain table whose `tostring` is the normalised URL. Parts that are absent are `nil`;
--- changing one changes nothing else.
---@class url.Url
---@field href string The whole URL, normalised.
---@field scheme string In small letters.
---@field username string? Decoded.
---@field password string? Decoded.
---@field host string? Name or address; IPv6 without brackets, as `cosocket.connect` takes it.
---@field authority string? Host and port as a `Host` header has them: IPv6 in brackets, no default port.
---@field port integer? When it is written and not the default of http, https, ws, wss or ftp.
---@field port_or_default integer? The port, or that of the scheme: those and mqtt, mqtts, smtp, smtps, submission.
---@field path string Still encoded.
---@field query string? Still encoded, without the `?`. See `parse_query`.
---@field fragment string? Still encoded, without the `#`.
---@field target string? Path and query as a request line has them; `/` for an empty path.

--- Takes `text` apart; with a base it may be relative to it.
---@param text string
---@param base? string|url.Url
---@return url.Url? url
---@return cosocket.Error? err `protocol`, or `limit` beyond 64 KiB
function url.parse(text, base) end

--- The URL that `relative` means on the page `base`.
---@param base string|url.Url
---@param relative string
---@return string? url
---@return cosocket.Error? err
function url.join(base, relative) end

--- Percent-encodes everything but `A-Z a-z 0-9 - . _ ~`: one segment, name or value.
---@param component string|cosocket.Buffer
---@return string
function url.encode(component) end

--- Undoes `encode`; `+` stays.
---@param text string|cosocket.Buffer
---@return string? component
---@return cosocket.Error? err `protocol`: a `%` without two hex digits
function url.decode(text) end

---@alias url.Scalar string|number|boolean

--- A query (application/x-www-form-urlencoded, space is `+`): of pairs in their order, or of named values
--- sorted by name.
---@param fields {[1]: url.Scalar, [2]: url.Scalar}[]|table<string, url.Scalar|url.Scalar[]>
---@return string
function url.query(fields) end

--- Takes a query apart; one `?` before it is passed over. Values are bytes, UTF-8 or not.
---@param text string|cosocket.Buffer
---@return {[1]: string, [2]: string}[]? pairs In their order.
---@return table<string, string>|cosocket.Error first The first value of each name.
function url.parse_query(text) end

return url
