-- A fleet of workers that share one queue of jobs: a shared subscription of MQTT 5.
--
--     moonwire examples/fleet_worker.lua
--
-- Each job goes to one worker. A job is acknowledged when it is done: the jobs of a worker that is lost go to another.
-- Start as many as you like, here or on other machines; `receive_maximum` is how many jobs one holds at a time.
--
-- MQTT_URL  the broker. Without it a development broker is started in this process.
-- MQTT_CA   a file with the authority that signed the broker's certificate, for mqtts://

local cosocket = require("cosocket")
local development = require("mqtt.broker")
local mqtt = require("mqtt")

local WORKERS, JOBS = 3, 30
--- All workers name the same group; every other group would get all jobs, too.
local QUEUE = "$share/workers/fleet/jobs"

local broker
local url, ca = os.getenv("MQTT_URL"), os.getenv("MQTT_CA")
if not url then
  broker = assert(development.listen("tcp://127.0.0.1:0"))
  url = broker:url()
end

local function connect(options)
  options = options or {}
  options.version, options.tls = 5, ca and { ca = ca } or nil
  return assert(mqtt.connect(url, options))
end

-- A worker ----------------------------------------------------------------------

local done = cosocket.queue(JOBS)

local function start_worker(number)
  local client = connect({ receive_maximum = 4 })
  -- Two jobs at a time; a job is acknowledged when its handler returns, and not if the process ends before.
  assert(client:subscribe(QUEUE, { qos = 1, concurrency = 2 }, function(message)
    cosocket.sleep(0.01) -- the work
    assert(client:publish("fleet/results", message.payload, { qos = 1 }))
    done:put({ job = message.payload, worker = number })
  end))
  return client
end

local workers = {}
for number = 1, WORKERS do workers[number] = start_worker(number) end

-- Who gives them work -----------------------------------------------------------

local dispatcher <close> = connect()
for job = 1, JOBS do assert(dispatcher:publish("fleet/jobs", tostring(job), { qos = 1 })) end

local jobs, by_worker, count = {}, {}, 0
assert(cosocket.deadline(20, function()
  for _ = 1, JOBS do
    local result = done:get()
    if not jobs[result.job] then count = count + 1 end
    jobs[result.job] = true
    by_worker[result.worker] = (by_worker[result.worker] or 0) + 1
  end
  return true
end))
local idle = 0
for number = 1, WORKERS do idle = idle + (by_worker[number] and 0 or 1) end
print(("%d jobs done, each by one of %d workers, %d of them idle"):format(count, WORKERS, idle))

for _, worker in ipairs(workers) do worker:close() end
dispatcher:close()
if broker then broker:close() end
