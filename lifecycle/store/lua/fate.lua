#!lua flags=no-writes,allow-oom
-- fate: tells what became of a replica.
-- KEYS[1] control prefix
-- ARGV    shift, replica, lease_secs
-- Returns 'listed' while its entry is valid, 'left' when it has announced before its end that nothing of it is left,
--         'expired' when it has not, or 'unknown', of one that never was there, that ended more than a day ago, or that Redis
--         has lost.

local P = KEYS[1]
local shift, replica, lease_secs = unpack(ARGV)
--- @include membership listed

local entry = redis.call('HMGET', P .. 'replica:' .. replica, 'role', 'about')
local ends_at = entry[1] and redis.call('ZSCORE', P .. entry[1] .. 's', replica)
if ends_at then
  if tonumber(ends_at) > lease_bound(tonumber(lease_secs)) then return 'listed' end
  return has_finished(entry[2]) and 'left' or 'expired'
end
if redis.call('ZSCORE', P .. 'left_replicas', replica) then return 'left' end
if redis.call('ZSCORE', P .. 'expired_replicas', replica) then return 'expired' end
return 'unknown'
