#!lua flags=no-writes,allow-oom
-- waits: reads what waits for a model in one shard, as far as it decides when its requests start.
-- KEYS[1] shard prefix
-- ARGV    shift, model, rid (a request whose place is asked for, '' for none), flows_limit (how many flows are read),
--         requests_limit (of how many requests the cost is read), skipped (how many flows are left out at the beginning)
-- Returns {now, mean_tokens, mean_secs ('' each while nothing has ended), starts, flows, left_out, place, before, read_until,
--         unread_before, rings_below}. starts are the values of the counters of started requests. flows are {priority, owner,
--         virtual_time, size, since when the longest waits, weight, credit (how far its owner's virtual time is before that),
--         prompt_tokens, max_tokens…}…, in the order in which they are served in each level; the last two are those of its
--         first requests. left_out is how many flows behind them were not read, counting one for each level that was not
--         looked at. place is {priority, owner, rank} of the request when it is queued. Levels behind its own are not read
--         then, left_out is of its own, and before is how many requests wait in flows of better priority that were not read.
--         read_until is the virtual time behind which flows were left out, '' where none was, and unread_before is how many of
--         these have a place before that of the request's own flow. A request of a priority below rings_below starts at once,
--         as a worker waits for it; '' when none waits.

local P = KEYS[1]
local shift, model, rid, flows_limit, requests_limit, skipped = unpack(ARGV)
--- @include commands now numbers record queue

local COUNTED = 300  -- flows that are counted and not read; of each further one it is taken that one request waits

flows_limit, requests_limit, skipped = tonumber(flows_limit), tonumber(requests_limit), tonumber(skipped)
local asked = {}
if rid ~= '' then
  local found = read_typed('HMGET', P .. 'request:' .. rid, 'status', 'model', 'priority', 'owner')
  local priority, owner = found[3] or '0', found[4] or ''
  local rank = found[1] == 'queued' and found[2] == model
    and unless_error('WRONGTYPE', 'ZRANK', flow_key(model, priority, owner), rid)
  if rank then asked = {priority, owner, rank} end
end

local queue = read_typed('HMGET', P .. 'queue:' .. model, 'mean_tokens', 'mean_secs', 'starts:0', 'starts:1', 'starts:2',
  'starts:3', 'starts:4', 'starts:5', 'starts:6')
local starts = {}
for i = 3, 9 do
  if queue[i] then starts[#starts + 1] = queue[i] end
end

-- The levels with as many of their flows as are read: first that of the request that is asked for, then those before it.
local levels, number, left_out, before, counted, read_until, unread_before = {}, 0, 0, 0, 0, '', 0

-- Reads what there is room for of a level. Returns how many flows are behind that, and the rank of the first of them.
local function read_level(priority)
  local key, room, first = level_key(model, priority), flows_limit - number, skipped
  local size = unless_error('WRONGTYPE', 'ZCARD', key) or 0
  skipped = math.max(0, first - size)
  if first >= size then return 0, size end
  local level = room > 0 and read_typed('ZRANGE', key, first, first + room - 1, 'WITHSCORES') or {}
  levels[#levels + 1], number = {priority, level}, number + #level / 2
  local left = size - first - #level / 2
  if left > 0 and (asked[1] or priority) == priority then read_until = level[#level] or read_until end
  return left, first + #level / 2
end

-- Returns how many requests wait in so many flows of a level, the first of which has this rank.
local function count_requests(priority, size, first)
  local some = math.min(size, COUNTED - counted)
  counted = counted + some
  local requests = size - some
  for _, owner in ipairs(some > 0 and read_typed('ZRANGE', level_key(model, priority), first, first + some - 1) or {}) do
    requests = requests + (unless_error('WRONGTYPE', 'ZCARD', flow_key(model, priority, owner)) or 0)
  end
  return requests
end

if asked[1] then
  left_out = read_level(asked[1])
  local level, is_read = levels[1] and levels[1][2] or {}, false
  for i = 1, #level, 2 do is_read = is_read or level[i] == asked[2] end
  local reached = not is_read and unless_error('WRONGTYPE', 'ZSCORE', level_key(model, asked[1]), asked[2])
  if reached then
    local rank = unless_error('WRONGTYPE', 'ZRANK', level_key(model, asked[1]), asked[2]) or 0
    unread_before = math.max(0, rank - #level / 2)
    level[#level + 1], level[#level + 2] = asked[2], reached
    number, left_out = number + 1, left_out - 1
  end
end
local all, looked_at = P .. 'levels:' .. model, 0
for _, priority in ipairs(read_typed('ZRANGE', all, '0', skipped + flows_limit + COUNTED)) do
  if asked[1] == priority or (not asked[1] and number >= flows_limit) then break end
  looked_at = looked_at + 1
  local size, first = read_level(priority)
  if asked[1] then
    before = before + count_requests(priority, size, first)
  else
    left_out = left_out + size
  end
end
if asked[1] then
  before = before + math.max(0, (unless_error('WRONGTYPE', 'ZRANK', all, asked[1]) or 0) - looked_at)
else
  left_out = left_out + (unless_error('WRONGTYPE', 'ZCARD', all) or 0) - looked_at
end

local flows, each = {}, math.floor(requests_limit / math.max(1, number))
for _, pair in ipairs(levels) do
  local priority, level = unpack(pair)
  for i = 1, #level, 2 do
    local owner, reached = level[i], level[i + 1]
    local key, wanted = flow_key(model, priority, owner), each
    local known, credit = tonumber(redis.call('ZSCORE', P .. 'virtual_times:' .. model, owner) or ''), '0'
    if known and known > tonumber(reached) then reached = secs(known) end
    if known and known < tonumber(reached) then credit = secs(tonumber(reached) - known) end
    if asked[1] == priority and asked[2] == owner then  -- of its own flow those before it count
      wanted = math.max(1, math.min(math.max(each, requests_limit / 2), asked[3]))
    end
    local rids = read_typed('ZRANGE', key, '0', string.format('%d', math.max(0, wanted - 1)), 'WITHSCORES')
    if #rids > 0 then
      local flow = {priority, owner, reached, redis.call('ZCARD', key), rids[2], '1', credit}
      for j = 1, #rids, 2 do
        local about = read_typed('HMGET', P .. 'request:' .. rids[j], 'prompt_tokens', 'max_tokens', 'weight', 'queued_at')
        if j == 1 then flow[5], flow[6] = about[4] or flow[5], about[3] or '1' end
        flow[#flow + 1], flow[#flow + 2] = about[1] or '0', about[2] or ''
      end
      if tonumber(rids[2]) < 0 then  -- the first was queued again, and others may have waited for longer
        local new = redis.call('ZRANGEBYSCORE', key, '0', '+inf', 'WITHSCORES', 'LIMIT', '0', '1')
        if new[2] and tonumber(new[2]) < tonumber(flow[5]) then flow[5] = new[2] end
      end
      flows[#flows + 1] = flow
    end
  end
end
local place = tonumber(read_typed('ZRANGE', P .. 'waiting:' .. model, '0', '0', 'WITHSCORES')[2] or '')
local rings_below = place and string.format('%.0f', PREEMPTIBLE - place) or ''
return {secs(now), queue[1] or '', queue[2] or '', starts, flows, left_out, asked, before, read_until, unread_before,
  rings_below}
