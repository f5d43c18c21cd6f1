#!lua flags=allow-oom
-- reserve: takes one quota slot of an owner, before a request is admitted.
-- KEYS[1] shard prefix
-- ARGV    shift, owner, slot (`<rid>|<nonce>`), limit, window_secs (how long the admission may take from now)
-- Returns {'reserved', admit_by} (the same again when repeated) or {'full', now}.
-- The request may be in another shard. `find_released` finds the slots that are no longer needed.

local P = KEYS[1]
local shift, owner, slot, limit, window_secs = unpack(ARGV)
--- @include commands now numbers
--- @permit

local MONTH_MS = 30 * 86400 * 1000
local key = P .. 'quota_slots:' .. owner
local known = redis.call('ZSCORE', key, slot)
if known then return {'reserved', secs(tonumber(known))} end
if redis.call('ZCARD', key) >= tonumber(limit) then return {'full', secs(now)} end
local admit_by = secs(now + tonumber(window_secs))
redis.call('ZADD', key, admit_by, slot)
redis.call('PEXPIRE', key, MONTH_MS)
return {'reserved', admit_by}
