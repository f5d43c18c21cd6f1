#!lua flags=allow-oom
-- disconnect: records that an HTTP connection of a request has ended, and cancels, begins the grace or continues.
-- KEYS[1] shard prefix
-- ARGV    shift, rid, frontend, readers (its number of HTTP readers now, absolute), connection
--         (`closed_unexpectedly` | `closed_gracefully`), admitting ('1' for the connection that brought the request),
--         retention_secs
-- Returns {what, first, grace_secs}: what is 'unknown', 'terminal', 'pending' (cancelled), 'grace' (a reader may
--         return) or 'continues'; first is 1 when this was the request's first unexpected loss of its client.

local P = KEYS[1]
local shift, rid, frontend, readers, connection, admitting, retention_secs = unpack(ARGV)
local retention = tonumber(retention_secs)
--- @include commands record readers events steps cancelling
--- @permit

local record = load_record(rid)
if not record then return {'unknown', 0, '0'} end
local new_status = admitting == '1' and not record.connection
local first = new_status and connection == 'closed_unexpectedly' and 1 or 0

-- Redis may refuse to publish, so this comes behind what is written here.
local function publish_connection()
  if new_status then publish(rid, {type = 'connection', status = connection}) end
end

if new_status then set_field(record, 'connection', connection) end
if is_terminal(record) then
  publish_connection()
  return {'terminal', first, '0'}
end
local before = tonumber(redis.call('HGET', P .. 'readers:' .. rid, frontend) or '0')
-- The owner stays among the readers, because it monitors the stream without an HTTP reader.
if tonumber(readers) > 0 or record.frontend == frontend then
  redis.call('HSET', P .. 'readers:' .. rid, frontend, readers)
  if record.frontend ~= frontend then redis.call('SADD', P .. 'reading:' .. frontend, rid) end
else
  redis.call('HDEL', P .. 'readers:' .. rid, frontend)
  redis.call('SREM', P .. 'reading:' .. frontend, rid)
end
note_readers(record)
if new_status or tonumber(readers) < before then
  local step = admitting == '1' and 'client_disconnected' or 'reader_left'
  if step == 'client_disconnected' and connection == 'closed_gracefully' then step = 'client_closed' end
  note_step(record, {what = step, frontend = frontend})
end
local what = 'continues'
if connection == 'closed_unexpectedly' then
  what = reader_disconnected(record, frontend)
end
publish_connection()
return {what, first, record.grace_secs or '0'}
