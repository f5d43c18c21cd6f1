#!lua flags=allow-oom
-- bury: declares replicas dead, atomically and only if their lease has expired; or one that leaves by itself.
-- KEYS[1] control prefix
-- ARGV    shift, lease_secs, leaving (a replica that says goodbye, '' for none), limit
-- Returns the graves still to be reaped: {replica, role, models JSON}…
-- A buried id never comes back: beat refuses it.

local P = KEYS[1]
local shift, lease_secs, leaving, limit = unpack(ARGV)
--- @include clock membership

local now, lease = clock(shift), tonumber(lease_secs)
watch_clock(now, lease)
local _, grace = judged_at(now, lease)

-- Its models were served until its lease ended, not only until its last beat.
local function bury(role, replica, until_secs)
  local models = redis.call('HGET', P .. 'replica:' .. replica, 'models') or '[]'
  for _, model in ipairs(cjson.decode(models)) do
    redis.call('ZADD', P .. 'models', 'XX', 'GT', until_secs, model)
  end
  redis.call('ZREM', P .. role .. 's', replica)
  redis.call('ZADD', P .. 'tombstones', secs(now), replica)
  redis.call('HSET', P .. 'graves', replica, cjson.encode({role, models}))
end

for _, role in ipairs(ROLES) do
  local key = P .. role .. 's'
  if leaving ~= '' and redis.call('ZSCORE', key, leaving) then bury(role, leaving, secs(now)) end
  -- A lease further ahead than any beat could have set it stems from a clock that was put back.
  for _, replica in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. secs(now + lease), '+inf', 'LIMIT', 0, limit)) do
    redis.call('ZADD', key, secs(now + lease), replica)
  end
  if not grace then
    local expired = redis.call('ZRANGEBYSCORE', key, '-inf', secs(now), 'WITHSCORES', 'LIMIT', 0, limit)
    for i = 1, #expired, 2 do bury(role, expired[i], expired[i + 1]) end
  end
end
local DAY_SECS = 86400
redis.call('ZREMRANGEBYSCORE', P .. 'tombstones', '-inf', secs(now - DAY_SECS))

local graves, flat = {}, redis.call('HGETALL', P .. 'graves')
for i = 1, #flat, 2 do
  local grave = cjson.decode(flat[i + 1])
  graves[#graves + 1] = {flat[i], grave[1], grave[2]}
end
return graves
