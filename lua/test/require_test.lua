local cosocket = require("cosocket")
local test = require("test")

--- `require` under another name: these modules are made by the tests, and no file has them.
local module = require

--- Offers modules while `body` runs: name and loader.
local function with_modules(modules, body)
  for name, loader in pairs(modules) do package.preload[name] = loader end
  local ok, err = pcall(body)
  for name in pairs(modules) do
    package.preload[name] = nil
    package.loaded[name] = nil
  end
  if not ok then error(err, 0) end
end

return {
  ["a module may wait while it loads"] = function()
    with_modules({ ["test.waits"] = function()
      cosocket.sleep(1)
      return { answer = 42 }
    end }, function()
      test.equal(module("test.waits").answer, 42)
    end)
  end,

  ["a module that many tasks require is loaded once"] = function()
    local count = 0
    with_modules({ ["test.once"] = function()
      count = count + 1
      cosocket.sleep(1)
      return { count = count }
    end }, function()
      local tasks = {}
      for i = 1, 10 do tasks[i] = cosocket.spawn(require, "test.once") end
      for _, task in ipairs(tasks) do test.equal(task:join(), { count = 1 }) end
      test.equal(count, 1)
    end)
  end,

  ["a loop of requires is told, not waited for"] = function()
    with_modules({
      ["test.one"] = function() return module("test.other") end,
      ["test.other"] = function() return module("test.one") end,
    }, function()
      test.raises("module 'test.one' is required while it loads", require, "test.one")
    end)
  end,

  ["a loop of requires through two tasks is told as well"] = function()
    with_modules({
      ["test.left"] = function()
        cosocket.sleep(1)
        return module("test.right")
      end,
      ["test.right"] = function()
        cosocket.sleep(1)
        return module("test.left")
      end,
    }, function()
      local one = cosocket.spawn(function() return pcall(require, "test.left") end)
      local other = cosocket.spawn(function() return pcall(require, "test.right") end)
      local ended = cosocket.deadline(60, function()
        local ok, err = one:join()
        local ok_other, err_other = other:join()
        return tostring(ok and ok_other) .. tostring(err) .. tostring(err_other)
      end)
      test.matches(ended, "required while it loads")
    end)
  end,

  ["an error while loading is told to everyone who required it, and loading is tried again"] = function()
    local count = 0
    with_modules({ ["test.fails"] = function()
      count = count + 1
      cosocket.sleep(1)
      if count <= 2 then error("not yet") end
      return "loaded"
    end }, function()
      local other = cosocket.spawn(function() return pcall(require, "test.fails") end)
      test.raises("not yet", require, "test.fails")
      local ok, err = other:join()
      assert(not ok and tostring(err):find("not yet"), tostring(err))
      test.equal(module("test.fails"), "loaded")
    end)
  end,

  ["a cancelled load leaves the module to others"] = function()
    local count = 0
    with_modules({ ["test.cancelled"] = function()
      count = count + 1
      cosocket.sleep(5)
      return "loaded"
    end }, function()
      local first = cosocket.spawn(require, "test.cancelled")
      local second = cosocket.spawn(require, "test.cancelled")
      cosocket.sleep(1)
      first:cancel()
      test.equal(second:join(), "loaded")
      test.equal(count, 2)
    end)
  end,

  ["a module that returns nothing is true, and what it sets itself stays"] = function()
    with_modules({
      ["test.nothing"] = function() end,
      ["test.sets"] = function(name) package.loaded[name] = "its own" end,
      ["test.arguments"] = function(...) return table.pack(...) end,
    }, function()
      test.equal(module("test.nothing"), true)
      test.equal(module("test.sets"), "its own")
      local loaded = module("test.arguments")
      test.equal(loaded[1], "test.arguments")
    end)
  end,

  ["a module that is not there lists where it was looked for"] = function()
    local message = test.raises("module 'test.nowhere' not found", require, "test.nowhere")
    test.matches(message, "no field package.preload%['test.nowhere'%]")
    test.matches(message, "no embedded module 'test.nowhere'")
    test.raises("require wants the name of a module", require)
    test.raises("require wants the name of a module", require, {})
  end,
}
