#!lua flags=allow-oom
-- heartbeat: a replica shows itself in the cluster's list; the settings that must be common are compared. What it holds is
--         decided in each shard by a lease of its own: see reconcile_shard.
-- KEYS[1] control prefix
-- ARGV    shift, replica, role, lease_secs, about (JSON object shown in /v1/replicas), figures (JSON object of what is shown
--         too, and changes all the time), models (JSON list it serves), config (JSON object of the common settings, as
--         strings), since (when the configuration that the replica runs with was first written, '' when it joins), revision
--         (how often that one had been changed), instruction (the last one that the replica has followed, '' for none: see
--         instruct)
-- Returns {'ok', now, since, revision, config, epoch, version, instruction}, where config is a JSON object if it was changed
--         for the running cluster, else '', epoch and version are those of the list: see roster, and instruction is the latest
--         one to the replica, '' for none; or {'conflict', name, theirs} when the cluster runs with another value of a setting.
-- After a loss of data the configuration that was written first counts, and of this one the latest revision: its replicas
-- write it again, and a newcomer that came before them with another one has to leave.

local P = KEYS[1]
local shift, replica, role, lease_secs, about, figures, models, config, since, revision, instruction = unpack(ARGV)
--- @include commands now numbers membership served listed instructions
--- @permit

local lease = tonumber(lease_secs)
note_time(lease)
forget_expired(lease)

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
    count = count + redis.call('ZCOUNT', P .. name .. 's', secs(lease_bound(lease)), '+inf')
  end
  return count
end

-- What another release has written is not read, whether or not its replicas live.
if since == '' and theirs.version and theirs.version ~= ours.version then
  return {'conflict', 'version', theirs.version}
end

local changed = ''
if since == '' and (not theirs.since or others() == 0) then
  since, revision = secs(now), '0'
  write_ours()
elseif since ~= '' and (not theirs.since or tonumber(since) < tonumber(theirs.since)) then
  write_ours()
elseif since == theirs.since and tonumber(revision) > tonumber(theirs.revision) then
  write_ours()  -- Redis has lost the last change
else
  for name, value in pairs(ours) do
    if theirs[name] ~= value then
      if since ~= theirs.since then return {'conflict', name, theirs[name] or ''} end
      changed = cjson.encode(theirs)
    end
  end
end

local entry = P .. 'replica:' .. replica
local is_new = redis.call('ZADD', P .. role .. 's', secs(now + lease), replica) == 1
if is_new then
  redis.call('ZREM', P .. 'left_replicas', replica)
  redis.call('ZREM', P .. 'expired_replicas', replica)
end
if is_new or redis.call('HGET', entry, 'about') ~= about then note_change(replica) end
instruction = later_instruction(redis.call('HGET', entry, 'instruction') or '', instruction)
redis.call('HSET', entry, 'role', role, 'about', about, 'figures', figures, 'models', models, 'instruction', instruction)
redis.call('PEXPIRE', entry, math.ceil(lease * 1000) + 86400000)
note_models(cjson.decode(models))
local roster = redis.call('HMGET', P .. 'roster', 'epoch', 'version')
return {'ok', secs(now), theirs.since, theirs.revision, changed, roster[1], roster[2], instruction}
