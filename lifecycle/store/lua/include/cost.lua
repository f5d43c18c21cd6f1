-- What a started request costs its owner: at its start an estimate, in tokens, which the end corrects.
--- @include numbers queue requests

local LEVELS_CORRECTED = '15'  -- further levels are corrected when they are served

local function weight_of(record) return record.weight and math.max(tonumber(record.weight) or 1, 0.001) or 1 end

-- Returns by how much a started request's cost in tokens changes its owner's virtual time, in place of the estimate.
local function correction_of(record, tokens)
  return (tokens - tonumber(record.cost)) / weight_of(record)
end

-- Corrects the virtual time of an owner by what his requests have cost in fact. Returns it if it has become later while
-- nothing waits for the model. What is given back when it `yields` lets no flow pass the one that is next: the owner's
-- virtual time is then before its place, and its next starts use up the difference.
local function correct_cost(model, owner, by, yields)
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
    -- A flow that has begun to wait with an equal claim is a little behind; further behind is one that yielded before.
    if place and place < before + EQUAL + BEHIND and place > tonumber(after) then
      local first = yields and redis.call('ZRANGE', level, '0', '1', 'WITHSCORES') or {}
      local other = first[1] == owner and first[4] or first[1] ~= owner and first[2]
      local moved = other and math.max(tonumber(after), behind(tonumber(other))) or tonumber(after)
      if moved < place then redis.call('ZADD', level, secs(moved), owner) end
    end
  end
end

local function moved_mean(known, value)
  return known and known + (value - known) / 16 or value
end

-- What requests that end have cost, by model: the requests, the corrections by owner, and what moves the means.
local costs = {}

-- Notes what a request that ends has cost, with `output_tokens` of its answer; write_costs() writes it. How many tokens
-- requests have is known only of those that are `complete`. Requests that have no answer, such as embeddings, are left
-- out there.
local function note_cost(one, output_tokens, is_complete)
  local record = one.record
  if not record.cost then return end
  local prompt_tokens = tonumber(record.input_tokens or '') or tonumber(record.prompt_tokens or '') or 0
  local owner, by = record.owner or '', correction_of(record, prompt_tokens + output_tokens)
  local finished_at = tonumber(record.finished_at)
  local noted = costs[record.model] or {ends = {}, by_owner = {}, ran_secs = {}, tokens = {}}
  costs[record.model], record.cost = noted, nil
  noted.by_owner[owner] = (noted.by_owner[owner] or 0) + by
  table.insert(noted.ends, one)
  table.insert(noted.ran_secs, finished_at - (tonumber(record.started_at or '') or finished_at))
  if is_complete and output_tokens > 0 and record.max_tokens ~= '0' then table.insert(noted.tokens, output_tokens) end
end

-- Corrects the virtual times of a model's owners, each by the sum of what was noted for it, and the model's means: for how
-- long its requests run, and how many tokens they have. What is used while nothing waits is owed to nobody: the virtual
-- time of the model follows it.
local function write_cost(model, noted)
  local queue, reached = P .. 'queue:' .. model, 0
  for owner, by in pairs(noted.by_owner) do reached = math.max(reached, correct_cost(model, owner, by, true) or 0) end
  local known = redis.call('HMGET', queue, 'mean_secs', 'mean_tokens', 'virtual_time')
  local mean_secs, mean_tokens = tonumber(known[1] or ''), tonumber(known[2] or '')
  for _, value in ipairs(noted.ran_secs) do mean_secs = moved_mean(mean_secs, value) end
  for _, value in ipairs(noted.tokens) do mean_tokens = moved_mean(mean_tokens, value) end
  local fields = {'mean_secs', secs(mean_secs)}
  if noted.tokens[1] then fields[3], fields[4] = 'mean_tokens', secs(mean_tokens) end
  if reached > tonumber(known[3] or '0') then fields[#fields + 1], fields[#fields + 2] = 'virtual_time', secs(reached) end
  redis.call('HSET', queue, unpack(fields))
  if not known[1] then redis.call('PEXPIRE', queue, DAY_MS) end
end

local function write_costs()
  for model, noted in pairs(costs) do run_for(noted.ends, write_cost, model, noted) end
  costs = {}
end
