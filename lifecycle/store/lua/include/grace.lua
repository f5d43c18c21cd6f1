-- A grace begins, unless one has. The record notes that something of it is in `deadlines`.
local function begin_grace(rid, ends_at)
  redis.call('HSET', P .. 'request:' .. rid, 'due', '1')
  redis.call('ZADD', P .. 'deadlines', 'NX', secs(ends_at), 'grace|' .. rid)
end
