-- Lists of what is written at once.

-- Adds one or two values to the list of this name.
local function append_to(lists, name, value, another)
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
  end
  list[#list + 1] = value
  if another then list[#list + 1] = another end
end
