-- Records. `P` is the shard's prefix, which the script takes from KEYS[1].
--- @include commands numbers stream

-- Runs a command that reads a table, and returns an empty one for a Redis key of another type, so that it does not fail
-- a reap or a sweep of other requests.
local function read_typed(...)
  return unless_error('WRONGTYPE', ...) or {}
end

-- Returns the record as a table, or nil when it is unknown or has expired. A Redis key of another type is unknown.
-- In RESP3 Redis makes the table by itself, which costs a third less. fakeredis has only RESP2.
local function load_record(rid)
  local set_resp, record = redis.setresp, nil
  if set_resp then
    set_resp(3)
    record = read_typed('HGETALL', P .. 'request:' .. rid).map or {}
    set_resp(2)
  else
    local flat = read_typed('HGETALL', P .. 'request:' .. rid)
    record = {}
    for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  end
  if next(record) == nil then return nil end
  record.id = rid
  return record
end

-- Sets a field of a record, also in Redis.
local function set_field(record, field, value)
  record[field] = value
  redis.call('HSET', P .. 'request:' .. record.id, field, value)
end

local function is_terminal(record)
  return record.status == 'completed' or record.status == 'failed' or record.status == 'cancelled'
end

-- Returns whether a request is to be killed, which its worker has yet to confirm.
local function is_being_killed(record) return record.status == 'running' and record.cancel_mode == 'kill' end

-- Returns how many of the `number` events of a request's stream are its output. Before the first event that counts as
-- one, there are only openings, which say that the answer begins.
local function length_without_openings(record, number)
  return record.first_token_at and number or 0
end

-- Fields that only scripts need. The last five are none of the record in Redis.
local INTERNAL = {'nonce', 'resumable', 'headers', 'cost', 'weight', 'prompt_tokens', 'max_tokens', 'queued_at', 'share',
  'failures', 'needs', 'orphan_from', 'webhook_event', 'webhook_url', 'stored_bytes', 'stored_limit_bytes',
  'transient_secs', 'quota_slot', 'steps', 'steps_left_out', 'parent_since', 'level', 'has_children',
  'killed_for', 'reported_tokens', 'produced_events', 'ended_by_limit', 'limit_via'}

-- Returns the record as JSON, with live progress and without the fields that only scripts need; '' for no record.
local function public_record(record)
  if not record then return '' end
  if record.status == 'running' or (record.status == 'queued' and (record.attempt ~= '0' or record.storage)) then
    local number, at = stream_end(record.id)
    local length = tostring(length_without_openings(record, number))
    record.output_tokens, record.output_events, record.stream_length = length, length, tostring(number)
    if number > 0 and at then record.last_token_at = secs(tonumber(at) / 1000) end
  end
  for i = 1, #INTERNAL do
    local field = INTERNAL[i]
    if record[field] then record[field] = nil end  -- to assign nil would add a field that is not there, and costs more
  end
  return cjson.encode(record)
end
