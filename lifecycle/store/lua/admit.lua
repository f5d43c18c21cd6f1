#!lua
-- admit: accepts a request: writes its record, queues it and counts it.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, nonce, model, endpoint, request_type, frontend, body, on_disconnect, grace_secs,
--         queue_timeout_secs, first_token_timeout_secs, deadline_secs, queue_limit (of the owner's requests that wait for the model in this shard),
--         queue_bytes (how many bytes the bodies of this shard's queued requests may have; one always may wait),
--         traceparent, idempotency (identifies repetitions of the call, '' for none), owner ('' for none), admit_by
--         (when the owner's quota slot may be released, '' without a slot), needs (the gated parameters that the engine
--         must accept, separated by spaces, '' for none), headers (for the engine, as a JSON object, '' for none), storage
--         (decides about the content at the end, see Storage; '' when it is that of other endpoints), openings (a JSON
--         list of events that are the answer's first, '' for none), openings_count, stored_limit_bytes (how much kept
--         content the owner may have in this shard, 0 for no limit), transient_secs (how long the events of transient
--         content stay after the end), webhook_url (gets an event at the end, '' for none), webhook_event (the id of that
--         event), parent (id of the request that started this one, '' for none), labels (the application's own, as a
--         JSON object of strings, '' for none), priority (lower is served first), weight (of the owner, 1 or so), prompt_tokens
--         (as estimated), max_tokens (of the answer, '' when the call does not say)
-- Returns {'admitted', created_at} (the same again when repeated with the same nonce), {'exists'}, {'full', depth},
--         {'full_bytes', bytes}, {'late'} or {'fenced'}.
-- There is no allow-oom: when the memory is full, new requests are what must be refused.

local P = KEYS[1]
local shift, rid, nonce, model, endpoint, request_type, frontend, body, on_disconnect, grace_secs,
  queue_timeout_secs, first_token_timeout_secs, deadline_secs, queue_limit, queue_bytes, traceparent, idempotency,
  owner, admit_by, needs, headers, storage, openings, openings_count, stored_limit_bytes, transient_secs,
  webhook_url, webhook_event, parent, labels, priority, weight, prompt_tokens, max_tokens = unpack(ARGV)
--- @include commands clock limit_time events counts queue

local key = P .. 'request:' .. rid
local known = redis.call('HMGET', key, 'nonce', 'created_at')
if known[2] then
  if known[1] == nonce then return {'admitted', known[2]} end
  return {'exists'}
end
if redis.call('EXISTS', P .. 'fenced:' .. frontend) == 1 then return {'fenced'} end
local depth = tonumber(redis.call('HGET', P .. 'queued:' .. model, owner) or '0')
if depth >= tonumber(queue_limit) then return {'full', depth} end
local waiting, queued_bytes = redis.call('HGETALL', P .. 'queued_bytes'), 0
for i = 2, #waiting, 2 do queued_bytes = queued_bytes + waiting[i] end
if queued_bytes > 0 and queued_bytes + #body > tonumber(queue_bytes) then return {'full_bytes', queued_bytes} end
local now = clock(shift)
if admit_by ~= '' and now > tonumber(admit_by) then return {'late'} end
for _, command in ipairs({'SET', 'XADD', 'HSET', 'ZADD', 'HSETNX', 'HINCRBY', 'ZPOPMIN', 'ZREVRANGE', 'ZRANGE', 'ZSCORE'}) do
  require_command(command)
end

local created_at = secs(now)
-- Redis stores a small hash in one piece and searches it for each field. So empty fields are left out, the body has a
-- Redis key of its own, and the fields that are read most come first.
redis.call('SET', P .. 'body:' .. rid, body)
redis.call('HSET', key,
  'status', 'queued', 'attempt', '0', 'frontend', frontend,
  'request_type', request_type, 'created_at', created_at, 'nonce', nonce, 'id', rid, 'model', model,
  'endpoint', endpoint, 'on_disconnect', on_disconnect, 'grace_secs', grace_secs, 'prompt_tokens', prompt_tokens)
if traceparent .. idempotency .. owner ~= '' then
  redis.call('HSET', key, 'traceparent', traceparent, 'idempotency', idempotency, 'owner', owner)
end
if admit_by ~= '' then redis.call('HSET', key, 'quota_slot', '1') end
if priority ~= '0' then redis.call('HSET', key, 'priority', priority) end
if weight ~= '1' then redis.call('HSET', key, 'weight', weight) end
if max_tokens ~= '' then redis.call('HSET', key, 'max_tokens', max_tokens) end
if needs ~= '' then redis.call('HSET', key, 'needs', needs) end
if headers ~= '' then redis.call('HSET', key, 'headers', headers) end
if storage ~= '' then
  redis.call('HSET', key, 'storage', storage, 'stored_limit_bytes', stored_limit_bytes, 'transient_secs', transient_secs)
end
if parent ~= '' then redis.call('HSET', key, 'parent', parent) end
if labels ~= '' then redis.call('HSET', key, 'labels', labels) end
if webhook_url ~= '' then redis.call('HSET', key, 'webhook_url', webhook_url, 'webhook_event', webhook_event) end
local limits = {queue = queue_timeout_secs, first_token = first_token_timeout_secs, deadline = deadline_secs}
local limits_at
for kind, after_secs in pairs(limits) do
  if tonumber(after_secs) > 0 then
    limits_at = limits_at or limit_time(now)
    redis.call('HSET', key, kind .. '_limit_secs', after_secs, 'due', '1')
    redis.call('ZADD', P .. 'deadlines', secs(limits_at + tonumber(after_secs)), kind .. '|' .. rid)
  end
end
enqueue({id = rid, model = model, owner = owner, priority = priority, created_at = created_at}, false, #body)
redis.call('HSET', P .. 'readers:' .. rid, frontend, '1')
redis.call('HSETNX', P .. 'ticks', frontend, '0')
count_in(frontend, rid, labels_of({model = model, endpoint = endpoint, request_type = request_type}), 'queued')
redis.call('ZADD', P .. 'created', created_at, rid)
redis.call('ZADD', P .. 'active', created_at, rid)
if owner ~= '' then redis.call('ZADD', P .. 'owned:' .. owner, created_at, rid) end
if openings ~= '' then
  local id = '0-' .. openings_count
  redis.call('XADD', P .. 'tokens:' .. rid, id, 't', openings, 'at', string.format('%.0f', now * 1000))
  push({frontend}, rid, id, openings)
end
ring_workers(now)
return {'admitted', created_at}
