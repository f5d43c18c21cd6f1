#!lua flags=no-writes,allow-oom
-- listed_leases: reads until when the replicas of one role are listed, and their figures.
-- KEYS[1] control prefix
-- ARGV    shift, role, lease_secs, first (index of the first replica to read), limit, figures ('' leaves them out)
-- Returns {examined, replica, lease_expires_in_ms, figures…}, without those whose entry has expired; figures is a JSON object,
--         '' when left out.

local P = KEYS[1]
local shift, role, lease_secs, first, limit, figures = unpack(ARGV)
--- @include clock membership

local now, lease = clock(shift), tonumber(lease_secs)
local bound = lease_bound(now, lease)
local flat = redis.call('ZRANGE', P .. role .. 's', first, first + limit - 1, 'WITHSCORES')
local found = {#flat / 2}
for i = 1, #flat, 2 do
  local ends_at = tonumber(flat[i + 1])
  if ends_at > bound then
    found[#found + 1] = flat[i]
    found[#found + 1] = math.floor(math.max(0, math.min(lease, ends_at - now)) * 1000)
    found[#found + 1] = figures ~= '' and redis.call('HGET', P .. 'replica:' .. flat[i], 'figures') or ''
  end
end
return found
