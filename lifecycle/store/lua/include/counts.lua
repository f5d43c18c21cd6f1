-- The inflight counts of a frontend. `counts:<frontend>` changes only here and only together with the membership in
-- `inflight:<frontend>` (rid → labels), so a repetition does not count twice. `group_counts` is the sum over all frontends,
-- which changes with it.

local function labels_of(record)
  return cjson.encode({record.model, record.endpoint, record.request_type})
end

local function add_count(frontend, state, labels, by)
  local key, name = P .. 'counts:' .. frontend, state .. labels
  if redis.call('HINCRBY', key, name, by) == 0 then redis.call('HDEL', key, name) end
  redis.call('HINCRBY', P .. 'group_counts', name, by)
end

-- Takes what is left of a frontend's counts out of the sum.
local function forget_counts(frontend)
  local flat = redis.call('HGETALL', P .. 'counts:' .. frontend)
  for i = 1, #flat, 2 do redis.call('HINCRBY', P .. 'group_counts', flat[i], -tonumber(flat[i + 1])) end
  redis.call('DEL', P .. 'counts:' .. frontend)
end

local function count_in(frontend, rid, labels, state)
  if redis.call('HSETNX', P .. 'inflight:' .. frontend, rid, labels) == 1 then
    add_count(frontend, state, labels, '1')
  end
end

local function count_out(frontend, rid, labels, state)
  if redis.call('HDEL', P .. 'inflight:' .. frontend, rid) == 1 then
    add_count(frontend, state, labels, '-1')
  end
end

local function count_moves(frontend, rid, from, to)
  local labels = redis.call('HGET', P .. 'inflight:' .. frontend, rid)
  if labels then
    add_count(frontend, from, labels, '-1')
    add_count(frontend, to, labels, '1')
  end
end
