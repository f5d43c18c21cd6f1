-- The beginning of a request, admitted or tracked.

-- Adds the further fields of a request's record: the arguments from number `first` on are name, value….
local function with_fields(first, request)
  for i = first, #ARGV, 2 do request[ARGV[i]] = ARGV[i + 1] end
  return request
end

-- Returns the attempt of the id's last request of which Redis has lost the start; nil for none.
local function read_lost_start(rid) return redis.call('GET', P .. 'lost_start:' .. rid) end

-- Writes what a request has beside its record: its limits, its first reader, its count, and its places in the indexes.
-- `lost_start` is from read_lost_start().
local function begin_request(request, status, now, lost_start)
  local rid, frontend, created_at = request.id, request.frontend, request.created_at
  local limits_at = request.due and limit_time(now)
  for _, kind in ipairs(limits_at and {'queue', 'first_token', 'deadline'} or {}) do
    local after_secs = request[kind .. '_limit_secs']
    if after_secs then
      redis.call('ZADD', P .. 'deadlines', secs(limits_at + tonumber(after_secs)), kind .. '|' .. rid)
    end
  end
  -- The parent may be in another shard: the next sweep looks at it.
  if request.parent_since then redis.call('ZADD', P .. 'with_parent', created_at, rid) end
  redis.call('HSET', P .. 'readers:' .. rid, frontend, '1')
  redis.call('HSETNX', P .. 'ticks', frontend, '0')
  count_in(frontend, rid, labels_of(request), status)
  redis.call('ZADD', P .. 'created', created_at, rid)
  redis.call('ZADD', P .. 'active', created_at, rid)
  if lost_start then redis.call('HSET', P .. 'request:' .. rid, 'lost_start', lost_start) end
  if request.owner then redis.call('ZADD', P .. 'owned:' .. request.owner, created_at, rid) end
end
