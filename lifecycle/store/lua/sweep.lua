#!lua flags=allow-oom
-- sweep: ends what is due by Redis's clock in one shard: requests past a limit, expired listings, queues of models that
--         no worker serves, kept content above its owner's limit. And it corrects the counts of short queues.
-- KEYS[1] shard prefix
-- ARGV    shift, outages (JSON list of {model, message, error_detail}: models whose workers are all unhealthy, and the
--         error for their queued requests; error_detail is JSON, '' for none), first_model (index of the first of the
--         shard's known models that this call examines), models_limit (how many it examines), keeps_unserved ('1' when
--         requests stay queued for a model that no worker serves), lease_secs, retention_secs, limit (most requests that
--         one call ends), forget_limit (most expired records that leave the listings)
-- Returns {ended, more, next_model}: more is 1 when a limit was reached and the script should be called again in the same
--         way, and next_model is the index from which the next call continues, 0 when all models were examined.

local P = KEYS[1]
local shift, outages, first_model, models_limit, keeps_unserved, lease_secs, retention_secs, limit,
  forget_limit = unpack(ARGV)
local retention = tonumber(retention_secs)
--- @include commands now numbers limit_time membership record readers queue content outcomes terminal cancelling
--- @permit

local ended, more = 0, 0
local left = tonumber(limit)  -- what this call may still end

local expired = redis.call('ZRANGEBYSCORE', P .. 'expiries', '-inf', secs(now), 'LIMIT', 0, forget_limit)
if #expired > 0 then
  local rids = {}
  for i, member in ipairs(expired) do
    local rid, owner = string.match(member, '^([^|]+)|?(.*)$')
    rids[i] = rid
    if owner ~= '' then redis.call('ZREM', P .. 'owned:' .. owner, rid) end
  end
  redis.call('ZREM', P .. 'created', unpack(rids))
  redis.call('ZREM', P .. 'expiries', unpack(expired))
end
if #expired == tonumber(forget_limit) then
  more = 1
  left = math.ceil(left / 2)
end

for _, owner in ipairs(redis.call('HRANDFIELD', P .. 'overfull', limit) or {}) do
  if not make_room(owner, tonumber(redis.call('HGET', P .. 'overfull', owner))) then
    more = 1
    break
  end
  redis.call('HDEL', P .. 'overfull', owner)
end

-- Counts short queues anew: what was removed by hand or evicted is still counted. If that keeps requests out, the queues
-- become short.
local RECOUNTED_MODELS, RECOUNTED_REQUESTS = '8', 16

-- Returns up to `most` of the requests that wait for a model, as {rid, priority, owner}…, whatever Redis has lost of them.
local function queued_of(model, most)
  local found = {}
  for _, priority in ipairs(redis.call('ZRANGE', P .. 'levels:' .. model, '0', most)) do
    local level = level_key(model, priority)
    for _, owner in ipairs(read_typed('ZRANGE', level, '0', most)) do
      local rids = read_typed('ZRANGE', flow_key(model, priority, owner), '0', most)
      if #rids == 0 then redis.call('ZREM', level, owner) end
      for _, rid in ipairs(rids) do
        if #found == most then return found end
        found[#found + 1] = {rid, priority, owner}
      end
    end
    forget_empty_level(model, priority)
  end
  return found
end

local function recount(model)
  local queued, bytes, counts = queued_of(model, RECOUNTED_REQUESTS + 1), 0, {}
  if #queued > RECOUNTED_REQUESTS then return end
  for _, entry in ipairs(queued) do
    bytes = bytes + body_bytes(entry[1])
    counts[entry[3]] = (counts[entry[3]] or 0) + 1
  end
  local has_shares = redis.call('EXISTS', P .. 'shares:' .. model) == 1
  redis.call('HDEL', P .. 'queued_bytes', model)
  redis.call('DEL', P .. 'queued:' .. model, P .. 'shares:' .. model)
  if bytes > 0 then redis.call('HSET', P .. 'queued_bytes', model, string.format('%d', bytes)) end
  for owner, count in pairs(counts) do redis.call('HSET', P .. 'queued:' .. model, owner, string.format('%d', count)) end
  for _, entry in ipairs(has_shares and queued or {}) do
    local share = read_typed('HMGET', P .. 'request:' .. entry[1], 'share')[1]
    if share then count_share(model, entry[3], share, '') end
  end
end

for _, model in ipairs(redis.call('HRANDFIELD', P .. 'queued_bytes', RECOUNTED_MODELS) or {}) do recount(model) end

local function ends(record, outcome)
  terminate_and_kill(record, outcome)
  ended = ended + 1
end

local function due(kind, rid)
  local record = load_record(rid)
  if not record or is_terminal(record) then return end
  if is_being_killed(record) then return end  -- the worker confirms it
  if kind == 'grace' then
    if record.on_disconnect ~= 'continue' and live_readers(rid) == 0 then
      local state = cancel_request(record, 'kill', 'The client disconnected', 'disconnect',
        record.frontend)
      if state == 'terminal' then ended = ended + 1 end
    end
    return
  end
  if kind == 'queue' and record.status ~= 'queued' then return end
  if kind == 'first_token' and record.first_token_at then return end
  ends(record, limit_outcome(kind, record))
end

local overdue = redis.call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', secs(limit_time()), 'LIMIT', 0, left)
for _, member in ipairs(overdue) do
  redis.call('ZREM', P .. 'deadlines', member)
  due(string.match(member, '^([^|]+)|(.+)$'))
end
if #overdue == left then more = 1 end
left = left - #overdue

local first, count, lease = tonumber(first_model), tonumber(models_limit), tonumber(lease_secs)
local flat = redis.call('ZRANGE', P .. 'models', first, first + count - 1, 'WITHSCORES')
local _, grace = lease_bound(lease)
local models, unserved = {}, cjson.decode(outages)
for i = 1, #flat, 2 do
  models[#models + 1] = flat[i]
  -- What was left without its record took no share with it, and recount() does not see a queue that is empty.
  if redis.call('EXISTS', P .. 'shares:' .. flat[i]) == 1 and redis.call('EXISTS', P .. 'levels:' .. flat[i]) == 0 then
    redis.call('DEL', P .. 'shares:' .. flat[i])
  end
  if keeps_unserved ~= '1' and not grace and tonumber(flat[i + 1]) < now - lease then
    unserved[#unserved + 1] = {flat[i], 'No worker serves the model', ''}
  end
end

for _, unserved_model in ipairs(unserved) do
  local model, message, error_detail = unpack(unserved_model)
  local queued = left > 0 and queued_of(model, left) or {}
  for _, entry in ipairs(queued) do
    local rid, priority, owner = unpack(entry)
    local record = load_record(rid)
    if record and record.status == 'queued' then
      if error_detail ~= '' then record.error_detail = error_detail end
      ends(record, outcome_of('failed', 'unavailable', message))
    else
      dequeue(model, priority, owner, rid)
    end
  end
  if #queued == left then more = 1 end
  left = left - #queued
end
return {ended, more, #models == count and first + count or 0}
