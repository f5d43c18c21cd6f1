-- The offer of a worker: the endpoints and parameters that its engine accepts.

local function names(list, name) return string.find(list, ' ' .. name .. ' ', 1, true) end

-- Returns whether this worker's engine serves an endpoint and what the request needs.
local function is_served(endpoint, needs)
  local native = names(endpoints, endpoint)
  if not native and not names(endpoints, '~' .. endpoint) then return false end
  for name in string.gmatch(needs or '', '%S+') do
    local accepted = accepts == '*' or names(' ' .. accepts .. ' ', name)
    if string.sub(name, 1, 7) == 'native:' then accepted = native end
    if string.sub(name, 1, 7) == 'serves:' then accepted = names(endpoints, string.sub(name, 8)) end
    if not accepted then return false end
  end
  return true
end
