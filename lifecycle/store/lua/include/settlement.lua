-- What the ends of requests have in common, which is written once for all that a script has ended.
--- @include numbers stream events requests counts cost cancellation

-- The requests that this script has ended, for settle_ends(): {rid, record, was (its status before), …}.
local ends = {}

local function write_indexes(ended)
  local expiries, totals, keys = {}, {}, {}
  for i, one in ipairs(ended) do
    local rid, record = one.rid, one.record
    local owner = record.owner or ''
    expiries[2 * i - 1], expiries[2 * i] = one.expires_at, owner == '' and rid or rid .. '|' .. owner
    keys[#keys + 1], keys[#keys + 2] = P .. 'readers:' .. rid, one.body
    local label = record.status == 'completed' and 'success' or 'error'
    label = string.sub(one.labels, 1, -2) .. ',"' .. label .. '","' .. record.error_type .. '"]'
    totals[label] = (totals[label] or 0) + 1
  end
  redis.call('ZREM', P .. 'active', unpack(rids_of(ended)))
  redis.call('ZADD', P .. 'expiries', unpack(expiries))
  for label, number in pairs(totals) do redis.call('HINCRBY', P .. 'totals', label, whole(number)) end
  redis.call('DEL', unpack(keys))
end

-- Notifies the readers and the subscribers of requests that have ended. An error may have stopped some ends half-way.
local function tell_ends(ended)
  local frames = {}
  for _, one in ipairs(ended) do
    if one.event and one.before and #one.before[2] > APART_BYTES then
      push(one.frontends, one.rid, END_ID, one.event, one.before)
    elseif one.event then
      for _, frontend in ipairs(one.frontends) do
        frames[frontend] = frames[frontend] or {}
        add_items(frames[frontend], one.rid, END_ID, one.event, one.before)
      end
    end
  end
  for frontend, parts in pairs(frames) do send(frontend, frame_of(parts)) end
  for _, one in ipairs(ended) do
    publish_text('request:' .. one.rid,
      '{"type":"terminal","status":"' .. one.record.status .. '","error_type":"' .. one.record.error_type .. '"}')
    if one.kill_reason then publish_cancellation(one.record.worker, one.rid, 'kill', one.kill_reason) end
  end
end

-- Writes what the ends of requests have in common, once for all: their counts, totals, costs and places in the indexes.
-- Then it tells them.
local function settle_ends()
  if #ends == 0 then return end
  local ended, by_frontend, by_worker = ends, {}, {}
  ends = {}
  for _, one in ipairs(ended) do
    append_to(by_frontend, one.record.frontend, one)
    if one.worker then append_to(by_worker, one.worker, one) end
  end
  write_costs()
  for frontend, some in pairs(by_frontend) do run_for(some, count_out, frontend, some) end
  for worker, some in pairs(by_worker) do
    run_for(some, redis.call, 'HDEL', P .. 'running:' .. worker, unpack(rids_of(some)))
  end
  run_for(ended, write_indexes, ended)
  run_for(ended, tell_ends, ended)  -- Redis may refuse to publish, so nothing is written after it
end
