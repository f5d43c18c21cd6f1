#!lua flags=allow-oom
-- requeue: a worker returns a request to the retry queue: a delivery that it cannot start, or a running request that
--         can be tried again.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, worker, attempt ('' for a delivery that was not started), queue, entry, max_attempts,
--         retention_secs
-- Returns {'requeued'}, {'ended', record} when it had to end instead, {'not'} when it is not this worker's (it was
--         requeued before, or has ended), or {'unknown'}. What does not run there no longer counts as running there.

local P = KEYS[1]
local shift, rid, worker, attempt, queue, entry, max_attempts, retention_secs = unpack(ARGV)
--- @include clock stream record events counts queue terminal retrying

local record = load_record(rid)
local runs_here = record and record.status == 'running' and record.worker == worker
if not runs_here then redis.call('HDEL', P .. 'running:' .. worker, rid) end
if not record then return {'unknown'} end
if record.status == 'queued' and attempt == '' then
  if record.queue ~= queue or record.entry ~= entry then return {'not'} end
  leave_queue(record)
  enqueue_retry(rid, record)
  return {'requeued'}
end
if not runs_here or record.attempt ~= attempt then return {'not'} end
local what
what, record = requeue_or_end(rid, record, clock(shift), tonumber(retention_secs), tonumber(max_attempts))
if what == 'requeued' then return {'requeued'} end
return {'ended', public_record(rid, record)}
