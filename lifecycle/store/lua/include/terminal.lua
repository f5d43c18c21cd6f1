-- The end of a request. Every end goes through end_request(); its callers have checked that the record is not terminal.
--- @include now numbers stream record events counts queue cost content cancellation settlement

local WEBHOOKS_LIMIT = 100000  -- events of one shard that wait for their delivery
local WEBHOOK_MS = '90000000'  -- 25 hours: an hour longer than it is tried

-- Puts the event that reports the end of a request into the outbox, from which the frontends deliver it.
local function queue_webhook(record)
  local event, url, due = record.webhook_event, record.webhook_url, P .. 'webhooks'
  local webhook = 'dropped'
  if redis.call('ZCOUNT', due, '-inf', '+inf') < WEBHOOKS_LIMIT then
    webhook = 'waiting'
    redis.call('HSET', P .. 'webhook:' .. event, 'url', url, 'rid', record.id, 'endpoint', record.endpoint,
      'model', record.model, 'status', record.status, 'error_type', record.error_type,
      'finish_reason', record.finish_reason, 'created_at', record.created_at, 'finished_at', record.finished_at)
    redis.call('PEXPIRE', P .. 'webhook:' .. event, WEBHOOK_MS)
    redis.call('ZADD', due, record.finished_at, event)
    redis.call('PEXPIRE', due, WEBHOOK_MS)
  end
  set_field(record, 'webhook', webhook)
  redis.call('HDEL', P .. 'request:' .. record.id, 'webhook_event', 'webhook_url')
end

-- Notes that a request no longer needs the quota slot of its owner. The slot itself is in the owner's shard, and whoever
-- finds all slots taken removes those that are noted here.
local function note_ended_slot(record)
  local key = P .. 'ended_slots:' .. (record.owner or '')
  redis.call('SADD', key, record.id .. '|' .. record.nonce)
  redis.call('PEXPIRE', key, '86400000')  -- a day: a slot that is found by nobody before that is found by its request
end

local SHORT_RETENTION_SECS = 3600  -- parents of requests are looked at more often than that

-- Keeps what the requests that this one has started need to know of its end, when its record may expire before somebody
-- looks: see parents.
local function note_ended_parent(record)
  local end_of_it = {record.created_at, record.status, record.cancel_mode or '', record.error_type}
  redis.call('SET', P .. 'ended_parent:' .. record.id, cjson.encode(end_of_it), 'PX', '3600000')
end

-- Fields of the record that only some ends write.
local FURTHER = {'first_token_at', 'last_token_at', 'input_tokens', 'usage', 'error_detail', 'orphan_events', 'cancelled_by',
  'cancelled_via'}

-- Ends a request as far as its own Redis keys go: its record, stream, content and expiry. The caller then calls
-- settle_ends(), once for all that it has ended.
-- `outcome` is from outcome_of(). `tail` is the result of stream_end() if the caller has it, with the `frontends` that read
-- and the tokens that they get `before` the end: see push().
-- Returns its entry of `ends`, with public_record() of the updated record as `public`.
local function end_request(record, outcome, tail)
  local rid, was, labels = record.id, record.status, labels_of(record)
  local key = P .. 'request:' .. rid
  tail = tail or {frontends = redis.call('HKEYS', P .. 'readers:' .. rid), stream_end(rid)}
  if was == 'queued' then leave_queue(record) end
  local number, at, closed = unpack(tail, 1, 3)
  outcome.last = number  -- by it readers detect a gap before the end
  outcome.input_tokens, outcome.usage, outcome.detail = record.input_tokens, record.usage, record.error_detail
  local ending = cjson.encode(outcome)
  if not closed then close_stream(rid, ending) end
  record.status = outcome.status
  record.error_type = outcome.error_type
  record.error_message = outcome.message
  record.finish_reason = outcome.finish_reason
  record.finished_at = secs(now)
  record.stream_length = whole(number)
  local produced_length = length_without_openings(record, number)
  record.output_tokens = record.reported_tokens or whole(produced_length)
  record.output_events = whole(math.min(tonumber(record.output_events) or produced_length, produced_length))
  if record.orphan_from then
    local produced = math.max(number, tonumber(record.produced_events) or 0)  -- a closed stream refuses some of them
    local orphans = math.max(0, produced - tonumber(record.orphan_from))
    record.orphan_events = tostring((tonumber(record.orphan_events) or 0) + orphans)
  end
  if record.first_token_at and at then record.last_token_at = secs(tonumber(at) / 1000) end
  if record.ended_by_limit then
    record.cancelled_by, record.cancelled_via = 'limit:' .. record.ended_by_limit, record.limit_via or ''
  end
  local further = {}
  if outcome.error_type ~= '' then
    further = {'error_type', record.error_type, 'error_message', record.error_message}
  end
  for i = 1, #FURTHER do
    local field = FURTHER[i]
    if record[field] then further[#further + 1], further[#further + 2] = field, record[field] end
  end
  redis.call('HSET', key,
    'status', record.status, 'finish_reason', record.finish_reason, 'finished_at', record.finished_at,
    'output_tokens', record.output_tokens, 'output_events', record.output_events,
    'stream_length', record.stream_length, unpack(further))
  -- settle_ends() looks after it from here on, even if an error stops what follows.
  local one = {rid = rid, record = record, was = was, labels = labels, expires_at = secs(now + retention),
    kill_reason = record.killed_for, worker = record.worker ~= '' and record.worker}
  ends[#ends + 1] = one
  note_cost(one, tonumber(record.output_tokens), outcome.status == 'completed')
  if record.webhook_url then queue_webhook(record) end
  if record.quota_slot then note_ended_slot(record) end
  if one.worker and one.kill_reason then
    note_cancellation(one.worker, rid)
  elseif one.worker and record.cancel_mode then
    redis.call('SREM', P .. 'pending_cancellations:' .. one.worker, rid)
  end
  if record.parent_since then redis.call('ZREM', P .. 'with_parent', rid) end
  if record.due then
    redis.call('ZREM', P .. 'deadlines', 'queue|' .. rid, 'first_token|' .. rid, 'deadline|' .. rid, 'grace|' .. rid)
  end
  local ttl_ms = whole(math.ceil(retention * 1000))
  redis.call('PEXPIRE', key, ttl_ms)
  if record.has_children then
    redis.call('PEXPIRE', P .. 'children:' .. rid, ttl_ms)
    if retention < SHORT_RETENTION_SECS then note_ended_parent(record) end
  end
  if record.storage then
    settle_content(record, ttl_ms)
  else
    redis.call('PEXPIRE', P .. 'tokens:' .. rid, ttl_ms)
    one.body = P .. 'body:' .. rid
  end
  for _, frontend in ipairs(tail.frontends) do
    if frontend ~= record.frontend then redis.call('SREM', P .. 'reading:' .. frontend, rid) end
  end
  one.public = public_record(record)
  one.frontends, one.before = tail.frontends, tail.before
  one.event = {'{"type":"terminal","outcome":', ending, ',"record":', one.public, '}'}
  return one
end

-- Ends one request. Takes what end_request() takes, and returns public_record() of the updated record.
local function terminate(record, ...)
  local is_done, one = pcall(end_request, record, ...)
  settle_ends()
  local failure = not is_done and one or one.failure
  if failure then error(failure, 0) end
  return one.public
end

-- Ends a request for a reason that its worker does not know of, which is notified to kill it if it runs there.
-- Returns what terminate() returns.
local function terminate_and_kill(record, outcome)
  if record.status == 'running' then record.killed_for = outcome.error_type end
  return terminate(record, outcome)
end
