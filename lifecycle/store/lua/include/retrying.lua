-- Requests whose worker has expired or returns them.
--- @include now numbers limit_time stream events counts queue cost terminal steps

-- Queues a record again, at the front of its owner's flow. A limit of its time in the queue begins anew. `step` is what the
-- timeline says of it.
local function enqueue_retry(rid, record, step)
  note_step(rid, record, step)
  if record.queue_limit_secs then
    local due_at = limit_time() + tonumber(record.queue_limit_secs)
    redis.call('ZADD', P .. 'deadlines', 'NX', secs(due_at), 'queue|' .. rid)
  end
  redis.call('HSET', P .. 'request:' .. rid, 'queued_at', secs(now))
  if enqueue(open_flow(record), {{rid = rid, record = record}}, true, body_bytes(rid)) > 0 and record.share then
    count_share(record.model, record.owner or '', record.share, '')
  end
end

local function lost_outcome(number)
  return outcome_of('failed', 'worker_lost', 'Disconnected: Stream ended before generation completed', '', number)
end

-- Ends a running request whose cancel is pending as cancelled. Requeues one that has only openings yet, or whose engine can
-- continue behind its tokens, unless its attempts are used up. Fails any other with the outcome of `failed_at(number)`.
-- `uses_attempt` says that the attempt failed; an attempt that was moved in an orderly way does not count. `preempted_by` is
-- the priority of the request for which it is moved, if there is one.
local function requeue_or_end(rid, record, retention, max_attempts, uses_attempt, failed_at, preempted_by)
  local number, at = stream_end(rid)
  local function ends(outcome) return 'ended', terminate(rid, record, retention, outcome) end
  if record.cancel_mode == 'kill' or record.cancel_mode == 'stop' then
    return ends(cancelled_outcome(record, number))
  end
  local failures = tonumber(record.failures or '0') + (uses_attempt and 1 or 0)
  if ((record.first_token_at or '') ~= '' and record.resumable ~= '1') or (uses_attempt and failures >= max_attempts) then
    return ends(failed_at(number))
  end
  if uses_attempt then redis.call('HSET', P .. 'request:' .. rid, 'failures', failures) end
  if record.worker and record.worker ~= '' then
    redis.call('HDEL', P .. 'running:' .. record.worker, rid)
  end
  local step = {what = 'requeued', attempt = tonumber(record.attempt), worker = record.worker,
    started_at = record.started_at}
  local failure = failed_at(number)
  if uses_attempt or failure.error_type ~= 'worker_lost' then
    step.error_type, step.error_message = failure.error_type, failure.message
  end
  if preempted_by then
    step.preempted_by = preempted_by
    record.preemptions = tostring(tonumber(record.preemptions or '0') + 1)
    redis.call('HSET', P .. 'request:' .. rid, 'preemptions', record.preemptions)
  end
  if record.cost then  -- the next start costs its owner the whole of it
    correct_cost(record.model, record.owner or '', correction_of(record, 0))
    redis.call('HDEL', P .. 'request:' .. rid, 'cost')
  end
  record.status, record.worker, record.started_at = 'queued', '', ''
  redis.call('HSET', P .. 'request:' .. rid, 'status', 'queued', 'worker', '', 'started_at', '')
  count_moves(record.frontend, {rid}, 'running', 'queued')
  -- A flush of this attempt may still be under way. The next attempt's entry refuses it too, but only once it starts.
  redis.call('XADD', P .. 'tokens:' .. rid, record.attempt .. '-' .. CLOSED, 'g', number, 'at', at or '')
  enqueue_retry(rid, record, step)
  push_event(rid, record.attempt .. '-0', cjson.encode({type = 'requeued'}))
  return 'requeued', record
end
