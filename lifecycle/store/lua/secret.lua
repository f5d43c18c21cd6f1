#!lua flags=allow-oom
-- secret: what the frontends sign log-ins with: the first proposal, for all of them.
-- KEYS[1] control prefix
-- ARGV    shift (unused), proposal
-- Returns the secret.

local P = KEYS[1]
local _, proposal = unpack(ARGV)
redis.call('SET', P .. 'secret', proposal, 'NX')
return redis.call('GET', P .. 'secret')
