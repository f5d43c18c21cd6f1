#!lua flags=no-writes,allow-oom
-- forbidden: finds commands that the caller may not run; nothing is run.
-- KEYS[1] shard prefix
-- ARGV    shift (unused), commands (JSON list of names)
-- Returns those that are forbidden.

local P = KEYS[1]
local _, commands = unpack(ARGV)
--- @include commands

local forbidden = {}
for _, name in ipairs(cjson.decode(commands)) do
  if refusal(name) then forbidden[#forbidden + 1] = name end
end
return forbidden
