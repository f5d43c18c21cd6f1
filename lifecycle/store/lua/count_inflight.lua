#!lua flags=no-writes,allow-oom
-- count_inflight: counts the requests inflight in one shard, of the frontends that hold a lease here.
-- KEYS[1] shard prefix
-- ARGV    shift, lease_secs, first (index of the first frontend without a lease that this call examines), limit (of the
--         numbers of such frontends that it reads)
-- Returns {more, lost, labels, number…}, with both statuses in one number: see counts. more is 1 when the call has reached
--         the limit; lost has the frontends without a lease that it has examined. The numbers of all calls are added up.
-- The sum over all frontends is kept. What it has of frontends without a lease is subtracted, so it is right one lease after
-- a death even if nobody sweeps.

local P = KEYS[1]
local shift, lease_secs, first, limit = unpack(ARGV)
--- @include clock membership counts

local bound = lease_bound(clock(shift), tonumber(lease_secs))
local lost = redis.call('ZRANGEBYSCORE', P .. 'frontends', '-inf', secs(bound))
for _, replica in ipairs(redis.call('HKEYS', P .. 'pending_cleanup')) do lost[#lost + 1] = replica end

local counts, groups = {}, {}
local flat = redis.call('HGETALL', P .. 'group_counts')
for i = 1, #flat, 2 do
  groups[#groups + 1] = flat[i]
  if first == '0' then counts[flat[i]] = tonumber(flat[i + 1]) end
end
local last = math.min(#lost, first + math.max(1, math.floor(limit / math.max(1, #groups))))
local found = {last < #lost and 1 or 0, {unpack(lost, first + 1, last)}}
for i = first + 1, last do
  local names, numbers = counts_of(lost[i], groups)
  for j, labels in ipairs(names) do counts[labels] = (counts[labels] or 0) - numbers[j] end
end
for name, number in pairs(counts) do
  if number ~= 0 then
    found[#found + 1] = name
    found[#found + 1] = string.format('%.0f', number)
  end
end
return found
