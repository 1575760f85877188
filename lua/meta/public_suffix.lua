---@meta public_suffix

--- The Public Suffix List, as of this build: below which names anybody can register one (`com`, `co.uk`,
--- `github.io`). Names are in small letters, internationalised ones in their ASCII form.
local public_suffix = {}

--- The public suffix of a name: `"co.uk"` of `"www.example.co.uk"` and of `"co.uk"`. A name whose last label the list
--- does not know has that label.
---@param name string
---@return string? suffix `nil` for what is no name
function public_suffix.of(name) end

--- The name that somebody registered: `"example.co.uk"` of `"www.example.co.uk"`.
---@param name string
---@return string? name `nil` when the name is a public suffix itself
function public_suffix.registrable(name) end

return public_suffix
