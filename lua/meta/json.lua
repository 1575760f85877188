---@meta json

--- JSON (RFC 8259) to Lua values and back.
---
--- | JSON | Lua |
--- |---|---|
--- | `null` | `json.null` |
--- | number without fraction or exponent, within 64 signed bits | integer, exactly |
--- | other numbers (`1.0`, `1e3`, `-0`, integers beyond 64 bits) | float, nearest |
--- | array | table that carries the mark of `json.array`, so that `[]` stays `[]` |
--- | object | table; of a repeated key the last value counts |
local json = {}

--- What JSON calls null. It is not `nil`, and it is true in a condition: compare with `==`.
---@type lightuserdata
json.null = nil

---@class json.DecodeOptions
---@field depth_max? integer How deep arrays and objects nest, 1 to 256. Default 128.
---@field size_max? integer Bytes of the text. Default 16 MiB.

--- The value of `text`, which is all of one value. A buffer keeps its bytes.
---
--- The text is UTF-8; one byte order mark before it is passed over.
---@param text string|cosocket.Buffer
---@param options? json.DecodeOptions
---@return any value `json.null`, never `nil`
---@return cosocket.Error? err `protocol` with line and column (in bytes), or `limit`
function json.decode(text, options) end

---@class json.EncodeOptions
---@field indent? integer Spaces per level, 0 to 16. Default 0: all on one line.
---@field sort_keys? boolean Objects in the order of their keys, so that equal values make equal texts. Default `true`.
---@field depth_max? integer As in `decode`.
---@field size_max? integer As in `decode`.

--- The text of `value`. Integers have no point; floats have one or an exponent, and come back the same.
---
--- A table is an array when it has the mark of `json.array` or its keys are 1 to n, an object when its
--- keys are strings; an empty one without the mark is `{}`. Metatables are not asked. Refused with the path
--- to the value: NaN, infinities, strings that are not UTF-8, gaps, mixed keys, functions, a table inside itself.
---@param value any
---@param options? json.EncodeOptions
---@return string? text
---@return cosocket.Error? err `protocol` or `limit`
function json.encode(value, options) end

---@class json.Codec
---@field decode fun(text: string): any, cosocket.Error? As `json.decode`.
---@field encode fun(value: any): string?, cosocket.Error? As `json.encode`.

--- Both directions with options that are looked at once, and not with every text: worth it where texts are short and
--- many.
---@param options? json.EncodeOptions
---@return json.Codec
function json.codec(options) end

--- Marks `table` (default: a new one) as an array, and answers it. The mark is a metatable.
---@generic T
---@param table? T[]
---@return T[]
function json.array(table) end

--- Whether `value` is a table with the mark of `json.array`.
---@param value any
---@return boolean
function json.is_array(value) end

return json
