#!lua flags=no-writes,allow-oom
-- forbidden: finds commands that the caller may not run; nothing is run.
-- KEYS[1] shard prefix
-- ARGV    shift (unused), commands (JSON list of names; a subcommand follows its command after a space)
-- Returns those that are forbidden.

local P = KEYS[1]
local _, commands = unpack(ARGV)
--- @include commands

local forbidden = {}
for _, name in ipairs(cjson.decode(commands)) do
  local command, subcommand = string.match(name, '^(%S+) ?(%S*)$')
  if refusal(command, subcommand ~= '' and subcommand or nil) then forbidden[#forbidden + 1] = name end
end
return forbidden
