#!lua flags=allow-oom
-- expire: declares replicas dead, atomically and only if their lease has expired; or one that leaves by itself.
-- KEYS[1] control prefix
-- ARGV    shift, lease_secs, leaving (a replica that says goodbye, '' for none), limit
-- Returns the expired replicas whose requests are not all cleaned up: {replica, role, models JSON}…
-- A buried id never comes back: beat refuses it.

local P = KEYS[1]
local shift, lease_secs, leaving, limit = unpack(ARGV)
--- @include clock membership

local now, lease = clock(shift), tonumber(lease_secs)
watch_clock(now, lease)
local _, grace = judged_at(now, lease)

-- Its models were served until its lease ended, not only until its last beat.
local function expire(role, replica, until_secs)
  local models = redis.call('HGET', P .. 'replica:' .. replica, 'models') or '[]'
  for _, model in ipairs(cjson.decode(models)) do
    redis.call('ZADD', P .. 'models', 'XX', 'GT', until_secs, model)
  end
  redis.call('ZREM', P .. role .. 's', replica)
  redis.call('ZADD', P .. 'expired_replicas', secs(now), replica)
  redis.call('HSET', P .. 'pending_cleanup', replica, cjson.encode({role, models}))
end

for _, role in ipairs(ROLES) do
  local key = P .. role .. 's'
  if leaving ~= '' and redis.call('ZSCORE', key, leaving) then expire(role, leaving, secs(now)) end
  -- A lease further ahead than any beat could have set it stems from a clock that was put back.
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
  local grave = cjson.decode(flat[i + 1])
  pending_cleanup[#pending_cleanup + 1] = {flat[i], grave[1], grave[2]}
end
return pending_cleanup
