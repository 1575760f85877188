-- A device that asks an API for work: it logs in once, its cookie does the rest, and it obeys when the server is busy.
--
--     moonwire examples/poller.lua
--
-- The API is a server in the same process.

local cosocket = require("cosocket")
local date = require("http.date")
local http = require("http")

-- The API ---------------------------------------------------------------------

local server = http.server.new({ access_log = false })
local polls = 0

server:post("/login", function(request, response)
  local form = request:json()
  if not form or form.device ~= "sensor-7" then return response:error(403, "who are you?") end
  response:send({ status = 204, headers = { ["Set-Cookie"] = "session=s3cr3t; Path=/; HttpOnly; Max-Age=3600" } })
end)

server:get("/jobs", function(request, response)
  local cookie = request.headers.Cookie
  if cookie ~= "session=s3cr3t" then return response:error(401, "log in first") end
  polls = polls + 1
  if polls == 2 then return response:send({ status = 503, headers = { ["Retry-After"] = "1" }, body = "busy" }) end
  response:json(polls < 4 and { job = ("measure %d"):format(polls) } or { done = true })
end)

assert(server:listen("tcp://127.0.0.1:0"))

-- The device ------------------------------------------------------------------

local client <close> = http.client({
  base_url = ("http://%s/"):format(server:address()),
  cookies = true,
  timeout = 10,
  headers = { Accept = "application/json" },
})

--- A request that waits when the server is busy, and logs in when it has to.
local function poll()
  while true do
    local response, err = client:get("jobs")
    if not response then return nil, err end
    if response.status == 401 then
      print("logging in")
      local login, why = client:post("login", { json = { device = "sensor-7" } })
      local ok
      if login then ok, why = login:check() end
      if not ok then return nil, why end
    elseif response.status == 503 then
      local seconds = date.retry_after(response.headers["Retry-After"] or "5")
      print(("the server is busy: again in %d s"):format(seconds))
      cosocket.sleep(seconds)
    else
      local ok, why = response:check()
      if not ok then return nil, why end
      return response:json()
    end
  end
end

repeat
  local answer = assert(poll())
  print(answer.job or "no more work")
until answer.done

for _, cookie in ipairs(client.jar:all()) do
  print(("cookie %s for %s%s"):format(cookie.name, cookie.domain, cookie.path))
end
server:stop()
