#!lua flags=no-writes,allow-oom
-- members: counts the requests that each replica of one role holds in one shard, for those that hold a lease here.
-- KEYS[1] shard prefix
-- ARGV    shift, role, lease_secs, first (index of the first replica to examine), limit, model (of frontends: only requests of
--         this model count; '' for all)
-- Returns {examined, replica, number…}, without replicas that hold nothing.

local P = KEYS[1]
local shift, role, lease_secs, first, limit, model = unpack(ARGV)
--- @include clock membership counts

local holds = role == 'worker' and 'running:' or 'inflight:'

local function number_of(replica)
  if model == '' then return redis.call('HLEN', P .. holds .. replica) end
  local number, flat = 0, redis.call('HGETALL', P .. 'counts:' .. replica)
  for i = 1, #flat, 2 do
    if cjson.decode(flat[i])[1] == model then number = number + inflight_in(tonumber(flat[i + 1])) end
  end
  return number
end

local bound = lease_bound(clock(shift), tonumber(lease_secs))
local replicas = redis.call('ZRANGEBYSCORE', P .. role .. 's', '(' .. secs(bound), '+inf', 'LIMIT', first, limit)
local found = {#replicas}
for _, replica in ipairs(replicas) do
  local number = number_of(replica)
  if number > 0 then
    found[#found + 1] = replica
    found[#found + 1] = number
  end
end
return found
