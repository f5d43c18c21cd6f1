-- The list of replicas in the control slot. It is for display and for finding workers; no request depends on it.
--- @include now numbers membership

local FORGOTTEN = 10  -- of each role, in one call
local DAY_SECS = 86400

local VERSIONS_LIMIT = 10000

-- Notes that the entry of a replica was added, changed or removed. The version of the list names that change: its time in
-- milliseconds, later than all before it also after a failover that has lost the last ones, and the replica. A list that
-- was lost begins under another epoch.
local function note_change(replica)
  local last = string.match(redis.call('HGET', P .. 'roster', 'version') or '', '^%d+') or '0'
  local ms = string.format('%.0f', math.max(tonumber(last) + 1, math.floor(now * 1000)))
  local version = ms .. '-' .. replica
  redis.call('HSET', P .. 'roster', 'version', version)
  redis.call('HSETNX', P .. 'roster', 'epoch', secs(now) .. '-' .. replica)
  redis.call('ZADD', P .. 'changes', ms, replica)
  redis.call('ZADD', P .. 'versions', ms, version)
  redis.call('ZREMRANGEBYRANK', P .. 'versions', 0, -1 - VERSIONS_LIMIT)
end

-- Returns whether a replica has announced that nothing of it is left, which is the last that it announces.
local function has_finished(about) return cjson.decode(about or '{}').finished == true end

-- Removes a replica from the list. It has left in order if it had finished, also if it died between its last announcement
-- and its leave, or a failover has lost the leave. Its models count as served until its lease has ended, not only until its
-- last heartbeat.
local function forget(role, replica, until_secs)
  redis.call('ZREM', P .. role .. 's', replica)
  local entry = redis.call('HMGET', P .. 'replica:' .. replica, 'about', 'models')
  redis.call('ZADD', P .. (has_finished(entry[1]) and 'left_replicas' or 'expired_replicas'), secs(now), replica)
  for _, model in ipairs(cjson.decode(entry[2] or '[]')) do
    redis.call('ZADD', P .. 'models', 'XX', 'GT', until_secs, model)
  end
  redis.call('DEL', P .. 'replica:' .. replica)
  note_change(replica)
end

-- Removes replicas whose lease has ended, and forgets those that have been gone for a day.
local function forget_expired(lease_secs)
  each_expired(lease_secs, FORGOTTEN, forget)
  for _, gone in ipairs({'left_replicas', 'expired_replicas'}) do
    local old = redis.call('ZRANGEBYSCORE', P .. gone, '-inf', secs(now - DAY_SECS), 'LIMIT', 0, FORGOTTEN)
    for _, replica in ipairs(old) do
      redis.call('ZREM', P .. gone, replica)
      redis.call('ZREM', P .. 'changes', replica)
    end
  end
end
