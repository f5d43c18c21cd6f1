#!lua flags=no-writes,allow-oom
-- waits: reads what waits for a model in one shard, as far as it decides when its requests start.
-- KEYS[1] shard prefix
-- ARGV    shift, model, rid (a request whose place is asked for, '' for none), flows_limit (how many flows are read),
--         requests_limit (of how many requests the cost is read)
-- Returns {now, mean_tokens, mean_secs ('' each while nothing has ended), starts, flows, left_out, place}. starts are the
--         values of the counters of started requests. flows are {priority, owner, virtual_time, size, since when the first waits,
--         weight, prompt_tokens, max_tokens…}…, in the order in which they are served; the last two are those of its first
--         requests. left_out is how many flows were not read. place is {priority, owner, rank} of the request when it is
--         queued; levels behind its own are not read then.

local P = KEYS[1]
local shift, model, rid, flows_limit, requests_limit = unpack(ARGV)
--- @include commands clock stream record events counts queue

flows_limit, requests_limit = tonumber(flows_limit), tonumber(requests_limit)
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

-- The levels up to that of the request that is asked for, with as many of their flows as are read.
local levels, number, left_out = {}, 0, 0
for _, priority in ipairs(read_typed('ZRANGE', P .. 'levels:' .. model, '0', '-1')) do
  local room = flows_limit - number
  local level = room > 0 and read_typed('ZRANGE', level_key(model, priority), '0', room - 1, 'WITHSCORES') or {}
  levels[#levels + 1], number = {priority, level}, number + #level / 2
  left_out = left_out + (unless_error('WRONGTYPE', 'ZCARD', level_key(model, priority)) or 0) - #level / 2
  if asked[1] == priority then break end
end

local flows, each = {}, math.floor(requests_limit / math.max(1, number))
for _, pair in ipairs(levels) do
  local priority, level = unpack(pair)
  for i = 1, #level, 2 do
    local owner, reached = level[i], level[i + 1]
    local key, wanted = flow_key(model, priority, owner), each
    local known = redis.call('ZSCORE', P .. 'virtual_times:' .. model, owner)
    if known and tonumber(known) > tonumber(reached) then reached = known end
    if asked[1] == priority and asked[2] == owner then  -- of its own flow those before it count
      wanted = math.max(1, math.min(math.max(each, requests_limit / 2), asked[3]))
    end
    local rids = read_typed('ZRANGE', key, '0', string.format('%d', math.max(0, wanted - 1)), 'WITHSCORES')
    if #rids > 0 then
      local flow = {priority, owner, reached, redis.call('ZCARD', key), rids[2], '1'}
      for j = 1, #rids, 2 do
        local about = read_typed('HMGET', P .. 'request:' .. rids[j], 'prompt_tokens', 'max_tokens', 'weight', 'queued_at')
        if j == 1 then flow[5], flow[6] = about[4] or flow[5], about[3] or '1' end
        flow[#flow + 1], flow[#flow + 2] = about[1] or '0', about[2] or ''
      end
      flows[#flows + 1] = flow
    end
  end
end
return {secs(clock(shift)), queue[1] or '', queue[2] or '', starts, flows, left_out, asked}
