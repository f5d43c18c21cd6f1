#!lua flags=allow-oom
-- confirm: writes something, so that a WAIT behind it also waits for the writes of other connections before it.
-- KEYS[1] shard prefix
-- ARGV    shift (unused)
-- Returns 'OK'. Without it a WAIT over a new connection would not wait for what a repeated script found written.

local P = KEYS[1]
local _ = unpack(ARGV)

return redis.call('SET', P .. 'confirmed', 1, 'EX', 60)
