--- http: requests and their answers (RFC 9110, 9112).
---
---     local http = require("http")
---
---     local response = assert(http.get("https://example.org/status", { timeout = 10 }))
---     print(response.status, response.headers["Content-Type"], #response.body)
---
---     local client = http.client({ base_url = "https://example.org/api/", cookies = true })
---     local made = assert(client:post("readings", { json = { celsius = 21.5 } }))
---     print(made:json().id)
---
--- Every answer is a response, whatever its status: `assert(http.get(url)):check()` makes an error of all but 2xx.
--- Requests without a client of their own share one, with its connections.

local clients = require("http.client")
local codec = require("http.codec")

local http = {}

--- The server is loaded when it is asked for.
setmetatable(http, {
  __index = function(_, name)
    if name ~= "server" then return nil end
    http.server = require("http.server")
    return http.server
  end,
})

local shared

--- The client of the functions below.
---@return http.Client
local function shared_client()
  shared = shared or clients.new("http")
  return shared
end

--- Makes a client: connections kept between requests, defaults, cookies.
---@param options? http.ClientOptions
---@return http.Client
function http.client(options)
  return clients.new("http.client", options)
end

--- Header fields to send or to look at: in order, with their case, found whatever the case; a table of fields becomes some.
---@param init? http.Fields
---@return http.Headers
function http.headers(init)
  return codec.headers(init)
end

--- Starts a server: `http.server.listen`.
---@async
---@param address string `"http://127.0.0.1:8080"`, `"https://..."`, `"tcp://..."`, `"tls://..."` or `"unix:///path"`
---@param handler http.Handler|table<string, http.Handler> One for everything, or by method and pattern: `{ ["GET /things/:id"] = fn }`.
---@param options? http.ServerOptions
---@return http.Server? server
---@return cosocket.Error? err
function http.listen(address, handler, options)
  return http.server.listen(address, handler, options)
end

--- A jar for cookies: that of a file that `jar:save` wrote, or an empty one.
---@param path? string
---@return http.Jar? jar
---@return cosocket.Error? err `io`, `protocol`
function http.jar(path)
  local cookies = require("http.cookie")
  if path then return cookies.open(path) end
  return cookies.jar()
end

--- A body that is a file, read piece by piece as it is sent: `http.put(url, { body = http.file("log.txt") })`.
---@param path string
---@return http.Upload? body
---@return cosocket.Error? err `io`
function http.file(path)
  return require("http.upload").open(path)
end

--- Sends a request and waits for the answer.
---@async
---@param method string
---@param url string
---@param options? http.RequestOptions
---@return http.Response? response
---@return cosocket.Error? err `resolve`, `connect`, `tls`: there was no way; `closed`, `timeout`, `protocol`, `limit`: the answer did not come, or not whole
function http.request(method, url, options)
  if type(method) ~= "string" or not method:find("^[%w!#$%%&'*+.^_`|~-]+$") then
    error(("http.request: %s is not a method"):format(tostring(method)), 2)
  end
  return shared_client():perform("http.request", method, url, options)
end

---@async
---@param url string
---@param options? http.RequestOptions
---@return http.Response? response
---@return cosocket.Error? err As `request` does.
function http.get(url, options)
  return shared_client():perform("http.get", "GET", url, options)
end

---@async
---@param url string
---@param options? http.RequestOptions
---@return http.Response? response
---@return cosocket.Error? err
function http.post(url, options)
  return shared_client():perform("http.post", "POST", url, options)
end

---@async
---@param url string
---@param options? http.RequestOptions
---@return http.Response? response
---@return cosocket.Error? err
function http.put(url, options)
  return shared_client():perform("http.put", "PUT", url, options)
end

---@async
---@param url string
---@param options? http.RequestOptions
---@return http.Response? response
---@return cosocket.Error? err
function http.patch(url, options)
  return shared_client():perform("http.patch", "PATCH", url, options)
end

---@async
---@param url string
---@param options? http.RequestOptions
---@return http.Response? response
---@return cosocket.Error? err
function http.delete(url, options)
  return shared_client():perform("http.delete", "DELETE", url, options)
end

---@async
---@param url string
---@param options? http.RequestOptions
---@return http.Response? response
---@return cosocket.Error? err
function http.head(url, options)
  return shared_client():perform("http.head", "HEAD", url, options)
end

--- The method OPTIONS.
---@async
---@param url string
---@param options? http.RequestOptions
---@return http.Response? response
---@return cosocket.Error? err
function http.options(url, options)
  return shared_client():perform("http.options", "OPTIONS", url, options)
end

--- Fetches a file, as `Client:save` does.
---@async
---@param url string
---@param path string
---@param options? http.SaveOptions|http.RequestOptions
---@return http.Saved? saved
---@return cosocket.Error? err
function http.save(url, path, options)
  return require("http.download").save(shared_client(), url, path, options)
end

--- Sends a file, as `Client:upload` does.
---@async
---@param url string
---@param source string|file*
---@param options? http.UploadOptions|http.RequestOptions
---@return http.Uploaded? uploaded
---@return cosocket.Error? err
function http.upload(url, source, options)
  return require("http.resumable").upload(shared_client(), url, source, options)
end

--- Gives an upload up, as `Client:cancel_upload` does.
---@async
---@param url string
---@param source string|file*
---@param options? http.UploadOptions|http.RequestOptions
---@return boolean? cancelled
---@return cosocket.Error? err
function http.cancel_upload(url, source, options)
  return require("http.resumable").cancel(shared_client(), url, source, options)
end

--- Reads a stream of server-sent events: `for event in http.events(url) do print(event.type, event.data) end`.
---@param url string
---@param options? http.EventsOptions|http.RequestOptions
---@return http.Events
function http.events(url, options)
  return require("http.events").new(shared_client(), url, options)
end

return http
