#!lua flags=no-writes,allow-oom
-- parents: tells what has become of requests that have started others.
-- KEYS[1] shard prefix
-- ARGV    shift (unused), parents (JSON list of {rid, created_at})
-- Returns for each of them `live`, `stop` (it is to stop, or did), `over` (it has completed), `cancelled` (it is to be
--         killed, or was), `failed`, or `lost`: by a replica, or by Redis, or another request has its id now.

local P = KEYS[1]
local _, parents = unpack(ARGV)
--- @include commands

local LOST = {worker_lost = true, frontend_lost = true, state_lost = true}

local function state_of(rid, since)
  local record = unless_error('WRONGTYPE', 'HMGET', P .. 'request:' .. rid, 'created_at', 'status', 'cancel_mode',
    'error_type')
  if not record or record[1] ~= since then
    local ended = unless_error('WRONGTYPE', 'GET', P .. 'ended_parent:' .. rid)
    record = ended and cjson.decode(ended)
  end
  if not record or record[1] ~= since then return 'lost' end
  local _, status, cancel_mode, error_type = unpack(record, 1, 4)
  if status == 'failed' then return LOST[error_type or ''] and 'lost' or 'failed' end
  if status == 'cancelled' then return 'cancelled' end
  if cancel_mode == 'stop' then return 'stop' end
  if status == 'completed' then return 'over' end
  return cancel_mode == 'kill' and 'cancelled' or 'live'
end

local states = {}
for i, parent in ipairs(cjson.decode(parents)) do states[i] = state_of(parent[1], parent[2]) end
return states
