#!lua flags=no-writes,allow-oom
-- waits: reads what waits for a model in one shard, as far as it decides when its requests start.
-- KEYS[1] shard prefix
-- ARGV    shift, model, rid (a request whose place is asked for, '' for none), flows_limit (how many flows are read),
--         requests_limit (of how many requests the cost is read)
-- Returns {now, mean_tokens, mean_secs ('' each while nothing has ended), starts, flows, left_out, place}. starts are the
--         values of the counters of started requests. flows are {priority, owner, virtual_time, size, place of the first,
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

local flows, left_out = {}, 0
for _, priority in ipairs(read_typed('ZRANGE', P .. 'levels:' .. model, '0', '-1')) do
  local is_before = asked[1] and asked[1] ~= priority
  local room = flows_limit - #flows
  local level = room > 0 and read_typed('ZRANGE', level_key(model, priority), '0', room - 1, 'WITHSCORES') or {}
  left_out = left_out + redis.call('ZCARD', level_key(model, priority)) - #level / 2
  local requests = math.floor(requests_limit / math.max(1, #level / 2)) - 1
  for i = 1, #level, 2 do
    local owner, reached = level[i], level[i + 1]
    local key = flow_key(model, priority, owner)
    local known = redis.call('ZSCORE', P .. 'virtual_times:' .. model, owner)
    if known and tonumber(known) > tonumber(reached) then reached = known end
    local last = is_before and 0 or requests
    if asked[2] == owner and not is_before then last = math.min(math.max(last, requests_limit / 2), math.max(asked[3], 0)) end
    local rids = read_typed('ZRANGE', key, '0', string.format('%d', math.max(last, 0)), 'WITHSCORES')
    if #rids > 0 then
      local flow = {priority, owner, reached, redis.call('ZCARD', key), rids[2], '1'}
      for j = 1, #rids, 2 do
        local about = read_typed('HMGET', P .. 'request:' .. rids[j], 'prompt_tokens', 'max_tokens', 'weight')
        if j == 1 then flow[6] = about[3] or '1' end
        flow[#flow + 1], flow[#flow + 2] = about[1] or '0', about[2] or ''
      end
      flows[#flows + 1] = flow
    end
  end
  requests_limit = math.max(0, requests_limit - (requests + 1) * #level / 2)
  if asked[1] == priority then break end
end
return {secs(clock(shift)), queue[1] or '', queue[2] or '', starts, flows, left_out, asked}
