-- What a started request costs its owner: at its start an estimate, in tokens, which the end corrects.

local LEVELS_CORRECTED = '15'  -- further levels are corrected when they are served

local function weight_of(record) return record.weight and math.max(tonumber(record.weight) or 1, 0.001) or 1 end

-- Charges the owner of a request that was started what it has cost in fact, in place of the estimate. Returns the owner's
-- virtual time if that has become later while nothing waits for the model. What is given back when it `yields` lets no flow
-- pass the one that is next: the owner's virtual time is then before its place, and its next starts use up the difference.
local function correct_cost(record, tokens, yields)
  local model, owner = record.model, record.owner or ''
  local by = (tokens - tonumber(record.cost)) / weight_of(record)
  if by == 0 then return end
  local times = P .. 'virtual_times:' .. model
  local known = redis.call('ZSCORE', times, owner)
  if by < 0 and not known then return end
  local before = tonumber(known or redis.call('HMGET', P .. 'queue:' .. model, 'virtual_time')[1] or '0')
  local after = secs(math.max(0, before + by))
  redis.call('ZADD', times, after, owner)
  if not known then redis.call('PEXPIRE', times, DAY_MS) end  -- it may be the only one
  local levels = redis.call('ZRANGE', P .. 'levels:' .. model, '0', LEVELS_CORRECTED)
  if by > 0 then  -- a flow that waits gets a later place when it is served
    if not levels[1] then return tonumber(after) end
    return
  end
  for _, priority in ipairs(levels) do
    local level = level_key(model, priority)
    local place = tonumber(redis.call('ZSCORE', level, owner) or '')
    if place and place <= before and place > tonumber(after) then  -- it may be behind an earlier correction
      local first = yields and redis.call('ZRANGE', level, '0', '1', 'WITHSCORES') or {}
      local other = first[1] == owner and first[4] or first[1] ~= owner and first[2]
      local moved = other and math.max(tonumber(after), tonumber(other) + 0.000001) or tonumber(after)
      if moved < place then redis.call('ZADD', level, secs(moved), owner) end
    end
  end
end

local function moved_mean(known, value)
  known = tonumber(known or '')
  return secs(known and known + (value - known) / 16 or value)
end

-- Corrects the cost of a request that ends, with `output_tokens` of its answer, and the model's means: for how long its
-- requests run, and if it is `complete`, how many tokens they have. Requests that have no answer, such as embeddings, are
-- left out of the latter. What is used while nothing waits is owed to nobody: the virtual time of the model follows it.
local function settle_cost(record, output_tokens, is_complete)
  if not record.cost then return end
  local prompt_tokens = tonumber(record.input_tokens or '') or tonumber(record.prompt_tokens or '') or 0
  local reached = correct_cost(record, prompt_tokens + output_tokens, true)
  record.cost = nil
  local queue = P .. 'queue:' .. record.model
  local known = redis.call('HMGET', queue, 'mean_secs', 'mean_tokens', 'virtual_time')
  local ran = tonumber(record.finished_at) - (tonumber(record.started_at or '') or tonumber(record.finished_at))
  local fields = {'mean_secs', moved_mean(known[1], ran)}
  if is_complete and output_tokens > 0 and record.max_tokens ~= '0' then
    local mean = moved_mean(known[2], output_tokens)
    if mean ~= known[2] then fields[3], fields[4] = 'mean_tokens', mean end
  end
  if reached and reached > tonumber(known[3] or '0') then
    fields[#fields + 1], fields[#fields + 2] = 'virtual_time', secs(reached)
  end
  redis.call('HSET', queue, unpack(fields))
  if not known[1] then redis.call('PEXPIRE', queue, DAY_MS) end
end
