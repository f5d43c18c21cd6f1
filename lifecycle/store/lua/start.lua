#!lua flags=allow-oom
-- start: a worker begins an attempt on a delivered request. The attempt's first entry id refuses all earlier attempts.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, worker, nonce (of this start, 8 characters), queue (`queue` | `retry`), model, entry,
--         resumable ('1' when its engine can continue behind the tokens of another attempt), retention_secs, accepts
--         (the gated parameters that the engine accepts, separated by spaces, `*` for all), endpoints (those that the
--         worker offers, each between spaces; `~` before a name says that it translates)
-- Returns {'run', attempt, base, body, request_type, cancel_mode, cancel_reason, traceparent, created_at, needs,
--         headers, endpoint, owner, nonce, length (how many entries the token stream has)} (the same again when repeated
--         for the same delivery, also with another nonce), {'drop', why} when there is nothing to run, {'unsupported',
--         endpoint, needs} when this engine does not offer the endpoint, or does not accept what the request needs
--         (nothing is changed), or {'fenced'}.
-- A request that is past a limit ends here. One that has tokens, beside openings, with an engine that would begin anew,
-- fails as `worker_lost`: the tokens of two answers must not be joined.

local P = KEYS[1]
local shift, rid, worker, nonce, queue, model, entry, resumable, retention_secs, accepts, endpoints = unpack(ARGV)
--- @include commands clock limit_time stream record readers events counts queue

-- Few starts end or requeue a request, so the functions for that are created only then.
local function load_rare()
--- @include content terminal limits steps retrying
--- @permit
  return terminate, limit_outcome, lost_outcome, enqueue_retry
end

local function drop(why)
  dequeue(queue, model, entry, rid)
  return {'drop', why}
end

local key = P .. 'request:' .. rid
local status, holder, its_queue, its_entry, started_entry, attempt, frontend, due, request_type, cancel_mode,
  cancel_reason, traceparent, created_at, needs, headers, endpoint, owner, storage, first_token_at,
  started_nonce = unpack(read_typed('HMGET', key, 'status', 'worker', 'queue', 'entry', 'started_entry', 'attempt',
  'frontend', 'due', 'request_type', 'cancel_mode', 'cancel_reason', 'traceparent', 'created_at', 'needs', 'headers',
  'endpoint', 'owner', 'storage', 'first_token_at', 'start_nonce'))
local waits_here = status == 'queued' and its_queue == queue and its_entry == entry

if redis.call('EXISTS', P .. 'fenced:' .. worker) == 1 then
  -- The worker was reaped before this delivery and is not reaped again, so the delivery is queued again here.
  if waits_here then
    local _, _, _, enqueue_retry = load_rare()
    local record = load_record(rid)
    leave_queue(record)
    enqueue_retry(rid, record, clock(shift), {what = 'returned', worker = worker})
  end
  return {'fenced'}
end
if not status then return drop('unknown') end  -- or a Redis key of another type
if status ~= 'queued' and status ~= 'running' then return drop(status) end

local body = redis.call('GET', P .. 'body:' .. rid) or ''

local function answer(base)
  return {'run', attempt, tostring(base), body, request_type,
          cancel_mode or '', cancel_reason or '', traceparent or '', created_at, needs or '', headers or '',
          endpoint, owner or '', nonce, redis.call('XLEN', P .. 'tokens:' .. rid)}
end

if status == 'running' then
  if holder == worker and started_entry == queue .. entry then
    nonce = started_nonce or ''
    return answer((stream_end(rid)))
  end
  return drop('taken')
end
if not waits_here then return drop('moved') end

local now = clock(shift)
local number, at = 0, nil
if attempt ~= '0' or storage then number, at = stream_end(rid) end  -- otherwise there is no stream
local limits_at = due and limit_time(now)
for _, kind in ipairs(due and {'queue', 'first_token', 'deadline'} or {}) do
  local due_at = redis.call('ZSCORE', P .. 'deadlines', kind .. '|' .. rid)
  if due_at and tonumber(due_at) <= limits_at then
    local terminate, limit_outcome = load_rare()
    local record = load_record(rid)
    terminate(rid, record, now, tonumber(retention_secs), limit_outcome(kind, record, number))
    return {'drop', 'overdue'}
  end
end
if number > 0 and (first_token_at or '') ~= '' and resumable ~= '1' then
  local terminate, _, lost_outcome = load_rare()
  terminate(rid, load_record(rid), now, tonumber(retention_secs), lost_outcome(number))
  return {'drop', 'worker_lost'}
end

-- Returns whether a name is in a list of names, each of which is between spaces.
local function names(list, name) return string.find(list, ' ' .. name .. ' ', 1, true) end

local native = names(endpoints, endpoint)
if not native and not names(endpoints, '~' .. endpoint) then return {'unsupported', endpoint, needs or ''} end
if needs then
  for name in string.gmatch(needs, '%S+') do
    local accepted = accepts == '*' or names(' ' .. accepts .. ' ', name)
    if string.sub(name, 1, 7) == 'native:' then accepted = native end
    if string.sub(name, 1, 7) == 'serves:' then accepted = names(endpoints, string.sub(name, 8)) end
    if not accepted then return {'unsupported', endpoint, needs} end
  end
end

for _, command in ipairs({'XDEL', 'HSET', 'HSETNX', 'HKEYS', 'HGET', 'HINCRBY', 'HDEL', 'XADD'}) do require_command(command) end
if due then require_command('ZREM') end
attempt = tostring(tonumber(attempt) + 1)
local started_at = secs(now)
dequeue(queue, model, entry, rid, #body)
redis.call('HSET', key, 'status', 'running', 'worker', worker, 'attempt', attempt, 'started_at', started_at,
  'entry', '', 'started_entry', queue .. entry, 'resumable', resumable, 'start_nonce', nonce)
redis.call('HSETNX', P .. 'ticks', worker, '0')
local frontends = note_readers(rid, worker, nonce)
count_moves(frontend, rid, 'queued', 'running')
if due then redis.call('ZREM', P .. 'deadlines', 'queue|' .. rid) end
local id = attempt .. '-' .. number
redis.call('XADD', P .. 'tokens:' .. rid, id, 's', worker, 'at', at or '', 'n', nonce)
push(frontends, rid, id, cjson.encode({type = 'started', worker = worker, attempt = tonumber(attempt), base = number,
  nonce = nonce, started_at = started_at}))
return answer(number)
