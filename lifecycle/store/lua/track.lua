#!lua
-- track: accepts a request that runs in the process of its frontend, which is its worker too: writes its record,
--         counts it and begins its only attempt. No other process can run it, so it has no body and is in no queue.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, nonce, start_nonce (of its start, 8 characters), model, endpoint, request_type, frontend,
--         on_disconnect, grace_secs, first_token_timeout_secs, deadline_secs, traceparent, owner ('' for none),
--         started_by (the request that started this one, see include/parent.lua, '' for none), labels (the
--         application's own, as a JSON object of strings, '' for none)
-- Returns {'run', created_at, start_nonce} (the same again when repeated with the same nonce), {'exists'} or
--         {'fenced'}.
-- There is no allow-oom: when the memory is full, new requests are what must be refused.

local P = KEYS[1]
local shift, rid, nonce, start_nonce, model, endpoint, request_type, frontend, on_disconnect, grace_secs,
  first_token_timeout_secs, deadline_secs, traceparent, owner, started_by, labels = unpack(ARGV)
--- @include commands clock limit_time readers counts parent

local key = P .. 'request:' .. rid
local known = redis.call('HMGET', key, 'nonce', 'created_at', 'start_nonce')
if known[2] then
  if known[1] == nonce then return {'run', known[2], known[3]} end
  return {'exists'}
end
if redis.call('EXISTS', P .. 'fenced:' .. frontend) == 1 then return {'fenced'} end

--- @permit HSET HKEYS HSETNX HINCRBY ZADD XADD

local now = clock(shift)
local created_at = secs(now)
redis.call('HSET', key,
  'status', 'running', 'attempt', '1', 'worker', frontend, 'frontend', frontend, 'request_type', request_type,
  'created_at', created_at, 'started_at', created_at, 'nonce', nonce, 'start_nonce', start_nonce, 'id', rid,
  'model', model, 'endpoint', endpoint, 'on_disconnect', on_disconnect, 'grace_secs', grace_secs)
for name, value in pairs({traceparent = traceparent, owner = owner, labels = labels}) do
  if value ~= '' then redis.call('HSET', key, name, value) end
end
note_parent(rid, started_by, now)
local limits_at
for kind, after_secs in pairs({first_token = first_token_timeout_secs, deadline = deadline_secs}) do
  if tonumber(after_secs) > 0 then
    limits_at = limits_at or limit_time(now)
    redis.call('HSET', key, kind .. '_limit_secs', after_secs, 'due', '1')
    redis.call('ZADD', P .. 'deadlines', secs(limits_at + tonumber(after_secs)), kind .. '|' .. rid)
  end
end
redis.call('HSET', P .. 'readers:' .. rid, frontend, '1')
redis.call('HSETNX', P .. 'ticks', frontend, '0')
note_readers(rid, frontend, start_nonce)
count_in(frontend, rid, labels_of({model = model, endpoint = endpoint, request_type = request_type}), 'running')
redis.call('ZADD', P .. 'created', created_at, rid)
redis.call('ZADD', P .. 'active', created_at, rid)
if owner ~= '' then redis.call('ZADD', P .. 'owned:' .. owner, created_at, rid) end
redis.call('XADD', P .. 'tokens:' .. rid, '1-0', 's', frontend, 'at', '', 'n', start_nonce)
return {'run', created_at, start_nonce}
