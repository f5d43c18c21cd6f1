-- The queue of a model. Its requests wait in levels by priority, of which the lowest is served first. In each level there is
-- a flow for each owner. Flows are served in the order of their owners' virtual times, which advance with each start by
-- its cost in tokens divided by the owner's weight, so owners that wait get tokens in proportion to their weights.
-- A flow has its requests in the order in which they came; those that were queued again come first.
-- `queued:` and `queued_bytes` change together with the membership in a flow, which is added or removed only once, so a
-- repetition does not count twice. Sweeps correct them where Redis has lost a part.
--- @include commands now numbers events

local DAY_MS = '86400000'
local FRONT_SECS = 4000000000  -- puts what is queued again before everything new, in the order of its admission

local function level_key(model, priority) return P .. 'level:' .. priority .. '|' .. model end

local function flow_key(model, priority, owner)
  return P .. 'flow:' .. priority .. '|' .. #owner .. '|' .. owner .. '|' .. model
end

-- Counts a request in, or out with `by` -1, and `bytes` of its body.
local function count_queued(model, owner, by, bytes)
  if redis.call('HINCRBY', P .. 'queued:' .. model, owner, by) <= 0 then redis.call('HDEL', P .. 'queued:' .. model, owner) end
  if redis.call('HINCRBY', P .. 'queued_bytes', model, whole(bytes)) <= 0 then
    redis.call('HDEL', P .. 'queued_bytes', model)
  end
end

-- Counts the share of a request that was admitted under a further limit in, or out with `sign` '-': its tokens and its bytes,
-- for its owner and for the model. Other requests have no share, and cost nothing here.
local function count_share(model, owner, share, sign)
  local tokens, bytes = string.match(share, '^(%d+) (%d+)$')
  local key, counts = P .. 'shares:' .. model, {n = '1', t = tokens, b = bytes}
  counts['t|' .. owner], counts['b|' .. owner] = tokens, bytes
  for field, number in pairs(counts) do
    if redis.call('HINCRBY', key, field, sign .. number) <= 0 and sign == '-' then redis.call('HDEL', key, field) end
  end
end

-- Returns the length of a request's body; 0 for a Redis key of another type, which must not stop an end half-way.
local function body_bytes(rid)
  local bytes = redis.pcall('STRLEN', P .. 'body:' .. rid)
  return type(bytes) == 'number' and bytes or 0
end

-- Claims whose virtual times are less than EQUAL apart are the same. Of owners with equal claims those who have just been
-- served come last, and each begins to wait BEHIND those that came before it, whatever their names are. EQUAL is the least that a
-- request costs: one token of an owner of the largest weight.
local EQUAL, BEHIND = 0.001, 0.000001

-- Returns the next virtual time behind this one. Among very large numbers the next one is further away.
local function behind(time) return time + math.max(BEHIND, time * 2.3e-16) end

-- Returns the place of a flow that begins to wait in a level, and whether others with the same claim came before it.
local function place_in(level, known, reached)
  local place = reached
  if known and known > reached - EQUAL then place = math.max(known, reached + EQUAL) end
  local last = redis.call('ZRANGE', level, '(' .. secs(place + EQUAL), secs(place), 'BYSCORE', 'REV', 'LIMIT', '0', '1',
    'WITHSCORES')[2]
  if last then return behind(tonumber(last)), true end
  return place, false
end

-- Lets an owner's flow wait in its level. It gets no advantage from the time in which it did not wait: its virtual time is
-- at least that of the model, or that of its level if others wait there: of the first of them, or of the last one that was
-- served, as the first may be one that no free worker takes. What is queued again comes before those with the same claim.
local function activate(model, priority, owner, is_again)
  local level, times = level_key(model, priority), P .. 'virtual_times:' .. model
  local known = tonumber(redis.call('ZSCORE', times, owner) or '')
  local head = tonumber(redis.call('ZRANGE', level, '0', '0', 'WITHSCORES')[2] or '')
  local reached = redis.call('HMGET', P .. 'queue:' .. model, 'virtual_time', 'served:' .. priority)
  local of_model, of_level = tonumber(reached[1] or ''), tonumber(reached[2] or '')  -- none when nothing has started for a day
  reached = of_model or head or 0
  if head then reached = math.min(reached, math.max(head, of_level or head)) end
  local place, is_behind, is_before = math.max(known or 0, reached), false, false
  if not is_again then
    place, is_behind = place_in(level, known, reached)
  elseif place == head and place == reached then
    place, is_before = 2 * place - behind(place), true
  end
  if known and (is_behind or is_before or known < reached) then redis.call('ZADD', times, secs(place), owner) end
  redis.call('ZADD', level, secs(place), owner)
  redis.call('ZADD', P .. 'levels:' .. model, priority, priority)
