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

local call = redis.call
local P = KEYS[1]
local shift, replica, role, lease_secs, about, figures, models, config, since, revision, instruction = unpack(ARGV)
-- Commands: which errors of one are expected, and which commands the user must be allowed to run.

-- Runs a command and returns its reply, or nil for an error whose text has one of these words. Every other error is
-- raised: what Redis refuses to do is not what it does not know.

-- Returns whether the user may run a command with the key P. fakeredis has no users, and lacks the check. Each further
-- argument would make it slower.
local is_permitted = redis.acl_check_cmd or function() return true end

-- Returns the error with which Redis refuses a command to a user who may not run it, nil when it is allowed.
local function refusal(command)
  if is_permitted(command, P) then return nil end
  return {err = "NOPERM this user has no permissions to run the '" .. string.lower(command) .. "' command"}
end

-- Raises an error unless the user may run a command. A script calls it for its commands before the first write, because
-- nothing is rolled back when a later one is refused. Whatever else Redis may refuse, such as writes when the memory is
-- full, it refuses before the first write by itself. Each check costs about two thirds of a small command. So the scripts
-- that every request needs name what they always run beside their first write, with `--- @permit COMMAND…`, and the
-- others have `--- @permit`: see script_loader.py.
local function require_command(command)
  local refused = refusal(command)
  if refused then error(refused) end
end

-- Returns Redis's time in seconds, precise to microseconds. `shift` is 0 except in tests.
local function clock(shift)
  local t = call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000 + tonumber(shift)
end

-- Returns seconds as text with six decimal places. Two integers are formatted in half the time of a float.
local function secs(number)
  if number < 0 or number > 4000000000 then return string.format('%.6f', number) end
  local micros = number * 1000000 + 0.5
  local rest = micros % 1000000
  return string.format('%d.%06d', (micros - rest) / 1000000, rest)
end

-- Leases, of a shard or of the control slot. A lease that has ended means that its replica is lost. When no replica sent a
-- heartbeat, Redis was away, and then no lease expires for one lease (the grace).

local ROLES = {'frontend', 'worker'}

-- Notes the time, and begins a grace when the clock jumped or no heartbeat came for half a lease.
local function note_time(now, lease_secs)
  local seen = tonumber(call('HGET', P .. 'clock', 'seen') or '')
  if seen and (now - seen > lease_secs / 2 or seen - now > lease_secs / 2) then
    call('HSET', P .. 'clock', 'grace_from', secs(math.min(seen, now)), 'grace_until', secs(now + lease_secs))
  end
  call('HSET', P .. 'clock', 'seen', secs(now))
end

-- Returns the time after which a lease must end to be valid, and whether this is a grace. The time is now, or during a
-- grace the time at which the outage began. An outage counts as grace before the first heartbeat after it, but only up to
-- two leases.
local function lease_bound(now, lease_secs)
  local clock_seen = call('HMGET', P .. 'clock', 'seen', 'grace_from', 'grace_until')
  if clock_seen[3] and now < tonumber(clock_seen[3]) then return math.min(now, tonumber(clock_seen[2])), true end
  local outage_secs = clock_seen[1] and now - tonumber(clock_seen[1]) or 0
  if outage_secs > lease_secs / 2 and outage_secs < lease_secs * 2 then return tonumber(clock_seen[1]), true end
  return now, false
end

-- Returns whether the caller has to sweep, because a sweep is due; it is due again for another one an interval later.
-- The interval is shortened a little: heartbeats come as regularly, and one that is early must not skip a sweep.

-- Shortens leases that end later than a heartbeat can set it: they were set before the clock was put back.
local function shorten_leases(key, now, lease_secs, limit)
  local ends_at = secs(now + lease_secs)
  for _, replica in ipairs(call('ZRANGEBYSCORE', key, '(' .. ends_at, '+inf', 'LIMIT', 0, limit)) do
    call('ZADD', key, ends_at, replica)
  end
end

-- Returns a page of the leases that end after `bound`, the first to end first, as ZRANGE does WITHSCORES; and where the
-- next page begins, '' after the last one. `from` is that of the page before, '' for the first page. A lease that is
-- renewed meanwhile comes once more on a later page, and none is left out.

-- The known models of a shard or of the control slot, by when they were last served.

local MODELS_LIMIT = 1000

-- Notes that these models are served now.
local function note_models(models, now)
  for _, model in ipairs(models) do
    if call('ZADD', P .. 'models', secs(now), model) == 1 then
      local surplus = call('ZCARD', P .. 'models') - MODELS_LIMIT
      if surplus > 0 then call('ZREMRANGEBYRANK', P .. 'models', 0, surplus - 1) end
    end
  end
end

-- The list of replicas in the control slot. It is for display and for finding workers; no request depends on it.

local FORGOTTEN = 10  -- of each role, in one call
local DAY_SECS = 86400

