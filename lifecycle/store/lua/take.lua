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
-- fails as `worker_lost`: the tokens of two answers must not be joined.

local P = KEYS[1]
local shift, worker, number, nonce, models, slots, bytes_limit, resumable, retention_secs, accepts,
  endpoints, gives_up = unpack(ARGV)
--- @include commands clock limit_time stream record readers events counts queue cost

-- How much one call does, in about microseconds of Redis's time, what a request costs that is started or ended and one
-- that is only looked at, and how far a call looks behind requests that this worker cannot serve.
local WORK_LIMIT, STARTED, LOOKED_AT = 1600, 75, 8
local LEVELS, FLOWS, REQUESTS = '7', 8, '15'
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

-- Returns the fields of a request's record that a start needs; none for a Redis key of another type.
local FIELDS = {'status', 'attempt', 'frontend', 'due', 'needs', 'endpoint', 'storage', 'first_token_at', 'weight',
  'prompt_tokens', 'max_tokens', 'model', 'request_type', 'cancel_mode', 'cancel_reason', 'traceparent', 'created_at',
  'headers', 'owner', 'priority', 'worker', 'start_nonce', 'share', 'preemptions'}

local function read_request(rid)
  local values, request = read_typed('HMGET', P .. 'request:' .. rid, unpack(FIELDS)), {}
  for i, name in ipairs(FIELDS) do request[name] = values[i] or nil end
  return request
end

-- Returns a request's body, empty for a Redis key of another type, which must not stop the takes of others.
local function read_body(rid) return unless_error('WRONGTYPE', 'GET', P .. 'body:' .. rid) or '' end

-- Returns what a worker needs to run a request. `base` is the number of the last token of earlier attempts.
local function run_of(rid, request, base, body)
  return {rid, request.model, request.attempt, tostring(base), body or read_body(rid),
    request.request_type, request.cancel_mode or '', request.cancel_reason or '', request.traceparent or '',
    request.created_at, request.needs or '', request.headers or '', request.endpoint, request.owner or '',
    redis.call('XLEN', P .. 'tokens:' .. rid), request.priority or '0', request.preemptions or '0'}
end

