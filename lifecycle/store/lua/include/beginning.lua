-- The beginning of a request, admitted or tracked.

-- Returns the further fields of the request's record: the arguments from number `first` on are name, value….
local function fields_from(first)
  local fields = {}
  for i = first, #ARGV, 2 do fields[ARGV[i]] = ARGV[i + 1] end
  return fields
end

-- Returns the attempt of the id's last request of which Redis has lost the start; nil for none.
local function read_lost_start(rid) return redis.call('GET', P .. 'lost_start:' .. rid) end

-- Writes what a request has beside its record: its limits, its first reader, its count, and its places in the indexes.
-- `lost_start` is from read_lost_start().
local function begin_request(rid, frontend, labels, status, now, fields, lost_start)
  local limits_at, created_at = fields.due and limit_time(now), secs(now)
  for _, kind in ipairs(fields.due and {'queue', 'first_token', 'deadline'} or {}) do
    local after_secs = fields[kind .. '_limit_secs']
    if after_secs then
      redis.call('ZADD', P .. 'deadlines', secs(limits_at + tonumber(after_secs)), kind .. '|' .. rid)
    end
  end
  -- The parent may be in another shard: the next sweep looks at it.
  if fields.parent_since then redis.call('ZADD', P .. 'with_parent', created_at, rid) end
  redis.call('HSET', P .. 'readers:' .. rid, frontend, '1')
  redis.call('HSETNX', P .. 'ticks', frontend, '0')
  count_in(frontend, rid, labels, status)
  redis.call('ZADD', P .. 'created', created_at, rid)
  redis.call('ZADD', P .. 'active', created_at, rid)
  if lost_start then redis.call('HSET', P .. 'request:' .. rid, 'lost_start', lost_start) end
  if fields.owner then redis.call('ZADD', P .. 'owned:' .. fields.owner, created_at, rid) end
end
