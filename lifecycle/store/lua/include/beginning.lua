-- The beginning of a request, admitted or tracked.
--- @include numbers limit_time requests counts

-- Adds the further fields of a request's record: these arguments are name, value….
local function with_fields(request, first, last)
  for i = first, last, 2 do request[ARGV[i]] = ARGV[i + 1] end
  return request
end

-- Returns the attempt of the id's last request of which Redis has lost the start; nil for none.
local function read_lost_start(rid) return redis.call('GET', P .. 'lost_start:' .. rid) end

-- The requests that this script has begun, for settle_beginnings(): {rid, record, labels}.
local begun = {}

-- Writes what a request has by itself beside its record: its limits and its first reader. The caller then calls
-- settle_beginnings(), once for all. `lost_start` is from read_lost_start(). Returns its entry of `begun`.
local function begin_request(request, lost_start)
  local rid, created_at = request.id, request.created_at
  local one = {rid = rid, record = request, labels = labels_of(request)}
  begun[#begun + 1] = one
  local limits_at = request.due and limit_time()
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
  return one
end

-- Returns what ZADD adds to an index of requests by when they were created.
local function by_age(requests)
  local members = {}
  for i, one in ipairs(requests) do members[2 * i - 1], members[2 * i] = one.record.created_at, one.rid end
  return members
end

local function count_begun(frontend, some, status)
  redis.call('HSETNX', P .. 'ticks', frontend, '0')
  count_in(frontend, some, status)
end

-- Writes what the beginnings of requests have in common, once for all: their counts and their places in the indexes.
local function settle_beginnings(status)
  if #begun == 0 then return end
  local by_frontend, by_owner = {}, {}
  for _, one in ipairs(begun) do
    append_to(by_frontend, one.record.frontend, one)
    if one.record.owner then append_to(by_owner, one.record.owner, one) end
  end
  for frontend, some in pairs(by_frontend) do run_for(some, count_begun, frontend, some, status) end
  local members = by_age(begun)
  run_for(begun, redis.call, 'ZADD', P .. 'created', unpack(members))
  run_for(begun, redis.call, 'ZADD', P .. 'active', unpack(members))
  for owner, some in pairs(by_owner) do
    run_for(some, redis.call, 'ZADD', P .. 'owned:' .. owner, unpack(by_age(some)))
  end
end
