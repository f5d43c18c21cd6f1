#!lua flags=allow-oom
-- expire: expires the replicas whose lease in one shard has ended, and one that leaves by itself.
-- KEYS[1] shard prefix
-- ARGV    shift, lease_secs, leaving (a replica that leaves now, '' for none), limit
-- Returns up to `limit` expired replicas whose requests here are not all cleaned up: {replica, role,
-- draining}…, where draining is 1 for one that was leaving in an orderly way when it expired.
-- The mark `fenced:` is set with it: from then on it begins and appends nothing in this shard. It may end what is its own
-- until that is cleaned up.

local P = KEYS[1]
local shift, lease_secs, leaving, limit = unpack(ARGV)
--- @include commands now numbers membership
--- @permit

local lease = tonumber(lease_secs)
note_time(lease)
local DAY_SECS = 86400
local EXAMINED = '100'  -- replicas that are known here, of which each call checks some at random

-- Its models count as served until its lease has ended, not only until its last heartbeat.
local function expire(role, replica, until_secs)
  local served = cjson.decode(redis.call('HGET', P .. 'served', replica) or '{"models":[]}')
  for _, model in ipairs(served.models) do
    redis.call('ZADD', P .. 'models', 'XX', 'GT', until_secs, model)
    redis.call('ZREM', P .. 'waiting:' .. model, replica)
  end
  redis.call('ZREM', P .. role .. 's', replica)
  redis.call('HDEL', P .. 'served', replica)
  redis.call('SET', P .. 'fenced:' .. replica, '1', 'EX', DAY_SECS)
  redis.call('HSET', P .. 'pending_cleanup', replica, cjson.encode({role, served.draining and 1 or 0}))
end

for _, role in ipairs(ROLES) do
  if leaving ~= '' and redis.call('ZSCORE', P .. role .. 's', leaving) then expire(role, leaving, secs(now)) end
end
each_expired(lease, limit, expire)

-- Whoever has written here without a lease, or whose lease was lost, gets one: it expires unless that replica lives.
for _, replica in ipairs(redis.call('HRANDFIELD', P .. 'ticks', EXAMINED) or {}) do
  local role = string.match(replica, '^(%l+)%-')
  if (role == 'frontend' or role == 'worker') and not redis.call('ZSCORE', P .. role .. 's', replica)
    and not redis.call('HGET', P .. 'pending_cleanup', replica) then
    redis.call('ZADD', P .. role .. 's', secs(now + lease), replica)
  end
end

local pending_cleanup = {}
local flat = redis.call('HRANDFIELD', P .. 'pending_cleanup', limit, 'WITHVALUES') or {}
for i = 1, #flat, 2 do
  local cleanup = cjson.decode(flat[i + 1])
  pending_cleanup[#pending_cleanup + 1] = {flat[i], cleanup[1], cleanup[2]}
end
return pending_cleanup
