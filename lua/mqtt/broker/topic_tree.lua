--- A tree of topic levels: what is said of many topic filters or topics is found without looking at each.

local topic_tree = {}

---@class mqtt.broker.Node
---@field value any
---@field package children table<string, mqtt.broker.Node>
---@field package parent mqtt.broker.Node?
---@field package level string

---@class mqtt.broker.TopicTree
---@field private root mqtt.broker.Node
local Tree = {}
Tree.__index = Tree

---@param text string
---@return string[]
local function split(text)
  local levels, count = {}, 0
  for level in (text .. "/"):gmatch("([^/]*)/") do
    count = count + 1
    levels[count] = level
  end
  return levels
end

---@param parent mqtt.broker.Node?
---@param level string
---@return mqtt.broker.Node
local function new_node(parent, level)
  return { children = {}, parent = parent, level = level }
end

--- How many levels a topic or filter has.
---@param text string
---@return integer
function topic_tree.depth(text)
  local _, slashes = text:gsub("/", "/")
  return slashes + 1
end

--- The node of a topic or filter, as it is written.
---@param text string
---@return mqtt.broker.Node?
function Tree:find(text)
  local node = self.root
  for _, level in ipairs(split(text)) do
    node = node.children[level]
    if not node then return nil end
  end
  return node
end

--- The node of a topic or filter, made if there is none.
---@param text string
---@return mqtt.broker.Node
function Tree:make(text)
  local node = self.root
  for _, level in ipairs(split(text)) do
    local child = node.children[level]
    if not child then
      child = new_node(node, level)
      node.children[level] = child
    end
    node = child
  end
  return node
end

--- Takes the value of a node away, and every node that is of no more use.
---@param node mqtt.broker.Node
function Tree:clear(node)
  node.value = nil
  while node.parent and node.value == nil and not next(node.children) do
    node.parent.children[node.level] = nil
    node = node.parent
  end
end

--- Topics that begin with `$` are not seen by filters that begin with a wildcard [MQTT-4.7.2-1].
---@param level string
---@return boolean
local function is_hidden(level)
  return level:byte() == 36
end

---@param node mqtt.broker.Node
---@param found any[]
local function take(node, found)
  if node.value ~= nil then found[#found + 1] = node.value end
end

---@param node mqtt.broker.Node
---@param levels string[]
---@param at integer
---@param found any[]
local function walk_filters(node, levels, at, found)
  local children, level = node.children, levels[at]
  if not level then
    take(node, found)
    -- `a/#` is for `a`, too (4.7.1.2).
    if children["#"] then take(children["#"], found) end
    return
  end
  local same = children[level]
  if same then walk_filters(same, levels, at + 1, found) end
  if at == 1 and is_hidden(level) then return end
  if children["+"] then walk_filters(children["+"], levels, at + 1, found) end
  if children["#"] then take(children["#"], found) end
end

--- The values of all filters that match a topic.
---@param topic string
---@return any[]
function Tree:filters_of(topic)
  local found = {}
  walk_filters(self.root, split(topic), 1, found)
  return found
end

---@param node mqtt.broker.Node
---@param found any[]
local function walk_all(node, found)
  take(node, found)
  for _, child in pairs(node.children) do walk_all(child, found) end
end

---@param node mqtt.broker.Node
---@param levels string[]
---@param at integer
---@param found any[]
local function walk_topics(node, levels, at, found)
  local level = levels[at]
  if not level then
    take(node, found)
  elseif level == "+" or level == "#" then
    if level == "#" then take(node, found) end
    for name, child in pairs(node.children) do
      if at > 1 or not is_hidden(name) then
        if level == "#" then
          walk_all(child, found)
        else
          walk_topics(child, levels, at + 1, found)
        end
      end
    end
  else
    local child = node.children[level]
    if child then walk_topics(child, levels, at + 1, found) end
  end
end

--- The values of all topics that a filter matches, in no order.
---@param filter string
---@return any[]
function Tree:topics_of(filter)
  local found = {}
  walk_topics(self.root, split(filter), 1, found)
  return found
end

--- The values of everything.
---@return any[]
function Tree:all()
  local found = {}
  walk_all(self.root, found)
  return found
end

---@return mqtt.broker.TopicTree
function topic_tree.new()
  return setmetatable({ root = new_node(nil, "") }, Tree)
end

return topic_tree
