#!lua flags=no-writes,allow-oom
-- timeline: reads one record, and the steps that only its timeline shows.
-- KEYS[1] shard prefix
-- ARGV    shift (unused), rid
-- Returns {record, steps, left_out}: steps are lines of JSON, and left_out is how many others were not kept; {} when the
--         request is unknown or has expired.

local P = KEYS[1]
local _, rid = unpack(ARGV)
--- @include record

local record = load_record(rid)
if not record then return {} end
local steps, left_out = record.steps or '', record.steps_left_out or '0'
return {public_record(record), steps, left_out}
