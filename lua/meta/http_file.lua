---@meta http.file

--- Regular files below a folder (native). What leads out of the folder is not there, be it by `..` or by a symbolic link.
local file = {}

---@class http.File
local File = {}
---@return integer bytes When it was opened.
function File:size() end
---@return integer nanoseconds Since 1970, of the last change.
function File:modified() end
--- Up to `count` bytes, and not more than 1 MiB, from `offset` on. The whole program waits for the disk.
---@param offset integer
---@param count integer
---@return string? bytes Empty at the end of the file.
---@return cosocket.Error? err `io`
function File:read(offset, count) end
---@return true
function File:close() end

--- Opens a file for reading: `local f <close> = assert(file.open("www", "css/page.css"))`.
---@param folder string
---@param path string Relative to the folder, in UTF-8.
---@return http.File? file
---@return cosocket.Error? err `io`; `code` is `"ENOENT"` or such, `"EISDIR"` for a folder.
function file.open(folder, path) end

return file
