---@meta crypto

--- Digests, HMAC, PBKDF2, random bytes. Everything answers raw bytes; `hex.encode` prints them.
---
--- `md5` and `sha1` are broken as signatures: they are here for protocols that ask for them.
local crypto = {}

---@alias crypto.Algorithm "md5"|"sha1"|"sha256"|"sha512"|"sha512_256"

---@param data string|cosocket.Buffer
---@return string digest 16 bytes
function crypto.md5(data) end
---@param data string|cosocket.Buffer
---@return string digest 20 bytes
function crypto.sha1(data) end
---@param data string|cosocket.Buffer
---@return string digest 32 bytes
function crypto.sha256(data) end
---@param data string|cosocket.Buffer
---@return string digest 64 bytes
function crypto.sha512(data) end
--- SHA-512/256 (FIPS 180-4, 6.7): not the front of SHA-512.
---@param data string|cosocket.Buffer
---@return string digest 32 bytes
function crypto.sha512_256(data) end

--- A digest of bytes that come in pieces: `crypto.new_digest("sha256"):update(a, b):finish()`.
---@param algorithm crypto.Algorithm
---@return crypto.Digest
function crypto.new_digest(algorithm) end

---@class crypto.Digest
local Digest = {}
---@param ... string|cosocket.Buffer
---@return crypto.Digest self
function Digest:update(...) end
--- The digest. The object is of no use afterwards.
---@return string
function Digest:finish() end

--- HMAC (RFC 2104).
---@param algorithm crypto.Algorithm
---@param key string|cosocket.Buffer
---@param data string|cosocket.Buffer
---@return string code
function crypto.hmac(algorithm, key, data) end

--- PBKDF2 (RFC 8018) with HMAC. Nothing else runs meanwhile, so more than 2,000,000 rounds, counted
--- over all digests that `length` takes, are refused: about a second.
---@param algorithm crypto.Algorithm
---@param password string|cosocket.Buffer
---@param salt string|cosocket.Buffer
---@param iterations integer
---@param length? integer Bytes to derive, 1 to 1024. Default: one digest.
---@return string? key
---@return cosocket.Error? err `limit`
function crypto.pbkdf2(algorithm, password, salt, iterations, length) end

--- Whether both are the same bytes, in a time that does not tell where they differ (only whether their lengths do).
---@param one string|cosocket.Buffer
---@param other string|cosocket.Buffer
---@return boolean
function crypto.equal(one, other) end

--- Bytes from the system that nobody can guess.
---@param count integer 0 to 1048576
---@return string? bytes
---@return cosocket.Error? err `io`
function crypto.random_bytes(count) end

return crypto
