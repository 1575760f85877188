--- What a script is told on its command line as `name=value`.

---@param words string[] `arg`; words of another form are not looked at
---@return table<string, string> options
return function(words)
  local options = {}
  for _, word in ipairs(words) do
    local name, value = word:match("^(%w+)=(.*)$")
    if name then options[name] = value end
  end
  return options
end
