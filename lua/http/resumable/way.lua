--- How requests of an upload get where they belong: those to its own URL may go to another origin than that which made it,
--- and credentials do not go along.

local clients = require("http.client")
local codec = require("http.codec")
local redirect = require("http.redirect")
local targets = require("http.target")

--- Bytes of an answer's body, which nobody reads.
local ANSWER_MAX = 65536

---@class http.UploadWay
---@field target http.Target Where uploads are made.
---@field requests integer How many there were.
---@field answer http.Response? The last.
---@field private op string
---@field private client http.Client
---@field private stranger http.Client? The same without credentials, for another origin.
---@field private address string As it was given.
---@field private request http.RequestOptions
local Way = {}
Way.__index = Way

local way = {}

---@param op string
---@param client http.Client
---@param address string
---@param request http.RequestOptions
---@return http.UploadWay? way
---@return cosocket.Error? err `protocol`
function way.new(op, client, address, request)
  local target, err = client:target(address)
  if not target then return nil, err end
  return setmetatable({ op = op, client = client, address = address, target = target, request = request, requests = 0 }, Way)
end

--- A client like this one that has nothing to hide: no credentials, and none of the fields that are for one origin.
---@param op string
---@param client http.Client
---@return http.Client
local function stranger_of(op, client)
  local options = {}
  for name, value in pairs(client.settings) do options[name] = value end
  if options.headers then
    options.headers = codec.headers(options.headers)
    redirect.strip(options.headers, false, true)
  end
  -- A jar knows itself where its cookies go.
  options.auth, options.base_url, options.cookies = nil, nil, client.jar
  return clients.new(op, options)
end

--- Sends one request, and reads its answer.
---@async
---@param method string
---@param address? string Of the upload. Default: where uploads are made.
---@param fields table<string, string>
---@param body? http.Upload
---@return http.Response? answer
---@return cosocket.Error? err
function Way:send(method, address, fields, body)
  local request, client = {}, self.client
  for name, value in pairs(self.request) do request[name] = value end
  local headers = codec.headers(self.request.headers)
  if address then
    request.query = nil
    local to, err = targets.of(address)
    if not to then return nil, err end
    if to.origin == self.target.origin then
      if request.auth == nil then request.auth = self.target.login end
    else
      -- As after a redirect: what is secret stays where it belongs.
      self.stranger = self.stranger or stranger_of(self.op, client)
      client, request.auth = self.stranger, nil
      redirect.strip(headers, false, true)
    end
  end
  for name, value in pairs(fields) do headers:set(name, value) end
  request.headers, request.body, request.stream = headers, body, true
  self.requests = self.requests + 1
  local answer, err = client:request(method, address or self.address, request)
  if not answer then return nil, err end
  -- What it says beyond its head helps nobody, but its connection does.
  if not answer.body then answer:read_all(ANSWER_MAX) end
  answer:close()
  self.answer = answer
  return answer
end

function Way:close()
  if self.stranger then self.stranger:close() end
end

return way
