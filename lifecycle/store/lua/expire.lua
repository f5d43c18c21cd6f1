#!lua flags=allow-oom
-- expire: expires the replicas whose lease has ended, and one that leaves by itself.
-- KEYS[1] control prefix
-- ARGV    shift, lease_secs, leaving (a replica that leaves now, '' for none), limit
-- Returns the expired replicas whose requests are not all cleaned up: {replica, role, models JSON, draining}…, where
-- draining is 1 for one that was leaving in an orderly way when it expired.
-- An expired id does not become valid again: heartbeat refuses it.

local P = KEYS[1]
local shift, lease_secs, leaving, limit = unpack(ARGV)
--- @include commands clock membership
--- @permit

local now, lease = clock(shift), tonumber(lease_secs)
note_time(now, lease)
local _, grace = lease_bound(now, lease)

-- Its models count as served until its lease has ended, not only until its last heartbeat.
local function expire(role, replica, until_secs)
  local models, about = unpack(redis.call('HMGET', P .. 'replica:' .. replica, 'models', 'about'))
  models = models or '[]'
  local draining = about and cjson.decode(about).state == 'draining' and 1 or 0
  for _, model in ipairs(cjson.decode(models)) do
    redis.call('ZADD', P .. 'models', 'XX', 'GT', until_secs, model)
  end
  redis.call('ZREM', P .. role .. 's', replica)
  redis.call('ZADD', P .. 'expired_replicas', secs(now), replica)
  redis.call('HSET', P .. 'pending_cleanup', replica, cjson.encode({role, models, draining}))
end

for _, role in ipairs(ROLES) do
  local key = P .. role .. 's'
  if leaving ~= '' and redis.call('ZSCORE', key, leaving) then expire(role, leaving, secs(now)) end
  -- A lease that ends later than a heartbeat can set it was set before the clock was put back.
  for _, replica in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. secs(now + lease), '+inf', 'LIMIT', 0, limit)) do
    redis.call('ZADD', key, secs(now + lease), replica)
  end
  if not grace then
    local expired = redis.call('ZRANGEBYSCORE', key, '-inf', secs(now), 'WITHSCORES', 'LIMIT', 0, limit)
    for i = 1, #expired, 2 do expire(role, expired[i], expired[i + 1]) end
  end
end
local DAY_SECS = 86400
redis.call('ZREMRANGEBYSCORE', P .. 'expired_replicas', '-inf', secs(now - DAY_SECS))

local pending_cleanup, flat = {}, redis.call('HGETALL', P .. 'pending_cleanup')
for i = 1, #flat, 2 do
  local cleanup = cjson.decode(flat[i + 1])
  pending_cleanup[#pending_cleanup + 1] = {flat[i], cleanup[1], cleanup[2], cleanup[3] or 0}
end
return pending_cleanup
