#!lua flags=allow-oom
-- cancel: records the intent to stop or kill a request, from any replica; a queued request ends at once.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, mode (`stop` | `kill`), reason, by (who cancels it), via (the frontend that it came through, '' for
--         none), retention_secs
-- Returns {'terminal', record}, {'pending', record} while its worker has not confirmed, or {'unknown'}.
-- A kill closes the token stream, so that no token follows it. It is final: a later stop changes nothing.

local P = KEYS[1]
local shift, rid, mode, reason, by, via, retention_secs = unpack(ARGV)
local retention = tonumber(retention_secs)
--- @include commands record cancelling
--- @permit

local record = load_record(rid)
if not record then return {'unknown'} end
local state = cancel_request(record, mode, reason, by, via)
return {state, public_record(record)}
