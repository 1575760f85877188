---@meta smtp.codec

--- What is native of mail: header fields, bodies as lines, DKIM's hashes and signatures. `smtp.message` and
--- `smtp.dkim` are made of it; scripts hardly need it.
local codec = {}

--- A header field of text, folded, with its CRLF: ASCII by RFC 2047, or UTF-8 as it is.
---@param name string
---@param value string UTF-8
---@param utf8? boolean The server takes UTF-8 headers. Default `false`.
---@return string? field
---@return cosocket.Error? err `protocol`, with the field's name: CR, LF or NUL in it, or not UTF-8
function codec.text_header(name, value, utf8) end

--- A header field of mailboxes.
---@param name string
---@param mailboxes {name?: string, address: string}[]
---@param utf8? boolean
---@return string? field
---@return cosocket.Error? err
function codec.address_header(name, mailboxes, utf8) end

--- A header field with parameters, by RFC 2231 where they are long or not ASCII.
---@param name string
---@param value string
---@param parameters {[1]: string, [2]: string}[]
---@param utf8? boolean
---@return string? field
---@return cosocket.Error? err
function codec.parameter_header(name, value, parameters, utf8) end

--- The name of a domain as the DNS knows it (RFC 5891).
---@param domain string
---@return string? ascii
---@return cosocket.Error? err `protocol`
function codec.domain_to_ascii(domain) end

--- Text in quoted-printable (RFC 2045, 6.7): lines of at most 76 characters, CRLF at their ends.
---@param text string|cosocket.Buffer
---@return string
function codec.quoted_printable(text) end

--- Moves whole lines of 57 bytes (or, with `last`, everything) from `data` to `out`, as lines of base64.
---@param out cosocket.Buffer
---@param data cosocket.Buffer
---@param last? boolean
function codec.base64_lines(out, data, last) end

--- How many bytes of lines `base64_lines` makes of `size` bytes.
---@param size integer
---@return integer
function codec.base64_size(size) end

--- Appends text to `out` with CRLF at the end of each line, and with its leading dots doubled if `dots` is set.
---@param out cosocket.Buffer
---@param data string|cosocket.Buffer
---@param place integer What the last call answered; 0 at the beginning.
---@param dots boolean
---@return integer place 1 when the text so far ends in a line that has no end.
function codec.lines(out, data, place, dots) end

---@class smtp.codec.Scan
---@field size integer Bytes, once every line ends in CRLF.
---@field line_max integer Bytes of the longest line, without its end.
---@field eight_bit boolean Bytes beyond 127 are in it.
---@field nul boolean A NUL is in it.
---@field bare boolean Some line ends in CR or LF alone.

---@class smtp.codec.Scanner
local Scanner = {}
---@param data string|cosocket.Buffer
function Scanner:update(data) end
---@return smtp.codec.Scan
function Scanner:finish() end

--- Looks through a text that comes in pieces.
---@return smtp.codec.Scanner
function codec.scanner() end

---@class smtp.codec.BodyHash
local BodyHash = {}
---@param data string|cosocket.Buffer
function BodyHash:update(data) end
---@return string sha256 32 bytes
function BodyHash:finish() end

--- The hash of a body in DKIM's relaxed canonicalisation (RFC 6376, 3.4.4); its lines end in CRLF.
---@return smtp.codec.BodyHash
function codec.body_hash() end

--- A header field in relaxed canonicalisation (RFC 6376, 3.4.2), without its CRLF.
---@param field string
---@return string? canonical
---@return cosocket.Error? err
function codec.relaxed_field(field) end

---@class smtp.codec.DkimKey
local DkimKey = {}
---@return "rsa-sha256"|"ed25519-sha256"
function DkimKey:algorithm() end
---@param data string|cosocket.Buffer What was canonicalised.
---@return string? signature
---@return cosocket.Error? err
function DkimKey:sign(data) end

--- Reads a private key from PEM text: PKCS#8 of RSA or Ed25519, or PKCS#1.
---@param pem string
---@return smtp.codec.DkimKey? key
---@return cosocket.Error? err `protocol`
function codec.dkim_key(pem) end

return codec
