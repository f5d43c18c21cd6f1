#!lua flags=allow-oom
-- reap: cleans up after an expired replica in one shard. Each call is bounded; it is repeated until done.
-- KEYS[1] shard prefix
-- ARGV    shift, replica, role, uses_attempt ('1' when
--         its attempts have failed, '' when it was draining), retention_secs, max_attempts, limit
-- Returns {done, ended, moved, waiting}: done is 1 when nothing is left; moved requests were requeued or given to a new
--         owner, one of the frontends with a lease here; waiting ones need a new owner, but no frontend has one.
-- The `fenced:` mark was set when it expired: see expire. What it has ended itself since then is not here any more.

local P = KEYS[1]
local shift, replica, role, uses_attempt, retention_secs, max_attempts, limit = unpack(ARGV)
local retention = tonumber(retention_secs)
--- @include commands now record readers events counts queue outcomes terminal steps orphans cancelling retrying
--- @permit

local ended, moved, waiting, left = 0, 0, 0, 0
limit = tonumber(limit)

-- A frontend runs what was tracked in its process, which no worker can start again: that has one attempt only.
local function reap_running()
  local key, most_attempts = P .. 'running:' .. replica, role == 'worker' and tonumber(max_attempts) or 1
  for _, rid in ipairs(redis.call('HRANDFIELD', key, limit) or {}) do
    local record = load_record(rid)
    if record and record.status == 'running' and record.worker == replica then
      local what = requeue_or_end(record, most_attempts,
        role ~= 'worker' or uses_attempt == '1', lost_outcome())
      if what == 'requeued' then moved = moved + 1 else ended = ended + 1 end
    end
    redis.call('HDEL', key, rid)
  end
  left = left + redis.call('HLEN', key)
end

local function find_new_owner(rid)
  local flat = redis.call('HGETALL', P .. 'readers:' .. rid)
  for i = 1, #flat, 2 do
    if flat[i] ~= replica and tonumber(flat[i + 1]) > 0 and redis.call('EXISTS', P .. 'fenced:' .. flat[i]) == 0 then
      return flat[i], true
    end
  end
  local candidates = redis.call('ZCARD', P .. 'frontends')
  if candidates == 0 then return nil, false end
  local chosen = (tonumber(string.format('%.0f', now * 1000000)) + ended + moved) % candidates
  return redis.call('ZRANGE', P .. 'frontends', chosen, chosen)[1], false
end

local function reassign(rid, record, new_owner, read)
  local one = {rid = rid, labels = labels_of(record), was = record.status}
  count_out(replica, {one})
  redis.call('HDEL', P .. 'readers:' .. rid, replica)
  redis.call('HSETNX', P .. 'readers:' .. rid, new_owner, 0)
  note_readers(record)
  redis.call('HSET', P .. 'request:' .. rid, 'frontend', new_owner)
  redis.call('SREM', P .. 'reading:' .. new_owner, rid)
  record.frontend = new_owner
  note_step(record, {what = 'frontend_changed', previous = replica, frontend = new_owner})
  count_in(new_owner, {one}, record.status)
  if not read then begin_orphans(record) end
  if record.on_disconnect ~= 'continue' and not read and record.cancel_mode ~= 'kill' then
    begin_grace(rid, tonumber(record.grace_secs or '0'))
  end
  push_event(rid, '0-0', cjson.encode({type = 'reassigned', frontend = new_owner}))
  moved = moved + 1
end

-- The client's connection ended with the frontend. A request that may continue without it gets a new owner.
local function reap_inflight()
  local key = P .. 'inflight:' .. replica
  for _, rid in ipairs(redis.call('HRANDFIELD', key, limit) or {}) do
    local record = load_record(rid)
    if not record or is_terminal(record) or record.frontend ~= replica then
      redis.call('HDEL', key, rid)
    else
      local new_owner, read = find_new_owner(rid)
      local outlives = read or record.on_disconnect == 'continue' or tonumber(record.grace_secs or '0') > 0
        or is_being_killed(record)
      if not outlives then
        terminate_and_kill(record, outcome_of('failed', 'frontend_lost', 'The frontend that held the connection was lost'))
        ended = ended + 1
      elseif new_owner then
        reassign(rid, record, new_owner, read)
      else
        waiting = waiting + 1
      end
    end
  end
  left = left + redis.call('HLEN', key)
end

-- The connections of other readers ended with the frontend too. The request is judged as after any disconnect.
local function reap_reading()
  local key = P .. 'reading:' .. replica
  for _, rid in ipairs(redis.call('SRANDMEMBER', key, math.max(0, limit - ended - moved - waiting))) do
    local record = load_record(rid)
    if record and not is_terminal(record) and record.frontend ~= replica then
      redis.call('HDEL', P .. 'readers:' .. rid, replica)
      note_readers(record)
      note_step(record, {what = 'reader_left', frontend = replica})
      if reader_disconnected(record, replica) == 'terminal' then ended = ended + 1 end
    end
    redis.call('SREM', key, rid)
  end
  left = left + redis.call('SCARD', key)
end

reap_running()
if role == 'frontend' and left == 0 then  -- what it runs ends before anything of it is given to a new owner
  reap_inflight()
  reap_reading()
  if left == 0 then
    forget_counts(replica)
    redis.call('DEL', P .. 'inflight:' .. replica)
  end
end
if left == 0 then
  redis.call('DEL', P .. 'pending_cancellations:' .. replica)
  redis.call('HDEL', P .. 'ticks', replica)
  redis.call('HDEL', P .. 'taken', replica)
  redis.call('HDEL', P .. 'pending_cleanup', replica)
end
if ended + moved > 0 then redis.call('HINCRBY', P .. 'totals', cjson.encode({'reaped', role}), ended + moved) end
ring_workers()
return {left == 0 and 1 or 0, ended, moved, waiting}
