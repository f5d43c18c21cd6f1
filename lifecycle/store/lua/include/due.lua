-- What is due at a time of its own; the record notes that there is such a thing.
local function falls_due(rid, kind, at)
  redis.call('HSET', P .. 'request:' .. rid, 'due', '1')
  redis.call('ZADD', P .. 'deadlines', 'NX', secs(at), kind .. '|' .. rid)
end
