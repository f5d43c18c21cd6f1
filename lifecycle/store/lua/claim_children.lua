#!lua flags=allow-oom
-- claim_children: finds requests whose parents are to be looked at, so that one replica at a time does so.
-- KEYS[1] shard prefix
-- ARGV    shift, check_secs (time after which they are looked at again), limit
-- Returns {more, child…}: each child is {rid, parent, created_at of the parent}. more is 1 when further ones are due.

local P = KEYS[1]
local shift, check_secs, limit = unpack(ARGV)
--- @include commands now numbers
--- @permit

local due = P .. 'with_parent'
local rids = redis.call('ZRANGEBYSCORE', due, '-inf', secs(now), 'LIMIT', '0', limit)
local found = {#rids == tonumber(limit) and 1 or 0}
for _, rid in ipairs(rids) do
  local record = unless_error('WRONGTYPE', 'HMGET', P .. 'request:' .. rid, 'parent', 'parent_since')
  if record and record[2] then
    redis.call('ZADD', due, secs(now + tonumber(check_secs)), rid)
    found[#found + 1] = {rid, record[1], record[2]}
  else  -- Redis has lost its record
    redis.call('ZREM', due, rid)
  end
end
return found
