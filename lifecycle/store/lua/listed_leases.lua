#!lua flags=no-writes,allow-oom
-- listed_leases: reads until when the replicas of one role are listed, and their figures.
-- KEYS[1] control prefix
-- ARGV    shift, role, lease_secs, from (where this page begins, '' for the first one), limit, figures ('' leaves them out)
-- Returns {next, replica, lease_expires_in_ms, figures…}, without those whose entry has expired; next is the `from` of the
--         next page, '' after the last one; figures is a JSON object, '' when left out.

local P = KEYS[1]
local shift, role, lease_secs, from, limit, figures = unpack(ARGV)
--- @include now membership

local lease = tonumber(lease_secs)
local bound = lease_bound(lease)
local flat, next_from = lease_page(P .. role .. 's', bound, from, limit)
local found = {next_from}
for i = 1, #flat, 2 do
  found[#found + 1] = flat[i]
  found[#found + 1] = math.floor(math.max(0, math.min(lease, flat[i + 1] - now)) * 1000)
  found[#found + 1] = figures ~= '' and redis.call('HGET', P .. 'replica:' .. flat[i], 'figures') or ''
end
return found
