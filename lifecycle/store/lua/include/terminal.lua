-- The end of a request. Every end goes through end_request(); its callers have checked that the record is not terminal.
--- @include now numbers stream record events requests counts queue cost content

-- Notes for a worker's next reconciliation that it has to stop or kill a request.
local function note_cancellation(worker, rid)
  if redis.call('EXISTS', P .. 'fenced:' .. worker) == 0 then
    redis.call('SADD', P .. 'pending_cancellations:' .. worker, rid)
  end
end

-- Notifies a worker, and the subscribers of the request, of a cancellation that has been noted. A worker has one channel
-- under all its ids: those that it takes in single shards begin with its own, followed by `~`.
local function publish_cancellation(worker, rid, mode, reason)
  publish_to('worker:' .. string.match(worker, '^[^~]*'), {type = 'cancel', rid = rid, mode = mode, reason = reason})
  publish(rid, {type = 'cancel', mode = mode, reason = reason})
end

-- Closes an open token stream, so that no entry can follow. `ending` is an outcome as JSON.
local function close_stream(rid, ending)
  redis.call('XADD', P .. 'tokens:' .. rid, END_ID, 'e', ending)
end

-- Returns the outcome that readers get at the end; `last` lets them detect a gap before it.
local function outcome_of(status, error_type, message, finish_reason, last)
  return {type = 'end', status = status, error_type = error_type or '', message = message or '',
          finish_reason = finish_reason or '', last = last}
end

local WEBHOOKS_LIMIT = 100000  -- events of one shard that wait for their delivery
local WEBHOOK_MS = '90000000'  -- 25 hours: an hour longer than it is tried

-- Puts the event that reports the end of a request into the outbox, from which the frontends deliver it.
local function queue_webhook(rid, record)
  local event, url, due = record.webhook_event, record.webhook_url, P .. 'webhooks'
  record.webhook, record.webhook_event, record.webhook_url = 'dropped', nil, nil
  if redis.call('ZCOUNT', due, '-inf', '+inf') < WEBHOOKS_LIMIT then
    record.webhook = 'waiting'
    redis.call('HSET', P .. 'webhook:' .. event, 'url', url, 'rid', rid, 'endpoint', record.endpoint,
      'model', record.model, 'status', record.status, 'error_type', record.error_type,
      'finish_reason', record.finish_reason, 'created_at', record.created_at, 'finished_at', record.finished_at)
    redis.call('PEXPIRE', P .. 'webhook:' .. event, WEBHOOK_MS)
    redis.call('ZADD', due, record.finished_at, event)
    redis.call('PEXPIRE', due, WEBHOOK_MS)
  end
  redis.call('HSET', P .. 'request:' .. rid, 'webhook', record.webhook)
  redis.call('HDEL', P .. 'request:' .. rid, 'webhook_event', 'webhook_url')
end

-- Notes that a request no longer needs the quota slot of its owner. The slot itself is in the owner's shard, and whoever
-- finds all slots taken removes those that are noted here.
local function note_ended_slot(rid, record)
  local key = P .. 'ended_slots:' .. (record.owner or '')
  redis.call('SADD', key, rid .. '|' .. record.nonce)
  redis.call('PEXPIRE', key, '86400000')  -- a day: a slot that is found by nobody before that is found by its request
end

local SHORT_RETENTION_SECS = 3600  -- parents of requests are looked at more often than that

-- Keeps what the requests that this one has started need to know of its end, when its record may expire before somebody
-- looks: see parents.
local function note_ended_parent(rid, record)
  local end_of_it = {record.created_at, record.status, record.cancel_mode or '', record.error_type}
  redis.call('SET', P .. 'ended_parent:' .. rid, cjson.encode(end_of_it), 'PX', '3600000')
end

-- The requests that this script has ended, for settle_ends(): {rid, record, was (its status before), …}.
local ends = {}

