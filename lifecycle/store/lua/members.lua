#!lua flags=no-writes,allow-oom
-- members: counts the requests that each replica of one role holds in one shard, for those that hold a lease here.
-- KEYS[1] shard prefix
-- ARGV    shift, role, lease_secs, from (where this page begins, '' for the first one), limit, model (of frontends: only
--         requests of this model count; '' for all)
-- Returns {next, replica, number…}, without replicas that hold nothing; next is the `from` of the next page, '' after the
--         last one.

local P = KEYS[1]
local shift, role, lease_secs, from, limit, model = unpack(ARGV)
--- @include membership counts

local AT_ONCE = 32  -- replicas whose keys are looked for by one command: most hold nothing in a shard

local holds = role == 'worker' and 'running:' or 'inflight:'
if model ~= '' then holds = 'counts:' end

local function number_in(key)
  if model == '' then return redis.call('HLEN', key) end
  local number, flat = 0, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    if cjson.decode(flat[i])[1] == model then number = number + inflight_in(tonumber(flat[i + 1])) end
  end
  return number
end

local bound = lease_bound(tonumber(lease_secs))
local flat, next_from = lease_page(P .. role .. 's', bound, from, limit)
local found = {next_from}
for first = 1, #flat, 2 * AT_ONCE do
  local keys = {}
  for i = first, math.min(first + 2 * AT_ONCE - 1, #flat), 2 do keys[#keys + 1] = P .. holds .. flat[i] end
  for i, key in ipairs(redis.call('EXISTS', unpack(keys)) > 0 and keys or {}) do
    local number = number_in(key)
    if number > 0 then
      found[#found + 1] = flat[first + 2 * (i - 1)]
      found[#found + 1] = number
    end
  end
end
return found
