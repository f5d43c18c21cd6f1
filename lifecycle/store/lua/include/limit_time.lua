-- The clock of time limits: Redis's own, without the steps that it has taken. `clock` has for it when a replica was last
-- here (`limits_seen`), how far Redis's clock has stepped ahead (`lag`), and half a lease (`half_lease`), all in seconds.
--- @include now numbers

-- Returns the time by which limits are set and judged. A script cannot tell a step from time in which nobody came, so
-- this clock waits at half a lease behind the last reconciliation until the next one has decided.
local function limit_time()
  local known = redis.call('HMGET', P .. 'clock', 'limits_seen', 'lag', 'half_lease')
  local seen, half_lease = tonumber(known[1] or ''), tonumber(known[3] or '')
  if not seen or not half_lease then return now end
  return math.max(seen - half_lease, math.min(seen + half_lease, now)) - tonumber(known[2] or '0')
end

-- Notes that a replica is here, `elapsed` seconds after it was here before, by its own monotonic clock; '' when it is
-- new. What Redis's clock shows beyond these is a step. A new replica cannot tell, and leaves it to the others, or to
-- its next call: time in which no replica was here counts as a step then.
local function note_limit_time(elapsed, lease)
  local known = redis.call('HMGET', P .. 'clock', 'limits_seen', 'lag')
  local seen, half_lease = tonumber(known[1] or ''), lease / 2
  local gap, step = now - (seen or now), 0
  if gap < -half_lease then
    step = gap
  elseif gap > half_lease then
    if elapsed == '' then return end
    if gap - tonumber(elapsed) > half_lease then step = gap - tonumber(elapsed) end
  elseif seen and gap < half_lease / 4 then
    return  -- it was noted only just now
  end
  if step ~= 0 then redis.call('HSET', P .. 'clock', 'lag', secs(tonumber(known[2] or '0') + step)) end
  redis.call('HSET', P .. 'clock', 'limits_seen', secs(now), 'half_lease', secs(half_lease))
end
