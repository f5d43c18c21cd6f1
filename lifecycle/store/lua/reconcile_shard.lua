#!lua flags=allow-oom
-- reconcile_shard: compares what a replica holds in one shard with what Redis counts. Only differences are returned, so
--         the cost does not grow with the number of inflight requests.
-- KEYS[1] shard prefix
-- ARGV    shift, replica, role, believed (how many requests it holds in this shard), rids ('' or, after a mismatch, the
--         JSON list of them), cancellations_limit
-- Returns {'fenced'} when it has expired, else {'ok', epoch, held, pending_cancellations, not_in_redis,
--         not_held_locally}: held is the number that Redis counts; pending_cancellations are {rid, mode, reason}… for a
--         worker; not_in_redis are the given rids that Redis does not count as this replica's; not_held_locally are
--         those that it counts and that were not given.

local P = KEYS[1]
local shift, replica, role, believed, rids, cancellations_limit = unpack(ARGV)
--- @include clock

if redis.call('EXISTS', P .. 'fenced:' .. replica) == 1 then return {'fenced'} end
local epoch = redis.call('GET', P .. 'epoch')
if not epoch then
  epoch = secs(clock(shift)) .. '-' .. replica
  redis.call('SET', P .. 'epoch', epoch)
end

local held, members = 0, nil
local pending_cancellations, not_in_redis, not_held_locally = {}, {}, {}
if role == 'worker' then
  held = redis.call('HLEN', P .. 'running:' .. replica)
  local limit = tonumber(cancellations_limit)
  for _, rid in ipairs(redis.call('SRANDMEMBER', P .. 'pending_cancellations:' .. replica, limit)) do
    local cancel = redis.pcall('HMGET', P .. 'request:' .. rid, 'cancel_mode', 'cancel_reason', 'status', 'worker')
    if cancel.err then cancel = {} end  -- a Redis key of another type must not fail the heartbeats
    local mode = cancel[1] or 'kill'
    -- It ended or runs elsewhere: whatever the cancel was, this worker must kill its engine.
    if cancel[3] ~= 'running' or cancel[4] ~= replica or mode == '' then mode = 'kill' end
    pending_cancellations[#pending_cancellations + 1] = {rid, mode, cancel[2] or ''}
  end
  if rids ~= '' then members = redis.call('HKEYS', P .. 'running:' .. replica) end
else
  held = redis.call('HLEN', P .. 'inflight:' .. replica)
  if rids ~= '' then members = redis.call('HKEYS', P .. 'inflight:' .. replica) end
end
if members then
  local given, counted = {}, {}
  for _, rid in ipairs(cjson.decode(rids)) do given[rid] = true end
  for _, rid in ipairs(members) do
    counted[rid] = true
    if not given[rid] then not_held_locally[#not_held_locally + 1] = rid end
  end
  for rid in pairs(given) do
    if not counted[rid] then not_in_redis[#not_in_redis + 1] = rid end
  end
end
return {'ok', epoch, held, pending_cancellations, not_in_redis, not_held_locally}
