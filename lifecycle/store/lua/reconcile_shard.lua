#!lua flags=allow-oom
-- reconcile_shard: returns how many requests Redis counts as a replica's in one shard, and its pending cancellations. The
--         cost does not grow with the number of inflight requests: after a mismatch the caller reads the ids page by page.
-- KEYS[1] shard prefix
-- ARGV    shift, replica, role, cancellations_limit, lease_secs, elapsed_secs (since this replica's last call, by its
--         monotonic clock; '' for its first)
-- Returns {'fenced'} when it has expired, else {'ok', epoch, held, pending_cancellations, tick}: held is the number that
--         Redis counts; pending_cancellations are {rid, mode, reason}…, of what runs there; tick is how often this replica has
--         called, so it goes back when Redis has lost its last writes.

local P = KEYS[1]
local shift, replica, role, cancellations_limit, lease_secs, elapsed_secs = unpack(ARGV)
--- @include commands clock limit_time stream record
--- @permit

if redis.call('EXISTS', P .. 'fenced:' .. replica) == 1 then return {'fenced'} end
local now = clock(shift)
note_limit_time(now, elapsed_secs, tonumber(lease_secs))
local epoch = redis.call('GET', P .. 'epoch')
if not epoch then
  epoch = secs(now) .. '-' .. replica
  redis.call('SET', P .. 'epoch', epoch)
end

local tick = redis.call('HINCRBY', P .. 'ticks', replica, '1')
local held = redis.call('HLEN', P .. (role == 'worker' and 'running:' or 'inflight:') .. replica)
local limit, pending_cancellations = tonumber(cancellations_limit), {}
for _, rid in ipairs(redis.call('SRANDMEMBER', P .. 'pending_cancellations:' .. replica, limit)) do
  local cancel = read_typed('HMGET', P .. 'request:' .. rid, 'cancel_mode', 'cancel_reason', 'status', 'worker')
  local mode = cancel[1] or 'kill'
  -- It ended or runs elsewhere: whatever the cancel was, this replica must kill its engine.
  if cancel[3] ~= 'running' or cancel[4] ~= replica or mode == '' then mode = 'kill' end
  pending_cancellations[#pending_cancellations + 1] = {rid, mode, cancel[2] or ''}
end
return {'ok', epoch, held, pending_cancellations, tick}
