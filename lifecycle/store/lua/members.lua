#!lua flags=no-writes,allow-oom
-- members: counts the requests that each worker runs in one shard, for those that hold a lease here.
-- KEYS[1] shard prefix
-- ARGV    shift, role, lease_secs, from (where this page begins, '' for the first one), limit
-- Returns {next, worker, number…}, without workers that run nothing; next is the `from` of the next page, '' after the last
--         one.

local P = KEYS[1]
local shift, role, lease_secs, from, limit = unpack(ARGV)
--- @include clock membership

local AT_ONCE = 32  -- workers whose keys are looked for by one command: most run nothing in a shard

local bound = lease_bound(clock(shift), tonumber(lease_secs))
local flat, next_from = lease_page(P .. role .. 's', bound, from, limit)
local found = {next_from}
for first = 1, #flat, 2 * AT_ONCE do
  local keys = {}
  for i = first, math.min(first + 2 * AT_ONCE - 1, #flat), 2 do keys[#keys + 1] = P .. 'running:' .. flat[i] end
  for i, key in ipairs(redis.call('EXISTS', unpack(keys)) > 0 and keys or {}) do
    local number = redis.call('HLEN', key)
    if number > 0 then
      found[#found + 1] = flat[first + 2 * (i - 1)]
      found[#found + 1] = number
    end
  end
end
return found
