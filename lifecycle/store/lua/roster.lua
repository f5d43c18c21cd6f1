#!lua flags=no-writes,allow-oom
-- roster: reads which replicas the list has got, changed or lost since an earlier version of it, the earliest change first.
-- KEYS[1] control prefix
-- ARGV    shift, lease_secs, epoch, version (those of the reply that the caller has, '' for none), limit
-- Returns {now, grace, epoch, version, begins, more, models, replica…}: epoch and version belong to this reply; begins is 1
--         when the caller has to forget all that it has; more is 1 when the reply has reached the limit; models is a flat
--         list of each known model and when it was last served, only in a reply that begins; each replica is {id, role,
--         about}, or {id} when it is listed no more; grace is 1 while no entry expires.

local P = KEYS[1]
local shift, lease_secs, epoch, version, limit = unpack(ARGV)
--- @include now numbers membership

local _, grace = lease_bound(tonumber(lease_secs))
local theirs = redis.call('HMGET', P .. 'roster', 'epoch', 'version')
local their_epoch, their_version = theirs[1] or '', theirs[2] or '0'
local changed_ms, changed_replica = string.match(version, '^(%d+)%-(.+)$')

-- Returns whether the list has ever been as the caller has it: a primary that was demoted may have shown it changes that
-- are lost.
local function was_so()
  return changed_ms and (redis.call('ZSCORE', P .. 'changes', changed_replica) == changed_ms
    or redis.call('ZSCORE', P .. 'versions', version))
end

local DAY_SECS = 86400  -- which replicas have left is noted so long
local begins = epoch ~= their_epoch or not was_so()
  or version ~= their_version and tonumber(changed_ms) < (now - DAY_SECS) * 1000
if begins then changed_ms = '0' end

local changed = redis.call('ZRANGEBYSCORE', P .. 'changes', '(' .. changed_ms, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
local more = #changed == 2 * tonumber(limit)
if more then their_version = changed[#changed] .. '-' .. changed[#changed - 1] end
local models = begins and redis.call('ZRANGE', P .. 'models', 0, -1, 'WITHSCORES') or {}
local reply = {secs(now), grace and 1 or 0, their_epoch, their_version, begins and 1 or 0, more and 1 or 0, models}
for i = 1, #changed, 2 do
  local entry = redis.call('HMGET', P .. 'replica:' .. changed[i], 'role', 'about')
  reply[#reply + 1] = {changed[i], entry[1] or nil, entry[2] or nil}
end
return reply
