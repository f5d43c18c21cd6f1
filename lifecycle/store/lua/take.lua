#!lua flags=allow-oom
-- take: a worker takes the next requests of its models and begins an attempt on each. The first entry id of an attempt
--         refuses all earlier attempts.
-- KEYS[1] shard prefix
-- ARGV    shift, worker, number (of this call among those of the worker in this shard, increasing), nonce (of the starts,
--         8 characters), models (JSON list, in the order in which they are served in turn), slots (how many requests the
--         worker can start; with 0 it waits no more, and another worker is rung), bytes_limit (of the bodies that are
--         returned; one always may be), resumable ('1' when its engine can continue behind the tokens of another
--         attempt), retention_secs, accepts (the gated parameters that the engine accepts, separated by spaces, `*` for
--         all), endpoints (those that the worker offers, each between spaces; `~` before a name says that it translates),
--         gives_up (the priority of a running request that the worker moves away for one of better priority, which alone is
--         taken; with no slots the worker waits for one; '' for none)
-- Returns {'ok', runs, unsupported, waits} (the same runs again when repeated with the same number), {'stale'} for a call
--         that a later one has overtaken, or {'fenced'}. runs are {rid, model, attempt, base, body, request_type,
--         cancel_mode, cancel_reason, traceparent, created_at, needs, headers, endpoint, owner, length (how many entries the
--         token stream has), priority, preemptions}…; unsupported are {rid, model, endpoint, needs}…, which this engine does not serve
--         and which stay queued; waits is 1 when nothing is left for this worker, which is rung when something comes.
-- A request that is past a limit ends here. One that has tokens, beside openings, with an engine that would begin anew,
-- fails as `worker_lost`: the tokens of two answers must not be joined. Behind one that was started, the next call ends it.

local P = KEYS[1]
local shift, worker, number, nonce, models, slots, bytes_limit, resumable, retention_secs, accepts,
  endpoints, gives_up = unpack(ARGV)
--- @include commands clock limit_time stream record readers events counts queue cost

-- How much one call does, in about microseconds of Redis's time, what a request costs that is started or ended and one
-- that is only looked at, and what it costs to read the front of a level again.
local WORK_LIMIT, STARTED, LOOKED_AT, READ_AGAIN = 1600, 75, 8, 16
-- How many levels a call looks at, flows of a level at once, and requests of a flow, of which this worker cannot serve some.
local LAST_LEVEL, FLOWS, LAST_FLOW, REQUESTS, LAST_REQUEST = '23', 8, '7', 16, '31'
local FORGET_EVERY = 16  -- starts
local REMEMBERED = 64  -- virtual times of owners, above which idle ones are forgotten
local FIRST_MEAN_TOKENS = 256  -- of an answer, until the first one of the model has ended
local SECS_PER_BUCKET, BUCKETS = 10, 7  -- of the starts of the last minute

-- Few starts end a request, so the functions for that are created only then.
local function load_rare()
--- @include content terminal limits steps retrying
--- @permit
  return terminate, limit_outcome, lost_outcome
end

if redis.call('EXISTS', P .. 'fenced:' .. worker) == 1 then return {'fenced'} end
models, slots, bytes_limit, gives_up = cjson.decode(models), tonumber(slots), tonumber(bytes_limit), tonumber(gives_up)

-- Returns a request's body, empty for a Redis key of another type, which must not stop the takes of others.
local function read_body(rid) return unless_error('WRONGTYPE', 'GET', P .. 'body:' .. rid) or '' end

-- Returns what a worker needs to run a request. `base` is the number of the last token of earlier attempts.
local function run_of(rid, request, base, body, length)
  return {rid, request.model, request.attempt, tostring(base), body, request.request_type, request.cancel_mode or '',
    request.cancel_reason or '', request.traceparent or '', request.created_at, request.needs or '',
    request.headers or '', request.endpoint, request.owner or '', length, request.priority or '0',
    request.preemptions or '0'}
end

