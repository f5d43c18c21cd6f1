-- Acknowledges and deletes a delivery, so that XLEN stays the depth. The queue may have no group.
local function acknowledge(key, entry)
  redis.pcall('XACK', key, 'workers', entry)
  redis.call('XDEL', key, entry)
end

-- Removes a queued request from its queue.
local function leave_queue(record)
  if record.entry and record.entry ~= '' then
    acknowledge(P .. record.queue .. ':' .. record.model, record.entry)
  end
end
