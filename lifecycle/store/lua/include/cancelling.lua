--- @include now numbers limit_time stream record readers events cancellation outcomes terminal steps orphans

-- Cancels a request, for a caller, a lost client or a sweep. `by` says who cancels it, and `via` through which frontend
-- ('' for none).
-- Returns 'terminal' or 'pending'.
local function cancel_request(record, mode, reason, by, via)
  if is_terminal(record) then return 'terminal' end
  if record.cancel_mode == 'kill' or (record.cancel_mode == 'stop' and mode == 'stop') then return 'pending' end
  record.cancel_requested_at = record.cancel_requested_at or secs(now)
  local number, _, closed = stream_end(record.id)
  record.cancel_mode, record.cancel_reason = mode, reason
  record.cancelled_by, record.cancelled_via = by, via
  record.orphan_from = record.orphan_from or tostring(number)
  redis.call('HSET', P .. 'request:' .. record.id, 'cancel_requested_at', record.cancel_requested_at,
    'cancel_mode', mode, 'cancel_reason', reason, 'cancelled_by', by, 'cancelled_via', via,
    'orphan_from', record.orphan_from)
  note_step(record, {what = 'cancel_requested', mode = mode, by = by, via = via})
  if record.status == 'queued' then
    terminate(record, cancelled_outcome(record))
    return 'terminal'
  end
  note_cancellation(record.worker, record.id)
  if mode == 'kill' then
    local outcome = cancelled_outcome(record)
    outcome.last = number
    local ending = cjson.encode(outcome)
    if not closed then close_stream(record.id, ending) end
    push_event(record.id, END_ID, ending)
  end
  publish_cancellation(record.worker, record.id, mode, reason)
  return 'pending'
end

-- Begins the disconnect grace of some seconds, unless it has begun. The field `due` says that the request is in
-- `deadlines`.
local function begin_grace(rid, grace_secs)
  redis.call('HSET', P .. 'request:' .. rid, 'due', '1')
  redis.call('ZADD', P .. 'deadlines', 'NX', secs(limit_time() + grace_secs), 'grace|' .. rid)
end

-- Cancels, begins the grace or continues, as the request says, when its last reader has disconnected from `frontend`.
local function reader_disconnected(record, frontend)
  if live_readers(record.id) > 0 then return 'continues' end
  local continues, grace = record.on_disconnect == 'continue', tonumber(record.grace_secs or '0')
  if not continues and grace <= 0 then
    return cancel_request(record, 'kill', 'The client disconnected', 'disconnect', frontend)
  end
  begin_orphans(record)
  if continues then return 'continues' end
  begin_grace(record.id, grace)
  return 'grace'
end
