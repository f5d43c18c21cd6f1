#!lua flags=allow-oom
-- requeue: a worker returns a running request to the front of its owner's queue, for another worker.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, worker, attempt, uses_attempt ('1' when the attempt failed), message (of the error when the request
--         has to end, '' for that of a lost worker), error_detail (JSON, '' for none), max_attempts, retention_secs,
--         preempted_by (the priority of the request that gets its slot, '' for none)
-- Returns {'requeued'}, {'ended', record} when it had to end instead, {'not'} when it is not this worker's (it was
--         requeued before, or has ended), or {'unknown'}. What does not run there no longer counts as running there.

local P = KEYS[1]
local shift, rid, worker, attempt, uses_attempt, message, error_detail, max_attempts,
  retention_secs, preempted_by = unpack(ARGV)
local retention = tonumber(retention_secs)
--- @include commands record queue outcomes terminal retrying
--- @permit

local record = load_record(rid)
local runs_here = record and record.status == 'running' and record.worker == worker
if not runs_here then redis.call('HDEL', P .. 'running:' .. worker, rid) end
if not record then return {'unknown'} end
if not runs_here or record.attempt ~= attempt then return {'not'} end
local failure = message == '' and lost_outcome() or outcome_of('failed', 'unavailable', message)
if error_detail ~= '' and message ~= '' then failure.detail = error_detail end
if requeue_or_end(record, tonumber(max_attempts), uses_attempt == '1', failure, tonumber(preempted_by)) == 'requeued' then
  ring_workers()
  return {'requeued'}
end
return {'ended', public_record(record)}
