#!lua flags=allow-oom
-- finish: a worker reports the end of its attempt, with the last tokens, and so confirms a pending cancel.
-- KEYS[1] shard prefix
-- ARGV    shift, then for each request: rid, worker, attempt, status (`completed` | `failed` | `cancelled`), error_type,
--         message, finish_reason, last (number of the last token), remainder_id (entry id of tokens not known to be
--         appended, '' if none), remainder_base (number of the token before them), remainder (those tokens, up to the
--         last), has_first ('1' when it holds the request's first token that is no opening), input_tokens (as the engine
--         reports them, '' when unknown), output_tokens (the same), content_events (how many tokens have content),
--         produced_events (number of the last token produced, also if it was not appended), usage (JSON, '' for none),
--         error_detail (JSON, '' for none), retention_secs, item_ids (of the parts of the answer, separated by spaces),
--         nonce (of the attempt's start, '' leaves it unchecked), length (how many entries the stream has without the
--         remainder, '' leaves it unchecked)
-- Returns for each request {'done', record} to the first caller, {'already', record} to any later one, {'unknown'},
--         {'fenced'} when the attempt is not this worker's, {'incomplete', last number} when the stream ends before
--         the given last token or lacks entries (Redis has lost them; nothing is changed), or {'overlap', last number}
--         when an append whose reply was lost has appended a part of the remainder: call again with the rest of it;
--         or {'again'} when the requests before it in this call were enough for one: call again.
--         An error of one request is returned in its place.
-- The remainder is never decoded, because cjson changes empty lists and large integers.

local P = KEYS[1]
local shift = ARGV[1]
local retention  -- of the request that ends: its argument retention_secs
--- @include commands now numbers stream record content outcomes terminal replies
--- @permit HMGET ZSCORE ZRANGE HSET HDEL HINCRBY ZADD ZREM PEXPIRE DEL

local ARGUMENTS = 22  -- of each request
local WORK_LIMIT, PLAIN, STORED = 1600, 60, 200  -- what one call does, and what an end costs, in about microseconds
local work = 0

-- Checks what the end of some requests needs.
local function require_all()
--- @permit
end

local function finish(first)
  local rid, worker, attempt, status, error_type, message, finish_reason, last, remainder_id, remainder_base, remainder,
    has_first, input_tokens, output_tokens, content_events, produced_events, usage, error_detail, retention_secs, item_ids,
    nonce, length = unpack(ARGV, first, first + ARGUMENTS - 1)
  local record = load_record(rid)
  local ended = record and is_terminal(record)
  local another = record and nonce ~= '' and record.start_nonce ~= nonce
  if not record or ended or another or record.status ~= 'running' or record.worker ~= worker
    or record.attempt ~= attempt then
    redis.call('SREM', P .. 'pending_cancellations:' .. worker, rid)  -- the worker has nothing to confirm any more
    if not record then return {'unknown'} end
    if ended then return {'already', public_record(record)} end
    return {'fenced'}
  end
  if work >= WORK_LIMIT then return {'again'} end
  work = work + (record.storage and STORED or PLAIN)

  if record.storage or record.webhook_url or record.quota_slot or record.cancel_mode or record.has_children then
    require_all()
  end
  local frontends = redis.call('HKEYS', P .. 'readers:' .. rid)
  if frontends[1] ~= record.frontend or frontends[2] then require_command('SREM') end

  if input_tokens ~= '' then record.input_tokens = input_tokens end
  items_to_find = ''
  if output_tokens ~= '' then record.reported_tokens = output_tokens end
  if usage ~= '' then record.usage = usage end
  record.output_events, record.produced_events = content_events, produced_events
  local number, at, closed = stream_end(rid)
  local before
  local function ends_with(outcome)
    retention = tonumber(retention_secs)
    local one = end_request(record, outcome, {number, at, closed, frontends = frontends, before = before})
    return {'done', one.public}, one
  end
  -- A worker reports a stop as cancelled when a part of the answer is of no use: see Attempt.
  local stopped = status == 'cancelled' and record.cancel_mode == 'stop'
  if record.cancel_mode == 'kill' or stopped then return ends_with(cancelled_outcome(record)) end

  last, remainder_base = tonumber(last), tonumber(remainder_base)
  local have = remainder_id ~= '' and number - remainder_base or 0
  if status == 'completed' and length ~= '' and not closed then
    -- Entries of an attempt are only ever added, so a stream that lacks one of them has a hole.
    local expected = tonumber(length) + (have > 0 and 1 or 0)  -- of an append whose reply was lost there is one entry
    if redis.call('XLEN', P .. 'tokens:' .. rid) ~= expected then return {'incomplete', number} end
  end
  if not closed and remainder_id ~= '' and number < last then
    if have > 0 then return {'overlap', number} end
    if have == 0 then
      at = whole(now * 1000 + 0.5)
      redis.call('XADD', P .. 'tokens:' .. rid, remainder_id, 't', remainder, 'at', at)
      if #remainder <= 1048576 then  -- otherwise readers see by the end that they have to read it: see append
        before = {remainder_id, remainder, record.start_nonce or '', whole(last - remainder_base)}
      end
      if has_first == '1' then record.first_token_at = secs(now) end
      number = last
    end
  end
  if status == 'completed' and number ~= last then return {'incomplete', number} end
  if status == 'completed' and record.cancel_mode == 'stop' then finish_reason = 'stop' end
  if status == 'failed' and error_detail ~= '' then record.error_detail = error_detail end
  -- An upstream's own time-out has details.
  if status == 'failed' and error_type == 'response_timeout' and error_detail == '' then
    record.ended_by_limit = error_type
  end
  if status == 'completed' then items_to_find = item_ids end
  return ends_with(outcome_of(status, error_type, message, finish_reason))
end

for i = 2, #ARGV, ARGUMENTS do reply_with(finish, i) end
settle_ends()
return all_replies()