local taken = redis.call('HGET', P .. 'taken', worker)
local last_number = taken and tonumber(string.match(taken, '^%d+')) or 0
if tonumber(number) < last_number then return {'stale'} end
if tonumber(number) == last_number then
  local runs, mark = {}, string.match(taken, '^%d+ (%S+)')
  for rid in string.gmatch(string.match(taken, '^%d+ %S+(.*)$'), '%S+') do
    local held = read_request(rid)
    if held.status == 'running' and held.worker == worker and held.start_nonce == mark then
      runs[#runs + 1] = run_of(rid, held, (stream_end(rid)))
    end
  end
  return {'ok', runs, {}, 0}
end

--- @permit HSET HSETNX HDEL HINCRBY ZADD ZREM ZPOPMIN XADD PEXPIRE HMGET HKEYS HEXISTS ZRANGE ZSCORE ZCARD ZRANDMEMBER EXISTS GET XLEN XREVRANGE
local now = clock(shift)
local started, unsupported, is_skipped, announced, states = {}, {}, {}, {}, {}
local work, ended, bytes, is_full = 0, 0, 0, false

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

-- Advances the virtual time of an owner, who is served at `reached`, by the cost of a request. Returns the cost.
local function charge(model, priority, owner, reached, record)
  local state = state_of(model)
  local cost = estimated_cost(record.prompt_tokens, record.max_tokens, state.mean)
  local after = secs(reached + cost / weight_of(record))
  state.latest = math.max(state.latest, tonumber(after))
  redis.call('ZADD', P .. 'virtual_times:' .. model, after, owner)
  redis.call('ZADD', level_key(model, priority), 'XX', after, owner)
  state.virtual_time = math.max(state.virtual_time, reached)
  state.levels[priority] = math.max(state.levels[priority] or 0, reached)
  state.starts, state.taken = state.starts + 1, state.taken + 1
  return string.format('%.0f', cost)
end

-- Starts a queued request, or ends it. Returns 'started', 'removed', 'skipped' for one that stays queued, or 'full'.
local function try(model, priority, owner, reached, rid)
  local key = P .. 'request:' .. rid
  local request = read_request(rid)
  local attempt, due = request.attempt, request.due
  if request.status ~= 'queued' then  -- its record was lost, or is a Redis key of another type
    dequeue(model, priority, owner, rid)
    ended = ended + 1
    return 'removed'
  end
  local last, at = 0, nil
  if attempt ~= '0' or request.storage then last, at = stream_end(rid) end  -- otherwise there is no stream
  local function ends(outcome_for)
    local terminate, limit_outcome, lost_outcome = load_rare()
    local record = load_record(rid)
    terminate(rid, record, now, tonumber(retention_secs), outcome_for(record, limit_outcome, lost_outcome))
    ended = ended + 1
    return 'removed'
  end
  local limits_at = due and limit_time(now)
  for _, kind in ipairs(due and {'queue', 'first_token', 'deadline'} or {}) do
    local due_at = redis.call('ZSCORE', P .. 'deadlines', kind .. '|' .. rid)
    if due_at and tonumber(due_at) <= limits_at then
      return ends(function(record, limit_outcome) return limit_outcome(kind, record, last) end)
    end
  end
  if last > 0 and (request.first_token_at or '') ~= '' and resumable ~= '1' then
    return ends(function(_, _, lost_outcome) return lost_outcome(last) end)
  end
  if not is_served(request.endpoint, request.needs) then
    unsupported[#unsupported + 1] = {rid, model, request.endpoint, request.needs or ''}
    return 'skipped'
  end
  if #started > 0 and bytes + body_bytes(rid) > bytes_limit then return 'full' end

  local body = read_body(rid)
  bytes, attempt = bytes + #body, tostring(tonumber(attempt) + 1)
  request.attempt = attempt
  local started_at = secs(now)
  dequeue(model, priority, owner, rid, #body, request.share)
  local cost = charge(model, priority, owner, reached, request)
  redis.call('HSET', key, 'status', 'running', 'worker', worker, 'attempt', attempt, 'started_at', started_at,
    'resumable', resumable, 'start_nonce', nonce, 'cost', cost)
  local frontends = note_readers(rid, worker, nonce)
  count_moves(request.frontend, rid, 'queued', 'running')
  if due then redis.call('ZREM', P .. 'deadlines', 'queue|' .. rid) end
  local id = attempt .. '-' .. last
  redis.call('XADD', P .. 'tokens:' .. rid, id, 's', worker, 'at', at or '', 'n', nonce)
  announced[#announced + 1] = {frontends, rid, id, cjson.encode({type = 'started', worker = worker,
    attempt = tonumber(attempt), base = last, nonce = nonce, started_at = started_at})}
  started[#started + 1] = run_of(rid, request, last, body)
  return 'started'
end

-- Tries the requests at the front of a flow. Returns what became of the last one.
local function try_flow(model, priority, owner, reached)
  local rids = read_typed('ZRANGE', flow_key(model, priority, owner), '0', REQUESTS)
  if #rids == 0 then  -- Redis has lost it, or it is a Redis key of another type
    redis.call('ZREM', level_key(model, priority), owner)
    return 'removed'
  end
  for _, rid in ipairs(rids) do
    if not is_skipped[rid] then
      local what = try(model, priority, owner, reached, rid)
      work = work + (what == 'skipped' and LOOKED_AT or STARTED)
      if what ~= 'skipped' then return what end
      is_skipped[rid] = true
    end
    if work >= WORK_LIMIT then return 'full' end
  end
  return 'skipped'
end

-- Starts the next request of a model. Returns whether it has, or may have when it is called again.
local function take_next(model)
  for _, priority in ipairs(redis.call('ZRANGE', P .. 'levels:' .. model, '0', LEVELS)) do
    if gives_up and tonumber(priority) >= gives_up then return false end
    local level, rank = level_key(model, priority), 0
    while rank < FLOWS and work < WORK_LIMIT do
      local owner, reached = unpack(redis.call('ZRANGE', level, rank, rank, 'WITHSCORES'))
      if not owner then break end
      local known = redis.call('ZSCORE', P .. 'virtual_times:' .. model, owner)
      work = work + LOOKED_AT
      if known and tonumber(known) > tonumber(reached) then  -- it was served in another level, or has cost more
        redis.call('ZADD', level, known, owner)
      else
        local what = try_flow(model, priority, owner, tonumber(reached))
        if what == 'started' then return true end
        if what == 'full' then
          is_full = true
          return false
        end
        if what == 'skipped' then rank = rank + 1 end
      end
    end
    if redis.call('EXISTS', level) == 0 then forget_level(model, priority) end
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

for model, state in pairs(states) do
  local queue, times = P .. 'queue:' .. model, P .. 'virtual_times:' .. model
  -- Who comes after everybody was served begins where the last one has ended.
  if redis.call('EXISTS', P .. 'levels:' .. model) == 0 then state.virtual_time = math.max(state.virtual_time, state.latest) end
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
redis.call('HSETNX', P .. 'ticks', worker, '0')
local mine = {number, nonce}
for _, run in ipairs(started) do mine[#mine + 1] = run[1] end
redis.call('HSET', P .. 'taken', worker, table.concat(mine, ' '))

-- Where more is left than one call does, the worker calls again, unless it could serve nothing of what this one has seen.
local waits = #started < slots and not (is_full or work >= WORK_LIMIT) or (slots > 0 and #started + ended == 0)
local place = secs(now)
if gives_up then waits, place = waits or slots == 0, string.format('%.0f', PREEMPTIBLE - gives_up) end
for _, model in ipairs(models) do
  if waits then
    redis.call('ZADD', P .. 'waiting:' .. model, place, worker)
  else
    redis.call('ZREM', P .. 'waiting:' .. model, worker)
  end
  local first = slots == 0 and redis.call('ZRANGE', P .. 'levels:' .. model, '0', '0')[1]
  if first then to_ring[#to_ring + 1] = {model, first} end
end
for _, event in ipairs(announced) do push(unpack(event)) end
ring_workers(now)
return {'ok', started, unsupported, waits and 1 or 0}
