#!lua
-- admit: accepts requests: writes their records, queues them and counts them.
-- KEYS[1] shard prefix
-- ARGV    shift, then for each request: rid, nonce, model, endpoint, request_type, frontend, body, queue_limit (of the
--         owner's requests that wait for the model in this shard), queue_bytes (how many bytes the bodies of this shard's
--         queued requests may have; one always may wait), admit_by (when the owner's quota slot may be released, '' without
--         a slot), openings (a JSON list of events that are the answer's first, '' for none), openings_count, share_limits
--         (how many requests, tokens and bytes of the owner may wait for the model, and of all owners, 0 each for no limit,
--         separated by spaces; '' when the request is not counted for any), further (how many arguments follow), then for
--         each further field of the record: name, value
-- Returns for each request {'admitted', created_at} (the same again when repeated with the same nonce), {'exists'},
--         {'full', depth}, {'full_bytes', bytes}, {'queue_limit'}, {'full_model'}, {'late'} or {'fenced'}. An error of one
--         request is returned in its place.
-- There is no allow-oom: when the memory is full, new requests are what must be refused.

local P = KEYS[1]
local shift = ARGV[1]
--- @include commands now numbers events requests queue shares beginning replies
--- @permit SET HSET HSETNX HMGET HINCRBY ZADD ZPOPMIN ZSCORE

local ARGUMENTS = 14  -- of each request, before the further ones
local flows, flows_in_order = {}, {}

-- What the requests beside this one need too is read once.
local fenced, depths, queued_bytes = {}, {}, nil

local function is_fenced(frontend)
  if fenced[frontend] == nil then fenced[frontend] = redis.call('EXISTS', P .. 'fenced:' .. frontend) == 1 end
  return fenced[frontend]
end

local function depth_name(model, owner) return #owner .. '|' .. owner .. '|' .. model end

-- Returns how many requests of the owner wait for a model.
local function depth_of(model, owner)
  local name = depth_name(model, owner)
  depths[name] = depths[name] or tonumber(redis.call('HGET', P .. 'queued:' .. model, owner) or '0')
  return depths[name]
end

local function read_queued_bytes()
  local waiting, sum = redis.call('HGETALL', P .. 'queued_bytes'), 0
  for i = 2, #waiting, 2 do sum = sum + waiting[i] end
  return sum
end

local function flow_for(request)
  local key = flow_key(request.model, request.priority or '0', request.owner or '')
  if not flows[key] then
    local flow = open_flow(request)
    flow.begun, flow.bytes = {}, 0
    flows[key], flows_in_order[#flows_in_order + 1] = flow, flow
  end
  return flows[key]
end

local function admit(first)
  local rid, nonce, model, endpoint, request_type, frontend, body, queue_limit, queue_bytes, admit_by, openings,
    openings_count, share_limits, further = unpack(ARGV, first, first + ARGUMENTS - 1)
  local from, to = first + ARGUMENTS, first + ARGUMENTS + further - 1
  local request = with_fields({id = rid, frontend = frontend, model = model, endpoint = endpoint,
    request_type = request_type}, from, to)
  local owner, key = request.owner or '', P .. 'request:' .. rid
  local known = redis.call('HMGET', key, 'nonce', 'created_at')
  if known[2] then
    if known[1] == nonce then return {'admitted', known[2]} end
    return {'exists'}
  end
  if is_fenced(frontend) then return {'fenced'} end
  local depth = depth_of(model, owner)
  if depth >= tonumber(queue_limit) then return {'full', depth} end
  if share_limits ~= '' then
    local tokens = request.max_tokens or redis.call('HGET', P .. 'queue:' .. model, 'mean_tokens') or '256'
    tokens = math.floor(tonumber(request.prompt_tokens or '0') + tonumber(tokens))
    local refusal = exceeded_limit(model, owner, depth, share_limits, tokens, #body)
    if refusal then return {refusal} end
    request.share = string.format('%.0f %d', tokens, #body)
  end
  queued_bytes = queued_bytes or read_queued_bytes()
  if queued_bytes > 0 and queued_bytes + #body > tonumber(queue_bytes) then return {'full_bytes', queued_bytes} end
  if admit_by ~= '' and now > tonumber(admit_by) then return {'late'} end
  local lost_start = read_lost_start(rid)
  if openings ~= '' then require_command('XADD') end

  request.created_at = secs(now + #begun / 1000000)  -- no two requests have the same time
  local flow = flow_for(request)  -- it reads before it writes, and nothing was written for this request before
  -- Redis stores a small hash in one piece and searches it for each field. So empty fields are left out, the body has a
  -- Redis key of its own, and the fields that are read most come first.
  redis.call('SET', P .. 'body:' .. rid, body)
  redis.call('HSET', key, 'status', 'queued', 'attempt', '0', 'frontend', frontend, 'request_type', request_type,
    'created_at', request.created_at, 'nonce', nonce, 'model', model, 'endpoint', endpoint, unpack(ARGV, from, to))
  depths[depth_name(model, owner)], queued_bytes = depth + 1, queued_bytes + #body
  if request.share then
    redis.call('HSET', key, 'share', request.share)
    count_share(model, owner, request.share, '')
  end
  local one = begin_request(request, lost_start)
  table.insert(flow.begun, one)
  flow.bytes = flow.bytes + #body
  if openings ~= '' then
    one.opening_id, one.openings = '0-' .. openings_count, openings
    redis.call('XADD', P .. 'tokens:' .. rid, one.opening_id, 't', openings, 'at', whole(now * 1000 + 0.5))
  end
  return {'admitted', request.created_at}, one
end

local first = 2
while first <= #ARGV do
  reply_with(admit, first)
  first = first + ARGUMENTS + ARGV[first + ARGUMENTS - 1]
end
for _, flow in ipairs(flows_in_order) do
  if flow.begun[1] then run_for(flow.begun, enqueue, flow, flow.begun, false, flow.bytes) end
end
settle_beginnings('queued')
-- Redis may refuse to publish, so nothing is written after it.
for _, one in ipairs(begun) do
  if one.openings then push({one.record.frontend}, one.rid, one.opening_id, {one.openings}) end
end
ring_workers()
return all_replies()