end

local to_ring = {}  -- models for which this script has queued requests, each with the priority of one of these

-- Returns the flow of a request, which waits in its level from now on; `is_again` says that it was queued before. Its first
-- write comes after all that it reads.
local function open_flow(request, is_again)
  local model, priority, owner = request.model, request.priority or '0', request.owner or ''
  local key = flow_key(model, priority, owner)
  local last = tonumber(redis.call('ZREVRANGE', key, '0', '0', 'WITHSCORES')[2] or '')
  if not last then activate(model, priority, owner, is_again) end
  return {key = key, model = model, priority = priority, owner = owner, last = last}
end

-- Queues requests in their flow, in front of it when they are queued again. `bytes` are those of their bodies. The caller
-- rings the workers once everything is written. Returns how many of them were not there yet.
local function enqueue(flow, requests, is_front, bytes)
  local members, last = {}, flow.last
  for i, one in ipairs(requests) do
    local place = tonumber(one.record.created_at)
    if is_front then
      place = place - FRONT_SECS
    else
      place = last and math.max(place, last + 0.000002) or place  -- whatever Redis's clock does
      last = place
    end
    members[2 * i - 1], members[2 * i] = secs(place), one.rid
    to_ring[#to_ring + 1] = {flow.model, flow.priority}
  end
  local added = redis.call('ZADD', flow.key, unpack(members))
  if added > 0 then count_queued(flow.model, flow.owner, whole(added), bytes) end
  return added
end

-- Forgets a level if nothing waits in it any more. Returns whether it has.
local function forget_empty_level(model, priority)
  if redis.call('EXISTS', level_key(model, priority)) == 1 then return false end
  redis.call('ZREM', P .. 'levels:' .. model, priority)
  redis.call('HDEL', P .. 'queue:' .. model, 'served:' .. priority)
  return true
end

-- Removes requests from their flow, which may be empty then, and returns whether they were there. `bytes` are those of their
-- bodies.
local function remove_from_flow(model, priority, owner, rids, bytes)
  local removed = unless_error('WRONGTYPE', 'ZREM', flow_key(model, priority, owner), unpack(rids))
  if not removed or removed == 0 then return false end
  count_queued(model, owner, whole(-removed), -bytes)
  return true
end

-- Removes a request from its flow, and what is empty without it. Returns whether it was there.
local function dequeue(model, priority, owner, rid)
  if not remove_from_flow(model, priority, owner, {rid}, body_bytes(rid)) then return false end
  if redis.call('EXISTS', flow_key(model, priority, owner)) == 0 then
    redis.call('ZREM', level_key(model, priority), owner)
    forget_empty_level(model, priority)
  end
  return true
end

-- Removes a queued request from its queue.
local function leave_queue(record)
  local model, owner = record.model, record.owner or ''
  local was_there = dequeue(model, record.priority or '0', owner, record.id)
  if was_there and record.share then count_share(model, owner, record.share, '-') end
end

-- In `waiting:` the workers with a free slot are by since when they wait. Behind them are those that have none and would
-- move a running request away for one of better priority: at this place less its priority, so the worst comes first.
local PREEMPTIBLE = 10000000000000

-- Rings one waiting worker for each request that this script has queued. A worker waits no more once it was rung, so one that
-- does not hear it keeps nothing from the others: the next request rings another one.
local function ring_workers()
  local rung, nobody_waits = {}, {}
  for _, entry in ipairs(to_ring) do
    local waiting = P .. 'waiting:' .. entry[1]
    local name = entry[2] .. '|' .. waiting
    for _ = 1, nobody_waits[name] and 0 or 4 do
      local worker, place = unpack(redis.call('ZPOPMIN', waiting))
      nobody_waits[name] = not worker
      if not worker then break end
      if tonumber(place) >= PREEMPTIBLE - tonumber(entry[2]) then  -- neither it nor those behind it run anything worse
        redis.call('ZADD', waiting, place, worker)
        nobody_waits[name] = true
        break
      end
      local lease_ends_at = redis.call('ZSCORE', P .. 'workers', worker)
      if lease_ends_at and tonumber(lease_ends_at) > now then
        rung[#rung + 1] = worker
        break
      end
    end
  end
  for _, worker in ipairs(rung) do  -- last, as Redis may refuse to publish
    publish_to_worker(worker, {type = 'bell', prefix = P})
  end
end
