#!lua flags=no-writes,allow-oom
-- count_inflight: counts the requests inflight in one shard, of the frontends that hold a lease here.
-- KEYS[1] shard prefix
-- ARGV    shift, lease_secs
-- Returns a flat list of labels, number…, with both statuses in one number: see counts.
-- The sum over all frontends is kept. What it has of frontends without a lease is subtracted, so it is right one lease after
-- a death even if nobody sweeps.

local P = KEYS[1]
local shift, lease_secs = unpack(ARGV)
--- @include clock membership

local bound = lease_bound(clock(shift), tonumber(lease_secs))
local lost = redis.call('ZRANGEBYSCORE', P .. 'frontends', '-inf', secs(bound))
for _, replica in ipairs(redis.call('HKEYS', P .. 'pending_cleanup')) do lost[#lost + 1] = replica end

local counts, flat = {}, redis.call('HGETALL', P .. 'group_counts')
for i = 1, #flat, 2 do counts[flat[i]] = tonumber(flat[i + 1]) end
for _, frontend in ipairs(lost) do
  local own = redis.call('HGETALL', P .. 'counts:' .. frontend)
  for i = 1, #own, 2 do counts[own[i]] = (counts[own[i]] or 0) - tonumber(own[i + 1]) end
end
local found = {}
for name, number in pairs(counts) do
  if number > 0 then
    found[#found + 1] = name
    found[#found + 1] = string.format('%.0f', number)
  end
end
return found
