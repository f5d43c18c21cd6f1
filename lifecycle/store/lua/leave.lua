#!lua flags=allow-oom
-- leave: removes a replica that leaves from the cluster's list. It has left in order if it has announced before that nothing
--         of it is left.
-- KEYS[1] control prefix
-- ARGV    shift, replica, role
-- Returns 1.

local P = KEYS[1]
local shift, replica, role = unpack(ARGV)
--- @include commands now numbers listed
--- @permit

if redis.call('ZSCORE', P .. role .. 's', replica) then forget(role, replica, secs(now)) end
return 1
