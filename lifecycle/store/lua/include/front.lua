-- The front of a level: its first flows, which a take reads once, serves in memory, and writes back at its end.
--- @include numbers queue

-- How many levels a call looks at, flows of a level at once, and requests of a flow, of which this worker cannot serve some.
local LAST_LEVEL, FLOWS, LAST_FLOW, REQUESTS, LAST_REQUEST = '23', 8, '7', 16, '31'

local has_moved = false  -- a flow has got a later place

-- Returns a model's queue, of which only the priorities are read yet. `fronts` and `served` are by priority; `times` has the
-- virtual times of the owners of whom requests were started.
local function read_queue(model)
  return {model = model, priorities = redis.call('ZRANGE', P .. 'levels:' .. model, '0', LAST_LEVEL), fronts = {}, times = {},
    served = {}, taken = 0, latest = 0}
end

-- Reads the flows at the front of a level. `reached` is the virtual time of the owner, who may have been served in another
-- level too, or have cost more than was estimated. `gone` counts the requests of a flow that have left it.
local function read_front(queue, priority)
  local flat, owners = redis.call('ZRANGE', level_key(queue.model, priority), '0', LAST_FLOW, 'WITHSCORES'), {}
  for i = 1, #flat, 2 do owners[#owners + 1] = flat[i] end
  local known = #owners > 0 and redis.call('ZMSCORE', P .. 'virtual_times:' .. queue.model, unpack(owners)) or {}
  local front = {ends_at = #owners == FLOWS and tonumber(flat[2 * FLOWS]) or math.huge}
  for i, owner in ipairs(owners) do
    local place, at = tonumber(flat[2 * i]), tonumber(known[i] or '')
    front[i] = {owner = owner, place = place, known = at, reached = math.max(place, at or place), next = 1, skipped = 0,
      gone = 0, removed = {}, bytes = 0}
  end
  queue.fronts[priority] = front
  return front
end

-- Returns the flow that is served next of those that were read and that are not done; nil when one that was not read may be
-- before it, or when there is none.
local function next_flow(front, times)
  local first
  for _, flow in ipairs(front) do
    flow.reached = math.max(flow.reached, times[flow.owner] or flow.reached)
    local is_before = not first or flow.reached < first.reached
      or (flow.reached == first.reached and flow.owner < first.owner)
    if not flow.is_done and is_before then first = flow end
  end
  if first and first.reached > front.ends_at then
    front.is_old = true
    return nil
  end
  return first
end

-- Takes a request out of its flow.
local function remove(flow, rid, body_size)
  flow.removed[#flow.removed + 1] = rid
  flow.bytes, flow.gone = flow.bytes + body_size, flow.gone + 1
end

-- Writes what has changed in the flows that were read of a level.
local function write_front(queue, priority, front)
  local model, key, places, is_left = queue.model, level_key(queue.model, priority), {}, false
  for _, flow in ipairs(front) do
    local place = math.max(flow.reached, queue.times[flow.owner] or flow.reached)
    if place > flow.place then places[#places + 1], places[#places + 2] = secs(place), flow.owner end
    if #flow.removed > 0 then remove_from_flow(model, priority, flow.owner, flow.removed, flow.bytes) end
    if flow.is_lost or flow.gone > 0 and flow.gone == #flow.rids
      and redis.call('EXISTS', flow_key(model, priority, flow.owner)) == 0 then
      redis.call('ZREM', key, flow.owner)
    else
      is_left = true
    end
  end
  if #places > 0 then
    redis.call('ZADD', key, 'XX', unpack(places))
    has_moved = true
  end
  if not is_left and forget_empty_level(model, priority) then
    queue.served[priority], queue.is_emptied = nil, true
  end
end

-- Writes what has changed in the flows that were read of a model, and forgets them.
local function write_fronts(queue)
  local reached = {}
  for priority, front in pairs(queue.fronts) do write_front(queue, priority, front) end
  for owner, at in pairs(queue.times) do reached[#reached + 1], reached[#reached + 2] = secs(at), owner end
  if #reached > 0 then redis.call('ZADD', P .. 'virtual_times:' .. queue.model, unpack(reached)) end
  queue.fronts, queue.times = {}, {}
end
