#!lua flags=allow-oom
-- requeue: a worker gives a request back: one it was handed and cannot start, or one that it runs and that
--          can be tried again, when it drains.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, worker, attempt ('' for a delivery that was not started), queue, entry, max_attempts,
--         retention_secs
-- Returns {'requeued'}, {'ended', record} when it had to end instead, {'not'} when it is not this worker's to give
--         back (already moved or ended), or {'unknown'}. What does not run there stops being counted as running there.

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
  queue_again(rid, record)
  return {'requeued'}
end
if not runs_here or record.attempt ~= attempt then return {'not'} end
local what
what, record = lose_worker(rid, record, clock(shift), tonumber(retention_secs), tonumber(max_attempts))
if what == 'requeued' then return {'requeued'} end
return {'ended', public_record(rid, record)}
