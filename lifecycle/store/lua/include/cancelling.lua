--- @include now numbers limit_time stream record readers events terminal steps orphans

-- Cancels a request, for a caller, a lost client or a sweep. `by` says who cancels it, and `via` through which frontend
-- ('' for none).
-- Returns 'terminal' or 'pending', and the updated record.
local function cancel_request(rid, record, retention, mode, reason, by, via)
  if is_terminal(record) then return 'terminal', record end
  if record.cancel_mode == 'kill' or (record.cancel_mode == 'stop' and mode == 'stop') then
    return 'pending', record
  end
  if not record.cancel_requested_at or record.cancel_requested_at == '' then
    record.cancel_requested_at = secs(now)
  end
  local number, at, closed = stream_end(rid)
  record.cancel_mode, record.cancel_reason = mode, reason
  record.cancelled_by, record.cancelled_via = by, via
  record.orphan_from = record.orphan_from or tostring(number)
  redis.call('HSET', P .. 'request:' .. rid, 'cancel_requested_at', record.cancel_requested_at,
    'cancel_mode', mode, 'cancel_reason', reason, 'cancelled_by', by, 'cancelled_via', via,
    'orphan_from', record.orphan_from)
  note_step(rid, record, {what = 'cancel_requested', mode = mode, by = by, via = via})
  if record.status == 'queued' then
    return 'terminal', terminate(rid, record, retention, cancelled_outcome(record, number), {number, at, closed})
  end
  note_cancellation(record.worker, rid)
  if mode == 'kill' then
    local ending = cjson.encode(cancelled_outcome(record, number))
    if not closed then close_stream(rid, ending) end
    push_event(rid, END_ID, ending)
  end
  publish_cancellation(record.worker, rid, mode, reason)
  return 'pending', record
end

-- Begins the disconnect grace of some seconds, unless it has begun. The field `due` says that the request is in
-- `deadlines`.
local function begin_grace(rid, grace_secs)
  redis.call('HSET', P .. 'request:' .. rid, 'due', '1')
  redis.call('ZADD', P .. 'deadlines', 'NX', secs(limit_time() + grace_secs), 'grace|' .. rid)
end

-- Cancels, begins the grace or continues, as the request says, when its last reader has disconnected from
-- `frontend`.
local function reader_disconnected(rid, record, retention, frontend)
  if live_readers(rid) > 0 then return 'continues', record end
  local continues, grace = record.on_disconnect == 'continue', tonumber(record.grace_secs or '0')
  if not continues and grace <= 0 then
    return cancel_request(rid, record, retention, 'kill', 'The client disconnected', 'disconnect', frontend)
  end
  begin_orphans(rid, record)
  if continues then return 'continues', record end
  begin_grace(rid, grace)
  return 'grace', record
end
