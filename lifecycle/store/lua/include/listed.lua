-- The list of replicas in the control slot. It is for display and for finding workers; no request depends on it.

local FORGOTTEN = 10  -- of each role, in one call
local DAY_SECS = 86400

local VERSIONS_LIMIT = 10000

-- Notes that the entry of a replica was added, changed or removed. The version of the list names that change: its time in
-- milliseconds, later than all before it also after a failover that has lost the last ones, and the replica. A list that
-- was lost begins under another epoch.
local function note_change(replica, now)
  local last = string.match(redis.call('HGET', P .. 'roster', 'version') or '', '^%d+') or '0'
  local ms = string.format('%.0f', math.max(tonumber(last) + 1, math.floor(now * 1000)))
  local version = ms .. '-' .. replica
  redis.call('HSET', P .. 'roster', 'version', version)
  redis.call('HSETNX', P .. 'roster', 'epoch', secs(now) .. '-' .. replica)
  redis.call('ZADD', P .. 'changes', ms, replica)
  redis.call('ZADD', P .. 'versions', ms, version)
  redis.call('ZREMRANGEBYRANK', P .. 'versions', 0, -1 - VERSIONS_LIMIT)
end

-- Removes a replica from the list. Its models count as served until its lease has ended, not only until its last heartbeat.
local function forget(role, replica, until_secs, now)
  redis.call('ZREM', P .. role .. 's', replica)
  redis.call('ZADD', P .. 'expired_replicas', secs(now), replica)
  for _, model in ipairs(cjson.decode(redis.call('HGET', P .. 'replica:' .. replica, 'models') or '[]')) do
    redis.call('ZADD', P .. 'models', 'XX', 'GT', until_secs, model)
  end
  redis.call('DEL', P .. 'replica:' .. replica)
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
      expired = redis.call('ZRANGEBYSCORE', key, '-inf', secs(now), 'WITHSCORES', 'LIMIT', 0, FORGOTTEN)
    end
    for i = 1, #expired, 2 do forget(role, expired[i], expired[i + 1], now) end
  end
  for _, replica in ipairs(redis.call('ZRANGEBYSCORE', P .. 'expired_replicas', '-inf', secs(now - DAY_SECS),
    'LIMIT', 0, FORGOTTEN)) do
    redis.call('ZREM', P .. 'expired_replicas', replica)
    redis.call('ZREM', P .. 'changes', replica)
  end
end
