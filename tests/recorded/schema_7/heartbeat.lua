#!lua flags=allow-oom
-- heartbeat: a replica joins or renews its lease; the settings that must be common are compared.
-- KEYS[1] control prefix
-- ARGV    shift, replica, role, lease_secs, about (JSON object shown in /v1/replicas), models (JSON list it serves),
--         config (JSON object of the common settings, as strings), since (when the configuration that the replica runs
--         with was first written, '' when it joins), revision (how often that one had been changed)
-- Returns {'ok', now, since, revision, config}, where config is a JSON object if it was changed after that revision, else
--         ''; {'fenced'} when this id has expired (the replica must join under a new one); or {'conflict', name, theirs}
--         when the cluster runs with another value of a setting.
-- After a loss of data the configuration that was written first counts: its replicas write it again, and a newcomer that
-- came before them with another one has to leave.

local P = KEYS[1]
local shift, replica, role, lease_secs, about, models, config, since, revision = unpack(ARGV)
-- Returns Redis's time in seconds, precise to microseconds. `shift` is 0 except in tests.
local function clock(shift)
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000 + tonumber(shift)
end

local function secs(number)
  return string.format('%.6f', number)
end

-- Leases. A lease that has ended means that its replica is lost. When no replica sent a heartbeat, Redis was away, and
-- then no lease expires for one lease (the grace).

local ROLES = {'frontend', 'worker'}

-- Notes the time, and begins a grace when the clock jumped or no heartbeat came for half a lease.
local function note_time(now, lease_secs)
  local seen = tonumber(redis.call('HGET', P .. 'clock', 'seen') or '')
  if seen and (now - seen > lease_secs / 2 or seen - now > lease_secs / 2) then
    redis.call('HSET', P .. 'clock', 'grace_from', secs(math.min(seen, now)), 'grace_until', secs(now + lease_secs))
  end
  redis.call('HSET', P .. 'clock', 'seen', secs(now))
end

-- Returns the time after which a lease must end to be valid, and whether this is a grace. The time is now, or during a
-- grace the time at which the outage began. An outage counts as grace before the first heartbeat after it, but only up to
-- two leases.
local function lease_bound(now, lease_secs)
  local clock_seen = redis.call('HMGET', P .. 'clock', 'seen', 'grace_from', 'grace_until')
  if clock_seen[3] and now < tonumber(clock_seen[3]) then return math.min(now, tonumber(clock_seen[2])), true end
  local outage_secs = clock_seen[1] and now - tonumber(clock_seen[1]) or 0
  if outage_secs > lease_secs / 2 and outage_secs < lease_secs * 2 then return tonumber(clock_seen[1]), true end
  return now, false
end


if redis.call('ZSCORE', P .. 'expired_replicas', replica) then return {'fenced'} end
local now, lease = clock(shift), tonumber(lease_secs)
note_time(now, lease)

local ours, theirs = cjson.decode(config), {}
local flat = redis.call('HGETALL', P .. 'config')
for i = 1, #flat, 2 do theirs[flat[i]] = flat[i + 1] end

local function write_ours()
  redis.call('DEL', P .. 'config')
  for name, value in pairs(ours) do redis.call('HSET', P .. 'config', name, value) end
  redis.call('HSET', P .. 'config', 'since', since, 'revision', revision)
  theirs = {since = since, revision = revision}
end

local function others()
  local count = 0
  for _, name in ipairs(ROLES) do
    count = count + redis.call('ZCOUNT', P .. name .. 's', secs(lease_bound(now, lease)), '+inf')
  end
  return count
end

local changed = ''
if since == '' and (not theirs.since or others() == 0) then
  since, revision = secs(now), '0'
  write_ours()
elseif since ~= '' and (not theirs.since or tonumber(since) < tonumber(theirs.since)) then
  write_ours()
elseif since == theirs.since and tonumber(theirs.revision) > tonumber(revision) then
  changed = cjson.encode(theirs)
else
  for name, value in pairs(ours) do
    if theirs[name] ~= value then return {'conflict', name, theirs[name] or ''} end
  end
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
return {'ok', secs(now), theirs.since, theirs.revision, changed}
