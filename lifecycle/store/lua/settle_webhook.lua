#!lua flags=allow-oom
-- settle_webhook: records how the delivery of a claimed event went.
-- KEYS[1] shard prefix
-- ARGV    shift, event, token (of the claim), outcome (`delivered` | `failed` | `given_up`), retry_after_secs (time until
--         a failed delivery is tried again), keep_until (a delivery that would be tried again later than this is given up)
-- Returns `removed` when the event has left the outbox, `kept` when it is tried again, or `lapsed` when the claim is no
--         longer the caller's: it has settled before, or another frontend has claimed the event or settled it.
-- A delivered event is removed even then, because it has arrived.

local P = KEYS[1]
local shift, event, token, outcome, retry_after_secs, keep_until = unpack(ARGV)
--- @include commands now numbers
--- @permit

local due, key = P .. 'webhooks', P .. 'webhook:' .. event
local is_own = redis.call('HGET', key, 'claim') == token
if not is_own and outcome ~= 'delivered' then return 'lapsed' end
local retry_at = now + tonumber(retry_after_secs)
if outcome == 'failed' and retry_at <= tonumber(keep_until) then
  redis.call('HINCRBY', key, 'failures', '1')
  redis.call('HDEL', key, 'claim')
  redis.call('ZADD', due, secs(retry_at), event)
  return 'kept'
end
redis.call('ZREM', due, event)
redis.call('DEL', key)
return is_own and 'removed' or 'lapsed'
