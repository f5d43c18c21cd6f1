#!lua flags=allow-oom
-- configure: changes one of the common settings for the whole running cluster; replicas learn it by their heartbeats.
-- KEYS[1] control prefix
-- ARGV    shift (unused), name, value
-- Returns {'ok', value before}, or {'unknown'} when no replica has joined yet.

local P = KEYS[1]
local _, name, value = unpack(ARGV)
--- @include commands
--- @permit

local before = redis.call('HGET', P .. 'config', name)
if not before then return {'unknown'} end
if before ~= value then
  redis.call('HSET', P .. 'config', name, value)
  redis.call('HINCRBY', P .. 'config', 'revision', '1')
end
return {'ok', before}
