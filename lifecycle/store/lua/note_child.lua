#!lua flags=allow-oom
-- note_child: examines the parent of a request that is to be admitted, and notes the child with it, for displays and for
--         the limit. Whether the child ends with the parent is decided in the child's shard: see include/beginning.lua.
-- KEYS[1] shard prefix
-- ARGV    shift, rid (of the parent), child, owner (whose the parent must be, '' for anybody's), children_limit,
--         levels_limit, retention_ms (how long the list of children of a completed parent stays)
-- Returns {'noted', created_at of the parent ('' when it has completed), level of the child}, {'unknown'}, {'ended'} when
--         the parent did not complete or is being cancelled, {'deep'}, or {'full', child…} with the oldest children,
--         some of which may have ended: remove those and call again. Of a repetition only the last call counts.

local P = KEYS[1]
local shift, rid, child, owner, children_limit, levels_limit, retention_ms = unpack(ARGV)
--- @include commands now numbers
--- @permit

local EXAMINED = 100
local key, children = P .. 'request:' .. rid, P .. 'children:' .. rid
local record = unless_error('WRONGTYPE', 'HMGET', key, 'status', 'created_at', 'owner', 'cancel_mode', 'level')
if not record or not record[1] then return {'unknown'} end
local status, created_at, owned_by, cancel_mode, level = unpack(record, 1, 5)
if owner ~= '' and (owned_by or '') ~= owner then return {'unknown'} end
if status == 'failed' or status == 'cancelled' or cancel_mode then return {'ended'} end
level = tonumber(level or '1') + 1
if level > tonumber(levels_limit) then return {'deep'} end
if not redis.call('ZSCORE', children, child) and redis.call('ZCARD', children) >= tonumber(children_limit) then
  return {'full', unpack(redis.call('ZRANGE', children, '0', tostring(EXAMINED - 1)))}
end

local is_over = status == 'completed'
redis.call('ZADD', children, 'NX', secs(now), child)
if is_over then
  redis.call('PEXPIRE', children, retention_ms)
else
  redis.call('PEXPIRE', children, '2592000000')  -- 30 days: its end, if Redis does not lose it, expires it sooner
  redis.call('HSET', key, 'has_children', '1')
end
return {'noted', is_over and '' or created_at, tostring(level)}
