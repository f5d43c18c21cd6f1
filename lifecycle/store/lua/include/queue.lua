-- The queues of models. `queued_bytes` has the bytes of the bodies that wait for each model. It changes together with an
-- entry of a queue, which is added or found only once, so a repetition does not count twice. Sweeps correct it.

local function add_queued_bytes(model, bytes)
  if redis.call('HINCRBY', P .. 'queued_bytes', model, string.format('%d', bytes)) <= 0 then
    redis.call('HDEL', P .. 'queued_bytes', model)
  end
end

-- Returns the length of a request's body; 0 for a Redis key of another type, which must not stop an end half-way.
local function body_bytes(rid)
  local bytes = redis.pcall('STRLEN', P .. 'body:' .. rid)
  return type(bytes) == 'number' and bytes or 0
end

-- Puts a request behind those that wait in `queue` (`queue` | `retry`), and returns its entry. `bytes` are those of its
-- body, if the caller knows them.
local function enqueue(queue, model, rid, bytes)
  local entry = redis.call('XADD', P .. queue .. ':' .. model, '*', 'rid', rid)
  add_queued_bytes(model, bytes or body_bytes(rid))
  return entry
end

-- Acknowledges and deletes an entry, so that XLEN stays the depth. XACK returns 0 for a queue without a group.
local function dequeue(queue, model, entry, rid, bytes)
  local key = P .. queue .. ':' .. model
  redis.call('XACK', key, 'workers', entry)
  if redis.call('XDEL', key, entry) == 1 then add_queued_bytes(model, -(bytes or body_bytes(rid))) end
end

-- Removes a queued request from its queue.
local function leave_queue(record)
  if record.entry and record.entry ~= '' then dequeue(record.queue, record.model, record.entry, record.id) end
end