-- Notes that the entry of a replica was added, changed or removed. Its version is later than all before it, also after a
-- failover that has lost the last ones, and a list that was lost begins under another epoch.
local function note_change(replica, now)
  local last = tonumber(call('HGET', P .. 'roster', 'version') or '0')
  local version = string.format('%.0f', math.max(last + 1, math.floor(now * 1000)))
  call('HSET', P .. 'roster', 'version', version)
  call('HSETNX', P .. 'roster', 'epoch', secs(now) .. '-' .. replica)
  call('ZADD', P .. 'changes', version, replica)
end

-- Removes a replica from the list. Its models count as served until its lease has ended, not only until its last heartbeat.
local function forget(role, replica, until_secs, now)
  call('ZREM', P .. role .. 's', replica)
  call('ZADD', P .. 'expired_replicas', secs(now), replica)
  for _, model in ipairs(cjson.decode(call('HGET', P .. 'replica:' .. replica, 'models') or '[]')) do
    call('ZADD', P .. 'models', 'XX', 'GT', until_secs, model)
  end
  call('DEL', P .. 'replica:' .. replica)
  note_change(replica, now)
end

-- Removes replicas whose lease has ended; none during a grace.
local function forget_expired(now, lease_secs)
  local _, grace = lease_bound(now, lease_secs)
  for _, role in ipairs(ROLES) do
    local key = P .. role .. 's'
    shorten_leases(key, now, lease_secs, FORGOTTEN)
    local expired = {}
    if not grace then
      expired = call('ZRANGEBYSCORE', key, '-inf', secs(now), 'WITHSCORES', 'LIMIT', 0, FORGOTTEN)
    end
    for i = 1, #expired, 2 do forget(role, expired[i], expired[i + 1], now) end
  end
  for _, replica in ipairs(call('ZRANGEBYSCORE', P .. 'expired_replicas', '-inf', secs(now - DAY_SECS),
    'LIMIT', 0, FORGOTTEN)) do
    call('ZREM', P .. 'expired_replicas', replica)
    call('ZREM', P .. 'changes', replica)
  end
end

-- An operator's instruction to a replica, in its entry of the list: `<revision> <action> <by>`. It has a later revision than
-- all before it. A replica tells with each heartbeat which one it has followed, so that Redis may lose it.

local function revision_of(instruction)
  return tonumber(string.match(instruction, '^%d+') or '0')
end

local function later_instruction(one, other)
  return revision_of(one) > revision_of(other) and one or other
end

if not (is_permitted('DEL', P) and is_permitted('HGET', P) and is_permitted('HGETALL', P) and is_permitted('HMGET', P) and is_permitted('HSET', P) and is_permitted('HSETNX', P) and is_permitted('PEXPIRE', P) and is_permitted('TIME', P) and is_permitted('ZADD', P) and is_permitted('ZCARD', P) and is_permitted('ZCOUNT', P) and is_permitted('ZRANGEBYSCORE', P) and is_permitted('ZREM', P) and is_permitted('ZREMRANGEBYRANK', P)) then require_command('DEL') require_command('HGET') require_command('HGETALL') require_command('HMGET') require_command('HSET') require_command('HSETNX') require_command('PEXPIRE') require_command('TIME') require_command('ZADD') require_command('ZCARD') require_command('ZCOUNT') require_command('ZRANGEBYSCORE') require_command('ZREM') require_command('ZREMRANGEBYRANK') end

local now, lease = clock(shift), tonumber(lease_secs)
note_time(now, lease)
forget_expired(now, lease)

local ours, theirs = cjson.decode(config), {}
local flat = call('HGETALL', P .. 'config')
for i = 1, #flat, 2 do theirs[flat[i]] = flat[i + 1] end

local function write_ours()
  call('DEL', P .. 'config')
  for name, value in pairs(ours) do call('HSET', P .. 'config', name, value) end
  call('HSET', P .. 'config', 'since', since, 'revision', revision)
  theirs = {since = since, revision = revision}
end

local function others()
  local count = 0
  for _, name in ipairs(ROLES) do
    count = count + call('ZCOUNT', P .. name .. 's', secs(lease_bound(now, lease)), '+inf')
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
local is_new = call('ZADD', P .. role .. 's', secs(now + lease), replica) == 1
if is_new then call('ZREM', P .. 'expired_replicas', replica) end
if is_new or call('HGET', entry, 'about') ~= about then note_change(replica, now) end
instruction = later_instruction(call('HGET', entry, 'instruction') or '', instruction)
call('HSET', entry, 'role', role, 'about', about, 'figures', figures, 'models', models, 'instruction', instruction)
call('PEXPIRE', entry, math.ceil(lease * 1000) + 86400000)
note_models(cjson.decode(models), now)
local roster = call('HMGET', P .. 'roster', 'epoch', 'version')
return {'ok', secs(now), theirs.since, theirs.revision, changed, roster[1], roster[2], instruction}