local taken = redis.call('HGET', P .. 'taken', worker)
local last_number = taken and tonumber(string.match(taken, '^%d+')) or 0
if tonumber(number) < last_number then return {'stale'} end
if tonumber(number) == last_number then
  local runs, mark = {}, string.match(taken, '^%d+ (%S+)')
  for rid in string.gmatch(string.match(taken, '^%d+ %S+(.*)$'), '%S+') do
    local held = load_record(rid)
    if held and held.status == 'running' and held.worker == worker and held.start_nonce == mark then
      runs[#runs + 1] = run_of(rid, held, (stream_end(rid)), read_body(rid), redis.call('XLEN', P .. 'tokens:' .. rid))
    end
  end
  return {'ok', runs, {}, 0}
end

--- @permit HSET HSETNX HDEL HINCRBY ZADD ZREM ZPOPMIN XADD PEXPIRE HMGET HKEYS HEXISTS ZRANGE ZSCORE ZMSCORE ZCARD ZRANDMEMBER EXISTS GET XLEN XREVRANGE
local now = clock(shift)
local started, unsupported, is_skipped, queues, states = {}, {}, {}, {}, {}
local running, moved, frames = {}, {}, {}  -- what is written once for all that are started
local work, ended, bytes, is_full, has_moved = 0, 0, 0, false, false

-- Returns the state of a model's scheduler, which is written once at the end.
local function state_of(model)
  local state = states[model]
  if state then return state end
  local bucket = math.floor(now / SECS_PER_BUCKET)
  local field = 'starts:' .. bucket % BUCKETS
  local known = redis.call('HMGET', P .. 'queue:' .. model, 'virtual_time', 'mean_tokens', field)
  local since, starts = string.match(known[3] or '', '^(%d+) (%d+)$')
  local is_new = tonumber(since or '') ~= bucket
  state = {virtual_time = tonumber(known[1] or '0'), mean = known[2], field = field, bucket = bucket,
    starts = is_new and 0 or tonumber(starts), is_new = is_new, taken = 0,
    latest = 0, levels = {}}
  states[model] = state
  return state
end

-- Returns the estimate for a request. `mean` is that of the model's recent answers.
local function estimated_cost(prompt_tokens, max_tokens, mean)
  local answer = tonumber(max_tokens or '') or tonumber(mean or '') or FIRST_MEAN_TOKENS
  return math.max(1, (tonumber(prompt_tokens or '0') or 0) + answer)
end

-- Forgets the virtual times of some owners that have nothing queued and are not ahead of the model's; `examined` are looked at,
-- twice as many as were added, so that the owners who are remembered are bounded by those who are ahead.
local function forget_idle(model, times, virtual_time, examined)
  if redis.call('ZCARD', times) <= REMEMBERED then return end
  local flat = redis.call('ZRANDMEMBER', times, examined, 'WITHSCORES')
  for i = 1, #flat, 2 do
    if tonumber(flat[i + 1]) <= virtual_time and redis.call('HEXISTS', P .. 'queued:' .. model, flat[i]) == 0 then
      redis.call('ZREM', times, flat[i])
    end
  end
end

local function names(list, name) return string.find(list, ' ' .. name .. ' ', 1, true) end

-- Returns whether this worker's engine serves an endpoint and what the request needs.
local function is_served(endpoint, needs)
  local native = names(endpoints, endpoint)
  if not native and not names(endpoints, '~' .. endpoint) then return false end
  for name in string.gmatch(needs or '', '%S+') do
    local accepted = accepts == '*' or names(' ' .. accepts .. ' ', name)
    if string.sub(name, 1, 7) == 'native:' then accepted = native end
    if string.sub(name, 1, 7) == 'serves:' then accepted = names(endpoints, string.sub(name, 8)) end
    if not accepted then return false end
  end
  return true
end

-- Advances the virtual time of a flow's owner by the cost of a request. Returns the cost. What was given back to the owner
-- and let it pass nobody is used up first: see correct_cost.
local function charge(model, priority, flow, record)
  local state, times, reached = state_of(model), queues[model].times, flow.reached
  local cost = estimated_cost(record.prompt_tokens, record.max_tokens, state.mean)
  local known = times[flow.owner] or flow.known or reached
  local after = tonumber(secs(math.min(known, reached) + cost / weight_of(record)))
  times[flow.owner] = after
  state.latest = math.max(state.latest, after)
  state.virtual_time = math.max(state.virtual_time, reached)
  state.levels[priority] = math.max(state.levels[priority] or 0, reached)
  state.starts, state.taken = state.starts + 1, state.taken + 1
  return string.format('%.0f', cost)
end

-- Takes a request out of its flow.
local function remove(flow, rid, body_size)
  flow.removed[#flow.removed + 1] = rid
  flow.bytes = flow.bytes + body_size
end

-- Starts a queued request of a flow, or ends it. Returns 'started', 'removed', 'skipped' for one that stays queued, or
-- 'full'.
local function try(model, priority, flow, rid)
  local request = load_record(rid) or {}
  if request.status ~= 'queued' then  -- its record was lost, or is a Redis key of another type
    remove(flow, rid, body_bytes(rid))
    ended = ended + 1
    return 'removed'
  end
  local due, last, at = request.due, 0, nil
  local has_stream = request.attempt ~= '0' or request.storage
  if has_stream then last, at = stream_end(rid) end
  local function ends(outcome_for)
    if #started > 0 then return 'full' end  -- an end needs more commands, which are checked before anything is written
    local terminate, limit_outcome, lost_outcome = load_rare()
    terminate(rid, request, now, tonumber(retention_secs), outcome_for(limit_outcome, lost_outcome))
    ended = ended + 1
    return 'removed'
  end
  if due then
    local limits_at = limit_time(now)
    for _, kind in ipairs({'queue', 'first_token', 'deadline'}) do
      local due_at = redis.call('ZSCORE', P .. 'deadlines', kind .. '|' .. rid)
      if due_at and tonumber(due_at) <= limits_at then
        return ends(function(limit_outcome) return limit_outcome(kind, request, last) end)
      end
    end
  end
  if last > 0 and (request.first_token_at or '') ~= '' and resumable ~= '1' then
    return ends(function(_, lost_outcome) return lost_outcome(last) end)
  end
  if not is_served(request.endpoint, request.needs) then
    unsupported[#unsupported + 1] = {rid, model, request.endpoint, request.needs or ''}
    return 'skipped'
  end
  if #started > 0 and bytes >= bytes_limit then return 'full' end
  local body = read_body(rid)
  if #started > 0 and bytes + #body > bytes_limit then return 'full' end

  local frontends = redis.call('HKEYS', P .. 'readers:' .. rid)
  local started_at, attempt = secs(now), tonumber(request.attempt) + 1
  bytes, request.attempt = bytes + #body, tostring(attempt)
  remove(flow, rid, #body)
  if request.share then count_share(model, flow.owner, request.share, '-') end
  local cost = charge(model, priority, flow, request)
  redis.call('HSET', P .. 'request:' .. rid, 'status', 'running', 'worker', worker, 'attempt', request.attempt,
    'started_at', started_at, 'resumable', resumable, 'start_nonce', nonce, 'cost', cost)
  running[#running + 1], running[#running + 2] = rid, noted_readers(frontends, nonce)
  moved[request.frontend] = moved[request.frontend] or {}
  table.insert(moved[request.frontend], rid)
  if due then redis.call('ZREM', P .. 'deadlines', 'queue|' .. rid) end
  local id = request.attempt .. '-' .. last
  redis.call('XADD', P .. 'tokens:' .. rid, id, 's', worker, 'at', at or '', 'n', nonce)
  local item = item_of(rid, id, cjson.encode({type = 'started', worker = worker, attempt = attempt, base = last,
    nonce = nonce, started_at = started_at}))
  for _, frontend in ipairs(frontends) do
    frames[frontend] = frames[frontend] or {}
    table.insert(frames[frontend], item)
  end
  started[#started + 1] = run_of(rid, request, last, body, has_stream and redis.call('XLEN', P .. 'tokens:' .. rid) or 1)
  return 'started'
end

-- Reads the flows at the front of a level. `reached` is the virtual time of the owner, who may have been served in another
-- level too, or have cost more than was estimated.
local function read_front(model, priority)
  local flat, owners = redis.call('ZRANGE', level_key(model, priority), '0', LAST_FLOW, 'WITHSCORES'), {}
  for i = 1, #flat, 2 do owners[#owners + 1] = flat[i] end
  local known = #owners > 0 and redis.call('ZMSCORE', P .. 'virtual_times:' .. model, unpack(owners)) or {}
  local front = {ends_at = #owners == FLOWS and tonumber(flat[2 * FLOWS]) or math.huge}
  for i, owner in ipairs(owners) do
    local place = tonumber(flat[2 * i])
    local at = tonumber(known[i] or '')
    front[i] = {owner = owner, place = place, known = at, reached = math.max(place, at or place), next = 1, skipped = 0,
      removed = {}, bytes = 0}
  end
  queues[model].fronts[priority] = front
  return front
end

-- Returns the flow that is served next of those that were read and that are not done; nil when one that was not read may be
-- before it, or when there is none.
local function next_flow(front, times)
  local first
  for _, flow in ipairs(front) do
    flow.reached = math.max(flow.reached, times[flow.owner] or flow.reached)
    local is_before = not first or flow.reached < first.reached
      or (flow.reached == first.reached and flow.owner < first.owner)
    if not flow.is_done and is_before then first = flow end
  end
  if first and first.reached > front.ends_at then
    front.is_old = true
    return nil
  end
  return first
end

-- Writes what has changed in the flows that were read of a model, and forgets them.
local function write_fronts(model)
  local queue, reached = queues[model], {}
  for priority, front in pairs(queue.fronts) do
    local key, places = level_key(model, priority), {}
    for _, flow in ipairs(front) do
      local place = math.max(flow.reached, queue.times[flow.owner] or flow.reached)
      if #flow.removed > 0 then dequeue(model, priority, flow.owner, flow.removed, flow.bytes) end
      if place > flow.place then places[#places + 1], places[#places + 2] = secs(place), flow.owner end
      if flow.is_lost then redis.call('ZREM', key, flow.owner) end
    end
    if #places > 0 then
      redis.call('ZADD', key, 'XX', unpack(places))
      has_moved = true
    end
    if redis.call('EXISTS', key) == 0 then forget_level(model, priority) end
  end
  for owner, at in pairs(queue.times) do reached[#reached + 1], reached[#reached + 2] = secs(at), owner end
  if #reached > 0 then redis.call('ZADD', P .. 'virtual_times:' .. model, unpack(reached)) end
  queue.fronts, queue.times = {}, {}
end

-- Tries the next requests of a flow. Returns what became of the last one.
local function try_flow(model, priority, flow)
  flow.rids = flow.rids or read_typed('ZRANGE', flow_key(model, priority, flow.owner), '0', LAST_REQUEST)
  flow.is_lost = #flow.rids == 0  -- or it is a Redis key of another type
  while flow.rids[flow.next] and flow.skipped < REQUESTS do
    local rid, what = flow.rids[flow.next], 'skipped'
    if not is_skipped[rid] then
      if work >= WORK_LIMIT then return 'full' end
      what = try(model, priority, flow, rid)
      if what == 'full' then return what end
      work = work + (what == 'skipped' and LOOKED_AT or STARTED)
    end
    flow.next = flow.next + 1
    if what ~= 'skipped' then return what end
    is_skipped[rid], flow.skipped = true, flow.skipped + 1
  end
  flow.is_done = true
  return flow.next > 2 * REQUESTS and 'full' or 'skipped'  -- there may be more behind those that were read
end

-- Starts the next request of a model. Returns whether it has, or may have when it is called again.
local function take_next(model)
  queues[model] = queues[model]
    or {priorities = redis.call('ZRANGE', P .. 'levels:' .. model, '0', LAST_LEVEL), fronts = {}, times = {}}
  local queue = queues[model]
  for _, priority in ipairs(queue.priorities) do
    if work >= WORK_LIMIT or (gives_up and tonumber(priority) >= gives_up) then return false end
    local front = queue.fronts[priority] or read_front(model, priority)
    while work < WORK_LIMIT do
      local flow = next_flow(front, queue.times)
      work = work + LOOKED_AT
      if flow then
        local what = try_flow(model, priority, flow)
        front.is_old = front.is_old or what ~= 'skipped' or flow.is_lost
        if what == 'started' then return true end
        if what == 'full' then
          is_full = true
          return false
        end
      elseif #front == FLOWS and front.is_old then
        work = work + READ_AGAIN
        write_fronts(model)
        front = read_front(model, priority)
      else
        break
      end
    end
  end
  return false
end

local open = slots > 0 and models or {}
while #open > 0 do
  local again = {}
  for _, model in ipairs(open) do
    if #started < slots and not is_full and take_next(model) then again[#again + 1] = model end
  end
  open = again
end

for model in pairs(queues) do write_fronts(model) end
for model, state in pairs(states) do
  local queue, times = P .. 'queue:' .. model, P .. 'virtual_times:' .. model
  -- Who comes after everybody was served begins where the last one has ended; with a slot left, where the latest of all has.
  if redis.call('EXISTS', P .. 'levels:' .. model) == 0 then
    local latest = #started < slots and tonumber(redis.call('ZRANGE', times, '-1', '-1', 'WITHSCORES')[2] or '')
    state.virtual_time = math.max(state.virtual_time, latest or state.latest)
  end
  redis.call('HSET', queue, 'virtual_time', secs(state.virtual_time), state.field, state.bucket .. ' ' .. state.starts)
  for priority, at in pairs(state.levels) do
    if redis.call('EXISTS', level_key(model, priority)) == 1 then
      at = math.max(at, tonumber(redis.call('HGET', queue, 'served:' .. priority) or '0'))
      redis.call('HSET', queue, 'served:' .. priority, secs(at))
    end
  end
  if state.is_new then
    redis.call('PEXPIRE', queue, DAY_MS)
    redis.call('PEXPIRE', times, DAY_MS)
  end
  if state.starts % FORGET_EVERY < state.taken then forget_idle(model, times, state.virtual_time, 2 * FORGET_EVERY) end
end
if #running > 0 then redis.call('HSET', P .. 'running:' .. worker, unpack(running)) end
for frontend, rids in pairs(moved) do count_moves(frontend, rids, 'queued', 'running') end
redis.call('HSETNX', P .. 'ticks', worker, '0')
local mine = {number, nonce}
for _, run in ipairs(started) do mine[#mine + 1] = run[1] end
redis.call('HSET', P .. 'taken', worker, table.concat(mine, ' '))

-- Where more is left than one call does, the worker calls again, unless it could serve nothing of what this one has seen,
-- if that was not only owners who are ahead of their places.
local serves_nothing = slots > 0 and #started + ended == 0 and (#unsupported > 0 or not has_moved)
local waits = #started < slots and not (is_full or work >= WORK_LIMIT) or serves_nothing
local place = secs(now)
if gives_up then waits, place = waits or slots == 0, string.format('%.0f', PREEMPTIBLE - gives_up) end
-- Nobody would remove a worker whose lease Redis has lost. Its next heartbeat sees that it does not stand here.
local stands = waits and redis.call('ZSCORE', P .. 'workers', worker)
for _, model in ipairs(models) do
  if stands then
    redis.call('ZADD', P .. 'waiting:' .. model, place, worker)
  else
    redis.call('ZREM', P .. 'waiting:' .. model, worker)
  end
  local first = slots == 0 and redis.call('ZRANGE', P .. 'levels:' .. model, '0', '0')[1]
  if first then to_ring[#to_ring + 1] = {model, first} end
end
for frontend, items in pairs(frames) do send(frontend, '[' .. table.concat(items, ',') .. ']') end
ring_workers(now)
return {'ok', started, unsupported, waits and 1 or 0}
