-- Deliveries to the dead: entries of a queue that wait in a worker's name, for nobody else to see.

-- Puts what `worker` was handed and never started into the retry queue, up to `limit`.
-- Returns how many moved, and whether nothing is left in its name.
local function hand_on(queue, model, worker, limit)
  local key, moved = P .. queue .. ':' .. model, 0
  if redis.call('EXISTS', key) == 0 then return 0, true end
  local pending = redis.pcall('XPENDING', key, 'workers', '-', '+', limit, worker)
  if pending.err then return 0, true end
  for _, delivery in ipairs(pending) do
    local entry = redis.call('XRANGE', key, delivery[1], delivery[1])[1]
    redis.call('XACK', key, 'workers', delivery[1])
    redis.call('XDEL', key, delivery[1])
    local rid = entry and entry[2][2]
    local record = rid and load_record(rid)
    if record and record.status == 'queued' and record.entry == delivery[1] and record.queue == queue then
      queue_again(rid, record)
      moved = moved + 1
    end
  end
  if #pending == limit then return moved, false end
  redis.call('XGROUP', 'DELCONSUMER', key, 'workers', worker)
  return moved, true
end

-- The dead workers in whose names entries of a queue wait. Costs by workers that were handed something, not by entries.
local function dead_holders(queue, model)
  local key, dead = P .. queue .. ':' .. model, {}
  if redis.call('EXISTS', key) == 0 then return dead end
  local summary = redis.pcall('XPENDING', key, 'workers')
  if summary.err or summary[1] == 0 then return dead end
  for _, holder in ipairs(summary[4]) do
    if redis.call('EXISTS', P .. 'fenced:' .. holder[1]) == 1 then dead[#dead + 1] = holder[1] end
  end
  return dead
end
