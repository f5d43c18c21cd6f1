-- The one way a request ends. Callers have checked that the record is not terminal.

-- Removes a not started request from its queue: acknowledged and deleted, so that XLEN stays the depth.
local function leave_queue(record)
  if record.entry and record.entry ~= '' then
    local key = P .. record.queue .. ':' .. record.model
    if redis.call('EXISTS', key) == 1 then
      pcall(redis.call, 'XACK', key, 'workers', record.entry)
      redis.call('XDEL', key, record.entry)
    end
  end
end

-- Tells a worker to end a request: durably (it hears of it with its next renewal), then at once.
local function order(worker, rid, mode, reason)
  if worker and worker ~= '' and redis.call('EXISTS', P .. 'dead:' .. worker) == 0 then
    redis.call('SADD', P .. 'orders:' .. worker, rid)
  end
  publish(rid, {type = 'cancel', mode = mode, reason = reason})
end

-- Closes a token stream that is open: no entry can follow.
local function close_stream(rid, outcome)
  redis.call('XADD', P .. 'tokens:' .. rid, CLOSED .. '-' .. CLOSED, 'e', cjson.encode(outcome))
end

-- What readers are told when the token stream is closed; `last` lets them see a gap before the end.
local function outcome_of(status, error_type, message, finish_reason, last)
  return {type = 'end', status = status, error_type = error_type or '', message = message or '',
          finish_reason = finish_reason or '', last = last}
end

-- Ends the request: record, counts, totals, queue, stream, expiry, then the readers and the subscribers.
-- `outcome` is outcome_of(...); `tail` what stream_end(...) returns, for who knows it. Returns the updated record.
local function terminate(rid, record, now, retention, outcome, tail)
  local was = record.status
  if was == 'queued' then leave_queue(record) end
  outcome.input_tokens = record.input_tokens
  local number, at, closed = unpack(tail or {stream_end(rid)}, 1, 3)
  if not closed then close_stream(rid, outcome) end
  record.status = outcome.status
  record.error_type = outcome.error_type
  record.error_message = outcome.message
  record.finish_reason = outcome.finish_reason
  record.finished_at = secs(now)
  record.output_tokens = tostring(number)
  if number > 0 and at then
    record.last_token_at = secs(tonumber(at) / 1000)
    if not record.first_token_at or record.first_token_at == '' then
      record.first_token_at = record.last_token_at
    end
  end
  redis.call('HDEL', P .. 'request:' .. rid, 'body', 'entry')
  redis.call('HSET', P .. 'request:' .. rid,
    'status', record.status, 'error_type', record.error_type, 'error_message', record.error_message,
    'finish_reason', record.finish_reason, 'finished_at', record.finished_at,
    'output_tokens', record.output_tokens, 'last_token_at', record.last_token_at or '',
    'first_token_at', record.first_token_at or '')
  record.body, record.entry = nil, nil
  count_out(record.frontend, rid, was)
  if record.worker and record.worker ~= '' then
    redis.call('SREM', P .. 'running:' .. record.worker, rid)
    redis.call('SREM', P .. 'orders:' .. record.worker, rid)
  end
  redis.call('ZREM', P .. 'active', rid)
  redis.call('ZREM', P .. 'deadlines', 'queue|' .. rid, 'first_token|' .. rid, 'deadline|' .. rid, 'grace|' .. rid)
  redis.call('ZADD', P .. 'expiries', secs(now + retention), rid)
  local label = outcome.status == 'completed' and 'success' or 'error'
  redis.call('HINCRBY', P .. 'totals', cjson.encode(
    {record.model, record.endpoint, record.request_type, label, outcome.error_type}), 1)
  local ttl_ms = math.ceil(retention * 1000)
  redis.call('PEXPIRE', P .. 'request:' .. rid, ttl_ms)
  redis.call('PEXPIRE', P .. 'tokens:' .. rid, ttl_ms)
  push_event(rid, CLOSED .. '-' .. CLOSED, cjson.encode({type = 'terminal', outcome = outcome,
    record = public_record(rid, record)}))
  redis.call('DEL', P .. 'readers:' .. rid)
  publish(rid, {type = 'terminal', status = record.status, error_type = record.error_type})
  return record
end

-- How a request with a confirmed cancel ends.
local function cancelled_outcome(record, last)
  local reason = record.cancel_reason
  if not reason or reason == '' then reason = 'cancelled' end
  return outcome_of('cancelled', 'cancelled', reason, '', last)
end
