-- The scheduler of a model, as one take changes it in memory and writes it once at its end: how far its virtual time and
-- those of its levels and owners have come, and how many requests have started of late.
--- @include now numbers queue cost

local FORGET_EVERY = 16  -- starts
local REMEMBERED = '64'  -- virtual times of owners, above which idle ones are forgotten
local FIRST_MEAN_TOKENS = 256  -- of an answer, until the first one of the model has ended
local SECS_PER_BUCKET, BUCKETS = 10, 7  -- of the starts of the last minute

-- Reads a model's scheduler, as far as a start in this level changes it.
local function read_scheduler(queue, priority)
  local bucket = math.floor(now / SECS_PER_BUCKET)
  local field = 'starts:' .. bucket % BUCKETS
  local known = redis.call('HMGET', P .. 'queue:' .. queue.model, 'served:' .. priority, 'virtual_time', 'mean_tokens', field)
  queue.served[priority] = tonumber(known[1] or '0')
  if queue.virtual_time then return end
  local since, starts = string.match(known[4] or '', '^(%d+) (%d+)$')
  queue.is_new_bucket = tonumber(since or '') ~= bucket
  queue.starts = queue.is_new_bucket and 0 or tonumber(starts)
  queue.virtual_time, queue.mean_tokens, queue.bucket, queue.field = tonumber(known[2] or '0'), known[3], bucket, field
end

-- Advances the virtual time of a flow's owner by the estimated cost of a request, which is returned. What was given back to
-- the owner and let it pass nobody is used up first: see correct_cost.
local function charge(queue, priority, flow, request)
  if not queue.served[priority] then read_scheduler(queue, priority) end
  local answer = tonumber(request.max_tokens or '') or tonumber(queue.mean_tokens or '') or FIRST_MEAN_TOKENS
  local cost = math.max(1, (tonumber(request.prompt_tokens or '0') or 0) + answer)
  local reached = flow.reached
  local before = math.min(queue.times[flow.owner] or flow.known or reached, reached)
  local after = tonumber(secs(before + cost / weight_of(request)))
  queue.times[flow.owner], queue.latest = after, math.max(queue.latest, after)
  queue.virtual_time = math.max(queue.virtual_time, reached)
  queue.served[priority] = math.max(queue.served[priority], reached)
  queue.starts, queue.taken = queue.starts + 1, queue.taken + 1
  return string.format('%.0f', cost)
end

-- Forgets the virtual times of some owners that have nothing queued and are not ahead of the model's; twice as many are
-- looked at as were added, so that the owners who are remembered are bounded by those who are ahead.
local function forget_idle(queue, times)
  if not redis.call('ZRANGE', times, REMEMBERED, REMEMBERED)[1] then return end
  local flat = redis.call('ZRANDMEMBER', times, 2 * FORGET_EVERY, 'WITHSCORES')
  for i = 1, #flat, 2 do
    if tonumber(flat[i + 1]) <= queue.virtual_time and not redis.call('HGET', P .. 'queued:' .. queue.model, flat[i]) then
      redis.call('ZREM', times, flat[i])
    end
  end
end

-- Writes a model's scheduler if something was started. `has_slots` says that the worker could start more.
local function write_scheduler(queue, has_slots)
  if queue.taken == 0 then return end
  local key, times = P .. 'queue:' .. queue.model, P .. 'virtual_times:' .. queue.model
  -- Who comes after everybody was served begins where the last one has ended; with a slot left, where the latest of all has.
  if queue.is_emptied and redis.call('EXISTS', P .. 'levels:' .. queue.model) == 0 then
    local latest = has_slots and tonumber(redis.call('ZRANGE', times, '-1', '-1', 'WITHSCORES')[2] or '')
    queue.virtual_time = math.max(queue.virtual_time, latest or queue.latest)
  end
  local fields = {'virtual_time', secs(queue.virtual_time), queue.field, queue.bucket .. ' ' .. queue.starts}
  for priority, at in pairs(queue.served) do
    fields[#fields + 1], fields[#fields + 2] = 'served:' .. priority, secs(at)
  end
  redis.call('HSET', key, unpack(fields))
  if queue.is_new_bucket then
    redis.call('PEXPIRE', key, DAY_MS)
    redis.call('PEXPIRE', times, DAY_MS)
  end
  if queue.starts % FORGET_EVERY < queue.taken then forget_idle(queue, times) end
end
