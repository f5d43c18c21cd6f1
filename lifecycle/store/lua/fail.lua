#!lua flags=allow-oom
-- fail: ends a request that nobody can serve as it should be: on behalf of its frontend because of inactivity, a reader
--         that reads nothing, or a shutdown; or on behalf of a worker that can neither run it nor hand it on.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, error_type, message, seen (number of the last token seen, '' to end it whatever has come since),
--         error_detail (JSON, '' for none), only_queued ('1' to end it only while it is queued), retention_secs
-- Returns {'done', record}, {'already', record}, {'unknown'}, {'moved'} when a token came after the number given, it is
--         queued no more, or others read beside the client that reads nothing, or {'killing'} when a kill is pending, which
--         the worker confirms.
-- The worker is notified to kill the request; it no longer counts as inflight.

local P = KEYS[1]
local shift, rid, error_type, message, seen, error_detail, only_queued, retention_secs = unpack(ARGV)
local retention = tonumber(retention_secs)
--- @include commands stream record readers outcomes terminal
--- @permit

local record = load_record(rid)
if not record then return {'unknown'} end
if is_terminal(record) then return {'already', public_record(record)} end
if is_being_killed(record) then return {'killing'} end
if only_queued == '1' and record.status ~= 'queued' then return {'moved'} end
if seen ~= '' and stream_end(rid) > tonumber(seen) then return {'moved'} end
if error_type == 'slow_consumer' and live_readers(rid) > 1 then return {'moved'} end

if error_detail ~= '' then record.error_detail = error_detail end
if error_type == 'response_timeout' or error_type == 'slow_consumer' then
  record.ended_by_limit, record.limit_via = error_type, record.frontend
end
return {'done', terminate_and_kill(record, outcome_of('failed', error_type, message))}
