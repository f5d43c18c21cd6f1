-- Leaving a queue.

-- A delivery is over: acknowledged and deleted, so that XLEN stays the depth. A queue without the group is fine.
local function acknowledge(key, entry)
  redis.pcall('XACK', key, 'workers', entry)
  redis.call('XDEL', key, entry)
end

-- Removes a not started request from its queue.
local function leave_queue(record)
  if record.entry and record.entry ~= '' then
    acknowledge(P .. record.queue .. ':' .. record.model, record.entry)
  end
end
