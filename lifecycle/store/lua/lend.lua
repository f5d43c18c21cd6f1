#!lua flags=allow-oom
-- lend: gives one lease to replicas that a shard knows and the control keys do not: these have lost their last writes, or
--       the shard has lost its cleanup. One that lives renews the lease, and one that is gone expires like any other.
-- KEYS[1] control prefix
-- ARGV    shift, lease_secs, replicas (JSON list of {replica, role})
-- Returns how many leases were lent. A replica that has a lease, or whose cleanup is pending, gets none.

local P = KEYS[1]
local shift, lease_secs, replicas = unpack(ARGV)
--- @include clock

local until_secs, lent = secs(clock(shift) + tonumber(lease_secs)), 0
for _, unknown in ipairs(cjson.decode(replicas)) do
  local replica, role = unpack(unknown)
  if not redis.call('HGET', P .. 'pending_cleanup', replica) then
    lent = lent + redis.call('ZADD', P .. role .. 's', 'NX', until_secs, replica)
  end
end
return lent
