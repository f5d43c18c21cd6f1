#!lua flags=no-writes,allow-oom
-- count_inflight: counts the requests inflight in one shard, of the frontends that hold a lease here.
-- KEYS[1] shard prefix
-- ARGV    shift, lease_secs, first (index of the first frontend without a lease that this call examines), limit
-- Returns {examined, labels, number…}, with both statuses in one number: see counts. The numbers of all calls are added up.
-- The sum over all frontends is kept. What it has of frontends without a lease is subtracted, so it is right one lease after
-- a death even if nobody sweeps.

local P = KEYS[1]
local shift, lease_secs, first, limit = unpack(ARGV)
--- @include numbers membership

local bound = lease_bound(tonumber(lease_secs))
local lost = redis.call('ZRANGEBYSCORE', P .. 'frontends', '-inf', secs(bound))
for _, replica in ipairs(redis.call('HKEYS', P .. 'pending_cleanup')) do lost[#lost + 1] = replica end

local counts = {}
if first == '0' then
  local flat = redis.call('HGETALL', P .. 'group_counts')
  for i = 1, #flat, 2 do counts[flat[i]] = tonumber(flat[i + 1]) end
end
local examined = math.max(0, math.min(tonumber(limit), #lost - first))
for i = first + 1, first + examined do
  local own = redis.call('HGETALL', P .. 'counts:' .. lost[i])
  for j = 1, #own, 2 do counts[own[j]] = (counts[own[j]] or 0) - tonumber(own[j + 1]) end
end
local found = {examined}
for name, number in pairs(counts) do
  if number ~= 0 then
    found[#found + 1] = name
    found[#found + 1] = string.format('%.0f', number)
  end
end
return found
