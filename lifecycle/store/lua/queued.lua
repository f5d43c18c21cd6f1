#!lua flags=no-writes,allow-oom
-- queued: reads which of a shard's requests are queued, the oldest first, with what they need of an engine. It examines a
--         bounded number of those that are inflight.
-- KEYS[1] shard prefix
-- ARGV    shift, since (created_at to begin at, '-inf' for the oldest), behind (rid at that time, '' to begin), limit (how
--         many are examined)
-- Returns {exhausted, created_at, rid, request…}: created_at and rid are since and behind of the next page; each request is
--         {rid, model, endpoint, needs}.

local P = KEYS[1]
local shift, since, behind, limit = unpack(ARGV)
--- @include numbers record

local page = redis.call('ZRANGEBYSCORE', P .. 'active', since, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
local found, last_at, last_rid = {}, since, behind
for i = 1, #page, 2 do
  local rid, at = page[i], secs(tonumber(page[i + 1]))
  if not (at == since and rid <= behind) then
    last_at, last_rid = at, rid
    local status, model, endpoint, needs = unpack(
      read_typed('HMGET', P .. 'request:' .. rid, 'status', 'model', 'endpoint', 'needs'), 1, 4)
    if status == 'queued' then found[#found + 1] = {rid, model, endpoint, needs or ''} end
  end
end
local exhausted = (#page / 2 < tonumber(limit) or last_rid == behind) and 1 or 0
return {exhausted, last_at, last_rid, unpack(found)}
