#!lua flags=allow-oom
-- instruct: tells a replica to drain, to pause or to resume. It follows at its next heartbeat, which the message hurries.
-- KEYS[1] control prefix
-- ARGV    shift, replica, action (`drain` | `pause` | `resume`), by (who wants it)
-- Returns 'ok', 'unknown' when no such replica is listed, 'frontend' when only a worker can do that, or 'draining' when it
--         drains or was told to, which nothing undoes.

local P = KEYS[1]
local shift, replica, action, by = unpack(ARGV)
--- @include commands now instructions events
--- @permit

local entry = redis.call('HMGET', P .. 'replica:' .. replica, 'role', 'about', 'instruction')
local role, about, before = entry[1], entry[2], entry[3] or ''
if not role or not redis.call('ZSCORE', P .. role .. 's', replica) then return 'unknown' end
if action ~= 'drain' then
  if role ~= 'worker' then return 'frontend' end
  if cjson.decode(about).state == 'draining' or string.match(before, '^%d+ drain ') then return 'draining' end
end
local revision = math.max(revision_of(before) + 1, math.floor(now * 1000))
local instruction = string.format('%.0f', revision) .. ' ' .. action .. ' ' .. by
redis.call('HSET', P .. 'replica:' .. replica, 'instruction', instruction)
publish_to(role .. ':' .. replica, {type = 'instruction'})
return 'ok'
