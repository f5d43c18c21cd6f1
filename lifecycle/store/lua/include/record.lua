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
-- of the last entry. `<attempt>-<CLOSED>` ends an attempt that was given back, and says how far the tokens go.
local function stream_end(rid)
  local closed = false
  for _, entry in ipairs(redis.call('XREVRANGE', P .. 'tokens:' .. rid, '+', '-', 'COUNT', 2)) do
    local attempt, number = string.match(entry[1], '(%d+)-(%d+)')
    if attempt == CLOSED then
      closed = true
    else
      local fields = {}
      for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
      if number == CLOSED then number = fields.g end
      return tonumber(number) or 0, fields.at ~= '' and fields.at or nil, closed, attempt
    end
  end
  return 0, nil, closed, '0'
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

-- Flat field list for the caller: the record without what only Redis needs, live progress filled in.
local function public_record(rid, record)
  if not record then return {} end
  if record.status == 'running' or (record.status == 'queued' and record.attempt ~= '0') then
    local number, at = stream_end(rid)
    record.output_tokens = tostring(number)
    if number > 0 and at then record.last_token_at = secs(tonumber(at) / 1000) end
  end
  local flat = {}
  for field, value in pairs(record) do
    if field ~= 'body' and field ~= 'nonce' then
      flat[#flat + 1] = field
      flat[#flat + 1] = value
    end
  end
  return flat
end
