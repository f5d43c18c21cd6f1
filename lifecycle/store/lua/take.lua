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
--         that a later one has overtaken, or {'fenced'}. runs are {rid, model, attempt, base, body, cancel_mode,
--         traceparent, created_at, needs, headers, endpoint, owner, length (how many entries the token stream has),
--         priority, preemptions}…; unsupported are {rid, model, endpoint, needs}…, which this engine does not serve
--         and which stay queued; waits is 1 when nothing is left for this worker, which is rung when something comes.
-- A request that is past a limit ends here. One that has tokens, beside openings, with an engine that would begin anew,
-- fails as `worker_lost`: the tokens of two answers must not be joined. Behind one that was started, the next call ends it.

local P = KEYS[1]
local shift, worker, number, nonce, models, slots, bytes_limit, resumable, retention_secs, accepts,
  endpoints, gives_up = unpack(ARGV)
local retention = tonumber(retention_secs)
--- @include commands now numbers record events queue runs

if redis.call('EXISTS', P .. 'fenced:' .. worker) == 1 then return {'fenced'} end
models, slots, bytes_limit, gives_up = cjson.decode(models), tonumber(slots), tonumber(bytes_limit), tonumber(gives_up)

local taken = redis.call('HGET', P .. 'taken', worker)
local last_number, last_nonce, last_rids = string.match(taken or '', '^(%d+) (%S+)(.*)$')
if taken and tonumber(number) < tonumber(last_number) then return {'stale'} end
if taken and tonumber(number) == tonumber(last_number) then return {'ok', repeated_runs(last_rids, last_nonce), {}, 0} end

-- What every call with a start reads before its first write is not checked: EXISTS GET HGET HKEYS HMGET ZMSCORE ZRANGE.
--- @permit HSET HSETNX HDEL HINCRBY ZADD ZREM XADD PEXPIRE XLEN XREVRANGE ZRANDMEMBER
--- @include front scheduler start

-- How much one call does, in about microseconds of Redis's time, what a request costs that is started or ended and one
-- that is only looked at, and what it costs to read the front of a level again.
local WORK_LIMIT, STARTED, LOOKED_AT, READ_AGAIN = 1600, 75, 8, 16

local queues, is_skipped, work, is_full = {}, {}, 0, false

-- Tries the next requests of a flow. Returns what became of the last one.
local function try_flow(queue, priority, flow)
  flow.rids = flow.rids or read_typed('ZRANGE', flow_key(queue.model, priority, flow.owner), '0', LAST_REQUEST)
  flow.is_lost = #flow.rids == 0  -- or it is a Redis key of another type
  while flow.rids[flow.next] and flow.skipped < REQUESTS do
    local rid, what = flow.rids[flow.next], 'skipped'
    if not is_skipped[rid] then
      if work >= WORK_LIMIT then return 'full' end
      what = start(queue, priority, flow, rid)
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
  queues[model] = queues[model] or read_queue(model)
  local queue = queues[model]
  for _, priority in ipairs(queue.priorities) do
    if work >= WORK_LIMIT or (gives_up and tonumber(priority) >= gives_up) then return false end
    local front = queue.fronts[priority] or read_front(queue, priority)
    while work < WORK_LIMIT do
      local flow = next_flow(front, queue.times)
      work = work + LOOKED_AT
      if flow then
        local what = try_flow(queue, priority, flow)
        front.is_old = front.is_old or what ~= 'skipped' or flow.is_lost
        if what == 'started' then return true end
        if what == 'full' then
          is_full = true
          return false
        end
      elseif #front == FLOWS and front.is_old then
        work = work + READ_AGAIN
        write_fronts(queue)
        front = read_front(queue, priority)
      else
        break
      end
    end
  end
  return false
end

if slots == 0 then  -- it waits for nothing, and another one is rung for what is queued
--- @permit ZPOPMIN ZSCORE
  for _, model in ipairs(models) do
    local first = redis.call('ZRANGE', P .. 'levels:' .. model, '0', '0')[1]
    if first then to_ring[#to_ring + 1] = {model, first} end
  end
end

local open = slots > 0 and models or {}
while #open > 0 do
  local again = {}
  for _, model in ipairs(open) do
    if #started < slots and not is_full and take_next(model) then again[#again + 1] = model end
  end
  open = again
end
for _, queue in pairs(queues) do
  write_fronts(queue)
  write_scheduler(queue, #started < slots)
end
write_starts()

-- Where more is left than one call does, the worker calls again, unless it could serve nothing of what this one has seen,
-- if that was not only owners who are ahead of their places.
local serves_nothing = slots > 0 and #started + ended == 0 and (#unsupported > 0 or not has_moved)
local waits = #started < slots and not (is_full or work >= WORK_LIMIT) or serves_nothing
local place = secs(now)
if gives_up then waits, place = waits or slots == 0, string.format('%.0f', PREEMPTIBLE - gives_up) end
-- Nobody would remove a worker whose lease Redis has lost. Its next heartbeat sees that it does not stand here.
local stands = waits and redis.call('ZMSCORE', P .. 'workers', worker)[1]
for _, model in ipairs(models) do
  if stands then
    redis.call('ZADD', P .. 'waiting:' .. model, place, worker)
  else
    redis.call('ZREM', P .. 'waiting:' .. model, worker)
  end
end

local mine = {number, nonce}
for _, run in ipairs(started) do mine[#mine + 1] = run[1] end
redis.call('HSET', P .. 'taken', worker, table.concat(mine, ' '))
if not taken then redis.call('HSETNX', P .. 'ticks', worker, '0') end
for frontend, items in pairs(frames) do send(frontend, '[' .. table.concat(items, ',') .. ']') end
ring_workers()
return {'ok', started, unsupported, waits and 1 or 0}
