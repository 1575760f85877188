--- Redirections (RFC 9110, 15.4): where a response sends its client, and what the next request takes along.

local url = require("url")

local redirect = {}

local STATUSES = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

--- Fields of a body, which go when the body does.
local OF_THE_BODY = {
  "Content-Type", "Content-Length", "Content-Encoding", "Content-Language", "Content-Location", "Transfer-Encoding",
  "Expect", "Trailer", "Digest", "Content-Digest", "Last-Modified",
}
--- Fields that are meant for one origin only.
local OF_THE_ORIGIN = { "Authorization", "Cookie", "Proxy-Authorization", "Host", "Origin" }

--- Whether a response of this status redirects.
---@param status integer
---@return boolean
function redirect.is_one(status)
  return STATUSES[status] == true
end

--- The method of the next request: 303 asks for GET, and 301 and 302 make GET of POST, as everybody does.
---@param status integer
---@param method string
---@return string
function redirect.method(status, method)
  if status == 303 and method ~= "HEAD" then return "GET" end
  if (status == 301 or status == 302) and method == "POST" then return "GET" end
  return method
end

--- The URL of the next request. A fragment is passed on where the new one has none (RFC 9110, 10.2.2).
---@param base url.Url
---@param location string
---@return url.Url? target
---@return cosocket.Error? err `protocol`
function redirect.target(base, location)
  -- What is not ASCII should have been encoded, and is by browsers.
  local target, err = url.parse(location, base)
  if not target then return nil, err end
  if base.fragment and not target.fragment then return url.parse(target.href .. "#" .. base.fragment) end
  return target
end

--- Takes from the fields of a request what the next one must not carry.
---@param headers http.Headers Changed.
---@param same_origin boolean
---@param same_method boolean
function redirect.strip(headers, same_origin, same_method)
  if not same_origin then
    for _, name in ipairs(OF_THE_ORIGIN) do headers:del(name) end
  end
  if not same_method then
    for _, name in ipairs(OF_THE_BODY) do headers:del(name) end
  end
end

return redirect
