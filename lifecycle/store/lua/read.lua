#!lua flags=no-writes,allow-oom
-- read: one record, with the live progress of a running request.
-- KEYS[1] shard prefix
-- ARGV    shift, rid
-- Returns the record as a flat field list, empty when unknown or expired.

local P = KEYS[1]
--- @include clock record
return public_record(ARGV[2], load_record(ARGV[2]))
