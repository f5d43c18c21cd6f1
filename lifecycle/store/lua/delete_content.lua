#!lua flags=allow-oom
-- delete_content: deletes the body and the events of a request: at once if it has ended, else at its end.
-- KEYS[1] shard prefix
-- ARGV    shift, rid
-- Returns {'deleted', record}, {'pending', record} when the request has not ended (nothing cancels it here), or
--         {'unknown'}. The record stays. A repetition returns the state that the request has then.

local P = KEYS[1]
local shift, rid = unpack(ARGV)
--- @include commands record content
--- @permit

local record = load_record(rid)
if not record then return {'unknown'} end
if record.storage ~= 'deleted' then set_field(record, 'storage', 'deleted') end
if not is_terminal(record) then return {'pending', public_record(record)} end
remove_content(rid)
if record.stored_bytes then uncount(record.owner or '', record.stored_bytes .. '|' .. rid) end
return {'deleted', public_record(record)}
