-- Leases, of a shard or of the control slot. A lease that has ended means that its replica is lost. When no replica sent a
-- heartbeat, Redis was away, and then no lease expires for one lease (the grace).
--- @include now numbers

local ROLES = {'frontend', 'worker'}

-- Notes the time, and begins a grace when the clock jumped or no heartbeat came for half a lease.
local function note_time(lease_secs)
  local seen = tonumber(redis.call('HGET', P .. 'clock', 'seen') or '')
  if seen and (now - seen > lease_secs / 2 or seen - now > lease_secs / 2) then
    redis.call('HSET', P .. 'clock', 'grace_from', secs(math.min(seen, now)), 'grace_until', secs(now + lease_secs))
  end
  redis.call('HSET', P .. 'clock', 'seen', secs(now))
end

-- Returns the time after which a lease must end to be valid, and whether this is a grace. The time is now, or during a
-- grace the time at which the outage began. An outage counts as grace before the first heartbeat after it, but only up to
-- two leases.
local function lease_bound(lease_secs)
  local clock_seen = redis.call('HMGET', P .. 'clock', 'seen', 'grace_from', 'grace_until')
  if clock_seen[3] and now < tonumber(clock_seen[3]) then return math.min(now, tonumber(clock_seen[2])), true end
  local outage_secs = clock_seen[1] and now - tonumber(clock_seen[1]) or 0
  if outage_secs > lease_secs / 2 and outage_secs < lease_secs * 2 then return tonumber(clock_seen[1]), true end
  return now, false
end

-- Returns whether the caller has to sweep, because a sweep is due; it is due again for another one an interval later.
-- The interval is shortened a little: heartbeats come as regularly, and one that is early must not skip a sweep.
local function takes_sweep(sweep_secs)
  local due = tonumber(redis.call('HGET', P .. 'clock', 'sweep_at') or '0')
  if now < due and due - now <= sweep_secs then return false end  -- a later one was set before the clock was put back
  redis.call('HSET', P .. 'clock', 'sweep_at', secs(now + 0.9 * sweep_secs))
  return true
end

-- Calls `expire` with the role of each replica whose lease has ended, its id and when that was: up to `limit` of each role,
-- and none during a grace. And leases that end later than a heartbeat can set it, before the clock was put back, are shortened.
local function each_expired(lease_secs, limit, expire)
  local _, grace = lease_bound(lease_secs)
  local latest = secs(now + lease_secs)
  for _, role in ipairs(ROLES) do
    local key = P .. role .. 's'
    for _, replica in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. latest, '+inf', 'LIMIT', 0, limit)) do
      redis.call('ZADD', key, latest, replica)
    end
    local expired = grace and {} or redis.call('ZRANGEBYSCORE', key, '-inf', secs(now), 'WITHSCORES', 'LIMIT', 0, limit)
    for i = 1, #expired, 2 do expire(role, expired[i], expired[i + 1]) end
  end
end

-- Returns a page of the leases that end after `bound`, the first to end first, as ZRANGE does WITHSCORES; and where the
-- next page begins, '' after the last one. `from` is that of the page before, '' for the first page. A lease that is
-- renewed meanwhile comes once more on a later page, and none is left out.
local function lease_page(key, bound, from, limit)
  if from == '' or tonumber((string.gsub(from, '^%(', ''))) <= bound then from = '(' .. secs(bound) end
  local flat = redis.call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
  if #flat < 2 * tonumber(limit) then return flat, '' end
  local last = flat[#flat]
  return flat, last == flat[2] and '(' .. last or last
end
