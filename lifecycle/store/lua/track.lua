#!lua
-- track: accepts a request that runs in the process of its frontend, which is its worker too: writes its record,
--         counts it and begins its only attempt. No other process can run it, so it has no body and is in no queue.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, nonce, start_nonce (of its start, 8 characters), model, endpoint, request_type, frontend, then for
--         each further field of the record: name, value
-- Returns {'run', created_at, start_nonce} (the same again when repeated with the same nonce), {'exists'} or
--         {'fenced'}.
-- There is no allow-oom: when the memory is full, new requests are what must be refused.

local P = KEYS[1]
local shift, rid, nonce, start_nonce, model, endpoint, request_type, frontend = unpack(ARGV, 1, 8)
--- @include commands now numbers readers beginning

local key = P .. 'request:' .. rid
local known = redis.call('HMGET', key, 'nonce', 'created_at', 'start_nonce')
if known[2] then
  if known[1] == nonce then return {'run', known[2], known[3]} end
  return {'exists'}
end
if redis.call('EXISTS', P .. 'fenced:' .. frontend) == 1 then return {'fenced'} end

local lost_start = read_lost_start(rid)
--- @permit HSET HKEYS HSETNX HINCRBY ZADD XADD

local created_at = secs(now)
redis.call('HSET', key, 'status', 'running', 'attempt', '1', 'worker', frontend, 'frontend', frontend,
  'request_type', request_type, 'created_at', created_at, 'started_at', created_at, 'nonce', nonce,
  'start_nonce', start_nonce, 'model', model, 'endpoint', endpoint, unpack(ARGV, 9))
local request = with_fields({id = rid, status = 'running', worker = frontend, frontend = frontend, model = model,
  endpoint = endpoint, request_type = request_type, created_at = created_at, start_nonce = start_nonce}, 9, #ARGV)
local one = begin_request(request, lost_start)
settle_beginnings('running')
if one.failure then error(one.failure, 0) end
note_readers(request)
redis.call('XADD', P .. 'tokens:' .. rid, '1-0', 's', frontend, 'at', '', 'n', start_nonce)
return {'run', created_at, start_nonce}
