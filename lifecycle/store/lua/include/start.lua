-- The start of a queued request: an attempt on it begins, unless it has ended, or ends here instead.
--- @include now numbers limit_time stream record readers events requests counts queue runs offer front scheduler

local LIMITS = {'queue', 'first_token', 'deadline'}

local started, unsupported, ended, bytes, started_at = {}, {}, 0, 0, secs(now)
local running, moved, frames = {}, {}, {}  -- what is written once for all that are started
local limits_at  -- the time by which limits are judged, once it was read
local event = '{"type":"started","worker":"' .. worker .. '","nonce":"' .. nonce .. '","started_at":"' .. started_at .. '",'

-- Returns the limit that a queued request is past, 'lost' when this engine would begin anew behind its `last` token, or nil.
local function due_of(rid, request, last)
  if request.due then
    limits_at = limits_at or limit_time()
    local due = redis.call('ZMSCORE', P .. 'deadlines', 'queue|' .. rid, 'first_token|' .. rid, 'deadline|' .. rid)
    for i, kind in ipairs(LIMITS) do
      if due[i] and tonumber(due[i]) <= limits_at then return kind end
    end
  end
  if last > 0 and request.first_token_at and resumable ~= '1' then return 'lost' end
end

-- Ends a queued request that is `due`. Few starts do that, so the functions for it are created only then.
local function end_instead(request, due)
--- @include outcomes terminal
--- @permit
  terminate(request, due == 'lost' and lost_outcome() or limit_outcome(due, request))
end

-- Begins an attempt behind the `last` token, which came at `at`.
local function begin(queue, priority, flow, rid, request, last, at)
  local frontends = redis.call('HKEYS', P .. 'readers:' .. rid)
  request.attempt = string.format('%d', request.attempt + 1)
  local cost = charge(queue, priority, flow, request)
  if request.share then count_share(queue.model, flow.owner, request.share, '-') end
  redis.call('HSET', P .. 'request:' .. rid, 'status', 'running', 'worker', worker, 'attempt', request.attempt,
    'started_at', started_at, 'start_nonce', nonce, 'cost', cost)
  if resumable ~= (request.resumable or '0') then redis.call('HSET', P .. 'request:' .. rid, 'resumable', resumable) end
  if request.due then redis.call('ZREM', P .. 'deadlines', 'queue|' .. rid) end
  local id = request.attempt .. '-' .. last
  redis.call('XADD', P .. 'tokens:' .. rid, id, 's', worker, 'at', at or '', 'n', nonce)
  running[#running + 1], running[#running + 2] = rid, noted_readers(frontends, nonce)
  append_to(moved, request.frontend, rid)
  local item = item_of(rid, id, event .. '"attempt":' .. request.attempt .. ',"base":' .. last .. '}')
  for _, frontend in ipairs(frontends) do append_to(frames, frontend, item) end
end

-- Starts a queued request of a flow, or ends it. Returns 'started', 'removed', 'skipped' for one that stays queued, or
-- 'full'.
local function start(queue, priority, flow, rid)
  local request = load_record(rid) or {}
  if request.status ~= 'queued' then  -- its record was lost, or is a Redis key of another type
    remove(flow, rid, body_bytes(rid))
    ended = ended + 1
    return 'removed'
  end
  local has_stream, last, at = request.attempt ~= '0' or request.storage, 0, nil
  if has_stream then last, at = stream_end(rid) end
  local due = due_of(rid, request, last)
  if due then
    if #started > 0 then return 'full' end  -- an end needs more commands, which are checked before anything is written
    end_instead(request, due)
    flow.gone, ended = flow.gone + 1, ended + 1
    return 'removed'
  end
  if not is_served(request.endpoint, request.needs) then
    unsupported[#unsupported + 1] = {rid, queue.model, request.endpoint, request.needs or ''}
    return 'skipped'
  end
  if #started > 0 and bytes >= bytes_limit then return 'full' end
  local body = read_body(rid)
  if #started > 0 and bytes + #body > bytes_limit then return 'full' end
  bytes = bytes + #body
  remove(flow, rid, #body)
  begin(queue, priority, flow, rid, request, last, at)
  started[#started + 1] = run_of(request, last, body, has_stream and redis.call('XLEN', P .. 'tokens:' .. rid) or 1)
  return 'started'
end

-- Writes what all that were started have in common.
local function write_starts()
  if #running > 0 then redis.call('HSET', P .. 'running:' .. worker, unpack(running)) end
  for frontend, rids in pairs(moved) do count_moves(frontend, rids, 'queued', 'running') end
end
