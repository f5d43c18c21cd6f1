#!lua flags=allow-oom
-- lost_start: a replica reports an attempt whose tokens it has produced or read, in case Redis has lost its start. The
--         request may run anew under the same number, so the tokens of two answers could be joined: it ends.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, attempt, nonce (of its start), status (`failed` | `cancelled`), error_type, message, retention_secs
-- Returns {'known'} when Redis has this start, or cannot tell; {'unknown'}; {'done', record}; {'already', record} when the
--         request has ended; or {'killing', record} when a kill is pending, which its worker confirms. In the last three
--         cases the record's `lost_start` says that positions in this attempt cannot be resumed from. In the case of
--         {'unknown'} that of the next request with this id will.

local P = KEYS[1]
local shift, rid, attempt, nonce, status, error_type, message, retention_secs = unpack(ARGV)
local retention = tonumber(retention_secs)
--- @include commands stream record outcomes terminal
--- @permit

local record = load_record(rid)
if not record then
  -- Its admission is lost too, so it may be admitted and started anew under the same id.
  local key = P .. 'lost_start:' .. rid
  if tonumber(redis.call('GET', key) or '0') < tonumber(attempt) then
    redis.call('SET', key, attempt, 'PX', string.format('%.0f', tonumber(retention_secs) * 1000))
  end
  return {'unknown'}
end
local reached = tonumber(record.attempt) - tonumber(attempt)
if reached == 0 and (record.start_nonce or nonce) == nonce then return {'known'} end
if reached > 0 then
  local opening = redis.call('XRANGE', P .. 'tokens:' .. rid, attempt .. '-0', attempt .. '-' .. CLOSED, 'COUNT', '1')[1]
  if not opening or (opening[2][6] or nonce) == nonce then return {'known'} end
end
if tonumber(record.lost_start or '0') < tonumber(attempt) then
  record.lost_start = attempt
  redis.call('HSET', P .. 'request:' .. rid, 'lost_start', attempt)
end
if is_terminal(record) then return {'already', public_record(record)} end
if is_being_killed(record) then return {'killing', public_record(record)} end
return {'done', terminate_and_kill(record, outcome_of(status, error_type, message))}
