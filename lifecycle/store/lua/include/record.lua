-- Reading a record. `P` is the shard's prefix, bound by the script from KEYS[1].

-- The record as a table, or nil when unknown or expired. A key of another type is no record either: one such must not
-- end a reap or a sweep on its way to the others.
local function load_record(rid)
  local flat = redis.pcall('HGETALL', P .. 'request:' .. rid)
  if flat.err or #flat == 0 then return nil end
  local record = {}
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  return record
end

local function is_terminal(record)
  return record.status == 'completed' or record.status == 'failed' or record.status == 'cancelled'
end

-- The record as JSON for the caller: without what only the scripts need, live progress filled in; '' when there is none.
local function public_record(rid, record)
  if not record then return '' end
  if record.status == 'running' or (record.status == 'queued' and record.attempt ~= '0') then
    local number, at = stream_end(rid)
    record.output_tokens = tostring(number)
    if number > 0 and at then record.last_token_at = secs(tonumber(at) / 1000) end
  end
  record.nonce, record.queue, record.entry, record.started_entry, record.resumable = nil
  return cjson.encode(record)
end
