-- What the cases of scripts say of themselves.
local case = require("case")
local cosocket = require("cosocket")
local test = require("test")

--- The lines that a case says.
local function said(name, fn)
  local lines = {}
  case(name, fn, function(line) lines[#lines + 1] = line end)
  return table.concat(lines, "\n")
end

return {
  ["a case that comes to its end has passed"] = function()
    test.equal(said("quick", function() cosocket.sleep(59) end), "passed quick")
    test.equal(said("with an answer", function() return nil, "not looked at" end), "passed with an answer")
  end,

  ["a case that raises has failed, and says why in one line"] = function()
    test.equal(said("wrong", function() error("first\nsecond", 0) end), "failed wrong: first")
    test.equal(said("wrong", function() error({}) end):match("^failed wrong: table"), "failed wrong: table")
  end,

  ["a case that takes too long has failed, whatever it makes of that"] = function()
    test.equal(said("slow", function() assert(cosocket.sleep(61)) end), "failed slow: sleep: the deadline has passed (timeout)")
    -- It looks at no answer, and goes on.
    local why = "failed slow: deadline: the deadline has passed (timeout)"
    test.equal(said("slow", function() cosocket.sleep(61) end), why)
    test.equal(said("slow", function() return true, cosocket.sleep(61) end), why)
  end,
}
