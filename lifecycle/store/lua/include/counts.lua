-- The inflight counts of the frontends. `counts` has a number for each frontend and labels. It changes only here and only
-- together with the membership in `inflight:<frontend>` (rid → labels), so a repetition does not count twice. `group_counts`
-- is the sum over all frontends, which changes with it.
-- Each has one number for its labels, queued + 2^26 * running. So a request that moves from one status to the other costs one
-- command in each, and sums and differences of these numbers are those of the counts.

local WEIGHTS = {queued = 1, running = 67108864}

local function labels_of(record)
  return cjson.encode({record.model, record.endpoint, record.request_type})
end

local function add_count(frontend, labels, by)
  local field, amount = frontend .. ' ' .. labels, string.format('%d', by)
  if redis.call('HINCRBY', P .. 'counts', field, amount) == 0 then redis.call('HDEL', P .. 'counts', field) end
  redis.call('HINCRBY', P .. 'group_counts', labels, amount)
end

-- Returns the labels of which a frontend holds requests, of all that the shard knows, and the numbers.
local function counts_of(frontend, groups)
  local AT_ONCE = 1000
  local names, numbers = {}, {}
  for first = 1, #groups, AT_ONCE do
    local fields, last = {}, math.min(first + AT_ONCE - 1, #groups)
    for i = first, last do fields[#fields + 1] = frontend .. ' ' .. groups[i] end
    for i, number in ipairs(redis.call('HMGET', P .. 'counts', unpack(fields))) do
      if number then names[#names + 1], numbers[#numbers + 1] = groups[first + i - 1], tonumber(number) end
    end
  end
  return names, numbers
end

-- Takes what is left of a frontend's counts out of the sum.
local function forget_counts(frontend)
  local names, numbers = counts_of(frontend, redis.call('HKEYS', P .. 'group_counts'))
  for i, labels in ipairs(names) do add_count(frontend, labels, -numbers[i]) end
end

local function count_in(frontend, rid, labels, status)
  if redis.call('HSETNX', P .. 'inflight:' .. frontend, rid, labels) == 1 then
    add_count(frontend, labels, WEIGHTS[status])
  end
end

local function count_out(frontend, rid, labels, status)
  if redis.call('HDEL', P .. 'inflight:' .. frontend, rid) == 1 then
    add_count(frontend, labels, -WEIGHTS[status])
  end
end

local function count_moves(frontend, rids, from, to)
  local moved = {}
  for _, labels in ipairs(redis.call('HMGET', P .. 'inflight:' .. frontend, unpack(rids))) do
    if labels then moved[labels] = (moved[labels] or 0) + 1 end
  end
  for labels, number in pairs(moved) do add_count(frontend, labels, number * (WEIGHTS[to] - WEIGHTS[from])) end
end
