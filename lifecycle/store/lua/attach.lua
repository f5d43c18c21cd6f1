#!lua flags=allow-oom
-- attach: sends the later tokens and events of a request to the inbox of this frontend too.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, frontend, readers (its number of HTTP readers now; absolute, so a repetition changes nothing)
-- Returns the record ('' when unknown), or {'fenced'}. A request that has ended is only read: its stream is complete.

local P = KEYS[1]
local shift, rid, frontend, readers = unpack(ARGV)
--- @include commands record readers orphans steps
--- @permit

if redis.call('EXISTS', P .. 'fenced:' .. frontend) == 1 then return {'fenced'} end
local record = load_record(rid)
if not record then return '' end
if not is_terminal(record) then
  local before = tonumber(redis.call('HGET', P .. 'readers:' .. rid, frontend) or '0')
  redis.call('HSET', P .. 'readers:' .. rid, frontend, readers)
  if tonumber(readers) ~= before then
    local step = tonumber(readers) > before and 'reader_attached' or 'reader_left'
    note_step(record, {what = step, frontend = frontend})
  end
  if record.frontend ~= frontend then
    if tonumber(readers) > 0 then
      redis.call('SADD', P .. 'reading:' .. frontend, rid)
      redis.call('HSETNX', P .. 'ticks', frontend, '0')
    else
      redis.call('SREM', P .. 'reading:' .. frontend, rid)
    end
  end
  note_readers(record)
  if tonumber(readers) > 0 then
    redis.call('ZREM', P .. 'deadlines', 'grace|' .. rid)
    if not record.cancel_mode then end_orphans(record) end
  end
end
return public_record(record)
