#!lua flags=allow-oom
-- heartbeat: a replica joins or renews its lease; the settings that must be common are compared.
-- KEYS[1] control prefix
-- ARGV    shift, replica, role, lease_secs, about (JSON object shown in /v1/replicas), models (JSON list it serves),
--         config (JSON object of the common settings)
-- Returns {'ok', now}, {'fenced'} when this id has expired (the replica must join under a new one), or
--         {'conflict', name, theirs} when living replicas run with another value of a setting.

local P = KEYS[1]
local shift, replica, role, lease_secs, about, models, config = unpack(ARGV)
--- @include clock membership

if redis.call('ZSCORE', P .. 'expired_replicas', replica) then return {'fenced'} end
local now, lease = clock(shift), tonumber(lease_secs)
note_time(now, lease)
local others = 0
for _, name in ipairs(ROLES) do
  others = others + redis.call('ZCOUNT', P .. name .. 's', secs(lease_bound(now, lease)), '+inf')
end
for name, ours in pairs(cjson.decode(config)) do
  local theirs = redis.call('HGET', P .. 'config', name)
  if theirs and theirs ~= tostring(ours) and others > 0 then return {'conflict', name, theirs} end
  if theirs ~= tostring(ours) then redis.call('HSET', P .. 'config', name, tostring(ours)) end
end

redis.call('ZADD', P .. role .. 's', secs(now + lease), replica)
redis.call('HSET', P .. 'replica:' .. replica, 'role', role, 'about', about, 'models', models)
redis.call('PEXPIRE', P .. 'replica:' .. replica, math.ceil(lease * 1000) + 86400000)
local MODELS_LIMIT = 1000
for _, model in ipairs(cjson.decode(models)) do
  redis.call('ZADD', P .. 'models', secs(now), model)
  local surplus = redis.call('ZCARD', P .. 'models') - MODELS_LIMIT
  if surplus > 0 then redis.call('ZREMRANGEBYRANK', P .. 'models', 0, surplus - 1) end
end
return {'ok', secs(now)}
