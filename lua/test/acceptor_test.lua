-- Whoever takes the connections that come to a listener.
local acceptor = require("net.acceptor")
local cosocket = require("cosocket")
local log = require("log")
local test = require("test")

-- Some tests make mistakes on purpose, which are told.
log.level("off")

--- A server on the loopback, and a function that connects to it.
local function start(serve, options)
  local one = acceptor.start(assert(cosocket.listen("tcp://127.0.0.1:0")), serve, options)
  return one, function() return assert(cosocket.connect("tcp://" .. one:address())) end
end

local function echo(stream)
  while true do
    local line = stream:read_line()
    if not line then return end
    if line == "bug" then error("on purpose") end
    stream:write(line, "\n")
  end
end

return {
  ["each connection has a task, and is closed when that has ended"] = function()
    local one <close>, connect = start(function(stream) stream:write(stream:read_line(), "\n") end, { name = "echo" })
    local a, b = connect(), connect()
    b:write("b\n")
    test.equal(b:read_line(), "b")
    test.fails("closed", b:read_line())
    local names = {}
    for _, task in ipairs(cosocket.tasks()) do names[task.name] = (names[task.name] or 0) + 1 end
    test.equal({ names.echo, names["echo connection"], one.count }, { 1, 1, 1 })
    a:write("a\n")
    test.equal(a:read_line(), "a")
    test.fails("closed", a:read_line())
    test.equal(one.count, 0)
  end,

  ["one more than there may be is closed, until another has gone"] = function()
    local one <close>, connect = start(echo, { connections_max = 1 })
    local first, second = connect(), connect()
    test.fails("closed", second:read_line())
    first:write("hello\n")
    test.equal(first:read_line(), "hello")
    first:close()
    cosocket.sleep(1)
    local third = connect()
    third:write("hello\n")
    test.equal(third:read_line(), "hello")
  end,

  ["one whose task raises is closed, and the others go on"] = function()
    local one <close>, connect = start(echo)
    local first, second = connect(), connect()
    first:write("bug\n")
    test.fails("closed", first:read_line())
    second:write("hello\n")
    test.equal(second:read_line(), "hello")
    test.equal(one.count, 1)
  end,

  ["close ends all of it, also those who wait for something else"] = function()
    local unwound = false
    local one, connect = start(function()
      local guard <close> = setmetatable({}, { __close = function() unwound = true end })
      cosocket.sleep(1000)
    end)
    local before, stream = cosocket.now(), connect()
    cosocket.sleep(1)
    test.equal(one.count, 1)
    one:close()
    test.fails("closed", stream:read_line())
    cosocket.sleep(0)
    test.equal({ unwound, one.count }, { true, 0 })
    test.near(cosocket.now() - before, 1, 0.1)
    test.equal(one:close(), true)
  end,

  ["a listener that fails is asked again, until it is closed"] = function()
    local near, far = cosocket.pair()
    local closed = cosocket.error("closed", "accept", "this listener is closed")
    local answers = { cosocket.error("io", "accept", "too many open files", { code = "EMFILE" }), near, closed }
    local listener = {
      accept = function()
        local answer = table.remove(answers, 1)
        if cosocket.is_error(answer) then return nil, answer end
        return answer
      end,
    }
    local taken, told, before = {}, {}, cosocket.now()
    local logger = { error = function(_, fields) table.insert(told, fields.error) end }
    acceptor.take_all(listener, logger, table.insert, taken)
    test.equal(taken, { near })
    test.near(cosocket.now() - before, 0.1, 0.001)
    test.equal(#told, 1)
    test.matches(told[1], "too many open files")
    near:close()
    far:close()
  end,
}
