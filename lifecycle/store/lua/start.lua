#!lua flags=allow-oom
-- start: a worker takes a delivered request; opens an attempt, whose entry id fences all earlier ones.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, worker, queue (`queue` | `retry`), model, entry, resumable ('1' when its engine can go on behind
--         the tokens of another attempt), retention_secs
-- Returns {'run', attempt, base, body, request_type, cancel_mode, cancel_reason, traceparent, created_at} (the same
--         again when repeated for the same delivery), {'drop', why} when there is nothing to do, or {'fenced'}.
-- A request that is overdue, cancelled or terminal is dropped here: overdue work never starts. One with tokens, handed
-- to an engine that would begin anew, fails as `worker_lost`: no two answers are spliced.

local P = KEYS[1]
local shift, rid, worker, queue, model, entry, resumable, retention_secs = unpack(ARGV)
--- @include clock stream record events counts terminal limits retrying

local function drop(why)
  acknowledge(P .. queue .. ':' .. model, entry)
  return {'drop', why}
end

local record = load_record(rid)
if redis.call('EXISTS', P .. 'dead:' .. worker) == 1 then
  -- Delivered to a worker that was reaped before: its reaper does not come again, so it goes to another from here.
  if record and record.status == 'queued' and record.queue == queue and record.entry == entry then
    leave_queue(record)
    queue_again(rid, record)
  end
  return {'fenced'}
end
if not record then return drop('unknown') end
if is_terminal(record) then return drop(record.status) end

local function answer(base)
  return {'run', record.attempt, tostring(base), redis.call('GET', P .. 'body:' .. rid) or '', record.request_type,
          record.cancel_mode or '', record.cancel_reason or '', record.traceparent or '', record.created_at}
end

if record.status == 'running' then
  if record.worker == worker and record.started_entry == queue .. entry then return answer((stream_end(rid))) end
  return drop('taken')
end
if record.queue ~= queue or record.entry ~= entry then return drop('moved') end

local now = clock(shift)
local number, at = 0, nil
if record.attempt ~= '0' then number, at = stream_end(rid) end
for _, kind in ipairs(record.due and {'queue', 'first_token', 'deadline'} or {}) do
  local due = redis.call('ZSCORE', P .. 'deadlines', kind .. '|' .. rid)
  if due and tonumber(due) <= now then
    terminate(rid, record, now, tonumber(retention_secs), limit_outcome(kind, record, number))
    return {'drop', 'overdue'}
  end
end
if number > 0 and resumable ~= '1' then
  terminate(rid, record, now, tonumber(retention_secs), lost_outcome(number))
  return {'drop', 'worker_lost'}
end

record.attempt = tostring(tonumber(record.attempt) + 1)
record.status, record.worker, record.started_at = 'running', worker, secs(now)
acknowledge(P .. queue .. ':' .. model, entry)
redis.call('HSET', P .. 'request:' .. rid, 'status', 'running', 'worker', worker, 'attempt', record.attempt,
  'started_at', record.started_at, 'entry', '', 'started_entry', queue .. entry, 'resumable', resumable)
redis.call('SADD', P .. 'running:' .. worker, rid)
count_moves(record.frontend, rid, 'queued', 'running')
if record.due then redis.call('ZREM', P .. 'deadlines', 'queue|' .. rid) end
local id = record.attempt .. '-' .. number
redis.call('XADD', P .. 'tokens:' .. rid, id, 's', worker, 'at', at or '')
push_event(rid, id, cjson.encode({type = 'started', worker = worker, attempt = tonumber(record.attempt),
  base = number, started_at = record.started_at}))
return answer(number)
