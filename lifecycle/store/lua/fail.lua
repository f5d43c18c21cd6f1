#!lua flags=allow-oom
-- fail: a frontend gives up on a request it owns: its worker is silent, its reader takes nothing, it must shut down.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, error_type, message, seen (number of the last token seen, '' for whatever came since),
--         retention_secs
-- Returns {'done', record}, {'already', record}, {'unknown'}, {'moved'} when a token came after the number given, or
--         {'killing'} when a kill is pending: the end is then the worker's to confirm.
-- The worker is ordered to kill; the gauge is released now.

local P = KEYS[1]
local shift, rid, error_type, message, seen, retention_secs = unpack(ARGV)
--- @include clock stream record events counts queue terminal

local record = load_record(rid)
if not record then return {'unknown'} end
if is_terminal(record) then return {'already', public_record(rid, record)} end
if record.status == 'running' and record.cancel_mode == 'kill' then return {'killing'} end
local number = stream_end(rid)
if seen ~= '' and number > tonumber(seen) then return {'moved'} end

local worker, running = record.worker, record.status == 'running'
local _, public = terminate(rid, record, clock(shift), tonumber(retention_secs),
  outcome_of('failed', error_type, message, '', number))
if running then notify_worker(worker, rid, 'kill', error_type) end
return {'done', public}
