-- The beginning of a request, admitted or tracked.

-- Adds the further fields of a request's record: these arguments are name, value….
local function with_fields(request, first, last)
  for i = first, last, 2 do request[ARGV[i]] = ARGV[i + 1] end
  return request
end

-- Returns the attempt of the id's last request of which Redis has lost the start; nil for none.
local function read_lost_start(rid) return redis.call('GET', P .. 'lost_start:' .. rid) end

local begun = {}  -- requests, until settle_beginnings() has written what they have in common

-- Writes what a request has by itself beside its record: its limits and its first reader. The caller then calls
-- settle_beginnings(), once for all. `lost_start` is from read_lost_start().
local function begin_request(request, now, lost_start)
  local rid, created_at = request.id, request.created_at
  begun[#begun + 1] = request
  local limits_at = request.due and limit_time(now)
  for _, kind in ipairs(limits_at and {'queue', 'first_token', 'deadline'} or {}) do
    local after_secs = request[kind .. '_limit_secs']
    if after_secs then
      redis.call('ZADD', P .. 'deadlines', secs(limits_at + tonumber(after_secs)), kind .. '|' .. rid)
    end
  end
  -- The parent may be in another shard: the next sweep looks at it.
  if request.parent_since then redis.call('ZADD', P .. 'with_parent', created_at, rid) end
  redis.call('HSET', P .. 'readers:' .. rid, request.frontend, '1')
  if lost_start then redis.call('HSET', P .. 'request:' .. rid, 'lost_start', lost_start) end
end

-- Writes what the beginnings of requests have in common, once for all: their counts and their places in the indexes.
local function settle_beginnings(status)
  if #begun == 0 then return end
  local by_time, by_owner, by_frontend = {}, {}, {}
  for _, request in ipairs(begun) do
    local rid, created_at = request.id, request.created_at
    append_to(by_time, 'all', created_at, rid)
    if request.owner then append_to(by_owner, request.owner, created_at, rid) end
    append_to(by_frontend, request.frontend, {rid = rid, labels = labels_of(request)})
  end
  for frontend, counted in pairs(by_frontend) do
    redis.call('HSETNX', P .. 'ticks', frontend, '0')
    count_in(frontend, counted, status)
  end
  redis.call('ZADD', P .. 'created', unpack(by_time.all))
  redis.call('ZADD', P .. 'active', unpack(by_time.all))
  for owner, members in pairs(by_owner) do redis.call('ZADD', P .. 'owned:' .. owner, unpack(members)) end
end
