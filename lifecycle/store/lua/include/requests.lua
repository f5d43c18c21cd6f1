-- Requests that a script has begun or ended. Each is {rid, record, labels, …}. What they have in common is written once for
-- all, and an error in it is noted as the `failure` of those that it concerns.

-- Runs what some requests have in common. An error stops nothing else.
local function run_for(requests, part, ...)
  local is_done, failure = pcall(part, ...)
  if is_done then return end
  for _, one in ipairs(requests) do one.failure = one.failure or failure end
end

-- Adds a value to the list of this name.
local function append_to(lists, name, value)
  local list = lists[name] or {}
  lists[name], list[#list + 1] = list, value
end

local function rids_of(requests)
  local rids = {}
  for i, one in ipairs(requests) do rids[i] = one.rid end
  return rids
end
