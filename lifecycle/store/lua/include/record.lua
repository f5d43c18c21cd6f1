-- Records. `P` is the shard's prefix, which the script takes from KEYS[1].

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

local function is_terminal(record)
  return record.status == 'completed' or record.status == 'failed' or record.status == 'cancelled'
end

-- Returns how many of the `number` events of a request's stream are its output. Before the first event that counts as
-- one, there are only openings, which say that the answer begins.
local function length_without_openings(record, number)
  return (record.first_token_at or '') ~= '' and number or 0
end

-- Returns the record as JSON, with live progress and without the fields that only scripts need; '' for no record.
local function public_record(rid, record)
  if not record then return '' end
  if record.status == 'running' or (record.status == 'queued' and (record.attempt ~= '0' or record.storage)) then
    local number, at = stream_end(rid)
    local length = tostring(length_without_openings(record, number))
    record.output_tokens, record.output_events, record.stream_length = length, length, tostring(number)
    if number > 0 and at then record.last_token_at = secs(tonumber(at) / 1000) end
  end
  record.nonce, record.resumable, record.headers, record.cost, record.weight, record.prompt_tokens = nil
  record.max_tokens, record.queued_at, record.share = nil
  record.failures, record.needs, record.orphan_from, record.webhook_event, record.webhook_url = nil
  record.stored_bytes, record.stored_limit_bytes, record.transient_secs, record.quota_slot = nil
  record.steps, record.steps_left_out = nil
  record.parent_since, record.level, record.has_children = nil
  return cjson.encode(record)
end
