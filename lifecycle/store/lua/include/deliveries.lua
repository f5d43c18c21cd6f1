-- Deliveries to expired workers: queue entries that are assigned to such a worker, so that no other one gets them.

local NO_GROUP = 'NOGROUP WRONGTYPE'  -- errors of a queue that no worker reads, or that is not one

-- Puts deliveries that `worker` has not started into the retry queue, up to `limit`.
-- Returns how many were moved, and whether none is left.
local function requeue_deliveries(queue, model, worker, limit, now)
  local key, moved = P .. queue .. ':' .. model, 0
  if redis.call('EXISTS', key) == 0 then return 0, true end
  local pending = unless_error(NO_GROUP, 'XPENDING', key, 'workers', '-', '+', limit, worker)
  if not pending then return 0, true end
  for _, delivery in ipairs(pending) do
    local entry = redis.call('XRANGE', key, delivery[1], delivery[1])[1]
    local rid = entry and entry[2][2]
    dequeue(queue, model, delivery[1], rid or '')
    local record = rid and load_record(rid)
    if record and record.status == 'queued' and record.entry == delivery[1] and record.queue == queue then
      enqueue_retry(rid, record, now, {what = 'returned', worker = worker})
      moved = moved + 1
    end
  end
  if #pending == limit then return moved, false end
  redis.call('XGROUP', 'DELCONSUMER', key, 'workers', worker)
  return moved, true
end

-- Returns the expired workers that have deliveries of a queue. The cost grows with the workers, not with the entries.
local function expired_holders(queue, model)
  local key, expired = P .. queue .. ':' .. model, {}
  if redis.call('EXISTS', key) == 0 then return expired end
  local summary = unless_error(NO_GROUP, 'XPENDING', key, 'workers')
  if not summary or summary[1] == 0 then return expired end
  for _, holder in ipairs(summary[4]) do
    if redis.call('EXISTS', P .. 'fenced:' .. holder[1]) == 1 then expired[#expired + 1] = holder[1] end
  end
  return expired
end
