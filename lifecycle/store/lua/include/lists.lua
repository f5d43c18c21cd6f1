-- Lists of what is written at once.

-- Adds values to the list of this name; the second may be missing.
local function append_to(lists, name, value, another)
  lists[name] = lists[name] or {}
  local list = lists[name]
  list[#list + 1], list[#list + 2] = value, another
end

local function rids_of(requests)
  local rids = {}
  for i, one in ipairs(requests) do rids[i] = one.rid end
  return rids
end
