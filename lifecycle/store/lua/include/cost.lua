-- What a started request costs its owner: at its start an estimate, in tokens, which the end corrects.

local LEVELS_CORRECTED = '15'  -- further levels are corrected when they are served

local function weight_of(record) return math.max(tonumber(record.weight or '1') or 1, 0.001) end

-- Charges the owner of a request that was started what it has cost in fact, in place of the estimate.
local function correct_cost(record, tokens)
  local model, owner = record.model, record.owner or ''
  local by = (tokens - tonumber(record.cost)) / weight_of(record)
  local times = P .. 'virtual_times:' .. model
  local known = redis.call('ZSCORE', times, owner)
  if by == 0 or (by < 0 and not known) then return end
  local before = tonumber(known or redis.call('HGET', P .. 'queue:' .. model, 'virtual_time') or '0')
  local after = secs(math.max(0, before + by))
  redis.call('ZADD', times, after, owner)
  if by > 0 then return end  -- a flow that waits gets a later place when it is served
  for _, priority in ipairs(redis.call('ZRANGE', P .. 'levels:' .. model, '0', LEVELS_CORRECTED)) do
    local score = redis.call('ZSCORE', level_key(model, priority), owner)
    if score and tonumber(score) == before then redis.call('ZADD', level_key(model, priority), after, owner) end
  end
end

-- Corrects the cost of a request that ends, with `output_tokens` of its answer, and the model's mean if it is `complete`.
local function settle_cost(record, output_tokens, is_complete)
  if not record.cost then return end
  correct_cost(record, (tonumber(record.input_tokens or record.prompt_tokens or '0') or 0) + output_tokens)
  record.cost = nil
  if not is_complete then return end
  local queue = P .. 'queue:' .. record.model
  local mean = tonumber(redis.call('HGET', queue, 'mean_tokens') or '')
  redis.call('HSET', queue, 'mean_tokens', string.format('%.3f', mean and mean + (output_tokens - mean) / 16 or output_tokens))
  if not mean then redis.call('PEXPIRE', queue, DAY_MS) end
end
