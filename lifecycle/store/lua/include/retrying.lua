-- Requests whose worker has expired or returns them.
--- @include now numbers limit_time stream record events counts queue cost outcomes terminal steps

-- Queues a record again, at the front of its owner's flow. A limit of its time in the queue begins anew. `step` is what the
-- timeline says of it.
local function enqueue_retry(record, step)
  note_step(record, step)
  if record.queue_limit_secs then
    local due_at = limit_time() + tonumber(record.queue_limit_secs)
    redis.call('ZADD', P .. 'deadlines', 'NX', secs(due_at), 'queue|' .. record.id)
  end
  set_field(record, 'queued_at', secs(now))
  local again = {{rid = record.id, record = record}}
  if enqueue(open_flow(record, true), again, true, body_bytes(record.id)) > 0 and record.share then
    count_share(record.model, record.owner or '', record.share, '')
  end
end

-- Ends a running request whose cancel is pending as cancelled. Requeues one that has only openings yet, or whose engine can
-- continue behind its tokens, unless its attempts are used up. Fails any other with the outcome `failure`.
-- `uses_attempt` says that the attempt failed; an attempt that was moved in an orderly way does not count. `preempted_by` is
-- the priority of the request for which it is moved, if there is one.
local function requeue_or_end(record, max_attempts, uses_attempt, failure, preempted_by)
  local failures, outcome = tonumber(record.failures or '0') + (uses_attempt and 1 or 0), nil
  if record.cancel_mode == 'kill' or record.cancel_mode == 'stop' then
    outcome = cancelled_outcome(record)
  elseif (record.first_token_at and record.resumable ~= '1') or (uses_attempt and failures >= max_attempts) then
    outcome, record.error_detail = failure, failure.detail
  end
  if outcome then
    terminate(record, outcome)
    return 'ended'
  end
  local number, at = stream_end(record.id)  -- before the first write, as it may fail
  if uses_attempt then set_field(record, 'failures', failures) end
  redis.call('HDEL', P .. 'running:' .. record.worker, record.id)
  local step = {what = 'requeued', attempt = tonumber(record.attempt), worker = record.worker, started_at = record.started_at}
  if uses_attempt or failure.error_type ~= 'worker_lost' then
    step.error_type, step.error_message = failure.error_type, failure.message
  end
  if preempted_by then
    step.preempted_by = preempted_by
    set_field(record, 'preemptions', tostring(tonumber(record.preemptions or '0') + 1))
  end
  if record.cost then  -- the next start costs its owner the whole of it
    correct_cost(record.model, record.owner or '', correction_of(record, 0))
    redis.call('HDEL', P .. 'request:' .. record.id, 'cost')
  end
  record.status, record.worker, record.started_at = 'queued', '', ''
  redis.call('HSET', P .. 'request:' .. record.id, 'status', 'queued', 'worker', '', 'started_at', '')
  count_moves(record.frontend, {record.id}, 'running', 'queued')
  -- A flush of this attempt may still be under way. The next attempt's entry refuses it too, but only once it starts.
  redis.call('XADD', P .. 'tokens:' .. record.id, record.attempt .. '-' .. CLOSED, 'g', number, 'at', at or '')
  enqueue_retry(record, step)
  push_event(record.id, record.attempt .. '-0', cjson.encode({type = 'requeued'}))
  return 'requeued'
end
