-- The inflight counts of a frontend. `counts:<frontend>` changes only here and only together with the membership in
-- `inflight:<frontend>` (rid → labels), so a repetition does not count twice. `group_counts` is the sum over all frontends,
-- which changes with it.
-- Each has one number for its labels, queued + 2^26 * running. So a request that moves from one status to the other costs one
-- command in each, and sums and differences of these numbers are those of the counts.
--- @include numbers requests

local WEIGHTS = {queued = 1, running = 67108864}

-- Returns how many requests such a number stands for.
local function inflight_in(number)
  local queued = number % WEIGHTS.running
  return queued + (number - queued) / WEIGHTS.running
end

local function labels_of(record)
  return cjson.encode({record.model, record.endpoint, record.request_type})
end

-- Adds to the counts of a frontend what there is for each labels.
local function add_counts(frontend, amounts)
  local key = P .. 'counts:' .. frontend
  for labels, by in pairs(amounts) do
    local amount = whole(by)
    if redis.call('HINCRBY', key, labels, amount) == 0 then redis.call('HDEL', key, labels) end
    redis.call('HINCRBY', P .. 'group_counts', labels, amount)
  end
end

-- Takes what is left of a frontend's counts out of the sum.
local function forget_counts(frontend)
  local flat = redis.call('HGETALL', P .. 'counts:' .. frontend)
  for i = 1, #flat, 2 do
    redis.call('HINCRBY', P .. 'group_counts', flat[i], string.format('%.0f', -tonumber(flat[i + 1])))
  end
  redis.call('DEL', P .. 'counts:' .. frontend)
end

-- Counts requests of a frontend in, with this status. `begun` has for each its `rid` and `labels`.
local function count_in(frontend, begun, status)
  local amounts = {}
  for _, one in ipairs(begun) do
    if redis.call('HSETNX', P .. 'inflight:' .. frontend, one.rid, one.labels) == 1 then
      amounts[one.labels] = (amounts[one.labels] or 0) + WEIGHTS[status]
    end
  end
  add_counts(frontend, amounts)
end

-- Counts requests of a frontend out. `ended` has for each its `rid` and `labels`, and as `was` its status until now.
local function count_out(frontend, ended)
  local amounts = {}
  for _, one in ipairs(ended) do
    if redis.call('HDEL', P .. 'inflight:' .. frontend, one.rid) == 1 then
      amounts[one.labels] = (amounts[one.labels] or 0) - WEIGHTS[one.was]
    end
  end
  add_counts(frontend, amounts)
end

local function count_moves(frontend, rids, from, to)
  local amounts, by = {}, WEIGHTS[to] - WEIGHTS[from]
  for _, labels in ipairs(redis.call('HMGET', P .. 'inflight:' .. frontend, unpack(rids))) do
    if labels then amounts[labels] = (amounts[labels] or 0) + by end
  end
  add_counts(frontend, amounts)
end
