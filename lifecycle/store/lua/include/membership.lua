-- Who lives. A lease that has expired means "the other side died"; a silence of everybody means Redis was away, and
-- then nobody is judged for one lease.

local ROLES = {'frontend', 'worker'}

-- Notes the time and starts a grace when the clock jumped or nobody could beat for half a lease.
local function watch_clock(now, lease_secs)
  local seen = tonumber(redis.call('HGET', P .. 'clock', 'seen') or '')
  if seen and (now - seen > lease_secs / 2 or seen - now > lease_secs / 2) then
    redis.call('HSET', P .. 'clock', 'grace_from', secs(math.min(seen, now)), 'grace_until', secs(now + lease_secs))
  end
  redis.call('HSET', P .. 'clock', 'seen', secs(now))
end

-- Leases that expire after this moment count as valid: now, or during a grace the moment the silence began.
-- The silence itself counts as grace already, before the first beat after it, but not for ever.
local function judged_at(now, lease_secs)
  local clock_seen = redis.call('HMGET', P .. 'clock', 'seen', 'grace_from', 'grace_until')
  if clock_seen[3] and now < tonumber(clock_seen[3]) then return math.min(now, tonumber(clock_seen[2])), true end
  local silence = clock_seen[1] and now - tonumber(clock_seen[1]) or 0
  if silence > lease_secs / 2 and silence < lease_secs * 2 then return tonumber(clock_seen[1]), true end
  return now, false
end
