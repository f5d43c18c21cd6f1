#!lua flags=allow-oom
-- secret: returns the secret that signs log-ins and makes ids from idempotency keys; the first proposal becomes the
--         secret of all frontends.
-- KEYS[1] control prefix
-- ARGV    shift (unused), proposal
-- Returns the secret.

local P = KEYS[1]
local _, proposal = unpack(ARGV)
--- @include commands
--- @permit

redis.call('SET', P .. 'secret', proposal, 'NX')
return redis.call('GET', P .. 'secret')
