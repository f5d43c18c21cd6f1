#!lua
-- admit: accepts a request: writes its record, queues it and counts it.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, nonce, model, endpoint, request_type, frontend, body, queue_limit (of the owner's requests that wait
--         for the model in this shard), queue_bytes (how many bytes the bodies of this shard's queued requests may have;
--         one always may wait), admit_by (when the owner's quota slot may be released, '' without a slot), openings (a
--         JSON list of events that are the answer's first, '' for none), openings_count, share_limits (how many requests,
--         tokens and bytes of the owner may wait for the model, and of all owners, 0 each for no limit, separated by
--         spaces; '' when the request is not counted for any), then for each further field of the record: name, value
-- Returns {'admitted', created_at} (the same again when repeated with the same nonce), {'exists'}, {'full', depth},
--         {'full_bytes', bytes}, {'queue_limit'}, {'full_model'}, {'late'} or {'fenced'}.
-- There is no allow-oom: when the memory is full, new requests are what must be refused.

local P = KEYS[1]
local shift, rid, nonce, model, endpoint, request_type, frontend, body, queue_limit, queue_bytes, admit_by, openings,
  openings_count, share_limits = unpack(ARGV, 1, 14)
--- @include commands clock limit_time events counts queue shares beginning

local request = with_fields(15, {id = rid, frontend = frontend, model = model, endpoint = endpoint, request_type = request_type})
local owner = request.owner or ''
local key = P .. 'request:' .. rid
local known = redis.call('HMGET', key, 'nonce', 'created_at')
if known[2] then
  if known[1] == nonce then return {'admitted', known[2]} end
  return {'exists'}
end
if redis.call('EXISTS', P .. 'fenced:' .. frontend) == 1 then return {'fenced'} end
local depth = tonumber(redis.call('HGET', P .. 'queued:' .. model, owner) or '0')
if depth >= tonumber(queue_limit) then return {'full', depth} end
if share_limits ~= '' then
  local tokens = request.max_tokens or redis.call('HGET', P .. 'queue:' .. model, 'mean_tokens') or '256'
  tokens = math.floor(tonumber(request.prompt_tokens or '0') + tonumber(tokens))
  local refusal = exceeded_limit(model, owner, depth, share_limits, tokens, #body)
  if refusal then return {refusal} end
  request.share = string.format('%.0f %d', tokens, #body)
end
local waiting, queued_bytes = redis.call('HGETALL', P .. 'queued_bytes'), 0
for i = 2, #waiting, 2 do queued_bytes = queued_bytes + waiting[i] end
if queued_bytes > 0 and queued_bytes + #body > tonumber(queue_bytes) then return {'full_bytes', queued_bytes} end
local now = clock(shift)
if admit_by ~= '' and now > tonumber(admit_by) then return {'late'} end
local lost_start = read_lost_start(rid)
if openings ~= '' then require_command('XADD') end
--- @permit SET HSET HSETNX HINCRBY ZPOPMIN ZSCORE

request.created_at = secs(now)
-- It reads before it writes, and nothing was written before. Its first write is a ZADD.
enqueue(request, false, #body)
-- Redis stores a small hash in one piece and searches it for each field. So empty fields are left out, the body has a
-- Redis key of its own, and the fields that are read most come first.
redis.call('SET', P .. 'body:' .. rid, body)
redis.call('HSET', key, 'status', 'queued', 'attempt', '0', 'frontend', frontend, 'request_type', request_type,
  'created_at', request.created_at, 'nonce', nonce, 'model', model, 'endpoint', endpoint, unpack(ARGV, 15))
if request.share then redis.call('HSET', key, 'share', request.share) end
begin_request(request, 'queued', now, lost_start)
if openings ~= '' then
  local id = '0-' .. openings_count
  redis.call('XADD', P .. 'tokens:' .. rid, id, 't', openings, 'at', string.format('%d', now * 1000 + 0.5))
  push({frontend}, rid, id, openings)
end
ring_workers(now)
return {'admitted', request.created_at}
