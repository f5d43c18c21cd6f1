-- Begins the disconnect grace of some seconds, unless it has begun. The field `due` says that the request is in
-- `deadlines`.
local function begin_grace(rid, now, grace_secs)
  redis.call('HSET', P .. 'request:' .. rid, 'due', '1')
  redis.call('ZADD', P .. 'deadlines', 'NX', secs(limit_time(now) + grace_secs), 'grace|' .. rid)
end
