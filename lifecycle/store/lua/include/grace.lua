-- Begins the disconnect grace, unless it has begun. The field `due` says that the request is in `deadlines`.
local function begin_grace(rid, ends_at)
  redis.call('HSET', P .. 'request:' .. rid, 'due', '1')
  redis.call('ZADD', P .. 'deadlines', 'NX', secs(ends_at), 'grace|' .. rid)
end
