-- The request that started another one. It may be in another shard, so each shard has in `with_parent` which of its
-- requests are still to be ended with their parents, by when the parent is looked at next.

-- Notes which request started this one, and lets the next sweep look at it. `started_by` is `<parent>|<created_at of the
-- parent>|<level>`, without a created_at when the parent has completed; '' for none. The level of a request without a
-- parent is 1.
local function note_parent(rid, started_by, now)
  if started_by == '' then return end
  local parent, since, level = string.match(started_by, '^([^|]*)|([^|]*)|(%d*)$')
  redis.call('HSET', P .. 'request:' .. rid, 'parent', parent, 'parent_since', since, 'level', level)
  if since ~= '' then redis.call('ZADD', P .. 'with_parent', secs(now), rid) end
end
