#!lua flags=allow-oom
-- claim_webhooks: claims events of the outbox that are due, so that one frontend at a time delivers each of them.
-- KEYS[1] shard prefix
-- ARGV    shift, token (identifies this claim), limit (most events that are claimed), claim_secs (time after which an
--         event that was not settled is due again), under_way (JSON object of the caller's deliveries: origin → number),
--         origin_limit (most deliveries to one origin), defer_secs (see below)
-- Returns {more, lost, events}: more is 1 when further events are due, lost is the number of events whose content has
--         expired, and each event is the flat list of its fields.
-- An origin is the `scheme://host:port` of a URL. Events for one that has its most deliveries are passed over. When all
-- that were examined are such events, they are due again after defer_secs, so that those behind them get their turn.

local P = KEYS[1]
local shift, token, limit, claim_secs, under_way, origin_limit, defer_secs = unpack(ARGV)
--- @include commands now numbers
--- @permit

local EXAMINED = 100
local due = P .. 'webhooks'
under_way, limit, origin_limit = cjson.decode(under_way), tonumber(limit), tonumber(origin_limit)
local events, passed_over, lost = {}, {}, 0

local members = redis.call('ZRANGEBYSCORE', due, '-inf', secs(now), 'LIMIT', 0, EXAMINED)
for _, event in ipairs(members) do
  if #events == limit then break end
  local key = P .. 'webhook:' .. event
  local url = unless_error('WRONGTYPE', 'HGET', key, 'url')
  if not url then  -- it has expired, or is a Redis key of another type
    redis.call('ZREM', due, event)
    lost = lost + 1
  else
    local origin = string.match(url, '^%a+://[^/?]+') or url
    local number = under_way[origin] or 0
    if number >= origin_limit then
      passed_over[#passed_over + 1] = event
    else
      local fields = redis.call('HGETALL', key)
      under_way[origin] = number + 1
      redis.call('HSET', key, 'claim', token)
      redis.call('ZADD', due, secs(now + tonumber(claim_secs)), event)
      fields[#fields + 1], fields[#fields + 2] = 'id', event
      events[#events + 1] = fields
    end
  end
end
if #passed_over == EXAMINED then
  for _, event in ipairs(passed_over) do redis.call('ZADD', due, secs(now + tonumber(defer_secs)), event) end
end
local more = #members == EXAMINED or #members > #events + lost
return {more and 1 or 0, lost, events}
