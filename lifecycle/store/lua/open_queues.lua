#!lua flags=allow-oom
-- open_queues: makes the queues of models, with the consumer group through which workers take what waits.
-- KEYS[1] shard prefix
-- ARGV    shift (unused), models (JSON list)
-- Returns how many groups were missing. As a script it runs although the memory is full: a worker that starts then must
-- be able to take what waits, or nothing would become free again.

local P = KEYS[1]
local _, models = unpack(ARGV)
--- @include commands

local made = 0
for _, model in ipairs(cjson.decode(models)) do
  for _, queue in ipairs({'queue', 'retry'}) do
    -- From entry 0: what was queued before the group was made, or after Redis had lost it, must be delivered too.
    local key = P .. queue .. ':' .. model
    if unless_error('BUSYGROUP', 'XGROUP', 'CREATE', key, 'workers', '0', 'MKSTREAM') then made = made + 1 end
  end
end
return made
