#!lua flags=allow-oom
-- reconcile_shard: a replica renews its lease in one shard, or joins it. Returns how many requests the shard counts as the
--         replica's, and its pending cancellations. The cost grows neither with the number of inflight requests nor with
--         that of replicas: after a mismatch the caller reads the ids page by page.
-- KEYS[1] shard prefix
-- ARGV    shift, replica, role, lease_secs, sweep_secs ('' when this replica does not sweep), models (JSON list that a
--         worker serves), draining ('1' when it leaves in an orderly way), cancellations_limit, elapsed_secs (since this
--         replica's last call, by its monotonic clock; '' for its first), waits ('1' when a worker believes that it is rung
--         when something is queued)
-- Returns {'fenced'} when its lease here has expired: this id never becomes valid here again. Else {'ok', epoch, held,
--         pending_cancellations, tick, sweep, takes}: held is the number that the shard counts; pending_cancellations are
--         {rid, mode, reason}…, of what runs there; tick is how often this replica has called, so it goes back when Redis
--         has lost its last writes; sweep is 1 when this replica has to sweep the shard; takes is 1 when requests of a
--         worker's models are queued, or it does not wait for them although it believes so: it takes if it has a free slot.

local P = KEYS[1]
local shift, replica, role, lease_secs, sweep_secs, models, draining, cancellations_limit,
  elapsed_secs, waits = unpack(ARGV)
--- @include commands now numbers limit_time membership served record
--- @permit

if redis.call('EXISTS', P .. 'fenced:' .. replica) == 1 then return {'fenced'} end
local lease = tonumber(lease_secs)
note_time(lease)
note_limit_time(elapsed_secs, lease)
local epoch = redis.call('GET', P .. 'epoch')
if not epoch then
  epoch = secs(now) .. '-' .. replica
  redis.call('SET', P .. 'epoch', epoch)
end

local joins = redis.call('ZADD', P .. role .. 's', secs(now + lease), replica) == 1
local tick = redis.call('HINCRBY', P .. 'ticks', replica, '1')
local takes = false
if role == 'worker' then
  -- Where Redis has lost that it joined, a sweep may have given it a lease before its first call: see expire.
  local serves = '{"models":' .. models .. ',"draining":' .. (draining == '1' and 'true' or 'false') .. '}'
  if joins or draining == '1' then
    redis.call('HSET', P .. 'served', replica, serves)
  else
    redis.call('HSETNX', P .. 'served', replica, serves)
  end
  local served = cjson.decode(models)
  note_models(served)
  for _, model in ipairs(served) do
    takes = takes or redis.call('EXISTS', P .. 'levels:' .. model) == 1
      or waits == '1' and not redis.call('ZSCORE', P .. 'waiting:' .. model, replica)
  end
end

local held = redis.call('HLEN', P .. (role == 'worker' and 'running:' or 'inflight:') .. replica)
local limit, pending_cancellations = tonumber(cancellations_limit), {}
for _, rid in ipairs(redis.call('SRANDMEMBER', P .. 'pending_cancellations:' .. replica, limit)) do
  local cancel = read_typed('HMGET', P .. 'request:' .. rid, 'cancel_mode', 'cancel_reason', 'status', 'worker')
  local mode = cancel[1] or 'kill'
  -- It ended or runs elsewhere: whatever the cancel was, this replica must kill its engine.
  if cancel[3] ~= 'running' or cancel[4] ~= replica or mode == '' then mode = 'kill' end
  pending_cancellations[#pending_cancellations + 1] = {rid, mode, cancel[2] or ''}
end
local sweep = sweep_secs ~= '' and takes_sweep(tonumber(sweep_secs))
return {'ok', epoch, held, pending_cancellations, tick, sweep and 1 or 0, takes and 1 or 0}
