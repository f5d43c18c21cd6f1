-- Reading a record. `P` is the shard's prefix, bound by the script from KEYS[1].

local CLOSED = '18446744073709551615'  -- the attempt no append can exceed: an entry with it closes the stream

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

-- Number of the last token, the time of the last entry (milliseconds), whether the stream is closed, and the attempt
-- of the last entry. `<attempt>-<CLOSED>` ends an attempt that was given back, and says how far the tokens go. Each entry
-- has two fields, the second is `at`; but the one that closes the stream.
local function stream_end(rid)
  local closed, key = false, P .. 'tokens:' .. rid
  local entry = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  if entry and entry[1] == CLOSED .. '-' .. CLOSED then
    closed = true
    entry = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 2)[2]
  end
  if not entry then return 0, nil, closed, '0' end
  local attempt, number = string.match(entry[1], '(%d+)-(%d+)')
  local _, value, _, at = unpack(entry[2])
  if number == CLOSED then number = value end  -- of the field `g`
  return tonumber(number) or 0, at ~= '' and at or nil, closed, attempt
end

-- What is due at a time of its own; the record notes that there is such a thing.
local function falls_due(rid, kind, at)
  redis.call('HSET', P .. 'request:' .. rid, 'due', 1)
  redis.call('ZADD', P .. 'deadlines', 'NX', secs(at), kind .. '|' .. rid)
end

-- How many HTTP readers are attached at living frontends.
local function live_readers(rid)
  local total, flat = 0, redis.call('HGETALL', P .. 'readers:' .. rid)
  for i = 1, #flat, 2 do
    if tonumber(flat[i + 1]) > 0 and redis.call('EXISTS', P .. 'dead:' .. flat[i]) == 0 then
      total = total + tonumber(flat[i + 1])
    end
  end
  return total
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
