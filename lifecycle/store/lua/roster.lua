#!lua flags=no-writes,allow-oom
-- roster: reads the living replicas and the known models.
-- KEYS[1] control prefix
-- ARGV    shift, lease_secs
-- Returns {now, replicas, models, grace}: replicas are {id, role, lease_expires_in_ms, about}…, models are
--         {name, when it was last served}…; grace is 1 while no lease expires.

local P = KEYS[1]
local shift, lease_secs = unpack(ARGV)
--- @include clock membership

local now, lease = clock(shift), tonumber(lease_secs)
local deadline, grace = lease_bound(now, lease)
local replicas, models = {}, {}
for _, role in ipairs(ROLES) do
  local flat = redis.call('ZRANGEBYSCORE', P .. role .. 's', '(' .. secs(deadline), '+inf', 'WITHSCORES')
  for i = 1, #flat, 2 do
    local left_ms = math.floor(math.max(0, math.min(lease, tonumber(flat[i + 1]) - now)) * 1000)
    local about = redis.call('HGET', P .. 'replica:' .. flat[i], 'about') or '{}'
    replicas[#replicas + 1] = {flat[i], role, left_ms, about}
  end
end
local flat = redis.call('ZRANGE', P .. 'models', 0, -1, 'WITHSCORES')
for i = 1, #flat, 2 do models[#models + 1] = {flat[i], flat[i + 1]} end
return {secs(now), replicas, models, grace and 1 or 0}
