#!lua flags=no-writes,allow-oom
-- read: reads one record, with the live progress of a running request.
-- KEYS[1] shard prefix
-- ARGV    shift (unused), rid
-- Returns the record, '' when it is unknown or has expired.

local P = KEYS[1]
local _, rid = unpack(ARGV)
--- @include record

return public_record(load_record(rid))