-- Ends a request as far as its own Redis keys go: its record, stream, content and expiry. The caller then calls
-- settle_ends(), once for all that it has ended.
-- `outcome` is from outcome_of(), `tail` is the result of stream_end() if the caller has it, with the frontends that
-- read as its fourth value if it has them too, and `preceding` are tokens that readers get before the end, see push().
-- Returns its entry of `ends`, with public_record() of the updated record as `public`.
local function end_request(rid, record, retention, outcome, tail, preceding)
  local was = record.status
  local labels, key = labels_of(record), P .. 'request:' .. rid
  local frontends = tail and tail[4] or redis.call('HKEYS', P .. 'readers:' .. rid)
  if was == 'queued' then leave_queue(record) end
  outcome.input_tokens, outcome.usage, outcome.detail = record.input_tokens, record.usage, record.error_detail
  local number, at, closed = unpack(tail or {stream_end(rid)}, 1, 3)
  local ending = cjson.encode(outcome)
  local more = {}  -- fields of the record that only some ends write
  local function add(field) more[#more + 1], more[#more + 2] = field, record[field] end
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
    add('orphan_events')
  end
  if (record.first_token_at or '') ~= '' and at then record.last_token_at = secs(tonumber(at) / 1000) end
  if record.first_token_at then add('first_token_at') end
  if record.last_token_at then add('last_token_at') end
  if record.input_tokens then add('input_tokens') end
  if record.usage then add('usage') end
  if record.error_detail then add('error_detail') end
  if outcome.error_type ~= '' then
    add('error_type')
    add('error_message')
  end
  if record.ended_by_limit then
    record.cancelled_by, record.cancelled_via = 'limit:' .. record.ended_by_limit, record.limit_via or ''
    add('cancelled_by')
    add('cancelled_via')
  end
  redis.call('HSET', key,
    'status', record.status, 'finish_reason', record.finish_reason, 'finished_at', record.finished_at,
    'output_tokens', record.output_tokens, 'output_events', record.output_events,
    'stream_length', record.stream_length, unpack(more))
  -- settle_ends() looks after it from here on, even if an error stops what follows.
  local one = {rid = rid, record = record, was = was, labels = labels, expires_at = secs(now + retention),
    kill_reason = record.killed_for, worker = (record.worker or '') ~= '' and record.worker}
  ends[#ends + 1] = one
  note_cost(one, tonumber(record.output_tokens), outcome.status == 'completed')
  if record.webhook_url then queue_webhook(rid, record) end
  if record.quota_slot then note_ended_slot(rid, record) end
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
    if retention < SHORT_RETENTION_SECS then note_ended_parent(rid, record) end
  end
  if (record.storage or '') ~= '' then
    settle_content(rid, record, retention, ttl_ms)
  else
    redis.call('PEXPIRE', P .. 'tokens:' .. rid, ttl_ms)
    one.body = P .. 'body:' .. rid
  end
  for _, frontend in ipairs(frontends) do
    if frontend ~= record.frontend then redis.call('SREM', P .. 'reading:' .. frontend, rid) end
  end
  one.public = public_record(rid, record)
  one.frontends, one.preceding = frontends, preceding
  one.event = {'{"type":"terminal","outcome":', ending, ',"record":', one.public, '}'}
  return one
end

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
    if one.event and one.preceding and #one.preceding[2] > APART_BYTES then
      push(one.frontends, one.rid, END_ID, one.event, one.preceding)
    elseif one.event then
      for _, frontend in ipairs(one.frontends) do
        frames[frontend] = frames[frontend] or {}
        add_items(frames[frontend], one.rid, END_ID, one.event, one.preceding)
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

-- Ends one request. Takes what end_request() takes, and returns the updated record, and public_record() of it.
local function terminate(rid, record, ...)
  local is_done, one = pcall(end_request, rid, record, ...)
  settle_ends()
  local failure = not is_done and one or one.failure
  if failure then error(failure, 0) end
  return record, one.public
end

-- Ends a request for a reason that its worker does not know of, which is notified to kill it if it runs there.
-- Returns what terminate() returns.
local function terminate_and_kill(rid, record, retention, outcome)
  if record.status == 'running' and (record.worker or '') ~= '' then record.killed_for = outcome.error_type end
  return terminate(rid, record, retention, outcome)
end

-- Returns the outcome of a request whose cancel was confirmed.
local function cancelled_outcome(record, last)
  local reason = record.cancel_reason
  if not reason or reason == '' then reason = 'cancelled' end
  return outcome_of('cancelled', 'cancelled', reason, '', last)
end
